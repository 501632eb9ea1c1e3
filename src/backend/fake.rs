//! A fake: a device of our own in software. Registers are calls on a [`FakeDevice`], memory is this process's.
//!
//! The test's device reads and writes DMA memory through [`FakeMemory`], which refuses what is not
//! mapped, as an IOMMU does, and remembers it. So a driver can be tested against a device that
//! behaves, and against one that breaks the protocol.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::fs::File;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::{MmapOptions, MmapRaw};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Backend, Found, check_bar, out_of_reach};
use crate::dma::{DmaSpace, Iova, IovaAllocator, Mapping, SpaceId};
use crate::error::{Error, Result};
use crate::irq::{Irq, IrqKind, IrqLine};
use crate::mmio::{Mmio, Place, Width};
use crate::pci::config::Config;

const PAGE: usize = 4096;

/// A device in software: its BARs and its config space.
pub trait FakeDevice: Send {
    /// A register is read.
    fn read(&mut self, place: Place) -> u64;

    /// A register is written.
    fn write(&mut self, place: Place, value: u64, memory: &FakeMemory);

    /// The function's 256 bytes of config space.
    fn config(&mut self) -> &mut [u8; 256];

    /// Keeps the eventfd of a vector that interrupts the driver.
    fn connect_irq(&mut self, _vector: usize, _event: EventFd) {}

    /// The driver has unmasked the interrupt: a level-triggered one still pending fires again.
    fn unmask_irq(&mut self) {}
}

/// Registers of which none is of interest.
struct NoDevice([u8; 256]);

impl FakeDevice for NoDevice {
    fn read(&mut self, _: Place) -> u64 {
        0
    }

    fn write(&mut self, _: Place, _: u64, _: &FakeMemory) {}

    fn config(&mut self) -> &mut [u8; 256] {
        &mut self.0
    }
}

/// A [`Backend`] whose device is a [`FakeDevice`].
pub struct Fake {
    bar: FakeBar,
    dma: Arc<dyn DmaSpace>,
}

impl Fake {
    /// A function whose BARs are `size` bytes of `device` each.
    pub fn new(device: Arc<Mutex<dyn FakeDevice>>, size: usize) -> Self {
        Self::beside(device, size, &Arc::new(FakeMemory::new()))
    }

    /// The same, reaching the `memory` of another function: both in one IOMMU domain.
    pub fn beside(
        device: Arc<Mutex<dyn FakeDevice>>,
        size: usize,
        memory: &Arc<FakeMemory>,
    ) -> Self {
        let fake = Self {
            bar: FakeBar {
                device,
                index: 0,
                size,
                memory: Arc::clone(memory),
            },
            dma: memory.clone(),
        };
        super::set_intx(&fake, false).expect("its config space is an array");
        fake
    }

    /// A function that does nothing, for the sake of its memory.
    pub fn idle() -> Self {
        Self::new(Arc::new(Mutex::new(NoDevice([0; 256]))), PAGE)
    }

    /// The memory that is mapped for the device.
    pub fn memory(&self) -> &Arc<FakeMemory> {
        &self.bar.memory
    }
}

impl Config for Fake {
    fn read(&self, offset: u16, into: &mut [u8]) -> Result<()> {
        let offset = usize::from(offset);
        into.copy_from_slice(&self.bar.device().config()[offset..offset + into.len()]);
        Ok(())
    }

    fn write(&self, offset: u16, from: &[u8]) -> Result<()> {
        let offset = usize::from(offset);
        self.bar.device().config()[offset..offset + from.len()].copy_from_slice(from);
        Ok(())
    }
}

impl Backend for Fake {
    type Bar = FakeBar;

    fn name(&self) -> &str {
        "fake"
    }

    fn map_bar(&self, index: u8, least: usize) -> Result<FakeBar> {
        let found = match self.bar.size {
            _ if index > 5 => Found::Nothing,
            0 => Found::Nothing,
            size => Found::Memory(size as u64),
        };
        check_bar(self.name(), index, found, least)?;
        Ok(FakeBar {
            index,
            ..self.bar.clone()
        })
    }

    fn map_ports(&self, least: usize) -> Result<FakeBar> {
        let index = self.io_bar()?.ok_or_else(|| Error::NotOffered {
            device: self.name().to_owned(),
            what: "reach its I/O ports: it has no such BAR".to_owned(),
        })?;
        Ok(FakeBar {
            index,
            size: least,
            ..self.bar.clone()
        })
    }

    fn dma(&self) -> &Arc<dyn DmaSpace> {
        &self.dma
    }

    fn interrupts(&self, kind: IrqKind, count: usize) -> Result<Vec<Irq>> {
        let os = |error| Error::io("making an eventfd", error);
        super::set_intx(self, kind == IrqKind::Intx && count > 0)?;
        (0..count)
            .map(|vector| {
                let event = EventFd::new(EFD_NONBLOCK).map_err(os)?;
                let theirs = event.try_clone().map_err(os)?;
                self.bar.device().connect_irq(vector, theirs);
                Ok(Irq::new(event, Box::new(FakeLine(self.bar.clone()))))
            })
            .collect()
    }

    fn reset(&self) -> Result<bool> {
        Ok(false)
    }

    fn has_iommu(&self) -> bool {
        true
    }
}

struct FakeLine(FakeBar);

impl IrqLine for FakeLine {
    fn unmask(&self) -> Result<()> {
        self.0.device().unmask_irq();
        Ok(())
    }
}

/// A BAR of a [`Fake`].
#[derive(Clone)]
pub struct FakeBar {
    device: Arc<Mutex<dyn FakeDevice>>,
    index: u8,
    size: usize,
    memory: Arc<FakeMemory>,
}

impl FakeBar {
    fn device(&self) -> MutexGuard<'_, dyn FakeDevice + 'static> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, offset: usize, width: Width) -> Place {
        assert!(offset.is_multiple_of(width.bytes()) && offset + width.bytes() <= self.size);
        Place {
            bar: self.index,
            offset,
            width,
        }
    }
}

impl Mmio for FakeBar {
    fn size(&self) -> usize {
        self.size
    }

    fn read(&self, offset: usize, width: Width) -> u64 {
        let place = self.place(offset, width);
        self.device().read(place) & width.ones()
    }

    fn write(&self, offset: usize, width: Width, value: u64) {
        let place = self.place(offset, width);
        let value = value & width.ones();
        self.device().write(place, value, &self.memory);
    }
}

/// Memory mapped for a fake device, found by IOVA.
#[derive(Debug)]
pub struct FakeMemory {
    id: SpaceId,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    iovas: IovaAllocator,
    mapped: BTreeMap<Iova, Block>,
    faults: Vec<Iova>,
}

#[derive(Debug)]
struct Block {
    mapping: Mapping,
    /// The file's mapping; none for memory of our own.
    file: Option<MmapRaw>,
}

impl FakeMemory {
    fn new() -> Self {
        // As an x86 IOMMU reports it: 39 bits, without the interrupt window.
        let valid = [0..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff];
        Self {
            id: SpaceId::new(),
            inner: Mutex::new(Inner {
                iovas: IovaAllocator::new(valid),
                mapped: BTreeMap::new(),
                faults: Vec::new(),
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of mappings.
    pub fn mappings(&self) -> usize {
        self.inner().mapped.len()
    }

    /// The addresses at which the device was refused, in order.
    pub fn faults(&self) -> Vec<Iova> {
        self.inner().faults.clone()
    }

    /// The device reads `into.len()` bytes at `iova`; `false`, and a fault, where that is not mapped.
    pub fn read(&self, iova: u64, into: &mut [u8]) -> bool {
        self.access(iova, into.len(), false, |ptr| {
            // SAFETY: `access` found these bytes mapped and holds the lock that unmapping takes.
            unsafe { ptr.copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) }
        })
    }

    /// The device writes `from` at `iova`; `false`, and a fault, where it may not.
    pub fn write(&self, iova: u64, from: &[u8]) -> bool {
        self.access(iova, from.len(), true, |ptr| {
            // SAFETY: as in `read`.
            unsafe { ptr.copy_from_nonoverlapping(from.as_ptr(), from.len()) }
        })
    }

    fn access(&self, iova: u64, len: usize, write: bool, f: impl FnOnce(*mut u8)) -> bool {
        let mut inner = self.inner();
        let found = inner.mapped.range(..=Iova(iova)).next_back();
        let place = found.and_then(|(start, block)| {
            let offset = usize::try_from(iova - start.0).ok()?;
            let fits = offset.checked_add(len)? <= block.mapping.len;
            let may = !(write && block.file.is_some());
            (fits && may).then(|| block.mapping.ptr.as_ptr().wrapping_add(offset))
        });
        match place {
            Some(ptr) => f(ptr),
            None => inner.faults.push(Iova(iova)),
        }
        place.is_some()
    }

    fn add(&self, ptr: NonNull<u8>, len: usize, file: Option<MmapRaw>) -> Result<Mapping> {
        let mut inner = self.inner();
        let Some(iova) = inner.iovas.alloc(len as u64, PAGE as u64) else {
            return Err(Error::NoIova {
                device: "fake".to_owned(),
                len: len as u64,
                ranges: inner.iovas.ranges(),
            });
        };
        let mapping = Mapping {
            ptr,
            len,
            iova,
            page: PAGE,
        };
        inner.mapped.insert(iova, Block { mapping, file });
        Ok(mapping)
    }
}

/// Whole pages that hold `len` bytes; an error where there are not so many addresses.
fn pages(len: usize) -> Result<Layout> {
    let rounded = len.max(1).checked_next_multiple_of(PAGE);
    let layout = rounded.and_then(|len| Layout::from_size_align(len, PAGE).ok());
    layout.ok_or_else(|| Error::Io {
        what: format!("allocating {len} bytes"),
        source: std::io::ErrorKind::OutOfMemory.into(),
    })
}

// SAFETY: each mapping is an allocation or a file's map of its own, kept until `unmap`.
unsafe impl DmaSpace for FakeMemory {
    fn id(&self) -> SpaceId {
        self.id
    }

    fn limit(&self, device: &str, last: Iova) -> Result<()> {
        let limited = self.inner().iovas.limit(last);
        limited.map_err(|end| out_of_reach(device, last, end))
    }

    fn alloc(&self, len: usize) -> Result<Mapping> {
        let layout = pages(len)?;
        // SAFETY: the layout has a size, and alignment is a power of two.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) });
        let ptr = ptr.ok_or_else(|| Error::Io {
            what: format!("allocating {len} bytes"),
            source: std::io::ErrorKind::OutOfMemory.into(),
        })?;
        let added = self.add(ptr, layout.size(), None);
        if added.is_err() {
            // SAFETY: allocated above, and nobody got it.
            unsafe { dealloc(ptr.as_ptr(), layout) }
        }
        added
    }

    fn map_file(&self, file: &File, offset: u64, len: usize) -> Result<Mapping> {
        let len = pages(len)?.size();
        let map = MmapOptions::new()
            .offset(offset)
            .len(len)
            .map_raw_read_only(file)
            .map_err(|error| Error::io("mapping a file", error))?;
        let ptr = NonNull::new(map.as_mut_ptr()).expect("mmap never gives null");
        self.add(ptr, len, Some(map))
    }

    unsafe fn unmap(&self, mapping: &Mapping) {
        let mut inner = self.inner();
        inner.remove(mapping);
        inner.iovas.free(mapping.iova);
    }

    /// It cuts the device off as an IOMMU does, so the memory is freed.
    unsafe fn quarantine(&self, mapping: &Mapping) {
        self.inner().remove(mapping);
    }
}

impl Inner {
    /// The device cannot reach it any more, and the memory is freed.
    fn remove(&mut self, mapping: &Mapping) {
        if let Some(block) = self.mapped.remove(&mapping.iova)
            && block.file.is_none()
            && let Ok(layout) = pages(mapping.len)
        {
            // SAFETY: allocated in `alloc` with this layout, and nobody uses it any more.
            unsafe { dealloc(mapping.ptr.as_ptr(), layout) }
        }
    }
}

//! The device's memory: QEMU's RAM is a file that we have mapped, too.
//!
//! No IOMMU is in between: what the device sees at an address is what lies at that offset of the
//! file, all of it, whether it was handed out or not.

use std::fs::File;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use memmap2::{MmapOptions, MmapRaw};

use super::files::Files;
use super::wire::lock;
use crate::backend::out_of_reach;
use crate::dma::{DmaSpace, Iova, IovaAllocator, Mapping, SpaceId};
use crate::error::{Error, Result};

/// Size of a page, in bytes: QEMU's x86 machine has no other.
pub(super) const PAGE: usize = 4096;

/// QEMU's RAM in bytes. Pages that nobody touched take none of the host's; q35 has it in one piece
/// up to 2 GiB.
pub(super) const RAM: usize = 256 << 20;

/// The first MiB has holes: the VGA's window, the BIOS.
const FIRST: u64 = 1 << 20;

/// Memory that is mapped for the device.
pub(super) struct Memory {
    id: SpaceId,
    device: String,
    ram: MmapRaw,
    iovas: Mutex<IovaAllocator>,
    files: Files,
}

impl Memory {
    pub fn new(device: String, ram: &File, files: Files) -> Result<Arc<Self>> {
        let ram = MmapOptions::new()
            .len(RAM)
            .map_raw(ram)
            .map_err(|error| Error::io("mapping the memory that QEMU shares", error))?;
        Ok(Arc::new(Self {
            id: SpaceId::new(),
            device,
            ram,
            iovas: Mutex::new(IovaAllocator::new([FIRST..=RAM as u64 - 1])),
            files,
        }))
    }
}

// SAFETY: a mapping is a stretch of `ram` that the allocator gave to nobody else, or a file's map of
// its own; both stay until `unmap` and as long as the space.
unsafe impl DmaSpace for Memory {
    fn id(&self) -> SpaceId {
        self.id
    }

    fn limit(&self, device: &str, last: Iova) -> Result<()> {
        let limited = lock(&self.iovas).limit(last);
        let limited = limited.and_then(|()| self.files.limit(last));
        limited.map_err(|end| out_of_reach(device, last, end))
    }

    fn alloc(&self, len: usize) -> Result<Mapping> {
        let len = len.max(1).checked_next_multiple_of(PAGE);
        let len = len.ok_or_else(|| Error::Usage("that much memory does not exist".to_owned()))?;
        let iova = lock(&self.iovas).alloc(len as u64, PAGE as u64);
        let iova = iova.ok_or_else(|| Error::Qemu {
            what: format!(
                "{}: no {len} bytes in one piece are left of the {} MiB of memory of QEMU's machine",
                self.device,
                RAM >> 20
            ),
            remedy: "use smaller rings and pools, or drop some first".to_owned(),
        })?;
        // SAFETY: the allocator stays below `RAM`.
        let ptr = unsafe { self.ram.as_mut_ptr().add(iova.0 as usize) };
        // Zeroed: whoever had these pages before may have left something. For fresh ones it costs
        // nothing, since a hole is made where there are pages only.
        // SAFETY: whole pages of our own mapping, which nobody has.
        if unsafe { libc::madvise(ptr.cast(), len, libc::MADV_REMOVE) } != 0 {
            let error = Error::last_os("zeroing memory of QEMU's machine");
            lock(&self.iovas).free(iova);
            return Err(error);
        }
        Ok(Mapping {
            ptr: NonNull::new(ptr).expect("mmap never gives null"),
            len,
            iova,
            page: PAGE,
        })
    }

    fn map_file(&self, file: &File, offset: u64, len: usize) -> Result<Mapping> {
        self.files.map(&self.device, file, offset, len)
    }

    unsafe fn unmap(&self, mapping: &Mapping) {
        if mapping.iova < Iova(RAM as u64) {
            lock(&self.iovas).free(mapping.iova);
        } else {
            self.files.unmap(mapping);
        }
    }
    /// Nothing cuts a device off from QEMU's RAM: the pages stay taken as long as QEMU runs, and so does a
    /// file's place. It is a DIMM then, which the device sees until QEMU ends.
    unsafe fn quarantine(&self, _mapping: &Mapping) {}
}

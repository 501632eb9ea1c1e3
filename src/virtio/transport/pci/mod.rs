//! virtio over PCI, §4.1: the modern interface only.
//!
//! The transport finds the device's four structures by its capabilities, keeps the BARs
//! that they are in, and gives each queue its doorbell: one write at an offset that is worked out
//! and checked once. [`regs`] reads beside §4.1.4.

mod caps;
pub mod regs;

use std::cell::Cell;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

pub use caps::Window;
use caps::{Structure, find};

use self::regs::*;
use crate::backend::Backend;
use crate::dma::DmaSpace;
use crate::error::{Error, Result};
use crate::inspect::{RegisterView, read_registers};
use crate::irq::{Irq, IrqKind, Removal};
use crate::mmio::{Mmio, Place, RegInfo, Width};
use crate::pci::config::{Command, SUBSYSTEM, bar};
use crate::virtio::features::{NOTIFICATION_DATA, RING_RESET};
use crate::virtio::queue::Areas;
use crate::virtio::transport::{Doorbell, Halt, Isr, Status, Transport};
use crate::wait::poll_until;

/// Red Hat's PCI vendor id, which all virtio devices have.
pub const VENDOR: u16 = 0x1af4;
/// PCI device ids from here on are 0x1040 and the device type, §4.1.2.
pub const MODERN: u16 = 0x1040;
/// Those from here on are transitional: they have the legacy interface, too.
pub const TRANSITIONAL: u16 = 0x1000;
/// Capability id of MSI-X; its table's size less 1 is in bits 10:0 of the word at 2.
const MSI_X: u8 = 0x11;
/// Longest time that a reset of the device or of one queue may take.
const RESET_BOUND: Duration = Duration::from_secs(1);

/// A virtio device behind a [`Backend`].
pub struct PciTransport<B: Backend> {
    common: Window<B::Bar>,
    notify: Window<B::Bar>,
    isr: Window<B::Bar>,
    config: Window<B::Bar>,
    /// Bytes between doorbells.
    multiplier: u32,
    device_type: u16,
    vectors: usize,
    /// The features that were negotiated.
    negotiated: Cell<u64>,
    /// Lets one halt of a queue at a time have QUEUE_SELECT.
    halting: Arc<Mutex<()>>,
    backend: B,
}

impl<B: Backend + 'static> PciTransport<B> {
    /// Finds the device's structures. The device is not touched yet.
    ///
    /// # Errors
    /// [`Error::NotOffered`] where it has not got them, [`Error::ProtocolViolation`] where they cannot be.
    pub fn open(backend: B) -> Result<Self> {
        backend.check_present()?;
        let (_, id) = backend.ids()?;
        let device_type = match id {
            TRANSITIONAL..MODERN => backend.read16(SUBSYSTEM + 2)?,
            _ => id.wrapping_sub(MODERN),
        };
        let vectors = match backend.capabilities()?.iter().find(|cap| cap.id == MSI_X) {
            Some(cap) => {
                let control = backend.read16(cap.offset.saturating_add(2))?;
                usize::from(control & 0x7ff).saturating_add(1)
            }
            None => 0,
        };
        backend.command(Command::MEMORY, Command::BUS_MASTER)?;

        let mut structures = Structures {
            backend: &backend,
            mapped: Vec::new(),
        };
        let (common, _) = structures.window(Structure::Common, COMMON_LEN)?;
        let (notify, multiplier) = structures.window(Structure::Notify, NOTIFY_QUEUE.end())?;
        let (isr, _) = structures.window(Structure::Isr, RegInfo::size_of(ISR))?;
        let (config, _) = structures.window(Structure::Device, 0)?;
        Ok(Self {
            common,
            notify,
            isr,
            config,
            multiplier,
            device_type,
            vectors,
            negotiated: Cell::new(0),
            halting: Arc::default(),
            backend,
        })
    }

    /// Returns whether it has the registers that came with virtio 1.2.
    fn is_1_2(&self) -> bool {
        self.common.size() >= COMMON_LEN_1_2
    }

    /// Place of the selected queue's doorbell; checked, since the device says it.
    fn doorbell(&self, index: u16, offset: u32) -> Result<PciDoorbell<B::Bar>> {
        let width = match self.negotiated.get() & NOTIFICATION_DATA {
            0 => Width::Two,
            _ => Width::Four,
        };
        let past = u64::from(offset).checked_mul(self.multiplier.into());
        let fits = |past: &usize| {
            let end = past.checked_add(width.bytes());
            end.is_some_and(|end| end <= self.notify.size())
        };
        let place = past.and_then(|past| usize::try_from(past).ok());
        let at = place
            .filter(fits)
            .and_then(|past| self.notify.base().checked_add(past));
        let Some(at) = at.filter(|at| at.is_multiple_of(width.bytes())) else {
            return Err(Error::ProtocolViolation {
                device: self.name().to_owned(),
                what: format!(
                    "the doorbell of queue {index} is {} bytes at {offset:#x} times {:#x} of a structure of \
                     {:#x}",
                    width.bytes(),
                    self.multiplier,
                    self.notify.size()
                ),
            });
        };
        Ok(PciDoorbell {
            bar: self.notify.bar().clone(),
            offset: at,
            width,
        })
    }

    /// Writes a vector, and reads back whether the device has one to spare, §4.1.5.1.2.
    fn set_vector(
        &self,
        reg: crate::mmio::Reg<u32, crate::mmio::ReadWrite>,
        vector: Option<u16>,
        what: &str,
    ) -> Result<()> {
        let vector = vector.unwrap_or(NO_VECTOR);
        self.common.set(reg, vector.into());
        let now = self.common.get(reg);
        if now == u32::from(vector) {
            return Ok(());
        }
        self.check_present()?;
        Err(self.refused(&format!(
            "give {what} MSI-X vector {vector}: it has none to spare (it reads back {now:#06x})\n  \
             start it with fewer queues, or (QEMU) with more vectors=, or poll (Waiting::Poll)"
        )))
    }
}

/// Finds structures, and maps the BARs that they are in once.
struct Structures<'a, B: Backend> {
    backend: &'a B,
    mapped: Vec<(u8, B::Bar)>,
}

impl<B: Backend> Structures<'_, B> {
    /// The first of what the device tells of `structure` that can be used, §4.1.4: in a BAR of memory that
    /// there is, inside of it, aligned, and of `least` bytes. With the distance of doorbells.
    fn window(&mut self, structure: Structure, least: usize) -> Result<(Window<B::Bar>, u32)> {
        let (mut unusable, mut lied) = (Vec::new(), false);
        for location in find(self.backend, structure)? {
            match self.bar(location.bar, least)? {
                Ok(bar) => match Window::new(bar, location, structure, least) {
                    Ok(window) => return Ok((window, location.multiplier)),
                    Err(why) => {
                        lied = true;
                        unusable.push(why);
                    }
                },
                Err(why) => unusable.push(why),
            }
        }
        let device = self.backend.name().to_owned();
        if unusable.is_empty() {
            return Err(Error::NotOffered {
                device,
                what: format!(
                    "be driven: no capability says where its {structure:?} structure is, so it has the \
                     legacy interface only\n  QEMU: disable-modern=off, which is the default on PCI Express"
                ),
            });
        }
        let why = unusable.join("; or ");
        Err(match lied {
            true => Error::ProtocolViolation {
                device,
                what: format!("its {structure:?} structure is where it cannot be: {why}"),
            },
            false => Error::NotOffered {
                device,
                what: format!(
                    "be driven: its {structure:?} structure is where it cannot be reached: {why}"
                ),
            },
        })
    }

    /// BAR `index`, mapped, of at least `least` bytes; else why it cannot be.
    fn bar(&mut self, index: u8, least: usize) -> Result<Result<B::Bar, String>> {
        /// Bit of a BAR's register: I/O ports (PCI 3.0, §6.2.5.1).
        const IS_IO: u32 = 1;
        if let Some((_, bar)) = self.mapped.iter().find(|(known, _)| *known == index) {
            return Ok(Ok(bar.clone()));
        }
        if self.backend.read32(bar(index))? & IS_IO != 0 {
            return Ok(Err(format!("BAR {index} is not memory, but I/O ports")));
        }
        match self.backend.map_bar(index, least) {
            Ok(bar) => {
                self.mapped.push((index, bar.clone()));
                Ok(Ok(bar))
            }
            Err(Error::UnusableBar {
                size, needed, why, ..
            }) => Ok(Err(format!(
                "BAR {index} has {size:#x} bytes, and {needed:#x} are needed: {why}"
            ))),
            Err(error) => Err(error),
        }
    }
}

/// Resets queue `index` alone, §2.6.1; `false` where the device does not let go of it.
fn reset_queue<M: Mmio>(common: &M, index: u16) -> bool {
    common.set(QUEUE_SELECT, index.into());
    common.set(QUEUE_RESET, 1);
    let done = || common.get(QUEUE_RESET) == 0 && common.get(QUEUE_ENABLE) == 0;
    poll_until(RESET_BOUND, done)
}

/// A queue's doorbell: where it is was worked out when the queue was enabled.
pub struct PciDoorbell<M> {
    bar: M,
    offset: usize,
    width: Width,
}

impl<M: Mmio> Doorbell for PciDoorbell<M> {
    #[inline]
    fn ring(&self, value: u32) {
        match self.width {
            Width::Four => self.bar.write(self.offset, Width::Four, value.into()),
            _ => self.bar.write(self.offset, Width::Two, value.into()),
        }
    }
}

/// All tables; those of the queues as arrays, an entry a queue.
static TABLE: LazyLock<Vec<RegInfo>> = LazyLock::new(|| {
    let tables = [COMMON, QUEUE_ARRAYS.as_slice(), NOTIFY, ISR];
    tables.concat()
});

/// The registers of a queue, as they are shown: at one place, by QUEUE_SELECT.
static QUEUE_ARRAYS: LazyLock<Vec<RegInfo>> = LazyLock::new(|| {
    let each = QUEUE.iter().map(|info| RegInfo {
        array: (usize::from(u16::MAX), 0),
        ..*info
    });
    each.collect()
});

impl<B: Backend + 'static> Transport for PciTransport<B> {
    type Doorbell = PciDoorbell<B::Bar>;
    type Config = Window<B::Bar>;

    fn name(&self) -> &str {
        self.backend.name()
    }

    fn device_type(&self) -> u16 {
        self.device_type
    }

    fn dma(&self) -> &Arc<dyn DmaSpace> {
        self.backend.dma()
    }

    fn has_iommu(&self) -> bool {
        self.backend.has_iommu()
    }

    fn bus_master(&self, on: bool) -> Result<()> {
        match on {
            true => self.backend.command(Command::BUS_MASTER, Command::empty()),
            false => self.backend.command(Command::empty(), Command::BUS_MASTER),
        }
    }

    fn vectors(&self) -> usize {
        self.vectors
    }

    fn interrupts(&self, kind: IrqKind, count: usize) -> Result<Vec<Irq>> {
        self.backend.interrupts(kind, count)
    }

    fn removal(&self) -> Arc<Removal> {
        self.backend.removal()
    }

    fn is_absent(&self) -> bool {
        self.backend.is_absent()
    }

    fn check_present(&self) -> Result<()> {
        self.backend.check_present()
    }

    fn device_features(&self) -> u64 {
        let word = |select| {
            self.common.set(DEVICE_FEATURE_SELECT, select);
            u64::from(self.common.get(DEVICE_FEATURE))
        };
        let features = word(0) | word(1) << 32;
        match self.is_1_2() {
            true => features,
            // Without its registers the feature cannot be used.
            false => features & !RING_RESET,
        }
    }

    fn set_driver_features(&self, features: u64) {
        for (select, word) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.common.set(DRIVER_FEATURE_SELECT, select);
            self.common.set(DRIVER_FEATURE, word);
        }
        self.negotiated.set(features);
    }

    fn status(&self) -> Status {
        Status::from_bits_retain(self.common.get(DEVICE_STATUS).into_bits() as u8)
    }

    fn set_status(&self, status: Status) {
        self.common
            .set(DEVICE_STATUS, DeviceStatus::from(u32::from(status.bits())));
    }

    /// Reading 0 says that the reset is over, §4.1.4.3.2.
    fn reset(&self) -> Result<()> {
        self.set_status(Status::empty());
        if poll_until(RESET_BOUND, || self.status().is_empty()) {
            return Ok(());
        }
        self.check_present()?;
        Err(Error::Timeout {
            device: self.name().to_owned(),
            what: "the end of the device's reset (DEVICE_STATUS 0)",
            bound: RESET_BOUND,
            remedy: "power the machine (or the VM) off and on; the device is stuck",
        })
    }

    fn queues(&self) -> u16 {
        self.common.get(NUM_QUEUES) as u16
    }

    fn queue_size_max(&self, index: u16) -> u16 {
        if index >= self.queues() {
            return 0;
        }
        self.common.set(QUEUE_SELECT, index.into());
        self.common.get(QUEUE_SIZE) as u16
    }

    fn enable_queue(
        &self,
        index: u16,
        size: u16,
        areas: Areas,
        vector: Option<u16>,
    ) -> Result<PciDoorbell<B::Bar>> {
        let common = &self.common;
        common.set(QUEUE_SELECT, index.into());
        if common.get(QUEUE_ENABLE) != 0 {
            self.check_present()?;
            return Err(self.refused(&format!("set up queue {index}: it is on already")));
        }
        let doorbell = self.doorbell(index, common.get(QUEUE_NOTIFY_OFF))?;
        common.set(QUEUE_SIZE, size.into());
        if common.get(QUEUE_SIZE) != u32::from(size) {
            return Err(self.refused(&format!("make queue {index} one of {size} descriptors")));
        }
        if self.vectors > 0 {
            self.set_vector(QUEUE_MSIX_VECTOR, vector, &format!("queue {index}"))?;
        }
        let parts = [
            (QUEUE_DESC_LO, QUEUE_DESC_HI, areas.descriptors),
            (QUEUE_DRIVER_LO, QUEUE_DRIVER_HI, areas.driver),
            (QUEUE_DEVICE_LO, QUEUE_DEVICE_HI, areas.device),
        ];
        for (low, high, iova) in parts {
            common.set(low, iova.0 as u32);
            common.set(high, (iova.0 >> 32) as u32);
        }
        common.set(QUEUE_ENABLE, 1);
        Ok(doorbell)
    }

    fn reset_queue(&self, index: u16) -> Result<()> {
        if self.negotiated.get() & RING_RESET == 0 {
            return Err(self.refused("reset one queue: it has not VIRTIO_F_RING_RESET"));
        }
        if reset_queue(&self.common, index) {
            return Ok(());
        }
        self.check_present()?;
        Err(Error::Timeout {
            device: self.name().to_owned(),
            what: "the end of a queue's reset (QUEUE_RESET)",
            bound: RESET_BOUND,
            remedy: "reset the whole device; it does not let go of the queue",
        })
    }

    fn resets_queues(&self) -> bool {
        self.negotiated.get() & RING_RESET != 0
    }

    fn halt(&self, queues: Vec<u16>) -> Halt {
        let (common, name) = (self.common.clone(), self.name().to_owned());
        let queues = if self.resets_queues() {
            queues
        } else {
            Vec::new()
        };
        let halting = Arc::clone(&self.halting);
        Box::new(move || {
            let _selects = halting.lock().unwrap_or_else(PoisonError::into_inner);
            let all_reset = || queues.iter().all(|index| reset_queue(&common, *index));
            if !queues.is_empty() && all_reset() {
                return;
            }
            common.set(DEVICE_STATUS, DeviceStatus::new());
            if !poll_until(RESET_BOUND, || common.get(DEVICE_STATUS).into_bits() == 0) {
                tracing::error!("{name} breaks the protocol, and does not end its reset");
            }
        })
    }

    fn set_config_vector(&self, vector: Option<u16>) -> Result<()> {
        if self.vectors == 0 {
            return Ok(());
        }
        self.set_vector(CONFIG_MSIX_VECTOR, vector, "configuration changes")
    }

    fn config(&self) -> &Window<B::Bar> {
        &self.config
    }

    fn config_generation(&self) -> u32 {
        self.common.get(CONFIG_GENERATION)
    }

    fn isr(&self) -> Isr {
        let isr = self.isr.clone();
        Box::new(move || {
            let why = isr.get(ISR_STATUS);
            (why.queue(), why.device_configuration())
        })
    }

    fn register_table(&self) -> &'static [RegInfo] {
        &TABLE
    }

    fn register_at(
        &self,
        place: Place,
        config: &'static [RegInfo],
    ) -> Option<(&'static RegInfo, usize)> {
        let within = |window: &Window<B::Bar>| window.place(place.bar, place.offset);
        if let Some(at) = within(&self.common) {
            return RegInfo::find(COMMON, at).or_else(|| RegInfo::find(QUEUE, at));
        }
        if within(&self.notify).is_some() {
            let info = NOTIFY.iter().find(|info| info.width == place.width)?;
            return Some((info, 0));
        }
        if let Some(at) = within(&self.isr) {
            return RegInfo::find(ISR, at);
        }
        RegInfo::find(config, within(&self.config)?)
    }

    /// QUEUE_SELECT is put back: who is setting up a queue is not disturbed.
    fn registers(&self, config: &'static [RegInfo]) -> Vec<RegisterView> {
        let mut views = read_registers(&self.common, COMMON);
        let selected = self.common.get(QUEUE_SELECT);
        for queue in 0..self.queues() {
            self.common.set(QUEUE_SELECT, queue.into());
            if self.common.get(QUEUE_ENABLE) != 1 {
                continue;
            }
            let here = |info: &&RegInfo| {
                let past = info.offset.checked_add(info.width.bytes());
                past.is_some_and(|past| past <= self.common.size())
            };
            views.extend(QUEUE_ARRAYS.iter().filter(here).map(|info| RegisterView {
                info,
                index: queue.into(),
                value: self.common.read(info.offset, info.width),
            }));
        }
        self.common.set(QUEUE_SELECT, selected);
        views.extend(read_registers(&self.config, config));
        views
    }
}

//! A virtio device, however it is reached: PCI here, others later (vhost-user).

pub mod pci;

use std::sync::Arc;

use super::features::{ACCESS_PLATFORM, VERSION_1};
use crate::dma::DmaSpace;
use crate::error::{Error, Result};
use crate::inspect::RegisterView;
use crate::irq::{Irq, IrqKind, Removal};
use crate::mmio::{Mmio, Place, RegInfo};
use crate::virtio::queue::Areas;

bitflags::bitflags! {
    /// Device status, §2.1.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Status: u8 {
        /// The device was seen.
        const ACKNOWLEDGE = 1;
        /// There is a driver for it.
        const DRIVER = 2;
        /// The driver is set up.
        const DRIVER_OK = 4;
        /// Features are agreed on.
        const FEATURES_OK = 8;
        /// The device has given up; it must be reset.
        const DEVICE_NEEDS_RESET = 64;
        /// The driver has given up.
        const FAILED = 128;
    }
}

/// Number of times that device configuration is read before a change each time breaks the protocol.
const TRIES: usize = 64;

/// Rings a queue's doorbell: one register write.
pub trait Doorbell: Send {
    /// Writes `value`, which [`Ring::publish`](super::Ring::publish) gave.
    fn ring(&self, value: u32);
}

/// Tells which interrupts are due without MSI-X, §4.1.4.5: (queue, configuration). Asking clears them,
/// which lowers the line.
pub type Isr = Box<dyn Fn() -> (bool, bool) + Send>;

/// Stops the queues that it was made for, or where the device cannot stop single queues, all of it.
pub type Halt = Box<dyn FnMut() + Send>;

/// One device.
pub trait Transport: Send {
    /// Doorbell of a queue.
    type Doorbell: Doorbell;

    /// Device configuration, §2.5.
    type Config: Mmio;

    /// Name for people.
    fn name(&self) -> &str;

    /// Type of device, §5: 1 is a network card.
    fn device_type(&self) -> u16;

    /// The I/O address space that the device reaches.
    fn dma(&self) -> &Arc<dyn DmaSpace>;

    /// Returns whether an IOMMU stands between the device and memory.
    fn has_iommu(&self) -> bool;

    /// Sets whether the device may reach memory by itself.
    ///
    /// # Errors
    /// If the system refuses.
    fn bus_master(&self, on: bool) -> Result<()>;

    /// Number of interrupt vectors of its own; 0: one interrupt for all, whose cause [`Transport::isr`] tells.
    fn vectors(&self) -> usize;

    /// Turns on the first `count` vectors of one kind.
    ///
    /// # Errors
    /// As [`Backend::interrupts`](crate::backend::Backend::interrupts).
    fn interrupts(&self, kind: IrqKind, count: usize) -> Result<Vec<Irq>>;

    /// The news that the device is being taken away: see [`Backend::removal`].
    ///
    /// [`Backend::removal`]: crate::backend::Backend::removal
    fn removal(&self) -> Arc<Removal>;

    /// Returns whether the device is not there any more: see [`Backend::is_absent`].
    ///
    /// [`Backend::is_absent`]: crate::backend::Backend::is_absent
    fn is_absent(&self) -> bool;

    /// Checks that the device is still there.
    ///
    /// # Errors
    /// [`Error::DeviceGone`].
    fn check_present(&self) -> Result<()>;

    /// The device's features, §2.2.
    fn device_features(&self) -> u64;

    /// Tells the device which of them the driver takes.
    fn set_driver_features(&self, features: u64);

    /// The status, as the device has it; all bits where it is gone.
    fn status(&self) -> Status;

    /// Writes the status.
    fn set_status(&self, status: Status);

    /// Resets the device and waits until it has, §2.4.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::DeviceGone`].
    fn reset(&self) -> Result<()>;

    /// Number of the device's queues.
    fn queues(&self) -> u16;

    /// The most descriptors that queue `index` may have; 0: there is no such queue. Only before it
    /// is enabled.
    fn queue_size_max(&self, index: u16) -> u16;

    /// Tells the device of queue `index` and turns it on, §4.1.5.1.3; its interrupts go to MSI-X
    /// vector `vector`.
    ///
    /// # Errors
    /// [`Error::NotOffered`] where the device does not take it; [`Error::ProtocolViolation`] for a
    /// doorbell that is nowhere.
    fn enable_queue(
        &self,
        index: u16,
        size: u16,
        areas: Areas,
        vector: Option<u16>,
    ) -> Result<Self::Doorbell>;

    /// Resets queue `index` alone, §2.6.1: only with VIRTIO_F_RING_RESET.
    ///
    /// # Errors
    /// As [`Transport::reset`].
    fn reset_queue(&self, index: u16) -> Result<()>;

    /// Returns whether it can reset one queue alone. Only after features were negotiated.
    fn resets_queues(&self) -> bool;

    /// Returns a closure that stops `queues` at once, on any thread, or all of the device if it does not [reset
    /// queues](Transport::resets_queues): for a device that breaks the protocol.
    fn halt(&self, queues: Vec<u16>) -> Halt;

    /// Changes of the configuration interrupt by MSI-X vector `vector`.
    ///
    /// # Errors
    /// [`Error::NotOffered`] where the device does not take it.
    fn set_config_vector(&self, vector: Option<u16>) -> Result<()>;

    /// Device configuration. The device may change it at any moment: what belongs together is read
    /// by [`Transport::read_config`].
    fn config(&self) -> &Self::Config;

    /// Counts changes of device configuration, §2.5.1.
    fn config_generation(&self) -> u32;

    /// Returns a reader of the interrupt's cause, for a device without MSI-X.
    fn isr(&self) -> Isr;

    /// The declarations of its registers, without device configuration's.
    fn register_table(&self) -> &'static [RegInfo];

    /// The register at `place`, and which one of an array it is; those of device configuration are
    /// in `config`.
    fn register_at(
        &self,
        place: Place,
        config: &'static [RegInfo],
    ) -> Option<(&'static RegInfo, usize)>;

    /// Its registers, those of each queue and of device configuration among them, now.
    fn registers(&self, config: &'static [RegInfo]) -> Vec<RegisterView>;

    /// Reads device configuration, all of it from one generation (§2.5.1).
    ///
    /// # Errors
    /// [`Error::ProtocolViolation`] where the generation never stands still.
    fn read_config<R>(&self, read: impl Fn(&Self::Config) -> R) -> Result<R>
    where
        Self: Sized,
    {
        for _ in 0..TRIES {
            let before = self.config_generation();
            let value = read(self.config());
            if self.config_generation() == before {
                return Ok(value);
            }
        }
        self.check_present()?;
        Err(Error::ProtocolViolation {
            device: self.name().to_owned(),
            what: format!("its configuration changed during each of {TRIES} reads"),
        })
    }

    /// Resets the device, says that there is a driver for it, and gives what it offers: steps 1 to
    /// 3 of §3.1.1. [`Transport::negotiate`] comes next.
    ///
    /// # Errors
    /// As [`Transport::reset`]; [`Error::NotOffered`] for a device that cannot be driven, or that
    /// would reach memory around the IOMMU.
    fn begin_init(&self) -> Result<u64> {
        self.reset()?;
        self.set_status(Status::ACKNOWLEDGE);
        self.set_status(Status::ACKNOWLEDGE | Status::DRIVER);
        let offered = self.device_features();
        let missing = if offered & VERSION_1 == 0 {
            "be driven: it does not offer VIRTIO_F_VERSION_1, so it is a legacy device\n  \
             QEMU: give the device disable-legacy=on,disable-modern=off"
        } else if self.has_iommu() && offered & ACCESS_PLATFORM == 0 {
            "be driven: it does not offer VIRTIO_F_ACCESS_PLATFORM, so it would reach memory around \
             the IOMMU, at addresses that are not ours\n  \
             QEMU: give the device iommu_platform=on,disable-legacy=on"
        } else {
            return Ok(offered);
        };
        self.set_status(Status::FAILED);
        self.check_present()?;
        Err(self.refused(missing))
    }

    /// Takes `features`, which must be among those that were offered: steps 4 to 6 of §3.1.1. Queues
    /// are set up next, and then the device is told to go ([`Status::DRIVER_OK`]).
    ///
    /// # Errors
    /// [`Error::Usage`] where one is missing that [`Transport::begin_init`] saw and that cannot be done
    /// without; [`Error::NotOffered`] where the device does not accept them.
    fn negotiate(&self, features: u64) -> Result<()> {
        // A device that is told to go without these works by other rules: with other headers, and
        // around the IOMMU.
        let needed = match self.has_iommu() {
            true => VERSION_1 | ACCESS_PLATFORM,
            false => VERSION_1,
        };
        if features & needed != needed {
            self.set_status(Status::FAILED);
            return Err(Error::Usage(format!(
                "{}: features {:#x} must be negotiated (VIRTIO_F_VERSION_1; behind an IOMMU \
                 VIRTIO_F_ACCESS_PLATFORM): do not refuse them",
                self.name(),
                needed & !features
            )));
        }
        let wanted = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK;
        self.set_driver_features(features);
        self.set_status(wanted);
        // The device takes FEATURES_OK back where it does not go along.
        if self.status() == wanted {
            return Ok(());
        }
        self.set_status(Status::FAILED);
        self.check_present()?;
        Err(self.refused(&format!(
            "work with features {features:#x}, although it offers them (it took FEATURES_OK back)\n  \
             try without some of them"
        )))
    }

    /// The error for what the device does not do.
    fn refused(&self, what: &str) -> Error {
        Error::NotOffered {
            device: self.name().to_owned(),
            what: what.to_owned(),
        }
    }
}

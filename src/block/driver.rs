//! A driver of disks as a list of drivers takes it: this crate's own, and those of its users.

use super::{Disk, DiskConfig};
use crate::backend::Backend;
use crate::error::Result;

/// What a PCI function says that it is, in config space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Class, subclass and programming interface: `0x01_08_02` is an NVMe controller.
    pub class: u32,
}

impl Function {
    /// What the function behind `backend` says.
    ///
    /// # Errors
    /// As [`Config::read`](crate::pci::config::Config::read).
    pub fn of(backend: &impl Backend) -> Result<Self> {
        let (vendor, device) = backend.ids()?;
        let class = backend.read32(crate::pci::config::REVISION)? >> 8;
        Ok(Self {
            vendor,
            device,
            class,
        })
    }
}

/// A driver of disks. The order of [`DiskDriver::start`] is that of [`NicDriver::start`](crate::nic::NicDriver::start).
pub trait DiskDriver: 'static {
    /// What it drives, for people: `NVMe controllers`.
    const WHAT: &'static str;

    /// Returns whether it drives this function.
    fn drives(function: Function) -> bool;

    /// Starts the disk behind `backend`, which it drives and which does no DMA yet.
    ///
    /// # Errors
    /// If the disk is not as it should be; [`Error::NotOffered`](crate::Error::NotOffered) where it cannot do what
    /// `config` wants. It is quiet then, and no memory is left mapped for it.
    fn start<B: Backend + 'static>(backend: B, config: &DiskConfig) -> Result<Box<dyn Disk>>;
}

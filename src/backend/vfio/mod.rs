//! The real thing: a PCI function through the kernel's VFIO, behind an IOMMU.
//!
//! Who outlives whom: the device's file is shared by config space, BARs and interrupts, and closing it
//! makes the kernel stop and reset the function. The I/O address space (container and groups) is
//! shared by every function and region of memory in it and goes with the last of them, so a mapping is undone in the
//! IOMMU before its memory is freed, whatever is dropped first.

mod dma;
mod group;
mod ioctl;
mod irq;
mod link;
mod region;

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vfio_bindings::bindings::vfio::*;

pub use region::VfioBar;

use super::{Backend, Found, check_bar};
use crate::dma::DmaSpace;
use crate::error::{Error, Result};
use crate::irq::{Irq, IrqKind, Removal};
use crate::pci::config::{BAR0, Command, Config};
use crate::pci::express::Aspm;
use crate::pci::{Address, Sysfs};
use dma::Space;
use group::{Domain, while_busy};
use irq::{Interrupts, News};
use region::Region;

/// Longest time that a device may take to answer after a reset (PCI Express 4.0, §6.6.1: 1 s).
const RESET_BOUND: Duration = Duration::from_secs(1);

/// A PCI function that is bound to vfio-pci.
pub struct Vfio {
    name: String,
    config: Region,
    interrupts: Interrupts,
    news: News,
    dma: Arc<dyn DmaSpace>,
    device: Arc<File>,
}

impl std::fmt::Debug for Vfio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vfio({})", self.name)
    }
}

impl Vfio {
    /// Opens the function, which the kernel resets on the way. Its memory BARs answer from here on; it
    /// may not do DMA until the driver says so ([`Command::BUS_MASTER`]). INTx, which the kernel turns
    /// on, is off.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`], [`Error::NoIommu`], [`Error::KernelLacks`], [`Error::NotBound`],
    /// [`Error::NotPermitted`], [`Error::GroupBusy`], [`Error::GroupNotViable`],
    /// [`Error::DeviceGone`], or what the system says.
    pub fn open(address: Address) -> Result<Self> {
        let mut all = Self::open_all(&[address])?;
        Ok(all.remove(0))
    }

    /// Opens several functions in one I/O address space: what is mapped for one of them, each can
    /// reach, and their [`Backend::dma`] is the same.
    ///
    /// # Errors
    /// As [`Vfio::open`]; [`Error::Usage`] where a function is named twice. None is open then.
    pub fn open_all(addresses: &[Address]) -> Result<Vec<Self>> {
        let sysfs = Sysfs::default();
        let mut functions = Vec::new();
        for &address in addresses {
            if functions.iter().any(|(known, _)| *known == address) {
                return Err(Error::Usage(format!("{address} is named twice")));
            }
            let group = sysfs.check_usable(&sysfs.function(address)?)?;
            functions.push((address, group));
        }
        if functions.is_empty() {
            return Ok(Vec::new());
        }
        let domain = Domain::open(&sysfs, &functions)?;
        let mut devices = Vec::new();
        for (address, group) in functions {
            let device = domain.device(address, group).map_err(|error| {
                // A kernel that cannot wake it up does not say why.
                match sysfs.is_gone(address) {
                    true => Error::DeviceGone(address.to_string()),
                    false => error,
                }
            })?;
            devices.push((address.to_string(), Arc::new(device)));
        }
        let names: Vec<&str> = devices.iter().map(|(name, _)| name.as_str()).collect();
        let dma: Arc<dyn DmaSpace> = Arc::new(Space::new(names.join(", "), domain)?);
        let each = devices.into_iter();
        each.map(|(name, device)| Self::up(name, device, Arc::clone(&dma)))
            .collect()
    }

    /// The device that was opened, ready for its driver.
    fn up(name: String, device: Arc<File>, dma: Arc<dyn DmaSpace>) -> Result<Self> {
        let os = |source| Error::io(format!("{name}: asking for its config space"), source);
        let vfio = Self {
            config: Region::of(&device, VFIO_PCI_CONFIG_REGION_INDEX).map_err(os)?,
            interrupts: Interrupts::of(&device),
            news: News::of(&name, &device).map_err(os)?,
            dma,
            device,
            name,
        };
        vfio.wait_until_present()?;
        super::set_intx(&vfio, false)?;
        // A BAR that does not answer must not be touched: the kernel ends the program (SIGBUS).
        vfio.command(Command::MEMORY, Command::empty())?;
        Ok(vfio)
    }

    /// Turns off all interrupts, and INTx with them.
    fn silence(&self) -> Result<()> {
        let os = |source| Error::io(format!("{}: turning off interrupts", self.name), source);
        if self.interrupts.is_on(IrqKind::Intx) {
            super::set_intx(self, false)?;
        }
        match self.interrupts.disable().map_err(os)? {
            Some(IrqKind::Msi | IrqKind::MsiX) => self.reapply_intx(),
            Some(IrqKind::Intx) | None => Ok(()),
        }
    }

    /// Makes the device follow our setting of INTx. The kernel keeps a command register of its own for us and passes
    /// on what changes in it, so that the bit must change: after messages were turned off the device's INTx is on,
    /// whatever ours says.
    fn reapply_intx(&self) -> Result<()> {
        let on = self.interrupts.is_on(IrqKind::Intx);
        super::set_intx(self, !on)?;
        super::set_intx(self, on)
    }

    /// After a reset the device may be silent for a while.
    fn wait_until_present(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            match self.check_present() {
                Err(_) if begun.elapsed() < RESET_BOUND => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                outcome => return outcome,
            }
        }
    }
}

impl Config for Vfio {
    fn read(&self, offset: u16, into: &mut [u8]) -> Result<()> {
        let read = self.config.read(offset.into(), into);
        let what = || format!("{}: reading config space at {offset:#x}", self.name);
        read.map_err(|source| Error::io(what(), source))
    }

    fn write(&self, offset: u16, from: &[u8]) -> Result<()> {
        let written = self.config.write(offset.into(), from);
        let what = || format!("{}: writing config space at {offset:#x}", self.name);
        written.map_err(|source| Error::io(what(), source))
    }
}

impl Backend for Vfio {
    type Bar = VfioBar;

    fn name(&self) -> &str {
        &self.name
    }

    fn map_bar(&self, index: u8, least: usize) -> Result<VfioBar> {
        let check = |found| check_bar(&self.name, index, found, least);
        if index > 5 {
            check(Found::Nothing)?;
        }
        let os = |source| Error::io(format!("{}: asking for BAR {index}", self.name), source);
        let region = Region::of(&self.device, u32::from(index)).map_err(os)?;
        const IS_IO: u32 = 1;
        let is_io = || Ok::<_, Error>(self.read32(BAR0 + 4 * u16::from(index))? & IS_IO != 0);
        check(match region.size {
            0 => Found::Nothing,
            size if is_io()? => Found::Ports(size),
            size => Found::Memory(size),
        })?;
        VfioBar::map(&self.name, region)
    }

    /// Ports are not mapped: each access is a `pread` or `pwrite` of the device's file.
    fn map_ports(&self, least: usize) -> Result<VfioBar> {
        let none = |why: String| Error::NotOffered {
            device: self.name.clone(),
            what: format!("reach its I/O ports: {why}"),
        };
        let index = self.io_bar()?.ok_or_else(|| none("it has none".into()))?;
        let os = |source| Error::io(format!("{}: asking for BAR {index}", self.name), source);
        let region = Region::of(&self.device, u32::from(index)).map_err(os)?;
        if region.size < least as u64 {
            return Err(none(format!("BAR {index} has {} of {least}", region.size)));
        }
        self.command(Command::IO, Command::empty())?;
        VfioBar::map(&self.name, region)
    }

    fn disable_aspm(&self) -> Result<Aspm> {
        link::disable_aspm(&Sysfs::default(), &self.name, self)
    }

    fn dma(&self) -> &Arc<dyn DmaSpace> {
        &self.dma
    }

    fn interrupts(&self, kind: IrqKind, count: usize) -> Result<Vec<Irq>> {
        self.silence()?;
        let mut irqs = self.interrupts.enable(&self.name, kind, count)?;
        if self.interrupts.is_on(IrqKind::Intx) {
            // Not before the kernel listens to the line. It has begun masked, and is unmasked by this.
            super::set_intx(self, true)?;
        }
        self.news.removal().wakes_all(&mut irqs)?;
        Ok(irqs)
    }

    fn reset(&self) -> Result<bool> {
        let os = |source| Error::io(format!("{}: resetting it", self.name), source);
        if ioctl::device_flags(&self.device).map_err(os)? & VFIO_DEVICE_FLAGS_RESET == 0 {
            return Ok(false);
        }
        while_busy(RESET_BOUND, || ioctl::reset(&self.device)).map_err(os)?;
        self.wait_until_present()?;
        // The kernel restores the command register; where it could not, this does.
        self.reapply_intx()?;
        Ok(true)
    }

    fn has_iommu(&self) -> bool {
        true
    }

    fn removal(&self) -> Arc<Removal> {
        Arc::clone(self.news.removal())
    }

    fn check_present(&self) -> Result<()> {
        // Before config space: it answers until we let go.
        self.news.removal().check()?;
        match super::answers(self) {
            true => Ok(()),
            false => Err(Error::DeviceGone(self.name.clone())),
        }
    }
}

/// The function is left quiet: no interrupt, no DMA. Its file is closed, and the kernel resets it, when
/// the last BAR has gone, too.
impl Drop for Vfio {
    fn drop(&mut self) {
        if let Err(error) = self.silence() {
            tracing::debug!(name = self.name, %error, "turning off interrupts");
        }
        // Fails where the device is gone: then there is nothing to turn off.
        if let Err(error) = self.command(Command::empty(), Command::BUS_MASTER) {
            tracing::debug!(name = self.name, %error, "turning off DMA");
        }
    }
}

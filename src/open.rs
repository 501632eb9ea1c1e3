//! The drivers that there are, and the way from a device's name to a started one.

use std::sync::Arc;

use crate::backend::{AnyBackend, Backend, Watch};
use crate::block::{Disk, DiskConfig, DiskDriver, Function, nvme};
use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use crate::nic::{DeviceId, Nic, NicConfig, NicDriver, e1000, e1000e, unsupported, virtio_net};
use crate::pci::config::Config;
use crate::virtio::pci::PciTransport;

/// The drivers that a program chooses from by what a function says that it is: this crate's ([`Drivers::default`]), and
/// others.
///
/// ```no_run
/// use pinwire::nic::NicConfig;
/// use pinwire::open::Drivers;
///
/// let drivers = Drivers::default();
/// let mut nic = drivers.open(&"qtest:e1000".parse()?, &NicConfig::default(), None)?;
/// println!("{} has the address {}", nic.name(), nic.mac());
/// # Ok::<_, pinwire::Error>(())
/// ```
#[derive(Clone)]
pub struct Drivers {
    nics: Vec<Entry>,
    disks: Vec<DiskEntry>,
}

#[derive(Clone)]
struct DiskEntry {
    what: &'static str,
    drives: fn(Function) -> bool,
    start: fn(AnyBackend, &DiskConfig) -> Result<Box<dyn Disk>>,
}

impl DiskEntry {
    fn of<D: DiskDriver>() -> Self {
        Self {
            what: D::WHAT,
            drives: D::drives,
            start: D::start,
        }
    }
}

#[derive(Clone)]
struct Entry {
    devices: Vec<DeviceId>,
    start: fn(AnyBackend, &NicConfig) -> Result<Box<dyn Nic>>,
}

impl Entry {
    fn of<D: NicDriver>() -> Self {
        Self {
            devices: D::devices(),
            start: D::start,
        }
    }

    fn drives(&self, (vendor, id): (u16, u16)) -> bool {
        self.devices.iter().any(|device| device.is(vendor, id))
    }
}

/// This crate's drivers.
impl Default for Drivers {
    fn default() -> Self {
        Self {
            nics: vec![
                Entry::of::<E1000>(),
                Entry::of::<E1000e>(),
                Entry::of::<VirtioNet>(),
            ],
            disks: vec![DiskEntry::of::<Nvme>()],
        }
    }
}

impl Drivers {
    /// No driver.
    pub const fn none() -> Self {
        Self {
            nics: Vec::new(),
            disks: Vec::new(),
        }
    }

    /// The same and one more, which is preferred for cards that another one drives, too.
    #[must_use]
    pub fn with<D: NicDriver>(mut self) -> Self {
        self.nics.insert(0, Entry::of::<D>());
        self
    }

    /// The same and one more of disks.
    #[must_use]
    pub fn with_disk<D: DiskDriver>(mut self) -> Self {
        self.disks.insert(0, DiskEntry::of::<D>());
        self
    }

    /// All cards that there is a driver for.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.nics
            .iter()
            .flat_map(|entry| entry.devices.iter().copied())
    }

    /// Returns whether there is a driver of cards for a PCI function with these ids.
    pub fn is_supported(&self, vendor: u16, device: u16) -> bool {
        self.nics.iter().any(|entry| entry.drives((vendor, device)))
    }

    /// Returns whether there is a driver, of cards or of disks, for a PCI function that says this of itself.
    pub fn drives(&self, function: Function) -> bool {
        self.is_supported(function.vendor, function.device)
            || self.disks.iter().any(|entry| (entry.drives)(function))
    }

    /// Starts the card behind `backend` with the driver for its ids.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where there is none; else as the driver's own.
    pub fn start(
        &self,
        backend: impl Into<AnyBackend>,
        config: &NicConfig,
    ) -> Result<Box<dyn Nic>> {
        let backend = backend.into();
        backend.check_present()?;
        let ids = backend.ids()?;
        match self.nics.iter().find(|entry| entry.drives(ids)) {
            Some(entry) => (entry.start)(backend, config),
            None => Err(unsupported(backend.name(), ids, self.devices())),
        }
    }

    /// Opens the device and starts the driver for it. `watch` sees every register access.
    ///
    /// # Errors
    /// If the device cannot be opened; as [`Drivers::start`].
    pub fn open(
        &self,
        spec: &DeviceSpec,
        config: &NicConfig,
        watch: Option<Arc<dyn Watch>>,
    ) -> Result<Box<dyn Nic>> {
        self.start_watched(spec.backend()?, config, watch)
    }

    /// The same for several devices in one I/O address space, of whichever drivers: each reaches the buffers of the
    /// others, and they have the same [`Nic::dma`].
    ///
    /// # Errors
    /// As [`DeviceSpec::backends`] and [`Drivers::start`].
    pub fn open_all(
        &self,
        specs: &[DeviceSpec],
        config: &NicConfig,
        watch: Option<Arc<dyn Watch>>,
    ) -> Result<Vec<Box<dyn Nic>>> {
        let backends = DeviceSpec::backends(specs)?.into_iter();
        let start = |backend| self.start_watched(backend, config, watch.clone());
        backends.map(start).collect()
    }

    /// Starts the disk behind `backend` with the driver for what it is.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where there is none; else as the driver's own.
    pub fn start_disk(
        &self,
        backend: impl Into<AnyBackend>,
        config: &DiskConfig,
    ) -> Result<Box<dyn Disk>> {
        let backend = backend.into();
        backend.check_present()?;
        let function = Function::of(&backend)?;
        match self.disks.iter().find(|entry| (entry.drives)(function)) {
            Some(entry) => (entry.start)(backend, config),
            None => Err(Error::Unsupported {
                device: backend.name().to_owned(),
                vendor: function.vendor,
                id: function.device,
                known: self
                    .disks
                    .iter()
                    .map(|entry| entry.what)
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    /// Opens the device and starts the driver for the disk that it is. `watch` sees every register access.
    ///
    /// # Errors
    /// If the device cannot be opened; as [`Drivers::start_disk`].
    pub fn open_disk(
        &self,
        spec: &DeviceSpec,
        config: &DiskConfig,
        watch: Option<Arc<dyn Watch>>,
    ) -> Result<Box<dyn Disk>> {
        let backend = spec.backend()?;
        match watch {
            Some(watch) => self.start_disk(backend.watched(watch), config),
            None => self.start_disk(backend, config),
        }
    }

    fn start_watched(
        &self,
        backend: AnyBackend,
        config: &NicConfig,
        watch: Option<Arc<dyn Watch>>,
    ) -> Result<Box<dyn Nic>> {
        match watch {
            Some(watch) => self.start(backend.watched(watch), config),
            None => self.start(backend, config),
        }
    }
}

enum E1000 {}

impl NicDriver for E1000 {
    fn devices() -> Vec<DeviceId> {
        e1000::devices().collect()
    }

    fn start<B: Backend + 'static>(backend: B, config: &NicConfig) -> Result<Box<dyn Nic>> {
        Ok(Box::new(e1000::E1000::start(backend, config)?))
    }
}

enum E1000e {}

impl NicDriver for E1000e {
    fn devices() -> Vec<DeviceId> {
        e1000e::devices().collect()
    }

    fn start<B: Backend + 'static>(backend: B, config: &NicConfig) -> Result<Box<dyn Nic>> {
        Ok(Box::new(e1000e::E1000e::start(backend, config)?))
    }
}

enum VirtioNet {}

impl NicDriver for VirtioNet {
    fn devices() -> Vec<DeviceId> {
        virtio_net::devices().collect()
    }

    fn start<B: Backend + 'static>(backend: B, config: &NicConfig) -> Result<Box<dyn Nic>> {
        let transport = PciTransport::open(backend)?;
        Ok(Box::new(virtio_net::VirtioNet::start(transport, config)?))
    }
}

enum Nvme {}

impl DiskDriver for Nvme {
    const WHAT: &'static str = "NVMe controllers";

    fn drives(function: Function) -> bool {
        function.class == nvme::CLASS
    }

    fn start<B: Backend + 'static>(backend: B, config: &DiskConfig) -> Result<Box<dyn Disk>> {
        Ok(Box::new(nvme::Nvme::start(backend, config)?))
    }
}

/// Starts the card behind `backend` with this crate's driver for its ids. Unlike [`Drivers::start`], it takes a backend
/// of anybody's.
///
/// # Errors
/// As [`Drivers::start`].
pub fn start<B: Backend + 'static>(backend: B, config: &NicConfig) -> Result<Box<dyn Nic>> {
    backend.check_present()?;
    let (vendor, id) = backend.ids()?;
    let is = |device: DeviceId| device.is(vendor, id);
    match () {
        () if e1000::devices().any(is) => E1000::start(backend, config),
        () if e1000e::devices().any(is) => E1000e::start(backend, config),
        () if virtio_net::devices().any(is) => VirtioNet::start(backend, config),
        () => Err(unsupported(
            backend.name(),
            (vendor, id),
            Drivers::default().devices(),
        )),
    }
}

impl DeviceSpec {
    /// [`Drivers::open`], with this crate's drivers.
    ///
    /// # Errors
    /// As there.
    pub fn open(&self, config: &NicConfig, watch: Option<Arc<dyn Watch>>) -> Result<Box<dyn Nic>> {
        Drivers::default().open(self, config, watch)
    }

    /// [`Drivers::open_all`], with this crate's drivers.
    ///
    /// # Errors
    /// As there.
    pub fn open_all(
        specs: &[Self],
        config: &NicConfig,
        watch: Option<Arc<dyn Watch>>,
    ) -> Result<Vec<Box<dyn Nic>>> {
        Drivers::default().open_all(specs, config, watch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_device_and_a_model_cannot_share_memory() {
        let specs = ["0000:00:03.0", "qtest:e1000"].map(|text| text.parse().unwrap());
        let opened = DeviceSpec::open_all(&specs, &NicConfig::default(), None);
        let error = opened.err().unwrap().to_string();
        assert!(error.contains("0000:00:03.0 and qtest:e1000"), "{error}");
    }
}

//! Which drivers there are, and from a device's name to a started one.

use std::sync::Arc;

use crate::backend::{Backend, Watch, Watched};
use crate::device::{DeviceSpec, Driver};
use crate::error::{Error, Result};
use crate::nic::{Known, Nic, NicConfig, e1000, e1000e, unsupported, virtio_net};
use crate::virtio::pci::PciTransport;

/// All cards that there is a driver for.
pub fn known() -> impl Iterator<Item = Known> {
    e1000::known()
        .chain(e1000e::known())
        .chain(virtio_net::known())
}

/// Is there a driver here for a PCI function with these ids?
pub fn knows(vendor: u16, device: u16) -> bool {
    known().any(|card| card.is(vendor, device))
}

/// Starts the card behind `backend` with the driver that knows it.
///
/// # Errors
/// [`Error::Unsupported`] where none does; else as the driver's own.
pub fn start<B: Backend + 'static>(backend: B, config: &NicConfig) -> Result<Box<dyn Nic>> {
    backend.check_present()?;
    let (vendor, id) = backend.ids()?;
    let is = |known: Known| known.is(vendor, id);
    match () {
        () if e1000::known().any(is) => Ok(Box::new(e1000::E1000::start(backend, config)?)),
        () if e1000e::known().any(is) => Ok(Box::new(e1000e::E1000e::start(backend, config)?)),
        () if virtio_net::known().any(is) => {
            let transport = PciTransport::open(backend)?;
            Ok(Box::new(virtio_net::VirtioNet::start(transport, config)?))
        }
        () => Err(unsupported(backend.name(), (vendor, id), known())),
    }
}

impl DeviceSpec {
    /// Opens the device and starts the network driver that knows it. `watch` sees every register access.
    ///
    /// # Errors
    /// What the backend or the driver complains of.
    pub fn open(&self, config: &NicConfig, watch: Option<Arc<dyn Watch>>) -> Result<Box<dyn Nic>> {
        self.open_with(StartNic { config, watch })
    }

    /// The same for several devices in one I/O address space, as by [`DeviceSpec::open_all_with`]: they have
    /// the same [`Nic::dma`].
    ///
    /// # Errors
    /// As there.
    pub fn open_all(
        specs: &[Self],
        config: &NicConfig,
        watch: Option<Arc<dyn Watch>>,
    ) -> Result<Vec<Box<dyn Nic>>> {
        Self::open_all_with(specs, &StartNic { config, watch })
    }
}

/// Starts a network card.
#[derive(Clone)]
struct StartNic<'a> {
    config: &'a NicConfig,
    watch: Option<Arc<dyn Watch>>,
}

impl Driver for StartNic<'_> {
    type Output = Box<dyn Nic>;
    type Error = Error;

    fn start<B: Backend + 'static>(self, device: B) -> Result<Box<dyn Nic>> {
        match self.watch {
            Some(watch) => start(Watched::new(device, watch), self.config),
            None => start(device, self.config),
        }
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

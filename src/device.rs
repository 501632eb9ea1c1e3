//! Which card, in words that are the same everywhere: `0000:00:03.0` or `qtest:e1000`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::backend::{Backend, Qtest, QtestSpec, Vfio, Watch, Watched};
use crate::error::{Error, Result};
use crate::nic::{self, Nic, NicConfig};
use crate::pci::Address;

/// A network card: how it is reached and where it is.
///
/// - `0000:00:03.0`, a PCI function bound to vfio-pci.
/// - `qtest:MODEL[,net=PEER][,pcap=FILE]`, a device model of QEMU on this host; see [`QtestSpec`].
#[derive(Debug, Clone)]
pub struct DeviceSpec {
    text: String,
    reach: Reach,
}

#[derive(Debug, Clone)]
enum Reach {
    Vfio(Address),
    Qtest(Arc<QtestSpec>),
}

impl DeviceSpec {
    /// Opens the device and starts the driver that knows it. `watch` sees every register access.
    ///
    /// # Errors
    /// What the backend or the driver complains of.
    pub fn open(&self, config: &NicConfig, watch: Option<Arc<dyn Watch>>) -> Result<Box<dyn Nic>> {
        match &self.reach {
            Reach::Vfio(address) => start(Vfio::open(*address)?, config, watch),
            Reach::Qtest(spec) => start(Qtest::start(spec)?, config, watch),
        }
    }
}

fn start<B: Backend + 'static>(
    backend: B,
    config: &NicConfig,
    watch: Option<Arc<dyn Watch>>,
) -> Result<Box<dyn Nic>> {
    match watch {
        Some(watch) => nic::start(Watched::new(backend, watch), config),
        None => nic::start(backend, config),
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl FromStr for DeviceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let reach = match text.strip_prefix("qtest:") {
            Some(spec) => Reach::Qtest(Arc::new(spec.parse()?)),
            None => Reach::Vfio(text.parse()?),
        };
        Ok(Self {
            text: text.to_owned(),
            reach,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_with_both_forms() {
        for nonsense in [
            "",
            "eth0",
            "qtest",
            "qtest:",
            "qtest:rtl8139",
            "vfio:00:03.0",
        ] {
            let error = nonsense.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains("0000:00:03.0"), "{nonsense}: {error}");
            assert!(error.contains("qtest:e1000"), "{nonsense}: {error}");
        }
    }

    #[test]
    fn a_spec_is_shown_as_it_was_given() {
        for text in ["00:03.0", "qtest:e1000,net=user,pcap=a,b.pcap"] {
            assert_eq!(text.parse::<DeviceSpec>().unwrap().to_string(), text);
        }
    }
}

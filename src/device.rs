//! Names of devices, the same everywhere: `0000:00:03.0` or `qtest:e1000`.
//!
//! How a device is reached is decided here and nowhere else: a [`Driver`] gets a
//! [`Backend`] and does not see which.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::backend::{AnyBackend, Backend, Qtest, QtestSpec, Vfio};
use crate::error::{Error, Result};
use crate::pci::Address;

/// A device: how it is reached and where it is.
///
/// - `0000:00:03.0`, a PCI function bound to vfio-pci.
/// - `qtest:MODEL[,net=PEER][,KEY=VALUE ...][,pcap=FILE]`, a device model of QEMU on this host; see
///   [`QtestSpec`].
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

/// A use of a device once it is open: a driver, or a program of its own, to which the backend's type alone tells how
/// the device is reached.
///
/// ```no_run
/// use pinwire::backend::Backend;
/// use pinwire::device::{DeviceSpec, Driver};
///
/// struct Identify;
///
/// impl Driver for Identify {
///     type Output = (u16, u16);
///     type Error = pinwire::Error;
///
///     fn start<B: Backend + 'static>(self, device: B) -> pinwire::Result<(u16, u16)> {
///         device.ids()
///     }
/// }
///
/// let spec: DeviceSpec = "qtest:edu".parse()?;
/// assert_eq!(spec.open_with(Identify)?, (0x1234, 0x11e8));
/// # Ok::<_, pinwire::Error>(())
/// ```
pub trait Driver {
    /// The result: a started device, or what a program found out.
    type Output;

    /// Its error, or that of opening the device.
    type Error: From<Error>;

    /// Takes the device, which does no DMA before [`Command::BUS_MASTER`] is on.
    ///
    /// [`Command::BUS_MASTER`]: crate::pci::config::Command::BUS_MASTER
    ///
    /// # Errors
    /// The driver's own.
    fn start<B: Backend + 'static>(self, device: B) -> Result<Self::Output, Self::Error>;
}

impl DeviceSpec {
    /// Opens the device and gives it to `driver`.
    ///
    /// # Errors
    /// Errors of the backend and of the driver.
    pub fn open_with<D: Driver>(&self, driver: D) -> Result<D::Output, D::Error> {
        match &self.reach {
            Reach::Vfio(address) => driver.start(Vfio::open(*address)?),
            Reach::Qtest(spec) => driver.start(Qtest::start(spec)?),
        }
    }

    /// Opens the device: which backend reaches it, the value says and not its type.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn backend(&self) -> Result<AnyBackend> {
        Ok(match &self.reach {
            Reach::Vfio(address) => Vfio::open(*address)?.into(),
            Reach::Qtest(spec) => Qtest::start(spec)?.into(),
        })
    }

    /// The same for several devices in one I/O address space: each reaches the buffers of the others. Device models are
    /// in one QEMU, where a hub connects them.
    ///
    /// # Errors
    /// As [`DeviceSpec::backend`]; [`Error::Usage`] where some are reached over VFIO and some are models.
    pub fn backends(specs: &[Self]) -> Result<Vec<AnyBackend>> {
        let (mut addresses, mut models) = (Vec::new(), Vec::new());
        for spec in specs {
            match &spec.reach {
                Reach::Vfio(address) => addresses.push(*address),
                Reach::Qtest(model) => models.push(Arc::clone(model)),
            }
        }
        match (&addresses[..], &models[..]) {
            (addresses, []) => Ok(any(Vfio::open_all(addresses)?)),
            ([], models) => Ok(any(Qtest::start_all(models)?)),
            _ => {
                let names: Vec<_> = specs.iter().map(Self::to_string).collect();
                Err(Error::Usage(format!(
                    "{} cannot reach the same memory: name PCI functions, or models of QEMU, not both",
                    names.join(" and ")
                )))
            }
        }
    }
}

fn any(backends: Vec<impl Into<AnyBackend>>) -> Vec<AnyBackend> {
    backends.into_iter().map(Into::into).collect()
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
            "qtest:rtl 8139",
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

//! Taking a function from its driver for vfio-pci, and giving it back.
//!
//! `driver_override` says which driver alone may have the function. What it said before, and which
//! driver there was, is kept in `/run/pinwire/ADDRESS` until the function is given back: like the
//! binding itself, that lasts until the next boot. Where a step fails, those before it are undone.
//!
//! A function counts as given back once all is found to be as it was, and not because each step was done:
//! the kernel may give it to vfio-pci again, by ids that were put into it, or a driver may refuse it. Until then
//! what it had is kept, and a further [`Sysfs::bind`] does not take what was left for what was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::sysfs::target_name;
use super::{Address, Function, Sysfs, class};
use crate::error::{Error, Result};

/// Result of [`Sysfs::bind`] or [`Sysfs::unbind`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebound {
    /// The driver before.
    pub from: Option<String>,
    /// The driver now.
    pub to: Option<String>,
    /// Other changes, a sentence each.
    pub notes: Vec<String>,
}

/// State of a function before we took it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Former {
    driver: Option<String>,
    driver_override: Option<String>,
    /// Vendor and device: another one may be at the address since.
    ids: String,
    /// Number of its virtual functions.
    virtual_functions: usize,
}

const VFIO: &str = "vfio-pci";

impl Sysfs {
    /// Gives the function to vfio-pci; where vfio-pci has it already, nothing is done. With `force`,
    /// also one that is no network function, or whose network interface the system is using; but never
    /// one with a disk that is in use.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`], [`Error::NoIommu`], [`Error::AroundIommu`], [`Error::KernelLacks`],
    /// [`Error::NotNetwork`], [`Error::InUse`], [`Error::DiskInUse`], [`Error::GroupBusy`],
    /// [`Error::NeedsRoot`], or [`Error::Rebind`] where the kernel refuses.
    pub fn bind(&self, address: Address, force: bool) -> Result<Rebound> {
        let function = self.function(address)?;
        if function.is_bound_to_vfio() {
            return Ok(unchanged(function));
        }
        self.check_bindable(&function, force)?;
        let step = |what| move |source| failed(address, "bind", what, source);
        let _lock = self.lock().map_err(step("locking /run/pinwire"))?;
        // Somebody may have been faster.
        let function = self.function(address)?;
        if function.is_bound_to_vfio() {
            return Ok(unchanged(function));
        }
        let found = self
            .found(&function)
            .map_err(step("reading driver_override"))?;
        let known = self.recall(&function);
        let former = match &known {
            // Not given back yet: what it had then counts, and not what is left of it.
            Some(known) if found.driver.is_none() => known.clone(),
            Some(known) if found.driver_override.as_deref() == Some(VFIO) => Former {
                driver_override: known.driver_override.clone(),
                ..found.clone()
            },
            _ => found.clone(),
        };
        self.remember(address, &former)
            .map_err(step("remembering its driver in /run/pinwire"))?;
        let taken = self.take(address, &found).and_then(|()| {
            let now = self.function(address)?;
            match now.is_bound_to_vfio() {
                true => Ok(now.driver),
                false => Err(rebind(
                    address,
                    VFIO,
                    "the driver refused it; dmesg may say why",
                )),
            }
        });
        match taken {
            Ok(to) => Ok(Rebound {
                from: function.driver,
                to,
                notes: match found.virtual_functions {
                    0 => Vec::new(),
                    count => vec![format!("its virtual functions are gone: {count}")],
                },
            }),
            Err(error) => {
                let undone = self.restore(address, &found);
                match (undone, known) {
                    (Ok(()), None) => self.forget(address),
                    // It was there before, and is needed as before.
                    (Ok(()), Some(known)) => drop(self.remember(address, &known)),
                    (Err(worse), _) => tracing::error!("undoing what was done: {worse}"),
                }
                Err(error)
            }
        }
    }

    /// Takes the function from vfio-pci and gives it back to the driver that it had when it was bound;
    /// where it was not [`Sysfs::bind`] that did, to the driver that the kernel finds. Where
    /// vfio-pci has not got it, only what was left of it is tidied: a `driver_override`.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`], [`Error::GroupBusy`], [`Error::KernelLacks`] where the former driver
    /// is not loaded any more, [`Error::NeedsRoot`], or [`Error::NotGivenBack`] where not all is as it was.
    pub fn unbind(&self, address: Address) -> Result<Rebound> {
        let step = |what| move |source| failed(address, "unbind", what, source);
        let function = self.function(address)?;
        let former = self.recall(&function);
        let found = self
            .found(&function)
            .map_err(step("reading driver_override"))?;
        let is_on_vfio = function.is_bound_to_vfio();
        // Reserved for vfio-pci, and not because it was so before.
        let was = former
            .as_ref()
            .and_then(|former| former.driver_override.as_deref());
        let is_reserved =
            found.driver_override.as_deref().is_some_and(is_vfio) && !was.is_some_and(is_vfio);
        let is_nobodys = function.driver.is_none() && former.is_some();
        if !is_on_vfio && !is_nobodys && !is_reserved {
            self.forget(address);
            return Ok(unchanged(function));
        }
        // The kernel would wait for that program to end, however long.
        if is_on_vfio
            && let Some(group) = function.group
            && let Some(holder) = self.group_holder(group)
        {
            return Err(Error::GroupBusy {
                address,
                group,
                holder: Some(holder),
            });
        }
        let _lock = self.lock().map_err(step("locking /run/pinwire"))?;
        let mut notes = Vec::new();
        match former {
            // It has a driver: somebody gave it to that one.
            former if !is_on_vfio && function.driver.is_some() => {
                let name = former.and_then(|former| former.driver_override);
                self.set_override(address, "unbind", name.as_deref().unwrap_or_default())?;
                notes.push(format!("its driver_override said {VFIO}, and does no more"));
            }
            Some(former) => self.restore(address, &former)?,
            None => self.give_up(&function)?,
        }
        self.forget(address);
        Ok(Rebound {
            from: function.driver,
            to: self.driver(address),
            notes,
        })
    }

    fn check_bindable(&self, function: &Function, force: bool) -> Result<()> {
        let address = function.address;
        if function.group.is_none() {
            return Err(Error::NoIommu(address));
        }
        self.check_vfio()?;
        if class::is_bridge(function.class) {
            let why = "it is a bridge, and other devices are behind it";
            return Err(rebind(address, VFIO, why));
        }
        self.check_takeable(function, force)
    }

    fn take(&self, address: Address, found: &Former) -> Result<()> {
        if found.virtual_functions > 0 {
            // Some drivers leave them behind, and vfio-pci takes no function that has any.
            let path = self.device(address).join("sriov_numvfs");
            self.write(&path, "0").map_err(|source| {
                failed(address, "bind", "ending its virtual functions", source)
            })?;
        }
        self.set_override(address, "bind", VFIO)?;
        self.release(address, "bind")?;
        let path = self.root.join("sys/bus/pci/drivers_probe");
        self.write(&path, &address.to_string())
            .map_err(|source| failed(address, "bind", "asking vfio-pci to take it", source))
    }

    /// Puts things as they were, and looks whether they are.
    fn restore(&self, address: Address, former: &Former) -> Result<()> {
        let not_given_back = |what: String, remedy: String| Error::NotGivenBack {
            address,
            what,
            remedy,
        };
        let again = || format!("pinwire unbind {address}");
        let reserved = former.driver_override.as_deref().unwrap_or_default();
        if self.driver(address) != former.driver {
            let name = former.driver.as_deref().unwrap_or_default();
            let driver = self.root.join("sys/bus/pci/drivers").join(name);
            if !driver.exists() {
                return Err(Error::KernelLacks {
                    what: format!("{address}: its driver {name} is not loaded any more"),
                    remedy: format!("sudo modprobe {name}, then again: {}", again()),
                });
            }
            // For that driver alone, whoever else would have it: vfio-pci may have been told its ids.
            self.set_override(address, "unbind", name)?;
            self.release(address, "unbind")?;
            let bound = match name {
                "" => Ok(()),
                _ => self.write(&driver.join("bind"), &address.to_string()),
            };
            self.set_override(address, "unbind", reserved)?;
            let now = self.driver(address);
            if bound.is_err() || now != former.driver {
                let why = bound.err().map(|error| format!(": {error}"));
                let (why, now) = (why.unwrap_or_default(), named(now.as_ref()));
                return Err(not_given_back(
                    format!("{name} did not take it{why}; it is on {now}"),
                    format!("see what dmesg says, then again: {}", again()),
                ));
            }
        }
        self.set_override(address, "unbind", reserved)?;
        self.restore_virtual_functions(address, former)
    }

    fn restore_virtual_functions(&self, address: Address, former: &Former) -> Result<()> {
        let count = former.virtual_functions;
        if count == 0 || self.virtual_functions(address).len() == count {
            return Ok(());
        }
        let path = self.device(address).join("sriov_numvfs");
        let written = self.write(&path, &count.to_string());
        if written.is_ok() && self.virtual_functions(address).len() == count {
            return Ok(());
        }
        Err(Error::NotGivenBack {
            address,
            what: format!("its driver has it, but not its {count} virtual functions"),
            remedy: format!("echo {count} | sudo tee {}", path.display()),
        })
    }

    /// Lets the kernel find a driver, and looks whether it found another than vfio-pci.
    fn give_up(&self, function: &Function) -> Result<()> {
        let address = function.address;
        self.set_override(address, "unbind", "")?;
        self.release(address, "unbind")?;
        let path = self.root.join("sys/bus/pci/drivers_probe");
        self.write(&path, &address.to_string())
            .map_err(|source| failed(address, "unbind", "asking drivers to take it", source))?;
        let now = self.function(address)?;
        let (what, remedy) = match &now.driver {
            Some(driver) if now.is_bound_to_vfio() => {
                let (vendor, device) = (function.vendor, function.device);
                (
                    format!(
                        "{driver} took it again: it was told its ids (new_id, or {driver}.ids= where it was loaded)"
                    ),
                    format!(
                        "echo {vendor:04x} {device:04x} | sudo tee /sys/bus/pci/drivers/{driver}/remove_id, then again: pinwire unbind {address}"
                    ),
                )
            }
            Some(_) => return Ok(()),
            None => (
                "no driver that is loaded took it, and nobody remembers which it had".to_owned(),
                format!(
                    "load it, and it takes the function: sudo modprobe $(cat /sys/bus/pci/devices/{address}/modalias)"
                ),
            ),
        };
        Err(Error::NotGivenBack {
            address,
            what,
            remedy,
        })
    }

    fn driver(&self, address: Address) -> Option<String> {
        target_name(&self.device(address).join("driver"))
    }

    /// The function's state now.
    fn found(&self, function: &Function) -> io::Result<Former> {
        let path = self.device(function.address).join("driver_override");
        Ok(Former {
            driver: function.driver.clone(),
            driver_override: read_override(&path)?,
            ids: ids(function),
            virtual_functions: self.virtual_functions(function.address).len(),
        })
    }

    fn set_override(&self, address: Address, verb: &str, driver: &str) -> Result<()> {
        // An empty line clears it.
        let text = format!("{driver}\n");
        self.write(&self.device(address).join("driver_override"), &text)
            .map_err(|source| failed(address, verb, "writing driver_override", source))
    }

    /// Takes the function from the driver that has it.
    fn release(&self, address: Address, verb: &str) -> Result<()> {
        let driver = self.device(address).join("driver");
        if !driver.exists() {
            return Ok(());
        }
        self.write(&driver.join("unbind"), &address.to_string())
            .map_err(|source| failed(address, verb, "taking it from its driver", source))
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
        file.write_all(text.as_bytes())?;
        #[cfg(test)]
        if let Some(kernel) = self.kernel {
            kernel(self, path, text);
        }
        Ok(())
    }

    fn records(&self) -> PathBuf {
        self.root.join("run/pinwire")
    }

    /// One at a time: until the file is closed.
    fn lock(&self) -> io::Result<File> {
        fs::create_dir_all(self.records())?;
        let directory = File::open(self.records())?;
        directory.lock()?;
        Ok(directory)
    }

    fn remember(&self, address: Address, former: &Former) -> io::Result<()> {
        let line = |name: &Option<String>| name.clone().unwrap_or_default();
        let text = format!(
            "{}\n{}\n{}\n{}\n",
            line(&former.driver),
            line(&former.driver_override),
            former.ids,
            former.virtual_functions
        );
        fs::write(self.records().join(address.to_string()), text)
    }

    /// The function's former state, unless another one is at its address since.
    fn recall(&self, function: &Function) -> Option<Former> {
        let path = self.records().join(function.address.to_string());
        let text = fs::read_to_string(path).ok()?;
        let mut lines = text.lines();
        let mut name = || {
            let line = lines.next()?.to_owned();
            Some(Some(line).filter(|line| !line.is_empty()))
        };
        let former = Former {
            driver: name()?,
            driver_override: name()?,
            ids: name()??,
            virtual_functions: name()??.parse().ok()?,
        };
        (former.ids == ids(function)).then_some(former)
    }

    fn forget(&self, address: Address) {
        // It may not be there, and one that stays is written over by the next bind.
        let _ = fs::remove_file(self.records().join(address.to_string()));
    }
}

fn unchanged(function: Function) -> Rebound {
    Rebound {
        from: function.driver.clone(),
        to: function.driver,
        notes: Vec::new(),
    }
}

/// Vendor and device.
fn ids(function: &Function) -> String {
    format!("{:04x}:{:04x}", function.vendor, function.device)
}

/// Returns whether that is vfio-pci, or a variant of it.
fn is_vfio(driver: &str) -> bool {
    driver.replace('_', "-").ends_with(VFIO)
}

fn named(driver: Option<&String>) -> &str {
    driver.map_or("no driver", String::as_str)
}

fn read_override(path: &Path) -> io::Result<Option<String>> {
    let text = fs::read_to_string(path)?;
    let name = text.trim();
    Ok((!name.is_empty() && name != "(null)").then(|| name.to_owned()))
}

fn rebind(address: Address, driver: &str, why: &str) -> Error {
    Error::Rebind {
        address,
        driver: driver.to_owned(),
        why: why.to_owned(),
    }
}

fn failed(address: Address, verb: &str, what: &str, source: io::Error) -> Error {
    let what = format!("{address}: {what}");
    match source.kind() {
        io::ErrorKind::PermissionDenied => Error::NeedsRoot {
            what,
            command: format!("pinwire {verb} {address}"),
        },
        _ => Error::io(what, source),
    }
}

#[cfg(test)]
mod tests;

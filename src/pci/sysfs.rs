//! The kernel's view of PCI functions (`/sys/bus/pci`): ids, driver, IOMMU group, and whether one can be used from
//! user space.
//!
//! All paths hang on a root, so that tests can make a tree of their own.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{Address, processes};
use crate::error::{Error, Result};

/// One PCI function as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its address.
    pub address: Address,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Class code: base class, subclass, programming interface, one byte each.
    pub class: u32,
    /// The driver that has it.
    pub driver: Option<String>,
    /// Its IOMMU group; none where no IOMMU guards it.
    pub group: Option<u32>,
    /// Network interfaces that its driver made.
    pub interfaces: Vec<String>,
}

impl Function {
    /// Returns whether its driver is vfio-pci, or a device's own variant of it (`mlx5_vfio_pci`).
    pub fn is_bound_to_vfio(&self) -> bool {
        let driver = self.driver.as_deref().unwrap_or_default();
        driver.replace('_', "-").ends_with("vfio-pci")
    }

    /// Returns whether its driver keeps the whole group from being used. Those of bridges do not.
    fn is_in_the_way(&self) -> bool {
        let harmless = [None, Some("pcieport"), Some("pci-stub")];
        !self.is_bound_to_vfio() && !harmless.contains(&self.driver.as_deref())
    }
}

/// The kernel's view of the machine, under a root directory (`/`).
#[derive(Debug, Clone)]
pub struct Sysfs {
    pub(super) root: PathBuf,
    /// The reaction of a test, in place of the kernel's, when this file has been written.
    #[cfg(test)]
    pub(super) kernel: Option<fn(&Self, &Path, &str)>,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::at("/")
    }
}

impl Sysfs {
    /// The tree under `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            #[cfg(test)]
            kernel: None,
        }
    }

    /// The function's directory.
    pub(crate) fn device(&self, address: Address) -> PathBuf {
        let devices = self.root.join("sys/bus/pci/devices");
        devices.join(address.to_string())
    }

    /// Checks that the kernel shows a PCI bus at all.
    fn check_bus(&self) -> Result<()> {
        let there = |path: &str| self.root.join(path).exists();
        if there("sys/bus/pci/devices") {
            return Ok(());
        }
        let (what, remedy) = match there("sys/kernel") {
            false => (
                "/sys is not mounted, and only there the kernel says which devices there are",
                "sudo mount -t sysfs none /sys",
            ),
            true => (
                "the kernel shows no PCI bus: there is no /sys/bus/pci/devices",
                "a machine or a VM that has one (qemu/vm), or a model of QEMU's on this host (qtest:e1000)",
            ),
        };
        Err(Error::KernelLacks {
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        })
    }

    /// All functions, by address.
    ///
    /// # Errors
    /// If sysfs cannot be read.
    pub fn functions(&self) -> Result<Vec<Function>> {
        self.check_bus()?;
        let addresses = addresses_in(&self.root.join("sys/bus/pci/devices"))?;
        let functions = addresses.into_iter().map(|address| self.function(address));
        // One that went meanwhile is not listed.
        functions
            .filter(|function| !matches!(function, Err(Error::NoSuchDevice(_))))
            .collect()
    }

    /// The function at `address`.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`], or where sysfs cannot be read.
    pub fn function(&self, address: Address) -> Result<Function> {
        let device = self.device(address);
        if !device.exists() {
            // Nothing is there without sysfs, which does not mean that there is nothing.
            self.check_bus()?;
            return Err(Error::NoSuchDevice(address));
        }
        Ok(Function {
            address,
            vendor: hex(&device.join("vendor"))? as u16,
            device: hex(&device.join("device"))? as u16,
            class: hex(&device.join("class"))?,
            driver: target_name(&device.join("driver")),
            group: target_name(&device.join("iommu_group")).and_then(|name| name.parse().ok()),
            interfaces: self.interfaces(address),
        })
    }

    /// The network interfaces of a function, which may be a device further down (as virtio's are).
    fn interfaces(&self, address: Address) -> Vec<String> {
        let class = self.root.join("sys/class/net");
        let mut names = names_in(&class).unwrap_or_default();
        names.retain(|name| function_of(&class.join(name)) == Some(address));
        names.sort();
        names
    }

    /// The functions of an IOMMU group, by address.
    ///
    /// # Errors
    /// If sysfs cannot be read.
    pub fn members(&self, group: u32) -> Result<Vec<Function>> {
        let path = format!("sys/kernel/iommu_groups/{group}/devices");
        let addresses = addresses_in(&self.root.join(path))?;
        addresses
            .into_iter()
            .map(|address| self.function(address))
            .collect()
    }

    /// The members of a group that keep it from being used, with the driver of each.
    ///
    /// # Errors
    /// If sysfs cannot be read.
    pub fn in_the_way(&self, group: u32) -> Result<Vec<(Address, String)>> {
        let members = self.members(group)?.into_iter();
        let members = members.filter(Function::is_in_the_way);
        Ok(members
            .filter_map(|member| Some((member.address, member.driver?)))
            .collect())
    }

    /// Checks that the function can be opened over VFIO, as far as sysfs tells, and returns its group.
    ///
    /// # Errors
    /// The obstacle, and what to do: [`Error::NoIommu`], [`Error::AroundIommu`], [`Error::KernelLacks`],
    /// [`Error::NotBound`], [`Error::GroupNotViable`].
    pub fn check_usable(&self, function: &Function) -> Result<u32> {
        let address = function.address;
        let group = function.group.ok_or(Error::NoIommu(address))?;
        if self.goes_around_the_iommu(address) {
            return Err(Error::AroundIommu(address));
        }
        self.check_vfio()?;
        if !function.is_bound_to_vfio() {
            let driver = function.driver.clone();
            return Err(Error::NotBound { address, driver });
        }
        let members = self.in_the_way(group)?;
        if !members.is_empty() {
            return Err(Error::GroupNotViable {
                address,
                group,
                members,
            });
        }
        Ok(group)
    }

    /// Checks that the kernel has what VFIO needs.
    ///
    /// # Errors
    /// [`Error::KernelLacks`] where the vfio-pci driver is not there.
    pub fn check_vfio(&self) -> Result<()> {
        match self.root.join("sys/bus/pci/drivers/vfio-pci").exists() {
            true => Ok(()),
            false => Err(Error::KernelLacks {
                what: "the kernel's vfio-pci driver is not loaded".to_owned(),
                remedy: "sudo modprobe vfio-pci".to_owned(),
            }),
        }
    }

    /// Returns whether config space reads all ones: then nothing answers at the address any more.
    pub fn is_gone(&self, address: Address) -> bool {
        let mut ids = [0; 4];
        let config = fs::File::open(self.device(address).join("config"));
        let read = config.and_then(|mut config| config.read_exact(&mut ids));
        read.is_ok() && ids == [0xff; 4]
    }

    /// Program and process id of who has the group's file open, if we may see that.
    pub fn group_holder(&self, group: u32) -> Option<String> {
        let file = Path::new("/dev/vfio").join(group.to_string());
        Some(processes::holder(&self.root, &file)?.name())
    }
}

fn reading(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let what = format!("reading {}", path.display());
    |source| Error::io(what, source)
}

pub(super) fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?;
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into());
    entries.map(name).collect()
}

fn addresses_in(directory: &Path) -> Result<Vec<Address>> {
    let names = names_in(directory).map_err(reading(directory))?;
    let mut addresses: Vec<_> = names
        .iter()
        .filter_map(|name| Address::from_str(name).ok())
        .collect();
    addresses.sort();
    Ok(addresses)
}

/// The PCI function that a device of sysfs belongs to: the last one on the way to it.
pub(super) fn function_of(link: &Path) -> Option<Address> {
    let target = fs::read_link(link).ok()?;
    let mut parts = target.iter().rev();
    parts.find_map(|part| part.to_str()?.parse().ok())
}

/// The last part of what a symbolic link points to.
pub(super) fn target_name(link: &Path) -> Option<String> {
    let target = fs::read_link(link).ok()?;
    Some(target.file_name()?.to_string_lossy().into())
}

fn hex(path: &Path) -> Result<u32> {
    let text = fs::read_to_string(path).map_err(reading(path))?;
    let digits = text.trim().trim_start_matches("0x");
    u32::from_str_radix(digits, 16)
        .map_err(|_| Error::Usage(format!("{}: {text:?} is no number", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A tree with these functions and their drivers, all in group 7, vfio-pci being loaded.
    fn machine(functions: &[(&str, Option<&str>)]) -> (tempfile::TempDir, Sysfs) {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("sys/bus/pci/drivers/vfio-pci")).unwrap();
        let group = at("sys/kernel/iommu_groups/7");
        fs::create_dir_all(group.join("devices")).unwrap();
        for &(address, driver) in functions {
            let device = at("sys/bus/pci/devices").join(address);
            fs::create_dir_all(&device).unwrap();
            for (file, text) in [
                ("vendor", "0x8086"),
                ("device", "0x10d3"),
                ("class", "0x020000"),
            ] {
                fs::write(device.join(file), text).unwrap();
            }
            symlink(&group, device.join("iommu_group")).unwrap();
            symlink(&device, group.join("devices").join(address)).unwrap();
            if let Some(driver) = driver {
                let driver = at("sys/bus/pci/drivers").join(driver);
                symlink(driver, device.join("driver")).unwrap();
            }
        }
        let sysfs = Sysfs::at(root.path());
        (root, sysfs)
    }

    #[test]
    fn functions_are_listed_by_address() {
        let (root, sysfs) = machine(&[("0000:00:04.0", None), ("0000:00:03.0", Some("e1000e"))]);
        let functions = sysfs.functions().unwrap();
        let first = Function {
            address: "0000:00:03.0".parse().unwrap(),
            vendor: 0x8086,
            device: 0x10d3,
            class: 0x02_00_00,
            driver: Some("e1000e".to_owned()),
            group: Some(7),
            interfaces: Vec::new(),
        };
        assert_eq!((functions.len(), &functions[0]), (2, &first));
        assert_eq!(functions[1].driver, None);
        let said = |error: Error| error.to_string();
        fs::remove_dir_all(root.path().join("sys/bus/pci/devices")).unwrap();
        let no_bus = said(sysfs.functions().unwrap_err());
        assert!(no_bus.contains("the kernel shows no PCI bus"), "{no_bus}");
        drop(root);
        let unmounted = [
            said(sysfs.functions().unwrap_err()),
            said(sysfs.function(first.address).unwrap_err()),
        ];
        for error in unmounted {
            assert!(error.contains("mount -t sysfs"), "{error}");
        }
    }

    #[test]
    fn a_group_is_viable_where_nobody_else_drives_a_member() {
        let members = [
            ("0000:00:03.0", Some("vfio-pci")),
            ("0000:00:03.1", Some("mlx5_vfio_pci")),
            ("0000:00:1c.0", Some("pcieport")),
            ("0000:00:03.2", None),
        ];
        let (_root, sysfs) = machine(&members);
        let function = sysfs.function("0000:00:03.0".parse().unwrap()).unwrap();
        assert_eq!(sysfs.check_usable(&function).unwrap(), 7);

        let (_root, sysfs) = machine(&[members[0], ("0000:00:03.1", Some("e1000e"))]);
        let error = sysfs.check_usable(&function).unwrap_err().to_string();
        assert!(error.contains("IOMMU group 7 is not viable"), "{error}");
        assert!(error.contains("0000:00:03.1 is bound to e1000e"), "{error}");
        assert!(error.contains("pinwire bind 0000:00:03.1"), "{error}");
    }

    #[test]
    fn a_function_that_reads_all_ones_is_gone() {
        let (root, sysfs) = machine(&[("0000:00:03.0", None)]);
        let address = "0000:00:03.0".parse().unwrap();
        assert!(!sysfs.is_gone(address));
        let config = root.path().join("sys/bus/pci/devices/0000:00:03.0/config");
        fs::write(&config, [0x86, 0x80, 0x0e, 0x10]).unwrap();
        assert!(!sysfs.is_gone(address));
        fs::write(&config, [0xff; 64]).unwrap();
        assert!(sysfs.is_gone(address));
    }

    #[test]
    fn who_holds_a_group_is_found() {
        let (root, sysfs) = machine(&[]);
        let process = root.path().join("proc/77");
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::write(process.join("comm"), "testpmd\n").unwrap();
        symlink("/dev/vfio/7", process.join("fd/9")).unwrap();
        let holder = sysfs.group_holder(7);
        assert_eq!(holder.as_deref(), Some("testpmd (process 77)"));
        assert_eq!(sysfs.group_holder(8), None);
    }
}

//! Taking a function from its driver for vfio-pci, and giving it back.
//!
//! `driver_override` says which driver alone may have the function. What it said before, and which
//! driver there was, is kept in `/run/pinwire/ADDRESS` until the function is given back: like the
//! binding itself, that lasts until the next boot. Where a step fails, those before it are undone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::sysfs::{function_of, names_in, target_name};
use super::{Address, Function, Sysfs};
use crate::error::{Error, Result};

/// What [`Sysfs::bind`] or [`Sysfs::unbind`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebound {
    /// The driver before.
    pub from: Option<String>,
    /// The driver now.
    pub to: Option<String>,
}

/// What a function had before we took it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Former {
    driver: Option<String>,
    driver_override: Option<String>,
}

const VFIO: &str = "vfio-pci";

impl Sysfs {
    /// Gives the function to vfio-pci; where vfio-pci has it already, nothing is done. With `force`,
    /// also one that the system is using.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`], [`Error::NoIommu`], [`Error::KernelLacks`], [`Error::InUse`],
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
        let path = self.device(address).join("driver_override");
        let former = Former {
            driver: function.driver.clone(),
            driver_override: read_override(&path).map_err(step("reading driver_override"))?,
        };
        self.remember(address, &former)
            .map_err(step("remembering its driver in /run/pinwire"))?;
        let taken = self.take(address).and_then(|()| {
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
            }),
            Err(error) => {
                match self.give_back(address, &former) {
                    Ok(_) => self.forget(address),
                    Err(worse) => tracing::error!("undoing what was done: {worse}"),
                }
                Err(error)
            }
        }
    }

    /// Takes the function from vfio-pci and gives it back to the driver that it had when it was bound;
    /// where it was not [`Sysfs::bind`] that did, to the driver that the kernel finds. Where
    /// vfio-pci has not got it, nothing is done.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`], [`Error::GroupBusy`], [`Error::KernelLacks`] where the former driver
    /// is not loaded any more, [`Error::NeedsRoot`], or [`Error::Rebind`] where it refuses.
    pub fn unbind(&self, address: Address) -> Result<Rebound> {
        let step = |what| move |source| failed(address, "unbind", what, source);
        let function = self.function(address)?;
        let former = self.recall(address);
        let is_ours = function.is_bound_to_vfio() || function.driver.is_none() && former.is_some();
        if !is_ours {
            self.forget(address);
            return Ok(unchanged(function));
        }
        // The kernel would wait for that program to end, however long.
        if let Some(group) = function.group
            && let Some(holder) = self.group_holder(group)
        {
            return Err(Error::GroupBusy {
                address,
                group,
                holder: Some(holder),
            });
        }
        let _lock = self.lock().map_err(step("locking /run/pinwire"))?;
        let to = match former {
            Some(former) => self.give_back(address, &former)?,
            None => self.give_up(address)?,
        };
        self.forget(address);
        Ok(Rebound {
            from: function.driver,
            to,
        })
    }

    /// Does nothing of the system use the function: no interface with an address, no bridge, no disk?
    ///
    /// # Errors
    /// [`Error::InUse`] where something does; [`Error::NoSuchDevice`].
    pub fn check_unused(&self, address: Address) -> Result<()> {
        match self.usage(&self.function(address)?)? {
            Some(usage) => Err(Error::InUse { address, usage }),
            None => Ok(()),
        }
    }

    fn check_bindable(&self, function: &Function, force: bool) -> Result<()> {
        let address = function.address;
        if function.group.is_none() {
            return Err(Error::NoIommu(address));
        }
        self.check_vfio()?;
        const BRIDGE: u32 = 0x06;
        if function.class >> 16 == BRIDGE {
            let why = "it is a bridge, and other devices are behind it";
            return Err(rebind(address, VFIO, why));
        }
        match self.usage(function)? {
            Some(usage) if !force => Err(Error::InUse { address, usage }),
            _ => Ok(()),
        }
    }

    fn take(&self, address: Address) -> Result<()> {
        self.set_override(address, "bind", VFIO)?;
        self.release(address, "bind")?;
        let path = self.root.join("sys/bus/pci/drivers_probe");
        self.write(&path, &address.to_string())
            .map_err(|source| failed(address, "bind", "asking vfio-pci to take it", source))
    }

    /// Puts things as they were.
    fn give_back(&self, address: Address, former: &Former) -> Result<Option<String>> {
        let current = target_name(&self.device(address).join("driver"));
        if current == former.driver {
            let name = former.driver_override.as_deref().unwrap_or_default();
            self.set_override(address, "unbind", name)?;
            return Ok(current);
        }
        let driver = former.driver.as_deref();
        let path = driver.map(|name| self.root.join("sys/bus/pci/drivers").join(name));
        if let Some(path) = &path
            && !path.exists()
        {
            let name = driver.unwrap_or_default();
            return Err(Error::KernelLacks {
                what: format!("{address}: its driver {name} is not loaded any more"),
                remedy: format!("sudo modprobe {name}, then again: pinwire unbind {address}"),
            });
        }
        let name = former.driver_override.as_deref().unwrap_or_default();
        self.set_override(address, "unbind", name)?;
        self.release(address, "unbind")?;
        if let Some((path, name)) = path.zip(driver) {
            self.write(&path.join("bind"), &address.to_string())
                .map_err(|error| rebind(address, name, &error.to_string()))?;
        }
        Ok(target_name(&self.device(address).join("driver")))
    }

    /// Lets the kernel find a driver.
    fn give_up(&self, address: Address) -> Result<Option<String>> {
        self.set_override(address, "unbind", "")?;
        self.release(address, "unbind")?;
        let path = self.root.join("sys/bus/pci/drivers_probe");
        self.write(&path, &address.to_string())
            .map_err(|source| failed(address, "unbind", "asking drivers to take it", source))?;
        Ok(target_name(&self.device(address).join("driver")))
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

    /// What the system uses the function for, if it does: an address, a bridge, a mounted disk.
    fn usage(&self, function: &Function) -> Result<Option<String>> {
        let net = self.root.join("sys/class/net");
        for interface in &function.interfaces {
            let flags = fs::read_to_string(net.join(interface).join("flags")).unwrap_or_default();
            let digits = flags.trim().trim_start_matches("0x");
            let is_up = u32::from_str_radix(digits, 16).unwrap_or(0) & libc::IFF_UP as u32 != 0;
            if !is_up {
                continue;
            }
            let above = names_in(&net.join(interface)).unwrap_or_default();
            if let Some(above) = above.iter().find_map(|name| name.strip_prefix("upper_")) {
                return Ok(Some(format!("{interface} is up and part of {above}")));
            }
            let all = if_addrs::get_if_addrs()
                .map_err(|source| Error::io("asking for the interfaces' addresses", source))?;
            if let Some(found) = all.iter().find(|found| found.name == *interface) {
                let ip = found.ip();
                return Ok(Some(format!("{interface} is up with the address {ip}")));
            }
        }
        Ok(self.mount_on(function.address))
    }

    /// A filesystem on a disk of the function: `/sys/dev/block` leads from the disk to the function.
    fn mount_on(&self, address: Address) -> Option<String> {
        let mounts = fs::read_to_string(self.root.join("proc/self/mountinfo")).ok()?;
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ');
            let (number, place) = (fields.nth(2)?, fields.nth(1)?);
            let disk = self.root.join("sys/dev/block").join(number);
            let is_ours = function_of(&disk) == Some(address);
            is_ours.then(|| format!("{place} is mounted from a disk of it"))
        })
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
            "{}\n{}\n",
            line(&former.driver),
            line(&former.driver_override)
        );
        fs::write(self.records().join(address.to_string()), text)
    }

    fn recall(&self, address: Address) -> Option<Former> {
        let text = fs::read_to_string(self.records().join(address.to_string())).ok()?;
        let mut lines = text
            .lines()
            .map(|line| Some(line.to_owned()).filter(|line| !line.is_empty()));
        Some(Former {
            driver: lines.next()?,
            driver_override: lines.next()?,
        })
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
    }
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
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const NIC: &str = "0000:00:03.0";

    fn address() -> Address {
        NIC.parse().unwrap()
    }

    /// A machine with an e1000 at [`NIC`], whose interface is called `interface`.
    struct Machine {
        sysfs: Sysfs,
        root: tempfile::TempDir,
    }

    impl Machine {
        fn new(interface: &str) -> Self {
            let root = tempfile::tempdir().unwrap();
            let mut sysfs = Sysfs::at(root.path());
            sysfs.kernel = Some(kernel);
            let machine = Self { sysfs, root };
            let device = format!("sys/bus/pci/devices/{NIC}");
            for (file, text) in [
                ("vendor", "0x8086\n"),
                ("device", "0x100e\n"),
                ("class", "0x020000\n"),
                ("driver_override", "(null)\n"),
            ] {
                machine.file(&format!("{device}/{file}"), text);
            }
            for driver in ["vfio-pci", "e1000", "toy"] {
                machine.file(&format!("sys/bus/pci/drivers/{driver}/bind"), "");
                machine.file(&format!("sys/bus/pci/drivers/{driver}/unbind"), "");
            }
            machine.file("sys/bus/pci/drivers_probe", "");
            let net = format!("sys/devices/pci0000:00/{NIC}/virtio1/net/{interface}");
            machine.file(&format!("{net}/flags"), "0x1003\n");
            machine.link(&format!("sys/class/net/{interface}"), &net);
            machine.link(
                &format!("{device}/iommu_group"),
                "sys/kernel/iommu_groups/7",
            );
            machine.link(&format!("{device}/driver"), "sys/bus/pci/drivers/e1000");
            machine
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn link(&self, path: &str, target: &str) {
            let path = self.root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(self.root.path().join(target), path).unwrap();
        }

        fn driver(&self) -> Option<String> {
            self.sysfs.function(address()).unwrap().driver
        }

        fn driver_override(&self) -> Option<String> {
            read_override(&self.sysfs.device(address()).join("driver_override")).unwrap()
        }

        fn records(&self) -> usize {
            names_in(&self.sysfs.records()).map_or(0, |names| names.len())
        }
    }

    /// What the kernel does when this file is written. A file `refuse` makes vfio-pci refuse.
    fn kernel(sysfs: &Sysfs, path: &Path, text: &str) {
        let device = sysfs.device(address());
        let link = device.join("driver");
        let drivers = sysfs.root.join("sys/bus/pci/drivers");
        let file = path.file_name().unwrap().to_str().unwrap();
        let attach = |name: &str| {
            let refused = name == "vfio-pci" && sysfs.root.join("refuse").exists();
            if !refused && !link.exists() {
                symlink(drivers.join(name), &link).unwrap();
            }
        };
        match file {
            "driver_override" if text == "\n" => fs::write(path, "(null)\n").unwrap(),
            "unbind" => fs::remove_file(&link).unwrap(),
            "bind" => {
                let driver = path.parent().unwrap().file_name().unwrap();
                attach(driver.to_str().unwrap());
            }
            "drivers_probe" => {
                let name = read_override(&device.join("driver_override")).unwrap();
                attach(name.as_deref().unwrap_or("e1000"));
            }
            _ => {}
        }
    }

    fn some(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    #[test]
    fn unbind_restores_what_bind_changed() {
        for former in [None, some("e1000")] {
            let machine = Machine::new("none0");
            let path = format!("sys/bus/pci/devices/{NIC}/driver_override");
            machine.file(&path, former.as_deref().unwrap_or("(null)"));
            let bound = machine.sysfs.bind(address(), false).unwrap();
            assert_eq!((bound.from, bound.to), (some("e1000"), some("vfio-pci")));
            assert_eq!(machine.driver_override(), some("vfio-pci"));
            let again = machine.sysfs.bind(address(), false).unwrap();
            assert_eq!(again.from, again.to);

            let unbound = machine.sysfs.unbind(address()).unwrap();
            assert_eq!(
                (unbound.from, unbound.to),
                (some("vfio-pci"), some("e1000"))
            );
            assert_eq!(machine.driver(), some("e1000"));
            assert_eq!(machine.driver_override(), former);
            assert_eq!(machine.records(), 0);
            let again = machine.sysfs.unbind(address()).unwrap();
            assert_eq!(again.from, again.to);
        }
    }

    #[test]
    fn a_function_without_a_driver_has_none_again() {
        let machine = Machine::new("none0");
        fs::remove_file(machine.sysfs.device(address()).join("driver")).unwrap();
        machine.sysfs.bind(address(), false).unwrap();
        assert_eq!(machine.driver(), some("vfio-pci"));
        assert_eq!(machine.sysfs.unbind(address()).unwrap().to, None);
        assert_eq!((machine.driver(), machine.driver_override()), (None, None));
    }

    #[test]
    fn the_driver_that_it_had_gets_it_back_and_not_the_likeliest() {
        let machine = Machine::new("none0");
        fs::remove_file(machine.sysfs.device(address()).join("driver")).unwrap();
        machine.link(
            &format!("sys/bus/pci/devices/{NIC}/driver"),
            "sys/bus/pci/drivers/toy",
        );
        machine.sysfs.bind(address(), false).unwrap();
        assert_eq!(machine.sysfs.unbind(address()).unwrap().to, some("toy"));
    }

    #[test]
    fn what_somebody_else_bound_goes_to_the_driver_that_the_kernel_finds() {
        let machine = Machine::new("none0");
        machine.sysfs.bind(address(), false).unwrap();
        machine.sysfs.forget(address());
        assert_eq!(machine.sysfs.unbind(address()).unwrap().to, some("e1000"));
        assert_eq!(machine.driver_override(), None);
    }

    #[test]
    fn a_bind_that_fails_is_undone() {
        let machine = Machine::new("none0");
        machine.file("refuse", "");
        let error = machine.sysfs.bind(address(), false).unwrap_err();
        assert!(matches!(error, Error::Rebind { .. }), "{error}");
        assert_eq!(machine.driver(), some("e1000"));
        assert_eq!(machine.driver_override(), None);
        assert_eq!(machine.records(), 0);
    }

    #[test]
    fn an_unbind_whose_driver_is_not_loaded_changes_nothing() {
        let machine = Machine::new("none0");
        machine.sysfs.bind(address(), false).unwrap();
        let drivers = machine.root.path().join("sys/bus/pci/drivers");
        fs::rename(drivers.join("e1000"), drivers.join("e1001")).unwrap();
        let error = machine.sysfs.unbind(address()).unwrap_err().to_string();
        assert!(error.contains("modprobe e1000"), "{error}");
        assert_eq!(machine.driver(), some("vfio-pci"));
        assert_eq!(machine.driver_override(), some("vfio-pci"));
        fs::rename(drivers.join("e1001"), drivers.join("e1000")).unwrap();
        assert_eq!(machine.sysfs.unbind(address()).unwrap().to, some("e1000"));
    }

    #[test]
    fn an_interface_in_use_is_refused_unless_forced() {
        // The one interface that every machine has, with an address.
        let machine = Machine::new("lo");
        let error = machine
            .sysfs
            .bind(address(), false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("lo is up with the address"), "{error}");
        assert!(
            error.contains("pinwire bind --force 0000:00:03.0"),
            "{error}"
        );
        assert_eq!(machine.driver(), some("e1000"));
        machine.sysfs.bind(address(), true).unwrap();
        assert_eq!(machine.driver(), some("vfio-pci"));
    }

    #[test]
    fn an_interface_that_is_down_is_not_in_use() {
        let machine = Machine::new("lo");
        machine.file("sys/class/net/lo/flags", "0x1002\n");
        machine.sysfs.bind(address(), false).unwrap();
    }

    #[test]
    fn an_interface_in_a_bridge_is_in_use() {
        let machine = Machine::new("none0");
        machine.file("sys/class/net/none0/upper_br0/flags", "");
        let error = machine
            .sysfs
            .bind(address(), false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("none0 is up and part of br0"), "{error}");
    }

    #[test]
    fn a_disk_with_a_mounted_filesystem_is_in_use() {
        let machine = Machine::new("none0");
        let mount = "25 1 259:1 / /home rw - ext4 /dev/nvme0n1p1 rw\n";
        machine.file("proc/self/mountinfo", mount);
        let disk = format!("sys/devices/pci0000:00/{NIC}/nvme/nvme0/nvme0n1/nvme0n1p1");
        machine.link("sys/dev/block/259:1", &disk);
        let error = machine
            .sysfs
            .bind(address(), false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("/home is mounted"), "{error}");
    }

    #[test]
    fn what_cannot_be_bound_is_left_alone() {
        let machine = Machine::new("none0");
        let class = format!("sys/bus/pci/devices/{NIC}/class");
        machine.file(&class, "0x060400\n");
        let error = machine.sysfs.bind(address(), true).unwrap_err().to_string();
        assert!(error.contains("is a bridge"), "{error}");
        machine.file(&class, "0x020000\n");

        let drivers = machine.root.path().join("sys/bus/pci/drivers");
        fs::remove_dir_all(drivers.join("vfio-pci")).unwrap();
        let error = machine.sysfs.bind(address(), true).unwrap_err().to_string();
        assert!(error.contains("modprobe vfio-pci"), "{error}");

        fs::remove_file(machine.sysfs.device(address()).join("iommu_group")).unwrap();
        let error = machine.sysfs.bind(address(), true).unwrap_err();
        assert!(matches!(error, Error::NoIommu(_)), "{error}");
        assert_eq!(machine.driver(), some("e1000"));
        let nowhere = machine.sysfs.bind("0000:00:1f.0".parse().unwrap(), true);
        assert!(matches!(nowhere, Err(Error::NoSuchDevice(_))));
    }
}

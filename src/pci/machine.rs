//! A machine that a test makes: a tree of sysfs and proc, and what the kernel does as files are written.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Address, Sysfs};

/// Address of the card.
pub const NIC: &str = "0000:00:03.0";

pub fn address() -> Address {
    NIC.parse().unwrap()
}

/// A machine with an e1000 at [`NIC`], whose interface is called `interface`.
pub struct Machine {
    pub sysfs: Sysfs,
    pub root: tempfile::TempDir,
}

impl Machine {
    pub fn new(interface: &str) -> Self {
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
        machine.file(&format!("{net}/flags"), "0x1002\n");
        machine.link(&format!("sys/class/net/{interface}"), &net);
        machine.link(
            &format!("{device}/iommu_group"),
            "sys/kernel/iommu_groups/7",
        );
        machine.link(&format!("{device}/driver"), "sys/bus/pci/drivers/e1000");
        machine
    }

    pub fn file(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn link(&self, path: &str, target: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let target = match target.starts_with('/') {
            true => target.into(),
            false => self.root.path().join(target),
        };
        symlink(target, path).unwrap();
    }

    /// A block device: its name, its number, and the directory of its device.
    pub fn block(&self, name: &str, number: &str, device: &str) {
        self.file(&format!("{device}/dev"), &format!("{number}\n"));
        self.link(&format!("sys/class/block/{name}"), device);
        self.link(&format!("sys/dev/block/{number}"), device);
    }

    pub fn driver(&self) -> Option<String> {
        self.sysfs.function(address()).unwrap().driver
    }

    pub fn set_driver(&self, name: Option<&str>) {
        let link = self.sysfs.device(address()).join("driver");
        let _ = fs::remove_file(&link);
        if let Some(name) = name {
            let drivers = self.root.path().join("sys/bus/pci/drivers");
            symlink(drivers.join(name), link).unwrap();
        }
    }
}

/// The kernel's reaction when this file is written. Drivers that are named in a file `refuse` refuse; with a file
/// `vfio_has_ids`, vfio-pci is the first that wants the card.
fn kernel(sysfs: &Sysfs, path: &Path, text: &str) {
    let device = sysfs.device(address());
    let link = device.join("driver");
    let drivers = sysfs.root.join("sys/bus/pci/drivers");
    let file = path.file_name().unwrap().to_str().unwrap();
    let reserved = || {
        let text = fs::read_to_string(device.join("driver_override")).unwrap();
        Some(text.trim().to_owned()).filter(|name| name != "(null)")
    };
    let refusing = fs::read_to_string(sysfs.root.join("refuse")).unwrap_or_default();
    let attach = |name: &str| {
        let may = reserved().is_none_or(|reserved| reserved == name);
        let wants = !refusing.split(' ').any(|refusing| refusing == name);
        if may && wants && !link.exists() {
            symlink(drivers.join(name), &link).unwrap();
        }
    };
    match file {
        "driver_override" if text == "\n" => fs::write(path, "(null)\n").unwrap(),
        "unbind" => fs::remove_file(&link).unwrap(),
        "sriov_numvfs" if text == "0" => fs::remove_file(device.join("virtfn0")).unwrap(),
        "bind" => {
            let driver = path.parent().unwrap().file_name().unwrap();
            attach(driver.to_str().unwrap());
        }
        "drivers_probe" => match reserved() {
            Some(name) => attach(&name),
            None => {
                if sysfs.root.join("vfio_has_ids").exists() {
                    attach("vfio-pci");
                }
                attach("e1000");
            }
        },
        _ => {}
    }
}

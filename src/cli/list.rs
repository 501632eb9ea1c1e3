//! `pinwire list`: the PCI functions, and what keeps each from being used.

use comfy_table::{Table, presets};
use pci_ids::FromId;
use serde::Serialize;

use super::output::{self, Outcome};
use crate::Error;
use crate::block;
use crate::open::Drivers;
use crate::pci::{Address, Function, Sysfs};

/// Lists the PCI functions, with their driver and IOMMU group, and says which can be used.
///
/// USABLE is "yes", or what to do first, or "-" for what is no card that pinwire has a driver for.
#[derive(clap::Args)]
pub struct Args {
    /// A JSON array, one object a function, for programs
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs it.
    pub fn run(self, drivers: &Drivers) -> Outcome {
        let sysfs = Sysfs::default();
        let rows: Vec<_> = sysfs
            .functions()?
            .into_iter()
            .map(|function| Row::new(&sysfs, drivers, function))
            .collect();
        match self.json {
            true => {
                let text = serde_json::to_string_pretty(&rows).expect("names and numbers");
                output::line(text)
            }
            false => output::line(table(&rows).trim_fmt()),
        }
    }
}

/// The base class of bridges (PCI Code and ID Assignment, §1.7).
const BRIDGE: u8 = 0x06;

/// A function, as `--json` gives it.
#[derive(Serialize)]
struct Row {
    address: String,
    /// Class, vendor and device as sysfs writes them.
    class: String,
    vendor: String,
    device: String,
    /// Names, as the PCI ID Repository has them.
    class_name: Option<&'static str>,
    vendor_name: Option<&'static str>,
    device_name: Option<&'static str>,
    driver: Option<String>,
    iommu_group: Option<u32>,
    interfaces: Vec<String>,
    /// True if pinwire has a driver for it.
    known: bool,
    usable: bool,
    /// The obstacle to its use, and what to do.
    why_not: Option<String>,
    #[serde(skip)]
    remedy: String,
}

impl Row {
    fn new(sysfs: &Sysfs, drivers: &Drivers, function: Function) -> Self {
        let (vendor, device) = (function.vendor, function.device);
        let [_, base, sub, _] = function.class.to_be_bytes();
        let known = drivers.drives(block::Function {
            vendor,
            device,
            class: function.class,
        });
        let obstacle = obstacle(sysfs, &function);
        Self {
            address: function.address.to_string(),
            class: format!("{:#08x}", function.class),
            vendor: format!("{vendor:#06x}"),
            device: format!("{device:#06x}"),
            class_name: pci_ids::Subclass::from_cid_sid(base, sub)
                .map(|found| found.name())
                .or_else(|| pci_ids::Class::from_id(base).map(|found| found.name())),
            vendor_name: pci_ids::Vendor::from_id(vendor).map(|found| found.name()),
            device_name: pci_ids::Device::from_vid_pid(vendor, device).map(|found| found.name()),
            driver: function.driver,
            iommu_group: function.group,
            interfaces: function.interfaces,
            known,
            usable: known && obstacle.is_none(),
            remedy: match &obstacle {
                // Nobody drives a bridge from user space.
                _ if !known && base == BRIDGE => "-".to_owned(),
                _ if !known => "a driver of yours may".to_owned(),
                Some(error) => remedy(error),
                None => "yes".to_owned(),
            },
            why_not: match known {
                true => obstacle.map(|error| error.to_string()),
                false => Some("pinwire has no driver for it; one of yours may drive it".to_owned()),
            },
        }
    }

    /// Its class and name, or its numbers where nobody knows them.
    fn description(&self) -> String {
        let class = self.class_name.unwrap_or(&self.class);
        let vendor = self.vendor_name.unwrap_or(&self.vendor);
        let device = self.device_name.unwrap_or(&self.device);
        format!("{class}: {vendor} {device}")
    }
}

/// Returns the error that keeps the function from being opened.
fn obstacle(sysfs: &Sysfs, function: &Function) -> Option<Error> {
    let group = match sysfs.check_usable(function) {
        Ok(group) => group,
        Err(error) => return Some(error),
    };
    let holder = sysfs.group_holder(group)?;
    Some(Error::GroupBusy {
        address: function.address,
        group,
        holder: Some(holder),
    })
}

/// Returns the remedy, short enough for a table.
fn remedy(error: &Error) -> String {
    match error {
        Error::NotBound { address, .. } => format!("pinwire bind {address}"),
        Error::GroupNotViable { members, .. } => {
            let addresses = members
                .iter()
                .map(|(address, _)| Address::to_string(address));
            format!("pinwire bind {}", addresses.collect::<Vec<_>>().join(" "))
        }
        Error::NoIommu(_) => "turn on the IOMMU".to_owned(),
        Error::AroundIommu(_) => "QEMU: iommu_platform=on".to_owned(),
        Error::KernelLacks { remedy, .. } => remedy.clone(),
        Error::GroupBusy { holder, .. } => {
            format!("in use by {}", holder.as_deref().unwrap_or("a program"))
        }
        // The first line says what is wrong.
        other => other
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "ADDRESS",
        "DRIVER",
        "GROUP",
        "INTERFACE",
        "USABLE",
        "DEVICE",
    ]);
    for row in rows {
        let group = row.iommu_group.map(|group| group.to_string());
        table.add_row([
            row.address.clone(),
            row.driver.clone().unwrap_or_default(),
            group.unwrap_or_default(),
            row.interfaces.join(" "),
            row.remedy.clone(),
            row.description(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function() -> Function {
        Function {
            address: "0000:00:03.0".parse().unwrap(),
            vendor: 0x8086,
            device: 0x100e,
            class: 0x02_00_00,
            driver: Some("e1000".to_owned()),
            group: None,
            interfaces: vec!["eth0".to_owned()],
        }
    }

    #[test]
    fn a_function_is_named() {
        let row = Row::new(&Sysfs::at("/nowhere"), &Drivers::default(), function());
        let name = "Ethernet controller: Intel Corporation 82540EM Gigabit Ethernet Controller";
        assert_eq!(row.description(), name);
        assert_eq!(
            (row.class.as_str(), row.vendor.as_str()),
            ("0x020000", "0x8086")
        );
        assert!(table(&[row]).to_string().contains("turn on the IOMMU"));
    }

    #[test]
    fn what_nobody_knows_is_shown_by_its_numbers() {
        let stranger = Function {
            vendor: 0xeee0,
            device: 1,
            class: 0xfe_00_00,
            ..function()
        };
        let nowhere = Sysfs::at("/nowhere");
        let row = Row::new(&nowhere, &Drivers::default(), stranger.clone());
        assert_eq!(row.description(), "0xfe0000: 0xeee0 0x0001");
        let yours = "a driver of yours may";
        assert_eq!((row.remedy.as_str(), row.usable), (yours, false));
        let bridge = Function {
            class: 0x06_00_00,
            ..stranger
        };
        let row = Row::new(&Sysfs::at("/nowhere"), &Drivers::none(), bridge);
        assert_eq!((row.remedy.as_str(), row.usable), ("-", false));
    }
}

//! Users of a function, whatever lies between.
//!
//! The question is asked of the kernel from four sides, since none tells all: what stands on the
//! function's block devices ([`disks`]), in every mount namespace ([`mounts`]); what its network interfaces
//! are for, in every network namespace ([`interfaces`]); and which process has one of its device nodes
//! or its registers open ([`nodes`]).
//!
//! A function with virtual functions has their users, too: they go with it.

mod disks;
mod interfaces;
mod mounts;
mod nodes;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

use super::sysfs::{names_in, target_name};
use super::{Address, Function, Sysfs, class};
use crate::error::{Error, Result};

impl Sysfs {
    /// Checks that nothing of the system uses the function: no interface with an address, no bridge, no disk.
    ///
    /// # Errors
    /// [`Error::InUse`] or [`Error::DiskInUse`] where something does; [`Error::NoSuchDevice`].
    pub fn check_unused(&self, address: Address) -> Result<()> {
        let function = self.function(address)?;
        self.check_disks(&function)?;
        self.check_others(&function)
    }

    /// Checks that the function may be taken. With `force`, also one that is neither a network card nor an NVMe disk, or whose interface
    /// is in use, but never one with a disk that is, nor one that the IOMMU does not guard.
    pub(super) fn check_takeable(&self, function: &Function, force: bool) -> Result<()> {
        self.check_disks(function)?;
        if self.goes_around_the_iommu(function.address) {
            return Err(Error::AroundIommu(function.address));
        }
        if force {
            return Ok(());
        }
        if !class::is_network(function.class) && !class::is_nvme(function.class) {
            return Err(Error::NotNetwork {
                address: function.address,
                class: class::name(function.class),
                driver: function.driver.clone(),
            });
        }
        self.check_others(function)
    }

    /// No disk of it is in use, nor a virtual function of it by a program, which the kernel would wait for.
    fn check_disks(&self, function: &Function) -> Result<()> {
        let address = function.address;
        let virtuals = self.virtual_functions(address);
        for virtual_function in &virtuals {
            let found = self.function(*virtual_function)?;
            if let Some(group) = found.group
                && let Some(holder) = self.group_holder(group)
            {
                return Err(Error::GroupBusy {
                    address: *virtual_function,
                    group,
                    holder: Some(holder),
                });
            }
        }
        let all = [&[address][..], &virtuals].concat();
        match disks::usage(self, &all) {
            Some(usage) => Err(Error::DiskInUse { address, usage }),
            None => Ok(()),
        }
    }

    fn check_others(&self, function: &Function) -> Result<()> {
        let address = function.address;
        let virtuals = self.virtual_functions(address);
        let all = [&[address][..], &virtuals].concat();
        let usage = interfaces::usage(self, &all)?
            .or_else(|| nodes::usage(self, |node| node.is_below(self, &all)))
            .or_else(|| {
                let names: Vec<_> = virtuals.iter().map(Address::to_string).collect();
                let names = names.join(", ");
                (!virtuals.is_empty()).then(|| format!("its virtual functions go with it: {names}"))
            });
        match usage {
            Some(usage) => Err(Error::InUse { address, usage }),
            None => Ok(()),
        }
    }

    /// The virtual functions (SR-IOV) of a physical one.
    pub(super) fn virtual_functions(&self, address: Address) -> Vec<Address> {
        let device = self.device(address);
        let names = names_in(&device).unwrap_or_default();
        let links = names.iter().filter(|name| name.starts_with("virtfn"));
        let mut all: Vec<_> = links
            .filter_map(|link| target_name(&device.join(link))?.parse().ok())
            .collect();
        all.sort();
        all
    }

    /// Returns whether a virtio device below the function reaches memory around the IOMMU. As long as a driver of the
    /// kernel's has it, sysfs tells (virtio 1.2, §6: VIRTIO_F_ACCESS_PLATFORM).
    pub(super) fn goes_around_the_iommu(&self, address: Address) -> bool {
        const ACCESS_PLATFORM: usize = 33;
        let devices = self.root.join("sys/bus/virtio/devices");
        let names = names_in(&devices).unwrap_or_default();
        names.iter().map(|name| devices.join(name)).any(|device| {
            // A digit for each feature.
            let features = fs::read_to_string(device.join("features")).unwrap_or_default();
            is_below(&device, &[address]) && features.as_bytes().get(ACCESS_PLATFORM) == Some(&b'0')
        })
    }
}

/// Returns whether the link of sysfs leads to one of these functions, or to a device below it.
fn is_below(link: &Path, functions: &[Address]) -> bool {
    let Ok(target) = fs::read_link(link) else {
        return false;
    };
    target.iter().any(|part| {
        let address = part.to_str().and_then(|part| part.parse().ok());
        address.is_some_and(|address| functions.contains(&address))
    })
}

/// Content of a small file, without the line's end; empty if there is none.
fn line_of(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

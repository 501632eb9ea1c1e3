//! Container and groups: what VFIO wants before it gives a device.
//!
//! A container is an I/O address space; a group is the smallest set of functions that the IOMMU can
//! tell from the others, and belongs to one process at a time. A [`Domain`] is a container with the
//! groups in it, and all that the rest asks of them: a variant over `iommufd` and a device's own file
//! would be another one of these.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use vfio_bindings::bindings::vfio::*;

use super::ioctl;
use crate::error::{Error, Result};
use crate::pci::{Address, Sysfs};

const CONTAINER: &str = "/dev/vfio/vfio";

/// Longest time for which the kernel may be busy resetting the device after its former owner.
const OPEN_BOUND: Duration = Duration::from_secs(5);

/// An I/O address space with groups in it.
#[derive(Debug)]
pub struct Domain {
    // In this order: the groups leave the container before that is closed.
    groups: BTreeMap<u32, File>,
    container: File,
}

/// The IOMMU's report of itself.
#[derive(Debug, Clone)]
pub struct IommuInfo {
    /// Page sizes, one bit each.
    pub page_sizes: u64,
    /// IOVA ranges that may be used.
    pub ranges: Vec<RangeInclusive<u64>>,
    /// Largest number of mappings, if the kernel tells.
    pub mappings: Option<u32>,
}

impl Domain {
    /// Opens the groups of functions that sysfs says can be used, each with its group's number.
    pub fn open(sysfs: &Sysfs, functions: &[(Address, u32)]) -> Result<Self> {
        let mut domain = Self {
            groups: BTreeMap::new(),
            container: new_container()?,
        };
        for (address, number) in functions {
            // Functions may share a group, and a group opens once.
            if !domain.groups.contains_key(number) {
                let group = domain.join(sysfs, *address, *number)?;
                domain.groups.insert(*number, group);
            }
        }
        Ok(domain)
    }

    /// Opens one more group, for the sake of `address`.
    fn join(&self, sysfs: &Sysfs, address: Address, number: u32) -> Result<File> {
        let os = |what: &'static str| move |source| Error::io(format!("{address}: {what}"), source);
        let busy = || Error::GroupBusy {
            address,
            group: number,
            holder: sysfs.group_holder(number),
        };
        let group = open(&format!("/dev/vfio/{number}"), |error| {
            match error.raw_os_error() {
                Some(libc::EBUSY) => Some(busy()),
                // VFIO made up a group where there is no IOMMU.
                Some(libc::ENOENT)
                    if Path::new(&format!("/dev/vfio/noiommu-{number}")).exists() =>
                {
                    Some(Error::NoIommu(address))
                }
                _ => None,
            }
        })?;
        let flags = ioctl::group_flags(&group).map_err(os("asking for the group's state"))?;
        if flags & VFIO_GROUP_FLAGS_VIABLE == 0 {
            return Err(Error::GroupNotViable {
                address,
                group: number,
                members: sysfs.in_the_way(number)?,
            });
        }
        let forgeable = || {
            Error::KernelLacks {
            what: format!(
                "{address}: the IOMMU does not remap interrupts, so a device could forge them"
            ),
            remedy: "enable interrupt remapping (VT-d: intremap in the firmware), or if you trust the device: \
                     echo 1 | sudo tee /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
                .to_owned(),
        }
        };
        let entered = ioctl::set_container(&group, &self.container);
        entered.map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => busy(),
            Some(libc::EPERM) => forgeable(),
            _ => os("putting its group into a container")(error),
        })?;
        // A container has its kind of IOMMU from its first group on.
        if self.groups.is_empty() {
            let done = ioctl::set_iommu(&self.container, VFIO_TYPE1v2_IOMMU);
            done.map_err(|error| match error.raw_os_error() {
                Some(libc::EPERM) => forgeable(),
                _ => os("giving its container an IOMMU")(error),
            })?;
        }
        Ok(group)
    }

    /// Opens the device, which is in that group. The kernel resets it before, and may still be busy
    /// with that for its former user: then it says "again".
    pub fn device(&self, address: Address, group: u32) -> Result<File> {
        let name = CString::new(address.to_string()).expect("an address has no zero byte");
        while_busy(OPEN_BOUND, || ioctl::device(&self.groups[&group], &name))
            .map_err(|source| Error::io(format!("{address}: opening the device"), source))
    }

    /// Reads the IOMMU's report of itself.
    pub fn info(&self) -> io::Result<IommuInfo> {
        let (info, capabilities) = ioctl::iommu_info(&self.container)?;
        let missing = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        if info.flags & VFIO_IOMMU_INFO_PGSIZES == 0 || info.iova_pgsizes == 0 {
            return Err(missing("the IOMMU does not tell its page sizes"));
        }
        let ranges = capabilities
            .find(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
            .and_then(ioctl::pairs)
            .ok_or_else(|| missing("the IOMMU does not tell its IOVA ranges (Linux before 5.4)"))?;
        let mappings = capabilities.find(VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL);
        Ok(IommuInfo {
            page_sizes: info.iova_pgsizes,
            ranges: ranges
                .into_iter()
                .map(|(first, last)| first..=last)
                .collect(),
            mappings: mappings.and_then(|bytes| ioctl::word(bytes, 0)),
        })
    }

    /// Pins `len` bytes at `address` and maps them at `iova`.
    ///
    /// # Safety
    /// As [`ioctl::map_dma`].
    pub unsafe fn map(
        &self,
        address: *const u8,
        iova: u64,
        len: usize,
        write: bool,
    ) -> io::Result<()> {
        let write = if write { VFIO_DMA_MAP_FLAG_WRITE } else { 0 };
        let flags = VFIO_DMA_MAP_FLAG_READ | write;
        // SAFETY: the caller's word.
        unsafe { ioctl::map_dma(&self.container, flags, address, iova, len) }
    }

    /// Unmaps and unpins what was mapped at `iova`; gives how many bytes that was.
    pub fn unmap(&self, iova: u64, len: usize) -> io::Result<u64> {
        ioctl::unmap_dma(&self.container, iova, len)
    }
}

/// An empty container that can have an IOMMU of type 1.
fn new_container() -> Result<File> {
    let container = open(CONTAINER, |error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Some(Error::KernelLacks {
            what: format!("there is no {CONTAINER}: the kernel's vfio module is not loaded"),
            remedy: "sudo modprobe vfio-pci".to_owned(),
        }),
        _ => None,
    })?;
    let os = |source| Error::io("asking VFIO what it can do", source);
    let version = ioctl::api_version(&container).map_err(os)?;
    let has_type1 = ioctl::has_extension(&container, VFIO_TYPE1v2_IOMMU);
    if version != VFIO_API_VERSION as i32 || !has_type1.map_err(os)? {
        return Err(Error::KernelLacks {
            what: "the kernel's VFIO has no type 1 IOMMU".to_owned(),
            remedy: "sudo modprobe vfio_iommu_type1".to_owned(),
        });
    }
    Ok(container)
}

/// Tries again as long as the kernel says "again", at most `bound` long.
pub fn while_busy<T>(bound: Duration, attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < bound => {
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
}

/// Opens a file of /dev/vfio for reading and writing; `known` explains what it knows of errors.
fn open(path: &str, known: impl FnOnce(&io::Error) -> Option<Error>) -> Result<File> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map_err(|error| match known(&error) {
        Some(error) => error,
        None if error.kind() == io::ErrorKind::PermissionDenied => not_permitted(path, error),
        None => Error::io(format!("opening {path}"), error),
    })
}

fn not_permitted(path: &str, error: io::Error) -> Error {
    match Path::new(path).metadata() {
        Ok(metadata) => Error::NotPermitted {
            path: path.to_owned(),
            owner: user_name(metadata.uid()),
            mode: metadata.mode() & 0o777,
        },
        Err(_) => Error::io(format!("opening {path}"), error),
    }
}

/// The user's name as /etc/passwd has it, or the number.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("user {uid}"))
}

//! Memory for the device: allocated, pinned, mapped through the IOMMU, and given back in the other
//! order.
//!
//! Memory of 1 MiB and more comes from 2 MiB hugepages where there are any: one entry of the IOMMU's
//! and the processor's caches then covers 512 times as much. Less than that comes from small pages: a
//! ring of 4 KiB would waste the rest of a hugepage, and the smaller a mapping, the less can a
//! device reach beyond what it was given.
//!
//! The space owns the groups, so that the IOMMU keeps its mappings as long as any region lives, also
//! when the devices themselves have been closed before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::group::Domain;
use crate::backend::out_of_reach;
use crate::dma::{DmaSpace, Iova, IovaAllocator, Mapping, SpaceId};
use crate::error::{Error, Result};

const HUGE_BITS: u8 = 21;
const HUGE: usize = 1 << HUGE_BITS;

/// The I/O address space of one device, or of several.
#[derive(Debug)]
pub struct Space {
    id: SpaceId,
    name: String,
    /// The smallest page that both the IOMMU and the processor have, in bytes.
    page: usize,
    /// Largest number of mappings at a time, if the kernel tells.
    most: Option<u32>,
    // Before the memory: closing it ends all mappings.
    domain: Domain,
    mapped: Mutex<Mapped>,
}

#[derive(Debug)]
struct Mapped {
    iovas: IovaAllocator,
    memory: BTreeMap<Iova, MmapRaw>,
}

impl Space {
    /// The address space of `domain`, for the devices of that name.
    pub fn new(name: String, domain: Domain) -> Result<Self> {
        let info = domain.info().map_err(|source| {
            Error::io(format!("{name}: asking for what the IOMMU can do"), source)
        })?;
        tracing::debug!(%name, ?info, "IOMMU");
        // SAFETY: takes a number, gives a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        Ok(Self {
            id: SpaceId::new(),
            name,
            page: page.max(1 << info.page_sizes.trailing_zeros()),
            most: info.mappings,
            mapped: Mutex::new(Mapped {
                iovas: IovaAllocator::new(info.ranges),
                memory: BTreeMap::new(),
            }),
            domain,
        })
    }

    fn mapped(&self) -> MutexGuard<'_, Mapped> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Maps all of `memory`, whose pages have `page` bytes, at an IOVA that suits them.
    fn map(&self, memory: MmapRaw, page: usize, write: bool) -> Result<Mapping, Refused> {
        let len = memory.len();
        let mut mapped = self.mapped();
        let iova = mapped.iovas.alloc(len as u64, page as u64);
        let iova = iova.ok_or_else(|| {
            Refused::Other(Error::NoIova {
                device: self.name.clone(),
                len: len as u64,
                ranges: mapped.iovas.ranges(),
            })
        })?;
        // SAFETY: this is the only owner of the memory; it keeps it in `memory` until it is unmapped.
        let done = unsafe { self.domain.map(memory.as_ptr(), iova.0, len, write) };
        if let Err(error) = done {
            mapped.iovas.free(iova);
            return Err(match error.raw_os_error() {
                Some(libc::EFAULT) => Refused::NoPages(error),
                _ => Refused::Other(self.refused(len, error)),
            });
        }
        let ptr = NonNull::new(memory.as_mut_ptr()).expect("mmap never gives null");
        mapped.memory.insert(iova, memory);
        Ok(Mapping {
            ptr,
            len,
            iova,
            page,
        })
    }

    /// The reason for which `len` bytes could not be mapped.
    fn refused(&self, len: usize, error: io::Error) -> Error {
        let what = format!("{}: mapping {len} bytes for the device", self.name);
        match error.raw_os_error() {
            Some(libc::ENOMEM) => {
                let needed = locked_now() + len as u64;
                match memlock_limit() {
                    Some(limit) if needed > limit => Error::MemlockLimit { needed, limit },
                    _ => Error::io(what, error),
                }
            }
            // The answer of type1 where its table of mappings is full.
            Some(libc::ENOSPC) => Error::KernelLacks {
                what: match self.most {
                    Some(most) => format!("{what}: the kernel allows {most} mappings at a time"),
                    None => format!("{what}: the kernel allows no more mappings"),
                },
                remedy: "fewer and longer mappings, or raise the limit: \
                    echo 1000000 | sudo tee /sys/module/vfio_iommu_type1/parameters/dma_entry_limit"
                    .to_owned(),
            },
            _ => Error::io(what, error),
        }
    }

    /// `len` bytes on hugepages, or nothing where that cannot be, whatever the reason: small pages are
    /// shorter (the locked-memory limit), fit into more ranges, and the pages that were promised may be
    /// denied when they are pinned (a control group's limit). So it is for them to fail.
    fn alloc_huge(&self, len: usize) -> Option<Mapping> {
        let len = len.checked_next_multiple_of(HUGE)?;
        let memory = MmapOptions::new().len(len).huge(Some(HUGE_BITS)).map_anon();
        let memory = private(memory.ok()?).ok()?;
        self.map(memory, HUGE, true).ok()
    }

    /// Undoes `mapping`; its IOVAs are free again where `reuse` says so.
    fn undo(&self, mapping: &Mapping, reuse: bool) {
        let mut mapped = self.mapped();
        let Some(memory) = mapped.memory.remove(&mapping.iova) else {
            tracing::error!(?mapping, "unmapping what is not mapped");
            return;
        };
        match self.domain.unmap(mapping.iova.0, mapping.len) {
            Ok(bytes) if bytes == mapping.len as u64 => {
                if reuse {
                    mapped.iovas.free(mapping.iova);
                }
                drop(memory);
            }
            outcome => {
                // The device may still reach it: neither the memory nor the IOVA is used again.
                std::mem::forget(memory);
                tracing::error!(
                    ?mapping,
                    ?outcome,
                    "the IOMMU did not unmap it: it is leaked"
                );
            }
        }
    }
}

/// The reason for which memory was not mapped.
enum Refused {
    /// Some pages of it are not to be had.
    NoPages(io::Error),
    Other(Error),
}

/// Memory that no child process gets: after a `fork` the parent could otherwise be the one whose
/// pages are replaced at the next write, and the device would go on with the old ones.
fn private(memory: memmap2::MmapMut) -> io::Result<MmapRaw> {
    memory.advise(Advice::DontFork)?;
    Ok(MmapRaw::from(memory))
}

// SAFETY: every mapping is an mmap of its own, kept in `memory` until `unmap`.
unsafe impl DmaSpace for Space {
    fn id(&self) -> SpaceId {
        self.id
    }

    fn limit(&self, device: &str, last: Iova) -> Result<()> {
        let limited = self.mapped().iovas.limit(last);
        limited.map_err(|end| out_of_reach(device, last, end))
    }

    fn alloc(&self, len: usize) -> Result<Mapping> {
        // At least half of the last hugepage is used.
        if len >= HUGE / 2 {
            if let Some(mapping) = self.alloc_huge(len) {
                return Ok(mapping);
            }
            static TOLD: Once = Once::new();
            TOLD.call_once(|| {
                tracing::warn!(
                    "not enough hugepages for {len} bytes: small pages are used, which is slower; to reserve some: \
                     echo 64 | sudo tee /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
                );
            });
        }
        let no_memory = |error| Error::io(format!("allocating {len} bytes"), error);
        let rounded = len.max(1).checked_next_multiple_of(self.page);
        let rounded = rounded.ok_or_else(|| no_memory(io::ErrorKind::OutOfMemory.into()))?;
        let memory = MmapOptions::new().len(rounded).map_anon();
        let memory = memory.and_then(private).map_err(no_memory)?;
        self.map(memory, self.page, true)
            .map_err(|refused| match refused {
                Refused::NoPages(error) => no_memory(error),
                Refused::Other(error) => error,
            })
    }

    fn map_file(&self, file: &File, offset: u64, len: usize) -> Result<Mapping> {
        let refused = |what: String| Error::File {
            path: path_of(file),
            what,
        };
        let rounded = len.max(1).checked_next_multiple_of(self.page);
        let rounded = rounded.ok_or_else(|| refused(format!("{len} bytes are too many to map")))?;
        let memory = MmapOptions::new()
            .offset(offset)
            .len(rounded)
            .map_raw_read_only(file)
            .map_err(|error| refused(format!("mapping {len} bytes at {offset}: {error}")))?;
        self.map(memory, self.page, false).map_err(|error| match error {
            Refused::NoPages(error) => refused(format!(
                "{len} bytes at {offset} cannot be pinned ({error}): it was truncated meanwhile, or its filesystem does not keep it in the page cache"
            )),
            Refused::Other(error) => error,
        })
    }

    unsafe fn unmap(&self, mapping: &Mapping) {
        self.undo(mapping, true);
    }

    /// The IOMMU cuts the device off, so the memory is freed.
    unsafe fn quarantine(&self, mapping: &Mapping) {
        self.undo(mapping, false);
    }
}

/// Path of the file, as far as the kernel can tell.
fn path_of(file: &File) -> PathBuf {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(link).unwrap_or_else(|_| PathBuf::from("a file"))
}

/// Bytes that this process has locked so far: what is pinned counts.
fn locked_now() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| {
        let value = line.strip_prefix("VmLck:")?.trim().strip_suffix("kB")?;
        value.trim().parse::<u64>().ok()
    });
    kib.unwrap_or(0) * 1024
}

/// Number of bytes that this process may lock; `None` without a limit.
fn memlock_limit() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: one valid `rlimit`.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    (done == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

//! The backing of a file's pages: where they are read from, and where what is dirty goes.
//!
//! Not judged by what a filesystem is called: one of memory is mounted as `rootfs`, `devtmpfs` or not at all
//! (a memfd), and an overlay is what its layers are. The kernel is asked for the file itself: which device it
//! is on, whose operations its superblock has (`fstatfs`), whether it is mapped past the cache (`statx`); and
//! where that does not tell, the flags of its pages do, as far as one may see them. Else it is not known, and
//! nothing is said of a disk.

use std::fs::File;

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, fstat, fstatfs, major, statx};

use super::counts::Counts;

/// The store that a file's pages come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// A disk: what is clean is there, too, and what is absent is read from there.
    Disk,
    /// Nothing: the pages are the file. What is absent is a hole, or on the swap.
    Memory,
    /// Unknown: a server, a program, or another filesystem.
    Unknown,
}

/// Superblocks without a store (<linux/magic.h>): what is written to them stays in memory.
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const HUGETLBFS: u64 = 0x9584_58f6;
/// One that has a disk, and device numbers of its own.
const BTRFS: u64 = 0x9123_683e;
/// Superblocks whose files' pages are another file's, in a filesystem below.
const OVERLAY: u64 = 0x794c_7630;
const ECRYPTFS: u64 = 0xf15f;

fn magic(file: &File) -> u64 {
    // The field is signed on some machines, and shorter.
    fstatfs(file).map_or(0, |fs| fs.f_type as u64 & 0xffff_ffff)
}

impl Backing {
    /// Returns the backing of `file`, as far as the kernel tells everybody.
    pub fn of(file: &File) -> Self {
        match magic(file) {
            TMPFS | RAMFS | HUGETLBFS => Self::Memory,
            BTRFS => Self::Disk,
            // A device number with a major one is a block device's.
            _ if fstat(file).is_ok_and(|stat| major(stat.st_dev) != 0) => Self::Disk,
            _ => Self::Unknown,
        }
    }

    /// The same, where it was not known, by what a look found: pages that live in memory alone say so.
    pub fn seen(self, total: Counts) -> Self {
        match (self, total.unbacked) {
            (Self::Unknown, Some(1..)) => Self::Memory,
            (known, _) => known,
        }
    }
}

/// Returns whether the pages are another file's, so that the kernel's counts for this one miss them.
pub fn is_stacked(file: &File) -> bool {
    matches!(magic(file), OVERLAY | ECRYPTFS)
}

/// Bytes of the pages that `file` is made of, where those are huge ones (hugetlbfs).
pub fn huge_page(file: &File) -> Option<u64> {
    let fs = fstatfs(file).ok()?;
    let is_huge = fs.f_type as u64 & 0xffff_ffff == HUGETLBFS;
    u64::try_from(fs.f_bsize)
        .ok()
        .filter(|size| is_huge && *size > 0)
}

/// Checks that what is read of the file goes through the page cache.
///
/// # Errors
/// In words, where its storage is mapped past the cache (DAX), or it cannot be mapped at all: then the kernel, or
/// somebody's program, makes up its bytes at each read.
pub fn check_cached(file: &File) -> Result<(), String> {
    let attributes = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
        .map_or(StatxAttributes::empty(), |statx| statx.stx_attributes);
    if attributes.contains(StatxAttributes::DAX) {
        return Err(
            "its storage is mapped itself (DAX), and no page of it is ever in the page cache\n  nothing is to \
             be shown: every read is from there"
                .to_owned(),
        );
    }
    let page = memmap2::MmapOptions::new()
        .len(huge_page(file).unwrap_or(1) as usize)
        .no_reserve_swap()
        .map_raw_read_only(file);
    match page.map_err(|error| (error.raw_os_error(), error)) {
        Err((
            Some(libc::ENODEV | libc::EACCES | libc::EPERM | libc::EIO | libc::EINVAL),
            error,
        )) => Err(format!(
            "it cannot be mapped ({error}), so nothing of it is in the page cache\n  its filesystem makes \
                 up or fetches its bytes at each read"
        )),
        _ => Ok(()),
    }
}

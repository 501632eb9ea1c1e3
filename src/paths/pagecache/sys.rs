//! The system calls that no crate gives a safe face: `mincore`, `cachestat`, a read of pages that may
//! be gone, faults counted, `sync_file_range`. All that is unsafe in this room is here.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use memmap2::MmapRaw;

use super::span::{Span, page_bytes};

/// Maps a call's answer: -1 is `errno`.
fn checked(answer: libc::c_long) -> io::Result<libc::c_long> {
    match answer {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

/// Returns one byte a page of the mapping; its bit 0 is set where the page is in memory.
pub fn mincore(map: &MmapRaw) -> io::Result<Vec<u8>> {
    let mut pages = vec![0; map.len().div_ceil(page_bytes() as usize)];
    // SAFETY: the range is a whole mapping that `map` keeps, and the kernel writes a byte for each of
    // its pages, which is what `pages` has room for. It does not touch the pages themselves.
    let answer = unsafe { libc::mincore(map.as_mut_ptr().cast(), map.len(), pages.as_mut_ptr()) };
    checked(answer.into()).map(|_| pages)
}

/// Its number (<asm-generic/unistd.h>), which libc does not know everywhere.
const SYS_CACHESTAT: libc::c_long = 451;

/// `struct cachestat` of <linux/mman.h>.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct CacheStat {
    pub cache: u64,
    pub dirty: u64,
    pub writeback: u64,
    pub evicted: u64,
    pub recently_evicted: u64,
}

/// `cachestat` of a span that has pages (0 bytes would mean: to the end).
pub fn cachestat(file: &File, span: Span) -> io::Result<CacheStat> {
    // `struct cachestat_range`: offset, length.
    let range: [u64; 2] = [span.offset(), span.bytes()];
    let mut stat = CacheStat::default();
    // SAFETY: the kernel reads two u64 and writes five, laid out as <linux/mman.h> has them; both live
    // until it returns. The descriptor is open as long as `file` is.
    let answer = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            file.as_raw_fd(),
            range.as_ptr(),
            &raw mut stat,
            0 as libc::c_uint,
        )
    };
    checked(answer).map(|_| stat)
}

/// Counts of one [`read_a_byte_each`].
#[derive(Debug, Default, Clone, Copy)]
pub struct Read {
    pub pages: usize,
    /// Faults that waited for a disk.
    pub major: u64,
    /// The others.
    pub minor: u64,
}

/// Lets the kernel read a byte of each of `pages` of `map` into `sink`, up to the first that is not there (any more),
/// and counts the faults. A load of ours from a page past the end of a file that shrank would end the program by
/// SIGBUS; the kernel's load makes the call fail instead.
pub fn read_a_byte_each(map: &MmapRaw, pages: &[usize], sink: BorrowedFd) -> io::Result<Read> {
    let page = page_bytes() as usize;
    let count = pages.len().min(libc::UIO_MAXIOV as usize);
    let bytes: Vec<libc::iovec> = pages[..count]
        .iter()
        .map(|index| {
            assert!(index * page < map.len(), "a page of the mapping");
            libc::iovec {
                iov_base: map.as_mut_ptr().wrapping_add(index * page).cast(),
                iov_len: 1,
            }
        })
        .collect();
    let (major, minor) = faults()?;
    // SAFETY: each of the `count` entries is a byte inside the mapping, which `map` keeps; the kernel
    // only reads them, and answers EFAULT where there is no page.
    let read = unsafe { libc::pwritev(sink.as_raw_fd(), bytes.as_ptr(), count as libc::c_int, 0) };
    let read = checked(read as libc::c_long);
    let (after_major, after_minor) = faults()?;
    let pages = match read {
        Ok(read) => read as usize,
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => 0,
        Err(error) => return Err(error),
    };
    Ok(Read {
        pages,
        major: after_major - major,
        minor: after_minor - minor,
    })
}

/// Faults of this thread so far: major and minor.
fn faults() -> io::Result<(u64, u64)> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes one rusage, for which there is room.
    checked(unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) }.into())?;
    // SAFETY: all zeroes is a valid rusage, and the kernel has filled it in.
    let usage = unsafe { usage.assume_init() };
    Ok((usage.ru_majflt as u64, usage.ru_minflt as u64))
}

/// Writes the dirty pages of a span to the disk and waits for them.
pub fn sync_file_range(file: &File, span: Span) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let (offset, bytes) = (span.offset() as i64, span.bytes() as i64);
    // SAFETY: no memory of ours is involved; the descriptor is open as long as `file` is.
    let answer = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, bytes, flags) };
    checked(answer.into()).map(|_| ())
}

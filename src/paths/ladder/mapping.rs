//! A file in our address space, for calls that read it from there.
//!
//! We never look into it ourselves: a page that has lost its file would be SIGBUS then. The kernel, where
//! it reads for a call, makes EFAULT of it, which is an error like others.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use memmap2::{MmapOptions, MmapRaw};
use rustix::io::Errno;

use super::{Sink, Stopped, Why, unsupported};

/// A mapping of a file, from its position on, as long as the file was then.
pub(super) struct Mapping<'a> {
    file: &'a File,
    begin: u64,
    map: MmapRaw,
}

impl<'a> Mapping<'a> {
    /// Maps as much as is to go.
    ///
    /// # Errors
    /// [`Why::Missing`] where the file system has no such thing; what the system says of it otherwise.
    pub fn of(file: &'a File, sink: &Sink<'_>) -> Result<Self, Stopped> {
        let mapping = Self::new(file, sink.len()).map_err(|error| sink.failed("mmap", error));
        mapping.map_err(|stopped| stopped.or_missing(&unsupported::MMAP))
    }

    fn new(file: &'a File, len: u64) -> io::Result<Self> {
        let begin = rustix::fs::tell(file)?;
        let there = len.min(file.metadata()?.len().saturating_sub(begin));
        let there = usize::try_from(there).map_err(io::Error::other)?;
        let mut options = MmapOptions::new();
        let map = options.offset(begin).len(there).map_raw_read_only(file)?;
        Ok(Self { file, begin, map })
    }

    /// The next bytes that may go: [`Sink::room`] as far as the file was there.
    ///
    /// # Errors
    /// As that; [`Why::Shrunk`], also when all went, but the file is no longer as long: zeros may have
    /// gone from its last page.
    pub fn room(&self, sink: &mut Sink<'_>) -> Result<Option<usize>, Stopped> {
        let Some(most) = sink.room()? else {
            let now = self.file.metadata().map_err(|e| sink.failed("fstat", e))?;
            let whole = now.len() >= self.begin + sink.len();
            return whole
                .then_some(None)
                .ok_or_else(|| sink.stopped(Why::Shrunk));
        };
        match most.min(self.map.len() - self.gone(sink)) {
            0 => Err(sink.stopped(Why::Shrunk)),
            most => Ok(Some(most)),
        }
    }

    /// `write` from the mapping, of the `len` bytes after those that went.
    pub fn write(&self, to: BorrowedFd<'_>, gone: u64, len: usize) -> rustix::io::Result<usize> {
        let bytes = self.at(gone, len);
        // SAFETY: the kernel reads at most `len` bytes of a mapping that outlives the call, of which there
        // are as many behind `bytes`; a page whose file has gone is EFAULT to it.
        done(unsafe { libc::write(to.as_raw_fd(), bytes.cast(), len) })
    }

    /// `send` from the mapping, likewise.
    pub fn send(
        &self,
        to: BorrowedFd<'_>,
        gone: u64,
        len: usize,
        flags: i32,
    ) -> rustix::io::Result<usize> {
        let bytes = self.at(gone, len);
        // SAFETY: as in `write`; with MSG_ZEROCOPY the kernel holds the pages themselves, which the file's
        // cache owns, for as long as it needs them, whatever becomes of the mapping.
        done(unsafe { libc::send(to.as_raw_fd(), bytes.cast(), len, flags) })
    }

    fn gone(&self, sink: &Sink<'_>) -> usize {
        // Less than the mapping has, which is in memory.
        sink.sent() as usize
    }

    fn at(&self, gone: u64, len: usize) -> *const u8 {
        let gone = gone as usize;
        assert!(gone <= self.map.len() && len <= self.map.len() - gone);
        self.map.as_ptr().wrapping_add(gone)
    }
}

fn done(result: isize) -> rustix::io::Result<usize> {
    usize::try_from(result)
        .map_err(|_| Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Says EFAULT in words: that is what a call on a mapping meets where the file has ended.
pub(super) fn shrunk(stopped: Stopped) -> Stopped {
    match &stopped.why {
        Why::Call { source, .. } if source.raw_os_error() == Some(libc::EFAULT) => Stopped {
            why: Why::Shrunk,
            ..stopped
        },
        _ => stopped,
    }
}

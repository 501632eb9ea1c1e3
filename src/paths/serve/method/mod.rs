//! The ways to move a file's bytes into a socket: what a server's methods differ in, and all of it.
//!
//! Each of them is one small file that says which copies the processor makes and how often it enters
//! the kernel. The rest of the server does not know which one it has.

mod io_uring;
mod mmap;
mod otherwise;
mod read;
mod ring;
mod send_mapped;
mod sendfile;
mod splice;
mod zerocopy;

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::Result;

pub use io_uring::IoUring;
pub use mmap::Mmap;
pub use read::Read;
pub use sendfile::Sendfile;
pub use splice::Splice;
pub use zerocopy::ZeroCopy;

/// The bytes of a file that go next.
pub struct Piece<'a> {
    /// The file.
    pub file: BorrowedFd<'a>,
    /// Their offset in it.
    pub at: u64,
    /// Number of bytes, at least 1. A method takes as many of them at once as suit it.
    pub len: u64,
    /// True if more of this answer follows at once. Then no small packet need leave in between.
    pub more: bool,
}

/// A way to move bytes of a file into a socket. One belongs to each worker.
pub trait Method: Sized {
    /// Its state for one connection: nothing, where the kernel is done with our memory when a call returns.
    type Kept: Default;

    /// Makes ready, for one worker.
    ///
    /// # Errors
    /// [`Error::KernelLacks`](crate::Error::KernelLacks) where this kernel does not do it, with why.
    fn new() -> Result<Self>;

    /// Sets up the socket that connections will be accepted from: they inherit it.
    ///
    /// # Errors
    /// The feature that the kernel lacks.
    fn listening(&self, _listener: BorrowedFd<'_>) -> Result<()> {
        Ok(())
    }

    /// Moves bytes of `piece` into `socket`, in order from its first; gives how many the socket took.
    /// 0 says that the file ends before its first byte: it has shrunk.
    ///
    /// # Errors
    /// `WouldBlock` where the socket is full; whatever else is wrong with file or peer.
    fn move_some(
        &mut self,
        kept: &mut Self::Kept,
        piece: &Piece<'_>,
        socket: BorrowedFd<'_>,
    ) -> io::Result<usize>;

    /// The kernel has something to say about what was sent before (`EPOLLERR`).
    ///
    /// # Errors
    /// Reading it failed.
    fn reported(&mut self, _kept: &mut Self::Kept, _socket: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    /// The connection ends.
    fn forget(&mut self, _kept: Self::Kept) {}

    /// Returns its counts.
    fn counts(&self) -> ZeroCopyCounts {
        ZeroCopyCounts::default()
    }
}

/// Counts of sends with `MSG_ZEROCOPY`; all 0 with another method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZeroCopyCounts {
    /// Sends that asked for it.
    pub sends: u64,
    /// Those of the sends that are reported as done.
    pub completed: u64,
    /// Those of the completed that the kernel copied after all (`SO_EE_CODE_ZEROCOPY_COPIED`), as on a loopback.
    pub copied_by_kernel: u64,
    /// Sends that did not ask, since too much was under way.
    pub plain: u64,
}

impl std::ops::AddAssign for ZeroCopyCounts {
    fn add_assign(&mut self, other: Self) {
        self.sends += other.sends;
        self.completed += other.completed;
        self.copied_by_kernel += other.copied_by_kernel;
        self.plain += other.plain;
    }
}

/// An error of the file's side. Some filesystems have one that is not ready (`EAGAIN`), which must not be
/// taken for a full socket: nobody would wake us.
pub fn of_the_file(error: Errno) -> io::Error {
    match error {
        Errno::AGAIN => io::Error::other("the file is not ready to be read"),
        error => error.into(),
    }
}

/// The flags of a send: a peer that is gone is an error, not a signal.
pub fn flags(more: bool) -> SendFlags {
    let mut flags = SendFlags::NOSIGNAL;
    flags.set(SendFlags::MORE, more);
    flags
}

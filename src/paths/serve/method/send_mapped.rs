//! Sends from a mapping without a look at it: a slice over memory that others change would be a lie.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use memmap2::MmapRaw;
use rustix::net::SendFlags;

/// Sends what the mapping shows; gives how many bytes the socket took.
///
/// # Errors
/// Those of send(2); `EFAULT` where the file does not reach into the mapping any more.
pub fn send_mapped(
    socket: BorrowedFd<'_>,
    mapping: &MmapRaw,
    flags: SendFlags,
) -> io::Result<usize> {
    // SAFETY: the mapping lives until the call returns, and is only read, by the kernel: a page that is
    // not there any more is an error for it, no signal.
    let sent = unsafe {
        libc::send(
            socket.as_raw_fd(),
            mapping.as_ptr().cast(),
            mapping.len(),
            flags.bits() as i32,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

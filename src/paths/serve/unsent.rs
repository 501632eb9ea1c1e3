//! The bytes that a socket took and still has.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes that the peer has not acknowledged; 0 where the kernel does not tell.
pub fn unsent(socket: BorrowedFd<'_>) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one int, and `bytes` is one.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done == 0 { bytes.max(0) as u64 } else { 0 }
}

//! One system call for what has come in, up to 64 frames; it sleeps where nothing has.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use super::socket;
use crate::net::EXPERIMENTAL;
use crate::{Error, Result};

const BATCH: usize = 64;
/// Bytes of a frame that are of interest; the rest is cut.
const ROOM: usize = 2048;

/// A socket that is given the frames of our EtherType.
pub struct Recvmmsg {
    socket: OwnedFd,
    buffers: Vec<[u8; ROOM]>,
}

impl Recvmmsg {
    /// Opens a socket on the interface `index`; a call that nothing comes for ends after `patience`.
    ///
    /// # Errors
    /// As [`socket::open`].
    pub fn new(index: u32, patience: Duration) -> Result<Self> {
        let socket = socket::listen(index, EXPERIMENTAL)?;
        let patience = libc::timeval {
            tv_sec: patience.as_secs() as libc::time_t,
            tv_usec: patience.subsec_micros() as libc::suseconds_t,
        };
        // SAFETY: a value of the length given.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const patience).cast(),
                size_of_val(&patience) as u32,
            )
        };
        match set {
            0 => Ok(Self {
                socket,
                buffers: vec![[0; ROOM]; BATCH],
            }),
            _ => Err(Error::last_os("limiting a socket's patience")),
        }
    }

    /// The socket, to send on.
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Receives at least one frame, unless none comes; gives how many.
    ///
    /// # Errors
    /// Errors of the kernel.
    pub fn take(&mut self) -> Result<u64> {
        let mut pieces: [libc::iovec; BATCH] = std::array::from_fn(|index| libc::iovec {
            iov_base: self.buffers[index].as_mut_ptr().cast(),
            iov_len: ROOM,
        });
        // SAFETY: all zeros is a valid, empty message.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for (message, piece) in messages.iter_mut().zip(&mut pieces) {
            message.msg_hdr.msg_iov = piece;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: `BATCH` messages of one piece each, which is one of the buffers.
        let done = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_WAITFORONE as _,
                std::ptr::null_mut(),
            )
        };
        match done {
            0.. => Ok(done as u64),
            _ => match io::Error::last_os_error() {
                error if socket::again(&error) => Ok(0),
                error => Err(Error::io("recvmmsg", error)),
            },
        }
    }
}

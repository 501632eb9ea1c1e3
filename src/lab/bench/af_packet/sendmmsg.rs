//! One system call for 64 frames.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use super::socket;
use crate::lab::bench::measure::Run;
use crate::{Error, Result};

const BATCH: usize = 64;

/// A socket and the frame that it sends.
pub struct Sendmmsg {
    socket: OwnedFd,
    frame: Vec<u8>,
}

impl Sendmmsg {
    /// Opens a socket on the interface `index`, to send copies of `frame`.
    ///
    /// # Errors
    /// As [`socket::open`].
    pub fn new(index: u32, frame: &[u8]) -> Result<Self> {
        Ok(Self {
            socket: socket::open(index)?,
            frame: frame.to_vec(),
        })
    }

    /// Sends at least `frames` frames and waits until the last has left.
    ///
    /// # Errors
    /// Errors of the kernel.
    pub fn run(&mut self, frames: u64) -> Result<Run> {
        let mut piece = libc::iovec {
            iov_base: self.frame.as_mut_ptr().cast(),
            iov_len: self.frame.len(),
        };
        // SAFETY: all zeros is a valid, empty message.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for message in &mut messages {
            message.msg_hdr.msg_iov = &raw mut piece;
            message.msg_hdr.msg_iovlen = 1;
        }
        let start = Instant::now();
        let mut sent = 0;
        while sent < frames {
            // SAFETY: `BATCH` messages of one piece each, which is `self.frame`.
            let done = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    messages.as_mut_ptr(),
                    BATCH as u32,
                    0,
                )
            };
            match done {
                0.. => sent += done as u64,
                _ => match io::Error::last_os_error() {
                    error if socket::again(&error) => socket::wait_writable(&self.socket)?,
                    error => return Err(Error::io("sendmmsg", error)),
                },
            }
        }
        socket::drain(&self.socket)?;
        Ok(Run {
            frames: sent,
            lost: 0,
            took: start.elapsed(),
        })
    }
}

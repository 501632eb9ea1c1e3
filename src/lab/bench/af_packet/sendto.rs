//! One system call a frame.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use super::socket;
use crate::lab::bench::measure::Run;
use crate::{Error, Result};

/// A socket and the frame that it sends.
pub struct Sendto {
    socket: OwnedFd,
    frame: Vec<u8>,
}

impl Sendto {
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

    /// Sends `frames` frames and waits until the last has left.
    ///
    /// # Errors
    /// Errors of the kernel.
    pub fn run(&mut self, frames: u64) -> Result<Run> {
        let start = Instant::now();
        let mut sent = 0;
        while sent < frames {
            // SAFETY: a buffer of the length given; the address is the one bound.
            let done = unsafe {
                libc::sendto(
                    self.socket.as_raw_fd(),
                    self.frame.as_ptr().cast(),
                    self.frame.len(),
                    0,
                    std::ptr::null(),
                    0,
                )
            };
            match done {
                0.. => sent += 1,
                _ => match io::Error::last_os_error() {
                    error if socket::again(&error) => socket::wait_writable(&self.socket)?,
                    error => return Err(Error::io("sendto", error)),
                },
            }
        }
        socket::drain(&self.socket)?;
        Ok(Run {
            frames,
            lost: 0,
            took: start.elapsed(),
        })
    }
}

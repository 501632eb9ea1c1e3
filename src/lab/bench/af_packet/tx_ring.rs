//! A ring shared with the kernel: one system call sends all frames in it that are ready. The kernel still
//! makes a packet of each.

use std::time::Instant;

use super::socket;
use crate::lab::bench::measure::Run;
use crate::paths::ladder::{FrameRing, TxRing as Ring};
use crate::{Error, Result};

/// Slots of the ring.
const SLOTS: usize = 256;
/// Frames a system call.
const BATCH: u64 = 64;

/// The ring, and the frame that it sends.
pub struct TxRing {
    ring: Ring,
    frame: Vec<u8>,
    /// Slots that have the frame in them already.
    filled: usize,
}

impl TxRing {
    /// Opens a socket and its ring on the interface `index`, to send copies of `frame`.
    ///
    /// # Errors
    /// As [`socket::open`], and where the kernel refuses the ring.
    pub fn new(index: u32, frame: &[u8]) -> Result<Self> {
        let ring = Ring::new(index, SLOTS);
        let failed = |why| {
            Error::io(
                "setting up the PACKET_TX_RING (needs root)",
                std::io::Error::other(why),
            )
        };
        Ok(Self {
            ring: ring.map_err(failed)?,
            frame: frame.to_vec(),
            filled: 0,
        })
    }

    /// Sends `frames` frames and waits until the last has left.
    ///
    /// # Errors
    /// Errors of the kernel.
    pub fn run(&mut self, frames: u64) -> Result<Run> {
        let start = Instant::now();
        for sent in 1..=frames {
            while self.ring.slot().is_none() {
                self.kick()?;
                if self.ring.slot().is_none() {
                    socket::wait_writable(&self.ring)?;
                }
            }
            if self.filled < SLOTS {
                let slot = self.ring.slot().expect("there is one");
                slot[..self.frame.len()].copy_from_slice(&self.frame);
                self.filled += 1;
            }
            self.ring.push(self.frame.len());
            if sent.is_multiple_of(BATCH) || sent == frames {
                self.kick()?;
            }
        }
        while !self.kick()? {
            socket::wait_writable(&self.ring)?;
        }
        socket::drain(&self.ring)?;
        Ok(Run {
            frames,
            lost: 0,
            took: start.elapsed(),
        })
    }

    /// Tells the kernel that there is something to send.
    fn kick(&mut self) -> Result<bool> {
        let kicked = self.ring.kick();
        kicked.map_err(|error| Error::io("sending the PACKET_TX_RING", error))
    }
}

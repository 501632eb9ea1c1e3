//! A ring shared with the kernel (PACKET_TX_RING): frames are written where the kernel reads them,
//! and one system call sends all that are ready. The kernel still makes a packet of each.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use memmap2::{MmapOptions, MmapRaw};
use pinwire::{Error, Result};

use super::socket;
use crate::cli::bench::measure::Run;

/// Slots of the ring, and the bytes of each.
const SLOTS: usize = 256;
const SLOT: usize = 2048;
/// Frames a system call.
const BATCH: u64 = 64;

/// Where the frame begins in its slot: after the header, aligned.
const DATA: usize = size_of::<libc::tpacket2_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);

/// A socket, its ring, and the next slot.
pub struct TxRing {
    socket: OwnedFd,
    ring: MmapRaw,
    next: usize,
    length: u32,
}

impl TxRing {
    /// On the interface `index`, every slot filled with `frame`.
    ///
    /// # Errors
    /// As [`socket::open`], and where the kernel refuses the ring.
    pub fn new(index: u32, frame: &[u8]) -> Result<Self> {
        assert!(DATA + frame.len() <= SLOT);
        let socket = socket::open(index)?;
        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        set_option(&socket, libc::PACKET_VERSION, &version)?;
        let request = libc::tpacket_req {
            tp_block_size: (SLOTS * SLOT) as u32,
            tp_block_nr: 1,
            tp_frame_size: SLOT as u32,
            tp_frame_nr: SLOTS as u32,
        };
        set_option(&socket, libc::PACKET_TX_RING, &request)?;
        let os = |error| Error::io("mapping the PACKET_TX_RING", error);
        let ring = MmapOptions::new()
            .len(SLOTS * SLOT)
            .map_raw(&socket)
            .map_err(os)?;
        for slot in 0..SLOTS {
            // SAFETY: inside the slot (asserted above), and the kernel does not read it yet.
            unsafe {
                let data = ring.as_mut_ptr().add(slot * SLOT + DATA);
                data.copy_from_nonoverlapping(frame.as_ptr(), frame.len());
            }
        }
        Ok(Self {
            socket,
            ring,
            next: 0,
            length: frame.len() as u32,
        })
    }

    /// The header's word `index` of a slot: 0 is the status, 1 the length.
    fn word(&self, slot: usize, index: usize) -> &AtomicU32 {
        // SAFETY: inside the mapping and aligned; the kernel shares the words, hence atomics.
        unsafe {
            AtomicU32::from_ptr(
                self.ring
                    .as_mut_ptr()
                    .add(slot * SLOT)
                    .cast::<u32>()
                    .add(index),
            )
        }
    }

    /// Sends `frames` frames and waits until the last has left.
    ///
    /// # Errors
    /// What the kernel gives.
    pub fn run(&mut self, frames: u64) -> Result<Run> {
        let start = Instant::now();
        for sent in 1..=frames {
            self.wait_free(self.next)?;
            self.word(self.next, 1)
                .store(self.length, Ordering::Relaxed);
            // Release: the length before the word that hands the slot over.
            self.word(self.next, 0)
                .store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
            self.next = (self.next + 1) % SLOTS;
            if sent.is_multiple_of(BATCH) || sent == frames {
                self.kick()?;
            }
        }
        socket::drain(&self.socket)?;
        Ok(Run {
            frames,
            lost: 0,
            took: start.elapsed(),
        })
    }

    fn wait_free(&self, slot: usize) -> Result<()> {
        while self.word(slot, 0).load(Ordering::Acquire) != libc::TP_STATUS_AVAILABLE {
            self.kick()?;
            if self.word(slot, 0).load(Ordering::Acquire) != libc::TP_STATUS_AVAILABLE {
                socket::wait_writable(&self.socket)?;
            }
        }
        Ok(())
    }

    /// Tells the kernel that there is something to send.
    fn kick(&self) -> Result<()> {
        // SAFETY: no buffer.
        let done = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                std::ptr::null(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null(),
                0,
            )
        };
        match done {
            0.. => Ok(()),
            _ => match io::Error::last_os_error() {
                error if socket::again(&error) => Ok(()),
                error => Err(Error::io("sending the PACKET_TX_RING", error)),
            },
        }
    }
}

fn set_option<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> Result<()> {
    // SAFETY: a value of the length given, which the kernel only reads.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as u32,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(Error::last_os("setting up the PACKET_TX_RING")),
    }
}

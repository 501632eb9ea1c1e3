//! A ring shared with the kernel (PACKET_TX_RING): frames are written where the kernel's packets refer
//! to them, and one call sends all that are ready (Documentation/networking/packet_mmap.rst).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use super::frames::{self, FrameRing};
use super::packet::packet_socket;
use super::{Why, unsupported};

/// Bytes of a slot.
const SLOT: usize = 2048;
/// Slots whose memory is in one piece.
const BLOCK: usize = 32;

/// Offset of the frame in its slot: after the header, aligned.
const DATA: usize = size_of::<libc::tpacket2_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);

/// A socket, its ring, and the next slot.
pub struct TxRing {
    socket: OwnedFd,
    ring: MmapRaw,
    slots: usize,
    next: usize,
}

/// Words of a slot's header.
enum Word {
    Status = 0,
    Length = 1,
}

impl TxRing {
    /// Makes a ring of `slots` slots, on the interface `index`.
    ///
    /// # Errors
    /// Missing privilege (CAP_NET_RAW), or a kernel without it: [`Why::Missing`]; no such interface; no memory.
    ///
    /// # Panics
    /// If `slots` is no multiple of 32.
    pub fn new(index: u32, slots: usize) -> Result<Self, Why> {
        assert!(slots.is_multiple_of(BLOCK) && slots > 0);
        let failed = |call| {
            move |source| {
                let why = Why::Call { call, source };
                why.or_missing(&unsupported::NET_RAW)
                    .or_missing(&unsupported::TX_RING)
            }
        };
        let socket = packet_socket(index, 0).map_err(failed("binding an AF_PACKET socket"))?;
        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        set_option(&socket, libc::PACKET_VERSION, &version).map_err(failed("PACKET_VERSION"))?;
        let request = libc::tpacket_req {
            tp_block_size: (BLOCK * SLOT) as u32,
            tp_block_nr: (slots / BLOCK) as u32,
            tp_frame_size: SLOT as u32,
            tp_frame_nr: slots as u32,
        };
        set_option(&socket, libc::PACKET_TX_RING, &request).map_err(failed("PACKET_TX_RING"))?;
        let ring = MmapOptions::new().len(slots * SLOT).map_raw(&socket);
        Ok(Self {
            ring: ring.map_err(failed("mapping the PACKET_TX_RING"))?,
            socket,
            slots,
            next: 0,
        })
    }

    fn word(&self, slot: usize, word: Word) -> &AtomicU32 {
        assert!(slot < self.slots);
        let header = self.ring.as_mut_ptr().wrapping_add(slot * SLOT);
        let word = header.cast::<u32>().wrapping_add(word as usize);
        // SAFETY: inside the mapping (asserted) and aligned, since slots are; the kernel shares the
        // header's words, hence atomics.
        unsafe { AtomicU32::from_ptr(word) }
    }

    /// Acquire: what the kernel read of the slot it read before it gave it back.
    fn status(&self, slot: usize) -> u32 {
        self.word(slot, Word::Status).load(Ordering::Acquire)
    }
}

impl FrameRing for TxRing {
    const ROOM: usize = SLOT - DATA;

    fn slot(&mut self) -> Option<&mut [u8]> {
        let slot = self.next;
        (self.status(slot) == libc::TP_STATUS_AVAILABLE).then(|| {
            let data = self.ring.as_mut_ptr().wrapping_add(slot * SLOT + DATA);
            // SAFETY: inside the slot, which is the program's: the kernel reads it only from the time when
            // `push` hands it over until it is available again; it never writes behind the header.
            unsafe { std::slice::from_raw_parts_mut(data, Self::ROOM) }
        })
    }

    fn push(&mut self, len: usize) {
        assert!(len <= Self::ROOM && self.status(self.next) == libc::TP_STATUS_AVAILABLE);
        let (length, status) = (
            self.word(self.next, Word::Length),
            self.word(self.next, Word::Status),
        );
        length.store(len as u32, Ordering::Relaxed);
        // Release: the frame and its length before the word that hands the slot over.
        status.store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
        self.next = (self.next + 1) % self.slots;
    }

    fn kick(&mut self) -> io::Result<bool> {
        match frames::kick(self.socket.as_fd()) {
            // The kernel stays at a frame that it refuses.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, TOO_LONG))
            }
            Err(error) => Err(error),
            Ok(()) => {
                let last = (self.next + self.slots - 1) % self.slots;
                match self.status(last) {
                    libc::TP_STATUS_WRONG_FORMAT => Err(io::ErrorKind::InvalidData.into()),
                    status => Ok(status != libc::TP_STATUS_SEND_REQUEST),
                }
            }
        }
    }

    fn is_idle(&mut self) -> bool {
        let busy = libc::TP_STATUS_SEND_REQUEST | libc::TP_STATUS_SENDING;
        (0..self.slots).all(|slot| self.status(slot) & busy == 0)
    }
}

const TOO_LONG: &str = "the interface takes no frame as long as that (TP_STATUS_WRONG_FORMAT)\n  \
    a datagram must fit into its MTU: see ip link";

impl AsFd for TxRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The kernel owns the ring's pages, and its packets hold them: what goes here is our way to them.
impl Drop for TxRing {
    fn drop(&mut self) {
        frames::quiesce(self);
    }
}

fn set_option<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
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
        _ => Err(io::Error::last_os_error()),
    }
}

//! Descriptors of C+ mode, chapter 9 of the datasheet: two words, of which the first says whose the descriptor is.

use std::sync::atomic::{AtomicU64, Ordering};

use pinwire::nic::prelude::*;

pinwire::descriptor! {
    /// Commands or status in the first word, the buffer's IOVA in the second.
    #[repr(C, align(16))]
    pub struct Desc([AtomicU64; 2]);
}

/// The chip's; else the driver's.
const OWN: u64 = 1 << 31;
/// The last of the ring: the chip goes on at the first.
pub const EOR: u64 = 1 << 30;
/// First segment of a frame.
pub const FS: u64 = 1 << 29;
/// Last segment of a frame.
pub const LS: u64 = 1 << 28;
/// Errors of a received frame: no descriptor for its rest (BOVF), FIFO overrun (FOVF), too long, too short, or a
/// wrong CRC (RES).
pub const ERRORS: u64 = 1 << 23 | 1 << 22 | 1 << 20;
/// Length of a buffer, or of a received frame with its check sequence.
pub const LENGTH: u64 = 0x1fff;

impl Desc {
    /// Hands the descriptor to the chip, with those of `flags` that are set, and a buffer of `len` bytes.
    pub fn write<const N: usize>(&self, flags: [(u64, bool); N], len: usize, iova: Iova) {
        let set = flags.iter().filter(|(_, is_set)| *is_set);
        let word = set.fold(OWN | len as u64, |word, (flag, _)| word | flag);
        self.0[1].store(iova.0.to_le(), Ordering::Relaxed);
        // Release: the chip may look at any time, with no doorbell. Once it sees OWN, the address and the bytes of the
        // buffer are there; else it would send, or fill, what was posted here the last time.
        self.0[0].store(word.to_le(), Ordering::Release);
    }

    /// The chip's word, read once: it may write while we look.
    pub fn status(&self) -> u64 {
        u64::from_le(self.0[0].load(Ordering::Acquire))
    }
}

impl OwnDescriptor for Desc {
    fn is_owned(&self) -> bool {
        self.status() & OWN != 0
    }

    fn clear(&self) {
        self.0[0].store(0, Ordering::Relaxed);
    }

    fn show(&self) -> (Vec<u64>, String) {
        let [word, iova] = [
            self.status(),
            u64::from_le(self.0[1].load(Ordering::Relaxed)),
        ];
        let mut text = format!("iova={iova:#x} length={}", word & LENGTH);
        for (bits, name) in [(OWN, " own"), (EOR, " eor"), (FS, " fs"), (LS, " ls")] {
            text += if word & bits != 0 { name } else { "" };
        }
        (vec![word, iova], text)
    }
}

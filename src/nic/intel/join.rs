//! From buffers to frames: what every receive ring does with what the device says.

use crate::dma::DmaBuf;
use crate::error::{Error, Result};
use crate::nic::{Checksum, Frame};
use crate::ring_state::RingState;

/// Longest frame that the devices take in, with CRC: RCTL.LPE, §13.4.22 of the 8254x manual, §10.2.5 of
/// the 82574's datasheet.
pub(in crate::nic) const LONGEST: usize = 16_384;

/// The frame whose end has not come.
pub(in crate::nic) struct Join {
    state: RingState,
    partial: Option<Frame>,
    /// How many buffers it has, and how many the longest has.
    pieces: usize,
    most: usize,
}

impl Join {
    /// For frames of at most `most` buffers.
    pub fn new(state: &RingState, most: usize) -> Self {
        Self {
            state: state.clone(),
            partial: None,
            pieces: 0,
            most,
        }
    }

    /// The device was reset: no end will come.
    pub fn restart(&mut self) {
        self.partial = None;
    }

    /// Puts `buf`, of which the device says that it holds `length` bytes, behind what came before.
    ///
    /// # Errors
    /// [`Error::DeviceLied`] for a length beyond the buffer, or a frame that does not end; the ring is
    /// broken then.
    #[inline]
    pub fn add(&mut self, mut buf: DmaBuf, length: u16, index: usize) -> Result<()> {
        let length = usize::from(length);
        if length > buf.capacity() {
            return Err(self.lied(format!(
                "{length} bytes in a buffer of {} (descriptor {index})",
                buf.capacity()
            )));
        }
        // With the CRC stripped a last buffer may be empty, and so may one for headers.
        if length == 0 {
            return Ok(());
        }
        buf.set_len(length);
        match &mut self.partial {
            None => {
                self.partial = Some(buf.into());
                self.pieces = 1;
            }
            Some(frame) => {
                frame.append(buf);
                // At most `most`, which is looked at here each time.
                self.pieces = self.pieces.saturating_add(1);
                // By buffers, too: a device that puts one byte into each would have them all.
                if self.pieces > self.most || frame.len() > LONGEST {
                    return Err(self.lied(format!(
                        "a frame of more than {LONGEST} bytes, or {} buffers",
                        self.most
                    )));
                }
            }
        }
        Ok(())
    }

    /// Its end has come: the frame, where it is `good` and not empty.
    #[inline]
    pub fn end(&mut self, good: bool) -> Option<Frame> {
        self.partial.take().filter(|_| good)
    }

    #[cold]
    fn lied(&self, what: String) -> Error {
        self.state.mark_broken(what)
    }
}

/// What a device says of a checksum: did it look, and was it wrong?
#[inline]
pub(in crate::nic) fn checksum(looked: bool, wrong: bool) -> Checksum {
    match (looked, wrong) {
        (false, _) => Checksum::Unchecked,
        (true, false) => Checksum::Good,
        (true, true) => Checksum::Bad,
    }
}

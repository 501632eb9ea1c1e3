//! From buffers to frames, for a card that lets a frame which is longer than a buffer lie in several.
#![warn(clippy::arithmetic_side_effects)] // numbers of a device: checked, or wrapped on purpose

use super::longest::Longest;
use super::{Frame, NicConfig, Received, RxInfo};
use crate::dma::DmaBuf;

/// Errors of a device of a buffer: see [`FrameAssembler::take_in`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// A frame begins there.
    pub is_first: bool,
    /// A frame ends there, and has so many bytes without its check sequence.
    pub total: Option<usize>,
    /// That frame has an error.
    pub is_bad: bool,
    /// The card's findings about it.
    pub info: RxInfo,
}

/// Puts the buffers of a frame together, and holds those whose frame has not ended yet.
///
/// Errors of a device of lengths is checked here: a buffer's against its capacity, a frame's against the
/// longest that the device can take in. What is wrong comes back as words for
/// [`RingState::mark_broken`](crate::ring_state::RingState::mark_broken).
pub struct FrameAssembler {
    partial: Option<Frame>,
    /// Bytes and buffers so far.
    bytes: usize,
    buffers: usize,
    errors: u64,
    /// The most that the device can take in.
    most: (usize, usize),
    longest: Longest,
}

impl FrameAssembler {
    /// For a device that takes in frames of at most `bytes` bytes in at most `buffers` buffers, of which `config` wants
    /// those that are not longer than [`NicConfig::max_frame`].
    pub fn new(config: &NicConfig, bytes: usize, buffers: usize) -> Self {
        Self {
            partial: None,
            bytes: 0,
            buffers: 0,
            errors: 0,
            most: (bytes, buffers),
            longest: Longest::new(config),
        }
    }

    /// Adds `buf`, of which the device says that it holds `length` bytes, to the frame that has begun, or begins one.
    ///
    /// # Errors
    /// A length beyond the buffer, or a frame that does not end, in words.
    pub fn add(&mut self, mut buf: DmaBuf, length: usize) -> Result<(), String> {
        let capacity = buf.capacity();
        if length > capacity {
            return Err(format!("{length} bytes in a buffer of {capacity}"));
        }
        // By buffers, too: a device that puts one byte into each would have them all.
        self.bytes = self.bytes.saturating_add(length);
        self.buffers = self.buffers.saturating_add(1);
        let (bytes, buffers) = self.most;
        if self.bytes > bytes || self.buffers > buffers {
            return Err(format!(
                "a frame of more than {bytes} bytes, or {buffers} buffers"
            ));
        }
        // The last buffer may hold nothing but the check sequence.
        if length > 0 {
            buf.set_len(length);
            match &mut self.partial {
                None => self.partial = Some(buf.into()),
                Some(frame) => frame.append(buf),
            }
        }
        Ok(())
    }

    /// Takes in `buf`, of which a device of this kind says `filled`: it fills every buffer of a frame but the last, and
    /// tells with that one the length of the whole. Gives the frame that ends there.
    ///
    /// A frame with an error is dropped and counted. Where one begins while another has not ended, that other is
    /// dropped, and so is the rest of one that did not begin: the device had no room for the end, or the beginning.
    ///
    /// # Errors
    /// As [`FrameAssembler::add`].
    pub fn take_in(&mut self, buf: DmaBuf, filled: Filled) -> Result<Option<Received>, String> {
        if filled.is_first {
            self.discard();
        } else if self.buffers == 0 {
            return Ok(None);
        }
        let Some(total) = filled.total else {
            let capacity = buf.capacity();
            return self.add(buf, capacity).map(|()| None);
        };
        if filled.is_bad {
            self.errors = self.errors.wrapping_add(1);
            self.discard();
            return Ok(None);
        }
        self.add(buf, total.saturating_sub(self.bytes))?;
        Ok(self.end(filled.info))
    }

    /// Ends the frame: gives it, unless it is empty or longer than asked for, which is counted.
    pub fn end(&mut self, info: RxInfo) -> Option<Received> {
        let bytes = self.bytes;
        let frame = self.discard()?;
        let admitted = self.longest.admits(bytes, info.vlan());
        admitted.then_some(Received { frame, info })
    }

    /// Drops what has begun: it had an error, or the device was reset.
    pub fn discard(&mut self) -> Option<Frame> {
        (self.bytes, self.buffers) = (0, 0);
        self.partial.take()
    }

    /// Frames with an error: for [`Stats::rx_errors`](super::Stats::rx_errors).
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Frames that were longer than asked for: for [`QueuePair::dropped_longer`](super::QueuePair::dropped_longer).
    pub fn dropped_longer(&self) -> u64 {
        self.longest.dropped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Backend, Fake};
    use crate::dma::Pool;

    fn pool() -> Pool {
        let fake = Fake::idle();
        Pool::new(fake.dma(), 8, 64).unwrap()
    }

    fn assembler(max_frame: usize) -> FrameAssembler {
        let config = NicConfig::default().max_frame(max_frame);
        FrameAssembler::new(&config, 150, 3)
    }

    #[test]
    fn buffers_become_one_frame_in_their_order() {
        let (pool, mut frames) = (pool(), assembler(150));
        for (byte, length) in [(1, 64), (2, 64), (3, 0)] {
            let mut buf = pool.alloc().unwrap();
            buf.fill(&[byte; 64]);
            frames.add(buf, length).unwrap();
        }
        let whole = frames.end(RxInfo::NONE).unwrap().frame;
        assert_eq!(whole.to_vec(), [[1; 64], [2; 64]].concat());
        assert!(frames.end(RxInfo::NONE).is_none(), "it came twice");
    }

    #[test]
    fn a_frame_longer_than_asked_for_is_dropped_and_counted() {
        let (pool, mut frames) = (pool(), assembler(100));
        for _ in 0..2 {
            frames.add(pool.alloc().unwrap(), 64).unwrap();
        }
        assert!(frames.end(RxInfo::NONE).is_none());
        assert_eq!(frames.dropped_longer(), 1);
        frames.add(pool.alloc().unwrap(), 64).unwrap();
        assert_eq!(frames.end(RxInfo::NONE).unwrap().frame.len(), 64);
    }

    #[test]
    fn a_frame_whose_end_was_lost_does_not_spoil_the_next() {
        let (pool, mut frames) = (pool(), assembler(150));
        let buf = |byte| {
            let mut buf = pool.alloc().unwrap();
            buf.fill(&[byte; 64]);
            buf
        };
        let filled = |is_first, total| Filled {
            is_first,
            total,
            is_bad: false,
            info: RxInfo::NONE,
        };
        let mut take_in = |byte, filled| frames.take_in(buf(byte), filled).unwrap();
        assert!(take_in(1, filled(true, None)).is_none());
        assert!(take_in(2, filled(true, None)).is_none());
        let whole = take_in(3, filled(false, Some(70))).unwrap().frame;
        assert_eq!(whole.to_vec(), [&[2; 64][..], &[3; 6]].concat());
        let rest = take_in(4, filled(false, Some(70)));
        assert!(rest.is_none(), "it did not begin");
        let bad = Filled {
            is_bad: true,
            ..filled(true, Some(60))
        };
        assert!(take_in(5, bad).is_none());
        assert!(take_in(6, filled(true, Some(60))).is_some());
        assert_eq!(frames.errors(), 1);
    }

    #[test]
    fn lengths_that_cannot_be_are_told_in_words() {
        let (pool, mut frames) = (pool(), assembler(150));
        let error = frames.add(pool.alloc().unwrap(), 65).unwrap_err();
        assert!(error.contains("65 bytes in a buffer of 64"), "{error}");
        for _ in 0..3 {
            frames.add(pool.alloc().unwrap(), 1).unwrap();
        }
        let error = frames.add(pool.alloc().unwrap(), 1).unwrap_err();
        assert!(error.contains("3 buffers"), "{error}");
    }
}

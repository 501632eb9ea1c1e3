//! From buffers to frames: what every receive ring does with what the device says.

use crate::dma::DmaBuf;
use crate::nic::longest::Longest;
use crate::nic::received::RxForm;
use crate::nic::{Frame, NicConfig, Received, RxInfo};

/// Longest frame that the devices take in, with CRC: RCTL.LPE, §13.4.22 of the 8254x manual, §10.2.5 of
/// the 82574's datasheet.
pub(in crate::nic) const LONGEST: usize = 16_384;

/// By what a device broke the protocol, for people.
pub type Violation = String;

/// The device's report on a buffer: the word of a descriptor that holds it. All but DD and the length counts only
/// where EOP is set.
pub trait Completion: Copy {
    /// DD, EOP, and every error that makes a frame none.
    const END: u64;
    /// DD and EOP.
    const GOOD_END: u64;
    /// The layout of the bits that make an [`RxInfo`].
    const FORM: RxForm;

    /// The word.
    fn word(self) -> u64;

    /// Bytes in the buffer.
    fn length(self) -> u16;

    /// Returns whether the device has filled the buffer.
    fn is_done(self) -> bool;

    /// Returns whether a frame ends here.
    fn is_end(self) -> bool;

    /// Returns whether a frame ends here that has no error.
    #[inline]
    fn is_good_end(self) -> bool {
        self.word() & Self::END == Self::GOOD_END
    }
}

/// Makes frames of buffers, and holds the one whose end has not come.
pub struct FrameAssembler {
    partial: Option<Frame>,
    /// Buffers of the frame so far, and the most that a frame has.
    pieces: usize,
    most: usize,
    /// Bits of a [`Completion`] that are passed on: not those of the tag, if tags stay in the frame.
    passed: u64,
    longest: Longest,
    /// Bytes of a descriptor's only buffer.
    capacity: usize,
    /// Longest frame in one buffer that needs no second look, whether it had a tag or not; 0 while a frame's
    /// end has not come. So one comparison does for all of it.
    plain_max: usize,
}

impl FrameAssembler {
    /// For frames of at most `most` buffers of up to `capacity` bytes.
    pub(in crate::nic) fn new(
        config: &NicConfig,
        form: RxForm,
        (most, capacity): (usize, usize),
    ) -> Self {
        let longest = Longest::new(config);
        Self {
            partial: None,
            pieces: 0,
            most,
            passed: RxInfo::mask(form, config.vlan_offload),
            capacity,
            plain_max: longest.untagged().min(capacity),
            longest,
        }
    }

    /// The device was reset: no end will come.
    pub(in crate::nic) fn restart(&mut self) {
        self.take_partial();
    }

    /// Frames that were longer than asked for.
    pub(in crate::nic) fn dropped_longer(&self) -> u64 {
        self.longest.dropped()
    }

    /// Returns what the device said of the frame in `buf`, and sets its length, where it is as nearly every one:
    /// begun and ended there, good, not empty, not beyond the buffer and not too long. Nothing more is to be
    /// checked then.
    #[inline]
    pub fn accept(&self, buf: &mut DmaBuf, completion: impl Completion) -> Option<RxInfo> {
        let length = usize::from(completion.length());
        if completion.is_good_end() && length.wrapping_sub(1) < self.plain_max {
            buf.set_len(length);
            return Some(self.info(completion));
        }
        None
    }

    /// Puts `buf`, of which the device says that it holds `length` bytes, behind what came before.
    ///
    /// # Errors
    /// A length beyond the buffer, or a frame that does not end.
    pub fn add(&mut self, mut buf: DmaBuf, length: u16) -> Result<(), Violation> {
        let length = usize::from(length);
        if length > buf.capacity() {
            let capacity = buf.capacity();
            return Err(format!("{length} bytes in a buffer of {capacity}"));
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
                // What comes now is not whole by itself.
                self.plain_max = 0;
            }
            Some(frame) => {
                frame.append(buf);
                // At most `most`, which is looked at here each time.
                self.pieces = self.pieces.saturating_add(1);
                // By buffers, too: a device that puts one byte into each would have them all.
                if self.pieces > self.most || frame.len() > LONGEST {
                    let most = self.most;
                    return Err(format!(
                        "a frame of more than {LONGEST} bytes, or {most} buffers"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The last buffer that `completion` is of was added: appends the frame to `into`, where this is its end,
    /// and it is good, not empty and not too long.
    pub fn end(&mut self, completion: impl Completion, into: &mut Vec<Received>) {
        if !completion.is_end() {
            return;
        }
        let Some(frame) = self.take_partial() else {
            return;
        };
        if !completion.is_good_end() {
            return;
        }
        let info = self.info(completion);
        if self.longest.admits(frame.len(), info.vlan()) {
            into.push(Received { frame, info });
        }
    }

    fn take_partial(&mut self) -> Option<Frame> {
        self.plain_max = self.longest.untagged().min(self.capacity);
        self.partial.take()
    }

    #[inline]
    fn info(&self, completion: impl Completion) -> RxInfo {
        RxInfo::from_masked(completion.word() & self.passed)
    }
}

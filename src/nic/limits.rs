//! What a card sends at all, looked at by its transmit ring before it takes a frame.

use super::{Frame, OffloadFlags, foreign_memory, not_offered};
use crate::dma::SpaceId;
use crate::error::{Error, Result};

/// Limits of a transmit ring: a frame is checked against them at the ring's door, and one that is refused stays with
/// its owner.
#[derive(Debug, Clone)]
pub struct TxLimits {
    /// Name of the card, for errors.
    pub device: String,
    /// The space that the card reaches.
    pub space: SpaceId,
    /// Shortest and longest frame, in bytes without the frame check sequence.
    pub bytes: (usize, usize),
    /// Descriptors of the ring: a frame has at most so many buffers.
    pub buffers: usize,
    /// Work that the card does on a frame.
    pub offloads: OffloadFlags,
}

impl TxLimits {
    /// Those of a ring of `buffers` descriptors that sends frames of these lengths as they are.
    pub fn plain(device: &str, space: SpaceId, bytes: (usize, usize), buffers: usize) -> Self {
        Self {
            device: device.to_owned(),
            space,
            bytes,
            buffers,
            offloads: OffloadFlags::empty(),
        }
    }

    /// Returns the number of buffers of `frame` that are not empty, if the card can send it. Where headers lie is not
    /// looked at: who has the card work on them checks their places, too.
    ///
    /// # Errors
    /// [`Error::ForeignMemory`], [`Error::NotOffered`], [`Error::FrameLength`]; [`Error::Usage`] for too many buffers.
    pub fn check(&self, frame: &Frame) -> Result<usize> {
        if !frame.is_within(self.space) {
            return Err(foreign_memory(&self.device));
        }
        let unknown = frame.offload().flags.difference(self.offloads);
        if !unknown.is_empty() {
            let names: Vec<_> = unknown.iter_names().map(|(name, _)| name).collect();
            return Err(not_offered(&self.device, &names.join(", ")));
        }
        let (length, (min, max)) = (frame.len(), self.bytes);
        if !(min..=max).contains(&length) {
            return Err(Error::FrameLength {
                device: self.device.clone(),
                length,
                min,
                max,
                remedy: "cut it into shorter packets, or pad it",
            });
        }
        let buffers = frame.segments().filter(|one| one.len() > 0).count();
        if buffers > self.buffers {
            return Err(Error::Usage(format!(
                "{}: a frame of {buffers} buffers does not fit into a ring of {} descriptors\n  \
                 copy it into fewer, or take a longer ring",
                self.device, self.buffers
            )));
        }
        Ok(buffers)
    }
}

//! A batch taken from the front, one frame at a time.

use crate::nic::Frame;

/// The frames of a batch, first one first. A frame leaves only by [`Front::take`]: who looks at it,
/// writes its descriptors and gives up, by an error or a panic, has lost none, and the batch holds those
/// that did not go, in their order.
pub struct Front<'a>(&'a mut Vec<Frame>);

impl<'a> Front<'a> {
    /// The batch `frames`.
    pub fn of(frames: &'a mut Vec<Frame>) -> Self {
        // A Vec gives its last one cheaply.
        frames.reverse();
        Self(frames)
    }

    /// The next one.
    pub fn first(&mut self) -> Option<&mut Frame> {
        self.0.last_mut()
    }

    /// Takes the next one out.
    pub fn take(&mut self) -> Option<Frame> {
        self.0.pop()
    }
}

impl Drop for Front<'_> {
    fn drop(&mut self) {
        self.0.reverse();
    }
}

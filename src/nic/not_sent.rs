//! The error of sending a single frame, which gives the frame back.

use std::fmt;

use super::Frame;
use crate::error::Error;

/// A frame that was not sent, and the reason. It becomes an [`Error`] by `?`, which drops the frame.
pub struct NotSent {
    /// The frame, as it was. `None` where the card's ring has it already, and the card was stopped before it was told:
    /// [`Nic::restart`](super::Nic::restart) gives it back.
    pub frame: Option<Frame>,
    /// The reason.
    pub error: Error,
}

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// As people read it, like [`Error`]'s own.
impl fmt::Debug for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for NotSent {}

impl From<NotSent> for Error {
    fn from(not_sent: NotSent) -> Self {
        not_sent.error
    }
}

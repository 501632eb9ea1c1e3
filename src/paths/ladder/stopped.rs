//! A rung that did not reach its end: what went, what of it arrived, and what was in the way.

use std::fmt;
use std::io;
use std::sync::atomic::AtomicBool;

use super::Receiver;

/// A rung that did not reach its end.
#[derive(Debug, thiserror::Error)]
#[error("{sent} of {len} bytes were sent{arrived}, then {why}")]
pub struct Stopped {
    /// Bytes that left: that is, that the kernel or the card took.
    pub sent: u64,
    /// Bytes that there were to send.
    pub len: u64,
    /// The part of the sent bytes that arrived.
    pub arrived: Arrived,
    /// The reason.
    pub why: Why,
}

/// The part of the sent bytes that arrived, by the far end's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// Nobody asked the far end.
    NotAsked,
    /// So many bytes, by its word.
    Bytes(u64),
    /// It was asked, and does not say: it is gone, or silent.
    Unsaid,
}

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => Ok(()),
            Self::Bytes(bytes) => write!(f, " and {bytes} arrived"),
            Self::Unsaid => f.write_str(" (the far end does not say what arrived)"),
        }
    }
}

impl Stopped {
    /// Asks the far end what arrived, which it knows once the job is dropped, and with it the stream
    /// closed. Ends early when `stop` becomes true.
    #[must_use]
    pub fn ask(self, far: &mut Receiver, stop: &AtomicBool) -> Self {
        Self {
            arrived: far.arrived(stop).map_or(Arrived::Unsaid, Arrived::Bytes),
            ..self
        }
    }
}

/// Reasons for which a rung stopped.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// A call failed.
    #[error("{call} failed: {source}")]
    Call {
        /// Its name.
        call: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The file ended before the length that it had.
    #[error(
        "the file ended: somebody made it shorter meanwhile\n  send it again for what it is now"
    )]
    Shrunk,
    /// The far end does not take any more.
    #[error(
        "nothing happened for {seconds} s: the far end takes no more\n  is its program still running?"
    )]
    Stuck {
        /// Seconds without progress.
        seconds: u64,
    },
    /// Nothing comes that could be relayed.
    #[error(
        "nothing came for {seconds} s: who sends has stopped, or is cut off\n  is its program still running?"
    )]
    Silent {
        /// Seconds without a byte.
        seconds: u64,
    },
    /// Datagrams did not arrive.
    #[error(
        "datagrams were lost: the far end got {got} bytes, and has given up on the rest\n  a smaller window loses less: give its socket a smaller buffer"
    )]
    Lost {
        /// Bytes that arrived.
        got: u64,
    },
    /// The other end of the stream that is to be relayed has closed it.
    #[error("who sends closed the stream")]
    Closed,
    /// It cannot be had here.
    #[error("it cannot be had here: {0}")]
    Missing(String),
    /// Somebody asked for it.
    #[error("it was interrupted")]
    Interrupted,
    /// The card or its driver.
    #[error(transparent)]
    Card(#[from] crate::Error),
}

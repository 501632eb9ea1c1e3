//! Loops over a card: what sends, answers, forwards and measures its way through frames.

mod echo;
mod forward;
mod ping;
mod responder;
mod source;
mod transmit;

pub use echo::{Echo, Echoed};
pub use forward::{Forward, Passed, Rewrite, Side, Tap, Until};
pub use ping::{Answer, LARGEST, Ping, Verdict};
pub use responder::Responder;
pub use source::{
    CaptureSource, CopySource, EXPERIMENTAL, FileSource, Limit, NOBODY, SyntheticSource,
};
pub use transmit::{CpuBytes, Manner, Next, Pace, Progress, Source, transmit};

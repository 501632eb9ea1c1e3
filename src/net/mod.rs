//! What rides on a card: packets, captures, and the loop that sends them.
//!
//! Nothing here knows which card it is; it speaks to a [`Nic`](crate::nic::Nic).

mod arp;
mod capture;
mod echo;
mod forward;
mod packet;
mod ping;
mod responder;
mod source;
mod transmit;

pub use arp::resolve;
pub use capture::{CaptureReader, CaptureWriter, Captured, LeftOut, TapWriter};
pub use echo::{Echo, Echoed};
pub use forward::{Forward, Passed, Rewrite, Side, Tap, Until};
pub use packet::{Arp, ETHERNET_HEADER, Packet, UdpFlow};
pub use ping::{Answer, LARGEST, Ping, Verdict};
pub use responder::Responder;
pub use source::{
    CaptureSource, CopySource, EXPERIMENTAL, FileSource, Limit, NOBODY, SyntheticSource,
};
pub use transmit::{CpuBytes, Manner, Next, Pace, Progress, Source, transmit};

//! Riders of a card: packets, captures, and the loop that sends them.
//!
//! Nothing here knows which card it is; it speaks to a [`Nic`](crate::nic::Nic).

mod capture;
mod flow;
mod packet;

pub use capture::{CaptureReader, CaptureWriter, Captured, LeftOut, TapWriter};
pub use flow::{
    Answer, CaptureSource, CopySource, CpuBytes, EXPERIMENTAL, Echo, Echoed, FileSource, Forward,
    LARGEST, Limit, Manner, NOBODY, Next, Pace, Passed, Ping, Progress, Responder, Rewrite, Side,
    Source, SyntheticSource, Tap, Until, Verdict, transmit,
};
pub use packet::{Arp, ETHERNET_HEADER, Packet, UdpFlow, resolve};

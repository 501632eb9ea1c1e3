//! What rides on a card: packets, captures, and the loop that sends them.
//!
//! Nothing here knows which card it is; it speaks to a [`Nic`](crate::nic::Nic).

mod arp;
mod capture;
mod packet;
mod source;
mod transmit;

pub use arp::resolve;
pub use capture::{CaptureReader, CaptureWriter, Captured};
pub use packet::{Arp, ETHERNET_HEADER, Packet, UdpFlow};
pub use source::{CaptureSource, EXPERIMENTAL, FileSource, Limit, NOBODY, SyntheticSource};
pub use transmit::{CpuBytes, Manner, Next, Pace, Progress, Source, transmit};

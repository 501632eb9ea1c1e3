//! What rides on a card: packets, captures, and the loop that sends them.
//!
//! Nothing here knows which card it is; it speaks to a [`Nic`](crate::nic::Nic).

mod capture;
mod packet;

pub use capture::{CaptureReader, CaptureWriter, Captured};
pub use packet::{Arp, ETHERNET_HEADER, Packet, UdpFlow};

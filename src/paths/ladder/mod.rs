//! The zero-copy ladder: every way to move a file to the network, each in a small file of its own.
//!
//! A rung moves a [`Job`]'s file into its [`Sink`], and says on the way what the processor copied. What
//! else it costs (calls, switches, faults, time) is counted by who runs it. The rungs' order is that of
//! the textbook: each leaves out something that the one before still did.

mod bounds;
mod by_reference;
mod completions;
mod extents;
mod frames;
mod job;
mod link;
mod mapping;
mod packet;
mod pipeline;
mod receive;
mod receiver;
mod rung;
mod rungs;
mod sink;
mod stopped;
mod tx_ring;
mod unsupported;
mod uring;
mod xsk;

pub use frames::FrameRing;
pub use job::{Card, Interface, Job};
pub use packet::packet_socket;
pub use receive::receive;
pub use receiver::{Delivered, Receiver};
pub use rung::{Carrier, Hop, Kind, Place, Protocol, Rung};
pub use rungs::RUNGS;
pub use sink::{Sink, Terms, retry};
pub use stopped::{Arrived, Stopped, Why};
pub use tx_ring::TxRing;

/// Bytes that a call moves at most, where nothing else limits it.
pub const BLOCK: usize = 64 * 1024;

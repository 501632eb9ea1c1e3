//! virtio (OASIS, version 1.2): what every virtio device has, whichever it is and however it is
//! reached.
//!
//! A [`Transport`] is one device: features, status, configuration, where its queues are told of. A
//! [`Ring`] is one virtqueue in memory, split (§2.7) or packed (§2.8); it owns what the device may
//! reach, by tokens. Neither knows what the other is made of, nor what a network is.

#![warn(clippy::arithmetic_side_effects)] // numbers of a device: checked, or wrapped on purpose

pub mod features;
mod queue;
mod transport;

pub use queue::{
    Areas, DescFlags, Packed, Piece, Ring, RingConfig, Sink, Split, Used, describe_packed,
    describe_split, need_event, need_event_packed,
};
pub use transport::{Doorbell, Halt, Isr, Status, Transport, pci};

//! pinwire drives PCI network cards from user space.
//!
//! It maps a card's registers, gives it pinned memory through the IOMMU, programs its descriptor
//! rings, and sends and receives packets straight from that memory, past the kernel.
//!
//! # Map of the house
//! Arrows go one way: `cli -> net -> nic -> dma, mmio -> backend -> pci -> error`.
//!
//! | module | what it is for |
//! |---|---|
//! | [`pci`] | how functions are named, found, bound, and what their config space says |
//! | [`mmio`] | how registers are declared and reached |
//! | [`barrier`] | what orders our accesses against a device's |
//! | [`dma`] | memory that a device can reach, and who owns it |
//! | [`backend`] | how a function is reached: VFIO, QEMU's device models, a fake |
//! | [`ring_state`] | whether a ring may be worked on |
//! | [`device`] | which card, in words |
//! | [`irq`] | interrupts as eventfds |
//! | `user_file` | files that users name, opened without waiting for anybody |
//! | [`virtio`] | virtqueues, and how a virtio device is reached |
//! | [`nic`] | network cards: what they share, and the drivers |
//! | `net` | what rides on a card: packets, captures, a loop that sends |
//! | `ladder` | every way to move a file to the network, side by side |
//! | `pagecache` | which pages of a file are in memory, and how to change that |
//! | `serve` | a server of files over HTTP, with a choice of ways to move their bytes |
//!
//! # Whom we trust
//! Nothing that a device writes: ids, lengths and indices are checked, waits are bounded, and the
//! IOMMU keeps it to the memory it was given. No memory is freed while a device may reach it: a ring
//! owns its buffers and stops the device before they go; where it cannot, they are cut off from the
//! device or never freed, and nobody gets their addresses again.

// Docs.rs says beside each item which feature it needs; only a nightly rustdoc can.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backend;
pub mod barrier;
#[cfg(feature = "cli")]
pub mod cli;
pub mod device;
pub mod dma;
pub mod error;
pub mod inspect;
pub mod irq;
#[cfg(feature = "cli")]
mod lab;
pub mod mmio;
#[cfg(feature = "net")]
pub mod net;
pub mod nic;
pub mod open;
#[cfg(any(feature = "ladder", feature = "serve"))]
pub mod paths;
pub mod pci;
pub mod ring_state;
#[cfg(feature = "cli")]
mod scope;
#[cfg(any(feature = "net", feature = "serve"))]
pub mod user_file;
pub mod virtio;
mod wait;

pub use device::DeviceSpec;
pub use error::{Error, Result};

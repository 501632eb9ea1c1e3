//! pinwire drives PCI network cards, and NVMe disks, from user space.
//!
//! It maps a card's registers, gives it pinned memory through the IOMMU, programs its descriptor
//! rings, and sends and receives packets straight from that memory, past the kernel.
//!
//! A whole program, which sends a packet and prints the first that comes in; [`DeviceSpec`] says how a device is named:
//!
//! ```no_run
#![doc = include_str!("../examples/packet.rs")]
//! ```
//!
//! From there: a [`Nic`](nic::Nic) sends and receives batches of [`Frame`](nic::Frame)s, which are buffers
//! ([`DmaBuf`](dma::DmaBuf)) of a [`Pool`](dma::Pool) or stretches of a file's page cache
//! ([`DmaFile`](dma::DmaFile)), and has a [`QueuePair`](nic::QueuePair) for each thread that wants one.
//! [`Drivers`](open::Drivers) takes drivers for other cards, and [`NicDriver`](nic::NicDriver) is what one has to be.
//! The book in `docs/` goes step by step; its chapter "Use it in your program" is about builds, permissions and event
//! loops.
//!
//! # Features
//!
//! | feature | what it brings | depends on |
//! |---|---|---|
//! | none (`default-features = false`) | devices: ways to them, memory, rings, cards | small crates only: no clap, no async runtime |
//! | `net` | `net`: packets, captures, loops that send, answer and forward | etherparse, pcap-file, flate2 |
//! | `testing` (default) | `testing`: the tests that a driver of yours must pass; with `net` | as `net` |
//! | `ladder` | `paths`: every way to move a file to the network, and the page cache; with `net` | io-uring, nix, sha2 |
//! | `serve` | `paths::serve`: files over HTTP, by each way to move their bytes | httparse, io-uring, nix |
//! | `cli` (default) | `cli`: the `pinwire` command, for your drivers, too; with all others | clap, serde, plotters, and more |
//!
//! # Map of the house
//! A room knows rooms above it in this table only; CONTRIBUTING.md says which, and tests/layers.rs holds it.
//!
//! | storey | module | what it is for |
//! |---|---|---|
//! | ground | `address` | the address of a PCI function |
//! | ground | [`error`] | one error: what was found, and what to do |
//! | ground | [`barrier`] | orders our accesses against a device's |
//! | ground | [`mmio`] | registers: how they are declared and reached |
//! | ground | `settings` | how settings are set |
//! | ground | [`irq`] | interrupts as eventfds |
//! | ground | [`wait`] | waiting with a bound: for registers, and for queues |
//! | ground | [`ring_state`] | whether a ring may be worked on |
//! | ground | `user_file` | files that users name, opened without waiting for anybody |
//! | ground | [`pci`] | functions: how they are named, found, bound, and what their config space says |
//! | ground | [`dma`] | memory that a device can reach, and who owns it |
//! | ground | [`backend`] | how a function is reached: VFIO, QEMU's device models, a fake |
//! | ground | [`device`] | which device, in words |
//! | ground | [`inspect`] | views for people: registers, rings, features |
//! | devices | [`virtio`] | virtqueues, and how a virtio device is reached |
//! | devices | [`nic`] | network cards: what they share, and the drivers |
//! | devices | [`block`] | disks: what they share, and the drivers |
//! | devices | [`open`] | which drivers there are, and from a device's name to a started one |
//! | riders | `net` | what rides on a card: packets, captures, loops that send, answer and forward |
//! | riders | `testing` | the tests that every driver of a network card must pass |
//! | riders | `paths` | every way that a file's bytes take: the ladder, a server, the page cache |
//! | riders | `lab` | what things cost: rates, round trips, the kernel's ways beside them, counters |
//! | riders | `scope` | a run, recorded and told; views as text |
//! | top | `cli` | the command: arguments, words, pictures |
//!
//! # Whom we trust
//! Nothing that a device writes: ids, lengths and indices are checked, waits are bounded, and the
//! IOMMU keeps it to the memory it was given. No memory is freed while a device may reach it: a ring
//! owns its buffers and stops the device before they go; where it cannot, they are cut off from the
//! device or never freed, and nobody gets their addresses again.

// Docs.rs says beside each item which feature it needs; only a nightly rustdoc can.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
pub mod backend;
pub mod barrier;
pub mod block;
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
mod settings;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(any(feature = "net", feature = "serve"))]
pub mod user_file;
pub mod virtio;
pub mod wait;

pub use device::DeviceSpec;
pub use error::{Error, Result};

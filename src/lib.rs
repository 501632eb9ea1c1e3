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
//! | [`device`] | which card, in words |
//! | [`irq`] | interrupts as eventfds |
//! | [`nic`] | network cards: what they share, and the drivers |
//! | `net` | what rides on a card: packets, captures, a loop that sends |
//!
//! # Whom we trust
//! Nothing that a device writes: ids, lengths and indices are checked, waits are bounded, and the
//! IOMMU keeps it to the memory it was given. No memory is freed while a device may reach it: a ring
//! owns its buffers, stops the device before they go, and leaks them where it cannot.

pub mod backend;
pub mod barrier;
pub mod device;
pub mod dma;
pub mod error;
pub mod irq;
pub mod mmio;
#[cfg(feature = "net")]
pub mod net;
pub mod nic;
pub mod pci;

pub use device::DeviceSpec;
pub use error::{Error, Result};

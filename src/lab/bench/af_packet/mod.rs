//! The kernel's own path on a card of the same kind: AF_PACKET, sending in three ways and receiving in one.
//!
//! These are here to be compared with, so they talk to the kernel as a program without us would:
//! plain system calls, with the `unsafe` that they need; no memory that a device sees is involved.

mod interface;
mod recvmmsg;
mod sendmmsg;
mod sendto;
mod socket;
mod tx_ring;

pub use interface::Interface;
pub use recvmmsg::Recvmmsg;
pub use sendmmsg::Sendmmsg;
pub use sendto::Sendto;
pub use tx_ring::TxRing;

//! pinwire drives PCI network cards from user space.
pub mod mmio;
pub mod nic;

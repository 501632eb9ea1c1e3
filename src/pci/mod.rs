//! PCI functions: how they are named, found, bound, and what their config space says.
//!
//! Nothing here touches a device's registers: that is a [`Backend`](crate::backend::Backend)'s work.

mod address;
mod bind;
mod class;
pub mod config;
pub mod express;
#[cfg(test)]
mod machine;
pub(crate) mod processes;
mod sysfs;
mod usage;

pub use crate::address::Address;
pub use bind::Rebound;
pub use sysfs::{Function, Sysfs};

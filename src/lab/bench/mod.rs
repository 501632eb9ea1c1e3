//! Packets per second and round trips, ours and the kernel's.

pub mod af_packet;
pub mod forward;
pub mod measure;
pub mod rates;
pub mod rtt;
pub mod rx;
pub mod series;
pub mod synthetic;
pub mod trips;
pub mod tx;

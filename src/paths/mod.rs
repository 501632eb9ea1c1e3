//! Every way that a file's bytes take through the kernel or past it, side by side.

mod errqueue;
mod insist;
#[cfg(feature = "ladder")]
pub mod ladder;
#[cfg(feature = "ladder")]
pub mod pagecache;
#[cfg(feature = "serve")]
pub mod serve;
mod uring;

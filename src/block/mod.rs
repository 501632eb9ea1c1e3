//! Disks: what they have in common, as [`nic`](crate::nic) is for network cards, and their drivers ([`nvme`]).
//!
//! A program submits a [`Request`], which owns the memory that the disk reads or writes, and gets it back with the
//! disk's answer:
//!
//! ```
//! use pinwire::block::{DiskQueue, Request};
//! use pinwire::dma::Pool;
//! use std::time::Duration;
//!
//! /// Reads the blocks from `lba` on that fill one buffer of `pool`.
//! fn read(queue: &mut dyn DiskQueue, pool: &Pool, lba: u64) -> pinwire::Result<Vec<u8>> {
//!     let mut buf = pool.alloc().expect("a buffer is at hand");
//!     buf.set_len(buf.capacity());
//!     queue.submit(&mut vec![Request::read(lba, buf)])?;
//!     queue.doorbell()?;
//!     let mut done = Vec::new();
//!     while queue.completed(&mut done, 1)? == 0 {
//!         queue.wait(Duration::from_secs(1))?;
//!     }
//!     let data = done.remove(0).succeeded()?.into_data().expect("a read has data");
//!     Ok(data.to_vec())
//! }
//! ```
//!
//! Memory that a disk has cannot be touched, since the request took it:
//!
//! ```compile_fail,E0382
//! use pinwire::block::{DiskQueue, Request};
//! use pinwire::dma::DmaBuf;
//!
//! fn write_then_change(queue: &mut dyn DiskQueue, mut buf: DmaBuf) {
//!     queue.submit(&mut vec![Request::write(0, buf)]).unwrap();
//!     buf.fill(b"too late"); // the disk reads it
//! }
//! ```

mod config;
mod disk;
mod driver;
mod health;
pub mod nvme;
mod request;
mod transfer;

pub use config::DiskConfig;
pub use disk::{Disk, DiskQueue, Limits, Namespace};
pub use driver::{DiskDriver, Function};
pub use health::Health;
pub use request::{Completed, Failure, Operation, Reason, Request};
pub use transfer::Transfer;

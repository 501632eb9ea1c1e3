//! The face of storage: what a disk is, and what its queues do.

use std::sync::Arc;

use super::{Completed, Health, Request};
use crate::dma::DmaSpace;
use crate::error::Result;
use crate::inspect::Inspect;
use crate::wait::Wait;

/// A part of a disk with blocks of its own, from 0 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its number, from 1 on.
    pub id: u32,
    /// Bytes of a block: a power of two.
    pub block_size: u32,
    /// Number of blocks.
    pub blocks: u64,
    /// Nothing can be written.
    pub is_read_only: bool,
}

impl Namespace {
    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.block_size.into())
    }
}

/// Bounds of what one request may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes that one request reads, writes or compares.
    pub max_transfer: usize,
    /// Boundary in bytes at which all segments of a request's memory but the first must begin, and all but the last
    /// must end; 1 for none.
    pub page: usize,
    /// A multiple of this many bytes is where the first must begin.
    pub align: usize,
    /// Most segments of a request's memory.
    pub max_segments: usize,
    /// There is a volatile cache: what was written is durable after a flush only.
    pub has_cache: bool,
    /// Writes nothing with memory.
    pub write_zeroes: bool,
    /// Takes hints.
    pub discard: bool,
    /// Compares.
    pub compare: bool,
    /// Verifies.
    pub verify: bool,
    /// Copies within itself: most blocks at once; 0 where it does not.
    pub copy: u32,
}

/// A started disk.
///
/// Dropping it tells the disk to shut down, stops it, then frees the memory that it could reach.
pub trait Disk: Inspect + Send {
    /// Name for people: `0000:00:05.0`, `qtest:nvme`.
    fn name(&self) -> &str;

    /// Model, serial number and firmware, as the disk says; what cannot be printed is left out.
    fn model(&self) -> &str;

    /// Source of memory that it can reach.
    fn dma(&self) -> &Arc<dyn DmaSpace>;

    /// Its namespaces, by number; those with blocks only.
    fn namespaces(&self) -> &[Namespace];

    /// Bounds of requests.
    fn limits(&self) -> &Limits;

    /// Number of queues.
    fn queues(&self) -> usize;

    /// Queue `index`.
    ///
    /// # Panics
    /// If there is none.
    fn queue(&self, index: usize) -> &dyn DiskQueue;

    /// Queue `index`, to work with.
    ///
    /// # Panics
    /// If there is none.
    fn queue_mut(&mut self, index: usize) -> &mut dyn DiskQueue;

    /// All queues, each for a thread of its own (`std::thread::scope`).
    fn split(&mut self) -> Vec<&mut dyn DiskQueue>;

    /// Checks that the disk is still there and well.
    ///
    /// # Errors
    /// [`Error::DeviceGone`](crate::Error::DeviceGone), [`Error::WasReset`](crate::Error::WasReset),
    /// [`Error::ProtocolViolation`](crate::Error::ProtocolViolation) where it says itself that it failed.
    fn check(&self) -> Result<()>;

    /// Asks the disk about its health; `None` where it keeps no such log.
    ///
    /// # Errors
    /// As [`Disk::check`]; [`Error::Timeout`](crate::Error::Timeout).
    fn health(&mut self) -> Result<Option<Health>> {
        Ok(None)
    }

    /// Shuts the disk down and stops it: no interrupt, no DMA. Its queues answer
    /// [`Error::Stopped`](crate::Error::Stopped) from here on, until [`Disk::restart`].
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) where it did not stop.
    fn stop(&mut self) -> Result<()>;

    /// Resets the disk and starts it again. Gives back the requests that were in flight: they may have been done, or
    /// not.
    ///
    /// # Errors
    /// As starting and stopping.
    fn restart(&mut self) -> Result<Vec<Request>>;
}

/// A queue of requests, with an interrupt of its own.
pub trait DiskQueue: Wait {
    /// Moves requests from the front of `requests` into the queue, as many as it has room for; the disk does not look
    /// before [`DiskQueue::doorbell`]. Gives how many went; the others stay.
    ///
    /// # Errors
    /// A request that the disk cannot do ([`Error::BadRequest`](crate::Error::BadRequest)): it stays at the front, those
    /// before it went. As [`Wait::check_running`].
    fn submit(&mut self, requests: &mut Vec<Request>) -> Result<usize>;

    /// Hands everything that was submitted to the disk: one register write.
    ///
    /// # Errors
    /// As [`Wait::check_running`].
    fn doorbell(&mut self) -> Result<()>;

    /// Appends to `into` the requests that the disk is through with, at most `most`, in the order in which it was.
    /// Gives how many.
    ///
    /// # Errors
    /// As [`Wait::check_running`].
    fn completed(&mut self, into: &mut Vec<Completed>, most: usize) -> Result<usize>;

    /// Requests submitted and not yet given back.
    fn in_flight(&self) -> usize;

    /// Requests that can be in flight at the most.
    fn depth(&self) -> usize;
}

//! Memory that a device can reach.
//!
//! A backend pins memory and maps it at an I/O virtual address ([`Iova`]); a [`DmaRegion`] owns one
//! such mapping and undoes it when dropped. A [`Pool`] cuts a region into packet buffers
//! ([`DmaBuf`]), a [`DmaFile`] maps a file's page cache, and a [`Chain`] strings buffers of either
//! kind together. What is handed to a ring is moved into it, so that nobody touches it meanwhile.

mod chain;
mod file;
mod free_list;
mod iova;
mod pool;
mod region;

pub use chain::{Chain, Segment};
pub use file::{DmaFile, FileSlice};
pub use iova::{Iova, IovaAllocator};
pub use pool::{DmaBuf, HEADROOM, Pool};
pub use region::{DmaArray, DmaRegion, DmaSpace, Mapping, Shared, SpaceId};

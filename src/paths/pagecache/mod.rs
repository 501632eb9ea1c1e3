//! The page cache: which pages of a file are in memory, which of them the disk does not have yet, and
//! how to change that.
//!
//! Who reads or sends a file reads these pages; a page that is not there is read from the disk first.
//! The kernel tells what it has in three ways ([`Witness`]), none of which needs the file's bytes, and
//! [`look`] takes the best that there is. What it tells was true a moment ago: pages come and go.

mod act;
mod backing;
mod cachestat;
mod change;
mod counts;
mod flags;
mod look;
mod mincore;
mod span;
mod sys;
mod window;

pub use act::{Touched, evict, read_ahead, sync, touch, warm};
pub use backing::{Backing, check_cached, huge_page};
pub use change::Change;
pub use counts::Counts;
pub use look::{How, Look, Witness, look, residency};
pub use span::{Span, page_bytes};

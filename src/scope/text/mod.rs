//! Views as text for a terminal.

pub mod arrows;
pub mod features;
pub mod paint;
pub mod registers;
pub mod ring;
pub mod strip;
pub mod virtqueue;

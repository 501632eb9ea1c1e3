//! Measuring: rates and round trips of cards, the kernel's ways beside them, and the counters that run meanwhile.

pub mod bench;
pub mod count;
pub mod ladder;
pub mod spread;

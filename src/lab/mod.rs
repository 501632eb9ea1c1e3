//! What things cost: rates and round trips of cards, the kernel's ways beside them, and what is counted
//! while they run.

pub mod bench;
pub mod count;
pub mod ladder;
pub mod spread;

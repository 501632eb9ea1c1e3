//! Settings of a disk.

use crate::settings::setters;
use crate::wait::Waiting;

/// Settings with which a disk is started.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DiskConfig {
    /// Queues, each for one thread; a disk may have fewer.
    pub queues: usize,
    /// Requests in flight on a queue; a disk may take fewer.
    pub depth: usize,
    /// Way of waiting for completions.
    pub waiting: Waiting,
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self {
            queues: 1,
            depth: 128,
            waiting: Waiting::default(),
        }
    }
}

impl DiskConfig {
    setters! {
        /// Sets [`queues`](DiskConfig#structfield.queues).
        queues: usize,
        /// Sets [`depth`](DiskConfig#structfield.depth).
        depth: usize,
        /// Sets [`waiting`](DiskConfig#structfield.waiting).
        waiting: Waiting,
    }
}

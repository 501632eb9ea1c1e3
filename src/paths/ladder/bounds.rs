//! Bounds of all waits here.

use std::time::Duration;

/// Longest time for which nothing may happen.
pub(super) const STUCK: Duration = Duration::from_secs(20);
/// Longest sleep, so that Ctrl-C is heard.
pub(super) const NAP: Duration = Duration::from_millis(100);

//! How long anything here waits.

use std::time::Duration;

/// How long nothing may happen.
pub(super) const STUCK: Duration = Duration::from_secs(20);
/// How long to sleep at most, so that Ctrl-C is heard.
pub(super) const NAP: Duration = Duration::from_millis(100);

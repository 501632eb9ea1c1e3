//! A counter of system calls: the kernel's own count, not our belief.
//!
//! A perf counter on the tracepoint `raw_syscalls:sys_enter`; it needs tracefs and the right to read
//! it (root has it).

use std::path::{Path, PathBuf};

use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};

/// Returns the path at which tracefs is mounted.
///
/// # Errors
/// Advice where it is missing, or not allowed.
pub fn tracefs() -> Result<PathBuf, String> {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.join("events").exists())
        .map(Path::to_owned)
        .ok_or_else(|| {
            "it takes root and tracefs: mount -t tracefs nodev /sys/kernel/tracing".to_owned()
        })
}

/// Counts between [`SyscallCounter::start`] and [`SyscallCounter::stop`].
pub struct SyscallCounter {
    counter: Counter,
    /// Calls that stopping it adds, by itself.
    own: u64,
}

impl SyscallCounter {
    /// A counter of the calling thread's calls, or why there is none.
    pub fn new() -> Result<Self, String> {
        Self::build(false)
    }

    /// A counter of the calling thread's calls and of those of all threads that it begins from now on.
    pub fn with_threads() -> Result<Self, String> {
        Self::build(true)
    }

    fn build(threads: bool) -> Result<Self, String> {
        let id = tracefs()?.join("events/raw_syscalls/sys_enter/id");
        let id = std::fs::read_to_string(&id).map_err(|error| format!("{}: {error}", id.display()));
        let id = id?
            .trim()
            .parse()
            .map_err(|_| "no number of it".to_owned())?;
        let mut counter = Builder::new(Tracepoint::with_id(id))
            .include_kernel()
            .inherit(threads)
            .inherit_thread(threads)
            .build()
            .map_err(|error| format!("perf_event_open: {error}"))?;
        let failed = |error| format!("perf counter: {error}");
        // The call that stops the counter enters the kernel while it still counts.
        counter.enable().map_err(failed)?;
        counter.disable().map_err(failed)?;
        let own = counter.read().map_err(failed)?;
        Ok(Self { counter, own })
    }

    /// Counts from here.
    pub fn start(&mut self) -> Result<(), String> {
        let started = self.counter.reset().and_then(|()| self.counter.enable());
        started.map_err(|error| format!("perf counter: {error}"))
    }

    /// Calls since [`SyscallCounter::start`].
    pub fn stop(&mut self) -> Result<u64, String> {
        let count = self.counter.disable().and_then(|()| self.counter.read());
        let count = count.map_err(|error| format!("perf counter: {error}"))?;
        Ok(count.saturating_sub(self.own))
    }
}

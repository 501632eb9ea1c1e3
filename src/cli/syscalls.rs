//! How many system calls this thread makes: the kernel's own count, not our belief.
//!
//! A perf counter on the tracepoint `raw_syscalls:sys_enter`; it needs tracefs and the right to read
//! it (root has it).

use std::path::Path;

use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};

/// Where tracefs is mounted.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Counts between [`SyscallCounter::start`] and [`SyscallCounter::stop`].
pub struct SyscallCounter {
    counter: Counter,
    /// What stopping it counts, by itself.
    own: u64,
}

impl SyscallCounter {
    /// A counter of the calling thread's calls, or why there is none.
    pub fn new() -> Result<Self, String> {
        let id = TRACEFS.iter().find_map(|tracefs| {
            let id = Path::new(tracefs).join("events/raw_syscalls/sys_enter/id");
            std::fs::read_to_string(id).ok()?.trim().parse().ok()
        });
        let id =
            id.ok_or("it takes root and tracefs: mount -t tracefs nodev /sys/kernel/tracing")?;
        let mut counter = Builder::new(Tracepoint::with_id(id))
            .include_kernel()
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

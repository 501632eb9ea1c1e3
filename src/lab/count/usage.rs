//! Resources that this process used, all of its threads together (getrusage).

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

/// Used up to now, or between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// Seconds of processor time in the program.
    pub user: f64,
    /// Seconds of it in the kernel, for the program.
    pub system: f64,
    /// Page faults that found the page in memory.
    pub minor_faults: u64,
    /// Those that waited for a disk.
    pub major_faults: u64,
    /// Times that it let the processor go, since it had to wait.
    pub voluntary: u64,
    /// Times that it had to let it go.
    pub involuntary: u64,
}

impl Usage {
    /// Up to now.
    pub fn now() -> Self {
        let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own");
        Self {
            user: seconds(usage.user_time()),
            system: seconds(usage.system_time()),
            minor_faults: usage.minor_page_faults() as u64,
            major_faults: usage.major_page_faults() as u64,
            voluntary: usage.voluntary_context_switches() as u64,
            involuntary: usage.involuntary_context_switches() as u64,
        }
    }

    /// Returns the difference to `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            user: self.user - before.user,
            system: self.system - before.system,
            minor_faults: self.minor_faults - before.minor_faults,
            major_faults: self.major_faults - before.major_faults,
            voluntary: self.voluntary - before.voluntary,
            involuntary: self.involuntary - before.involuntary,
        }
    }
}

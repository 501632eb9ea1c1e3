//! The cost of a rung, as the kernel counts it: calls, switches, faults, processor time.
//!
//! The process is counted while the rung runs, the machine until the far end has all: what the card's
//! driver does for it may be done later, by others, and hides nowhere else.

mod machine;
mod parts;
pub mod routines;
pub mod syscalls;
mod usage;

use std::time::Instant;

use self::machine::Ticks;
use crate::lab::count::syscalls::SyscallCounter;

pub use self::machine::Machine;
pub use self::parts::Parts;
pub use self::usage::Usage;

/// The counts of one run.
#[derive(Debug, Clone)]
pub struct Cost {
    /// System calls of the rung and of the threads that it began, or why they were not counted.
    pub calls: Result<u64, String>,
    /// This process.
    pub process: Usage,
    /// All of the machine, or why it was not counted.
    pub machine: Result<Machine, String>,
    /// Seconds until the far end had all.
    pub seconds: f64,
}

/// A count that is under way.
pub struct Counting {
    begin: Instant,
    machine: Result<Ticks, String>,
    usage: Usage,
    calls: Result<SyscallCounter, String>,
}

/// The part of a count that goes on when the rung is through.
pub struct Rest {
    begin: Instant,
    machine: Result<Ticks, String>,
    process: Usage,
    calls: Result<u64, String>,
}

impl Counting {
    /// Begins.
    pub fn begin() -> Self {
        let calls = SyscallCounter::with_threads();
        let (begin, machine, usage) = (Instant::now(), Ticks::now(), Usage::now());
        let calls = calls.and_then(|mut calls| calls.start().map(|()| calls));
        Self {
            begin,
            machine,
            usage,
            calls,
        }
    }

    /// The rung is through: what the process did is known.
    pub fn rung_is_through(self) -> Rest {
        Rest {
            calls: self.calls.and_then(|mut calls| calls.stop()),
            process: Usage::now().since(&self.usage),
            begin: self.begin,
            machine: self.machine,
        }
    }
}

impl Rest {
    /// The far end has all.
    pub fn end(self) -> Cost {
        let seconds = self.begin.elapsed().as_secs_f64();
        let now = Ticks::now();
        let machine = self
            .machine
            .and_then(|begin| Ok(now?.since(&begin, seconds)));
        Cost {
            calls: self.calls,
            process: self.process,
            machine,
            seconds,
        }
    }
}

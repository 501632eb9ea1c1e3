//! The whole machine's processor time, from /proc/stat.
//!
//! What was busy is what was not idle, which the kernel takes by the clock. How it splits into user,
//! system and interrupts it mostly samples, a hundred times a second or so: rough where a run is short.

use std::fs;

/// Ticks since the machine was booted, summed over its processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticks {
    user: u64,
    system: u64,
    interrupts: u64,
    idle: u64,
    stolen: u64,
    processors: u64,
}

/// Seconds of processor time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Seconds in programs.
    pub user: f64,
    /// Seconds in the kernel, for programs and by itself.
    pub system: f64,
    /// Seconds in interrupts and what they left to do (softirq).
    pub interrupts: f64,
    /// Seconds not idle, in all.
    pub busy: f64,
}

impl Ticks {
    /// Up to now.
    pub fn now() -> Result<Self, String> {
        let text = fs::read_to_string("/proc/stat").map_err(|why| format!("/proc/stat: {why}"))?;
        Self::parse(&text).ok_or_else(|| "/proc/stat is not as we know it".to_owned())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("cpu"));
        let numbers: Option<Vec<u64>> = lines
            .next()?
            .split_ascii_whitespace()
            .map(|word| word.parse().ok())
            .collect();
        // `guest` and `guest_nice` follow; they are part of the first two.
        let [user, nice, system, idle, iowait, irq, softirq, stolen] = *numbers?.first_chunk()?;
        Some(Self {
            user: user + nice,
            system,
            interrupts: irq + softirq,
            idle: idle + iowait,
            stolen,
            processors: lines.count() as u64,
        })
    }

    /// Returns the processor time used since `before`, `seconds` ago.
    pub fn since(&self, before: &Self, seconds: f64) -> Machine {
        let second = rustix::param::clock_ticks_per_second() as f64;
        let of = |now: u64, before: u64| now.saturating_sub(before) as f64 / second;
        let free = of(self.idle, before.idle) + of(self.stolen, before.stolen);
        Machine {
            user: of(self.user, before.user),
            system: of(self.system, before.system),
            interrupts: of(self.interrupts, before.interrupts),
            busy: (seconds * self.processors as f64 - free).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Parts;
    use super::*;

    const BEFORE: &str = "cpu  10 1 20 1000 5 2 3 0 0 0\ncpu0 1 1\ncpu1 1 1\nintr 5\n";
    const AFTER: &str = "cpu  40 1 70 1100 25 2 23 10 0 0\ncpu0 1 1\ncpu1 1 1\nintr 5\n";

    #[test]
    fn busy_is_what_is_neither_idle_nor_stolen() {
        let (before, after) = (Ticks::parse(BEFORE).unwrap(), Ticks::parse(AFTER).unwrap());
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        // Two processors for 115 ticks; 100 idle, 20 waiting for a disk, 10 stolen.
        let machine = after.since(&before, 115.0 / ticks);
        assert!((machine.busy * ticks - 100.0).abs() < 1e-6, "{machine:?}");
        let parts = Parts::from(&machine).split;
        let [user, system, interrupts] = parts.map(|part| (part.unwrap() * ticks).round());
        assert_eq!((user, system, interrupts), (30.0, 50.0, 20.0));
    }

    #[test]
    fn another_file_is_told() {
        for text in ["", "cpu  1 2 3", "cpu  a b c d e f g h"] {
            assert_eq!(Ticks::parse(text), None, "{text}");
        }
    }
}

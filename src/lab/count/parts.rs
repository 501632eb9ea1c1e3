//! Processor time, and what of it was where, as far as it was measured.

use super::{Machine, Usage};

/// Seconds of processor time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parts {
    /// Seconds in all.
    pub all: f64,
    /// Seconds in the program, in the kernel, and in interrupts; what was not measured is no zero.
    pub split: [Option<f64>; 3],
}

impl Parts {
    /// Multiplies each part by `factor`.
    pub fn times(self, factor: f64) -> Self {
        Self {
            all: self.all * factor,
            split: self.split.map(|part| Some(part? * factor)),
        }
    }
}

/// A process is not told what is done for it in interrupts.
impl From<&Usage> for Parts {
    fn from(process: &Usage) -> Self {
        Self {
            all: process.user + process.system,
            split: [Some(process.user), Some(process.system), None],
        }
    }
}

/// Busy time, split as the kernel sampled it.
impl From<&Machine> for Parts {
    fn from(machine: &Machine) -> Self {
        let sampled = [machine.user, machine.system, machine.interrupts];
        let sum: f64 = sampled.iter().sum();
        Self {
            all: machine.busy,
            split: sampled.map(|part| (sum > 0.0).then(|| part / sum * machine.busy)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_no_zero() {
        let process = Usage {
            user: 1.0,
            system: 2.0,
            ..Usage::default()
        };
        let parts = Parts::from(&process).times(2.0);
        assert_eq!(parts.all, 6.0);
        assert_eq!(parts.split, [Some(2.0), Some(4.0), None]);
        // Too short for the kernel to have looked.
        let machine = Machine {
            user: 0.0,
            system: 0.0,
            interrupts: 0.0,
            busy: 0.004,
        };
        let parts = Parts::from(&machine);
        assert_eq!((parts.all, parts.split), (0.004, [None; 3]));
    }
}

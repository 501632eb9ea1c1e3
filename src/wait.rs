//! Waits with a bound.

use std::time::{Duration, Instant};

/// Polls until `done`, at most `bound` long: `false` where that ran out. The clock is looked at
/// rarely, since in a virtual machine that may be a system call; so is the processor told that it
/// spins, which in one without KVM makes it wait for the device model's lock.
pub fn poll_until(bound: Duration, mut done: impl FnMut() -> bool) -> bool {
    let mut begin = None;
    loop {
        for _ in 0..64 {
            if done() {
                return true;
            }
        }
        std::hint::spin_loop();
        if begin.get_or_insert_with(Instant::now).elapsed() > bound {
            return done();
        }
    }
}

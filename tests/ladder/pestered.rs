//! Work that is sent signals all the time, and whose calls are not restarted.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// Runs `body` so; what it gives, and how many signals came meanwhile.
pub fn pestered<T>(body: impl FnOnce() -> T) -> (T, usize) {
    // SAFETY: all zeros is a `sigaction` without flags, so without SA_RESTART; the handler only adds to
    // an atomic, which a handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as extern "C" fn(libc::c_int) as libc::sighandler_t;
        assert_eq!(
            libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()),
            0
        );
    }
    let before = SIGNALS.load(Ordering::Relaxed);
    // SAFETY: it only says who calls.
    let (worker, done) = (unsafe { libc::pthread_self() }, AtomicBool::new(false));
    let given = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                // SAFETY: the thread waits for this one before it ends, so its id is valid.
                unsafe { libc::pthread_kill(worker, libc::SIGUSR2) };
                thread::sleep(Duration::from_micros(150));
            }
        });
        let given = std::panic::catch_unwind(AssertUnwindSafe(body));
        done.store(true, Ordering::Release);
        given
    });
    let given = given.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    (given, SIGNALS.load(Ordering::Relaxed) - before)
}

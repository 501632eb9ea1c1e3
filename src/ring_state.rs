//! Running, stopped or broken: one state for the rings of all devices, which says whether they may be
//! worked on.
//!
//! A state belongs to the rings that stop together: those of a card, of a queue pair, or a lone one.
//! Taking from a ring, refilling it, pushing into it and ringing its doorbell each look at it first,
//! once a batch. So after a device broke the protocol, or was stopped, nothing more comes out of a ring
//! or goes in and no register of the device is touched, whoever asks and by whichever way; each time
//! the answer is an error, until the device has been started again. The same where its removal or an error
//! of its bus was announced, for good.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::irq::Removal;

const RUNNING: u8 = 0;
const STOPPED: u8 = 1;
const BROKEN: u8 = 2;

/// Running, stopped or broken; clones are the same state.
#[derive(Clone)]
pub struct RingState(Arc<Shared>);

struct Shared {
    now: AtomicU8,
    device: String,
    removal: Arc<Removal>,
    /// The device's breach, once it broke the protocol.
    why: Mutex<String>,
    halt: Mutex<Box<dyn FnMut() + Send>>,
}

impl RingState {
    /// That of rings of `device` which stop together, stopped. `halt` stops the device, or its part,
    /// once it breaks the protocol; it is called on whichever thread finds that out. `removal` is the
    /// device's ([`Backend::removal`](crate::backend::Backend::removal)).
    pub fn new(device: &str, removal: Arc<Removal>, halt: impl FnMut() + Send + 'static) -> Self {
        Self(Arc::new(Shared {
            now: AtomicU8::new(STOPPED),
            device: device.to_owned(),
            removal,
            why: Mutex::default(),
            halt: Mutex::new(Box::new(halt)),
        }))
    }

    /// The device was set up: the rings run.
    pub fn start(&self) {
        self.0.now.store(RUNNING, Ordering::Relaxed);
    }

    /// The device was reset, or soon is. What is broken stays broken.
    pub fn stop(&self) {
        // Not where it is broken: what the device did is to be told until it is started again.
        let _ = self.swap(RUNNING, STOPPED);
    }

    /// The device broke the protocol by `what`: halts it, and gives the error. Of several threads that
    /// find out at the same time one halts it.
    #[cold]
    pub fn mark_broken(&self, what: impl Into<String>) -> Error {
        let was_running = {
            let mut why = locked(&self.0.why);
            let was = self.0.now.swap(BROKEN, Ordering::Relaxed);
            if was != BROKEN {
                *why = what.into();
            }
            was == RUNNING
        };
        if was_running {
            locked(&self.0.halt)();
        }
        self.error()
    }

    /// Returns whether the rings run, so that the device may be touched: one that is announced to leave may,
    /// until it is gone. One load.
    #[inline]
    pub fn is_running(&self) -> bool {
        // Relaxed: it guards no memory. Each ring is one thread's; a ring of another thread that goes
        // on for a moment does what it might have done just before.
        self.0.now.load(Ordering::Relaxed) == RUNNING
    }

    /// Returns whether the rings run and may be worked on: [`RingState::check`] without its error. Two loads.
    #[inline]
    pub fn is_well(&self) -> bool {
        self.is_running() && !self.0.removal.is_announced()
    }

    /// Checks that the rings run, and that no removal of the device and no error of its bus was announced:
    /// until its owner lets go it may work as ever, so that nothing else tells.
    ///
    /// # Errors
    /// [`Error::DeviceGone`], [`Error::BusError`]; [`Error::Stopped`]; [`Error::ProtocolViolation`] with what the
    /// device did.
    #[inline]
    pub fn check(&self) -> Result<()> {
        match self.is_well() {
            true => Ok(()),
            false => Err(self.error()),
        }
    }

    #[cold]
    #[inline(never)]
    fn error(&self) -> Error {
        if let Err(leaving) = self.0.removal.check() {
            return leaving;
        }
        let device = self.0.device.clone();
        let what = locked(&self.0.why);
        match self.0.now.load(Ordering::Relaxed) {
            BROKEN => Error::ProtocolViolation {
                device,
                what: what.clone(),
            },
            _ => Error::Stopped { device },
        }
    }

    fn swap(&self, from: u8, to: u8) -> bool {
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.0.now.compare_exchange(from, to, set, fetch).is_ok()
    }
}

impl fmt::Debug for RingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.now.load(Ordering::Relaxed) {
            RUNNING => "running",
            STOPPED => "stopped",
            _ => "broken",
        })
    }
}

fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::irq::Why;

    fn counted() -> (RingState, Arc<AtomicUsize>) {
        let halts = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&halts);
        let halt = move || {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let removal = Removal::of("a card");
        (RingState::new("a card", removal, halt), halts)
    }

    #[test]
    fn what_broke_it_is_told_until_it_is_started_again() {
        let (state, halts) = counted();
        assert!(matches!(state.check(), Err(Error::Stopped { .. })));
        state.start();
        state.check().unwrap();
        let twin = state.clone();
        for what in ["one", "two"] {
            let error = twin.mark_broken(what).to_string();
            assert!(error.contains("a card") && error.contains("one"), "{error}");
            // Stopping the device makes nothing true.
            state.stop();
            assert!(matches!(
                state.check(),
                Err(Error::ProtocolViolation { .. })
            ));
        }
        assert_eq!(halts.load(Ordering::Relaxed), 1, "it is halted once");
        state.start();
        twin.check().unwrap();
        state.stop();
        let error = twin.check().unwrap_err().to_string();
        assert!(
            error.contains("is stopped") && error.contains("restart"),
            "{error}"
        );
    }

    #[test]
    fn one_that_leaves_is_touched_no_more_by_its_rings_and_says_so_whatever_else_it_did() {
        for why in [Why::Removal, Why::BusError] {
            let removal = Removal::of("a card");
            let state = RingState::new("a card", Arc::clone(&removal), || {});
            state.start();
            removal.announce(why);
            let is_told = |error: &Error| match why {
                Why::Removal => matches!(error, Error::DeviceGone(_)),
                Why::BusError => matches!(error, Error::BusError(_)),
            };
            assert!(!state.is_well() && is_told(&state.check().unwrap_err()));
            assert!(state.is_running(), "its line can still be let go");
            state.stop();
            assert!(is_told(&state.check().unwrap_err()));
        }
    }

    #[test]
    fn of_many_threads_that_find_out_one_halts_the_device() {
        let (state, halts) = counted();
        state.start();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let state = &state;
                scope.spawn(move || state.mark_broken(format!("seen by {thread}")));
            }
        });
        assert_eq!(halts.load(Ordering::Relaxed), 1);
    }
}

//! Waiting with a bound: for a register, by polling; for a queue, in one of three ways ([`Waiting`]).
//!
//! What can be waited for has a face of its own ([`Wait`]), whatever comes out of it: so one thread sleeps on the queues
//! of cards and disks at once ([`wait_any`]).

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::irq::Irq;

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

/// Way in which a queue waits for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Waiting {
    /// Looks at the rings without a pause: a processor is busy, and nothing is faster. Needs no
    /// interrupt.
    Poll,
    /// Sleeps until the device interrupts.
    Interrupt,
    /// Looks for about as long as falling asleep and waking up would take, then sleeps.
    #[default]
    Adaptive,
}

impl Waiting {
    /// For how long of `timeout` it looks before it sleeps.
    fn spin(self, timeout: Duration) -> Duration {
        match self {
            Self::Poll => timeout,
            Self::Interrupt => Duration::ZERO,
            Self::Adaptive => SPIN.min(timeout),
        }
    }
}

/// Time for which [`Waiting::Adaptive`] polls before it sleeps: at worst the wait costs twice what the better of the
/// two would have.
const SPIN: Duration = Duration::from_micros(50);
/// Looks at the rings between two looks at the clock, which in a VM may be a system call.
const LOOKS: u32 = 64;

/// A queue, or a pair of them, that can be waited for. Its file descriptor becomes readable once the device has
/// interrupted after [`Wait::arm`], so that any event loop can hold it.
pub trait Wait: Send + AsFd {
    /// Checks that its rings run, as every other method does first but [`Wait::disarm`]. If they do not, all
    /// give this error, nothing goes in or comes out, and no register of the device is touched, until the device is
    /// restarted. A device that broke the protocol on a queue is stopped on that queue, or as a whole if it cannot be.
    ///
    /// # Errors
    /// [`Error::ProtocolViolation`] where the device broke the protocol; [`Error::Stopped`] where it was stopped;
    /// [`Error::DeviceGone`] and [`Error::BusError`] as soon as either is announced.
    fn check_running(&self) -> Result<()>;

    /// Returns whether something came in or was completed, or an error is to be told. Reads memory only. May be true
    /// for what turns out to be none (a frame that is dropped), but not for long.
    fn is_ready(&self) -> bool;

    /// Asks for an interrupt when there is something to do. `true`: there is already, which may have
    /// come before the device was asked, so do not sleep on it.
    ///
    /// # Errors
    /// [`Error::NotOffered`] where the device has no interrupt; as [`Wait::check_running`].
    fn arm(&mut self) -> Result<bool>;

    /// Asks for no more interrupts, and forgets those that came.
    ///
    /// # Errors
    /// If the system refuses.
    fn disarm(&mut self) -> Result<()>;

    /// The interrupt; none where the device was started with [`Waiting::Poll`].
    fn irq(&self) -> Option<&Irq>;

    /// Its way of waiting, as its device was started with.
    fn waiting(&self) -> Waiting;

    /// Waits until something came in or was completed, or the device has other news (a link that changed), or until `timeout`; `true` where
    /// it did, which may be for something already seen.
    ///
    /// # Errors
    /// As [`Wait::arm`]; [`Error::DeviceGone`] as soon as the device is being taken away; to who polls and has no
    /// interrupt to be told by, at the next call.
    fn wait(&mut self, timeout: Duration) -> Result<bool> {
        self.check_running()?;
        let begin = Instant::now();
        if look(begin, self.waiting().spin(timeout), || self.is_ready()) {
            return Ok(true);
        }
        if self.waiting() == Waiting::Poll {
            return Ok(false);
        }
        let came = if self.arm()? {
            Ok(true)
        } else {
            let irq = self.irq().ok_or_else(|| no_interrupt("this device"))?;
            irq.wait(timeout.saturating_sub(begin.elapsed()))
        };
        self.disarm()?;
        // It may have been stopped from another queue meanwhile.
        self.check_running()?;
        came
    }
}

/// Waits until one of `queues`, of one device or of several, has something to do: as [`Wait::wait`]
/// of each, with one sleep for all. One that polls keeps all from sleeping.
///
/// # Errors
/// As [`Wait::wait`].
pub fn wait_any<W: Wait + ?Sized>(queues: &mut [&mut W], timeout: Duration) -> Result<bool> {
    queues.iter().try_for_each(|queue| queue.check_running())?;
    let begin = Instant::now();
    let spins = queues.iter().map(|queue| queue.waiting().spin(timeout));
    let spin = spins.max().unwrap_or(Duration::ZERO);
    if look(begin, spin, || queues.iter().any(|queue| queue.is_ready())) {
        return Ok(true);
    }
    if queues.iter().any(|queue| queue.waiting() == Waiting::Poll) {
        return Ok(false);
    }
    // All are armed before the sleep, and each says whether something came before it was: so nothing
    // comes between the last look and the sleep.
    let armed = arm_all(queues);
    let came = match armed {
        Ok(false) => {
            let irqs = queues.iter().filter_map(|queue| queue.irq());
            Irq::wait_any(irqs, timeout.saturating_sub(begin.elapsed()))
        }
        other => other,
    };
    for queue in queues.iter_mut() {
        queue.disarm()?;
    }
    queues.iter().try_for_each(|queue| queue.check_running())?;
    came
}

/// `true` where one has something to do already.
fn arm_all<W: Wait + ?Sized>(queues: &mut [&mut W]) -> Result<bool> {
    let mut ready = false;
    for queue in queues {
        ready |= queue.arm()?;
    }
    Ok(ready)
}

/// Looks at the rings for `spin` from `begin` on, at least once: `true` as soon as one is ready.
fn look(begin: Instant, spin: Duration, ready: impl Fn() -> bool) -> bool {
    loop {
        for _ in 0..LOOKS {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if begin.elapsed() >= spin {
            return false;
        }
    }
}

/// The error of [`Wait::arm`] without an interrupt.
pub fn no_interrupt(device: &str) -> Error {
    Error::NotOffered {
        device: device.to_owned(),
        what: "an interrupt: it has none, or was started without; poll instead (Waiting::Poll)"
            .to_owned(),
    }
}

//! Interrupts, as an eventfd that becomes readable.
//!
//! INTx is level-triggered and may be shared: VFIO masks it as it fires, and it must be unmasked
//! once the device has been asked for its cause, or there is never a second one. MSI and MSI-X are
//! messages; they need no unmasking.
//!
//! Who sleeps on an interrupt also hears that the device is being taken away, or has failed ([`Removal`]).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// An eventfd: what a [`FakeDevice`](crate::backend::FakeDevice) is given to interrupt by.
pub use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK};

use crate::error::{Error, Result};

/// The kinds of PCI interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IrqKind {
    /// The legacy wire.
    Intx,
    /// Messages, one address.
    Msi,
    /// Messages, a table of addresses.
    MsiX,
}

/// Mask of one interrupt: a backend's part of an [`Irq`].
pub trait IrqLine: Send {
    /// Lets it fire again; one that is still pending fires at once.
    ///
    /// # Errors
    /// If the system refuses.
    fn unmask(&self) -> Result<()>;
}

/// Nothing to unmask.
struct NoLine;

impl IrqLine for NoLine {
    fn unmask(&self) -> Result<()> {
        Ok(())
    }
}

/// Reason for which a device is not to be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Why {
    /// The kernel wants it back, or it is gone: [`Error::DeviceGone`].
    Removal = 1,
    /// It met an error that PCI Express does not correct: [`Error::BusError`].
    BusError = 2,
}

/// The news that a device is being taken away, or has failed: spread by whoever hears it first, to all
/// who wait for the device. There is no way back.
#[derive(Debug)]
pub struct Removal {
    device: String,
    /// A [`Why`], or 0.
    announced: AtomicU8,
    /// The device's interrupts.
    wakes: Mutex<Vec<EventFd>>,
}

impl Removal {
    /// That of `device`, which is there.
    pub fn of(device: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            device: device.into(),
            announced: AtomicU8::new(0),
            wakes: Mutex::default(),
        })
    }

    /// The device goes: wakes all who wait for it. What was announced first counts.
    pub fn announce(&self, why: Why) {
        // Before they wake: each looks then.
        let (release, relaxed) = (Ordering::Release, Ordering::Relaxed);
        let _ = (self.announced).compare_exchange(0, why as u8, release, relaxed);
        self.wake();
    }

    fn wake(&self) {
        for event in self.wakes().iter() {
            // Fails only where the counter is full: then it is readable anyhow.
            let _ = event.write(1);
        }
    }

    /// Returns whether it goes. Reads memory only.
    #[inline]
    pub fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Acquire) != 0
    }

    /// # Errors
    /// [`Error::DeviceGone`] or [`Error::BusError`] where it does.
    #[inline]
    pub fn check(&self) -> Result<()> {
        const FAILED: u8 = Why::BusError as u8;
        match self.announced.load(Ordering::Acquire) {
            0 => Ok(()),
            FAILED => Err(Error::BusError(self.device.clone())),
            _ => Err(Error::DeviceGone(self.device.clone())),
        }
    }

    /// These are the interrupts of the device now: who sleeps on one is woken, and told why.
    ///
    /// # Errors
    /// If the system gives no descriptor.
    pub fn wakes_all(self: &Arc<Self>, irqs: &mut [Irq]) -> Result<()> {
        let clones = irqs.iter().map(|irq| irq.event.try_clone());
        let clones = clones.collect::<std::io::Result<Vec<_>>>();
        *self.wakes() = clones.map_err(|error| Error::io("copying an eventfd", error))?;
        for irq in irqs {
            irq.removal = Some(Arc::clone(self));
        }
        if self.is_announced() {
            self.wake();
        }
        Ok(())
    }

    fn wakes(&self) -> std::sync::MutexGuard<'_, Vec<EventFd>> {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One interrupt vector. Dropping it leaves the vector to the backend, which turns it off.
pub struct Irq {
    event: EventFd,
    line: Box<dyn IrqLine>,
    removal: Option<Arc<Removal>>,
}

impl std::fmt::Debug for Irq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Irq(eventfd {})", self.event.as_raw_fd())
    }
}

impl AsFd for Irq {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the eventfd is open as long as `self` lives.
        unsafe { BorrowedFd::borrow_raw(self.event.as_raw_fd()) }
    }
}

impl Irq {
    /// A vector that makes `event` (non-blocking) readable, unmasked through `line`.
    pub fn new(event: EventFd, line: Box<dyn IrqLine>) -> Self {
        Self {
            event,
            line,
            removal: None,
        }
    }

    /// A vector that is a message, which nobody masks.
    pub fn message(event: EventFd) -> Self {
        Self::new(event, Box::new(NoLine))
    }

    /// One that never fires, for who does not want to be interrupted.
    ///
    /// # Errors
    /// If the system gives no eventfd.
    pub fn never() -> Result<Self> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
        let event = event.map_err(|error| Error::io("making an eventfd", error))?;
        Ok(Self::message(event))
    }

    /// Forgets that it fired.
    pub fn clear(&self) {
        // Fails where it did not fire.
        let _ = self.event.read();
    }

    /// Waits until it fires: `true`; `false` where `timeout` passed or a signal came first.
    ///
    /// # Errors
    /// [`Error::DeviceGone`] where the device is being taken away, [`Error::BusError`] where it has failed;
    /// where the system refuses.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        self.check_removed()?;
        let came = poll(&mut [self.readable()], timeout)? && self.event.read().is_ok();
        self.check_removed()?;
        Ok(came)
    }

    /// Waits until one of several fires, as [`Irq::wait`] does for one; each stays fired until
    /// [`Irq::clear`].
    ///
    /// # Errors
    /// [`Error::DeviceGone`] where one of the devices is being taken away; where the system refuses.
    pub fn wait_any<'a>(
        irqs: impl IntoIterator<Item = &'a Self, IntoIter: Clone>,
        timeout: Duration,
    ) -> Result<bool> {
        let irqs = irqs.into_iter();
        let check = || irqs.clone().try_for_each(Self::check_removed);
        check()?;
        let mut polls: Vec<_> = irqs.clone().map(Self::readable).collect();
        let came = poll(&mut polls, timeout)?;
        check()?;
        Ok(came)
    }

    /// Checks that no removal of the device and no error of its bus has been announced.
    ///
    /// # Errors
    /// [`Error::DeviceGone`], [`Error::BusError`].
    fn check_removed(&self) -> Result<()> {
        match &self.removal {
            Some(removal) => removal.check(),
            None => Ok(()),
        }
    }

    /// Descriptor and events for poll(2).
    fn readable(&self) -> libc::pollfd {
        libc::pollfd {
            fd: self.event.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }
    }

    /// Lets it fire again, after the device was asked for the cause.
    ///
    /// # Errors
    /// As [`IrqLine::unmask`].
    pub fn unmask(&self) -> Result<()> {
        self.line.unmask()
    }
}

/// Waits until one of `polls` has come about: `true`; `false` where `timeout` passed or a signal came.
fn poll(polls: &mut [libc::pollfd], timeout: Duration) -> Result<bool> {
    // Rounded up: a wait of less than a millisecond must not become a busy loop.
    let millis = timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32;
    let (first, count) = (polls.as_mut_ptr(), polls.len() as libc::nfds_t);
    // SAFETY: as many valid `pollfd` as is said.
    match unsafe { libc::poll(first, count, millis) } {
        0 => Ok(false),
        1.. => Ok(true),
        _ => match std::io::Error::last_os_error() {
            error if error.kind() == std::io::ErrorKind::Interrupted => Ok(false),
            error => Err(Error::io("waiting for an interrupt", error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sleeps_on_a_device_is_woken_and_told_what_happened_to_it_first() {
        for (first, then) in [(Why::BusError, Why::Removal), (Why::Removal, Why::BusError)] {
            let removal = Removal::of("0000:00:04.0");
            let mut irqs = [Irq::never().unwrap()];
            removal.wakes_all(&mut irqs).unwrap();
            let [irq] = irqs;
            let sleeper = std::thread::spawn(move || irq.wait(Duration::from_secs(60)));
            removal.announce(first);
            let told = sleeper.join().unwrap().unwrap_err();
            removal.announce(then);
            for error in [told, removal.check().unwrap_err()] {
                match first {
                    Why::BusError => assert!(matches!(error, Error::BusError(_)), "{error}"),
                    Why::Removal => assert!(matches!(error, Error::DeviceGone(_)), "{error}"),
                }
            }
        }
    }
}

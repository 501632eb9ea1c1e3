//! Interrupts, as an eventfd that becomes readable.
//!
//! INTx is level-triggered and may be shared: VFIO masks it as it fires, and it must be unmasked
//! once the device has been asked for its cause, or there is never a second one. MSI and MSI-X are
//! messages; they need no unmasking.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

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

/// What masks and unmasks one interrupt: a backend's part of an [`Irq`].
pub trait IrqLine: Send {
    /// Lets it fire again; one that is still pending fires at once.
    ///
    /// # Errors
    /// Where the system refuses.
    fn unmask(&self) -> Result<()>;
}

/// One interrupt vector. Dropping it leaves the vector to the backend, which turns it off.
pub struct Irq {
    event: EventFd,
    line: Box<dyn IrqLine>,
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
        Self { event, line }
    }

    /// Waits until it fires: `true`; `false` where `timeout` passed or a signal came first.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        let mut poll = libc::pollfd {
            fd: self.event.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // Rounded up: a wait of less than a millisecond must not become a busy loop.
        let millis = timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32;
        // SAFETY: one valid `pollfd`.
        match unsafe { libc::poll(&raw mut poll, 1, millis) } {
            0 => Ok(false),
            1 => Ok(self.event.read().is_ok()),
            _ => match std::io::Error::last_os_error() {
                error if error.kind() == std::io::ErrorKind::Interrupted => Ok(false),
                error => Err(Error::io("waiting for an interrupt", error)),
            },
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

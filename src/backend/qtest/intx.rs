//! INTx over qtest: a level that QEMU reports, made into an eventfd that masks itself.
//!
//! The IOAPIC's inputs are intercepted, so each change of a line is told to us, before the answer
//! to the register access that caused it. The rest is as VFIO does it: the line is masked as it
//! fires, and where it is still high at the unmasking, it fires again.

use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::wire::{Wire, lock};
use crate::error::{Error, Result};
use crate::irq::{Irq, IrqLine};

/// The device's interrupt line.
#[derive(Default)]
pub(super) struct Intx(Mutex<State>);

#[derive(Default)]
struct State {
    high: bool,
    masked: bool,
    event: Option<EventFd>,
    /// Counts what was connected: an [`Irq`] that was replaced must not unmask its successor.
    connection: u64,
}

impl State {
    fn fire_if_due(&mut self) {
        if let Some(event) = &self.event
            && self.high
            && !self.masked
        {
            self.masked = true;
            // Fails only where the counter is full: then it is readable anyhow.
            let _ = event.write(1);
        }
    }
}

impl Intx {
    /// The line has changed.
    pub fn set(&self, high: bool) {
        let mut state = lock(&self.0);
        state.high = high;
        state.fire_if_due();
    }

    /// QEMU is gone: wakes who waits, to see it for himself.
    pub fn hang_up(&self) {
        if let Some(event) = &lock(&self.0).event {
            let _ = event.write(1);
        }
    }

    pub fn disconnect(&self) {
        lock(&self.0).event = None;
    }

    /// A new eventfd for the line, in the place of the former one.
    pub fn connect(self: &Arc<Self>, wire: &Arc<Wire>) -> Result<Irq> {
        let os = |error| Error::io("making an eventfd", error);
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(os)?;
        let ours = event.try_clone().map_err(os)?;
        let mut state = lock(&self.0);
        state.masked = false;
        state.event = Some(ours);
        state.connection += 1;
        state.fire_if_due();
        let line = Line {
            intx: Arc::clone(self),
            wire: Arc::clone(wire),
            connection: state.connection,
        };
        Ok(Irq::new(event, Box::new(line)))
    }
}

struct Line {
    intx: Arc<Intx>,
    wire: Arc<Wire>,
    connection: u64,
}

impl IrqLine for Line {
    fn unmask(&self) -> Result<()> {
        // What the driver wrote to quieten the device has arrived before the level is looked at.
        self.wire.flush();
        let mut state = lock(&self.intx.0);
        if state.connection == self.connection {
            state.masked = false;
            state.fire_if_due();
        }
        Ok(())
    }
}

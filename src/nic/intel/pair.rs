//! A queue pair of a card, and its interrupt: §13.4.17 to §13.4.22 of the 8254x manual, §7.4 of the 82574's
//! datasheet.
//!
//! Mask and cause registers take single bits, so that two pairs, each on a thread of its own, do not disturb
//! each other.

use std::os::fd::{AsFd, BorrowedFd};

use super::rx::RxQueue;
use super::tx::Tx;
use crate::dma::Pool;
use crate::error::Result;
use crate::inspect::RingView;
use crate::irq::Irq;
use crate::mmio::Mmio;
use crate::nic::{Frame, QueuePair, Received, Waiting};
use crate::ring_state::RingState;
use crate::wait::{Wait, no_interrupt};

/// The causes of a pair's interrupt, in the bits of the mask registers, and where they are asked for.
#[derive(Debug, Clone, Copy)]
pub(in crate::nic) struct Causes {
    /// Offset of the register that unmasks them (IMS).
    pub ims: usize,
    /// A frame came in, or what else may happen.
    pub receive: u32,
    /// A frame left.
    pub transmit: u32,
}

pub(in crate::nic) struct Pair<M> {
    pub tx: Tx<M>,
    pub rx: Box<dyn RxQueue>,
    pub irq: Irq,
    pub waiting: Waiting,
    pub causes: Causes,
    /// Masks its causes and clears those that came; the device runs.
    pub acknowledge: Box<dyn FnMut() + Send>,
    pub bar: M,
    /// That of all rings of the card.
    pub state: RingState,
}

impl<M: Mmio> Pair<M> {
    /// Its rings, to be shown.
    pub fn views(&self) -> [RingView; 2] {
        [self.tx.view(), self.rx.view()]
    }

    /// The device was reset: gives back what was in flight.
    pub fn restart(&mut self) -> Vec<Frame> {
        self.rx.restart();
        self.tx.restart()
    }

    /// The device did not stop. One that `is_absent` reads nothing any more: what others gave it to read returns.
    pub fn quarantine(&mut self, is_absent: bool) {
        if is_absent {
            self.tx.release();
        }
        self.tx.quarantine();
        self.rx.quarantine();
    }
}

impl<M> AsFd for Pair<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.irq.as_fd()
    }
}

impl<M: Mmio> QueuePair for Pair<M> {
    fn submit(&mut self, frames: &mut Vec<Frame>) -> Result<usize> {
        self.tx.submit(frames)
    }

    fn doorbell(&mut self) -> Result<()> {
        self.tx.doorbell()
    }

    fn completed(&mut self, done: &mut Vec<Frame>) -> Result<usize> {
        self.tx.completed(done)
    }

    fn in_flight(&self) -> usize {
        self.tx.in_flight()
    }

    fn recv(&mut self, into: &mut Vec<Received>, most: usize) -> Result<usize> {
        let count = self.rx.poll(into, most)?;
        self.rx.refill();
        Ok(count)
    }

    fn dropped_longer(&self) -> u64 {
        self.rx.dropped_longer()
    }

    fn rx_pool(&self) -> &Pool {
        self.rx.pool()
    }
}

impl<M: Mmio> Wait for Pair<M> {
    fn check_running(&self) -> Result<()> {
        self.state.check()
    }

    fn is_ready(&self) -> bool {
        self.rx.is_ready() || self.tx.is_ready() || !self.state.is_well()
    }

    /// A cause that came before it was asked for is still in ICR, so the card interrupts as soon as IMS
    /// has it: no wake-up is lost.
    fn arm(&mut self) -> Result<bool> {
        if self.waiting == Waiting::Poll {
            return Err(no_interrupt("this card"));
        }
        self.state.check()?;
        // Buffers that were returned since the last look: without any nothing can come in.
        self.rx.refill();
        let transmit = match self.tx.in_flight() {
            0 => 0,
            _ => self.causes.transmit,
        };
        let causes = self.causes.receive | transmit;
        self.bar.write32(self.causes.ims, causes);
        Ok(self.is_ready())
    }

    fn disarm(&mut self) -> Result<()> {
        // A device that is stopped is asked nothing, and holds no line up.
        if self.state.is_running() {
            (self.acknowledge)();
        }
        self.irq.clear();
        self.irq.unmask()
    }

    fn irq(&self) -> Option<&Irq> {
        (self.waiting != Waiting::Poll).then_some(&self.irq)
    }

    fn waiting(&self) -> Waiting {
        self.waiting
    }
}

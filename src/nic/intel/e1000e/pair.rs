//! A queue pair of the card, and its interrupt (§7.4).
//!
//! With MSI-X each pair has a vector and causes of its own, and an interrupt masks its causes by
//! itself (EIAC). Otherwise the one pair has the causes that all of Intel's cards have, and the line
//! must be unmasked. Mask and cause registers take single bits, so that two pairs, each on a thread of
//! its own, do not disturb each other.

use std::os::fd::{AsFd, BorrowedFd};

use super::regs::{ICR_CLEAR, IMC, IMS, Interrupts};
use super::{Rx, SplitRing, Tx};
use crate::dma::Pool;
use crate::error::Result;
use crate::inspect::RingView;
use crate::irq::Irq;
use crate::mmio::Mmio;
use crate::nic::intel::flush;
use crate::nic::longest::Longest;
use crate::nic::pair::no_interrupt;
use crate::nic::{Frame, QueuePair, Received, Waiting};
use crate::ring_state::RingState;

/// The receive ring, of one of two kinds.
pub(super) enum Ring<M> {
    Extended(Rx<M>),
    Split(SplitRing<M>),
}

/// Calls the same method of either kind.
macro_rules! either {
    ($ring:expr, $name:ident => $call:expr) => {
        match $ring {
            Ring::Extended($name) => $call,
            Ring::Split($name) => $call,
        }
    };
}

impl<M: Mmio> Ring<M> {
    pub fn lend(&mut self) {
        either!(self, ring => ring.lend());
    }

    pub fn restart(&mut self) {
        either!(self, ring => ring.restart());
    }

    pub fn quarantine(&mut self) {
        either!(self, ring => ring.quarantine());
    }

    pub fn view(&self) -> RingView {
        either!(self, ring => ring.view())
    }

    fn is_ready(&self) -> bool {
        either!(self, ring => ring.is_ready())
    }
}

/// The causes of a pair's interrupt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Causes {
    /// A frame came in, or what else may happen.
    pub receive: Interrupts,
    /// A frame left.
    pub transmit: Interrupts,
    /// Those that come with others: cleared, but not asked for.
    pub besides: Interrupts,
}

impl Causes {
    /// With MSI-X, pair `index`; the first looks after the link, too.
    pub fn of_queue(index: usize) -> Self {
        let none = Interrupts::new();
        let besides = none
            .with_rxo(true)
            .with_mdac(true)
            .with_srpd(true)
            .with_ack(true)
            .with_mng(true);
        let (receive, transmit) = match index {
            0 => (
                none.with_rxq0(true).with_other(true).with_lsc(true),
                none.with_txq0(true),
            ),
            _ => (none.with_rxq1(true), none.with_txq1(true)),
        };
        Self {
            receive,
            transmit,
            besides: if index == 0 { besides } else { none },
        }
    }

    /// The one pair's, with a message or a line.
    pub fn of_all() -> Self {
        let none = Interrupts::new();
        Self {
            receive: none
                .with_rxt0(true)
                .with_rxdmt0(true)
                .with_rxo(true)
                .with_lsc(true),
            transmit: none.with_txdw(true),
            besides: Interrupts::from(u32::MAX),
        }
    }

    fn all(self) -> Interrupts {
        let bits = |causes: Interrupts| causes.into_bits();
        Interrupts::from(bits(self.receive) | bits(self.transmit) | bits(self.besides))
    }
}

pub(super) struct Pair<M> {
    pub tx: Tx<M>,
    pub rx: Ring<M>,
    pub irq: Irq,
    pub causes: Causes,
    pub waiting: Waiting,
    pub longest: Longest,
    pub bar: M,
    /// That of all rings of the card.
    pub state: RingState,
}

impl<M> AsFd for Pair<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.irq.as_fd()
    }
}

impl<M: Mmio> QueuePair for Pair<M> {
    fn post(&mut self, frames: &mut Vec<Frame>) -> Result<usize> {
        self.tx.post(frames)
    }

    fn doorbell(&mut self) -> Result<()> {
        self.tx.doorbell()
    }

    fn reap(&mut self, done: &mut Vec<Frame>) -> Result<usize> {
        self.tx.reap(done)
    }

    fn in_flight(&self) -> usize {
        self.tx.in_flight()
    }

    fn recv(&mut self, into: &mut Vec<Received>, most: usize) -> Result<usize> {
        let begin = into.len();
        let taken = either!(&mut self.rx, ring => ring.take(into, most));
        let kept = self.longest.keep(into, begin);
        taken?;
        self.rx.lend();
        Ok(kept)
    }

    fn dropped_longer(&self) -> u64 {
        self.longest.dropped()
    }

    fn check_running(&self) -> Result<()> {
        self.state.check()
    }

    fn is_ready(&self) -> bool {
        self.rx.is_ready() || self.tx.is_ready() || !self.state.is_running()
    }

    /// A cause that came before it was asked for is still in ICR, so the card interrupts as soon as IMS
    /// has it: no wake-up is lost.
    fn arm(&mut self) -> Result<bool> {
        if self.waiting == Waiting::Poll {
            return Err(no_interrupt("this card"));
        }
        self.state.check()?;
        // Buffers that came home since the last look: without any nothing can come in.
        self.rx.lend();
        let mut causes = self.causes.receive.into_bits();
        if self.tx.in_flight() > 0 {
            causes |= self.causes.transmit.into_bits();
        }
        self.bar.set(IMS, Interrupts::from(causes));
        Ok(self.is_ready())
    }

    fn disarm(&mut self) -> Result<()> {
        // A device that is stopped is asked nothing, and holds no line up.
        if self.state.is_running() {
            let all = self.causes.all();
            self.bar.set(IMC, all);
            // Not by reading ICR, which would clear the other pair's causes, too.
            self.bar.set(ICR_CLEAR, all);
            // It has arrived before the next look at the ring: else it may clear the cause of a frame
            // that came after the look, and nobody is woken. And a line is down only then, to be
            // unmasked.
            flush(&self.bar);
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

    fn rx_pool(&self) -> &Pool {
        either!(&self.rx, ring => ring.pool())
    }
}

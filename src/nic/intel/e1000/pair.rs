//! The card's only queue pair, and its interrupt (§13.4.17 to §13.4.22).

use std::os::fd::{AsFd, BorrowedFd};

use super::regs::{ICR, IMC, IMS, Interrupts};
use super::{Rx, Tx, follow_link};
use crate::dma::Pool;
use crate::error::Result;
use crate::irq::Irq;
use crate::mmio::Mmio;
use crate::nic::intel::quirks::Quirks;
use crate::nic::longest::Longest;
use crate::nic::pair::no_interrupt;
use crate::nic::{Frame, QueuePair, Received, Waiting};
use crate::ring_state::RingState;

pub(super) struct Pair<M> {
    pub tx: Tx<M>,
    pub rx: Rx<M>,
    pub irq: Irq,
    pub waiting: Waiting,
    pub longest: Longest,
    pub bar: M,
    /// That of all rings of the card.
    pub state: RingState,
    pub quirks: &'static Quirks,
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
        let taken = self.rx.take(into, most);
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

    /// A cause that came before it was asked for is still in ICR, so the line rises as soon as IMS has
    /// it: no wake-up is lost.
    fn arm(&mut self) -> Result<bool> {
        if self.waiting == Waiting::Poll {
            return Err(no_interrupt("this card"));
        }
        self.state.check()?;
        // Buffers that came home since the last look: without any nothing can come in.
        self.rx.lend();
        let causes = Interrupts::new()
            .with_rxt0(true)
            .with_rxdmt0(true)
            .with_rxo(true)
            .with_lsc(true)
            .with_txdw(self.tx.in_flight() > 0);
        self.bar.set(IMS, causes);
        Ok(self.is_ready())
    }

    fn disarm(&mut self) -> Result<()> {
        // A device that is stopped is asked nothing, and holds no line up.
        if self.state.is_running() {
            self.bar.set(IMC, Interrupts::from(u32::MAX));
            // Reading ICR clears the causes, which lowers the line; only then may it be unmasked.
            let causes = self.bar.get(ICR);
            if causes.lsc() {
                follow_link(&self.bar, self.quirks);
            }
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
        self.rx.pool()
    }
}

//! The two rings, and the interrupt: a card of one pair is that pair itself.

use pinwire::nic::prelude::*;

use crate::Rtl8139;
use crate::desc::{Desc, EOR, ERRORS, FS, LENGTH, LS};
use crate::regs::*;

/// Descriptors of a ring: as many as C+ mode has.
pub const RING: usize = 64;
/// Bytes of a receive buffer, in steps of 8: no frame that is wanted needs two.
pub const BUFFER: usize = 1536;
/// Buffers of the longest frame that the chip takes in.
pub const MOST: usize = 6;
/// Bytes of the frame check sequence, which the chip puts behind a frame.
const FCS: usize = 4;

impl<B: Backend> Rtl8139<B> {
    /// Posts every buffer that the pool has, up to a full ring. OWN hands it over: there is no doorbell.
    pub fn refill(&mut self) {
        self.rx.refill(&self.pool, |desc, buf, wraps| {
            desc.write([(EOR, wraps)], BUFFER, buf.iova());
        });
    }
}

impl<B: Backend> AsFd for Rtl8139<B> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.irq.as_fd()
    }
}

impl<B: Backend> QueuePair for Rtl8139<B> {
    fn submit(&mut self, frames: &mut Vec<Frame>) -> Result<usize> {
        self.state.check()?;
        self.tx.submit(frames, &self.limits, |desc, segment, at| {
            let flags = [(FS, at.is_first), (LS, at.is_last), (EOR, at.wraps)];
            desc.write(flags, segment.len(), segment.iova());
        })
    }

    fn doorbell(&mut self) -> Result<()> {
        self.state.check()?;
        if self.tx.in_flight() > 0 {
            dma_wmb(); // OWN before the doorbell: else the chip looks, finds nothing, and sleeps
            self.bar.set(TPPOLL, TPPOLL_NPQ);
        }
        Ok(())
    }

    fn completed(&mut self, done: &mut Vec<Frame>) -> Result<usize> {
        self.state.check()?;
        let completed = self.tx.completed(done);
        self.stats.count_sent(completed);
        Ok(completed.len())
    }

    fn in_flight(&self) -> usize {
        self.tx.in_flight()
    }

    fn recv(&mut self, into: &mut Vec<Received>, most: usize) -> Result<usize> {
        self.state.check()?;
        let before = into.len();
        while into.len() - before < most
            && let Some((status, buf)) = self.rx.poll(Desc::status)
        {
            let filled = Filled {
                is_first: status & FS != 0,
                total: (status & LS != 0)
                    .then_some(((status & LENGTH) as usize).saturating_sub(FCS)),
                is_bad: status & ERRORS != 0,
                info: RxInfo::NONE,
            };
            let whole = self.frames.take_in(buf, filled);
            into.extend(whole.map_err(|what| self.state.mark_broken(what))?);
        }
        self.stats.count_received(&into[before..]);
        self.refill();
        Ok(into.len() - before)
    }

    fn dropped_longer(&self) -> u64 {
        self.frames.dropped_longer()
    }

    fn rx_pool(&self) -> &Pool {
        &self.pool
    }
}

impl<B: Backend> Wait for Rtl8139<B> {
    fn check_running(&self) -> Result<()> {
        self.state.check()
    }

    fn is_ready(&self) -> bool {
        self.rx.is_done() || self.tx.is_done() || !self.state.is_well()
    }

    /// What came before it was asked for is still in ISR, so that the line rises as soon as IMR has it.
    fn arm(&mut self) -> Result<bool> {
        if self.config.waiting == Waiting::Poll {
            return Err(no_interrupt(self.backend.name()));
        }
        self.state.check()?;
        // Buffers that were returned since the last look: with none posted nothing can come in.
        self.refill();
        let transmit = if self.tx.in_flight() > 0 { TRANSMIT } else { 0 };
        self.bar.set(IMR, RECEIVE | transmit);
        Ok(Wait::is_ready(self))
    }

    fn disarm(&mut self) -> Result<()> {
        if self.state.is_running() {
            self.bar.set(IMR, 0);
            self.bar.set(ISR, self.bar.get(ISR));
            // The read is answered after both writes: else the line is still up, and fires once it is unmasked.
            self.bar.get(ISR);
        }
        self.irq.clear();
        self.irq.unmask()
    }

    fn irq(&self) -> Option<&Irq> {
        (self.config.waiting != Waiting::Poll).then_some(&self.irq)
    }

    fn waiting(&self) -> Waiting {
        self.config.waiting
    }
}

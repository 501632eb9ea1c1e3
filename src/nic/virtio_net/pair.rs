//! A queue pair: receiveq N and transmitq N (§5.1.2), with one MSI-X vector for both.
//!
//! The pair is made for one kind of ring and one kind of doorbell, so nothing per frame is a dynamic
//! call; the card sees it as a [`NetPair`], whichever they are.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::rx::Rx;
use super::tx::Tx;
use crate::dma::{DmaBuf, Pool};
use crate::error::Result;
use crate::inspect::RingView;
use crate::irq::Irq;
use crate::nic::longest::Longest;
use crate::nic::{Frame, Mac, QueuePair, Received, Stats, Waiting};
use crate::ring_state::RingState;
use crate::virtio::{Areas, Doorbell, Isr, Ring};
use crate::wait::{Wait, no_interrupt};

/// Operations of the card on a pair, beside those of [`QueuePair`].
pub(super) trait NetPair<D>: QueuePair {
    /// The two queues, receive first: size and where they are.
    fn areas(&self) -> [(u16, Areas); 2];

    /// The device has the queues, with these doorbells.
    fn set_doorbells(&mut self, doorbells: [D; 2]);

    /// Lends the device buffers to receive into.
    fn refill(&mut self);

    /// Tells the network where the card of that address is; `false` where there is no room now.
    fn announce(&mut self, mac: Mac) -> bool;

    /// The device is stopped: nothing goes in or comes out until [`NetPair::reset`].
    fn stop(&mut self);

    /// The device was reset: gives back what was in flight.
    fn reset(&mut self) -> Vec<Frame>;

    /// The device did not stop: see [`Ring::quarantine`](crate::virtio::Ring::quarantine).
    fn quarantine(&mut self);

    /// Adds what it counted to `stats`.
    fn count(&self, stats: &mut Stats);

    /// The rings of pair number `pair`, to be shown.
    fn views(&self, pair: usize) -> [RingView; 2];

    /// The device's own speed.
    fn limit(
        &mut self,
        frame: &mut Frame,
        batch: usize,
        frames: u64,
        stuck: Duration,
    ) -> Result<()>;

    /// Returns it as a [`QueuePair`]. (Upcasts of a generic trait object need a hand.)
    fn queue_pair(&self) -> &dyn QueuePair;

    /// Returns the same, to work with.
    fn queue_pair_mut(&mut self) -> &mut dyn QueuePair;
}

pub(super) struct Pair<RX, TX, D> {
    pub rx: Rx<RX, D>,
    pub tx: Tx<TX, D>,
    pub irq: Irq,
    pub waiting: Waiting,
    pub longest: Longest,
    /// The device's ISR status, where there is no MSI-X: asks the device why it interrupts, which lowers the line.
    pub isr: Option<Isr>,
    /// The state of both rings.
    pub state: RingState,
}

impl<RX, TX, D> AsFd for Pair<RX, TX, D> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.irq.as_fd()
    }
}

impl<RX: Ring<DmaBuf>, TX: Ring<Frame>, D: Doorbell> QueuePair for Pair<RX, TX, D> {
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
        let came = self.rx.poll(into, most, &mut self.longest)?;
        self.rx.refill();
        Ok(came)
    }

    fn dropped_longer(&self) -> u64 {
        self.longest.dropped()
    }

    fn rx_pool(&self) -> &Pool {
        self.rx.pool()
    }
}

impl<RX: Ring<DmaBuf>, TX: Ring<Frame>, D: Doorbell> Wait for Pair<RX, TX, D> {
    fn check_running(&self) -> Result<()> {
        self.state.check()
    }

    fn is_ready(&self) -> bool {
        self.rx.is_ready() || self.tx.is_ready()
    }

    /// A change of the configuration that came before is in the eventfd still: no wake-up is lost.
    fn arm(&mut self) -> Result<bool> {
        if self.waiting == Waiting::Poll {
            return Err(no_interrupt("this card"));
        }
        self.state.check()?;
        // Buffers that were returned since the last look: without any nothing can come in.
        self.rx.refill();
        let came = self.rx.arm();
        Ok(self.tx.arm() || came)
    }

    fn disarm(&mut self) -> Result<()> {
        self.rx.disarm();
        self.tx.disarm();
        // A device that is stopped is asked nothing, and holds no line up.
        if let Some(isr) = self.isr.as_ref().filter(|_| self.state.is_running()) {
            let _ = isr();
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

impl<RX: Ring<DmaBuf>, TX: Ring<Frame>, D: Doorbell> NetPair<D> for Pair<RX, TX, D> {
    fn areas(&self) -> [(u16, Areas); 2] {
        let (rx, tx) = (self.rx.ring(), self.tx.ring());
        [
            (rx.size() as u16, rx.areas()),
            (tx.size() as u16, tx.areas()),
        ]
    }

    fn set_doorbells(&mut self, [rx, tx]: [D; 2]) {
        self.rx.set_doorbell(rx);
        self.tx.set_doorbell(tx);
    }

    fn refill(&mut self) {
        self.rx.refill();
    }

    fn announce(&mut self, mac: Mac) -> bool {
        self.tx.announce(mac)
    }

    fn stop(&mut self) {
        self.rx.stop();
        self.tx.stop();
    }

    fn reset(&mut self) -> Vec<Frame> {
        self.rx.reset();
        self.tx.reset()
    }

    fn quarantine(&mut self) {
        self.rx.quarantine();
        self.tx.quarantine();
    }

    fn count(&self, stats: &mut Stats) {
        // A frame on the wire has 4 bytes of check sequence more, as other cards count it.
        const FCS: u64 = 4;
        let (frames, bytes, errors) = self.rx.counted();
        let add = |to: &mut u64, more: u64| *to = to.wrapping_add(more);
        let with_fcs = |bytes: u64, frames: u64| bytes.wrapping_add(FCS.wrapping_mul(frames));
        add(&mut stats.rx_frames, frames);
        add(&mut stats.rx_bytes, with_fcs(bytes, frames));
        add(&mut stats.rx_errors, errors);
        let (frames, bytes) = self.tx.counted();
        add(&mut stats.tx_frames, frames);
        add(&mut stats.tx_bytes, with_fcs(bytes, frames));
    }

    fn views(&self, pair: usize) -> [RingView; 2] {
        [self.tx.view(pair), self.rx.view(pair)]
    }

    fn limit(
        &mut self,
        frame: &mut Frame,
        batch: usize,
        frames: u64,
        stuck: Duration,
    ) -> Result<()> {
        self.tx.limit(frame, batch, frames, stuck)
    }

    fn queue_pair(&self) -> &dyn QueuePair {
        self
    }

    fn queue_pair_mut(&mut self) -> &mut dyn QueuePair {
        self
    }
}

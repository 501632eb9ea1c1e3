//! The receive ring with extended descriptors, §7.1.4: one buffer a descriptor.
//!
//! The driver lends the device empty buffers between head (RDH) and tail (RDT); the device fills
//! them in order and sets DD. A frame longer than a buffer lies in several, the last of which has
//! EOP. What the device says of a buffer is checked before it is believed.

use std::sync::Arc;

use super::RxSetup;
use super::desc::{ExtendedRx, describe_extended};
use crate::barrier::dma_wmb;
use crate::dma::{DmaArray, DmaBuf, DmaSpace, Pool};
use crate::error::Result;
use crate::inspect::{Marks, Owner, RingView, SlotView};
use crate::mmio::Mmio;
use crate::nic::Received;
use crate::nic::intel::join::{Join, LONGEST};
use crate::ring_state::RingState;

/// Bytes of a receive buffer, as RCTL.BSIZE tells the device.
pub const BUFFER: usize = 2048;

/// The receive ring; it owns every buffer that the device may write.
pub(super) struct Rx<M> {
    bar: M,
    state: RingState,
    setup: RxSetup,
    descs: DmaArray<ExtendedRx>,
    lent: Box<[Option<DmaBuf>]>,
    mask: usize,
    /// The descriptor that the device fills next.
    head: usize,
    /// The next to lend.
    tail: usize,
    pool: Pool,
    join: Join,
}

impl<M: Mmio> Rx<M> {
    /// A ring with fresh buffers, and the device told of it. The receiver must be off; [`Rx::lend`] is
    /// for when it is on.
    pub(super) fn new(
        bar: &M,
        state: &RingState,
        dma: &Arc<dyn DmaSpace>,
        setup: RxSetup,
    ) -> Result<Self> {
        let len = setup.len;
        let ring = Self {
            bar: bar.clone(),
            state: state.clone(),
            setup,
            descs: DmaArray::alloc(dma, len)?,
            lent: (0..len).map(|_| None).collect(),
            // `len` is a power of two.
            mask: len.wrapping_sub(1),
            head: 0,
            tail: 0,
            // As many again as the ring holds, so that the caller may keep some.
            pool: Pool::new(dma, len.saturating_mul(2), BUFFER)?,
            join: Join::new(state, LONGEST / BUFFER + 1),
        };
        ring.tell_device();
        Ok(ring)
    }

    fn tell_device(&self) {
        let bytes = size_of_val(&*self.descs);
        self.setup.tell(&self.bar, self.descs.iova(0), bytes);
    }

    /// The device was reset: begins anew, with no buffer lent.
    pub(super) fn restart(&mut self) {
        self.lent.fill_with(|| None);
        self.join.restart();
        (self.head, self.tail) = (0, 0);
        self.tell_device();
    }

    /// Lends the device every buffer that the pool has, up to a full ring that runs: one register write.
    #[inline]
    pub(super) fn lend(&mut self) {
        if !self.state.is_running() {
            return;
        }
        let before = self.tail;
        loop {
            let next = self.after(self.tail);
            if next == self.head {
                break;
            }
            let Some(buf) = self.pool.take() else { break };
            self.descs[self.tail].post(buf.iova().0);
            self.lent[self.tail] = Some(buf);
            self.tail = next;
        }
        if self.tail != before {
            // Descriptors before the tail: else the device fills buffers it was not lent.
            dma_wmb();
            self.bar.set(self.setup.rdt, self.tail as u32);
        }
    }

    /// The descriptor after `index`: round the ring, whose size is a power of two.
    #[inline]
    fn after(&self, index: usize) -> usize {
        index.wrapping_add(1) & self.mask
    }

    /// Has the device filled a buffer?
    pub(super) fn is_ready(&self) -> bool {
        self.head != self.tail && self.descs[self.head].take().is_some()
    }

    /// Appends to `into` the frames that are whole, at most `most`; gives how many. Lends nothing.
    ///
    /// # Errors
    /// [`DeviceLied`](crate::Error::DeviceLied) for a length beyond the buffer or a frame that does not
    /// end: the ring is broken then, and those that share its state. [`Stopped`](crate::Error::Stopped).
    #[inline]
    pub(super) fn take(&mut self, into: &mut Vec<Received>, most: usize) -> Result<usize> {
        self.state.check()?;
        let mut count = 0;
        while count < most && self.head != self.tail {
            let index = self.head;
            let Some(status) = self.descs[index].take() else {
                break;
            };
            let Some(buf) = self.lent[index].take() else {
                break;
            };
            self.head = self.after(index);
            self.join.add(buf, status.length(), index)?;
            if let Some(received) = self.setup.end(&mut self.join, status) {
                into.push(received);
                // At most `most`.
                count = count.wrapping_add(1);
            }
        }
        Ok(count)
    }

    /// The pool that its buffers come from.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The device did not stop: what it may go on reaching is undone by [`DmaSpace::quarantine`].
    pub(super) fn quarantine(&mut self) {
        self.pool.quarantine();
        self.descs.quarantine();
    }

    /// The ring, to be shown.
    pub(super) fn view(&self) -> RingView {
        let slots = (0..self.descs.len()).map(|index| {
            let words = self.descs[index].words();
            let lent = self.lent[index].as_ref();
            SlotView {
                iova: self.descs.iova(index),
                words,
                text: describe_extended(words),
                owner: match (lent, self.descs[index].take()) {
                    (None, _) => Owner::Driver,
                    (Some(_), None) => Owner::Device,
                    (Some(_), Some(_)) => Owner::Done,
                },
                buffer: lent.map(|buf| (buf.iova(), buf.address(), buf.capacity())),
            }
        });
        RingView {
            name: "receive",
            pair: self.setup.pair,
            address: (&raw const self.descs[0]).addr(),
            marks: Marks::Registers {
                head: self.bar.get(self.setup.rdh),
                tail: self.bar.get(self.setup.rdt),
            },
            slots: slots.collect(),
        }
    }
}

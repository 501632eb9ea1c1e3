//! The receive ring, §3.2.
//!
//! The driver lends the device empty buffers between head (RDH) and tail (RDT); the device fills
//! them in order and sets DD. A frame longer than a buffer lies in several, the last of which has
//! EOP. What the device says of a buffer is checked before it is believed.

use std::sync::Arc;

use super::desc::{RxDesc, RxWord, describe_rx};
use super::regs::{RDBAH, RDBAL, RDH, RDLEN, RDT};
use crate::barrier::dma_wmb;
use crate::dma::{DmaArray, DmaBuf, DmaSpace, Pool};
use crate::error::Result;
use crate::inspect::{Marks, Owner, RingView, SlotView};
use crate::mmio::Mmio;
use crate::nic::Received;
use crate::nic::intel::join::{Join, LONGEST, checksum};
use crate::ring_state::RingState;

/// Bytes of a receive buffer, as RCTL.BSIZE tells the device.
pub const BUFFER: usize = 2048;

/// A card's receive ring, for programs that want no batch between themselves and it: borrowed, as
/// [`TxRing`](super::TxRing) is.
pub struct RxRing<'a, M>(&'a mut Rx<M>);

impl<'a, M: Mmio> RxRing<'a, M> {
    pub(super) fn new(ring: &'a mut Rx<M>) -> Self {
        Self(ring)
    }

    /// Lends the device every buffer that the pool has, up to a full ring: one register write.
    ///
    /// # Errors
    /// Where the ring is stopped, or the device broke the protocol.
    #[inline]
    pub fn lend(&mut self) -> Result<()> {
        self.0.state.check()?;
        self.0.lend();
        Ok(())
    }

    /// Appends to `into` the frames that are whole, at most `most`; gives how many. Lends nothing.
    ///
    /// # Errors
    /// As [`RxRing::lend`].
    #[inline]
    pub fn take(&mut self, into: &mut Vec<Received>, most: usize) -> Result<usize> {
        self.0.take(into, most)
    }

    /// The pool that its buffers come from.
    pub fn pool(&self) -> &Pool {
        self.0.pool()
    }
}

/// The receive ring; it owns every buffer that the device may write.
pub(super) struct Rx<M> {
    bar: M,
    state: RingState,
    descs: DmaArray<RxDesc>,
    lent: Box<[Option<DmaBuf>]>,
    mask: usize,
    /// The descriptor that the device fills next.
    head: usize,
    /// The next to lend.
    tail: usize,
    pool: Pool,
    /// Buffers that the device cannot write whole: never lent.
    _aside: Vec<DmaBuf>,
    join: Join,
    vlan: bool,
}

/// A pool with `count` buffers that do not go across a multiple of `boundary`, and those of it that do, or
/// are too many.
fn pool_within(
    dma: &Arc<dyn DmaSpace>,
    count: usize,
    boundary: usize,
) -> Result<(Pool, Vec<DmaBuf>)> {
    // A buffer goes across each multiple at most, and the pool has no more of those than this.
    // Each multiple of the boundary lies in one buffer at most.
    let memory = count.saturating_mul(2 * BUFFER);
    let across = memory.checked_div(boundary).unwrap_or(0).saturating_add(2);
    let pool = Pool::new(dma, count.saturating_add(across), BUFFER)?;
    let all = std::iter::from_fn(|| pool.take());
    let goes_across = |buf: &DmaBuf| {
        let past = buf.iova().0.checked_rem(boundary as u64).unwrap_or(0);
        past.saturating_add(BUFFER as u64) > boundary as u64
    };
    let (mut aside, mut within): (Vec<_>, Vec<_>) = all.partition(goes_across);
    assert!(within.len() >= count, "the pool is long enough");
    aside.extend(within.drain(count..));
    Ok((pool, aside))
}

impl<M: Mmio> Rx<M> {
    /// A ring of `len` descriptors (a power of two, 8 to 4096) with fresh buffers, and the device
    /// told of it: §14.4. The receiver must be off; [`Rx::lend`] is for when it is on.
    pub(super) fn new(
        bar: &M,
        state: &RingState,
        dma: &Arc<dyn DmaSpace>,
        len: usize,
        vlan: bool,
        writes_within: Option<usize>,
    ) -> Result<Self> {
        // `Quirks::writes_within` (82545EM, erratum 23): the device writes descriptors back ...
        let descs = DmaArray::alloc_within(dma, len, writes_within)?;
        // As many again as the ring holds, so that the caller may keep some.
        let (pool, aside) = match writes_within {
            None => (Pool::new(dma, len.saturating_mul(2), BUFFER)?, Vec::new()),
            // ... and fills buffers.
            Some(boundary) => pool_within(dma, len.saturating_mul(2), boundary)?,
        };
        let ring = Self {
            bar: bar.clone(),
            state: state.clone(),
            descs,
            lent: (0..len).map(|_| None).collect(),
            // `len` is a power of two.
            mask: len.wrapping_sub(1),
            head: 0,
            tail: 0,
            pool,
            _aside: aside,
            join: Join::new(state, LONGEST / BUFFER + 1),
            vlan,
        };
        ring.tell_device();
        Ok(ring)
    }

    fn tell_device(&self) {
        let base = self.descs.iova(0).0;
        self.bar.set(RDBAL, base as u32);
        self.bar.set(RDBAH, (base >> 32) as u32);
        self.bar.set(RDLEN, size_of_val(&*self.descs) as u32);
        self.bar.set(RDH, 0);
        self.bar.set(RDT, 0);
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
            self.bar.set(RDT, self.tail as u32);
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
            let Some(word) = self.descs[index].take() else {
                break;
            };
            let Some(buf) = self.lent[index].take() else {
                break;
            };
            self.head = self.after(index);
            self.join.add(buf, word.length(), index)?;
            if let Some(received) = self.end(word) {
                into.push(received);
                // At most `most`.
                count = count.wrapping_add(1);
            }
        }
        Ok(count)
    }

    /// What `word` makes of the buffers that came before: a frame, where it is whole and good.
    #[inline]
    fn end(&mut self, word: RxWord) -> Option<Received> {
        if !word.eop() {
            return None;
        }
        let bad = word.ce() || word.se() || word.seq() || word.cxe() || word.rxe();
        let looked = !word.ixsm();
        Some(Received {
            frame: self.join.end(!bad)?,
            vlan: (self.vlan && word.vp()).then_some(word.special()),
            ip_checksum: checksum(looked && word.ipcs(), word.ipe()),
            l4_checksum: checksum(looked && word.tcpcs(), word.tcpe()),
        })
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
                text: describe_rx(words),
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
            pair: 0,
            address: (&raw const self.descs[0]).addr(),
            marks: Marks::Registers {
                head: self.bar.get(RDH),
                tail: self.bar.get(RDT),
            },
            slots: slots.collect(),
        }
    }
}

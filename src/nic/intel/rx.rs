//! The receive ring, the same on all of Intel's cards here, whatever its descriptors look like: §3.2 of the
//! 8254x manual, §7.1 of the 82574's datasheet.
//!
//! The driver posts empty buffers between head (RDH) and tail (RDT); the device fills them in order and sets
//! DD. A frame longer than a buffer lies in several, the last of which has EOP. What the device says of a
//! buffer is checked before it is believed. A descriptor's form and the buffers it takes are a type
//! ([`RxDescriptor`], [`BufferSource`]), so that the loops here are made for each of them and ask nothing
//! per packet.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use super::assemble::{Completion, FrameAssembler, LONGEST, Violation};
use crate::barrier::dma_wmb;
use crate::dma::{DmaArray, DmaBuf, DmaSpace, Pool, Shared};
use crate::error::Result;
use crate::inspect::{Owner, RingIndices, RingView, SlotView};
use crate::mmio::{Mmio, ReadWrite, Reg};
use crate::nic::{Frame, NicConfig, Received, RxInfo};
use crate::ring_state::RingState;

/// Bytes of a receive buffer, as RCTL.BSIZE tells the device.
pub const BUFFER: usize = 2048;
/// Bytes that RDH and RDT count.
const UNIT: usize = 16;

/// A form of receive descriptor.
pub trait RxDescriptor: Shared + Sized {
    /// Source of the buffers that it takes.
    type Source: BufferSource;

    /// Gives the device `buffers`, and clears DD, so that it is the device's word and not an old one. The
    /// device must not own the descriptor, and a barrier must come before the tail.
    fn write(&self, buffers: &<Self::Source as BufferSource>::Buffers);

    /// Reads the device's report on the buffers, once: all that counts is in the copy, DD too.
    fn completion(&self) -> <Self::Source as BufferSource>::Completion;

    /// Its words, and its fields in the datasheet's names, to be shown.
    fn show(&self) -> (Vec<u64>, String);
}

/// Source of a descriptor's buffers, and the way from filled buffers to frames.
pub trait BufferSource: Send {
    /// Those of one descriptor.
    type Buffers: Send;
    /// The device's report on them.
    type Completion: Copy;

    /// Buffers for one descriptor after the other, until there are not that many.
    fn alloc(&self) -> impl Iterator<Item = Self::Buffers>;

    /// Returns whether the device has filled them.
    fn is_done(completion: Self::Completion) -> bool;

    /// Returns what the device said of a frame that begins and ends in `buffers`, where they have one that is
    /// good, and sets its length. `None` where anything is otherwise: then [`BufferSource::add`] knows.
    fn accept(
        frames: &FrameAssembler,
        buffers: &mut Option<Self::Buffers>,
        completion: Self::Completion,
    ) -> Option<RxInfo>;

    /// The frame in accepted buffers.
    fn whole(buffers: Self::Buffers) -> Frame;

    /// Puts `buffers`, which the device has filled, behind what came before; appends the frame that is whole by
    /// that to `into`.
    ///
    /// # Errors
    /// As [`FrameAssembler::add`].
    fn add(
        frames: &mut FrameAssembler,
        buffers: Self::Buffers,
        completion: Self::Completion,
        into: &mut Vec<Received>,
    ) -> Result<(), Violation>;

    /// The first of them, to be shown.
    fn first(buffers: &Self::Buffers) -> &DmaBuf;

    /// The pool that frames, or their payloads, come from.
    fn pool(&self) -> &Pool;

    /// The device did not stop: what it may go on reaching is undone by [`DmaSpace::quarantine`].
    fn quarantine(&self);
}

/// One buffer a descriptor.
pub struct OneBuffer<C> {
    pool: Pool,
    /// Buffers that the device cannot write whole: never posted.
    _aside: Vec<DmaBuf>,
    of: PhantomData<C>,
}

impl<C: Completion> OneBuffer<C> {
    /// For a ring as `config` says: as many buffers again as it holds, so that the caller may keep some. The
    /// device writes none of them across a multiple of `writes_within`
    /// ([`Quirks`](super::quirks::Quirks)). And what makes frames of them.
    pub(in crate::nic) fn new(
        dma: &Arc<dyn DmaSpace>,
        config: &NicConfig,
        writes_within: Option<usize>,
    ) -> Result<(Self, FrameAssembler)> {
        let count = config.rx_ring.saturating_mul(2);
        let (pool, _aside) = match writes_within {
            None => (Pool::new(dma, count, BUFFER)?, Vec::new()),
            Some(boundary) => pool_within(dma, count, boundary)?,
        };
        let most = LONGEST / BUFFER + 1;
        let frames = FrameAssembler::new(config, C::FORM, (most, BUFFER));
        let of = PhantomData;
        Ok((Self { pool, _aside, of }, frames))
    }
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
    let all = std::iter::from_fn(|| pool.alloc());
    let goes_across = |buf: &DmaBuf| {
        let past = buf.iova().0.checked_rem(boundary as u64).unwrap_or(0);
        past.saturating_add(BUFFER as u64) > boundary as u64
    };
    let (mut aside, mut within): (Vec<_>, Vec<_>) = all.partition(goes_across);
    assert!(within.len() >= count, "the pool is long enough");
    aside.extend(within.drain(count..));
    Ok((pool, aside))
}

impl<C: Completion + Send> BufferSource for OneBuffer<C> {
    type Buffers = DmaBuf;
    type Completion = C;

    #[inline]
    fn alloc(&self) -> impl Iterator<Item = DmaBuf> {
        self.pool.alloc_each()
    }

    #[inline]
    fn is_done(completion: C) -> bool {
        completion.is_done()
    }

    #[inline]
    fn accept(
        frames: &FrameAssembler,
        buffer: &mut Option<DmaBuf>,
        completion: C,
    ) -> Option<RxInfo> {
        frames.accept(buffer.as_mut()?, completion)
    }

    #[inline]
    fn whole(buffer: DmaBuf) -> Frame {
        buffer.into()
    }

    fn add(
        frames: &mut FrameAssembler,
        buffer: DmaBuf,
        completion: C,
        into: &mut Vec<Received>,
    ) -> Result<(), Violation> {
        frames.add(buffer, completion.length())?;
        frames.end(completion, into);
        Ok(())
    }

    fn first(buffer: &DmaBuf) -> &DmaBuf {
        buffer
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn quarantine(&self) {
        self.pool.quarantine();
    }
}

/// Registers of one receive queue.
#[derive(Debug, Clone, Copy)]
pub(in crate::nic) struct RxRegs {
    pub rdbal: Reg<u32, ReadWrite>,
    pub rdbah: Reg<u32, ReadWrite>,
    pub rdlen: Reg<u32, ReadWrite>,
    pub rdh: Reg<u32, ReadWrite>,
    pub rdt: Reg<u32, ReadWrite>,
}

/// Differences between cards and between queues.
#[derive(Debug, Clone, Copy)]
pub(in crate::nic) struct RxSetup {
    pub regs: RxRegs,
    /// Queue pair that it is a part of, from 0.
    pub pair: usize,
    /// Descriptors: a power of two, 8 to 4096.
    pub len: usize,
    /// Descriptors are written back and do not lie across a multiple of this
    /// ([`Quirks`](super::quirks::Quirks)).
    pub writes_within: Option<usize>,
}

/// A card's receive ring, for programs that want no batch between themselves and it: borrowed, as
/// [`TxRing`](super::tx::TxRing) is.
pub struct RxRing<'a>(&'a mut dyn RxQueue);

impl<'a> RxRing<'a> {
    pub(in crate::nic) fn new(ring: &'a mut dyn RxQueue) -> Self {
        Self(ring)
    }

    /// Posts every buffer that the pool has, up to a full ring: one register write.
    ///
    /// # Errors
    /// If the ring is stopped, or the device broke the protocol.
    pub fn refill(&mut self) -> Result<()> {
        self.0.state().check()?;
        self.0.refill();
        Ok(())
    }

    /// Appends to `into` the frames that are whole, at most `most`; gives how many. Posts nothing.
    ///
    /// # Errors
    /// As [`RxRing::refill`].
    pub fn poll(&mut self, into: &mut Vec<Received>, most: usize) -> Result<usize> {
        self.0.poll(into, most)
    }

    /// The pool that its buffers come from.
    pub fn pool(&self) -> &Pool {
        self.0.pool()
    }
}

/// A descriptor's shadow, out of the device's reach.
struct Slot<T> {
    /// Those that are posted with it.
    buffers: Option<T>,
    /// The card's findings about the frame in them, once it was accepted.
    info: RxInfo,
}

impl<T> Slot<T> {
    const EMPTY: Self = Self {
        buffers: None,
        info: RxInfo::NONE,
    };
}

/// Buffers of a descriptor.
type Buffers<D> = <<D as RxDescriptor>::Source as BufferSource>::Buffers;

/// The receive ring; it owns every buffer that the device may write.
pub struct Rx<M, D: RxDescriptor> {
    bar: M,
    state: RingState,
    descs: DmaArray<D>,
    /// Those of the descriptors from head to tail.
    posted: Box<[Slot<Buffers<D>>]>,
    mask: usize,
    /// The descriptor that the device fills next.
    head: usize,
    /// The next to post.
    tail: usize,
    source: D::Source,
    frames: FrameAssembler,
    setup: RxSetup,
}

impl<M: Mmio, D: RxDescriptor> Rx<M, D> {
    /// A ring with buffers of `source`, and the device told of it. The receiver must be off;
    /// [`RxQueue::refill`] is for when it is on.
    pub(in crate::nic) fn new(
        bar: &M,
        state: &RingState,
        dma: &Arc<dyn DmaSpace>,
        setup: RxSetup,
        (source, frames): (D::Source, FrameAssembler),
    ) -> Result<Self> {
        let ring = Self {
            bar: bar.clone(),
            state: state.clone(),
            descs: DmaArray::alloc_within(dma, setup.len, setup.writes_within)?,
            posted: (0..setup.len).map(|_| Slot::EMPTY).collect(),
            // It is a power of two.
            mask: setup.len.wrapping_sub(1),
            head: 0,
            tail: 0,
            source,
            frames,
            setup,
        };
        ring.tell_device();
        Ok(ring)
    }

    fn tell_device(&self) {
        let (base, regs) = (self.descs.iova(0).0, &self.setup.regs);
        self.bar.set(regs.rdbal, base as u32);
        self.bar.set(regs.rdbah, (base >> 32) as u32);
        self.bar.set(regs.rdlen, size_of_val(&*self.descs) as u32);
        self.bar.set(regs.rdh, 0);
        self.bar.set(regs.rdt, 0);
    }

    /// Posts buffers with these descriptors, as long as there are any; gives how many got some.
    #[inline]
    fn post(&mut self, range: Range<usize>) -> usize {
        let all = range.len();
        let mut slots = self.descs[range.clone()]
            .iter()
            .zip(&mut self.posted[range]);
        let mut source = self.source.alloc();
        while slots.len() > 0
            && let Some(buffers) = source.next()
            && let Some((desc, slot)) = slots.next()
        {
            desc.write(&buffers);
            let stale = slot.buffers.replace(buffers);
            debug_assert!(stale.is_none(), "a slot that is not posted is empty");
            // There is nothing to drop, so nothing is asked.
            std::mem::forget(stale);
        }
        all.wrapping_sub(slots.len())
    }

    /// Looks at `most` descriptors from the head on, which lie in one piece, as far as the device has filled
    /// each with a whole frame that is good; gives how many those are.
    #[inline]
    fn accept(&mut self, most: usize) -> usize {
        let range = self.head..self.head.wrapping_add(most);
        let descs = self.descs[range.clone()].iter();
        let mut count = 0usize;
        for (desc, slot) in descs.zip(&mut self.posted[range]) {
            let completion = desc.completion();
            let Some(info) = D::Source::accept(&self.frames, &mut slot.buffers, completion) else {
                break;
            };
            slot.info = info;
            count = count.wrapping_add(1);
        }
        count
    }

    /// Takes what the device has filled with one descriptor, the one at the head, whatever it is. `false` where
    /// it has not.
    #[cold]
    #[inline(never)]
    fn take_any(&mut self, into: &mut Vec<Received>) -> Result<bool> {
        let index = self.head;
        let (slot, completion) = (&mut self.posted[index], self.descs[index].completion());
        let taken = match slot.buffers.take_if(|_| D::Source::is_done(completion)) {
            None => return Ok(false),
            Some(buffers) => D::Source::add(&mut self.frames, buffers, completion, into),
        };
        self.head = index.wrapping_add(1) & self.mask;
        match taken {
            Ok(()) => Ok(true),
            Err(what) => {
                let what = format!("{what} (descriptor {index})");
                Err(self.state.mark_broken(what))
            }
        }
    }
}

/// A receive ring as its queue pair uses it, whatever the descriptors: one call a batch.
pub trait RxQueue: Send {
    /// That of all rings which stop together with it.
    fn state(&self) -> &RingState;

    /// Posts every buffer that there is, up to a full ring that runs: one register write.
    fn refill(&mut self);

    /// Appends to `into` the frames that are whole, at most `most`; gives how many. Posts nothing.
    ///
    /// # Errors
    /// [`ProtocolViolation`](crate::Error::ProtocolViolation) for a length beyond the buffer or a frame that does not
    /// end: the ring is broken then, and those that share its state. [`Stopped`](crate::Error::Stopped).
    fn poll(&mut self, into: &mut Vec<Received>, most: usize) -> Result<usize>;

    /// Returns whether the device has filled a buffer.
    fn is_ready(&self) -> bool;

    /// Frames dropped since they were longer than asked for.
    fn dropped_longer(&self) -> u64;

    /// The pool that frames, or their payloads, come from.
    fn pool(&self) -> &Pool;

    /// The device was reset: begins anew, with no buffer posted.
    fn restart(&mut self);

    /// The device did not stop: what it may go on reaching is undone by [`DmaSpace::quarantine`].
    fn quarantine(&mut self);

    /// The ring, to be shown.
    fn view(&self) -> RingView;
}

impl<M: Mmio, D: RxDescriptor> RxQueue for Rx<M, D> {
    fn state(&self) -> &RingState {
        &self.state
    }

    fn refill(&mut self) {
        if !self.state.is_running() {
            return;
        }
        // One slot stays empty: head == tail means that nothing is posted. What is free lies in one piece,
        // or in two where it goes on at the ring's beginning.
        let free = self.head.wrapping_sub(self.tail).wrapping_sub(1) & self.mask;
        let (from, len) = (self.tail, self.descs.len());
        let first = free.min(len.wrapping_sub(from));
        let mut count = self.post(from..from.wrapping_add(first));
        if count == first && first < free {
            count = count.wrapping_add(self.post(0..free.wrapping_sub(first)));
        }
        if count > 0 {
            self.tail = from.wrapping_add(count) & self.mask;
            // Descriptors before the tail: else the device fills buffers that are not posted.
            dma_wmb();
            let units = self.tail.wrapping_mul(size_of::<D>() / UNIT);
            self.bar.set(self.setup.regs.rdt, units as u32);
        }
    }

    fn poll(&mut self, into: &mut Vec<Received>, most: usize) -> Result<usize> {
        self.state.check()?;
        let before = into.len();
        loop {
            // A descriptor ends one frame at most. What is posted lies in one piece, or in two where it goes
            // on at the ring's beginning.
            let wanted = most.saturating_sub(into.len().saturating_sub(before));
            let posted = self.tail.wrapping_sub(self.head) & self.mask;
            let piece = self.descs.len().wrapping_sub(self.head);
            let most_now = wanted.min(posted).min(piece);
            if most_now == 0 {
                return Ok(into.len().saturating_sub(before));
            }
            // Nearly all frames are whole, good and in one buffer. These are checked in one go and moved in
            // another, of which the number is known then: `into` need not grow one by one.
            let count = self.accept(most_now);
            let past = self.head.wrapping_add(count);
            let whole = self.posted[self.head..past].iter_mut();
            into.extend(whole.map(|slot| Received {
                frame: slot.buffers.take().map(D::Source::whole).expect("accepted"),
                info: slot.info,
            }));
            self.head = past & self.mask;
            if count < most_now && !self.take_any(into)? {
                return Ok(into.len().saturating_sub(before));
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.head != self.tail && D::Source::is_done(self.descs[self.head].completion())
    }

    fn dropped_longer(&self) -> u64 {
        self.frames.dropped_longer()
    }

    fn pool(&self) -> &Pool {
        self.source.pool()
    }

    fn restart(&mut self) {
        self.posted.fill_with(|| Slot::EMPTY);
        self.frames.restart();
        (self.head, self.tail) = (0, 0);
        self.tell_device();
    }

    fn quarantine(&mut self) {
        self.source.quarantine();
        self.descs.quarantine();
    }

    fn view(&self) -> RingView {
        let slots = self.descs.iter().zip(&self.posted).enumerate();
        let slots = slots.map(|(index, (desc, slot))| {
            let (words, text) = desc.show();
            let posted = slot.buffers.as_ref();
            let first = posted.map(D::Source::first);
            SlotView {
                iova: self.descs.iova(index),
                words,
                text,
                owner: match (posted, D::Source::is_done(desc.completion())) {
                    (None, _) => Owner::Driver,
                    (Some(_), false) => Owner::Device,
                    (Some(_), true) => Owner::Done,
                },
                buffer: first.map(|buf| (buf.iova(), buf.address(), buf.capacity())),
            }
        });
        let units = (size_of::<D>() / UNIT) as u32;
        let index = |reg: Reg<u32, ReadWrite>| self.bar.get(reg).checked_div(units).unwrap_or(0);
        RingView {
            name: "receive",
            pair: self.setup.pair,
            address: (&raw const self.descs[0]).addr(),
            indices: RingIndices::Registers {
                head: index(self.setup.regs.rdh),
                tail: index(self.setup.regs.rdt),
            },
            slots: slots.collect(),
        }
    }
}

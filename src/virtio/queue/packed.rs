//! The packed virtqueue (virtio 1.2, §2.8): one ring of descriptors, which both sides write.
//!
//! The driver makes descriptors available from one place on, the device writes used ones over them,
//! in the order in which it is through; whose a descriptor is say two bits, whose meaning flips each
//! time round (the wrap counters). A chain's token stays in [`Chains`] from submit to poll. The owner of
//! the ring stops the device before it drops the ring, or says that it
//! did not stop ([`Ring::quarantine`]).

#![allow(
    clippy::arithmetic_side_effects,
    reason = "of our own numbers: places and counts up to the ring's size, chains counted in 64 bits; what \
              the device wrote is compared, or subtracted with wrapping, before it is one of them"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::chains::{Chains, UsedElem, UsedError};
use super::desc::{Desc, DescFlags, PackedWord, Tables, describe_packed};
use super::event::{OFFSET, WRAP, need_event_packed};
use super::ring::{
    Areas, EMPTY, Piece, Ring, RingConfig, Sink, Used, notification, poll_one_by_one,
    refill_one_by_one, submit_front_one_by_one, without_empty, writable,
};
use crate::barrier::{dma_mb, dma_rmb, dma_wmb};
use crate::dma::{DmaArray, DmaSpace, Iova};
use crate::error::{Error, Result};
use crate::inspect::{Owner, PackedIndices, RingIndices, SlotView};
use crate::ring_state::RingState;
use crate::wait::poll_until;

/// The most descriptors that a ring may have, §2.8.
const LARGEST: u16 = 0x8000;

/// Flags that flip each time round (the wrap counter).
const FLIP: u16 = DescFlags::AVAIL.union(DescFlags::USED).bits();
/// In place of a used descriptor's AVAIL and USED: no descriptor has this.
const NONE: u16 = 1;

/// A packed virtqueue; it owns what the device may reach.
pub struct Packed<T> {
    descs: DmaArray<Desc>,
    events: Events,
    tables: Option<Tables>,
    chains: Chains<T>,
    size: u16,
    /// The descriptor to make available next.
    next_avail: u16,
    /// AVAIL and USED of a descriptor that is made available now.
    avail_flags: u16,
    /// Begin of the batch that is not published yet, as an event word.
    first: u16,
    /// Descriptors of that batch.
    unpublished: u16,
    /// Word 1 of its first descriptor. The device looks at no other before it has seen this one.
    held: u64,
    /// The descriptor that the device writes next.
    next_used: u16,
    /// AVAIL and USED of a descriptor that it uses now.
    used_flags: u16,
    index: u16,
    event_idx: bool,
    in_order: bool,
    notification_data: bool,
}

/// The two event suppression structures, §2.8.14: a place in bits 0 to 15, flags above it.
struct Events(DmaArray<AtomicU32>);

impl Events {
    /// They are on cache lines of their own: each is written by one side.
    const DRIVER: usize = 0;
    const DEVICE: usize = 16;

    const ENABLE: u32 = 0;
    const DISABLE: u32 = 1;
    /// At one place only; with EVENT_IDX.
    const DESC: u32 = 2;

    #[inline]
    fn load(&self, which: usize) -> u32 {
        u32::from_le(self.0[which].load(Ordering::Relaxed))
    }

    fn set_driver(&self, flags: u32, place: u16) {
        let word = flags << 16 | u32::from(place);
        // Relaxed: the barrier in arm orders what must be.
        self.0[Self::DRIVER].store(word.to_le(), Ordering::Relaxed);
    }

    fn halves(&self, which: usize) -> [u16; 2] {
        let word = self.load(which);
        [word as u16, (word >> 16) as u16]
    }
}

/// Free descriptors in one stretch, and what belongs to them.
struct FreeRun<'a, T, F> {
    /// To be filled beside them.
    shadow: &'a mut Chains<T>,
    descs: &'a [Desc],
    /// The flags of each, as they are in its second word.
    whose: u64,
    /// Place for the second word of the only one, until it is published.
    held: Option<&'a mut u64>,
    /// Counts those written.
    passed: F,
}

/// Writes a descriptor.
#[inline(always)]
fn write(whose: u64) -> impl FnMut(&Desc, u16, Piece) {
    move |desc, id, piece| {
        desc.set_iova(piece.iova);
        desc.hand_over(whose | word1(piece.len, id, DescFlags::empty(), 0));
    }
}

/// Writes the first descriptor of a batch.
#[inline(always)]
fn write_first(whose: u64, held: &mut u64) -> impl FnMut(&Desc, u16, Piece) {
    move |desc, id, piece| {
        desc.set_iova(piece.iova);
        *held = whose | word1(piece.len, id, DescFlags::empty(), 0);
    }
}

impl<T: Send> Packed<T> {
    /// A chain of several pieces, in a table where that pays, else in descriptors one by one.
    fn submit_pieces(&mut self, pieces: &[Piece], readable: usize, token: T) -> Result<(), T> {
        if pieces.is_empty() || pieces.iter().any(|piece| piece.len == 0) {
            let (pieces, readable) = without_empty(pieces, readable);
            return self.submit(&pieces, readable, token);
        }
        let needs = Tables::needs(self.tables.as_ref(), pieces.len(), self.descs.len());
        if needs > self.chains.room() {
            return Err(token);
        }
        let id = self.chains.next_id();
        let flags = |nth: usize| DescFlags::write_if(nth >= readable);
        match &self.tables {
            Some(tables) if needs < pieces.len() => {
                let (table, bytes) = tables.fill(id, pieces, |nth, len| {
                    let flags = flags(nth);
                    PackedWord { len, id: 0, flags }.into()
                });
                self.place(table, bytes, id, DescFlags::INDIRECT);
            }
            _ => {
                let (offset, avail_flags) = (self.next_avail, self.avail_flags);
                let is_first = self.unpublished == 0;
                self.advance();
                for (nth, piece) in pieces.iter().enumerate().skip(1) {
                    let next = DescFlags::next_if(nth + 1 < pieces.len());
                    self.place(piece.iova, piece.len, id, flags(nth) | next);
                }
                // The first one last: once it is available, so is the chain.
                let head = flags(0) | DescFlags::NEXT;
                let word = word1(pieces[0].len, id, head, avail_flags);
                self.write(offset, pieces[0].iova, word, is_first);
            }
        }
        self.chains
            .put(id, needs as u16, writable(pieces, readable), token);
        Ok(())
    }

    /// The free descriptors up to the end of the ring or of the shadow's slots, or the first of a batch by
    /// itself, since its second word is held back; `None` where there is none, or the shadow's are one here
    /// and one there.
    #[inline(always)]
    fn free_run(&mut self, writable: u32) -> Option<FreeRun<'_, T, impl FnMut(usize)>> {
        let (_, run) = self.chains.free_run(writable);
        if run == 0 {
            return None;
        }
        let descs = &self.descs[usize::from(self.next_avail)..];
        let run = run.min(descs.len());
        let whose = word1(0, 0, DescFlags::write_if(writable > 0), self.avail_flags);
        let (held, is_first) = (&mut self.held, self.unpublished == 0);
        let (next_avail, avail_flags) = (&mut self.next_avail, &mut self.avail_flags);
        let (unpublished, size) = (&mut self.unpublished, self.size);
        Some(FreeRun {
            shadow: &mut self.chains,
            descs: &descs[..if is_first { 1 } else { run }],
            whose,
            held: is_first.then_some(held),
            passed: move |count: usize| {
                *unpublished += count as u16;
                *next_avail += count as u16;
                if *next_avail == size {
                    *next_avail = 0;
                    *avail_flags ^= FLIP;
                }
            },
        })
    }

    /// Makes the next descriptor available.
    #[inline]
    fn place(&mut self, iova: Iova, len: u32, id: u16, flags: DescFlags) {
        let word = word1(len, id, flags, self.avail_flags);
        self.write(self.next_avail, iova, word, self.unpublished == 0);
        self.advance();
    }

    /// Writes a descriptor; the second word of a batch's first one is held back until it is
    /// published.
    #[inline]
    fn write(&mut self, offset: u16, iova: Iova, word1: u64, is_first: bool) {
        let desc = &self.descs[usize::from(offset)];
        desc.set_iova(iova);
        if is_first {
            self.held = word1;
        } else {
            desc.hand_over(word1);
        }
    }

    #[inline]
    fn advance(&mut self) {
        self.unpublished += 1;
        self.next_avail += 1;
        if self.next_avail == self.size {
            self.next_avail = 0;
            self.avail_flags ^= FLIP;
        }
    }

    /// The place to make available next, as an event word.
    #[inline]
    fn avail_place(&self) -> u16 {
        let wrap = self.avail_flags & DescFlags::AVAIL.bits() != 0;
        self.next_avail | if wrap { WRAP } else { 0 }
    }

    /// The place that the device writes next, as an event word.
    #[inline]
    fn used_place(&self) -> u16 {
        self.next_used | if self.used_flags == 0 { 0 } else { WRAP }
    }

    /// Returns the used descriptor at the next place; `None` until the device has written one.
    #[inline]
    fn look(&self) -> Option<PackedWord> {
        let word = PackedWord::from(self.descs[usize::from(self.next_used)].word1());
        (word.flags.bits() & FLIP == self.used_flags).then_some(word)
    }

    /// Returns whether the descriptor `past` places (less than the size) after the next one is used, too.
    fn used_at(&self, past: u16) -> bool {
        let (at, flags) = match self.next_used + past {
            at if at >= self.size => (at - self.size, self.used_flags ^ FLIP),
            at => (at, self.used_flags),
        };
        let word = PackedWord::from(self.descs[usize::from(at)].word1());
        word.flags.bits() & FLIP == flags
    }

    /// A chain of `count` descriptors came back.
    #[inline]
    fn pass(&mut self, count: u16) {
        self.next_used += count;
        if self.next_used >= self.size {
            self.next_used -= self.size;
            self.used_flags ^= FLIP;
        }
    }

    /// The next chain used of those that come back in order: one descriptor may stand for several.
    #[inline(never)] // so that poll itself is small
    fn poll_in_order(&mut self) -> Result<Option<Used<T>>> {
        if !self.chains.has_used() {
            let Some(word) = self.look() else {
                return self.nothing();
            };
            // As in poll.
            dma_rmb();
            if let Err(error) = self.chains.used_up_to(elem(word), u64::MAX) {
                return Err(self.mark_broken(error));
            }
        }
        let Some((token, written, count)) = self.chains.take_oldest() else {
            return Ok(None);
        };
        self.pass(count);
        Ok(Some(Used { token, written }))
    }

    #[inline(never)] // once a batch
    fn nothing(&mut self) -> Result<Option<Used<T>>> {
        self.chains.state().check()?;
        Ok(None)
    }

    /// The chain that the device says it used, whichever it is.
    #[inline(never)] // so that poll itself is small
    fn poll_any(&mut self, elem: UsedElem) -> Result<Option<Used<T>>> {
        match self.chains.take(elem) {
            Ok((token, written, count)) => {
                self.pass(count);
                Ok(Some(Used { token, written }))
            }
            Err(error) => Err(self.mark_broken(error)),
        }
    }

    #[cold]
    fn mark_broken(&mut self, error: UsedError) -> Error {
        self.used_flags = NONE;
        self.chains.mark_broken(error)
    }

    /// As at first.
    fn begin(&mut self) {
        (self.next_avail, self.next_used, self.unpublished) = (0, 0, 0);
        // Both wrap counters begin at 1.
        (self.avail_flags, self.used_flags) = (DescFlags::AVAIL.bits(), FLIP);
        self.first = self.avail_place();
        self.held = 0;
        self.disarm_device();
    }

    fn disarm_device(&self) {
        self.events.set_driver(Events::DISABLE, 0);
    }

    /// Returns the number of descriptors of those chains of which fewer than `until`, and at least `from`, were
    /// pushed before them.
    fn descriptors_of(&self, from: u64, until: u64) -> usize {
        let chains = (0..self.descs.len()).filter_map(|id| self.chains.chain(id));
        let these = chains.filter(|(_, seq, _)| (from..until).contains(seq));
        these.map(|(.., count)| usize::from(count)).sum()
    }

    /// Returns the number of descriptors from `next_used` on that are used, as the device says.
    fn done(&self) -> usize {
        let with_device = self.descs.len() - self.chains.free() - usize::from(self.unpublished);
        let mut from = self.chains.used().max(self.chains.popped());
        let mut done = self.descriptors_of(self.chains.popped(), from);
        let (mut at, mut expected) = (usize::from(self.next_used), self.used_flags);
        let mut passed = done;
        loop {
            at += passed;
            if at >= self.descs.len() {
                at -= self.descs.len();
                expected ^= FLIP;
            }
            let word = PackedWord::from(self.descs[at].word1());
            let chain = self.chains.chain(word.id.into());
            let used = done < with_device && word.flags.bits() & FLIP == expected;
            let Some((_, seq, count)) = chain.filter(|_| used) else {
                return done.min(with_device);
            };
            passed = usize::from(count);
            if self.in_order {
                passed = self.descriptors_of(from, seq + 1).max(1);
                from = seq + 1;
            }
            done += passed;
        }
    }
}

/// Decodes a used descriptor.
#[inline]
fn elem(word: PackedWord) -> UsedElem {
    UsedElem {
        id: word.id.into(),
        len: word.len,
        // Without WRITE the length counts for nothing, §2.8.4; but there are devices that never say
        // WRITE (QEMU's), so one that can be is believed.
        sure: word.flags.contains(DescFlags::WRITE),
    }
}

#[inline]
fn word1(len: u32, id: u16, flags: DescFlags, avail_flags: u16) -> u64 {
    let flags = flags.union(DescFlags::from_bits_retain(avail_flags));
    PackedWord { len, id, flags }.into()
}

impl<T: Send> Ring<T> for Packed<T> {
    fn new(dma: &Arc<dyn DmaSpace>, config: &RingConfig) -> Result<Self> {
        let size = config.size;
        if size == 0 || size > LARGEST {
            return Err(Error::Usage(format!(
                "{}: a packed ring of {size} descriptors: take 1 to {LARGEST}",
                config.device
            )));
        }
        let tables = config.indirect.then(|| Tables::alloc(dma, size.into()));
        let mut ring = Self {
            descs: DmaArray::alloc(dma, size.into())?,
            events: Events(DmaArray::alloc(dma, Events::DEVICE + 1)?),
            tables: tables.transpose()?,
            chains: Chains::new(config, false),
            size,
            next_avail: 0,
            avail_flags: 0,
            first: 0,
            unpublished: 0,
            held: 0,
            next_used: 0,
            used_flags: 0,
            index: config.index,
            event_idx: config.event_idx,
            in_order: config.in_order,
            notification_data: config.notification_data,
        };
        ring.begin();
        Ok(ring)
    }

    fn areas(&self) -> Areas {
        Areas {
            descriptors: self.descs.iova(0),
            driver: self.events.0.iova(Events::DRIVER),
            device: self.events.0.iova(Events::DEVICE),
        }
    }

    fn address(&self) -> usize {
        (&raw const self.descs[0]).addr()
    }

    fn size(&self) -> usize {
        self.descs.len()
    }

    #[inline]
    fn room(&self) -> usize {
        self.chains.room()
    }

    #[inline]
    fn in_flight(&self) -> usize {
        self.chains.in_flight()
    }

    #[inline]
    fn needs(&self, pieces: usize) -> usize {
        Tables::needs(self.tables.as_ref(), pieces, self.descs.len())
    }

    #[inline]
    fn submit(&mut self, pieces: &[Piece], readable: usize, token: T) -> Result<(), T> {
        let [piece] = pieces else {
            return self.submit_pieces(pieces, readable, token);
        };
        assert!(piece.len > 0, "{EMPTY}");
        if self.chains.room() == 0 {
            return Err(token);
        }
        let id = self.chains.next_id();
        let (flags, writable) = match readable {
            0 => (DescFlags::WRITE, piece.len),
            _ => (DescFlags::empty(), 0),
        };
        self.place(piece.iova, piece.len, id, flags);
        self.chains.put_one(writable, token);
        Ok(())
    }

    #[inline]
    fn refill(
        &mut self,
        len: u32,
        mut tokens: impl Iterator<Item = T>,
        iova: impl Fn(&T) -> Iova,
    ) -> usize {
        assert!(len > 0, "{EMPTY}");
        let mut count = 0;
        loop {
            let Some(FreeRun {
                shadow,
                descs,
                whose,
                held,
                passed,
            }) = self.free_run(len)
            else {
                return count + refill_one_by_one(self, len, tokens, iova);
            };
            let run = descs.len();
            let places = (run, || descs.iter());
            let put;
            (put, tokens) = match held {
                Some(held) => {
                    let write = write_first(whose, held);
                    shadow.refill_run(len, tokens, places, &iova, write, passed)
                }
                None => shadow.refill_run(len, tokens, places, &iova, write(whose), passed),
            };
            count += put;
            // Most often it is full then.
            if put < run || self.chains.room() == 0 {
                return count;
            }
        }
    }

    #[inline]
    fn submit_front(
        &mut self,
        tokens: &mut Vec<T>,
        mut piece: impl FnMut(&mut T) -> Option<Piece>,
    ) -> usize {
        let mut count = 0;
        loop {
            let Some(FreeRun {
                shadow,
                descs,
                whose,
                held,
                passed,
            }) = self.free_run(0)
            else {
                return count + submit_front_one_by_one(self, tokens, piece);
            };
            let (places, piece) = (descs.iter(), &mut piece);
            let put = match held {
                Some(held) => {
                    let write = write_first(whose, held);
                    shadow.put_front(tokens, places, piece, write, passed)
                }
                None => shadow.put_front(tokens, places, piece, write(whose), passed),
            };
            count += put;
            if put < descs.len() {
                return count;
            }
        }
    }

    #[inline]
    fn publish(&mut self) -> Option<u32> {
        if self.unpublished == 0 || !self.chains.state().is_running() {
            return None;
        }
        // All of the batch before the word that makes its first descriptor available: else the
        // device goes on to one that is not written yet.
        dma_wmb();
        self.descs[usize::from(self.first & OFFSET)].hand_over(self.held);
        self.chains.publish();
        let (old, count) = (self.first, self.unpublished);
        (self.first, self.unpublished) = (self.avail_place(), 0);
        // That word before the device's event word is read: else we may read that it is awake, from
        // before it looked at the descriptor for the last time and fell asleep, and nobody wakes it.
        dma_mb();
        let event = self.events.load(Events::DEVICE);
        let wanted = match event >> 16 & 3 {
            Events::DISABLE => false,
            Events::DESC if self.event_idx => {
                need_event_packed(event as u16, old, count, self.size)
            }
            // Also what it must not say: to be told once too often harms nobody.
            _ => true,
        };
        wanted.then(|| notification(self.index, self.notification_data, self.first))
    }

    fn reminder(&self) -> u32 {
        notification(self.index, self.notification_data, self.first)
    }

    #[inline]
    fn poll(&mut self) -> Result<Option<Used<T>>> {
        if self.in_order {
            return self.poll_in_order();
        }
        let Some(word) = self.look() else {
            return self.nothing();
        };
        // The word before the bytes of the buffers it vouches for: else they may be read as they
        // were before the device wrote them.
        dma_rmb();
        if let Some((token, written)) = self.chains.take_next(elem(word)) {
            self.pass(1);
            return Ok(Some(Used { token, written }));
        }
        self.poll_any(elem(word))
    }

    #[inline]
    fn poll_into(&mut self, most: usize, sink: &mut impl Sink<T>) -> Result<usize> {
        self.chains.state().check()?;
        if self.in_order || !self.chains.is_plain() {
            return poll_one_by_one(self, most, sink);
        }
        let most = most.min(self.chains.in_flight());
        let mut count = 0;
        // Up to the ring's end, and on from its beginning, where the flags are the others.
        while count < most {
            let run = &self.descs[usize::from(self.next_used)..];
            let run = &run[..run.len().min(most - count)];
            let (flags, size) = (self.used_flags, self.size);
            let words = run.iter().map(|desc| {
                let word = desc.word1();
                // As in poll.
                dma_rmb();
                word & (u64::from(FLIP) << 48 | 0xffff_ffff_ffff)
            });
            let (next_used, used_flags) = (&mut self.next_used, &mut self.used_flags);
            let passed = |count: usize| {
                *next_used += count as u16;
                if *next_used == size {
                    *next_used = 0;
                    *used_flags ^= FLIP;
                }
            };
            let (came, run) = (
                self.chains.take_run((words, flags), sink, passed),
                run.len(),
            );
            count += came;
            if came < run {
                // Not used yet, or one by itself; or out of order, or broken, or at the end of the slots.
                match self.poll()? {
                    Some(used) => sink.take(used),
                    None => break,
                }
                count += 1;
            }
            if !self.chains.is_plain() {
                return Ok(count + poll_one_by_one(self, most - count, sink)?);
            }
        }
        Ok(count)
    }

    #[inline]
    fn is_ready(&self) -> bool {
        self.look().is_some() || self.chains.has_used() || !self.chains.state().is_running()
    }

    fn arm(&mut self) -> bool {
        if self.event_idx {
            self.events.set_driver(Events::DESC, self.used_place());
        } else {
            self.events.set_driver(Events::ENABLE, 0);
        }
        // Our wish before the next descriptor is looked at: else the device may have read the old
        // wish after it used a chain that we have not seen, and the interrupt never comes.
        dma_mb();
        self.is_ready()
    }

    fn disarm(&mut self) {
        self.disarm_device();
    }

    fn state(&self) -> &RingState {
        self.chains.state()
    }

    fn share(&mut self, state: &RingState) {
        self.chains.share(state);
    }

    fn stop(&mut self) {
        self.chains.close();
        // So that the next poll finds nothing, and asks why.
        self.used_flags = NONE;
        self.chains.state().stop();
    }

    fn reset(&mut self) -> Vec<T> {
        let tokens = self.chains.reset();
        for desc in self.descs.iter() {
            desc.write(Iova(0), 0);
        }
        for word in self.events.0.iter() {
            word.store(0, Ordering::Relaxed);
        }
        self.begin();
        tokens
    }

    fn quarantine(&mut self, abandon: impl FnMut(T)) {
        self.chains.reset().into_iter().for_each(abandon);
        self.descs.quarantine();
        self.events.0.quarantine();
        if let Some(tables) = &mut self.tables {
            tables.quarantine();
        }
    }

    /// Each descriptor must be written again, since the device writes over it.
    fn limit(
        &mut self,
        piece: Piece,
        batch: u16,
        count: u64,
        stuck: Duration,
        mut ring: impl FnMut(u32),
    ) -> bool {
        assert!(self.chains.in_flight() == 0 && batch.is_power_of_two() && batch <= self.size / 2);
        self.chains.skip(count, self.in_order);
        let (size, batch) = (u64::from(self.size), u64::from(batch));
        let (mut given, mut done) = (0, 0);
        while done < count {
            let more = ((size - (given - done)) / batch * batch).min(count - given);
            for _ in 0..more {
                // The place for an id: no two are out at once.
                self.place(piece.iova, piece.len, self.next_avail, DescFlags::empty());
            }
            given += more;
            self.publish().into_iter().for_each(&mut ring);
            let wanted = if self.in_order {
                1
            } else {
                batch.min(given - done)
            };
            // The last of them counts once the first is there, whichever is written first.
            let used = || self.used_at(0) && self.used_at(wanted as u16 - 1);
            if !poll_until(stuck, used) {
                return false;
            }
            let passed = match (self.in_order, self.look()) {
                (true, Some(word)) => {
                    let id = u64::from(word.id % self.size);
                    (id + size - u64::from(self.next_used)) % size + 1
                }
                _ => wanted,
            };
            if passed > given - done {
                return false;
            }
            done += passed;
            self.pass(passed as u16);
        }
        true
    }

    fn indices(&self) -> RingIndices {
        RingIndices::Packed(PackedIndices {
            next_avail: self.next_avail,
            avail_wrap: self.avail_place() & WRAP != 0,
            next_used: self.next_used,
            used_wrap: self.used_place() & WRAP != 0,
            driver_event_iova: self.events.0.iova(Events::DRIVER),
            driver_event: self.events.halves(Events::DRIVER),
            device_event_iova: self.events.0.iova(Events::DEVICE),
            device_event: self.events.halves(Events::DEVICE),
        })
    }

    fn slots(&self, buffer: impl Fn(&T, Iova) -> Option<(Iova, usize, usize)>) -> Vec<SlotView> {
        let size = self.descs.len();
        let (filled, done) = (size - self.chains.free(), self.done());
        let with_device = filled - usize::from(self.unpublished);
        let slots = (0..size).map(|index| {
            let words = self.descs[index].words();
            let past = index + size - usize::from(self.next_used);
            let past = if past >= size { past - size } else { past };
            // The first of a batch says whose it is only once it is published.
            let word = match past == with_device && self.unpublished > 0 {
                true => PackedWord::from(self.held),
                false => PackedWord::from(words[1]),
            };
            let buffer = (past < filled).then(|| {
                let iova = Iova(words[0]);
                let table = self
                    .tables
                    .as_ref()
                    .and_then(|tables| tables.at(iova, word.len));
                let (token, ..) = self.chains.chain(word.id.into())?;
                table.or_else(|| buffer(token, iova))
            });
            SlotView {
                iova: self.descs.iova(index),
                words: words.to_vec(),
                text: describe_packed(words),
                owner: match past {
                    _ if past < done => Owner::Done,
                    _ if past < with_device => Owner::Device,
                    _ => Owner::Driver,
                },
                buffer: buffer.flatten(),
            }
        });
        slots.collect()
    }
}

//! The split virtqueue (virtio 1.2, §2.7): a table of descriptors, a ring of chains made available,
//! a ring of chains used.
//!
//! The driver writes table and available ring, the device the used ring; each counts its own chains
//! in `idx`, which wraps at 65536. A chain's token stays in [`Chains`] from submit to poll. The owner of
//! the ring stops the device before it drops the ring, or says that it
//! did not stop ([`Ring::quarantine`]).

#![allow(
    clippy::arithmetic_side_effects,
    reason = "of our own numbers: places and counts up to the ring's size, chains counted in 64 bits; what \
              the device wrote is compared, or subtracted with wrapping, before it is one of them"
)]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use super::chains::{Chains, UsedElem, UsedError};
use super::desc::{Desc, DescFlags, SplitWord, Tables, describe_split};
use super::event::need_event;
use super::ring::{
    Areas, EMPTY, Piece, Ring, RingConfig, Sink, Used, notification, poll_one_by_one,
    refill_one_by_one, submit_front_one_by_one, without_empty, writable,
};
use crate::barrier::{dma_mb, dma_rmb, dma_wmb};
use crate::dma::{DmaArray, DmaSpace, Iova};
use crate::error::{Error, Result};
use crate::inspect::{Owner, RingIndices, SlotView, SplitIndices};
use crate::ring_state::RingState;
use crate::wait::poll_until;

/// The most descriptors that a ring may have, §2.7.
const LARGEST: u16 = 0x8000;

/// A split virtqueue; it owns what the device may reach.
pub struct Split<T> {
    descs: DmaArray<Desc>,
    avail: Avail,
    used: UsedRing,
    tables: Option<Tables>,
    chains: Chains<T>,
    mask: u16,
    /// Up to which entry of the used ring chains were taken back.
    taken: u16,
    /// The used ring's idx when it was last looked at.
    seen: u16,
    index: u16,
    event_idx: bool,
    in_order: bool,
    notification_data: bool,
}

/// The available ring, §2.7.6: flags, idx, the ring, used_event.
struct Avail(DmaArray<AtomicU16>);

impl Avail {
    /// flags: wants no interrupt; without EVENT_IDX.
    const NO_INTERRUPT: u16 = 1;

    fn alloc(dma: &Arc<dyn DmaSpace>, size: u16) -> Result<Self> {
        Ok(Self(DmaArray::alloc(dma, usize::from(size) + 3)?))
    }

    fn load(&self, at: usize) -> u16 {
        u16::from_le(self.0[at].load(Ordering::Relaxed))
    }

    #[inline]
    fn store(&self, at: usize, value: u16) {
        // Relaxed: the barriers in publish and arm order what must be.
        self.0[at].store(value.to_le(), Ordering::Relaxed);
    }

    fn set_flags(&self, flags: u16) {
        self.store(0, flags);
    }

    #[inline]
    fn set_idx(&self, idx: u16) {
        self.store(1, idx);
    }

    #[inline]
    fn set_entry(&self, place: u16, head: u16) {
        self.store(2 + usize::from(place), head);
    }

    /// The entries.
    #[inline]
    fn ring(&self) -> &[AtomicU16] {
        &self.0[2..self.0.len() - 1]
    }

    fn set_used_event(&self, event: u16) {
        self.store(self.0.len() - 1, event);
    }
}

/// The used ring, §2.7.8: flags, idx, the ring (4 bytes id, 4 bytes length), avail_event.
///
/// It begins 4 bytes into its memory: so an element, 8 bytes at an odd multiple of 4, comes to lie
/// on a multiple of 8, and is read in one piece.
struct UsedRing(DmaArray<AtomicU64>);

impl UsedRing {
    const BEGIN: u64 = 4;
    /// flags: wants no notification; without EVENT_IDX.
    const NO_NOTIFY: u16 = 1;

    fn alloc(dma: &Arc<dyn DmaSpace>, size: u16) -> Result<Self> {
        Ok(Self(DmaArray::alloc(dma, usize::from(size) + 2)?))
    }

    fn iova(&self) -> Iova {
        Iova(self.0.iova(0).0 + Self::BEGIN)
    }

    /// As it is in memory.
    #[inline]
    fn word(&self, at: usize) -> u64 {
        self.0[at].load(Ordering::Relaxed)
    }

    #[inline]
    fn flags(&self) -> u16 {
        (u64::from_le(self.word(0)) >> 32) as u16
    }

    #[inline]
    fn idx(&self) -> u16 {
        (u64::from_le(self.word(0)) >> 48) as u16
    }

    /// Decodes a used element.
    #[inline]
    fn elem(word: u64) -> UsedElem {
        let word = u64::from_le(word);
        UsedElem {
            id: word as u32,
            len: (word >> 32) as u32,
            sure: true,
        }
    }

    /// Id and bytes written, to be shown.
    fn entry(&self, place: u16) -> (u32, u32) {
        let elem = Self::elem(self.word(1 + usize::from(place)));
        (elem.id, elem.len)
    }

    /// The elements.
    #[inline]
    fn entries(&self) -> &[AtomicU64] {
        &self.0[1..self.0.len() - 1]
    }

    #[inline]
    fn avail_event(&self) -> u16 {
        u64::from_le(self.word(self.0.len() - 1)) as u16
    }
}

/// Free descriptors in one stretch, as many free entries, and the shadow to fill beside them.
struct FreeRun<'a, T> {
    shadow: &'a mut Chains<T>,
    descs: &'a [Desc],
    entries: &'a [AtomicU16],
}

/// Writes a descriptor and its entry.
#[inline(always)]
fn write(is_writable: bool) -> impl FnMut((&Desc, &AtomicU16), u16, Piece) {
    let flags = DescFlags::write_if(is_writable);
    move |(desc, entry), id, piece| {
        let (len, next) = (piece.len, 0);
        let word = SplitWord { len, flags, next };
        desc.write(piece.iova, word.into());
        entry.store(id.to_le(), Ordering::Relaxed);
    }
}

impl<T: Send> Split<T> {
    /// A chain of several pieces, in a table where that pays, else linked.
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
        let flags = |nth: usize, last: usize| {
            DescFlags::write_if(nth >= readable) | DescFlags::next_if(nth < last)
        };
        let word = |len, flags, next| SplitWord { len, flags, next }.into();
        let mut last = id;
        match &self.tables {
            Some(tables) if needs < pieces.len() => {
                let end = pieces.len() - 1;
                let (table, bytes) = tables.fill(id, pieces, |nth, len| {
                    let next = if nth < end { nth as u16 + 1 } else { 0 };
                    word(len, flags(nth, end), next)
                });
                let word1 = word(bytes, DescFlags::INDIRECT, 0);
                self.descs[usize::from(id)].write(table, word1);
            }
            _ => {
                for (nth, piece) in pieces.iter().enumerate() {
                    let here = if nth == 0 {
                        id
                    } else {
                        self.chains.after(last)
                    };
                    let end = needs - 1;
                    let next = if nth < end {
                        self.chains.after(here)
                    } else {
                        0
                    };
                    let word1 = word(piece.len, flags(nth, end), next);
                    self.descs[usize::from(here)].write(piece.iova, word1);
                    last = here;
                }
            }
        }
        let place = self.chains.pushed() as u16 & self.mask;
        self.avail.set_entry(place, id);
        self.chains
            .put(last, needs as u16, writable(pieces, readable), token);
        Ok(())
    }

    /// The free descriptors that lie side by side with free entries of the available ring, up to the end
    /// of either. `None` where there is none, or where they are one here and one there.
    #[inline(always)]
    fn free_run(&mut self, writable: u32) -> Option<FreeRun<'_, T>> {
        let (first, run) = self.chains.free_run(writable);
        if run == 0 {
            return None;
        }
        let place = usize::from(self.chains.pushed() as u16 & self.mask);
        let entries = &self.avail.ring()[place..];
        let run = run.min(entries.len());
        Some(FreeRun {
            shadow: &mut self.chains,
            descs: &self.descs[first..][..run],
            entries: &entries[..run],
        })
    }

    /// Moves the available idx from `old` to `new`; what to write to the doorbell, where the device
    /// wants to be told.
    #[inline]
    fn advance(&self, old: u16, new: u16) -> Option<u32> {
        // Descriptors and entries before the idx that vouches for them: else the device follows an
        // entry that is not written yet.
        dma_wmb();
        self.avail.set_idx(new);
        // The idx before the device's event word is read: else we may read that it is awake, from
        // before it looked at the old idx for the last time and fell asleep, and nobody wakes it.
        dma_mb();
        let wanted = if self.event_idx {
            need_event(self.used.avail_event(), new, old)
        } else {
            self.used.flags() & UsedRing::NO_NOTIFY == 0
        };
        // §2.9: bits 0 to 14 of the idx, then bit 15 as the wrap counter: the idx as it is.
        wanted.then(|| notification(self.index, self.notification_data, new))
    }

    /// Looks how far the device is; `false`: no further than what was taken back.
    #[inline(never)] // once a batch
    fn look(&mut self) -> Result<bool> {
        self.chains.state().check()?;
        let idx = self.used.idx();
        let ahead = idx.wrapping_sub(self.taken);
        if ahead == 0 {
            return Ok(false);
        }
        if u64::from(ahead) > self.chains.with_device() {
            return Err(self.mark_broken(UsedError::Ahead(ahead)));
        }
        self.seen = idx;
        // idx before the entries it vouches for, and before the bytes of the buffers: else they may
        // be read as they were before the device wrote them.
        dma_rmb();
        Ok(true)
    }

    /// The next chain used of those that come back in order: one entry may stand for several.
    #[inline(never)] // so that poll itself is small
    fn poll_in_order(&mut self) -> Result<Option<Used<T>>> {
        if !self.chains.has_used() {
            if self.taken == self.seen && !self.look()? {
                return Ok(None);
            }
            let elem = UsedRing::elem(self.used.word(1 + usize::from(self.taken & self.mask)));
            let ahead = self.seen.wrapping_sub(self.taken);
            if let Err(error) = self.chains.used_up_to(elem, ahead.into()) {
                return Err(self.mark_broken(error));
            }
        }
        let oldest = self.chains.take_oldest();
        self.taken = self.taken.wrapping_add(1);
        Ok(oldest.map(|(token, written, _)| Used { token, written }))
    }

    /// The chain that the device says it used, whichever it is.
    #[inline(never)] // so that poll itself is small
    fn poll_any(&mut self, elem: UsedElem) -> Result<Option<Used<T>>> {
        match self.chains.take(elem) {
            Ok((token, written, _)) => {
                self.taken = self.taken.wrapping_add(1);
                Ok(Some(Used { token, written }))
            }
            Err(error) => Err(self.mark_broken(error)),
        }
    }

    #[cold]
    fn mark_broken(&mut self, error: UsedError) -> Error {
        // So that the next poll looks, and finds the ring broken.
        self.seen = self.taken;
        self.chains.mark_broken(error)
    }
}

impl<T: Send> Ring<T> for Split<T> {
    fn new(dma: &Arc<dyn DmaSpace>, config: &RingConfig) -> Result<Self> {
        let size = config.size;
        if !size.is_power_of_two() || size > LARGEST {
            return Err(Error::Usage(format!(
                "{}: a split ring of {size} descriptors: take a power of two up to {LARGEST}",
                config.device
            )));
        }
        let tables = config.indirect.then(|| Tables::alloc(dma, size.into()));
        let ring = Self {
            descs: DmaArray::alloc(dma, size.into())?,
            avail: Avail::alloc(dma, size)?,
            used: UsedRing::alloc(dma, size)?,
            tables: tables.transpose()?,
            chains: Chains::new(config, true),
            mask: size - 1,
            taken: 0,
            seen: 0,
            index: config.index,
            event_idx: config.event_idx,
            in_order: config.in_order,
            notification_data: config.notification_data,
        };
        let mut ring = ring;
        ring.disarm();
        Ok(ring)
    }

    fn areas(&self) -> Areas {
        Areas {
            descriptors: self.descs.iova(0),
            driver: self.avail.0.iova(0),
            device: self.used.iova(),
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
        let word = SplitWord {
            len: piece.len,
            flags,
            next: 0,
        };
        self.descs[usize::from(id)].write(piece.iova, word.into());
        let place = self.chains.pushed() as u16 & self.mask;
        self.avail.set_entry(place, id);
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
            let Some(free) = self.free_run(len) else {
                return count + refill_one_by_one(self, len, tokens, iova);
            };
            let (descs, entries, run) = (free.descs, free.entries, free.descs.len());
            let places = (run, || descs.iter().zip(entries));
            let put;
            (put, tokens) =
                (free.shadow).refill_run(len, tokens, places, &iova, write(true), |_| {});
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
            let Some(free) = self.free_run(0) else {
                return count + submit_front_one_by_one(self, tokens, piece);
            };
            let (places, run) = (free.descs.iter().zip(free.entries), free.descs.len());
            let (write, piece) = (write(false), &mut piece);
            let put = (free.shadow).put_front(tokens, places, piece, write, |_| {});
            count += put;
            if put < run {
                return count;
            }
        }
    }

    #[inline]
    fn publish(&mut self) -> Option<u32> {
        let (old, new) = (self.chains.published() as u16, self.chains.pushed() as u16);
        if old == new || !self.chains.state().is_running() {
            return None;
        }
        self.chains.publish();
        self.advance(old, new)
    }

    fn reminder(&self) -> u32 {
        let published = self.chains.published() as u16;
        notification(self.index, self.notification_data, published)
    }

    #[inline]
    fn poll(&mut self) -> Result<Option<Used<T>>> {
        if self.in_order {
            return self.poll_in_order();
        }
        if self.taken == self.seen && !self.look()? {
            return Ok(None);
        }
        let elem = UsedRing::elem(self.used.word(1 + usize::from(self.taken & self.mask)));
        if let Some((token, written)) = self.chains.take_next(elem) {
            self.taken = self.taken.wrapping_add(1);
            return Ok(Some(Used { token, written }));
        }
        self.poll_any(elem)
    }

    #[inline]
    fn poll_into(&mut self, most: usize, sink: &mut impl Sink<T>) -> Result<usize> {
        self.chains.state().check()?;
        if self.in_order || !self.chains.is_plain() {
            return poll_one_by_one(self, most, sink);
        }
        if self.taken == self.seen && !self.look()? {
            return Ok(0);
        }
        let most = most.min(usize::from(self.seen.wrapping_sub(self.taken)));
        let mut count = 0;
        // Up to the ring's end, and on from its beginning.
        while count < most {
            let run = &self.used.entries()[usize::from(self.taken & self.mask)..];
            let run = &run[..run.len().min(most - count)];
            // Id in the upper half.
            let words = run.iter();
            let words =
                words.map(|entry| u64::from_le(entry.load(Ordering::Relaxed)).rotate_left(32));
            let taken = &mut self.taken;
            let passed = |count| *taken = taken.wrapping_add(count as u16);
            let (came, run) = (self.chains.take_run((words, 0), sink, passed), run.len());
            count += came;
            if came < run {
                // One by itself; or out of order, or broken, or at the end of the slots.
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
        self.taken != self.used.idx() || !self.chains.state().is_running()
    }

    fn arm(&mut self) -> bool {
        if self.event_idx {
            self.avail.set_used_event(self.taken);
        } else {
            self.avail.set_flags(0);
        }
        // Our wish before the used idx is looked at: else the device may have read the old wish after
        // it used a chain that we have not seen, and the interrupt never comes.
        dma_mb();
        self.is_ready()
    }

    fn disarm(&mut self) {
        if self.event_idx {
            // Half way round: as far as can be from where the device is, and from where it will be.
            self.avail.set_used_event(self.taken.wrapping_add(LARGEST));
        } else {
            self.avail.set_flags(Avail::NO_INTERRUPT);
        }
    }

    fn state(&self) -> &RingState {
        self.chains.state()
    }

    fn share(&mut self, state: &RingState) {
        self.chains.share(state);
    }

    fn stop(&mut self) {
        self.chains.close();
        // So that the next poll looks.
        self.seen = self.taken;
        self.chains.state().stop();
    }

    fn reset(&mut self) -> Vec<T> {
        let tokens = self.chains.reset();
        for desc in self.descs.iter() {
            desc.write(Iova(0), 0);
        }
        for at in 0..self.avail.0.len() {
            self.avail.store(at, 0);
        }
        for word in self.used.0.iter() {
            word.store(0, Ordering::Relaxed);
        }
        (self.taken, self.seen) = (0, 0);
        self.disarm();
        tokens
    }

    fn quarantine(&mut self, abandon: impl FnMut(T)) {
        self.chains.reset().into_iter().for_each(abandon);
        self.descs.quarantine();
        self.avail.0.quarantine();
        self.used.0.quarantine();
        if let Some(tables) = &mut self.tables {
            tables.quarantine();
        }
    }

    /// Descriptors and available ring stay as they are; only the idx moves.
    fn limit(
        &mut self,
        piece: Piece,
        batch: u16,
        count: u64,
        stuck: Duration,
        mut ring: impl FnMut(u32),
    ) -> bool {
        assert!(self.chains.in_flight() == 0 && batch.is_power_of_two() && batch <= self.mask);
        let (start, first) = (self.taken, self.chains.skip(count, self.in_order));
        let word = SplitWord {
            len: piece.len,
            flags: DescFlags::empty(),
            next: 0,
        };
        for past in 0..=self.mask {
            let id = first.wrapping_add(past) & self.mask;
            self.descs[usize::from(id)].write(piece.iova, word.into());
            self.avail
                .set_entry(start.wrapping_add(past) & self.mask, id);
        }
        let (size, batch) = (u64::from(self.mask) + 1, u64::from(batch));
        let (mut given, mut done) = (0, 0);
        while done < count {
            let old = given;
            given += ((size - (given - done)) / batch * batch).min(count - given);
            if given > old {
                let at = |count: u64| start.wrapping_add(count as u16);
                self.advance(at(old), at(given))
                    .into_iter()
                    .for_each(&mut ring);
            }
            let seen = start.wrapping_add(done as u16);
            let (wanted, most) = (batch.min(given - done), given - done);
            let mut ahead = 0;
            let is_there = || {
                ahead = u64::from(self.used.idx().wrapping_sub(seen));
                ahead >= wanted
            };
            // What was checked is what counts: the device may write another idx at any moment.
            if !poll_until(stuck, is_there) || ahead > most {
                return false;
            }
            done += ahead;
        }
        (self.taken, self.seen) = (
            start.wrapping_add(count as u16),
            start.wrapping_add(count as u16),
        );
        true
    }

    fn indices(&self) -> RingIndices {
        let entries = 0..=self.mask;
        RingIndices::Split(SplitIndices {
            avail_iova: self.avail.0.iova(0),
            avail_flags: self.avail.load(0),
            avail_idx: self.avail.load(1),
            avail: entries
                .clone()
                .map(|place| self.avail.load(2 + usize::from(place)))
                .collect(),
            used_event: self.avail.load(self.avail.0.len() - 1),
            used_iova: self.used.iova(),
            used_flags: self.used.flags(),
            used_idx: self.used.idx(),
            used: entries.map(|place| self.used.entry(place)).collect(),
            avail_event: self.used.avail_event(),
            taken_idx: self.taken,
        })
    }

    fn slots(&self, buffer: impl Fn(&T, Iova) -> Option<(Iova, usize, usize)>) -> Vec<SlotView> {
        let mut slots: Vec<_> = (0..self.descs.len())
            .map(|index| {
                let words = self.descs[index].words();
                SlotView {
                    iova: self.descs.iova(index),
                    words: words.to_vec(),
                    text: describe_split(words),
                    owner: Owner::Driver,
                    buffer: None,
                }
            })
            .collect();
        // What the device says it used, no more than the ring has room for.
        let ahead = self.used.idx().wrapping_sub(self.taken);
        let done: HashSet<u32> = (0..ahead.min(self.mask + 1))
            .map(|past| self.used.entry(self.taken.wrapping_add(past) & self.mask).0)
            .collect();
        for id in 0..slots.len() {
            let Some((token, seq, count)) = self.chains.chain(id) else {
                continue;
            };
            let is_done = if self.in_order {
                seq - self.chains.popped() < u64::from(ahead)
            } else {
                done.contains(&(id as u32))
            };
            let owner = match seq < self.chains.published() {
                false => Owner::Driver,
                true if is_done => Owner::Done,
                true => Owner::Device,
            };
            let mut at = id as u16;
            for _ in 0..count {
                let slot = &mut slots[usize::from(at)];
                let iova = Iova(slot.words[0]);
                let len = SplitWord::from(slot.words[1]).len;
                let table = self.tables.as_ref().and_then(|t| t.at(iova, len));
                slot.owner = owner;
                slot.buffer = table.or_else(|| buffer(token, iova));
                at = self.chains.after(at);
            }
        }
        slots
    }
}

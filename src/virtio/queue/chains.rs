//! What the driver knows of the chains that the device has: out of the device's reach, so that
//! nothing has to be believed.
//!
//! A chain goes by the id of its first slot. Slots that are free form a list; those of one chain
//! stay linked in the same order. Where the device works in order (VIRTIO_F_IN_ORDER) they go out
//! and come back round in a circle, and the links never change.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "of our own numbers: places and counts up to the ring's size, chains counted in 64 bits; what \
              the device wrote is compared, or subtracted with wrapping, before it is one of them"
)]

use std::cell::Cell;

use super::ring::{EMPTY, OnDrop, Piece, RingConfig};
use crate::error::Error;
use crate::irq::Departure;
use crate::ring_state::RingState;

/// The chains of one queue.
pub(super) struct Chains<T> {
    slots: Box<[Slot<T>]>,
    /// The first of the list.
    first_free: u16,
    /// Descriptors that are free.
    room: usize,
    /// Chains pushed so far, ever.
    pushed: u64,
    /// Those of them that the device may know of.
    published: u64,
    /// Chains taken back so far, ever.
    popped: u64,
    /// With IN_ORDER: the chain that comes back next.
    oldest: u16,
    /// With IN_ORDER: all before this one have been used.
    used: u64,
    /// With IN_ORDER: what the device wrote into the last of those.
    used_len: u32,
    index: u16,
    state: RingState,
    /// Descriptors that are free while the ring does not run. They are no room: so a push is refused
    /// by the look at the room that it makes anyhow, at no cost of its own.
    withheld: usize,
}

struct Slot<T> {
    /// `Some` while a chain begins here.
    token: Option<T>,
    /// How many chains were pushed before this one.
    seq: u64,
    /// Bytes that the device may write.
    writable: u32,
    /// Descriptors of the chain.
    count: u16,
    /// The next slot of the chain, or of the free list.
    next: u16,
}

impl<T> Slot<T> {
    /// How many bytes were written into the chain that begins here, if there is one; the device has
    /// been shown the first `published` chains.
    #[inline]
    fn written(&self, published: u64, said: Said) -> Result<u32, Lie> {
        if self.seq >= published || said.len > self.writable {
            return self.unlikely(published, said);
        }
        Ok(said.len)
    }

    #[cold]
    fn unlikely(&self, published: u64, said: Said) -> Result<u32, Lie> {
        match said {
            _ if self.token.is_none() => Err(Lie::Id(said.id)),
            _ if self.seq >= published => Err(Lie::Unpublished(said.id)),
            _ if said.sure => Err(Lie::Length(said.id, said.len)),
            _ => Ok(0),
        }
    }
}

/// The chain that `said` is about leaves its slots, which go to the front of the free list, where
/// they are warm. Gives its token, bytes written, descriptors.
// Always: what it gives is too large for registers, and must not go through memory for each packet.
#[inline(always)]
fn give_back<T>(
    slots: &mut [Slot<T>],
    published: u64,
    first_free: &mut u16,
    said: Said,
    linked: bool,
) -> Result<(T, u32, u16), Lie> {
    let Some(slot) = slots.get_mut(said.id as usize) else {
        return Err(Lie::Id(said.id));
    };
    // One that was not published is still the driver's: the device would get it after its memory was
    // given back.
    let written = slot.written(published, said)?;
    let Some(token) = slot.token.take() else {
        return Err(Lie::Id(said.id));
    };
    let count = slot.count;
    if !linked || count == 1 {
        slot.next = *first_free;
    } else {
        let mut last = said.id as u16;
        for _ in 1..count {
            last = slots[usize::from(last)].next;
        }
        slots[usize::from(last)].next = *first_free;
    }
    *first_free = said.id as u16;
    Ok((token, written, count))
}

/// What the device says of a chain that it used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    /// Which one.
    pub id: u32,
    /// Bytes that it wrote into it.
    pub len: u32,
    /// A length that cannot be is a lie; else it counts for nothing.
    pub sure: bool,
}

/// What the device said that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// It used a chain that there is not.
    Id(u32),
    /// It used a chain that it has not been shown.
    Unpublished(u32),
    /// It wrote more than there was room for: id, length.
    Length(u32, u32),
    /// It used more chains than it has.
    Ahead(u16),
    /// With IN_ORDER, it used a chain beyond where it says it is.
    Order(u32),
}

impl<T> Chains<T> {
    pub(super) fn new(config: &RingConfig) -> Self {
        let slots = (0..config.size).map(|_| Slot {
            token: None,
            seq: 0,
            writable: 0,
            count: 0,
            next: 0,
        });
        let mut chains = Self {
            slots: slots.collect(),
            first_free: 0,
            room: 0,
            pushed: 0,
            published: 0,
            popped: 0,
            oldest: 0,
            used: 0,
            used_len: 0,
            index: config.index,
            state: RingState::new(&config.device, Departure::of(&*config.device), || {}),
            withheld: 0,
        };
        chains.begin();
        chains
    }

    /// All are free, in a circle.
    fn begin(&mut self) {
        let size = self.slots.len();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.next = if index + 1 == size {
                0
            } else {
                index as u16 + 1
            };
        }
        (self.first_free, self.oldest, self.room) = (0, 0, size);
        (self.pushed, self.published, self.popped, self.used) = (0, 0, 0, 0);
        self.withheld = 0;
        self.state.start();
    }

    /// Descriptors that can be filled: none where the ring does not run.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Descriptors that are of no chain.
    pub(super) fn free(&self) -> usize {
        self.room + self.withheld
    }

    /// The state that the ring shares with those that stop with it.
    #[inline]
    pub(super) fn state(&self) -> &RingState {
        &self.state
    }

    pub(super) fn share(&mut self, state: &RingState) {
        self.state = state.clone();
    }

    /// Nothing more is pushed until [`Chains::reset`], and nothing used is taken back.
    pub(super) fn close(&mut self) {
        self.withheld += std::mem::take(&mut self.room);
        // What was used before stays with the ring, too.
        self.used = self.popped;
    }

    /// Chains pushed and not taken back.
    #[inline]
    pub(super) fn in_flight(&self) -> usize {
        (self.pushed - self.popped) as usize
    }

    /// Chains pushed so far, ever.
    #[inline]
    pub(super) fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Those of them that the device may know of.
    #[inline]
    pub(super) fn published(&self) -> u64 {
        self.published
    }

    /// The device may know of all.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.published = self.pushed;
    }

    /// Chains that the device knows and that were not taken back.
    #[inline]
    pub(super) fn with_device(&self) -> u64 {
        self.published - self.popped
    }

    /// The id of the chain to be pushed next, which is its first slot.
    #[inline]
    pub(super) fn next_id(&self) -> u16 {
        self.first_free
    }

    /// The slot after `slot`.
    #[inline]
    pub(super) fn after(&self, slot: u16) -> u16 {
        self.slots[usize::from(slot)].next
    }

    /// The chain from [`Chains::next_id`] to slot `last` belongs to the ring; it has `count`
    /// descriptors, of which the caller knows that they are free.
    #[inline]
    pub(super) fn put(&mut self, last: u16, count: u16, writable: u32, token: T) {
        let id = self.first_free;
        self.first_free = self.slots[usize::from(last)].next;
        let slot = &mut self.slots[usize::from(id)];
        // Nothing was there: `forget` says so to the compiler.
        std::mem::forget(slot.token.replace(token));
        slot.seq = self.pushed;
        slot.writable = writable;
        slot.count = count;
        self.room -= usize::from(count);
        self.pushed += 1;
    }

    /// As [`Chains::put`] for a chain of one descriptor.
    #[inline]
    pub(super) fn put_one(&mut self, writable: u32, token: T) {
        let slot = &mut self.slots[usize::from(self.first_free)];
        std::mem::forget(slot.token.replace(token));
        slot.seq = self.pushed;
        slot.writable = writable;
        slot.count = 1;
        self.first_free = slot.next;
        self.room -= 1;
        self.pushed += 1;
    }

    /// As [`Chains::put`] for many of one piece each, from [`Chains::next_id`] on, as long as there is
    /// room; before each, `write` gets its id, how many were pushed before it, and its piece. Gives
    /// how many.
    ///
    /// A panic of `items` comes between two chains, of which each is either kept here or was not written:
    /// what counts them is put down on the way out, whichever way that is.
    #[inline]
    pub(super) fn put_each(
        &mut self,
        is_writable: bool,
        items: impl Iterator<Item = (Piece, T)>,
        mut write: impl FnMut(u16, u64, Piece),
    ) -> usize {
        let (before, room) = (self.pushed, self.room);
        let slots = &mut self.slots[..];
        // All in registers, meanwhile.
        let at = Cell::new((self.first_free, self.pushed));
        let (first_free, pushed, left) = (&mut self.first_free, &mut self.pushed, &mut self.room);
        let put_down = OnDrop(|| {
            (*first_free, *pushed) = at.get();
            *left -= (*pushed - before) as usize;
        });
        for (piece, token) in items.take(room) {
            let (id, seq) = at.get();
            assert!(piece.len > 0, "{EMPTY}");
            let slot = &mut slots[usize::from(id)];
            write(id, seq, piece);
            std::mem::forget(slot.token.replace(token));
            slot.seq = seq;
            slot.writable = if is_writable { piece.len } else { 0 };
            slot.count = 1;
            at.set((slot.next, seq + 1));
        }
        drop(put_down);
        (at.get().1 - before) as usize
    }

    /// The device says that it used a chain. Gives the token, bytes written, and the number of
    /// descriptors; `linked`: each has a slot.
    #[inline(always)]
    pub(super) fn take(&mut self, said: Said, linked: bool) -> Result<(T, u32, u16), Lie> {
        let (slots, published) = (&mut self.slots[..], self.published);
        let taken = give_back(slots, published, &mut self.first_free, said, linked)?;
        self.room += usize::from(taken.2);
        self.popped += 1;
        Ok(taken)
    }

    /// As [`Chains::take`] for each of `said`, until there are no more, at most `most`. Gives how many,
    /// and what was wrong. Where `take` panics, what it got is its own, and the rest is still here.
    #[inline]
    pub(super) fn take_each(
        &mut self,
        linked: bool,
        most: usize,
        mut said: impl FnMut() -> Option<Said>,
        mut take: impl FnMut(T, u32, u16),
    ) -> (usize, Result<(), Lie>) {
        let (slots, published) = (&mut self.slots[..], self.published);
        // All in registers, meanwhile.
        let at = Cell::new((self.first_free, self.room, 0));
        let (first_free, room, popped) = (&mut self.first_free, &mut self.room, &mut self.popped);
        let put_down = OnDrop(|| {
            let count;
            (*first_free, *room, count) = at.get();
            *popped += count;
        });
        let mut end = Ok(());
        while at.get().2 < most as u64
            && let Some(said) = said()
        {
            let (mut first_free, room, count) = at.get();
            match give_back(slots, published, &mut first_free, said, linked) {
                Ok((token, written, descriptors)) => {
                    at.set((first_free, room + usize::from(descriptors), count + 1));
                    take(token, written, descriptors);
                }
                Err(lie) => {
                    end = Err(lie);
                    break;
                }
            }
        }
        drop(put_down);
        (at.get().2 as usize, end)
    }

    /// With IN_ORDER: are there chains that the device used and that were not taken back?
    #[inline]
    pub(super) fn has_used(&self) -> bool {
        self.popped < self.used
    }

    /// With IN_ORDER: the device says that it used all chains up to one; it says elsewhere that there
    /// are at most `most` of them.
    #[inline]
    pub(super) fn used_up_to(&mut self, said: Said, most: u64) -> Result<(), Lie> {
        let slot = self.slots.get(said.id as usize).ok_or(Lie::Id(said.id))?;
        if slot.token.is_none() {
            return Err(Lie::Id(said.id));
        }
        let len = slot.written(self.published, said)?;
        if slot.seq - self.popped >= most {
            return Err(Lie::Order(said.id));
        }
        (self.used, self.used_len) = (slot.seq + 1, len);
        Ok(())
    }

    /// With IN_ORDER: the next of the chains that [`Chains::used_up_to`] told of, with bytes written
    /// and descriptors. Those before the last count as used completely, §2.7.9 and §2.8.9.
    #[inline]
    pub(super) fn take_oldest(&mut self, linked: bool) -> Option<(T, u32, u16)> {
        let size = self.slots.len();
        let slot = &mut self.slots[usize::from(self.oldest)];
        let token = slot.token.take()?;
        let count = slot.count;
        self.popped += 1;
        let written = if self.popped == self.used {
            self.used_len
        } else {
            slot.writable
        };
        let next = usize::from(self.oldest) + if linked { usize::from(count) } else { 1 };
        self.oldest = if next >= size { next - size } else { next } as u16;
        self.room += usize::from(count);
        Some((token, written, count))
    }

    /// `count` chains of one descriptor went out and came back without tokens, while there was none
    /// with any. Gives the id of the first of them; the others follow, round the ring.
    pub(super) fn skip(&mut self, count: u64, in_order: bool) -> u16 {
        let first = if in_order { self.first_free } else { 0 };
        if in_order {
            let next = (u64::from(first) + count) % self.slots.len() as u64;
            (self.first_free, self.oldest) = (next as u16, next as u16);
        }
        self.pushed += count;
        (self.published, self.popped, self.used) = (self.pushed, self.pushed, self.pushed);
        first
    }

    /// Gives back all tokens, in the order of their pushing, and begins anew.
    pub(super) fn reset(&mut self) -> Vec<T> {
        let slots = self.slots.iter_mut();
        let taken = slots.filter_map(|slot| Some((slot.seq, slot.token.take()?)));
        let mut tokens: Vec<_> = taken.collect();
        tokens.sort_by_key(|(seq, _)| *seq);
        self.begin();
        tokens.into_iter().map(|(_, token)| token).collect()
    }

    /// The device lied: the ring is broken, and those that share its state.
    #[cold]
    pub(super) fn shut(&mut self, lie: Lie) -> Error {
        let (size, index) = (self.slots.len(), self.index);
        let what = match lie {
            Lie::Id(id) => format!("used id {id}, which it has not (a ring of {size})"),
            Lie::Unpublished(id) => format!("used id {id}, which was not made available yet"),
            Lie::Length(id, len) => format!(
                "{len} bytes written into chain {id}, which has room for {}",
                self.slots[id as usize].writable
            ),
            Lie::Ahead(ahead) => {
                format!("{ahead} chains used, of {} that it has", self.with_device())
            }
            Lie::Order(id) => format!("used id {id}, which is beyond its used index"),
        };
        self.close();
        self.state.mark_broken(format!("queue {index}: {what}"))
    }

    /// The chain `id`, to be shown: its token, how many were pushed before it, and its descriptors.
    pub(super) fn chain(&self, id: usize) -> Option<(&T, u64, u16)> {
        let slot = self.slots.get(id)?;
        Some((slot.token.as_ref()?, slot.seq, slot.count))
    }

    /// With IN_ORDER: how many chains the device is known to have used.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// How many chains were taken back so far.
    pub(super) fn popped(&self) -> u64 {
        self.popped
    }
}

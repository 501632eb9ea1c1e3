//! The driver's shadow of the chains that the device has: out of the device's reach, so that nothing has to be
//! believed.
//!
//! A chain goes by the id of its first slot. Slots that are free form a list; those of one chain
//! stay linked in the same order. As long as chains come back in the order of their pushing, as most
//! devices give them and VIRTIO_F_IN_ORDER promises, they go out and come back round in a circle: the
//! links never change, and a batch is a stretch of slots. The first that comes out of order makes the
//! circle a list, whose last-freed slot goes out first.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "of our own numbers: places and counts up to the ring's size, chains counted in 64 bits; what \
              the device wrote is compared, or subtracted with wrapping, before it is one of them"
)]

use super::ring::{Piece, RingConfig, Sink};
use crate::dma::Iova;
use crate::error::Error;
use crate::irq::Removal;
use crate::ring_state::RingState;

/// The chains of one queue.
pub(super) struct Chains<T> {
    slots: Box<[Slot]>,
    /// `Some` where a chain begins. By themselves, so that those of a batch are moved in one go.
    tokens: Box<[Option<T>]>,
    /// The first of the list.
    first_free: u16,
    /// Descriptors that are free.
    room: usize,
    /// Chains in flight that have more than one descriptor.
    long: usize,
    /// [`Slot::writable`] of every slot, where it is the same: a batch of such chains leaves the slots as they
    /// are.
    uniform: Option<u32>,
    /// Chains pushed so far, ever.
    pushed: u64,
    /// Those of them that the device may know of.
    published: u64,
    /// Chains taken back so far, ever.
    popped: u64,
    /// Chains came back in the order of their pushing so far: links go round in a circle.
    is_circle: bool,
    /// Each descriptor of a chain has a slot, in a split ring; else the chain has one.
    is_linked: bool,
    /// In a circle: the chain that was pushed first of those in flight.
    oldest: u16,
    /// Where tokens are not kept in a circle: [`Chains::popped`] as it was when the first came back out of order.
    since: u64,
    /// With IN_ORDER: all before this one have been used.
    used: u64,
    /// With IN_ORDER: what the device wrote into the last of those.
    used_len: u32,
    index: u16,
    state: RingState,
    /// Descriptors that are free while the ring does not run. They are no room: so a submission is refused
    /// by the look at the room that it makes anyhow, at no cost of its own.
    withheld: usize,
}

#[derive(Clone)]
struct Slot {
    /// Number of chains that were pushed before this one; in a circle its place says so
    /// ([`Chains::seq`]).
    seq: u64,
    /// Bytes that the device may write.
    writable: u32,
    /// Descriptors of the chain; 1 while none begins here, so that one of a single descriptor finds it so.
    count: u16,
    /// The next slot of the chain, or of the free list.
    next: u16,
}

/// Counts the chains of a batch, in a register; `put_down` gets how many on the way out, also by a
/// panic, so that what a ring counts is right whoever panics in between.
struct Batch<F: FnMut(usize)> {
    count: usize,
    put_down: F,
}

impl<F: FnMut(usize)> Drop for Batch<F> {
    #[inline]
    fn drop(&mut self) {
        (self.put_down)(self.count);
    }
}

/// As [`Batch`], with the tokens that are not moved yet.
struct Front<'a, T, F: FnMut(&mut Vec<T>, usize)> {
    tokens: &'a mut Vec<T>,
    count: usize,
    put_down: F,
}

impl<T, F: FnMut(&mut Vec<T>, usize)> Drop for Front<'_, T, F> {
    #[inline]
    fn drop(&mut self) {
        (self.put_down)(self.tokens, self.count);
    }
}

/// Puts a token where none is.
#[inline]
fn put_token<T>(to: &mut Option<T>, token: T) {
    debug_assert!(to.is_none(), "a free slot");
    // `forget` says so to the compiler.
    std::mem::forget(to.replace(token));
}

/// A used element: the device's report on a chain that it used.
#[derive(Debug, Clone, Copy)]
pub(super) struct UsedElem {
    /// The chain's id.
    pub id: u32,
    /// Bytes that it wrote into it.
    pub len: u32,
    /// A length that cannot be breaks the protocol; else it counts for nothing.
    pub sure: bool,
}

/// A used element that breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsedError {
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

/// Fills the slots `to` with the tokens that `fresh` gives, each for a chain of one piece of `len` bytes; the first
/// has the id `id`. `put_down` gets how many, and `places` begins the places of their descriptors.
#[inline(never)] // by itself it needs few registers
fn refill<T, I: Iterator<Item = T>, P: Iterator>(
    (to, id): (&mut [Option<T>], u16),
    places: impl FnOnce() -> P,
    mut fresh: I,
    len: u32,
    iova: impl Fn(&T) -> Iova,
    mut write: impl FnMut(P::Item, u16, Piece),
    put_down: impl FnMut(usize),
) -> (usize, I) {
    let mut batch = Batch { count: 0, put_down };
    // Places first: with none left, no token is asked for.
    for (to, place) in to.iter_mut().zip(places()) {
        let Some(token) = fresh.next() else { break };
        let iova = iova(&token);
        put_token(to, token);
        write(place, id + batch.count as u16, Piece { iova, len });
        batch.count += 1;
    }
    (batch.count, fresh)
}

/// Asks `sink` of the chains `tokens`, which come with the used elements `words`; gives how many it accepts
/// before the first that is not the next one, or whose length is not from that in `begin` on within `spread`.
/// `begin` is the least word of the first.
#[inline(never)] // by itself it needs few registers
fn accept<T>(
    tokens: &mut [Option<T>],
    words: impl Iterator<Item = u64>,
    (begin, spread): (u64, u32),
    sink: &mut impl Sink<T>,
) -> usize {
    const NEXT: u64 = 1 << 32;
    let (mut count, mut least) = (0, begin);
    for (token, word) in tokens.iter_mut().zip(words) {
        // One comparison for the id and both bounds: with any other id, or a lesser length, the difference
        // wraps round to a greater one.
        if word.wrapping_sub(least) > u64::from(spread) {
            break;
        }
        let Some(token) = token else { break };
        if !sink.accept(token, word as u32) {
            break;
        }
        count += 1;
        least = least.wrapping_add(NEXT);
    }
    count
}

impl<T> Chains<T> {
    pub(super) fn new(config: &RingConfig, is_linked: bool) -> Self {
        let slot = Slot {
            seq: 0,
            writable: 0,
            count: 1,
            next: 0,
        };
        let mut chains = Self {
            slots: vec![slot; config.size.into()].into(),
            tokens: (0..config.size).map(|_| None).collect(),
            first_free: 0,
            room: 0,
            long: 0,
            uniform: Some(0),
            pushed: 0,
            published: 0,
            popped: 0,
            is_circle: true,
            is_linked,
            oldest: 0,
            since: 0,
            used: 0,
            used_len: 0,
            index: config.index,
            state: RingState::new(&config.device, Removal::of(&*config.device), || {}),
            withheld: 0,
        };
        chains.begin();
        chains
    }

    /// All are free, in a circle.
    fn begin(&mut self) {
        self.link();
        self.room = self.slots.len();
        (self.pushed, self.published, self.popped, self.used) = (0, 0, 0, 0);
        (self.long, self.withheld) = (0, 0);
        self.state.start();
    }

    /// Links all slots, of which none is of a chain, in a circle.
    fn link(&mut self) {
        let size = self.slots.len();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.count = 1;
            slot.next = if index + 1 == size {
                0
            } else {
                index as u16 + 1
            };
        }
        (self.first_free, self.oldest, self.is_circle) = (0, 0, true);
    }

    /// Makes the list a circle again where no chain is in flight: not more often than once in so many
    /// chains that it costs each of them nothing.
    #[cold]
    fn link_again(&mut self) {
        let rarely = 8 * self.slots.len() as u64;
        if self.in_flight() == 0 && self.popped - self.since >= rarely {
            self.link();
        }
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
        slot.seq = self.pushed;
        slot.writable = writable;
        slot.count = count;
        put_token(&mut self.tokens[usize::from(id)], token);
        if self.uniform != Some(writable) {
            self.uniform = None;
        }
        self.room -= usize::from(count);
        self.long += usize::from(count > 1);
        self.pushed += 1;
    }

    /// As [`Chains::put`] for a chain of one descriptor.
    #[inline]
    pub(super) fn put_one(&mut self, writable: u32, token: T) {
        let id = usize::from(self.first_free);
        let slot = &mut self.slots[id];
        slot.seq = self.pushed;
        slot.writable = writable;
        put_token(&mut self.tokens[id], token);
        if self.uniform != Some(writable) {
            self.uniform = None;
        }
        self.first_free = slot.next;
        self.room -= 1;
        self.pushed += 1;
    }

    /// The free slots that lie side by side from [`Chains::next_id`] on, in a circle, for chains into which the
    /// device may write `writable` bytes: where they begin, and how many a batch may take. None while the
    /// links are a list, or other chains are in flight.
    #[inline]
    pub(super) fn free_run(&mut self, writable: u32) -> (usize, usize) {
        if !self.is_circle {
            self.link_again();
        }
        if self.uniform != Some(writable) {
            self.make_uniform(writable);
        }
        let (first, size) = (usize::from(self.first_free), self.slots.len());
        let is_run = self.is_circle && self.uniform == Some(writable);
        let run = if is_run { size - first } else { 0 };
        (first, run.min(self.room))
    }

    /// Sets [`Chains::uniform`], where no chain is in flight.
    #[cold]
    fn make_uniform(&mut self, writable: u32) {
        if self.in_flight() == 0 {
            self.slots
                .iter_mut()
                .for_each(|slot| slot.writable = writable);
            self.uniform = Some(writable);
        }
    }

    /// As [`Chains::put_one`] for many with `len` bytes for the device to write, into `run` slots of
    /// [`Chains::free_run`], or as many as there are `tokens`; gives how many, and the other tokens. For each `write` gets its place,
    /// id and piece; `passed` gets how many there were.
    ///
    /// A panic of `tokens` comes between two chains, of which each is either kept here or was not written:
    /// what counts them is put down once, on the way out, whichever way that is.
    #[inline(always)]
    pub(super) fn refill_run<I: Iterator<Item = T>, P: Iterator>(
        &mut self,
        len: u32,
        tokens: I,
        (run, places): (usize, impl FnOnce() -> P),
        iova: impl Fn(&T) -> Iova,
        write: impl FnMut(P::Item, u16, Piece),
        mut passed: impl FnMut(usize),
    ) -> (usize, I) {
        let (first, size) = (self.first_free, self.slots.len());
        let to = &mut self.tokens[usize::from(first)..][..run];
        let (next, pushed, room) = (&mut self.first_free, &mut self.pushed, &mut self.room);
        let put_down = |count: usize| {
            let past = usize::from(first) + count;
            *next = if past == size { 0 } else { past as u16 };
            *pushed += count as u64;
            *room -= count;
            passed(count);
        };
        refill((to, first), places, tokens, len, iova, write, put_down)
    }

    /// As [`Chains::refill_run`] for the front of `tokens`, for the device to read, as long as `piece` knows where each is: all
    /// descriptors first and the tokens after, each in one go.
    #[inline(always)]
    pub(super) fn put_front<P>(
        &mut self,
        tokens: &mut Vec<T>,
        places: impl Iterator<Item = P>,
        mut piece: impl FnMut(&mut T) -> Option<Piece>,
        mut write: impl FnMut(P, u16, Piece),
        mut passed: impl FnMut(usize),
    ) -> usize {
        let (first, size) = (self.first_free, self.slots.len());
        let shadow = &mut self.tokens[usize::from(first)..];
        let (next, pushed, room) = (&mut self.first_free, &mut self.pushed, &mut self.room);
        let mut front = Front {
            tokens,
            count: 0,
            put_down: |tokens: &mut Vec<T>, count: usize| {
                for (to, token) in shadow.iter_mut().zip(tokens.drain(..count)) {
                    put_token(to, token);
                }
                let past = usize::from(first) + count;
                *next = if past == size { 0 } else { past as u16 };
                *pushed += count as u64;
                *room -= count;
                passed(count);
            },
        };
        for (place, token) in places.zip(front.tokens.iter_mut()) {
            let Some(piece) = piece(token).filter(|piece| piece.len > 0) else {
                break;
            };
            write(place, first + front.count as u16, piece);
            front.count += 1;
        }
        front.count
    }

    /// As [`Chains::take`] for the rule: a chain of one descriptor that comes back in order. `None`:
    /// ask [`Chains::take`].
    #[inline]
    pub(super) fn take_next(&mut self, elem: UsedElem) -> Option<(T, u32)> {
        let id = elem.id as usize;
        let slot = self.slots.get(id)?;
        let is_plain = self.is_circle && slot.count == 1;
        if !is_plain
            || elem.id != u32::from(self.oldest)
            || self.popped >= self.published
            || elem.len > slot.writable
        {
            return None;
        }
        let token = self.tokens.get_mut(id)?.take()?;
        self.oldest = if id + 1 == self.slots.len() {
            0
        } else {
            id as u16 + 1
        };
        self.room += 1;
        self.popped += 1;
        Some((token, elem.len))
    }

    /// The device says that it used a chain. Gives the token, bytes written, and the number of
    /// descriptors.
    #[inline(never)] // not the rule
    pub(super) fn take(&mut self, elem: UsedElem) -> Result<(T, u32, u16), UsedError> {
        let written = self.written(elem)?;
        let id = elem.id as u16;
        if self.is_circle && id != self.oldest {
            // The free part of the circle is a list as it is: `room` says how long.
            self.number();
            (self.is_circle, self.since) = (false, self.popped);
        }
        let token = self.tokens[usize::from(id)].take();
        let token = token.ok_or(UsedError::Id(elem.id))?;
        let slots = self.slots_of(id);
        let count = std::mem::replace(&mut self.slots[usize::from(id)].count, 1);
        self.room += usize::from(count);
        self.long -= usize::from(count > 1);
        self.popped += 1;
        self.release(id, slots);
        Ok((token, written, count))
    }

    /// The `count` slots of chain `id` are free. In a circle they are so where they are; else they go
    /// to the front of the list, where they are warm.
    fn release(&mut self, id: u16, count: u16) {
        if self.is_circle {
            self.oldest = self.past(id, count);
            return;
        }
        let mut last = usize::from(id);
        for _ in 1..count {
            last = self.slots[last].next.into();
        }
        self.slots[last].next = self.first_free;
        self.first_free = id;
    }

    /// The slot that is `count` after `id`, in a circle.
    #[inline]
    fn past(&self, id: u16, count: u16) -> u16 {
        let (next, size) = (usize::from(id) + usize::from(count), self.slots.len());
        let next = if next >= size { next - size } else { next };
        next as u16
    }

    /// Returns whether every chain in flight has one descriptor and the device has been shown it, and
    /// they are in a circle: what [`Chains::take_run`] asks for, once a batch, so that no chain of it
    /// need be asked.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.is_circle && self.long == 0 && self.published == self.pushed
    }

    /// As [`Chains::take`] for chains that come in order and have nothing wrong with them, up to the end of
    /// the slots, where [`Chains::is_plain`]. `words` are the used elements: flags, which must be `flags`, in
    /// the upper 16 bits, the id in the next and the length in the lower 32. Gives how many there were, as `passed` does; [`Chains::take`] says what is with the
    /// next one.
    ///
    /// All of them are accepted before the first is taken, so that `sink` gets them at once. Where it
    /// panics, what it got is its own, and the rest is still here.
    #[inline(always)]
    pub(super) fn take_run(
        &mut self,
        (words, flags): (impl Iterator<Item = u64>, u16),
        sink: &mut impl Sink<T>,
        mut passed: impl FnMut(usize),
    ) -> usize {
        debug_assert!(self.is_plain());
        let (least, most) = sink.lengths().into_inner();
        let writable = self.uniform.map(|writable| writable.min(most));
        let Some(spread) = writable.and_then(|most| most.checked_sub(least)) else {
            return 0;
        };
        let (first, size) = (self.oldest, self.slots.len());
        // None but those in flight: so each has a token.
        let most = self.in_flight().min(size - usize::from(first));
        let tokens = &mut self.tokens[usize::from(first)..][..most];
        let begin = u64::from(flags) << 48 | u64::from(first) << 32 | u64::from(least);
        let good = accept(tokens, words, (begin, spread), sink);
        let (oldest, popped, room) = (&mut self.oldest, &mut self.popped, &mut self.room);
        let mut batch = Batch {
            count: 0,
            put_down: |count: usize| {
                let past = usize::from(first) + count;
                *oldest = if past == size { 0 } else { past as u16 };
                *popped += count as u64;
                *room += count;
                passed(count);
            },
        };
        let count = &mut batch.count;
        sink.take_all(tokens[..good].iter_mut().map(|token| {
            *count += 1;
            token.take().expect("a chain in flight has one")
        }));
        batch.count
    }

    /// With IN_ORDER: are there chains that the device used and that were not taken back?
    #[inline]
    pub(super) fn has_used(&self) -> bool {
        self.popped < self.used
    }

    /// With IN_ORDER: the device says that it used all chains up to one; it says elsewhere that there
    /// are at most `most` of them.
    #[inline]
    pub(super) fn used_up_to(&mut self, elem: UsedElem, most: u64) -> Result<(), UsedError> {
        let (len, seq) = (self.written(elem)?, self.seq(elem.id as u16));
        if seq - self.popped >= most {
            return Err(UsedError::Order(elem.id));
        }
        (self.used, self.used_len) = (seq + 1, len);
        Ok(())
    }

    /// With IN_ORDER: the next of the chains that [`Chains::used_up_to`] told of, with bytes written
    /// and descriptors. Those before the last count as used completely, §2.7.9 and §2.8.9.
    #[inline]
    pub(super) fn take_oldest(&mut self) -> Option<(T, u32, u16)> {
        let slots = self.slots_of(self.oldest);
        let slot = &mut self.slots[usize::from(self.oldest)];
        let token = self.tokens[usize::from(self.oldest)].take()?;
        let count = std::mem::replace(&mut slot.count, 1);
        self.popped += 1;
        let written = if self.popped == self.used {
            self.used_len
        } else {
            slot.writable
        };
        self.oldest = self.past(self.oldest, slots);
        self.room += usize::from(count);
        self.long -= usize::from(count > 1);
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
        if self.is_circle {
            self.number();
        }
        let slots = self.slots.iter().zip(&mut self.tokens);
        let taken = slots.filter_map(|(slot, token)| Some((slot.seq, token.take()?)));
        let mut tokens: Vec<_> = taken.collect();
        tokens.sort_by_key(|(seq, _)| *seq);
        self.begin();
        tokens.into_iter().map(|(_, token)| token).collect()
    }

    /// The first slots of the chains in flight, in a circle, in the order of their pushing.
    fn in_circle(&self) -> impl Iterator<Item = u16> + use<'_, T> {
        let next = |id: &u16| Some(self.past(*id, self.slots_of(*id)));
        std::iter::successors(Some(self.oldest), next).take(self.in_flight())
    }

    /// Slots that chain `id` takes.
    fn slots_of(&self, id: u16) -> u16 {
        match self.is_linked {
            true => self.slots[usize::from(id)].count,
            false => 1,
        }
    }

    /// Number of chains that were pushed before chain `id`, which is in flight.
    fn seq(&self, id: u16) -> u64 {
        if !self.is_circle {
            return self.slots[usize::from(id)].seq;
        }
        let past = if self.is_linked && self.long > 0 {
            self.in_circle().position(|other| other == id).unwrap_or(0)
        } else {
            let (id, oldest) = (usize::from(id), usize::from(self.oldest));
            let past = id + self.slots.len() - oldest;
            past % self.slots.len()
        };
        self.popped + past as u64
    }

    /// Writes down the numbers of the chains in flight, which are in a circle.
    #[cold]
    fn number(&mut self) {
        let order: Vec<u16> = self.in_circle().collect();
        for (seq, id) in (self.popped..).zip(order) {
            self.slots[usize::from(id)].seq = seq;
        }
    }

    /// Returns the number of bytes that the device wrote into a chain, as far as that can be.
    fn written(&self, elem: UsedElem) -> Result<u32, UsedError> {
        let (Some(slot), Some(Some(_))) = (
            self.slots.get(elem.id as usize),
            self.tokens.get(elem.id as usize),
        ) else {
            return Err(UsedError::Id(elem.id));
        };
        // One that was not published is still the driver's: the device would get it after its memory was
        // given back.
        if self.seq(elem.id as u16) >= self.published {
            return Err(UsedError::Unpublished(elem.id));
        }
        match elem.len {
            len if len <= slot.writable => Ok(len),
            len if elem.sure => Err(UsedError::Length(elem.id, len)),
            _ => Ok(0),
        }
    }

    /// The device broke the protocol: the ring is broken, and those that share its state.
    #[cold]
    pub(super) fn mark_broken(&mut self, error: UsedError) -> Error {
        let (size, index) = (self.slots.len(), self.index);
        let what = match error {
            UsedError::Id(id) => format!("used id {id}, which it has not (a ring of {size})"),
            UsedError::Unpublished(id) => format!("used id {id}, which was not made available yet"),
            UsedError::Length(id, len) => format!(
                "{len} bytes written into chain {id}, which has room for {}",
                self.slots[id as usize].writable
            ),
            UsedError::Ahead(ahead) => {
                format!("{ahead} chains used, of {} that it has", self.with_device())
            }
            UsedError::Order(id) => format!("used id {id}, which is beyond its used index"),
        };
        self.close();
        self.state.mark_broken(format!("queue {index}: {what}"))
    }

    /// The chain `id`, to be shown: its token, how many were pushed before it, and its descriptors.
    pub(super) fn chain(&self, id: usize) -> Option<(&T, u64, u16)> {
        let slot = self.slots.get(id)?;
        let token = self.tokens[id].as_ref()?;
        Some((token, self.seq(id as u16), slot.count))
    }

    /// With IN_ORDER: how many chains the device is known to have used.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Returns the number of chains taken back so far.
    pub(super) fn popped(&self) -> u64 {
        self.popped
    }
}

//! Bookkeeping of a ring whose descriptors say themselves whose they are, by an OWN bit.
//!
//! Such a ring has no head and no tail register. The device goes round on its own, takes each descriptor
//! that has OWN set, and clears the bit as it gives the descriptor back. The driver keeps its own places: where it
//! posts next, and the oldest descriptor that it has not taken back. What OWN says is believed only for
//! descriptors between the two, so that a device which clears the bit of others gives nothing back twice.
//!
//! A driver writes and reads the descriptors itself, in the words of its datasheet; [`OwnRing`] knows which
//! one is next, and owns what is posted with each.

use std::sync::Arc;

use super::front::Front;
use super::limits::TxLimits;
use crate::dma::{DmaArray, DmaBuf, DmaSpace, Iova, Pool, Segment, Shared};
use crate::error::Result;
use crate::inspect::{Owner, RingIndices, RingView, SlotView};
use crate::nic::Frame;

/// A descriptor with an OWN bit.
pub trait OwnDescriptor: Shared {
    /// Returns whether the device has it: OWN is set. Loads it with Acquire, so that what the device wrote before it
    /// cleared the bit is visible after.
    fn is_owned(&self) -> bool;

    /// Takes it away from a device that was reset.
    fn clear(&self);

    /// Its words as they are in memory, and its fields in the datasheet's names, to be shown.
    fn show(&self) -> (Vec<u64>, String);
}

/// Memory that a ring owns while the device has it.
pub trait Posted: Send {
    /// Its first bytes: where the device sees them, where this process does, and its length.
    fn place(&self) -> (Iova, usize, usize);

    /// Gives it up, to [`DmaSpace::quarantine`]: the device did not stop.
    fn quarantine(self);
}

/// An empty buffer for the device to fill.
impl Posted for DmaBuf {
    fn place(&self) -> (Iova, usize, usize) {
        (self.iova(), self.address(), self.capacity())
    }

    fn quarantine(self) {
        self.quarantine();
    }
}

/// A frame for the device to send.
impl Posted for Frame {
    fn place(&self) -> (Iova, usize, usize) {
        (self.first().iova(), self.first().address(), self.len())
    }

    fn quarantine(self) {
        self.quarantine();
    }
}

/// Place of a descriptor that is written: in its frame, and in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The frame begins here.
    pub is_first: bool,
    /// The frame ends here.
    pub is_last: bool,
    /// It is the last descriptor of the ring: the device goes on at the first one.
    pub wraps: bool,
}

/// The descriptors of a ring with OWN bits, and what is posted with them.
pub struct OwnRing<D, T> {
    descs: DmaArray<D>,
    /// In memory that the device cannot reach: each with the last of its descriptors.
    posted: Box<[Option<T>]>,
    /// The descriptor that is posted next.
    next: usize,
    /// The oldest that was not taken back.
    oldest: usize,
    /// Descriptors from there on that were posted.
    used: usize,
    /// Items among them.
    items: usize,
}

impl<D: OwnDescriptor> OwnRing<D, Frame> {
    /// Moves frames from the front of `frames` into the ring, as many as it has room for, each checked against
    /// `limits`: what [`QueuePair::submit`](super::QueuePair::submit) does. `write` fills in the descriptor of a
    /// segment and sets its OWN. Returns how many frames went.
    ///
    /// A frame's first descriptor is written last: the device, which may look at any time, finds OWN there and with it
    /// a whole frame, or no OWN and no frame.
    ///
    /// # Errors
    /// As [`TxLimits::check`]: that frame stays at the front, those before it went.
    pub fn submit(
        &mut self,
        frames: &mut Vec<Frame>,
        limits: &TxLimits,
        write: impl Fn(&D, &Segment, Piece),
    ) -> Result<usize> {
        let (mut front, mut posted) = (Front::of(frames), 0);
        while let Some(frame) = front.first() {
            let count = limits.check(frame)?;
            if count > self.room() {
                break;
            }
            let put = |at: usize, segment: &Segment| {
                let index = self.index(self.next, at);
                let piece = Piece {
                    is_first: at == 0,
                    is_last: at + 1 == count,
                    wraps: index + 1 == self.descs.len(),
                };
                write(&self.descs[index], segment, piece);
            };
            let mut segments = frame.segments().filter(|one| one.len() > 0);
            let first = segments.next();
            segments.zip(1..).for_each(|(one, at)| put(at, one));
            first.into_iter().for_each(|one| put(0, one));
            let Some(frame) = front.take() else { break };
            self.advance(count, frame);
            posted += 1;
        }
        Ok(posted)
    }

    /// Appends to `done` the frames that the device is through with: what
    /// [`QueuePair::completed`](super::QueuePair::completed) does. Returns those.
    pub fn completed<'a>(&mut self, done: &'a mut Vec<Frame>) -> &'a [Frame] {
        let before = done.len();
        while self.is_done() {
            done.extend(self.take());
        }
        &done[before..]
    }
}

impl<D: OwnDescriptor> OwnRing<D, DmaBuf> {
    /// Posts buffers of `pool`, as many as it has and the ring has room for. `write` fills in a descriptor and sets
    /// its OWN, told whether it is the last of the ring, at which the device wraps.
    pub fn refill(&mut self, pool: &Pool, write: impl Fn(&D, &DmaBuf, bool)) {
        for buf in pool.alloc_each().take(self.room()) {
            let wraps = self.next + 1 == self.descs.len();
            write(&self.descs[self.next], &buf, wraps);
            self.advance(1, buf);
        }
    }

    /// Takes the oldest buffer, if the device has filled it, and what `read` finds in its descriptor.
    pub fn poll<S>(&mut self, read: impl FnOnce(&D) -> S) -> Option<(S, DmaBuf)> {
        if !self.is_done() {
            return None;
        }
        let status = read(&self.descs[self.oldest]);
        Some((status, self.take()?))
    }
}

impl<D: OwnDescriptor, T: Posted> OwnRing<D, T> {
    /// A ring of `len` descriptors, all of them the driver's. It begins on a page, which suits every device's wish
    /// for alignment.
    ///
    /// # Errors
    /// As [`DmaArray::alloc`].
    pub fn new(dma: &Arc<dyn DmaSpace>, len: usize) -> Result<Self> {
        Ok(Self {
            descs: DmaArray::alloc(dma, len)?,
            posted: (0..len).map(|_| None).collect(),
            next: 0,
            oldest: 0,
            used: 0,
            items: 0,
        })
    }

    /// Address of its first descriptor for the device.
    pub fn iova(&self) -> Iova {
        self.descs.iova(0)
    }

    /// Number of descriptors that can be posted now. All of the ring can be: it is full where each has OWN
    /// set, so that none stays empty to tell full from empty.
    pub fn room(&self) -> usize {
        self.descs.len() - self.used
    }

    /// Number of frames, or buffers, that are posted and were not taken back.
    pub fn in_flight(&self) -> usize {
        self.items
    }

    /// Returns whether the device has given back the oldest descriptor that was posted.
    pub fn is_done(&self) -> bool {
        self.used > 0 && !self.descs[self.oldest].is_owned()
    }

    /// The next `count` descriptors were written, for `item`.
    fn advance(&mut self, count: usize, item: T) {
        debug_assert!((1..=self.room()).contains(&count));
        let last = self.index(self.next, count - 1);
        self.posted[last] = Some(item);
        self.next = self.index(last, 1);
        self.used += count;
        self.items += 1;
    }

    /// Takes the oldest descriptor back, and what was posted with it, if it is the last one of that.
    fn take(&mut self) -> Option<T> {
        let item = self.posted[self.oldest].take();
        self.oldest = self.index(self.oldest, 1);
        self.used -= 1;
        self.items -= usize::from(item.is_some());
        item
    }

    /// Begins anew, after the device was reset: all descriptors are the driver's. Gives what was posted.
    pub fn restart(&mut self) -> impl Iterator<Item = T> {
        self.descs.iter().for_each(D::clear);
        (self.next, self.oldest, self.used, self.items) = (0, 0, 0, 0);
        self.posted.iter_mut().filter_map(Option::take)
    }

    /// The device did not stop, and may go on reaching descriptors and what is posted: both are left to
    /// [`DmaSpace::quarantine`].
    pub fn quarantine(&mut self) {
        self.descs.quarantine();
        let posted = self.posted.iter_mut().filter_map(Option::take);
        posted.for_each(T::quarantine);
    }

    /// The ring, to be shown: `name` is "transmit" or "receive".
    pub fn view(&self, name: &'static str, pair: usize) -> RingView {
        let len = self.descs.len();
        let slot = |(at, desc): (usize, &D)| {
            let is_posted = (at + len - self.oldest) % len < self.used;
            let (words, text) = desc.show();
            SlotView {
                iova: self.descs.iova(at),
                words,
                text,
                owner: match (is_posted, desc.is_owned()) {
                    (false, _) => Owner::Driver,
                    (true, true) => Owner::Device,
                    (true, false) => Owner::Done,
                },
                buffer: self.posted[at].as_ref().map(T::place),
            }
        };
        RingView {
            name,
            pair,
            address: self.descs.as_ptr().addr(),
            indices: RingIndices::Own {
                next: self.next as u32,
                oldest: self.oldest as u32,
            },
            slots: self.descs.iter().enumerate().map(slot).collect(),
        }
    }

    fn index(&self, from: usize, ahead: usize) -> usize {
        (from + ahead) % self.descs.len()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::backend::{Backend, Fake};
    use crate::error::Error;

    const LEN: usize = 4;
    const OWN: u64 = 1 << 63;

    crate::descriptor! {
        /// OWN and what the driver says, then nothing.
        #[repr(C, align(16))]
        pub struct Desc([AtomicU64; 2]);
    }

    impl Desc {
        fn put(&self, word: u64) {
            self.0[0].store(OWN | word, Ordering::Release);
        }

        fn give_back(&self) {
            self.0[0].fetch_and(!OWN, Ordering::Relaxed);
        }
    }

    impl OwnDescriptor for Desc {
        fn is_owned(&self) -> bool {
            self.0[0].load(Ordering::Acquire) & OWN != 0
        }

        fn clear(&self) {
            self.0[0].store(0, Ordering::Relaxed);
        }

        fn show(&self) -> (Vec<u64>, String) {
            let words = self.0.each_ref();
            let words = words.map(|word| word.load(Ordering::Relaxed));
            (words.to_vec(), format!("word={:#x}", words[0]))
        }
    }

    /// A ring, its limits, and a pool for frames.
    fn ring() -> (OwnRing<Desc, Frame>, TxLimits, Pool) {
        let fake = Fake::idle();
        let ring = OwnRing::new(fake.dma(), LEN).unwrap();
        let limits = TxLimits::plain("fake", fake.dma().id(), (1, 1000), LEN);
        (ring, limits, Pool::new(fake.dma(), 16, 64).unwrap())
    }

    /// A frame of `count` buffers, whose first byte is `name`; one of them is empty.
    fn frame(pool: &Pool, name: u8, count: usize) -> Frame {
        let buf = |content: &[u8]| {
            let mut buf = pool.alloc().unwrap();
            buf.fill(content);
            buf
        };
        let mut frame = Frame::from(buf(&[name]));
        frame.append(buf(&[]));
        (1..count).for_each(|_| frame.append(buf(&[0])));
        frame
    }

    #[test]
    fn the_first_descriptor_of_a_frame_is_written_last() {
        let (mut ring, limits, pool) = ring();
        let written = RefCell::new(Vec::new());
        let post = |_: &Desc, segment: &Segment, piece: Piece| {
            let name = segment.array::<1>(0).unwrap()[0];
            written
                .borrow_mut()
                .push((name, piece.is_first, piece.is_last));
        };
        let mut frames = vec![frame(&pool, 7, 3), frame(&pool, 8, 1)];
        assert_eq!(ring.submit(&mut frames, &limits, post).unwrap(), 2);
        let expected = [
            (0, false, false),
            (0, false, true),
            (7, true, false),
            (8, true, true),
        ];
        assert_eq!(*written.borrow(), expected);
        assert_eq!((ring.room(), ring.in_flight()), (0, 2));
    }

    #[test]
    fn frames_come_back_whole_and_in_order_however_often_the_ring_wraps() {
        let (mut ring, limits, pool) = ring();
        let wraps = RefCell::new(0);
        let post = |desc: &Desc, _: &Segment, piece: Piece| {
            desc.put(0);
            *wraps.borrow_mut() += usize::from(piece.wraps);
        };
        let mut done = Vec::new();
        for name in 0..20 {
            let mut frames = vec![frame(&pool, name, 3), frame(&pool, 99, 2)];
            // The second has no room beside the first.
            assert_eq!(ring.submit(&mut frames, &limits, post).unwrap(), 1);
            assert_eq!(frames[0].to_vec(), [99, 0]);
            assert!(ring.completed(&mut done).is_empty(), "the device has it");
            ring.descs.iter().for_each(Desc::give_back);
            let completed = ring.completed(&mut done);
            assert_eq!(completed.len(), 1);
            assert_eq!(completed[0].to_vec(), [name, 0, 0]);
            done.clear();
        }
        assert_eq!(*wraps.borrow(), 20 * 3 / LEN);
    }

    #[test]
    fn a_device_that_clears_own_of_others_gives_nothing_back() {
        let (mut ring, limits, pool) = ring();
        ring.descs.iter().for_each(Desc::give_back);
        assert!(!ring.is_done() && ring.completed(&mut Vec::new()).is_empty());
        let mut frames = vec![frame(&pool, 1, 1)];
        let post = |desc: &Desc, _: &Segment, _: Piece| desc.put(1);
        ring.submit(&mut frames, &limits, post).unwrap();
        ring.descs[1..].iter().for_each(Desc::give_back);
        assert!(!ring.is_done());
        ring.descs.iter().for_each(Desc::give_back);
        let mut done = Vec::new();
        assert_eq!(ring.completed(&mut done).len(), 1);
        assert!(ring.completed(&mut done).is_empty(), "once is once");
    }

    #[test]
    fn what_cannot_be_sent_stays_and_what_stood_before_it_goes() {
        let (mut ring, limits, pool) = ring();
        let too_many = frame(&pool, 2, LEN + 1);
        let mut frames = vec![frame(&pool, 1, 1), too_many, frame(&pool, 3, 1)];
        let post = |desc: &Desc, _: &Segment, _: Piece| desc.put(0);
        let error = ring.submit(&mut frames, &limits, post).unwrap_err();
        assert!(matches!(error, Error::Usage(_)), "{error}");
        let names: Vec<u8> = frames.iter().map(|frame| frame.to_vec()[0]).collect();
        assert_eq!((names, ring.in_flight()), (vec![2, 3], 1));
        let view = ring.view("transmit", 0);
        assert_eq!(view.indices, RingIndices::Own { next: 1, oldest: 0 });
        let owners: Vec<Owner> = view.slots.iter().map(|slot| slot.owner).collect();
        let rest = [Owner::Driver; LEN - 1];
        assert_eq!(owners, [&[Owner::Device][..], &rest].concat());
    }
}

//! Lock-free free list of DMA buffers.
//!
//! A home owns a region and one [`Meta`] for each buffer in it. A buffer is a pointer to its `Meta`,
//! held by one owner at a time; dropping the owner pushes it on the home's list of returned buffers,
//! one compare-and-swap, from any thread, and one for all buffers of a chain. The keeper takes the whole
//! list at once when it has none at hand, so that nobody ever takes one out of its middle. Once the keeper
//! has gone, buffers are only counted as they come back, and the last one frees the region: no reference
//! count is touched per packet, and no memory goes while a ring still has a buffer of it.
//!
//! A buffer that a device may go on reaching is *quarantined*: it comes back, so that it is counted,
//! and is never handed out again. The region of such a home is cut off from the device before its
//! memory is freed, and its IOVAs are never given to anybody else ([`DmaSpace::quarantine`]).
//!
//! [`DmaSpace::quarantine`]: super::DmaSpace::quarantine

use std::cell::{Cell, UnsafeCell};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
#[cfg(not(pinwire_loom))]
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

#[cfg(pinwire_loom)]
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::chain::Door;
use super::{DmaRegion, Iova, Segment, SpaceId};

/// The most buffers of a home, and the most bytes of each: half of what counts them.
pub(super) const MOST: usize = (1 << 31) - 1;

/// No buffer.
const NIL: u32 = u32::MAX;
/// At the head of the list of returned buffers: nobody takes any of it any more.
const ABANDONED: u32 = NIL - 1;

/// One buffer: what its owner and the driver need to know, in one cache line.
#[repr(align(64))]
pub(super) struct Meta {
    pub(super) iova: Iova,
    pub(super) ptr: NonNull<u8>,
    pub(super) len: u32,
    pub(super) capacity: u32,
    /// The next buffer of the same chain.
    pub(super) next: Option<Segment>,
    /// The space of its memory, and the low half of the word of the chain that begins here.
    pub(super) door: Door,
    /// The high half of that word.
    pub(super) rider_high: u32,
    home: NonNull<Home>,
    index: u32,
    /// The next one of the list of returned buffers.
    returned_after: AtomicU32,
    /// Bytes of its headroom that are a part of it, or [`Meta::QUARANTINED`].
    pub(super) early: u8,
    /// The pages behind it have 2 to the power of this many bytes.
    pub(super) page_shift: u8,
}

#[cfg(not(pinwire_loom))]
const _: () = assert!(size_of::<Meta>() == 64);

impl Meta {
    /// In `early`: a device may go on reaching the buffer, so that nobody gets it any more.
    const QUARANTINED: u8 = u8::MAX;

    /// Begins where the buffer does: undoes [`DmaBuf::begin_early`](super::DmaBuf::begin_early).
    /// Returns whether the buffer may be handed out.
    fn begin_later(&mut self) -> bool {
        if self.early == Self::QUARANTINED {
            return false;
        }
        let early = std::mem::take(&mut self.early);
        // SAFETY: so many bytes were added in front.
        self.ptr = unsafe { self.ptr.add(early.into()) };
        self.iova.0 += u64::from(early);
        self.capacity -= u32::from(early);
        true
    }

    /// Never to be handed out again: a device may go on reaching it.
    pub(super) fn quarantine(&mut self) {
        self.early = Self::QUARANTINED;
        // SAFETY: the owner of a buffer is borrowed, so that its home is alive.
        unsafe { self.home.as_ref() }.quarantine();
    }
}

pub(super) struct Home {
    region: Option<DmaRegion>,
    /// Each belongs to the owner of its buffer, but for `returned_after` of those at home.
    metas: Box<[UnsafeCell<Meta>]>,
    /// The first of the returned buffers, [`NIL`] or [`ABANDONED`].
    returned: AtomicU32,
    /// Number of buffers that came back after the keeper has gone, and, added by it as it goes, of those that were
    /// back before, and one for itself. Whoever makes it all of them and the keeper frees the home.
    counted: AtomicU32,
    /// A device that did not stop had a buffer of it.
    is_quarantined: AtomicBool,
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.is_quarantined.load(Ordering::Relaxed)
            && let Some(region) = &mut self.region
        {
            region.quarantine();
        }
    }
}

impl Home {
    /// Its region is not to be freed as others are.
    fn quarantine(&self) {
        // Relaxed: whoever frees the home acquires what was done before the last owner went.
        self.is_quarantined.store(true, Ordering::Relaxed);
    }

    /// The link of buffer `index` in the list that it is on.
    fn link(&self, index: u32) -> Option<&AtomicU32> {
        let meta = self.metas.get(index as usize)?.get();
        // SAFETY: a valid pointer; this one field is an atomic and may be read whoever owns the rest.
        Some(unsafe { &(*meta).returned_after })
    }

    /// Takes `count` buffers back, from `first` to `last`, linked by `returned_after`.
    ///
    /// # Safety
    /// The caller owns the buffers, which are of one home, and does not any more from here on.
    #[inline]
    unsafe fn give_back(first: NonNull<Meta>, last: NonNull<Meta>, count: u32) {
        // SAFETY: the caller's word; until the buffers are on the list or counted, the home is alive.
        let (home, index) = unsafe { (first.as_ref().home, first.as_ref().index) };
        // SAFETY: as above.
        let (after, returned) = unsafe { (&last.as_ref().returned_after, &home.as_ref().returned) };
        let mut head = returned.load(Ordering::Relaxed);
        while head != ABANDONED {
            after.store(head, Ordering::Relaxed);
            // Release: the keeper sees all that this owner did. That of those who pushed before, too, since
            // each push goes on from theirs.
            let (set, fetch) = (Ordering::Release, Ordering::Relaxed);
            match returned.compare_exchange_weak(head, index, set, fetch) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
        // SAFETY: the caller's word, and nobody else was told of the buffers.
        unsafe { Self::count(home, count) };
    }

    /// Counts buffers that are back, once nobody takes any more, and the keeper as one of them; frees the home
    /// where those are all.
    ///
    /// # Safety
    /// The caller owns them, or is the keeper, and does not touch the home any more from here on. Each buffer
    /// is counted once, and so is the keeper.
    // It cannot unwind, and neither can a buffer's drop: who drops a batch needs no way out in between.
    #[cold]
    unsafe extern "C" fn count(home: NonNull<Self>, count: u32) {
        // SAFETY: until these are counted, the home is alive.
        let (counted, total) =
            unsafe { (&home.as_ref().counted, home.as_ref().metas.len() as u32) };
        // Release: whoever frees the home sees all that this owner did. Acquire: and is that this one, what
        // the others did.
        let before = counted.fetch_add(count, Ordering::AcqRel);
        if before + count == total + 1 {
            // SAFETY: it was made by a box. The keeper has gone and every buffer is back, so that nobody else
            // can reach it; and one thread only made it all.
            drop(unsafe { Box::from_raw(home.as_ptr()) });
        }
    }
}

/// Gives the buffer back, and those chained behind it.
impl Drop for Segment {
    #[inline]
    fn drop(&mut self) {
        match self.meta().next.is_none() {
            // SAFETY: this segment owned the buffer, and ends here.
            true => unsafe { Home::give_back(self.0, self.0, 1) },
            // SAFETY: and what is chained behind it.
            false => unsafe { give_back_chain(self.0) },
        }
    }
}

/// Gives the buffers of a chain back, those that lie one after the other and are of one home with one push;
/// without recursion, so that a chain may be long.
///
/// # Safety
/// The caller owns `first`, and what is chained behind it, and does not any more from here on.
#[cold]
#[inline(never)]
unsafe extern "C" fn give_back_chain(mut first: NonNull<Meta>) {
    let (mut last, mut count) = (first, 1);
    // SAFETY: it is owned here, as is each below until it is given back.
    while let Some(next) = unsafe { last.as_mut() }.next.take() {
        // Not to be given back by its drop.
        let next = ManuallyDrop::new(next).0;
        // SAFETY: as above.
        let (mine, other) = unsafe { (last.as_ref(), next.as_ref()) };
        if mine.home == other.home {
            // Relaxed: the push publishes it.
            mine.returned_after.store(other.index, Ordering::Relaxed);
            (last, count) = (next, count + 1);
        } else {
            // SAFETY: as above; `next` is no more behind them.
            unsafe { Home::give_back(first, last, count) };
            (first, last, count) = (next, next, 1);
        }
    }
    // SAFETY: as above.
    unsafe { Home::give_back(first, last, count) };
}

/// The side that hands out: one a home, on one thread at a time.
pub(super) struct Keeper {
    home: NonNull<Home>,
    /// First of the buffers at hand, linked by `returned_after`.
    at_hand: Cell<u32>,
    /// Buffers that came back and are not handed out again.
    quarantined: Cell<u32>,
}

// SAFETY: it is the only keeper of its home; `at_hand` goes with it from thread to thread.
unsafe impl Send for Keeper {}

impl Keeper {
    /// `count` buffers; `place(index)` says where each is and how long it may be.
    pub(super) fn new(
        region: Option<DmaRegion>,
        count: u32,
        place: impl Fn(&DmaRegion, u32) -> (NonNull<u8>, Iova, u32),
    ) -> Self {
        assert!(count as usize <= MOST);
        let space = region.as_ref().map_or(SpaceId::NOWHERE, DmaRegion::space);
        let page_shift = region
            .as_ref()
            .map_or(0, |region| region.mapping().page.ilog2() as u8);
        // Every pointer to the home comes from this one, which nothing invalidates: the box is taken
        // apart before the first is copied, and put together again to be freed.
        let home = NonNull::from(Box::leak(Box::new(Home {
            region,
            metas: Box::new([]),
            returned: AtomicU32::new(NIL),
            counted: AtomicU32::new(0),
            is_quarantined: AtomicBool::new(false),
        })));
        let metas = (0..count)
            .map(|index| {
                let nowhere = (NonNull::dangling(), Iova(0), 0);
                // SAFETY: the home was just made, and this is the only place that knows of it.
                let region = unsafe { &(*home.as_ptr()).region };
                let place = region.as_ref().map(|region| place(region, index));
                let (ptr, iova, capacity) = place.unwrap_or(nowhere);
                UnsafeCell::new(Meta {
                    iova,
                    ptr,
                    len: 0,
                    capacity,
                    early: 0,
                    next: None,
                    door: Door::plain(space),
                    rider_high: 0,
                    home,
                    index,
                    returned_after: AtomicU32::new(if index + 1 < count { index + 1 } else { NIL }),
                    page_shift,
                })
            })
            .collect();
        // SAFETY: as above; no reference to the home is alive.
        unsafe { (*home.as_ptr()).metas = metas };
        Self {
            home,
            at_hand: Cell::new(if count == 0 { NIL } else { 0 }),
            quarantined: Cell::new(0),
        }
    }

    fn home(&self) -> &Home {
        // SAFETY: the home lives until its keeper has gone and all buffers are back.
        unsafe { self.home.as_ref() }
    }

    pub(super) fn region(&self) -> Option<&DmaRegion> {
        self.home().region.as_ref()
    }

    pub(super) fn quarantine(&self) {
        self.home().quarantine();
    }

    pub(super) fn total(&self) -> u32 {
        self.home().metas.len() as u32
    }

    /// A buffer that nobody has, with length 0; `None` where all are out.
    #[inline]
    pub(super) fn take(&self) -> Option<Segment> {
        self.take_each().next()
    }

    /// As [`Keeper::take`], one after the other.
    #[inline]
    pub(super) fn take_each(&self) -> TakeEach<'_> {
        TakeEach {
            keeper: self,
            metas: &self.home().metas,
            // Those at hand are the iterator's, until it goes: who takes one meanwhile gets another.
            index: self.at_hand.replace(NIL),
        }
    }

    /// A buffer that nobody has, as [`TakeEach::next`], where the one at `index` begins early, or there is none:
    /// then from those that came back, all at once.
    // It cannot unwind, and neither can a look at the list: who takes many needs no way out in between.
    #[cold]
    #[inline(never)]
    extern "C" fn take_other(&self, index: &mut u32) -> Option<NonNull<Meta>> {
        loop {
            let Some(meta) = self.home().metas.get(*index as usize) else {
                // Acquire: what the former owners did to the buffers is done.
                *index = self.home().returned.swap(NIL, Ordering::Acquire);
                if *index == NIL {
                    return None;
                }
                continue;
            };
            let mut meta = NonNull::from_ref(meta).cast::<Meta>();
            // SAFETY: the index was on the list, so nobody owns this buffer but us.
            let taken = unsafe { meta.as_mut() };
            *index = taken.returned_after.load(Ordering::Relaxed);
            taken.len = 0;
            // It begins where it did.
            if taken.early == 0 || taken.begin_later() {
                return Some(meta);
            }
            self.quarantined.set(self.quarantined.get() + 1);
        }
    }

    /// These are at hand besides those that are: which came while an iterator had the others.
    #[cold]
    #[inline(never)]
    fn put_back(&self, first: u32) {
        let mut last = first;
        while let Some(link) = self.home().link(last) {
            let next = link.load(Ordering::Relaxed);
            if next == NIL {
                link.store(self.at_hand.replace(first), Ordering::Relaxed);
            }
            last = next;
        }
    }
}

/// Buffers of a home, taken one after the other.
pub(super) struct TakeEach<'a> {
    keeper: &'a Keeper,
    metas: &'a [UnsafeCell<Meta>],
    index: u32,
}

impl Iterator for TakeEach<'_> {
    type Item = Segment;

    #[inline]
    fn next(&mut self) -> Option<Segment> {
        // [`NIL`] is beyond them, too.
        if let Some(meta) = self.metas.get(self.index as usize) {
            let mut meta = NonNull::from_ref(meta).cast::<Meta>();
            // SAFETY: the index was on the list, so nobody owns this buffer but us.
            let taken = unsafe { meta.as_mut() };
            if taken.early == 0 {
                self.index = taken.returned_after.load(Ordering::Relaxed);
                taken.len = 0;
                return Some(Segment(meta));
            }
        }
        let mut index = self.index;
        let other = self.keeper.take_other(&mut index);
        self.index = index;
        other.map(Segment)
    }
}

impl Drop for TakeEach<'_> {
    #[inline]
    fn drop(&mut self) {
        match self.keeper.at_hand.get() {
            NIL => self.keeper.at_hand.set(self.index),
            _ => self.keeper.put_back(self.index),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // From here on nobody pushes: who gives a buffer back counts it. Acquire: the links of those that
        // came before are read.
        let returned = self.home().returned.swap(ABANDONED, Ordering::Acquire);
        let mut count = self.quarantined.get();
        for mut index in [self.at_hand.get(), returned] {
            while let Some(link) = self.home().link(index) {
                count += 1;
                index = link.load(Ordering::Relaxed);
            }
        }
        // SAFETY: the keeper goes, and these buffers were nobody's. It counts, too: all buffers may have come
        // back since the swap, and it still looked at the home.
        unsafe { Home::count(self.home, count + 1) };
    }
}

/// The list under every order in which threads can meet, by loom: see CONTRIBUTING for the command.
#[cfg(all(test, pinwire_loom))]
mod every_order {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32 as Plain, Ordering::SeqCst};

    use loom::cell::UnsafeCell as Watched;
    use loom::thread;

    use super::*;
    use crate::dma::{DmaSpace, Frame, Mapping};
    use crate::error::Result;

    /// Counts how often its one mapping was undone, and how.
    #[derive(Default)]
    struct Space {
        unmapped: Plain,
        quarantined: Plain,
    }

    // SAFETY: nobody touches the memory, which is none.
    unsafe impl DmaSpace for Space {
        fn limit(&self, _: &str, _: Iova) -> crate::Result<()> {
            Ok(())
        }

        fn id(&self) -> SpaceId {
            SpaceId::NOWHERE
        }

        fn alloc(&self, len: usize) -> Result<Mapping> {
            let (ptr, iova) = (NonNull::dangling(), Iova(0x1000));
            Ok(Mapping {
                ptr,
                len,
                iova,
                page: 4096,
            })
        }

        fn map_file(&self, _: &std::fs::File, _: u64, len: usize) -> Result<Mapping> {
            self.alloc(len)
        }

        unsafe fn unmap(&self, _: &Mapping) {
            self.unmapped.fetch_add(1, SeqCst);
        }

        unsafe fn quarantine(&self, _: &Mapping) {
            self.quarantined.fetch_add(1, SeqCst);
        }
    }

    /// A keeper of `count` buffers, and a cell for each, which only the buffer's owner may touch: loom sees
    /// where one owner's access is not before the next one's.
    struct Bench {
        space: Arc<Space>,
        keeper: Keeper,
        cells: Arc<Vec<Watched<u32>>>,
    }

    impl Bench {
        fn new(count: u32) -> Self {
            let space = Arc::new(Space::default());
            let dma: Arc<dyn DmaSpace> = space.clone();
            let region = DmaRegion::alloc(&dma, 4096).expect("it always has some");
            let place = |region: &DmaRegion, index: u32| {
                let iova = Iova(region.iova().0 + u64::from(index));
                (region.mapping().ptr, iova, 1)
            };
            let keeper = Keeper::new(Some(region), count, place);
            let cells = (0..count).map(|_| Watched::new(0)).collect();
            Self {
                space,
                keeper,
                cells: Arc::new(cells),
            }
        }

        fn take(&self) -> Option<Owned> {
            self.own(self.keeper.take())
        }

        fn own(&self, segment: Option<Segment>) -> Option<Owned> {
            let (segment, cells) = (segment?, Arc::clone(&self.cells));
            Some(Owned { segment, cells }.touched())
        }

        /// Drops all, and returns how often the region was unmapped and quarantined.
        fn end(self) -> (u32, u32) {
            let Self { space, keeper, .. } = self;
            drop(keeper);
            (space.unmapped.load(SeqCst), space.quarantined.load(SeqCst))
        }
    }

    struct Owned {
        segment: Segment,
        cells: Arc<Vec<Watched<u32>>>,
    }

    impl Owned {
        fn touched(self) -> Self {
            let index = self.segment.iova().0 - 0x1000;
            // SAFETY: loom panics where another owner is not through.
            self.cells[index as usize].with_mut(|cell| unsafe { *cell += 1 });
            self
        }
    }

    #[test]
    fn what_comes_back_from_two_threads_is_taken_again_and_the_region_goes_once() {
        loom::model(|| {
            let bench = Bench::new(2);
            let out = [bench.take().unwrap(), bench.take().unwrap()];
            let threads = out.map(|owned| thread::spawn(|| drop(owned.touched())));
            let again = [bench.take(), bench.take()];
            drop(again);
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(bench.end(), (1, 0));
        });
    }

    #[test]
    fn the_region_goes_once_whoever_is_last() {
        loom::model(|| {
            let bench = Bench::new(2);
            let out = [bench.take().unwrap(), bench.take().unwrap()];
            let space = Arc::clone(&bench.space);
            let threads = out.map(|owned| thread::spawn(|| drop(owned.touched())));
            bench.end();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(space.unmapped.load(SeqCst), 1);
        });
    }

    /// The buffers of both as one frame.
    fn chained(first: Owned, second: Owned) -> Frame {
        let mut frame = Frame::from(first.touched().segment);
        frame.append(second.touched().segment);
        frame
    }

    #[test]
    fn a_chain_comes_back_at_once_beside_a_lone_buffer_and_all_are_taken_again() {
        loom::model(|| {
            let bench = Bench::new(3);
            let [a, b, c] = std::array::from_fn(|_| bench.take().unwrap());
            let chain = chained(a, b);
            let threads = [
                thread::spawn(|| drop(chain)),
                thread::spawn(|| drop(c.touched())),
            ];
            let some = [bench.take(), bench.take()];
            drop(some);
            for thread in threads {
                thread.join().unwrap();
            }
            let all: [_; 3] = std::array::from_fn(|_| bench.take().expect("all came back"));
            assert!(bench.take().is_none());
            drop(all);
            assert_eq!(bench.end(), (1, 0));
        });
    }

    #[test]
    fn the_region_goes_once_where_a_chain_is_last() {
        loom::model(|| {
            let bench = Bench::new(3);
            let [a, b, c] = std::array::from_fn(|_| bench.take().unwrap());
            let space = Arc::clone(&bench.space);
            let chain = chained(a, b);
            let threads = [
                thread::spawn(|| drop(chain)),
                thread::spawn(|| drop(c.touched())),
            ];
            bench.end();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(space.unmapped.load(SeqCst), 1);
        });
    }

    #[test]
    fn a_chain_of_two_homes_brings_each_buffer_to_its_own() {
        loom::model(|| {
            let benches = [Bench::new(1), Bench::new(1)];
            let [a, b] = [0, 1].map(|index: usize| benches[index].take().unwrap());
            let chain = chained(a, b);
            let thread = thread::spawn(|| drop(chain));
            let spaces = benches.each_ref().map(|bench| Arc::clone(&bench.space));
            for bench in benches {
                drop(bench.take());
                bench.end();
            }
            thread.join().unwrap();
            assert_eq!(spaces.map(|space| space.unmapped.load(SeqCst)), [1, 1]);
        });
    }

    #[test]
    fn what_an_iterator_had_left_is_at_hand_again_beside_what_came_back_meanwhile() {
        loom::model(|| {
            let bench = Bench::new(3);
            let first = bench.take().unwrap();
            let thread = thread::spawn(|| drop(first.touched()));
            {
                // It has the other two, and gives the second of them back at its end.
                let mut each = bench.keeper.take_each();
                drop(bench.own(each.next()));
                // Of those that came back; the rest of them is at hand then.
                drop(bench.take());
            }
            thread.join().unwrap();
            let all: [_; 3] = std::array::from_fn(|_| bench.take().expect("all are here"));
            assert!(bench.take().is_none());
            drop(all);
            assert_eq!(bench.end(), (1, 0));
        });
    }

    #[test]
    fn what_was_quarantined_is_never_taken_again_and_the_region_is_quarantined() {
        loom::model(|| {
            let bench = Bench::new(2);
            let [lost, other] = [bench.take().unwrap(), bench.take().unwrap()];
            let gone = lost.segment.iova();
            let lost = thread::spawn(|| lost.segment.quarantine());
            let other = thread::spawn(|| drop(other));
            let again = bench.take();
            assert!(again.is_none_or(|again| again.segment.iova() != gone));
            lost.join().unwrap();
            other.join().unwrap();
            assert_eq!(bench.end(), (0, 1));
        });
    }
}

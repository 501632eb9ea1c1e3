//! Lock-free free list of DMA buffers.
//!
//! A slab owns a region and one [`BufHeader`] for each buffer in it. A buffer is a pointer to its `BufHeader`,
//! held by one owner at a time; dropping the owner pushes it on the slab's list of returned buffers,
//! one compare-and-swap, from any thread, and one for all buffers of a chain. The free list takes the whole
//! of it at once when it has none at hand, so that nobody ever takes one out of its middle. Once the free list
//! has gone, buffers are only counted as they come back, and the last one frees the region: no reference
//! count is touched per packet, and no memory goes while a ring still has a buffer of it.
//!
//! A buffer that a device may go on reaching is *quarantined*: it comes back, so that it is counted,
//! and is never handed out again. The region of such a slab is cut off from the device before its
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

/// The most buffers of a slab, and the most bytes of each: half of what counts them.
pub(super) const MOST: usize = (1 << 31) - 1;

/// No buffer.
const NIL: u32 = u32::MAX;
/// At the head of the list of returned buffers: nobody takes any of it any more.
const ABANDONED: u32 = NIL - 1;

/// One buffer: what its owner and the driver need to know, in one cache line.
#[repr(align(64))]
pub(super) struct BufHeader {
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
    slab: NonNull<Slab>,
    index: u32,
    /// The next one of the list of returned buffers.
    returned_after: AtomicU32,
    /// Bytes of its headroom that are a part of it, and [`BufHeader::BARE`]; or [`BufHeader::QUARANTINED`]. So one
    /// byte says whether all of its headroom is there: 0.
    pub(super) early: u8,
    /// The pages behind it have 2 to the power of this many bytes.
    pub(super) page_shift: u8,
}

#[cfg(not(pinwire_loom))]
const _: () = assert!(size_of::<BufHeader>() == 64);

impl BufHeader {
    /// In `early`: a device may go on reaching the buffer, so that nobody gets it any more.
    const QUARANTINED: u8 = u8::MAX;
    /// In `early`, a bit: it has no headroom.
    const BARE: u8 = 0x80;

    /// Returns whether nothing was prepended, and nobody quarantined it.
    #[inline]
    fn begins_where_it_did(&self) -> bool {
        self.early & !Self::BARE == 0
    }

    /// Begins where the buffer does: undoes [`DmaBuf::prepend`](super::DmaBuf::prepend).
    /// Returns whether the buffer may be handed out.
    fn undo_prepend(&mut self) -> bool {
        if self.early == Self::QUARANTINED {
            return false;
        }
        let early = self.early & !Self::BARE;
        self.early &= Self::BARE;
        // SAFETY: so many bytes were added in front.
        self.ptr = unsafe { self.ptr.add(early.into()) };
        self.iova.0 += u64::from(early);
        self.capacity -= u32::from(early);
        true
    }

    /// Never to be handed out again: a device may go on reaching it.
    pub(super) fn quarantine(&mut self) {
        self.early = Self::QUARANTINED;
        // SAFETY: the owner of a buffer is borrowed, so that its slab is alive.
        unsafe { self.slab.as_ref() }.quarantine();
    }
}

pub(super) struct Slab {
    region: Option<DmaRegion>,
    /// Each belongs to the owner of its buffer, but for `returned_after` of those on the list.
    headers: Box<[UnsafeCell<BufHeader>]>,
    /// The first of the returned buffers, [`NIL`] or [`ABANDONED`].
    returned: AtomicU32,
    /// Number of buffers that came back after the free list has gone, and, added by it as it goes, of those that were
    /// back before, and one for itself. Whoever makes it all of them and the free list frees the slab.
    counted: AtomicU32,
    /// A device that did not stop had a buffer of it.
    is_quarantined: AtomicBool,
}

impl Drop for Slab {
    fn drop(&mut self) {
        if self.is_quarantined.load(Ordering::Relaxed)
            && let Some(region) = &mut self.region
        {
            region.quarantine();
        }
    }
}

impl Slab {
    /// Its region is not to be freed as others are.
    fn quarantine(&self) {
        // Relaxed: whoever frees the slab acquires what was done before the last owner went.
        self.is_quarantined.store(true, Ordering::Relaxed);
    }

    /// The link of buffer `index` in the list that it is on.
    fn link(&self, index: u32) -> Option<&AtomicU32> {
        let header = self.headers.get(index as usize)?.get();
        // SAFETY: a valid pointer; this one field is an atomic and may be read whoever owns the rest.
        Some(unsafe { &(*header).returned_after })
    }

    /// Takes `count` buffers back, from `first` to `last`, linked by `returned_after`.
    ///
    /// # Safety
    /// The caller owns the buffers, which are of one slab, and does not any more from here on.
    #[inline]
    unsafe fn give_back(first: NonNull<BufHeader>, last: NonNull<BufHeader>, count: u32) {
        // SAFETY: the caller's word; until the buffers are on the list or counted, the slab is alive.
        let (slab, index) = unsafe { (first.as_ref().slab, first.as_ref().index) };
        // SAFETY: as above.
        let (after, returned) = unsafe { (&last.as_ref().returned_after, &slab.as_ref().returned) };
        let mut head = returned.load(Ordering::Relaxed);
        while head != ABANDONED {
            after.store(head, Ordering::Relaxed);
            // Release: the free list sees all that this owner did. That of those who pushed before, too, since
            // each push goes on from theirs.
            let (set, fetch) = (Ordering::Release, Ordering::Relaxed);
            match returned.compare_exchange_weak(head, index, set, fetch) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
        // SAFETY: the caller's word, and nobody else was told of the buffers.
        unsafe { Self::count(slab, count) };
    }

    /// Counts buffers that are back, once nobody takes any more, and the free list as one of them; frees the slab
    /// where those are all.
    ///
    /// # Safety
    /// The caller owns them, or is the free list, and does not touch the slab any more from here on. Each buffer
    /// is counted once, and so is the free list.
    // It cannot unwind, and neither can a buffer's drop: who drops a batch needs no way out in between.
    #[cold]
    unsafe extern "C" fn count(slab: NonNull<Self>, count: u32) {
        // SAFETY: until these are counted, the slab is alive.
        let (counted, total) =
            unsafe { (&slab.as_ref().counted, slab.as_ref().headers.len() as u32) };
        // Release: whoever frees the slab sees all that this owner did. Acquire: and is that this one, what
        // the others did.
        let before = counted.fetch_add(count, Ordering::AcqRel);
        if before + count == total + 1 {
            // SAFETY: it was made by a box. The free list has gone and every buffer is back, so that nobody else
            // can reach it; and one thread only made it all.
            drop(unsafe { Box::from_raw(slab.as_ptr()) });
        }
    }
}

/// Gives the buffer back, and those chained behind it.
impl Drop for Segment {
    #[inline]
    fn drop(&mut self) {
        match self.buf_header().next.is_none() {
            // SAFETY: this segment owned the buffer, and ends here.
            true => unsafe { Slab::give_back(self.0, self.0, 1) },
            // SAFETY: and what is chained behind it.
            false => unsafe { give_back_chain(self.0) },
        }
    }
}

/// Gives the buffers of a chain back, those that lie one after the other and are of one slab with one push;
/// without recursion, so that a chain may be long.
///
/// # Safety
/// The caller owns `first`, and what is chained behind it, and does not any more from here on.
#[cold]
#[inline(never)]
unsafe extern "C" fn give_back_chain(mut first: NonNull<BufHeader>) {
    let (mut last, mut count) = (first, 1);
    // SAFETY: it is owned here, as is each below until it is given back.
    while let Some(next) = unsafe { last.as_mut() }.next.take() {
        // Not to be given back by its drop.
        let next = ManuallyDrop::new(next).0;
        // SAFETY: as above.
        let (mine, other) = unsafe { (last.as_ref(), next.as_ref()) };
        if mine.slab == other.slab {
            // Relaxed: the push publishes it.
            mine.returned_after.store(other.index, Ordering::Relaxed);
            (last, count) = (next, count + 1);
        } else {
            // SAFETY: as above; `next` is no more behind them.
            unsafe { Slab::give_back(first, last, count) };
            (first, last, count) = (next, next, 1);
        }
    }
    // SAFETY: as above.
    unsafe { Slab::give_back(first, last, count) };
}

/// The side that hands out: one a slab, on one thread at a time.
pub(super) struct FreeList {
    slab: NonNull<Slab>,
    /// First of the buffers at hand, linked by `returned_after`.
    at_hand: Cell<u32>,
    /// Buffers that came back and are not handed out again.
    quarantined: Cell<u32>,
}

// SAFETY: it is the only one of its slab; `at_hand` goes with it from thread to thread.
unsafe impl Send for FreeList {}

impl FreeList {
    /// `count` buffers, which have headroom before them or not; `place(index)` says where each is and how long it may be.
    pub(super) fn new(
        region: Option<DmaRegion>,
        (count, has_headroom): (u32, bool),
        place: impl Fn(&DmaRegion, u32) -> (NonNull<u8>, Iova, u32),
    ) -> Self {
        assert!(count as usize <= MOST);
        let space = region.as_ref().map_or(SpaceId::NOWHERE, DmaRegion::space);
        let page_shift = region
            .as_ref()
            .map_or(0, |region| region.mapping().page.ilog2() as u8);
        // Every pointer to the slab comes from this one, which nothing invalidates: the box is taken
        // apart before the first is copied, and put together again to be freed.
        let slab = NonNull::from(Box::leak(Box::new(Slab {
            region,
            headers: Box::new([]),
            returned: AtomicU32::new(NIL),
            counted: AtomicU32::new(0),
            is_quarantined: AtomicBool::new(false),
        })));
        let headers = (0..count)
            .map(|index| {
                let nowhere = (NonNull::dangling(), Iova(0), 0);
                // SAFETY: the slab was just made, and this is the only place that knows of it.
                let region = unsafe { &(*slab.as_ptr()).region };
                let place = region.as_ref().map(|region| place(region, index));
                let (ptr, iova, capacity) = place.unwrap_or(nowhere);
                UnsafeCell::new(BufHeader {
                    iova,
                    ptr,
                    len: 0,
                    capacity,
                    early: if has_headroom { 0 } else { BufHeader::BARE },
                    next: None,
                    door: Door::plain(space),
                    rider_high: 0,
                    slab,
                    index,
                    returned_after: AtomicU32::new(if index + 1 < count { index + 1 } else { NIL }),
                    page_shift,
                })
            })
            .collect();
        // SAFETY: as above; no reference to the slab is alive.
        unsafe { (*slab.as_ptr()).headers = headers };
        Self {
            slab,
            at_hand: Cell::new(if count == 0 { NIL } else { 0 }),
            quarantined: Cell::new(0),
        }
    }

    fn slab(&self) -> &Slab {
        // SAFETY: the slab lives until its free list has gone and all buffers are back.
        unsafe { self.slab.as_ref() }
    }

    pub(super) fn region(&self) -> Option<&DmaRegion> {
        self.slab().region.as_ref()
    }

    pub(super) fn quarantine(&self) {
        self.slab().quarantine();
    }

    pub(super) fn total(&self) -> u32 {
        self.slab().headers.len() as u32
    }

    /// A buffer that nobody has, with length 0; `None` where all are out.
    #[inline]
    pub(super) fn alloc(&self) -> Option<Segment> {
        self.alloc_each().next()
    }

    /// As [`FreeList::alloc`], one after the other.
    #[inline]
    pub(super) fn alloc_each(&self) -> AllocEach<'_> {
        AllocEach {
            list: self,
            headers: &self.slab().headers,
            // Those at hand are the iterator's, until it goes: who takes one meanwhile gets another.
            index: self.at_hand.replace(NIL),
        }
    }

    /// A buffer that nobody has, as [`AllocEach::next`], where the one at `index` begins early, or there is none:
    /// then from those that came back, all at once.
    // It cannot unwind, and neither can a look at the list: who takes many needs no way out in between.
    #[cold]
    #[inline(never)]
    extern "C" fn alloc_other(&self, index: &mut u32) -> Option<NonNull<BufHeader>> {
        loop {
            let Some(header) = self.slab().headers.get(*index as usize) else {
                // Acquire: what the former owners did to the buffers is done.
                *index = self.slab().returned.swap(NIL, Ordering::Acquire);
                if *index == NIL {
                    return None;
                }
                continue;
            };
            let mut header = NonNull::from_ref(header).cast::<BufHeader>();
            // SAFETY: the index was on the list, so nobody owns this buffer but us.
            let taken = unsafe { header.as_mut() };
            *index = taken.returned_after.load(Ordering::Relaxed);
            taken.len = 0;
            // It begins where it did.
            if taken.begins_where_it_did() || taken.undo_prepend() {
                return Some(header);
            }
            self.quarantined.set(self.quarantined.get() + 1);
        }
    }

    /// These are at hand besides those that are: which came while an iterator had the others.
    #[cold]
    #[inline(never)]
    fn put_back(&self, first: u32) {
        let mut last = first;
        while let Some(link) = self.slab().link(last) {
            let next = link.load(Ordering::Relaxed);
            if next == NIL {
                link.store(self.at_hand.replace(first), Ordering::Relaxed);
            }
            last = next;
        }
    }
}

/// Buffers of a slab, taken one after the other.
pub(super) struct AllocEach<'a> {
    list: &'a FreeList,
    headers: &'a [UnsafeCell<BufHeader>],
    index: u32,
}

impl Iterator for AllocEach<'_> {
    type Item = Segment;

    #[inline]
    fn next(&mut self) -> Option<Segment> {
        // [`NIL`] is beyond them, too.
        if let Some(header) = self.headers.get(self.index as usize) {
            let mut header = NonNull::from_ref(header).cast::<BufHeader>();
            // SAFETY: the index was on the list, so nobody owns this buffer but us.
            let taken = unsafe { header.as_mut() };
            if taken.begins_where_it_did() {
                self.index = taken.returned_after.load(Ordering::Relaxed);
                taken.len = 0;
                return Some(Segment(header));
            }
        }
        let mut index = self.index;
        let other = self.list.alloc_other(&mut index);
        self.index = index;
        other.map(Segment)
    }
}

impl Drop for AllocEach<'_> {
    #[inline]
    fn drop(&mut self) {
        match self.list.at_hand.get() {
            NIL => self.list.at_hand.set(self.index),
            _ => self.list.put_back(self.index),
        }
    }
}

impl Drop for FreeList {
    fn drop(&mut self) {
        // From here on nobody pushes: who gives a buffer back counts it. Acquire: the links of those that
        // came before are read.
        let returned = self.slab().returned.swap(ABANDONED, Ordering::Acquire);
        let mut count = self.quarantined.get();
        for mut index in [self.at_hand.get(), returned] {
            while let Some(link) = self.slab().link(index) {
                count += 1;
                index = link.load(Ordering::Relaxed);
            }
        }
        // SAFETY: the free list goes, and these buffers were nobody's. It counts, too: all buffers may have come
        // back since the swap, and it still looked at the slab.
        unsafe { Slab::count(self.slab, count + 1) };
    }
}

/// The list under every order in which threads can meet, by loom: see CONTRIBUTING for the command. Without it, the same
/// under the orders that come by themselves.
#[cfg(test)]
mod every_order {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32 as Plain, Ordering::SeqCst};

    use loom::cell;
    use loom::thread;

    use super::*;
    use crate::dma::{Chain, DmaSpace, Mapping};
    use crate::error::Result;

    /// As much of loom as is used here.
    #[cfg(not(pinwire_loom))]
    mod loom {
        pub use std::thread;

        pub mod cell {
            use std::sync::Mutex;

            pub struct UnsafeCell<T>(Mutex<T>);

            impl<T> UnsafeCell<T> {
                pub fn new(value: T) -> Self {
                    Self(Mutex::new(value))
                }

                pub fn with_mut(&self, body: impl FnOnce(*mut T)) {
                    let owner = self.0.try_lock();
                    body(&raw mut *owner.expect("another owner is not through"));
                }
            }
        }

        pub fn model(body: impl Fn()) {
            (0..500).for_each(|_| body());
        }
    }

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

    /// A free list of `count` buffers, and a cell for each, which only the buffer's owner may touch: loom sees
    /// where one owner's access is not before the next one's.
    struct Bench {
        space: Arc<Space>,
        list: FreeList,
        cells: Arc<Vec<cell::UnsafeCell<u32>>>,
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
            let list = FreeList::new(Some(region), (count, false), place);
            let cells = (0..count).map(|_| cell::UnsafeCell::new(0)).collect();
            Self {
                space,
                list,
                cells: Arc::new(cells),
            }
        }

        fn alloc(&self) -> Option<Owned> {
            self.own(self.list.alloc())
        }

        fn own(&self, segment: Option<Segment>) -> Option<Owned> {
            let (segment, cells) = (segment?, Arc::clone(&self.cells));
            Some(Owned { segment, cells }.touched())
        }

        /// Drops all, and returns how often the region was unmapped and quarantined.
        fn end(self) -> (u32, u32) {
            let Self { space, list, .. } = self;
            drop(list);
            (space.unmapped.load(SeqCst), space.quarantined.load(SeqCst))
        }
    }

    struct Owned {
        segment: Segment,
        cells: Arc<Vec<cell::UnsafeCell<u32>>>,
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
            let out = [bench.alloc().unwrap(), bench.alloc().unwrap()];
            let threads = out.map(|owned| thread::spawn(|| drop(owned.touched())));
            let again = [bench.alloc(), bench.alloc()];
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
            let out = [bench.alloc().unwrap(), bench.alloc().unwrap()];
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
    fn chained(first: Owned, second: Owned) -> Chain {
        let mut chain = Chain::from(first.touched().segment);
        chain.append(second.touched().segment);
        chain
    }

    #[test]
    fn a_chain_comes_back_at_once_beside_a_lone_buffer_and_all_are_taken_again() {
        loom::model(|| {
            let bench = Bench::new(3);
            let [a, b, c] = std::array::from_fn(|_| bench.alloc().unwrap());
            let chain = chained(a, b);
            let threads = [
                thread::spawn(|| drop(chain)),
                thread::spawn(|| drop(c.touched())),
            ];
            let some = [bench.alloc(), bench.alloc()];
            drop(some);
            for thread in threads {
                thread.join().unwrap();
            }
            let all: [_; 3] = std::array::from_fn(|_| bench.alloc().expect("all came back"));
            assert!(bench.alloc().is_none());
            drop(all);
            assert_eq!(bench.end(), (1, 0));
        });
    }

    #[test]
    fn the_region_goes_once_where_a_chain_is_last() {
        loom::model(|| {
            let bench = Bench::new(3);
            let [a, b, c] = std::array::from_fn(|_| bench.alloc().unwrap());
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
    fn a_chain_of_two_slabs_brings_each_buffer_to_its_own() {
        loom::model(|| {
            let benches = [Bench::new(1), Bench::new(1)];
            let [a, b] = [0, 1].map(|index: usize| benches[index].alloc().unwrap());
            let chain = chained(a, b);
            let thread = thread::spawn(|| drop(chain));
            let spaces = benches.each_ref().map(|bench| Arc::clone(&bench.space));
            for bench in benches {
                drop(bench.alloc());
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
            let first = bench.alloc().unwrap();
            let thread = thread::spawn(|| drop(first.touched()));
            {
                // It has the other two, and gives the second of them back at its end.
                let mut each = bench.list.alloc_each();
                drop(bench.own(each.next()));
                // Of those that came back; the rest of them is at hand then.
                drop(bench.alloc());
            }
            thread.join().unwrap();
            let all: [_; 3] = std::array::from_fn(|_| bench.alloc().expect("all are here"));
            assert!(bench.alloc().is_none());
            drop(all);
            assert_eq!(bench.end(), (1, 0));
        });
    }

    #[test]
    fn what_was_quarantined_is_never_taken_again_and_the_region_is_quarantined() {
        loom::model(|| {
            let bench = Bench::new(2);
            let [lost, other] = [bench.alloc().unwrap(), bench.alloc().unwrap()];
            let gone = lost.segment.iova();
            let lost = thread::spawn(|| lost.segment.quarantine());
            let other = thread::spawn(|| drop(other));
            let again = bench.alloc();
            assert!(again.is_none_or(|again| again.segment.iova() != gone));
            lost.join().unwrap();
            other.join().unwrap();
            assert_eq!(bench.end(), (0, 1));
        });
    }
}

//! Lock-free free list of DMA buffers.
//!
//! A home owns a region and one [`Meta`] for each buffer in it. A buffer is a pointer to its `Meta`,
//! held by one owner at a time; dropping the owner pushes it on the home's list of returned buffers,
//! one compare-and-swap, from any thread. The word that heads the list also counts it, so the last
//! buffer that comes back to a home whose keeper has gone frees the region: no reference count is
//! touched per packet, and no memory goes while a ring still has a buffer of it.
//!
//! A buffer that a device may go on reaching is *quarantined*: it comes back, so that it is counted,
//! and is never handed out again. The region of such a home is cut off from the device before its
//! memory is freed, and its IOVAs are never given to anybody else ([`DmaSpace::quarantine`]).
//!
//! [`DmaSpace::quarantine`]: super::DmaSpace::quarantine

use std::cell::{Cell, UnsafeCell};
use std::ptr::NonNull;
#[cfg(not(pinwire_loom))]
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[cfg(pinwire_loom)]
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::chain::Door;
use super::{DmaRegion, Iova, Segment, SpaceId};

/// The most buffers of a home, and the most bytes of each: half of what counts them.
pub(super) const MOST: usize = (1 << 31) - 1;

/// No buffer.
const NIL: u32 = u32::MAX;

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
    #[cold]
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

/// The head of the list of returned buffers, in one word.
#[derive(Clone, Copy)]
struct Returned(u64);

impl Returned {
    const ABANDONED: u64 = 1 << 63;
    const NONE: Self = Self::new(NIL, 0, false);

    const fn new(first: u32, count: u32, abandoned: bool) -> Self {
        Self(first as u64 | (count as u64) << 32 | if abandoned { Self::ABANDONED } else { 0 })
    }

    fn first(self) -> u32 {
        self.0 as u32
    }

    fn count(self) -> u32 {
        (self.0 >> 32) as u32 & !(1 << 31)
    }

    fn abandoned(self) -> bool {
        self.0 & Self::ABANDONED != 0
    }
}

pub(super) struct Home {
    region: Option<DmaRegion>,
    /// Each belongs to the owner of its buffer, but for `returned_after` of those at home.
    metas: Box<[UnsafeCell<Meta>]>,
    returned: AtomicU64,
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

    /// Takes a buffer back; frees the home where it was the last one that was out.
    ///
    /// # Safety
    /// The caller owns the buffer, and does not any more from here on.
    unsafe fn give_back(meta: NonNull<Meta>) {
        let meta = meta.as_ptr();
        // SAFETY: the caller's word; until the buffer is counted below, the home is alive.
        let (home, index, after) =
            unsafe { ((*meta).home, (*meta).index, &(*meta).returned_after) };
        // SAFETY: as above.
        let home_ref = unsafe { home.as_ref() };
        // `total` is read now, since the home may be gone once we are counted.
        let (returned, total) = (&home_ref.returned, home_ref.metas.len() as u32);
        let mut head = Returned(returned.load(Ordering::Relaxed));
        let pushed = loop {
            after.store(head.first(), Ordering::Relaxed);
            let pushed = Returned::new(index, head.count() + 1, head.abandoned());
            // Release: the keeper, or whoever frees the home, sees all that this owner did.
            match returned.compare_exchange_weak(
                head.0,
                pushed.0,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break pushed,
                Err(now) => head = Returned(now),
            }
        };
        if pushed.abandoned() && pushed.count() == total {
            // SAFETY: the keeper has gone and every buffer is back: nobody else can reach the home,
            // and one thread only saw the count become `total`.
            drop(unsafe { Box::from_raw(home.as_ptr()) });
        }
    }
}

/// Gives the buffer back, and those chained behind it: one after the other, so that a long chain
/// does not recurse.
impl Drop for Segment {
    fn drop(&mut self) {
        let mut next = self.meta_mut().next.take();
        // SAFETY: this segment owned the buffer, and ends here.
        unsafe { Home::give_back(self.0) };
        while let Some(mut segment) = next {
            next = segment.meta_mut().next.take();
        }
    }
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
            returned: AtomicU64::new(Returned::NONE.0),
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
        loop {
            let mut index = self.at_hand.get();
            if index == NIL {
                // Acquire: what the former owners did to the buffers is done.
                let returned = self
                    .home()
                    .returned
                    .swap(Returned::NONE.0, Ordering::Acquire);
                index = Returned(returned).first();
                if index == NIL {
                    return None;
                }
            }
            let home = self.home();
            let after = home.link(index)?.load(Ordering::Relaxed);
            self.at_hand.set(after);
            let mut meta = NonNull::new(home.metas[index as usize].get())?;
            // SAFETY: the index was on the list, so nobody owns this buffer but us.
            let taken = unsafe { meta.as_mut() };
            taken.len = 0;
            if taken.early == 0 || taken.begin_later() {
                return Some(Segment(meta));
            }
            self.quarantined.set(self.quarantined.get() + 1);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let mut at_hand = self.quarantined.get();
        let mut index = self.at_hand.get();
        while let Some(link) = self.home().link(index) {
            at_hand += 1;
            index = link.load(Ordering::Relaxed);
        }
        let total = self.total();
        let abandon = |head: u64| {
            let head = Returned(head);
            Some(Returned::new(head.first(), head.count() + at_hand, true).0)
        };
        let returned = &self.home().returned;
        let before = returned.fetch_update(Ordering::AcqRel, Ordering::Relaxed, abandon);
        let (Ok(before) | Err(before)) = before;
        if Returned(before).count() + at_hand == total {
            // SAFETY: every buffer is home and the keeper goes: nobody can reach the home.
            drop(unsafe { Box::from_raw(self.home.as_ptr()) });
        }
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
    use crate::dma::{DmaSpace, Mapping};
    use crate::error::Result;

    /// Counts how often its one mapping was undone, and how.
    #[derive(Default)]
    struct Space {
        unmapped: Plain,
        quarantined: Plain,
    }

    // SAFETY: nobody touches the memory, which is none.
    unsafe impl DmaSpace for Space {
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
            let segment = self.keeper.take()?;
            let cells = Arc::clone(&self.cells);
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

//! Chains: one or more buffers that a device takes, or has filled, as one.
//!
//! A [`Segment`] is one owned stretch of memory that the device can reach, of whatever kind; a
//! [`Chain`] strings them together, so that a header from a [`Pool`](super::Pool) and a payload from a
//! file's page cache leave as one. Both are one pointer wide: moving one is moving a word. A chain has
//! one word of its rider's beside it, which means nothing here.

use std::ptr::NonNull;

use super::free_list::BufHeader;
use super::{DmaBuf, FileSlice, Iova, SpaceId};

/// The question that a ring asks of every chain at its door, in one word: is its memory of my space (low
/// half), and is the low half of its rider's word 0 (high half)?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Door(u64);

impl Door {
    /// Memory of `space`, and nothing of the rider's.
    #[inline]
    pub(super) fn plain(space: SpaceId) -> Self {
        Self(space.number().into())
    }

    #[inline]
    fn with_rider(self, low: u32) -> Self {
        Self(u64::from(self.0 as u32) | u64::from(low) << 32)
    }

    #[inline]
    fn space(self) -> SpaceId {
        SpaceId::of_number(self.0 as u32)
    }

    #[inline]
    fn rider(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl BufHeader {
    #[inline]
    fn rider(&self) -> u64 {
        u64::from(self.door.rider()) | u64::from(self.rider_high) << 32
    }

    #[inline]
    fn set_rider(&mut self, word: u64) {
        self.door = self.door.with_rider(word as u32);
        self.rider_high = (word >> 32) as u32;
    }
}

/// One owned stretch of memory that the device can reach; dropping it gives it back to where it
/// came from.
pub struct Segment(pub(super) NonNull<BufHeader>);

// SAFETY: a segment is the only owner of its buffer and of the `BufHeader`; giving it back is atomic.
unsafe impl Send for Segment {}
// SAFETY: a shared segment gives out numbers only.
unsafe impl Sync for Segment {}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment({} + {})", self.iova(), self.len())
    }
}

impl Segment {
    #[inline]
    pub(super) fn buf_header(&self) -> &BufHeader {
        // SAFETY: a segment owns its `BufHeader`, whose slab cannot go while the segment is out.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(super) fn buf_header_mut(&mut self) -> &mut BufHeader {
        // SAFETY: as above; the only owner.
        unsafe { self.0.as_mut() }
    }

    /// Address of its first byte for the device.
    #[inline]
    pub fn iova(&self) -> Iova {
        self.buf_header().iova
    }

    /// Length in bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.buf_header().len as usize
    }

    /// The pages of memory behind it have 2 to the power of this many bytes. What lies in one, by its
    /// IOVA, lies side by side in the machine's memory.
    #[inline]
    pub fn page_shift(&self) -> u32 {
        self.buf_header().page_shift.into()
    }

    /// Address in this process: for showing, not for touching.
    pub fn address(&self) -> usize {
        self.buf_header().ptr.as_ptr() as usize
    }

    /// The space that its IOVA belongs to.
    #[inline]
    pub fn space(&self) -> SpaceId {
        self.buf_header().door.space()
    }

    /// Gives it up, and what is chained behind it: a device that did not stop may go on reaching it. It is
    /// never handed out again, and its memory is freed only once the device is cut off from it.
    pub fn quarantine(mut self) {
        let mut segment = Some(&mut self);
        while let Some(one) = segment {
            let header = one.buf_header_mut();
            header.quarantine();
            segment = header.next.as_mut();
        }
    }

    /// Returns whether it is a packet buffer (memory of a pool), which may be written again.
    pub fn is_buffer(&self) -> bool {
        self.buf_header().capacity != 0
    }
}

/// One or more segments, and a word of whoever they are carried for.
#[derive(Debug)]
pub struct Chain(Segment);

impl From<DmaBuf> for Chain {
    #[inline]
    fn from(buf: DmaBuf) -> Self {
        Self::from(buf.0)
    }
}

impl From<FileSlice> for Chain {
    fn from(slice: FileSlice) -> Self {
        Self::from(slice.0)
    }
}

impl From<Segment> for Chain {
    #[inline]
    fn from(mut segment: Segment) -> Self {
        let header = segment.buf_header_mut();
        header.door = Door::plain(header.door.space());
        header.rider_high = 0;
        Self(segment)
    }
}

impl Chain {
    /// Adds `segment` at the end.
    pub fn append(&mut self, segment: impl Into<Segment>) {
        let mut last = &mut self.0;
        while last.buf_header().next.is_some() {
            last = last.buf_header_mut().next.as_mut().expect("just seen");
        }
        last.buf_header_mut().next = Some(segment.into());
    }

    /// Adds `head` before its first segment; the other way is [`Chain::split_first`].
    pub(crate) fn prepend(self, head: DmaBuf) -> Self {
        let mut head = head.0;
        debug_assert!(head.buf_header().next.is_none(), "a buffer by itself");
        head.buf_header_mut().next = Some(self.0);
        Self(head)
    }

    /// Takes the first segment off; the rest is a chain with the rider's word that it had before
    /// [`Chain::prepend`].
    pub(crate) fn split_first(mut self) -> (Segment, Option<Self>) {
        let rest = self.0.buf_header_mut().next.take();
        (self.0, rest.map(Self))
    }

    /// Its segments, in order.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        std::iter::successors(Some(&self.0), |segment| segment.buf_header().next.as_ref())
    }

    /// The only segment, where it has just one: what the fast path asks.
    #[inline]
    pub fn single(&self) -> Option<&Segment> {
        self.0.buf_header().next.is_none().then_some(&self.0)
    }

    /// The first segment.
    #[inline]
    pub fn first(&self) -> &Segment {
        &self.0
    }

    /// The first segment, to put a header before it.
    #[inline]
    pub fn first_mut(&mut self) -> &mut Segment {
        &mut self.0
    }

    /// The only segment, where it has just one, of `space`, and the low half of the rider's word is 0: what
    /// a ring asks at its door.
    #[inline]
    pub fn plain(&self, space: SpaceId) -> Option<&Segment> {
        let header = self.0.buf_header();
        let is_plain = header.door == Door::plain(space) && header.next.is_none();
        is_plain.then_some(&self.0)
    }

    /// Returns whether all its memory is of `space`, so that its IOVAs mean there what they mean here.
    pub fn is_within(&self, space: SpaceId) -> bool {
        self.segments().all(|segment| segment.space() == space)
    }

    /// Gives it up: see [`Segment::quarantine`].
    pub fn quarantine(self) {
        self.0.quarantine();
    }

    /// Length in bytes, all segments together.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        // A loop in place, and no call that would have the frame in memory.
        let mut header = self.0.buf_header();
        let mut len = header.len as usize;
        while let Some(next) = &header.next {
            header = next.buf_header();
            len += header.len as usize;
        }
        len
    }

    /// The rider's word; 0 until it was set.
    #[inline]
    pub fn rider(&self) -> u64 {
        self.0.buf_header().rider()
    }

    /// Sets the rider's word. Its low half is what [`Chain::plain`] asks for.
    #[inline]
    pub fn set_rider(&mut self, word: u64) {
        self.0.buf_header_mut().set_rider(word);
    }

    /// Takes the chain apart, in order.
    pub fn into_segments(self) -> impl Iterator<Item = Segment> {
        let mut next = Some(self.0);
        std::iter::from_fn(move || {
            let mut segment = next.take()?;
            next = segment.buf_header_mut().next.take();
            Some(segment)
        })
    }

    /// The packet buffer it is made of.
    ///
    /// # Errors
    /// The chain again where it is not one buffer of a pool.
    #[inline]
    pub fn into_buf(self) -> Result<DmaBuf, Self> {
        if self.single().is_some_and(Segment::is_buffer) {
            Ok(DmaBuf(self.0))
        } else {
            Err(self)
        }
    }

    /// Copies its bytes out, all segments together; the payload of a [`FileSlice`] cannot be
    /// read by the CPU this way and is given as zeros.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        self.copy_to(&mut bytes);
        bytes
    }

    /// Makes its bytes all that `into` holds; as [`Chain::to_vec`].
    pub fn copy_to(&self, into: &mut Vec<u8>) {
        into.clear();
        for segment in self.segments() {
            let start = into.len();
            into.resize(start + segment.len(), 0);
            if segment.is_buffer() {
                super::pool::copy_out(segment, 0, &mut into[start..]);
            }
        }
    }
}

impl From<DmaBuf> for Segment {
    fn from(buf: DmaBuf) -> Self {
        buf.0
    }
}

impl From<FileSlice> for Segment {
    fn from(slice: FileSlice) -> Self {
        slice.0
    }
}

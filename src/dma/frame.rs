//! Frames: one or more buffers that go out, or came in, as one packet.
//!
//! A [`Segment`] is one owned stretch of memory that the device can reach, of whatever kind; a
//! [`Frame`] is a chain of them, so that a header from a [`Pool`](super::Pool) and a payload from a
//! file's page cache leave as one packet. Both are one pointer wide: moving one is moving a word.

use std::ptr::NonNull;

use super::home::Meta;
use super::{DmaBuf, FileSlice, Iova, SpaceId};

bitflags::bitflags! {
    /// What the NIC shall do to a frame as it leaves.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct OffloadFlags: u8 {
        /// Insert the IPv4 header checksum.
        const IP_CHECKSUM = 1 << 0;
        /// Insert the TCP checksum; the field must hold the pseudo-header's sum, but not with `TSO`.
        const TCP_CHECKSUM = 1 << 1;
        /// Insert the UDP checksum; the field must hold the pseudo-header's sum, but not with `USO`.
        const UDP_CHECKSUM = 1 << 2;
        /// Cut the TCP payload into segments of `mss` bytes; all headers are in the first buffer.
        const TSO = 1 << 3;
        /// Insert the VLAN tag `vlan`.
        const VLAN = 1 << 4;
        /// The network header is IPv6.
        const IPV6 = 1 << 5;
        /// Cut the UDP payload into datagrams of `mss` bytes; all headers are in the first buffer.
        const USO = 1 << 6;
    }
}

/// What the NIC shall do to a frame, and where its headers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Offload {
    /// What to do.
    pub flags: OffloadFlags,
    /// Bytes of the link header (14 for Ethernet).
    pub l2_len: u8,
    /// Bytes of the IP header.
    pub l3_len: u8,
    /// Bytes of the TCP or UDP header.
    pub l4_len: u8,
    /// Payload bytes of a segment, with [`OffloadFlags::TSO`].
    pub mss: u16,
    /// Tag control information, with [`OffloadFlags::VLAN`].
    pub vlan: u16,
}

impl Offload {
    /// Nothing: the frame leaves as it is.
    pub const NONE: Self = Self {
        flags: OffloadFlags::empty(),
        l2_len: 0,
        l3_len: 0,
        l4_len: 0,
        mss: 0,
        vlan: 0,
    };

    /// IPv4 and UDP checksums of an Ethernet frame whose IP header has no options.
    pub const UDP4: Self = Self {
        flags: OffloadFlags::IP_CHECKSUM.union(OffloadFlags::UDP_CHECKSUM),
        l2_len: 14,
        l3_len: 20,
        l4_len: 8,
        mss: 0,
        vlan: 0,
    };

    /// Is there nothing to do?
    #[inline]
    pub fn is_none(&self) -> bool {
        self.flags.is_empty()
    }

    /// The same, with a VLAN tag to insert.
    pub fn with_vlan(mut self, tci: u16) -> Self {
        self.flags |= OffloadFlags::VLAN;
        self.vlan = tci;
        self
    }
}

/// The question that a transmit ring asks of every frame at its door, in one word: is its memory of my
/// space (32 bits), and is there nothing to do to it (flags, and lengths of headers, a byte each)?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Door(u64);

impl Door {
    /// Memory of `space`, with nothing to do.
    #[inline]
    pub(super) fn plain(space: SpaceId) -> Self {
        Self(space.number().into())
    }

    /// Memory of `space`, with all of `offload` to do but what does not fit in.
    fn new(space: SpaceId, offload: Offload) -> Self {
        let [a, b, c, d] = space.number().to_le_bytes();
        let Offload {
            flags,
            l2_len,
            l3_len,
            l4_len,
            ..
        } = offload;
        Self(u64::from_le_bytes([
            a,
            b,
            c,
            d,
            flags.bits(),
            l2_len,
            l3_len,
            l4_len,
        ]))
    }

    #[inline]
    fn space(self) -> SpaceId {
        SpaceId::of_number(self.0 as u32)
    }
}

impl Meta {
    #[inline]
    fn offload(&self) -> Offload {
        let [.., flags, l2_len, l3_len, l4_len] = self.door.0.to_le_bytes();
        Offload {
            flags: OffloadFlags::from_bits_retain(flags),
            l2_len,
            l3_len,
            l4_len,
            mss: self.mss,
            vlan: self.vlan,
        }
    }

    fn set_offload(&mut self, offload: Offload) {
        self.door = Door::new(self.door.space(), offload);
        (self.mss, self.vlan) = (offload.mss, offload.vlan);
    }
}

/// One owned stretch of memory that the device can reach; dropping it gives it back to where it
/// came from.
pub struct Segment(pub(super) NonNull<Meta>);

// SAFETY: a segment is the only owner of its buffer and of the `Meta`; giving it back is atomic.
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
    pub(super) fn meta(&self) -> &Meta {
        // SAFETY: a segment owns its `Meta`, whose home cannot go while the segment is out.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(super) fn meta_mut(&mut self) -> &mut Meta {
        // SAFETY: as above; the only owner.
        unsafe { self.0.as_mut() }
    }

    /// Where the device sees its first byte.
    #[inline]
    pub fn iova(&self) -> Iova {
        self.meta().iova
    }

    /// Length in bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.meta().len as usize
    }

    /// The pages of memory behind it have 2 to the power of this many bytes. What lies in one, by its
    /// IOVA, lies side by side in the machine's memory.
    #[inline]
    pub fn page_shift(&self) -> u32 {
        self.meta().page_shift.into()
    }

    /// Where this process sees it: for showing, not for touching.
    pub fn address(&self) -> usize {
        self.meta().ptr.as_ptr() as usize
    }

    /// The space that its IOVA belongs to.
    #[inline]
    pub fn space(&self) -> SpaceId {
        self.meta().door.space()
    }

    /// Gives it up, and what is chained behind it: a device that did not stop may go on reaching it. It is
    /// never handed out again, and its memory is freed only once the device is cut off from it.
    pub fn quarantine(mut self) {
        let mut segment = Some(&mut self);
        while let Some(one) = segment {
            let meta = one.meta_mut();
            meta.quarantine();
            segment = meta.next.as_mut();
        }
    }

    /// Returns whether it is a packet buffer (memory of a pool), which may be written again.
    pub fn is_buffer(&self) -> bool {
        self.meta().capacity != 0
    }
}

/// A packet: a chain of segments and what the NIC shall do to it.
#[derive(Debug)]
pub struct Frame(Segment);

impl From<DmaBuf> for Frame {
    #[inline]
    fn from(buf: DmaBuf) -> Self {
        Self::from(buf.0)
    }
}

impl From<FileSlice> for Frame {
    fn from(slice: FileSlice) -> Self {
        Self::from(slice.0)
    }
}

impl From<Segment> for Frame {
    #[inline]
    fn from(mut segment: Segment) -> Self {
        let meta = segment.meta_mut();
        meta.door = Door::plain(meta.door.space());
        (meta.mss, meta.vlan) = (0, 0);
        Self(segment)
    }
}

impl Frame {
    /// Adds `segment` at the end.
    pub fn append(&mut self, segment: impl Into<Segment>) {
        let mut last = &mut self.0;
        while last.meta().next.is_some() {
            last = last.meta_mut().next.as_mut().expect("just seen");
        }
        last.meta_mut().next = Some(segment.into());
    }

    /// Its segments, in order.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        std::iter::successors(Some(&self.0), |segment| segment.meta().next.as_ref())
    }

    /// The only segment, where it has just one: what the fast path asks.
    #[inline]
    pub fn single(&self) -> Option<&Segment> {
        self.0.meta().next.is_none().then_some(&self.0)
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

    /// The only segment, where it has just one, of `space`, and the NIC is to do nothing to it: what a
    /// transmit ring asks at its door.
    #[inline]
    pub fn plain(&self, space: SpaceId) -> Option<&Segment> {
        let meta = self.0.meta();
        let is_plain = meta.door == Door::plain(space) && meta.next.is_none();
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
        match self.single() {
            Some(segment) => segment.len(),
            None => self.len_of_all(),
        }
    }

    #[inline(never)]
    fn len_of_all(&self) -> usize {
        self.segments().map(Segment::len).sum()
    }

    /// The EtherType of a frame whose first 14 bytes lie in a packet buffer.
    pub fn ethertype(&self) -> Option<u16> {
        if !self.0.is_buffer() || self.0.len() < 14 {
            return None;
        }
        let mut bytes = [0; 2];
        super::pool::copy_out(&self.0, 12, &mut bytes);
        Some(u16::from_be_bytes(bytes))
    }

    /// What the NIC shall do.
    #[inline]
    pub fn offload(&self) -> Offload {
        self.0.meta().offload()
    }

    /// Says what the NIC shall do.
    pub fn set_offload(&mut self, offload: Offload) {
        self.0.meta_mut().set_offload(offload);
    }

    /// Takes the chain apart, in order.
    pub fn into_segments(self) -> impl Iterator<Item = Segment> {
        let mut next = Some(self.0);
        std::iter::from_fn(move || {
            let mut segment = next.take()?;
            next = segment.meta_mut().next.take();
            Some(segment)
        })
    }

    /// The packet buffer it is made of.
    ///
    /// # Errors
    /// The frame again where it is not one buffer of a pool.
    #[inline]
    pub fn into_buf(self) -> Result<DmaBuf, Self> {
        if self.single().is_some_and(Segment::is_buffer) {
            Ok(DmaBuf(self.0))
        } else {
            Err(self)
        }
    }

    /// Copies the frame's bytes out, all segments together; the payload of a [`FileSlice`] cannot be
    /// read by the CPU this way and is given as zeros.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        self.copy_to(&mut bytes);
        bytes
    }

    /// Makes the frame's bytes all that `into` holds; as [`Frame::to_vec`].
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

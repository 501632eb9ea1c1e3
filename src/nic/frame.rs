//! Frames: what goes out, or came in, as one packet, and what the NIC shall do to it on the way.
//!
//! A [`Frame`] is a [`Chain`] of memory that the device can reach, whose word is its [`Offload`]. It is
//! owned by one place at a time: the caller, or the ring it was pushed into. What is in a ring cannot be
//! touched, because it was moved there:
//!
//! ```
//! # use pinwire::{backend::FakeBar, dma::DmaBuf, nic::e1000::TxRing};
//! fn write_then_push(mut tx: TxRing<FakeBar>, mut buf: DmaBuf) {
//!     buf.fill(b"in time");
//!     tx.submit(buf.into()).unwrap();
//! }
//! ```
//!
//! ```compile_fail,E0382
//! # use pinwire::{backend::FakeBar, dma::DmaBuf, nic::e1000::TxRing};
//! fn submit_then_write(mut tx: TxRing<FakeBar>, mut buf: DmaBuf) {
//!     tx.submit(buf.into()).unwrap();
//!     buf.fill(b"too late"); // the NIC has it
//! }
//! ```
//!
//! ```compile_fail,E0382
//! # use pinwire::{backend::FakeBar, nic::Frame, nic::e1000::TxRing};
//! fn submit_twice(mut tx: TxRing<FakeBar>, frame: Frame) {
//!     tx.submit(frame).unwrap();
//!     tx.submit(frame).unwrap(); // the NIC has it already
//! }
//! ```
//!
//! A ring owns the memory of its descriptors and buffers; nothing else can drop it under the device:
//!
//! ```compile_fail,E0505
//! # use pinwire::{backend::Fake, nic::e1000::E1000};
//! fn drop_the_memory_under_the_ring(mut card: E1000<Fake>) {
//!     let tx = card.tx();
//!     drop(card);
//!     tx.doorbell(); // there is no ring any more
//! }
//! ```
//!
//! ... nor take it away to another card, which would free it while the first still works on it: what a
//! card gives out is a handle, and no place that holds a ring.
//!
//! ```compile_fail,E0308
//! # use pinwire::{backend::Fake, nic::e1000::E1000};
//! fn swap_the_rings(one: &mut E1000<Fake>, other: &mut E1000<Fake>) {
//!     std::mem::swap(one.tx(), other.tx());
//! }
//! ```
//!
//! ```compile_fail,E0308
//! # use pinwire::{backend::Fake, nic::e1000::E1000};
//! fn swap_the_receive_rings(one: &mut E1000<Fake>, other: &mut E1000<Fake>) {
//!     std::mem::swap(one.rx(), other.rx());
//! }
//! ```
//!
//! ```compile_fail,E0308
//! # use pinwire::{backend::Fake, nic::e1000e::E1000e};
//! fn swap_the_rings_of_a_pair(one: &mut E1000e<Fake>, other: &mut E1000e<Fake>) {
//!     std::mem::swap(one.tx(0), other.tx(1));
//! }
//! ```

use crate::dma::{Chain, DmaBuf, FileSlice, Segment, SpaceId};

bitflags::bitflags! {
    /// Work of the NIC on a frame as it leaves.
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

/// Work of the NIC on a frame, and the places of its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Offload {
    /// The work.
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

    /// In one word, the flags in its low half: a frame with nothing to do is a plain chain.
    #[inline]
    fn to_word(self) -> u64 {
        let [mss, mss_high] = self.mss.to_le_bytes();
        let [vlan, vlan_high] = self.vlan.to_le_bytes();
        let (flags, l2, l3, l4) = (self.flags.bits(), self.l2_len, self.l3_len, self.l4_len);
        u64::from_le_bytes([flags, l2, l3, l4, mss, mss_high, vlan, vlan_high])
    }

    #[inline]
    fn of_word(word: u64) -> Self {
        let [
            flags,
            l2_len,
            l3_len,
            l4_len,
            mss,
            mss_high,
            vlan,
            vlan_high,
        ] = word.to_le_bytes();
        Self {
            flags: OffloadFlags::from_bits_retain(flags),
            l2_len,
            l3_len,
            l4_len,
            mss: u16::from_le_bytes([mss, mss_high]),
            vlan: u16::from_le_bytes([vlan, vlan_high]),
        }
    }

    /// Returns whether there is nothing to do.
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

/// A packet: a chain of segments and what the NIC shall do to it.
#[derive(Debug)]
pub struct Frame(Chain);

impl From<DmaBuf> for Frame {
    #[inline]
    fn from(buf: DmaBuf) -> Self {
        Self(buf.into())
    }
}

impl From<FileSlice> for Frame {
    fn from(slice: FileSlice) -> Self {
        Self(slice.into())
    }
}

impl From<Segment> for Frame {
    #[inline]
    fn from(segment: Segment) -> Self {
        Self(segment.into())
    }
}

impl Frame {
    /// Adds `segment` at the end.
    pub fn append(&mut self, segment: impl Into<Segment>) {
        self.0.append(segment);
    }

    /// Adds `head` before its first segment, for a driver's own header; the other way is
    /// [`Frame::split_first`].
    pub(in crate::nic) fn prepend(self, head: DmaBuf) -> Self {
        Self(self.0.prepend(head))
    }

    /// Takes the first segment off; the rest is the frame as it was before [`Frame::prepend`].
    pub(in crate::nic) fn split_first(self) -> (Segment, Option<Self>) {
        let (first, rest) = self.0.split_first();
        (first, rest.map(Self))
    }

    /// Its segments, in order.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.0.segments()
    }

    /// The only segment, where it has just one: what the fast path asks.
    #[inline]
    pub fn single(&self) -> Option<&Segment> {
        self.0.single()
    }

    /// The first segment.
    #[inline]
    pub fn first(&self) -> &Segment {
        self.0.first()
    }

    /// The first segment, to put a header before it.
    #[inline]
    pub fn first_mut(&mut self) -> &mut Segment {
        self.0.first_mut()
    }

    /// The only segment, where it has just one, of `space`, and the NIC is to do nothing to it: what a
    /// transmit ring asks at its door.
    #[inline]
    pub fn plain(&self, space: SpaceId) -> Option<&Segment> {
        self.0.plain(space)
    }

    /// Returns whether all its memory is of `space`, so that its IOVAs mean there what they mean here.
    pub fn is_within(&self, space: SpaceId) -> bool {
        self.0.is_within(space)
    }

    /// Gives it up: see [`Segment::quarantine`].
    pub fn quarantine(self) {
        self.0.quarantine();
    }

    /// Length in bytes, all segments together.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The EtherType of a frame whose first 14 bytes lie in a packet buffer.
    pub fn ethertype(&self) -> Option<u16> {
        self.first().array(12).map(u16::from_be_bytes)
    }

    /// The NIC's work on it.
    #[inline]
    pub fn offload(&self) -> Offload {
        Offload::of_word(self.0.rider())
    }

    /// Says what the NIC shall do.
    pub fn set_offload(&mut self, offload: Offload) {
        self.0.set_rider(offload.to_word());
    }

    /// Takes it apart, in order.
    pub fn into_segments(self) -> impl Iterator<Item = Segment> {
        self.0.into_segments()
    }

    /// The packet buffer it is made of.
    ///
    /// # Errors
    /// The frame again where it is not one buffer of a pool.
    #[inline]
    pub fn into_buf(self) -> Result<DmaBuf, Self> {
        self.0.into_buf().map_err(Self)
    }

    /// Copies the frame's bytes out, all segments together; the payload of a [`FileSlice`] cannot be
    /// read by the CPU this way and is given as zeros.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// Makes the frame's bytes all that `into` holds; as [`Frame::to_vec`].
    pub fn copy_to(&self, into: &mut Vec<u8>) {
        self.0.copy_to(into);
    }
}

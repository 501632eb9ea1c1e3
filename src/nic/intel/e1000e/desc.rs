//! The receive descriptors of the 82574: what the driver and the device say to each other in memory.
//!
//! Besides the 8254x's, which it has too, there are two forms, and this driver uses these. An
//! extended descriptor ([`ExtendedRx`]) has one buffer, a packet split descriptor ([`SplitRx`]) one
//! for headers and three for the rest. In both the device writes its answer over the addresses, so
//! that a buffer's address must be posted anew every time; DD is bit 0 of word 1, and is read first,
//! with Acquire, the rest after it. Names are those of the datasheet's §7.1.

use std::sync::atomic::{AtomicU64, Ordering};

use bitfield_struct::bitfield;

pub use crate::nic::intel::desc::{
    ContextOffsets, ContextTx, DataTx, LegacyTx, TxDesc, describe_tx,
};

use crate::barrier::dma_rmb;
use crate::dma::DmaBuf;
use crate::nic::intel::assemble::Completion;
use crate::nic::intel::desc::{load, push_fields, store};
use crate::nic::intel::rx::{OneBuffer, RxDescriptor};
use crate::nic::intel::rx_split::{HeaderAndRest, MOST, SplitBuffers};
use crate::nic::received::RxForm;

crate::descriptor! {
    /// An extended receive descriptor in memory, §7.1.4. To the device: a buffer's IOVA, and 0. Back from
    /// it: [`RxHash`] and [`RxStatus`].
    #[repr(C, align(16))]
    pub struct ExtendedRx([AtomicU64; 2]);
}

crate::descriptor! {
    /// A packet split receive descriptor in memory, §7.1.5. To the device: four buffers' IOVAs. Back from
    /// it: [`RxHash`], [`RxStatus`] (of buffer 0), [`SplitLengths`] and 0.
    #[repr(C, align(32))]
    pub struct SplitRx([AtomicU64; 4]);
}

const _: () = assert!(size_of::<ExtendedRx>() == 16 && align_of::<ExtendedRx>() == 16);
const _: () = assert!(size_of::<SplitRx>() == 32 && align_of::<SplitRx>() == 32);

impl ExtendedRx {
    /// Gives the device a buffer, and clears word 1 so that DD is the device's word and not an old
    /// one. The device must not own the descriptor, and a barrier must come before the tail.
    #[inline]
    pub fn write(&self, iova: u64) {
        store(&self.0, [iova, 0]);
    }

    /// Returns the device's report on the buffer that it filled; `None` until it has.
    #[inline]
    pub fn poll(&self) -> Option<RxStatus> {
        Some(status(&self.0[1])).filter(|status| status.dd())
    }

    /// Both words, to be shown.
    pub fn words(&self) -> [u64; 2] {
        load(&self.0)
    }
}

impl SplitRx {
    /// Gives the device a buffer for headers and up to three for the rest; 0 is none. They lie at
    /// multiples of 64, so that DD in word 1 is the device's word. The device must not own the
    /// descriptor, and a barrier must come before the tail.
    #[inline]
    pub fn write(&self, iovas: [u64; 4]) {
        debug_assert!(iovas[1].is_multiple_of(2), "bit 0 is DD");
        store(&self.0, iovas);
    }

    /// Returns the device's report on the buffers that it filled; `None` until it has.
    #[inline]
    pub fn poll(&self) -> Option<(RxStatus, SplitLengths)> {
        let status = status(&self.0[1]);
        status.dd().then(|| (status, self.lengths()))
    }

    #[inline]
    fn lengths(&self) -> SplitLengths {
        SplitLengths::from(u64::from_le(self.0[2].load(Ordering::Relaxed)))
    }

    /// All words, to be shown.
    pub fn words(&self) -> [u64; 4] {
        load(&self.0)
    }
}

#[inline]
fn status(word1: &AtomicU64) -> RxStatus {
    let status = u64::from_le(word1.load(Ordering::Acquire));
    // DD before the other words and the frame's bytes: the device wrote them first.
    dma_rmb();
    RxStatus::from(status)
}

/// Word 0 that comes back, §7.1.4: with RXCSUM.PCSD, which queue and why
#[bitfield(u64)]
pub struct RxHash {
    /// Input of the hash: 0 none, 1 TCP over IPv4, 2 IPv4, 3 TCP over IPv6, 4 IPv6 with extensions, 5 IPv6
    #[bits(4)]
    pub rss_type: u8,
    #[bits(4)]
    __: u8,
    /// The queue
    #[bits(5)]
    pub queue: u8,
    #[bits(19)]
    __: u32,
    /// The hash; without PCSD: IP identification, and packet checksum above it
    pub rss_hash: u32,
}

/// Word 1 that comes back, §7.1.4; all but LENGTH and DD count only where EOP is set
#[bitfield(u64)]
pub struct RxStatus {
    /// Descriptor done
    pub dd: bool,
    /// End of packet
    pub eop: bool,
    /// Ignore the checksum bits
    pub ixsm: bool,
    /// VLAN tag stripped into VLAN
    pub vp: bool,
    /// UDP checksum was checked
    pub udpcs: bool,
    /// TCP or UDP checksum was checked
    pub l4cs: bool,
    /// IP checksum was checked
    pub ipcs: bool,
    /// Passed an inexact filter: may not be for us
    pub pif: bool,
    __: bool,
    /// The IP identification in word 0 counts
    pub ipidv: bool,
    /// The UDP packet checksum counts
    pub udpv: bool,
    #[bits(4)]
    __: u8,
    /// A TCP acknowledgement
    pub ack: bool,
    /// Packet type
    #[bits(4)]
    pub pkttype: u8,
    #[bits(4)]
    __: u8,
    /// CRC or alignment error
    pub ce: bool,
    /// Symbol error
    pub se: bool,
    /// Sequence error
    pub seq: bool,
    __: bool,
    /// Carrier extension error
    pub cxe: bool,
    /// TCP or UDP checksum wrong
    pub tcpe: bool,
    /// IP checksum wrong
    pub ipe: bool,
    /// Data error
    pub rxe: bool,
    /// Bytes in this buffer (packet split: in buffer 0)
    pub length: u16,
    /// VLAN tag
    pub vlan: u16,
}

/// Word 2 that comes back of a packet split descriptor, §7.1.5
#[bitfield(u64)]
pub struct SplitLengths {
    /// Bytes of the headers
    #[bits(10)]
    pub hlen: u16,
    #[bits(5)]
    __: u8,
    /// Split: buffer 0 has the headers, and nothing else
    pub sph: bool,
    /// Bytes in buffer 1
    pub length1: u16,
    /// Bytes in buffer 2
    pub length2: u16,
    /// Bytes in buffer 3
    pub length3: u16,
}

impl Completion for RxStatus {
    const END: u64 = Self::new()
        .with_dd(true)
        .with_eop(true)
        .with_ce(true)
        .with_se(true)
        .with_seq(true)
        .with_cxe(true)
        .with_rxe(true)
        .into_bits();
    const GOOD_END: u64 = Self::new().with_dd(true).with_eop(true).into_bits();
    const FORM: RxForm = RxForm::Extended;

    #[inline]
    fn word(self) -> u64 {
        self.into_bits()
    }

    #[inline]
    fn length(self) -> u16 {
        RxStatus::length(&self)
    }

    #[inline]
    fn is_done(self) -> bool {
        self.dd()
    }

    #[inline]
    fn is_end(self) -> bool {
        self.eop()
    }
}

impl RxDescriptor for ExtendedRx {
    type Source = OneBuffer<RxStatus>;

    #[inline]
    fn write(&self, buffer: &DmaBuf) {
        self.write(buffer.iova().0);
    }

    #[inline]
    fn completion(&self) -> RxStatus {
        status(&self.0[1])
    }

    fn show(&self) -> (Vec<u64>, String) {
        let words = self.words();
        (words.to_vec(), describe_extended(words))
    }
}

impl RxDescriptor for SplitRx {
    type Source = HeaderAndRest<RxStatus>;

    #[inline]
    fn write(&self, buffers: &SplitBuffers) {
        self.write(buffers.iovas());
    }

    #[inline]
    fn completion(&self) -> (RxStatus, [u16; MOST]) {
        let (status, lengths) = (status(&self.0[1]), self.lengths());
        let rest = [lengths.length1(), lengths.length2(), lengths.length3()];
        (status, rest)
    }

    fn show(&self) -> (Vec<u64>, String) {
        let words = self.words();
        (words.to_vec(), describe_split(words))
    }
}

/// An extended receive descriptor for people: what the device sees, or what it said.
///
/// ```
/// use pinwire::nic::e1000e::desc::{RxStatus, describe_extended};
/// let word = RxStatus::new().with_length(60).with_dd(true).with_eop(true);
/// assert_eq!(describe_extended([0x1000, 0]), "extended iova=0x1000");
/// assert_eq!(
///     describe_extended([0, word.into()]),
///     "extended dd eop length=60"
/// );
/// ```
pub fn describe_extended([word0, word1]: [u64; 2]) -> String {
    let status = RxStatus::from(word1);
    if !status.dd() {
        return format!("extended iova={word0:#x}");
    }
    let mut text = String::from("extended");
    push_fields(&mut text, RxHash::from(word0));
    push_fields(&mut text, status);
    text
}

/// A packet split receive descriptor for people, likewise.
pub fn describe_split([word0, word1, word2, word3]: [u64; 4]) -> String {
    let status = RxStatus::from(word1);
    if !status.dd() {
        return format!("split iovas={word0:#x} {word1:#x} {word2:#x} {word3:#x}");
    }
    let mut text = String::from("split");
    push_fields(&mut text, RxHash::from(word0));
    push_fields(&mut text, status);
    push_fields(&mut text, SplitLengths::from(word2));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<const N: usize>() -> [AtomicU64; N] {
        std::array::from_fn(|_| AtomicU64::new(u64::MAX))
    }

    /// The descriptor as the device reads it.
    fn bytes(desc: &[AtomicU64]) -> Vec<u8> {
        let word = |word: &AtomicU64| word.load(Ordering::Relaxed).to_ne_bytes();
        desc.iter().flat_map(word).collect()
    }

    /// The device writes the descriptor back.
    fn write_back(desc: &[AtomicU64], bytes: &[u8]) {
        for (half, word) in bytes.chunks_exact(8).zip(desc) {
            let half = half.try_into().expect("8 bytes");
            word.store(u64::from_ne_bytes(half), Ordering::Release);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn an_extended_descriptor_is_byte_exact_both_ways() {
        let desc = ExtendedRx(words());
        desc.write(0x1122_3344_5566_7788);
        assert_eq!(bytes(&desc.0), [
            0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, // address
            0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        ]);
        assert!(desc.poll().is_none());
        write_back(&desc.0, &[
            0x01, 0x01, 0x00, 0x00, 0x77, 0xcc, 0xc2, 0x51, // mrq: type, queue; hash
            0x6b, 0x80, 0x01, 0x60, 0x3c, 0x00, 0x64, 0x60, // status, errors, length, vlan
        ]);
        let status = desc.poll().expect("DD is set");
        assert_eq!((status.length(), status.vlan(), status.pkttype()), (60, 0x6064, 1));
        assert!(status.eop() && status.vp() && status.l4cs() && status.ipcs() && status.ack());
        assert!(status.tcpe() && status.ipe());
        assert!(!status.ixsm() && !status.udpcs() && !status.pif() && !status.ce() && !status.rxe());
        let hash = RxHash::from(desc.words()[0]);
        assert_eq!((hash.rss_type(), hash.queue(), hash.rss_hash()), (1, 1, 0x51c2_cc77));
        desc.write(0x7000);
        assert!(desc.poll().is_none(), "an old DD is not the device's word");
    }

    #[test]
    #[rustfmt::skip]
    fn a_packet_split_descriptor_is_byte_exact_both_ways() {
        let desc = SplitRx(words());
        desc.write([0x1000, 0x2000, 0x3_0000_0000, 0]);
        assert_eq!(bytes(&desc.0), [
            0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // buffer 0
            0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // buffer 1
            0x00, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, // buffer 2
            0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // buffer 3
        ]);
        assert!(desc.poll().is_none());
        write_back(&desc.0, &[
            0x02, 0x00, 0x00, 0x00, 0x78, 0x56, 0x34, 0x12, // mrq, hash
            0x03, 0x00, 0x00, 0x81, 0x2a, 0x00, 0x00, 0x00, // status, errors, length 0, vlan
            0x2a, 0x80, 0x00, 0x10, 0x34, 0x02, 0x01, 0x00, // header status, lengths 1 to 3
            0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        ]);
        let (status, lengths) = desc.poll().expect("DD is set");
        assert_eq!(status.length(), 42);
        assert!(status.dd() && status.eop() && status.ce() && status.rxe());
        assert_eq!((lengths.hlen(), lengths.sph()), (42, true));
        assert_eq!((lengths.length1(), lengths.length2(), lengths.length3()), (4096, 0x234, 1));
    }

    #[test]
    fn people_see_what_the_device_said() {
        assert_eq!(
            describe_extended([RxHash::new().with_rss_type(2).with_rss_hash(7).into(), 3]),
            "extended rss_type=2 rss_hash=7 dd eop"
        );
        assert_eq!(describe_split([1, 2, 3, 4]), "split iovas=0x1 0x2 0x3 0x4");
        let lengths = SplitLengths::new().with_hlen(42).with_sph(true);
        let lengths = lengths.with_length1(1000);
        assert_eq!(
            describe_split([0, 0x2a_0000_0003, lengths.into(), 0]),
            "split dd eop length=42 hlen=42 sph length1=1000"
        );
    }

    #[test]
    fn every_bit_of_the_word_that_is_passed_on_is_told() {
        use crate::nic::{Checksum, RxInfo};
        for flags in 0..=u16::MAX {
            let word = RxStatus::from_bits(u64::from(flags & 0xff) | u64::from(flags >> 8) << 24)
                .with_length(u16::MAX)
                .with_pkttype(0xf)
                .with_vlan(0x602a);
            let expected = |checked, wrong| match (checked && !word.ixsm(), wrong) {
                (false, _) => Checksum::Unchecked,
                (true, false) => Checksum::Good,
                (true, true) => Checksum::Bad,
            };
            for tags_out in [false, true] {
                let mask = RxInfo::mask(RxStatus::FORM, tags_out);
                let info = RxInfo::from_masked(word.into_bits() & mask);
                let tag = (tags_out && word.vp()).then_some(0x602a);
                assert_eq!(info.vlan(), tag);
                assert_eq!(info.ip_checksum(), expected(word.ipcs(), word.ipe()));
                assert_eq!(info.l4_checksum(), expected(word.l4cs(), word.tcpe()));
            }
        }
    }
}

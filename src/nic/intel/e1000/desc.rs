//! The descriptors of the Intel 8254x family: what the driver and the device say to each other in
//! memory.
//!
//! Those for transmission are the same on all of Intel's cards here ([`TxDesc`] and its forms); a
//! receive descriptor is this family's own. It is two aligned little-endian words, of which the
//! device writes DD last, so DD is read first, with Acquire, and the rest after it. Names are those of
//! the manual's chapter 3 (317453, rev. 4.0); [`describe_rx`] shows the words to people.

use std::sync::atomic::{AtomicU64, Ordering};

use bitfield_struct::bitfield;

pub use crate::nic::intel::desc::{
    ContextOffsets, ContextTx, DataTx, LegacyTx, TxDesc, describe_tx,
};

use crate::barrier::dma_rmb;
use crate::dma::DmaBuf;
use crate::nic::intel::assemble::Completion;
use crate::nic::intel::desc::{describe_buffer, load, store};
use crate::nic::intel::rx::{OneBuffer, RxDescriptor};
use crate::nic::received::RxForm;

crate::descriptor! {
    /// A receive descriptor in memory, §3.2.3: a buffer's IOVA, and [`RxWord`].
    #[repr(C, align(16))]
    pub struct RxDesc([AtomicU64; 2]);
}

const _: () = assert!(size_of::<RxDesc>() == 16 && align_of::<RxDesc>() == 16);

impl RxDesc {
    /// Gives the device a buffer, and clears word 1 so that DD is the device's word and not an old
    /// one. The device must not own the descriptor, and a barrier must come before the tail.
    #[inline]
    pub fn write(&self, iova: u64) {
        store(&self.0, [iova, 0]);
    }

    /// Returns the device's report on the buffer that it filled; `None` until it has.
    #[inline]
    pub fn poll(&self) -> Option<RxWord> {
        Some(self.word()).filter(|word| word.dd())
    }

    #[inline]
    fn word(&self) -> RxWord {
        let word = u64::from_le(self.0[1].load(Ordering::Acquire));
        // DD before the frame's bytes: the device wrote them first, and they are read after.
        dma_rmb();
        RxWord::from(word)
    }

    /// Both words, to be shown.
    pub fn words(&self) -> [u64; 2] {
        load(&self.0)
    }
}

/// Word 1 of a receive descriptor, §3.2.3; all but LENGTH and DD count only where EOP is set
#[bitfield(u64)]
pub struct RxWord {
    /// Bytes in this buffer
    pub length: u16,
    /// One's complement sum from RXCSUM.PCSS on
    pub checksum: u16,
    /// Descriptor done
    pub dd: bool,
    /// End of packet
    pub eop: bool,
    /// Ignore the checksum bits
    pub ixsm: bool,
    /// VLAN tag stripped into SPECIAL
    pub vp: bool,
    __: bool,
    /// TCP or UDP checksum was checked
    pub tcpcs: bool,
    /// IP checksum was checked
    pub ipcs: bool,
    /// Passed an inexact filter: may not be for us
    pub pif: bool,
    /// CRC or alignment error
    pub ce: bool,
    /// Symbol error
    pub se: bool,
    /// Sequence error
    pub seq: bool,
    __: bool,
    /// Carrier extension error (82544 only)
    pub cxe: bool,
    /// TCP or UDP checksum wrong
    pub tcpe: bool,
    /// IP checksum wrong
    pub ipe: bool,
    /// Data error
    pub rxe: bool,
    /// VLAN tag
    pub special: u16,
}

impl Completion for RxWord {
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
    const FORM: RxForm = RxForm::Legacy;

    #[inline]
    fn word(self) -> u64 {
        self.into_bits()
    }

    #[inline]
    fn length(self) -> u16 {
        RxWord::length(&self)
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

impl RxDescriptor for RxDesc {
    type Source = OneBuffer<RxWord>;

    #[inline]
    fn write(&self, buffer: &DmaBuf) {
        self.write(buffer.iova().0);
    }

    #[inline]
    fn completion(&self) -> RxWord {
        self.word()
    }

    fn show(&self) -> (Vec<u64>, String) {
        let words = self.words();
        (words.to_vec(), describe_rx(words))
    }
}

/// A receive descriptor for people: the fields that are set.
pub fn describe_rx([word0, word1]: [u64; 2]) -> String {
    describe_buffer("receive", word0, RxWord::from(word1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rx() -> RxDesc {
        RxDesc([AtomicU64::new(0), AtomicU64::new(0)])
    }

    /// The descriptor as the device reads it.
    fn bytes(desc: &[AtomicU64; 2]) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (half, word) in bytes.chunks_exact_mut(8).zip(desc) {
            half.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        bytes
    }

    /// The device writes the descriptor back.
    fn write_back(desc: &[AtomicU64; 2], bytes: [u8; 16]) {
        for (half, word) in bytes.chunks_exact(8).zip(desc) {
            let half = half.try_into().expect("8 bytes");
            word.store(u64::from_ne_bytes(half), Ordering::Release);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_receive_descriptor_is_taken_once_filled() {
        let desc = rx();
        desc.write(0x0000_0001_2345_6000);
        assert!(desc.poll().is_none());
        assert_eq!(bytes(&desc.0)[..8], [0x00, 0x60, 0x45, 0x23, 0x01, 0x00, 0x00, 0x00]);
        write_back(&desc.0, [
            0x00, 0x60, 0x45, 0x23, 0x01, 0x00, 0x00, 0x00, // address
            0x3c, 0x00, 0xad, 0xde, 0xeb, 0x61, 0x64, 0x60, // length, checksum, status, errors, special
        ]);
        let word = desc.poll().expect("DD is set");
        assert_eq!((word.length(), word.checksum(), word.special()), (60, 0xdead, 0x6064));
        assert!(word.dd() && word.eop() && !word.ixsm() && word.vp());
        assert!(word.tcpcs() && word.ipcs() && word.pif());
        assert!(word.ce() && word.tcpe() && word.ipe());
        assert!(!word.se() && !word.seq() && !word.cxe() && !word.rxe());
        desc.write(0x7000);
        assert!(desc.poll().is_none());
        assert_eq!(desc.words(), [0x7000, 0]);
    }

    #[test]
    fn people_see_what_is_set() {
        let word = RxWord::new().with_length(64).with_dd(true).with_eop(true);
        assert_eq!(
            describe_rx([0x2000, word.into()]),
            "receive iova=0x2000 length=64 dd eop"
        );
    }

    #[test]
    fn every_bit_of_the_word_that_is_passed_on_is_told() {
        use crate::nic::{Checksum, RxInfo};
        for flags in 0..=u16::MAX {
            let word = RxWord::from_bits(u64::from(flags) << 32)
                .with_length(u16::MAX)
                .with_special(0x602a);
            let expected = |checked, wrong| match (checked && !word.ixsm(), wrong) {
                (false, _) => Checksum::Unchecked,
                (true, false) => Checksum::Good,
                (true, true) => Checksum::Bad,
            };
            for tags_out in [false, true] {
                let mask = RxInfo::mask(RxWord::FORM, tags_out);
                let info = RxInfo::from_masked(word.into_bits() & mask);
                let tag = (tags_out && word.vp()).then_some(0x602a);
                assert_eq!(info.vlan(), tag);
                assert_eq!(info.ip_checksum(), expected(word.ipcs(), word.ipe()));
                assert_eq!(info.l4_checksum(), expected(word.tcpcs(), word.tcpe()));
            }
        }
    }
}

//! Transmit descriptors, the same on all of Intel's cards here: what the driver and the device say to
//! each other in memory.
//!
//! A descriptor is two aligned little-endian words. The driver owns those outside head..tail, the
//! device the others; the device hands one back by writing DD in word 1, so DD is read first, with
//! Acquire, and the rest of what it wrote after it. Names are those of the 8254x manual's chapter 3
//! (317453, rev. 4.0); the 82574's datasheet has them in §7.2. [`describe_tx`] shows the words to people.

use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use bitfield_struct::bitfield;

use crate::barrier::dma_rmb;
use crate::mmio::fields;

crate::descriptor! {
    /// A transmit descriptor in memory, in one of three forms: legacy ([`LegacyTx`]), context
    /// ([`ContextOffsets`] and [`ContextTx`]) or data ([`DataTx`]).
    #[repr(C, align(16))]
    pub struct TxDesc([AtomicU64; 2]);
}

const _: () = assert!(size_of::<TxDesc>() == 16 && align_of::<TxDesc>() == 16);

/// Descriptor done: at the same place in word 1 of every form.
const DD: u64 = 1 << 32;
/// Report status: likewise.
const RS: u64 = 1 << 27;

impl TxDesc {
    /// Writes both words. The device must not own the descriptor, and a barrier must come before
    /// the tail: else the device may fetch what is not written yet.
    #[inline]
    pub fn write(&self, word0: u64, word1: u64) {
        store(&self.0, [word0, word1]);
    }

    /// Sets RS: the device shall write DD when it is through with this one. The device must not own
    /// the descriptor.
    #[inline]
    pub fn report(&self) {
        let word1 = u64::from_le(self.0[1].load(Ordering::Relaxed)) | RS;
        self.0[1].store(word1.to_le(), Ordering::Relaxed);
    }

    /// Returns whether the device has written it back (it does so only if RS was set).
    #[inline]
    pub fn done(&self) -> bool {
        let done = u64::from_le(self.0[1].load(Ordering::Acquire)) & DD != 0;
        if done {
            // DD before the buffer is used again: no access to it moves before the load.
            dma_rmb();
        }
        done
    }

    /// Both words, to be shown.
    pub fn words(&self) -> [u64; 2] {
        load(&self.0)
    }
}

#[inline]
pub(in crate::nic) fn store<const N: usize>(desc: &[AtomicU64; N], words: [u64; N]) {
    // Relaxed: the barrier before the tail orders all; until then the device does not look.
    for (to, word) in desc.iter().zip(words) {
        to.store(word.to_le(), Ordering::Relaxed);
    }
}

pub(in crate::nic) fn load<const N: usize>(desc: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|i| u64::from_le(desc[i].load(Ordering::Relaxed)))
}

/// Word 1 of a legacy transmit descriptor, §3.3.3; word 0 is the buffer's IOVA
#[bitfield(u64)]
pub struct LegacyTx {
    /// Bytes in this buffer
    pub length: u16,
    /// Checksum offset: where it goes, with IC
    pub cso: u8,
    /// End of packet
    pub eop: bool,
    /// Insert the CRC
    pub ifcs: bool,
    /// Insert a checksum
    pub ic: bool,
    /// Report status: write DD
    pub rs: bool,
    /// Report once sent (82544 only)
    pub rps: bool,
    /// Extension: not in this form
    pub dext: bool,
    /// Insert SPECIAL as VLAN tag, with CTRL.VME
    pub vle: bool,
    /// Delay the interrupt
    pub ide: bool,
    /// Descriptor done
    pub dd: bool,
    /// Excess collisions
    pub ec: bool,
    /// Late collision
    pub lc: bool,
    /// Underrun (82544 only)
    pub tu: bool,
    #[bits(4)]
    __: u8,
    /// Checksum start: from where, with IC
    pub css: u8,
    /// VLAN tag
    pub special: u16,
}

/// Word 0 of a context descriptor, §3.3.6: in bytes from the frame's start, where two checksums
/// start, go and end (the last byte; 0 is the frame's last)
#[bitfield(u64)]
pub struct ContextOffsets {
    /// IP checksum start
    pub ipcss: u8,
    /// IP checksum's own place
    pub ipcso: u8,
    /// IP checksum end
    pub ipcse: u16,
    /// TCP/UDP checksum start
    pub tucss: u8,
    /// TCP/UDP checksum's own place
    pub tucso: u8,
    /// TCP/UDP checksum end
    pub tucse: u16,
}

/// Word 1 of a context descriptor, §3.3.6: how the data descriptors after it are checksummed and
/// cut; [`ContextTx::new`] has DEXT and DTYP set
#[bitfield(u64)]
pub struct ContextTx {
    /// Bytes to cut, without the headers
    #[bits(20)]
    pub paylen: u32,
    /// Descriptor type: 0
    #[bits(4)]
    pub dtyp: u8,
    /// TCP, not UDP
    pub tcp: bool,
    /// IPv4, not IPv6
    pub ip: bool,
    /// Segmentation
    pub tse: bool,
    /// Report status: write DD
    pub rs: bool,
    __: bool,
    /// Extension: this form or data
    #[bits(default = true)]
    pub dext: bool,
    /// SNAP headers
    pub snap: bool,
    /// Delay the interrupt
    pub ide: bool,
    /// Descriptor done
    pub dd: bool,
    #[bits(7)]
    __: u8,
    /// Header bytes before each segment's payload
    pub hdrlen: u8,
    /// Payload bytes a segment
    pub mss: u16,
}

/// Word 1 of a data descriptor, §3.3.7; word 0 is the buffer's IOVA; [`DataTx::new`] has DEXT and
/// DTYP set
#[bitfield(u64)]
pub struct DataTx {
    /// Bytes in this buffer
    #[bits(20)]
    pub dtalen: u32,
    /// Descriptor type: 1
    #[bits(4, default = DATA)]
    pub dtyp: u8,
    /// End of packet
    pub eop: bool,
    /// Insert the CRC
    pub ifcs: bool,
    /// Segmentation
    pub tse: bool,
    /// Report status: write DD
    pub rs: bool,
    /// Report once sent (82544 only)
    pub rps: bool,
    /// Extension: this form or context
    #[bits(default = true)]
    pub dext: bool,
    /// Insert SPECIAL as VLAN tag, with CTRL.VME
    pub vle: bool,
    /// Delay the interrupt
    pub ide: bool,
    /// Descriptor done
    pub dd: bool,
    /// Excess collisions
    pub ec: bool,
    /// Late collision
    pub lc: bool,
    /// Underrun (82544 only)
    pub tu: bool,
    #[bits(4)]
    __: u8,
    /// Insert the IP checksum; in a frame's first descriptor
    pub ixsm: bool,
    /// Insert the TCP/UDP checksum; in a frame's first descriptor
    pub txsm: bool,
    #[bits(6)]
    __: u8,
    /// VLAN tag
    pub special: u16,
}

/// DTYP of a context descriptor.
const CONTEXT: u8 = 0;
/// DTYP of a data descriptor.
const DATA: u8 = 1;

/// A transmit descriptor for people: its form, and the fields that are set.
///
/// ```
/// use pinwire::nic::e1000::desc::{LegacyTx, describe_tx};
/// let word = LegacyTx::new().with_length(60).with_eop(true).with_rs(true);
/// assert_eq!(
///     describe_tx([0x1000, word.into()]),
///     "legacy iova=0x1000 length=60 eop rs"
/// );
/// ```
pub fn describe_tx([word0, word1]: [u64; 2]) -> String {
    let data = DataTx::from(word1);
    match (data.dext(), data.dtyp()) {
        (false, _) => describe_buffer("legacy", word0, LegacyTx::from(word1)),
        (true, DATA) => describe_buffer("data", word0, data),
        (true, CONTEXT) => {
            let mut text = String::from("context");
            push_fields(&mut text, ContextOffsets::from(word0));
            push_fields(&mut text, ContextTx::from(word1));
            text
        }
        (true, dtyp) => format!("unknown dtyp={dtyp} words={word0:#x} {word1:#x}"),
    }
}

pub(in crate::nic) fn describe_buffer(form: &str, iova: u64, word: impl Debug) -> String {
    let mut text = format!("{form} iova={iova:#x}");
    push_fields(&mut text, word);
    text
}

/// Appends ` flag` or ` field=value` for each that is set.
pub(in crate::nic) fn push_fields(text: &mut String, word: impl Debug) {
    for (name, value) in fields(word) {
        match value.as_str() {
            "true" => write!(text, " {name}"),
            _ => write!(text, " {name}={value}"),
        }
        .expect("a String takes all");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tx() -> TxDesc {
        TxDesc([AtomicU64::new(0), AtomicU64::new(0)])
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
    fn a_legacy_descriptor_is_byte_exact() {
        let desc = tx();
        let word = LegacyTx::new()
            .with_length(0x05ea).with_cso(0x32).with_css(0x22).with_special(0x6064)
            .with_eop(true).with_ifcs(true).with_ic(true).with_rs(true).with_vle(true);
        desc.write(0x1122_3344_5566_7788, word.into());
        assert_eq!(bytes(&desc.0), [
            0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, // address
            0xea, 0x05, 0x32, 0x4f, 0x00, 0x22, 0x64, 0x60, // length, cso, cmd, sta, css, special
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn a_context_descriptor_is_byte_exact() {
        let desc = tx();
        let offsets = ContextOffsets::new()
            .with_ipcss(14).with_ipcso(24).with_ipcse(33)
            .with_tucss(34).with_tucso(50).with_tucse(0);
        let word = ContextTx::new()
            .with_paylen(0x2_0b68).with_hdrlen(54).with_mss(1460)
            .with_tcp(true).with_ip(true).with_tse(true).with_ide(true);
        desc.write(offsets.into(), word.into());
        assert_eq!(bytes(&desc.0), [
            0x0e, 0x18, 0x21, 0x00, 0x22, 0x32, 0x00, 0x00, // ipcss, so, se, tucss, so, se
            0x68, 0x0b, 0x02, 0xa7, 0x00, 0x36, 0xb4, 0x05, // paylen, dtyp, tucmd, sta, hdrlen, mss
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn a_data_descriptor_is_byte_exact() {
        let desc = tx();
        let word = DataTx::new()
            .with_dtalen(0x2_0b9e).with_special(0x0007)
            .with_eop(true).with_ifcs(true).with_tse(true).with_rs(true)
            .with_ixsm(true).with_txsm(true);
        desc.write(0x8000_0000, word.into());
        assert_eq!(bytes(&desc.0), [
            0x00, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, // address
            0x9e, 0x0b, 0x12, 0x2f, 0x00, 0x03, 0x07, 0x00, // dtalen, dtyp, dcmd, sta, popts, special
        ]);
    }

    #[test]
    fn done_and_report_are_the_same_bits_in_every_form() {
        assert_eq!(LegacyTx::from_bits(0).with_dd(true).into_bits(), DD);
        assert_eq!(ContextTx::from_bits(0).with_dd(true).into_bits(), DD);
        assert_eq!(DataTx::from_bits(0).with_dd(true).into_bits(), DD);
        assert_eq!(LegacyTx::from_bits(0).with_rs(true).into_bits(), RS);
        assert_eq!(ContextTx::from_bits(0).with_rs(true).into_bits(), RS);
        assert_eq!(DataTx::from_bits(0).with_rs(true).into_bits(), RS);
    }

    #[test]
    fn a_transmit_descriptor_is_done_once_written_back() {
        let desc = tx();
        desc.write(0x1000, LegacyTx::new().with_length(60).with_rs(true).into());
        assert!(!desc.done());
        let mut written = bytes(&desc.0);
        written[12] = 0x01;
        write_back(&desc.0, written);
        assert!(desc.done());
        desc.write(0x2000, LegacyTx::new().with_length(60).into());
        assert!(!desc.done());
    }

    #[test]
    fn people_see_the_form_and_what_is_set() {
        let offsets = ContextOffsets::new().with_tucss(34).with_tucso(40);
        let context = ContextTx::new().with_ip(true);
        assert_eq!(
            describe_tx([offsets.into(), context.into()]),
            "context tucss=34 tucso=40 ip dext"
        );
        let data = DataTx::new().with_dtalen(1514).with_eop(true).with_dd(true);
        assert_eq!(
            describe_tx([0x1000, data.into()]),
            "data iova=0x1000 dtalen=1514 dtyp=1 eop dext dd"
        );
        assert_eq!(
            describe_tx([1, data.with_dtyp(7).into()]),
            "unknown dtyp=7 words=0x1 0x1217005ea"
        );
    }
}

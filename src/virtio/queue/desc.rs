//! The descriptor of both kinds of virtqueues: 16 bytes, two aligned little-endian words.
//!
//! Word 0 is the buffer's address. Word 1 is [`SplitWord`] (virtio 1.2, §2.7.5) or [`PackedWord`]
//! (§2.8.13); in a packed ring it also says, by AVAIL and USED, whose the descriptor is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dma::{DmaArray, DmaSpace, Iova};
use crate::error::Result;
use crate::virtio::Piece;

bitflags::bitflags! {
    /// A descriptor's flags, §2.7.5 and §2.8.1.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct DescFlags: u16 {
        /// The chain goes on.
        const NEXT = 1 << 0;
        /// The device writes the buffer; else it reads it.
        const WRITE = 1 << 1;
        /// The buffer is a table of descriptors.
        const INDIRECT = 1 << 2;
        /// Packed: made available where this is the driver's wrap counter, and USED is not.
        const AVAIL = 1 << 7;
        /// Packed: used where this and AVAIL are the device's wrap counter.
        const USED = 1 << 15;
    }
}

impl DescFlags {
    /// [`DescFlags::WRITE`] or nothing.
    #[inline]
    pub(super) const fn write_if(on: bool) -> Self {
        if on { Self::WRITE } else { Self::empty() }
    }

    /// [`DescFlags::NEXT`] or nothing.
    #[inline]
    pub(super) const fn next_if(on: bool) -> Self {
        if on { Self::NEXT } else { Self::empty() }
    }
}

/// Word 1 of a split ring's descriptor, §2.7.5.
#[derive(Debug, Clone, Copy)]
pub(super) struct SplitWord {
    /// Bytes of the buffer.
    pub len: u32,
    /// Flags.
    pub flags: DescFlags,
    /// The chain's next descriptor, with NEXT.
    pub next: u16,
}

// By hand and not by a bitfield: these are on the hot path of every ring, which is made in the crate
// that uses it, and must be inlined there.
impl From<SplitWord> for u64 {
    #[inline]
    fn from(word: SplitWord) -> Self {
        Self::from(word.len) | Self::from(word.flags.bits()) << 32 | Self::from(word.next) << 48
    }
}

impl From<u64> for SplitWord {
    #[inline]
    fn from(word: u64) -> Self {
        Self {
            len: word as u32,
            flags: DescFlags::from_bits_retain((word >> 32) as u16),
            next: (word >> 48) as u16,
        }
    }
}

/// Word 1 of a packed ring's descriptor, §2.8.13.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackedWord {
    /// Bytes of the buffer; in a used descriptor, bytes written.
    pub len: u32,
    /// The chain's id.
    pub id: u16,
    /// Flags, with those that say whose it is.
    pub flags: DescFlags,
}

impl From<PackedWord> for u64 {
    #[inline]
    fn from(word: PackedWord) -> Self {
        Self::from(word.len) | Self::from(word.id) << 32 | Self::from(word.flags.bits()) << 48
    }
}

impl From<u64> for PackedWord {
    #[inline]
    fn from(word: u64) -> Self {
        Self {
            len: word as u32,
            id: (word >> 32) as u16,
            flags: DescFlags::from_bits_retain((word >> 48) as u16),
        }
    }
}

crate::descriptor! {
    /// A descriptor in memory.
    #[repr(C, align(16))]
    pub struct Desc([AtomicU64; 2]);
}

const _: () = assert!(size_of::<Desc>() == 16 && align_of::<Desc>() == 16);

impl Desc {
    /// Writes both words. A barrier must come before what hands the descriptor over.
    #[inline]
    pub(super) fn write(&self, iova: Iova, word1: u64) {
        self.set_iova(iova);
        self.0[1].store(word1.to_le(), Ordering::Relaxed);
    }

    /// Writes the address only.
    #[inline]
    pub(super) fn set_iova(&self, iova: Iova) {
        self.0[0].store(iova.0.to_le(), Ordering::Relaxed);
    }

    /// Writes word 1, which makes a packed ring's descriptor available.
    #[inline]
    pub(super) fn hand_over(&self, word1: u64) {
        // Release: the address before the word that vouches for it, also for a fake: a processor that is
        // the device and looks ahead; for others there is a barrier before a batch's first one.
        self.0[1].store(word1.to_le(), Ordering::Release);
    }

    /// Word 1 as it is now, in one piece: flags, id and length are of one moment.
    #[inline]
    pub(super) fn word1(&self) -> u64 {
        u64::from_le(self.0[1].load(Ordering::Relaxed))
    }

    /// Both words, to be shown.
    pub(super) fn words(&self) -> [u64; 2] {
        [0, 1].map(|i| u64::from_le(self.0[i].load(Ordering::Relaxed)))
    }
}

/// Tables for indirect descriptors, one for each chain that can be: made with the ring, so that no
/// packet has to wait for memory.
pub(super) struct Tables(DmaArray<Desc>);

impl Tables {
    /// The longest chain that goes into a table.
    pub(super) const LONGEST: usize = 32;
    /// The shortest: for one of two pieces the device would fetch a table to save one descriptor.
    pub(super) const SHORTEST: usize = 3;

    /// Descriptors of a ring of `size` that a chain of `pieces` takes: one where it goes into a table.
    /// That may be no longer than the ring, §2.7.5.3.1.
    #[inline]
    pub(super) fn needs(tables: Option<&Self>, pieces: usize, size: usize) -> usize {
        let suits = pieces <= size && (Self::SHORTEST..=Self::LONGEST).contains(&pieces);
        match tables {
            Some(_) if suits => 1,
            _ => pieces,
        }
    }

    /// `count` of them.
    pub(super) fn alloc(dma: &Arc<dyn DmaSpace>, count: usize) -> Result<Self> {
        Ok(Self(DmaArray::alloc(
            dma,
            count.saturating_mul(Self::LONGEST),
        )?))
    }

    /// Writes the table of chain `id`; `word1` makes the second word of each piece from its place
    /// and length. Gives where the table is, and its length in bytes.
    pub(super) fn fill(
        &self,
        id: u16,
        pieces: &[Piece],
        word1: impl Fn(usize, u32) -> u64,
    ) -> (Iova, u32) {
        let first = usize::from(id).saturating_mul(Self::LONGEST);
        let table = &self.0[first..][..Self::LONGEST];
        for (nth, (desc, piece)) in table.iter().zip(pieces).enumerate() {
            desc.write(piece.iova, word1(nth, piece.len));
        }
        (
            self.0.iova(first),
            size_of_val(&table[..pieces.len()]) as u32,
        )
    }

    /// The table at `iova`, as both sides see it, and its length in bytes: to be shown.
    pub(super) fn at(&self, iova: Iova, len: u32) -> Option<(Iova, usize, usize)> {
        let past = usize::try_from(iova.0.checked_sub(self.0.iova(0).0)?).ok()?;
        let desc = self.0.get(past.checked_div(size_of::<Desc>())?)?;
        Some((iova, (&raw const *desc).addr(), len as usize))
    }

    /// As [`DmaArray::quarantine`].
    pub(super) fn quarantine(&mut self) {
        self.0.quarantine();
    }
}

/// A split ring's descriptor in the specification's names.
pub fn describe_split(words: [u64; 2]) -> String {
    let word = SplitWord::from(words[1]);
    let names = match word.flags.is_empty() {
        true => "0".to_owned(),
        false => named(word.flags).join("|"),
    };
    let next = match word.flags.contains(DescFlags::NEXT) {
        true => format!(" next={}", word.next),
        false => String::new(),
    };
    format!("addr={:#x} len={} flags={names}{next}", words[0], word.len)
}

/// A packed ring's descriptor in the specification's names.
pub fn describe_packed(words: [u64; 2]) -> String {
    let word = PackedWord::from(words[1]);
    let mut text = format!("addr={:#x} len={} id={}", words[0], word.len, word.id);
    for name in named(word.flags) {
        text.push(' ');
        text.push_str(&name);
    }
    text
}

/// The names of `flags`; bits that have none as one number.
fn named(flags: DescFlags) -> Vec<String> {
    let names = flags.iter_names().map(|(name, _)| name.to_owned());
    let rest = flags.difference(DescFlags::all()).bits();
    let rest = (rest != 0).then(|| format!("{rest:#x}"));
    names.chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(len: u32, flags: u16, next: u16) -> u64 {
        let flags = DescFlags::from_bits_retain(flags);
        SplitWord { len, flags, next }.into()
    }

    fn packed(len: u32, id: u16, flags: u16) -> u64 {
        let flags = DescFlags::from_bits_retain(flags);
        PackedWord { len, id, flags }.into()
    }

    #[test]
    fn people_see_a_split_descriptors_fields() {
        assert_eq!(
            describe_split([0x1000, split(1514, 3, 3)]),
            "addr=0x1000 len=1514 flags=NEXT|WRITE next=3"
        );
        assert_eq!(
            describe_split([0, split(60, 0, 9)]),
            "addr=0x0 len=60 flags=0"
        );
        assert_eq!(
            describe_split([0x20, split(0, 0x14, 0)]),
            "addr=0x20 len=0 flags=INDIRECT|0x10"
        );
    }

    #[test]
    fn people_see_a_packed_descriptors_fields() {
        assert_eq!(
            describe_packed([0x2000, packed(64, 7, 0x8082)]),
            "addr=0x2000 len=64 id=7 WRITE AVAIL USED"
        );
        assert_eq!(describe_packed([0, 0]), "addr=0x0 len=0 id=0");
    }

    #[test]
    fn both_words_are_byte_exact() {
        let word = split(0x0403_0201, 2, 0x0605);
        assert_eq!(word.to_le_bytes(), [1, 2, 3, 4, 2, 0, 5, 6]);
        let word = packed(0x0403_0201, 0x0605, 0x8080);
        assert_eq!(word.to_le_bytes(), [1, 2, 3, 4, 5, 6, 0x80, 0x80]);
    }

    #[test]
    fn a_word_read_is_the_word_written() {
        for word in [0, u64::MAX, 0x0123_4567_89ab_cdef] {
            assert_eq!(u64::from(SplitWord::from(word)), word);
            assert_eq!(u64::from(PackedWord::from(word)), word);
        }
    }
}

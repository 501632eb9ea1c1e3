//! A frame that came in, and what the card said of it.

use super::Frame;

/// A card's finding about a checksum of a frame that it received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// Nothing: it did not look.
    #[default]
    Unchecked,
    /// It is right.
    Good,
    /// It is wrong.
    Bad,
}

/// A frame that came in.
#[derive(Debug)]
pub struct Received {
    /// Its buffers.
    pub frame: Frame,
    /// The card's findings about it.
    pub info: RxInfo,
}

/// A frame of which the card said nothing.
impl From<Frame> for Received {
    fn from(frame: Frame) -> Self {
        let info = RxInfo::NONE;
        Self { frame, info }
    }
}

impl Received {
    /// The VLAN tag that the card took out.
    #[inline]
    pub fn vlan(&self) -> Option<u16> {
        self.info.vlan()
    }

    /// The card's finding about the IPv4 header checksum.
    #[inline]
    pub fn ip_checksum(&self) -> Checksum {
        self.info.ip_checksum()
    }

    /// The card's finding about the TCP or UDP checksum.
    #[inline]
    pub fn l4_checksum(&self) -> Checksum {
        self.info.l4_checksum()
    }
}

/// A card's findings about a frame, in one word: a ring copies it, and only who wants to know takes it apart.
///
/// ```
/// use pinwire::nic::{Checksum, RxInfo};
/// let info = RxInfo::NONE.with_vlan(0x602a).with_l4_checksum(Checksum::Good);
/// assert_eq!(info.vlan(), Some(0x602a));
/// assert_eq!(info.ip_checksum(), Checksum::Unchecked);
/// assert_eq!(info.l4_checksum(), Checksum::Good);
/// ```
// The bits of each card stay where its descriptor has them, so that one mask makes this of it: each thing has
// a place in the 8254x's word (§3.2.3) and one in the 82574's (§7.1.4), and is so where either is set. The tag
// is at the same place in both.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct RxInfo(u64);

/// A checksum's bits: it was checked, and is wrong.
struct Bits {
    checked: u64,
    wrong: u64,
}

const IP: Bits = Bits {
    checked: 1 << 38 | 1 << 6,
    wrong: 1 << 46 | 1 << 30,
};
const L4: Bits = Bits {
    checked: 1 << 37 | 1 << 5,
    wrong: 1 << 45 | 1 << 29,
};
/// The bits of the checksums say nothing.
const IGNORE: u64 = 1 << 34 | 1 << 2;
/// A tag was taken out, and is in the upper 16 bits.
const TAGGED: u64 = 1 << 35 | 1 << 3;
const TAG: u32 = 48;

impl RxInfo {
    /// The card said nothing.
    pub const NONE: Self = Self(0);
    /// The bits that count of an 8254x's or an 82574's word; of another form's the bits are elsewhere.
    pub(super) const fn mask(form: RxForm, vlan: bool) -> u64 {
        let all = IP.checked | IP.wrong | L4.checked | L4.wrong | IGNORE;
        let all = if vlan {
            all | TAGGED | 0xffff << TAG
        } else {
            all
        };
        let flags = match form {
            RxForm::Legacy => 0xffff << 32,
            RxForm::Extended => 0xffff_ffff,
        };
        all & (flags | 0xffff << TAG)
    }

    /// From a descriptor's word, of which [`RxInfo::mask`] is left.
    #[inline]
    pub(super) const fn from_masked(word: u64) -> Self {
        Self(word)
    }

    /// With the tag control information that the card took out.
    pub const fn with_vlan(self, tci: u16) -> Self {
        Self(self.0 & !(0xffff << TAG) | TAGGED | (tci as u64) << TAG)
    }

    /// With this finding about the IPv4 header checksum.
    pub const fn with_ip_checksum(self, checksum: Checksum) -> Self {
        self.with(IP, checksum)
    }

    /// With this finding about the TCP or UDP checksum.
    pub const fn with_l4_checksum(self, checksum: Checksum) -> Self {
        self.with(L4, checksum)
    }

    const fn with(self, bits: Bits, checksum: Checksum) -> Self {
        let cleared = self.0 & !(bits.checked | bits.wrong);
        Self(match checksum {
            Checksum::Unchecked => cleared,
            Checksum::Good => cleared | bits.checked,
            Checksum::Bad => cleared | bits.checked | bits.wrong,
        })
    }

    /// The VLAN tag that the card took out.
    #[inline]
    pub fn vlan(self) -> Option<u16> {
        (self.0 & TAGGED != 0).then_some((self.0 >> TAG) as u16)
    }

    /// The card's finding about the IPv4 header checksum.
    #[inline]
    pub fn ip_checksum(self) -> Checksum {
        self.checksum(IP)
    }

    /// The card's finding about the TCP or UDP checksum.
    #[inline]
    pub fn l4_checksum(self) -> Checksum {
        self.checksum(L4)
    }

    #[inline]
    fn checksum(self, bits: Bits) -> Checksum {
        let is = |bits| self.0 & bits != 0;
        match is(bits.checked) && !is(IGNORE) {
            false => Checksum::Unchecked,
            true if is(bits.wrong) => Checksum::Bad,
            true => Checksum::Good,
        }
    }
}

/// The card whose word an [`RxInfo`] is made of.
#[derive(Debug, Clone, Copy)]
pub enum RxForm {
    /// An 8254x's, §3.2.3.
    Legacy,
    /// An 82574's, §7.1.4.
    Extended,
}

impl std::fmt::Debug for RxInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RxInfo")
            .field("vlan", &self.vlan())
            .field("ip_checksum", &self.ip_checksum())
            .field("l4_checksum", &self.l4_checksum())
            .finish()
    }
}

const _: () = assert!(size_of::<Received>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_what_is_read_whatever_was_said_besides() {
        const ALL: [Checksum; 3] = [Checksum::Unchecked, Checksum::Good, Checksum::Bad];
        for (ip, l4, vlan) in ALL
            .into_iter()
            .flat_map(|ip| ALL.map(|l4| (ip, l4)))
            .flat_map(|(ip, l4)| [None, Some(0), Some(0xffff)].map(|vlan| (ip, l4, vlan)))
        {
            let bad = RxInfo::NONE.with_ip_checksum(Checksum::Bad);
            let mut info = bad.with_l4_checksum(l4).with_ip_checksum(ip);
            if let Some(tci) = vlan {
                info = info.with_vlan(7).with_vlan(tci);
            }
            assert_eq!(
                (info.ip_checksum(), info.l4_checksum(), info.vlan()),
                (ip, l4, vlan)
            );
        }
    }
}

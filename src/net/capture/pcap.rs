//! The records of a pcap file, as libpcap reads them (draft-ietf-opsawg-pcap; `sf-pcap.c`).
//!
//! The snapshot length, the time zone, and the version where it is none that orders the lengths in another
//! way, change nothing of what is sent, so they are not looked at.

use std::task::Poll;

use super::input::Window;
use super::order::Order;
use super::{Bad, CUT, LONGEST, Link, Record};

/// Bytes of a file's header.
pub const HEADER: usize = 24;

/// A pcap file.
pub struct Pcap {
    order: Order,
    /// Nanoseconds of a unit of a timestamp's fraction.
    unit: i128,
    /// Bytes of a record's header.
    header: usize,
    lengths: Lengths,
    /// Link type of its packets, and number of bytes of check sequence behind each.
    pub link: Link,
}

/// In which order a record has its two lengths.
#[derive(Clone, Copy)]
enum Lengths {
    CapturedFirst,
    /// Version 2.3: some of its writers did.
    LongerLast,
    CapturedLast,
}

/// Bit of the link type that says that there is a length of check sequences in its upper 4.
const FCS_PRESENT: u32 = 1 << 26;

impl Pcap {
    /// Byte order and unit of time of a file that begins with `magic`, and whether it is in Kuznetzov's form, with
    /// longer record headers.
    pub fn magic(magic: [u8; 4]) -> Option<(Order, i128, bool)> {
        for (order, magic) in [
            (Order::Big, u32::from_be_bytes(magic)),
            (Order::Little, u32::from_le_bytes(magic)),
        ] {
            match magic {
                0xa1b2_c3d4 => return Some((order, 1000, false)),
                0xa1b2_3c4d => return Some((order, 1, false)),
                0xa1b2_cd34 => return Some((order, 1000, true)),
                _ => {}
            }
        }
        None
    }

    /// A file with this header of [`HEADER`] bytes.
    pub fn new(header: &[u8], (order, unit, patched): (Order, i128, bool)) -> Self {
        let version = (order.u16(header, 4), order.u16(header, 6));
        let link = order.u32(header, 20);
        let words = match link & FCS_PRESENT {
            0 => 0,
            _ => link >> 28, // of 16 bits
        };
        Self {
            order,
            unit,
            header: if patched { 24 } else { 16 },
            lengths: match version {
                (2, 0..=2) | (543, 0) => Lengths::CapturedLast,
                (2, 3) => Lengths::LongerLast,
                _ => Lengths::CapturedFirst,
            },
            link: Link {
                kind: link as u16, // the bits between are reserved
                fcs: words as usize * 2,
            },
        }
    }

    /// The next record; `None` after the last.
    pub fn next(&self, window: &mut Window) -> Result<Poll<Option<Record>>, Bad> {
        let Poll::Ready(head) = window.want(self.header)? else {
            return Ok(Poll::Pending);
        };
        if head.is_empty() {
            return Ok(Poll::Ready(None));
        }
        if head.len() < self.header {
            return Err(CUT.into());
        }
        let word = |index: usize| self.order.u32(head, 4 * index);
        let time = i128::from(word(0)) * 1_000_000_000 + i128::from(word(1)) * self.unit;
        let (first, second) = (word(2), word(3));
        let (captured, wire) = match self.lengths {
            Lengths::CapturedLast => (second, first),
            Lengths::LongerLast if first > second => (second, first),
            _ => (first, second),
        };
        let (captured, wire) = (captured as usize, wire as usize);
        if captured > LONGEST {
            return Err(Bad::too_long(captured));
        }
        let total = self.header + captured;
        let Poll::Ready(all) = window.want(total)? else {
            return Ok(Poll::Pending);
        };
        if all.len() < total {
            return Err(CUT.into());
        }
        Ok(Poll::Ready(Some(Record::new(
            total as u64,
            self.header,
            (captured, wire),
            self.link.fcs,
            Some(time),
        ))))
    }
}

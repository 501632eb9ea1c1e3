//! The blocks of a pcapng file (draft-ietf-opsawg-pcapng).
//!
//! The rule: of a block only what says where a packet's bytes are, of which link, and when it came, is
//! looked at; nothing else in a file, right or wrong, is read. So neither a comment nor the length of a
//! section, an option that runs past its block, nor a block that nobody knows can end a replay. What is
//! not looked at is skipped as it comes, however long it is.

use std::task::Poll;

use super::input::Window;
use super::order::Order;
use super::{Bad, CUT, LONGEST, Link, Record};

/// First bytes of a file, in either byte order.
pub const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
/// The obsolete form of a packet.
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const PACKET: u32 = 6;

const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// Number of bytes of a block that are kept: as many as libpcap takes. Behind them there can be options only.
const KEPT: u64 = 16 << 20;
/// Interfaces of a section, at most: to keep more would be a way to use up our memory.
const INTERFACES: usize = 1 << 20;

/// A pcapng file.
#[derive(Default)]
pub struct PcapNg {
    order: Option<Order>,
    interfaces: Vec<Interface>,
}

/// An interface of a section.
struct Interface {
    link: Link,
    /// Longest packet kept; 0 for no limit.
    snaplen: usize,
    /// Units of time in a second; `None` where a unit is too short for any two times to differ by a
    /// nanosecond.
    ticks_per_second: Option<u128>,
    /// Nanoseconds to add to times.
    offset: i128,
}

impl Interface {
    /// Reads the description in a block of `body`.
    fn new(order: Order, body: &[u8]) -> Result<Self, Bad> {
        if body.len() < 8 {
            return Err("malformed: a description of an interface is too short".into());
        }
        let mut this = Self {
            link: Link {
                kind: order.u16(body, 0),
                fcs: 0,
            },
            snaplen: order.u32(body, 4) as usize,
            ticks_per_second: Some(1_000_000),
            offset: 0,
        };
        for (code, value) in options(order, &body[8..]) {
            match (code, value) {
                // if_tsresol: the high bit chooses between powers of 2 and of 10.
                (9, [resolution, ..]) => {
                    let exponent = u32::from(resolution & 0x7f);
                    let base = if resolution & 0x80 != 0 { 2 } else { 10u128 };
                    this.ticks_per_second = base.checked_pow(exponent);
                }
                // if_fcslen, in bits; bytes are seen, too.
                (13, [bits, ..]) => {
                    let bits = usize::from(*bits);
                    this.link.fcs = if bits % 8 == 0 { bits / 8 } else { bits };
                }
                // if_tsoffset, in seconds.
                (14, value) => {
                    this.offset = order
                        .i64(value)
                        .map_or(0, |seconds| i128::from(seconds) * 1_000_000_000);
                }
                _ => {}
            }
        }
        Ok(this)
    }

    /// Nanoseconds since 1970.
    fn time(&self, ticks: u64) -> i128 {
        let nanos = self.ticks_per_second.map_or(0, |per_second| {
            u128::from(ticks) * 1_000_000_000 / per_second
        });
        // 64 bits by 10^9 at most.
        nanos as i128 + self.offset
    }
}

/// The options in `bytes`, by code and value, as far as they can be followed: to the option that says
/// that it is the last, to one that runs past the end, or to the end.
fn options(order: Order, mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head = bytes.get(..4)?;
        let (code, len) = (order.u16(head, 0), usize::from(order.u16(head, 2)));
        let value = bytes.get(4..4 + len)?;
        bytes = bytes.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        (code != 0).then_some((code, value))
    })
}

impl PcapNg {
    /// The next packet; `None` after the last.
    pub fn next(&mut self, window: &mut Window) -> Result<Poll<Option<Record>>, Bad> {
        loop {
            let Poll::Ready(head) = window.want(12)? else {
                return Ok(Poll::Pending);
            };
            if head.is_empty() {
                return match window.is_cut() {
                    true => Err(CUT.into()),
                    false => Ok(Poll::Ready(None)),
                };
            }
            if head.len() < 12 {
                return Err(CUT.into());
            }
            if head[..4] == MAGIC {
                // Its byte order comes before anything else of it can be read, its length first.
                let orders = [Order::Big, Order::Little];
                let order = orders
                    .into_iter()
                    .find(|order| order.u32(head, 8) == BYTE_ORDER);
                self.order = Some(order.ok_or("malformed: a section without a byte order")?);
                self.interfaces.clear();
            }
            let order = self.order.ok_or("malformed: it begins with no section")?;
            let (kind, said) = (order.u32(head, 0), order.u32(head, 4));
            // All is aligned to 4 bytes, whatever a length says.
            let total = u64::from(said).next_multiple_of(4);
            let least = match kind {
                SECTION => 28,
                _ => 12,
            };
            if total < least {
                return Err(Bad::Record(format!("malformed: a block of {said} bytes")));
            }
            if !matches!(kind, INTERFACE | OLD_PACKET | SIMPLE_PACKET | PACKET) {
                window.advance(total);
                continue;
            }
            let kept = total.min(KEPT) as usize;
            let Poll::Ready(all) = window.want(kept)? else {
                return Ok(Poll::Pending);
            };
            if all.len() < kept {
                return Err(CUT.into());
            }
            // Its length comes once more at its end; the one in front has done.
            let body = &all[8..kept.min(total as usize - 4)];
            if kind == INTERFACE {
                if self.interfaces.len() == INTERFACES {
                    let why = format!("malformed: a section of more than {INTERFACES} interfaces");
                    return Err(Bad::Record(why));
                }
                let interface = Interface::new(order, body)?;
                self.interfaces.push(interface);
                window.advance(total);
                continue;
            }
            return self
                .packet(order, kind, body, total)
                .map(|record| Poll::Ready(Some(record)));
        }
    }

    /// The packet in the `body` of a block of `kind`.
    fn packet(&self, order: Order, kind: u32, body: &[u8], total: u64) -> Result<Record, Bad> {
        // Where the bytes of the packet begin in the body.
        let begin = if kind == SIMPLE_PACKET { 4 } else { 20 };
        if body.len() < begin {
            return Err("malformed: its block is too short".into());
        }
        let word = |index: usize| order.u32(body, 4 * index);
        let id = match kind {
            PACKET => word(0),
            OLD_PACKET => u32::from(order.u16(body, 0)),
            _ => 0,
        };
        let interface = self.interfaces.get(id as usize);
        if kind == SIMPLE_PACKET {
            let wire = word(0) as usize;
            let snaplen = interface.map_or(0, |interface| interface.snaplen);
            let kept = if snaplen == 0 {
                wire
            } else {
                wire.min(snaplen)
            };
            // Without a length of its own: what there is of it, with its padding.
            let captured = kept.min(body.len() - begin);
            let fcs = interface.map_or(0, |interface| interface.link.fcs);
            let record = Record::new(total, 8 + begin, (captured, wire), fcs, None);
            return Ok(record.of(interface.map(|interface| interface.link), id));
        }
        let (captured, wire) = (word(3) as usize, word(4) as usize);
        if captured > LONGEST {
            return Err(Bad::too_long(captured));
        }
        let end = begin + captured;
        if end > body.len() {
            return Err(Bad::Record(format!(
                "malformed: it claims {captured} bytes in a block of {total}"
            )));
        }
        let after = body.get(end.next_multiple_of(4)..).unwrap_or_default();
        // epb_flags, bits 5 to 8: bytes of check sequence, 0 where it is not known.
        let flags = options(order, after).find(|(code, value)| *code == 2 && value.len() >= 4);
        let said = flags.map_or(0, |(_, value)| (order.u32(value, 0) >> 5 & 0xf) as usize);
        let fcs = match said {
            0 => interface.map_or(0, |interface| interface.link.fcs),
            said => said,
        };
        let ticks = u64::from(word(1)) << 32 | u64::from(word(2));
        let time = interface.map(|interface| interface.time(ticks));
        let record = Record::new(total, 8 + begin, (captured, wire), fcs, time);
        Ok(record.of(interface.map(|interface| interface.link), id))
    }
}

//! Sends back what asks to be sent back: ICMP echo requests (RFC 792) and UDP echo (RFC 862).
//!
//! A request goes back out of the buffer that it came in: addresses change places, which changes no
//! checksum, and the few bytes that become others are worked into the checksums (RFC 1624). Nothing is
//! put together: each fragment goes back by itself, and whoever asked puts them together.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use etherparse::{EtherType, IpNumber, Ipv4HeaderSlice};

use super::responder::Responder;
use crate::dma::Segment;
use crate::error::{Error, Result};
use crate::net::packet::{ETHERNET_HEADER, Packet, sums_up};
use crate::nic::{Checksum, Frame, Mac, Nic, Received};

/// Frames taken from the card at once.
const BATCH: usize = 64;
/// Bytes of an IPv4 header without options; packets with options are not answered (source routes).
const IP_HEADER: usize = 20;
/// Bytes of a VLAN tag.
const TAG: usize = 4;
/// Datagrams in fragments whose beginning was answered, so that the rest is, too.
const OPEN: usize = 64;
/// The time to live that answers begin with.
const TTL: u8 = 64;

/// Numbers of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Echoed {
    /// ARP questions.
    pub arp: u64,
    /// ICMP echo requests; one in fragments counts once.
    pub icmp: u64,
    /// UDP datagrams; likewise.
    pub udp: u64,
    /// Further fragments of them.
    pub fragments: u64,
    /// Bytes sent back, without ARP.
    pub bytes: u64,
    /// Frames that were not answered.
    pub ignored: u64,
}

/// One datagram in fragments: from whom, identification, protocol.
type FragmentId = (Ipv4Addr, u16, u8);

/// Answers for one address on one card.
pub struct Echo {
    address: Ipv4Addr,
    mac: Mac,
    udp_port: u16,
    responder: Responder,
    open: VecDeque<FragmentId>,
    came: Vec<Received>,
    /// Answers that had no room in the ring; at most a batch.
    out: Vec<Frame>,
    /// Kind of each.
    kinds: VecDeque<Kind>,
    gone: Vec<Frame>,
    bytes: Vec<u8>,
    echoed: Echoed,
}

impl Echo {
    /// Answers for `address` through `nic`; UDP datagrams to `udp_port`.
    ///
    /// # Errors
    /// As [`Responder::new`].
    pub fn new(nic: &dyn Nic, address: Ipv4Addr, udp_port: u16) -> Result<Self> {
        Ok(Self {
            address,
            mac: nic.mac(),
            udp_port,
            responder: Responder::new(nic, address)?,
            open: VecDeque::with_capacity(OPEN),
            came: Vec::with_capacity(BATCH),
            out: Vec::with_capacity(BATCH),
            kinds: VecDeque::with_capacity(BATCH),
            gone: Vec::with_capacity(4096),
            bytes: Vec::with_capacity(64),
            echoed: Echoed::default(),
        })
    }

    /// Numbers of answers so far.
    pub fn echoed(&self) -> Echoed {
        self.echoed
    }

    /// Takes a batch from the card and answers it; gives how many frames moved. Where it is 0, there is
    /// nothing to do until [`Wait::wait`](crate::wait::Wait::wait) says so.
    ///
    /// # Errors
    /// Errors of the card.
    pub fn round(&mut self, nic: &mut dyn Nic) -> Result<usize> {
        let back = nic.completed(&mut self.gone)?;
        self.gone.clear();
        // What had no room goes first; until then no more is taken, but buffers are posted.
        let most = if self.out.is_empty() { BATCH } else { 0 };
        let came = nic.recv(&mut self.came, most)?;
        let mut batch = std::mem::take(&mut self.came);
        for received in batch.drain(..) {
            self.one(nic, received)?;
        }
        self.came = batch;
        let before = self.out.len();
        if before > 0 {
            loop {
                let sent = nic.send(&mut self.out);
                self.kinds.drain(..self.kinds.len() - self.out.len());
                match sent {
                    Ok(_) => break,
                    Err(Error::FrameLength { .. }) => self.drop_refused(),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(back + came + before - self.out.len())
    }

    fn one(&mut self, nic: &mut dyn Nic, received: Received) -> Result<()> {
        let head = Head::of(received.frame.first());
        if head.ethertype() == Some(EtherType::ARP) {
            received.frame.copy_to(&mut self.bytes);
            let packet = Packet::parse(&self.bytes);
            if let Some(packet) = packet
                && self.responder.answer(nic, &packet)?
            {
                self.echoed.arp += 1;
                return Ok(());
            }
        }
        match self.turn(&head, received) {
            Some((frame, kind)) => {
                *self.echoed.count(kind) += 1;
                self.echoed.bytes += frame.len() as u64;
                self.out.push(frame);
                self.kinds.push_back(kind);
            }
            None => self.echoed.ignored += 1,
        }
        Ok(())
    }

    /// There are cards that receive more than they send: the answer that was refused, the first, is none.
    #[cold]
    fn drop_refused(&mut self) {
        let frame = self.out.remove(0);
        self.echoed.bytes -= frame.len() as u64;
        self.echoed.ignored += 1;
        if let Some(kind) = self.kinds.pop_front() {
            *self.echoed.count(kind) -= 1;
        }
    }

    /// The request, which begins with `head`, turned into its answer in the buffer that it came in;
    /// `None` where it is none.
    fn turn(&mut self, head: &Head, received: Received) -> Option<(Frame, Kind)> {
        if received.ip_checksum() == Checksum::Bad || received.l4_checksum() == Checksum::Bad {
            return None;
        }
        let mut frame = received.frame;
        let length = frame.len();
        let first = frame.first_mut();
        let [to, from] = [head.array::<6>(0)?, head.array::<6>(6)?];
        // Broadcasts are not answered: one question must not make many answers (RFC 1122, 3.2.2.6).
        if Mac(to) != self.mac || from[0] & 1 != 0 {
            return None;
        }
        let (ethertype, l2) = head.link()?;
        if ethertype != EtherType::IPV4 {
            return None;
        }
        let bytes = head.array::<IP_HEADER>(l2)?;
        let ip = Ipv4HeaderSlice::from_slice(&bytes).ok()?;
        let (source, id, protocol) = (ip.source_addr(), ip.identification(), ip.protocol());
        if !sums_up(ip.slice())
            || ip.destination_addr() != self.address
            || l2 + usize::from(ip.total_len()) > length
            || !is_host(source)
            || source == self.address
        {
            return None;
        }
        let open = (source, id, protocol.0);
        let l4 = l2 + IP_HEADER;
        let kind = if ip.fragments_offset().value() > 0 {
            // Who comes before its beginning, or belongs to what is not answered, is not known.
            self.open.contains(&open).then_some(Kind::Fragment)?
        } else {
            let kind = match protocol {
                IpNumber::ICMP => {
                    let [0x08, 0x00, high, low] = head.array(l4)? else {
                        return None;
                    };
                    let sum = patched(u16::from_be_bytes([high, low]), 0x0800, 0x0000);
                    let [high, low] = sum.to_be_bytes();
                    first.put(l4, &[0, 0, high, low]);
                    Kind::Icmp
                }
                IpNumber::UDP => {
                    let [a, b, c, d] = head.array(l4)?;
                    // An answer to an echo server's answer would go on for ever (RFC 862 does not say).
                    let (theirs, ours) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                    if ours != self.udp_port || theirs == self.udp_port || theirs == 0 {
                        return None;
                    }
                    first.put(l4, &[c, d, a, b]);
                    Kind::Udp
                }
                _ => return None,
            };
            if ip.more_fragments() {
                if self.open.len() == OPEN {
                    self.open.pop_front();
                }
                self.open.push_back(open);
            }
            kind
        };
        first.put(0, &from);
        first.put(6, &to);
        // The time to live and the protocol are one word of the header.
        let word = |ttl| u16::from_be_bytes([ttl, protocol.0]);
        let sum = patched(ip.header_checksum(), word(ip.ttl()), word(TTL));
        let [high, low] = sum.to_be_bytes();
        first.put(l2 + 8, &[TTL, protocol.0, high, low]);
        first.put(l2 + 12, &self.address.octets());
        first.put(l2 + 16, &source.octets());
        if let Some(tci) = received.info.vlan() {
            frame.set_offload(frame.offload().with_vlan(tci));
        }
        Some((frame, kind))
    }
}

/// Kind of an answer.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Icmp,
    Udp,
    Fragment,
}

impl Echoed {
    fn count(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Icmp => &mut self.icmp,
            Kind::Udp => &mut self.udp,
            Kind::Fragment => &mut self.fragments,
        }
    }
}

/// The beginning of a frame, copied out once: link header with a tag, IPv4 header, and the first bytes of
/// what it carries.
struct Head {
    bytes: [u8; ETHERNET_HEADER + TAG + IP_HEADER + 4],
    len: usize,
}

impl Head {
    fn of(first: &Segment) -> Self {
        let mut bytes = [0; _];
        let len = first.copy_prefix(&mut bytes);
        Self { bytes, len }
    }

    /// `N` bytes at `at`; `None` where the frame, or what was copied of it, is shorter.
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let rest = self.bytes[..self.len].get(at..)?;
        rest.first_chunk().copied()
    }

    /// Protocol that the frame carries, and its offset: past one VLAN tag, if it has one.
    fn link(&self) -> Option<(EtherType, usize)> {
        let ethertype = |at| Some(EtherType(u16::from_be_bytes(self.array(at)?)));
        match ethertype(12)? {
            EtherType::VLAN_TAGGED_FRAME => Some((ethertype(12 + TAG)?, ETHERNET_HEADER + TAG)),
            other => Some((other, ETHERNET_HEADER)),
        }
    }

    fn ethertype(&self) -> Option<EtherType> {
        self.link().map(|(ethertype, _)| ethertype)
    }
}

/// Returns whether an answer may go there.
fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_multicast()
        || address.is_broadcast()
        || address.is_unspecified()
        || address.is_loopback())
}

/// A checksum after one of the words that it is over has changed: equation 3 of RFC 1624.
fn patched(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::checksum::Sum16BitWords;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_patched_checksum_is_that_of_the_changed_words(
            mut words in prop::collection::vec(any::<u16>(), 2..40),
            at: prop::sample::Index,
            new: u16,
        ) {
            // A header's first word is never 0: of zeros only, there are two sums.
            words[0] |= 0x4500;
            let sum = |words: &[u16]| {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
                Sum16BitWords::new().add_slice(&bytes).ones_complement().to_be()
            };
            let before = sum(&words);
            let at = 1 + at.index(words.len() - 1);
            let old = std::mem::replace(&mut words[at], new);
            prop_assert_eq!(patched(before, old, new), sum(&words));
        }
    }
}

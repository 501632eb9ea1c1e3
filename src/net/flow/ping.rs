//! ICMP echo requests from our own card, and what comes back.
//!
//! A request that is longer than the wire takes leaves in fragments, all handed over with one doorbell;
//! its clock starts right before that, and stops when the last fragment of the answer has been taken
//! from the card. An answer counts only if it is byte for byte what was asked to be sent back.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use etherparse::defrag::IpDefragPool;
use etherparse::{
    EtherType, Ethernet2Header, IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type,
    IpFragOffset, IpNumber, Ipv4Header, NetSlice, SlicedPacket,
};

use super::responder::Responder;
use crate::dma::Pool;
use crate::error::{Error, Result};
use crate::net::packet::{ETHERNET_HEADER, Packet, sums_up};
use crate::nic::{Frame, Mac, Nic, Received};

/// The most bytes that a request may carry: an IPv4 packet has 65535, 20 and 8 of them headers.
pub const LARGEST: usize = 65_535 - IP_HEADER - ICMP_HEADER;
/// Bytes of an IP packet that one frame takes.
const MTU: usize = 1500;
/// Bytes of an IPv4 header without options.
const IP_HEADER: usize = 20;
/// Bytes of the header of an echo request.
const ICMP_HEADER: usize = 8;
/// Frames taken from the card at once.
const BATCH: usize = 64;
/// Requests remembered, so that late and double answers are known as such.
const REMEMBERED: usize = 1024;
/// Longest time for which fragments are kept that make no packet.
const KEPT: Duration = Duration::from_secs(5);
/// Longest time that the card may take to send a request.
const STUCK: Duration = Duration::from_secs(2);

/// Worth of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The first one, in time.
    Good,
    /// The first one, after its time.
    Late,
    /// Another one.
    Duplicate,
    /// The answer differs from what was sent.
    Damaged,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Number of the request that it answers, from 0.
    pub number: u64,
    /// From the doorbell until its last fragment was taken from the card.
    pub time: Duration,
    /// Its worth.
    pub verdict: Verdict,
    /// The time to live of the packet, or of its last fragment.
    pub ttl: u8,
}

/// A request that was sent.
struct Sent {
    at: Instant,
    answered: bool,
}

/// Sends requests from one card to one host.
pub struct Ping {
    ours: (Mac, Ipv4Addr),
    theirs: (Mac, Ipv4Addr),
    size: usize,
    patience: Duration,
    /// Tells our answers from those to others.
    id: u16,
    pool: Pool,
    responder: Responder,
    defrag: IpDefragPool<Instant, ()>,
    /// The last requests; the back is the newest.
    sent: VecDeque<Sent>,
    /// Number of requests sent.
    count: u64,
    message: Vec<u8>,
    out: Vec<Frame>,
    gone: Vec<Frame>,
    came: Vec<Received>,
    bytes: Vec<u8>,
}

impl Ping {
    /// Requests of `size` bytes (up to [`LARGEST`]) through `nic`, as `ours`, to `theirs`, who is
    /// reached at `via`. An answer after `patience` is a late one.
    ///
    /// # Errors
    /// [`Error::Usage`] for a size that cannot be; as [`Pool::new`].
    pub fn new(
        nic: &dyn Nic,
        ours: Ipv4Addr,
        (via, theirs): (Mac, Ipv4Addr),
        size: usize,
        patience: Duration,
    ) -> Result<Self> {
        if size > LARGEST {
            return Err(Error::Usage(format!(
                "a request of {size} bytes does not fit into an IPv4 packet: the most is {LARGEST}"
            )));
        }
        let frames = (ICMP_HEADER + size).div_ceil(piece(nic));
        Ok(Self {
            ours: (nic.mac(), ours),
            theirs: (via, theirs),
            size,
            patience,
            id: std::process::id() as u16,
            // Those of the request before may still be under way.
            pool: Pool::new(nic.dma(), 2 * frames, ETHERNET_HEADER + MTU)?,
            responder: Responder::new(nic, ours)?,
            defrag: IpDefragPool::new(),
            sent: VecDeque::with_capacity(REMEMBERED),
            count: 0,
            message: Vec::with_capacity(ICMP_HEADER + size),
            out: Vec::with_capacity(frames),
            gone: Vec::with_capacity(4096),
            came: Vec::with_capacity(BATCH),
            bytes: Vec::new(),
        })
    }

    /// Number of frames of one request.
    pub fn frames(&self, nic: &dyn Nic) -> usize {
        (ICMP_HEADER + self.size).div_ceil(piece(nic))
    }

    /// Sends the next request; gives its number, from 0.
    ///
    /// # Errors
    /// Errors of the card; [`Error::Timeout`] where it does not send.
    pub fn send(&mut self, nic: &mut dyn Nic) -> Result<u64> {
        let number = self.count;
        let header = IcmpEchoHeader {
            id: self.id,
            seq: number as u16,
        };
        self.message.clear();
        self.message.resize(ICMP_HEADER, 0);
        self.message.extend(content(number, self.size));
        let kind = Icmpv4Type::EchoRequest(header);
        let header = Icmpv4Header::with_checksum(kind, &self.message[ICMP_HEADER..]);
        self.message[..ICMP_HEADER].copy_from_slice(&header.to_bytes());
        self.fill(nic, number as u16)?;

        nic.submit(&mut self.out)?;
        let at = Instant::now();
        nic.doorbell()?;
        while !self.out.is_empty() {
            nic.completed(&mut self.gone)?;
            self.gone.clear();
            nic.send(&mut self.out)?;
            self.not_stuck(nic, at)?;
        }
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            at,
            answered: false,
        });
        self.count += 1;
        Ok(number)
    }

    /// The message as frames, into `out`.
    fn fill(&mut self, nic: &mut dyn Nic, identification: u16) -> Result<()> {
        let ethernet = Ethernet2Header {
            source: self.ours.0.0,
            destination: self.theirs.0.0,
            ether_type: EtherType::IPV4,
        };
        let (piece, begin) = (piece(nic), Instant::now());
        for (nth, data) in self.message.chunks(piece).enumerate() {
            let offset = nth * piece;
            let mut ip = Ipv4Header {
                total_len: (IP_HEADER + data.len()) as u16,
                identification,
                dont_fragment: self.message.len() <= piece,
                more_fragments: offset + data.len() < self.message.len(),
                fragment_offset: IpFragOffset::try_new((offset / 8) as u16)
                    .expect("no message is longer than 65515 bytes"),
                time_to_live: 64,
                protocol: IpNumber::ICMP,
                source: self.ours.1.octets(),
                destination: self.theirs.1.octets(),
                ..Ipv4Header::default()
            };
            ip.header_checksum = ip.calc_header_checksum();
            let mut buf = loop {
                if let Some(buf) = self.pool.alloc() {
                    break buf;
                }
                nic.completed(&mut self.gone)?;
                self.gone.clear();
                self.not_stuck(nic, begin)?;
            };
            buf.set_len(ETHERNET_HEADER + IP_HEADER + data.len());
            buf.put(0, &ethernet.to_bytes());
            buf.put(ETHERNET_HEADER, &ip.to_bytes());
            buf.put(ETHERNET_HEADER + IP_HEADER, data);
            self.out.push(buf.into());
        }
        Ok(())
    }

    fn not_stuck(&self, nic: &dyn Nic, since: Instant) -> Result<()> {
        if since.elapsed() <= STUCK {
            return Ok(());
        }
        nic.check()?;
        Err(Error::Timeout {
            device: nic.name().to_owned(),
            what: "the sending of a request",
            bound: STUCK,
            remedy: "is the link up? look at the ring: pinwire show",
        })
    }

    /// Takes what came in, answers ARP, and gives each answer to `heard`. Gives how many frames came;
    /// where none did, [`Wait::wait`](crate::wait::Wait::wait) says when.
    ///
    /// # Errors
    /// Errors of the card.
    pub fn hear(&mut self, nic: &mut dyn Nic, mut heard: impl FnMut(Answer)) -> Result<usize> {
        nic.completed(&mut self.gone)?;
        self.gone.clear();
        let came = nic.recv(&mut self.came, BATCH)?;
        if came == 0 {
            return Ok(0);
        }
        let now = Instant::now();
        let (mut batch, mut bytes) = (
            std::mem::take(&mut self.came),
            std::mem::take(&mut self.bytes),
        );
        for received in batch.drain(..) {
            received.frame.copy_to(&mut bytes);
            if let Some(answer) = self.one(&bytes, now) {
                heard(answer);
            } else if let Some(packet) = Packet::parse(&bytes) {
                self.responder.answer(nic, &packet)?;
            }
        }
        (self.came, self.bytes) = (batch, bytes);
        Ok(came)
    }

    /// Requests that have no answer yet and may still get one in time: they are not lost.
    pub fn pending(&self) -> usize {
        let now = Instant::now();
        let pending = |sent: &&Sent| {
            !sent.answered && now.saturating_duration_since(sent.at) <= self.patience
        };
        self.sent.iter().filter(pending).count()
    }

    /// The answer that this frame is, or completes.
    fn one(&mut self, frame: &[u8], now: Instant) -> Option<Answer> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let Some(NetSlice::Ipv4(ip)) = &packet.net else {
            return None;
        };
        let header = ip.header();
        if header.destination_addr() != self.ours.1
            || header.source_addr() != self.theirs.1
            || header.protocol() != IpNumber::ICMP
            || !sums_up(header.slice())
        {
            return None;
        }
        let ttl = header.ttl();
        if !header.is_fragmenting_payload() {
            return self.message(ip.payload().payload, ttl, now);
        }
        // A fragment that does not fit its neighbours makes no packet, and is forgotten in time.
        let whole = self.defrag.process_sliced_packet(&packet, now, ());
        let whole = whole.ok().flatten();
        let oldest = now.checked_sub(KEPT);
        self.defrag
            .retain(|seen| oldest.is_none_or(|oldest| *seen >= oldest));
        let whole = whole?;
        let answer = self.message(&whole.payload, ttl, now);
        self.defrag.return_buf(whole);
        answer
    }

    fn message(&mut self, message: &[u8], ttl: u8, now: Instant) -> Option<Answer> {
        let icmp = Icmpv4Slice::from_slice(message).ok()?;
        let Icmpv4Type::EchoReply(echo) = icmp.icmp_type() else {
            return None;
        };
        if echo.id != self.id {
            return None;
        }
        // The number is one of the last 65536 that were sent.
        let back = (self.count.checked_sub(1)? as u16).wrapping_sub(echo.seq);
        let number = (self.count - 1).checked_sub(back.into())?;
        let place = self.sent.len().checked_sub(1 + usize::from(back))?;
        let sent = &mut self.sent[place];
        let right = sums_up(icmp.slice())
            && icmp.payload().len() == self.size
            && icmp
                .payload()
                .iter()
                .copied()
                .eq(content(number, self.size));
        let time = now.saturating_duration_since(sent.at);
        let verdict = match (right, sent.answered) {
            (false, _) => Verdict::Damaged,
            (true, true) => Verdict::Duplicate,
            (true, false) if time > self.patience => Verdict::Late,
            (true, false) => Verdict::Good,
        };
        sent.answered |= right;
        Some(Answer {
            number,
            time,
            verdict,
            ttl,
        })
    }
}

/// Bytes of a message that one frame takes; those of a fragment count by eights.
fn piece(nic: &dyn Nic) -> usize {
    let mtu = MTU.min(nic.max_tx_frame() - ETHERNET_HEADER);
    (mtu - IP_HEADER) / 8 * 8
}

/// Content of request `number`: each byte tells its place and its request.
fn content(number: u64, size: usize) -> impl Iterator<Item = u8> {
    let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..size).map(move |at| (seed >> (at % 8 * 8)) as u8 ^ (at >> 3) as u8 ^ (at >> 11) as u8)
}

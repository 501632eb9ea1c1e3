//! The packets that we make, and what others' packets are.
//!
//! Headers are built for a card that completes them: the IPv4 checksum is left zero, and the UDP
//! checksum field holds the sum over the pseudo-header, which the card adds the payload to. So the
//! payload is nobody's business but the card's.

mod arp;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use etherparse::checksum::Sum16BitWords;
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Ethernet2Header, IpNumber, Ipv4Header,
    LaxLinkExtSlice, LaxNetSlice, LaxSlicedPacket, LinkSlice, TransportSlice, UdpHeader,
};

use crate::nic::Mac;

pub use arp::resolve;

/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;

/// Returns whether the bytes, which hold their own checksum, sum up as they should (RFC 1071). Over the bytes that came:
/// what a parser makes of a header may have lost a bit of it.
pub fn sums_up(bytes: &[u8]) -> bool {
    Sum16BitWords::new().add_slice(bytes).ones_complement() == 0
}

/// Sender and receiver of UDP datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpFlow {
    /// Our Ethernet address.
    pub source_mac: Mac,
    /// The next hop's.
    pub destination_mac: Mac,
    /// Source address of the datagrams.
    pub source: SocketAddrV4,
    /// Their destination.
    pub destination: SocketAddrV4,
}

impl UdpFlow {
    /// Bytes of the Ethernet, IPv4 and UDP headers.
    pub const HEADER: usize = ETHERNET_HEADER + 20 + 8;

    /// The longest payload of a datagram over IPv4, in bytes.
    pub const LONGEST: usize = 65_535 - 20 - 8;

    /// The headers of a datagram of `payload` bytes, for a card that does
    /// [`Offload::UDP4`](crate::nic::Offload::UDP4).
    ///
    /// # Panics
    /// If the payload is longer than [`UdpFlow::LONGEST`].
    pub fn header(&self, payload: usize) -> [u8; Self::HEADER] {
        let (ip, mut udp) = self.headers(payload);
        let pseudo_header = Sum16BitWords::new()
            .add_4bytes(ip.source)
            .add_4bytes(ip.destination)
            .add_2bytes([0, IpNumber::UDP.0])
            .add_2bytes(udp.length.to_be_bytes());
        // The sum itself, not its complement.
        udp.checksum = (!pseudo_header.ones_complement()).to_be();
        self.join(&ip, &udp)
    }

    /// Likewise, for a card that does nothing: IPv4's checksum is there, and UDP goes without one, so that
    /// the payload need not be looked at.
    ///
    /// # Panics
    /// As [`UdpFlow::header`].
    pub fn header_for_any(&self, payload: usize) -> [u8; Self::HEADER] {
        let (mut ip, udp) = self.headers(payload);
        ip.header_checksum = ip.calc_header_checksum();
        self.join(&ip, &udp)
    }

    /// Without checksums.
    fn headers(&self, payload: usize) -> (Ipv4Header, UdpHeader) {
        assert!(payload <= Self::LONGEST);
        let udp_len = (8 + payload) as u16;
        let ip = Ipv4Header {
            total_len: 20 + udp_len,
            // One that is never fragmented needs no identification (RFC 6864).
            dont_fragment: true,
            // RFC 1112, §6.1: a group is reached on this wire, unless somebody wants more.
            time_to_live: if self.destination.ip().is_multicast() {
                1
            } else {
                64
            },
            protocol: IpNumber::UDP,
            header_checksum: 0,
            source: self.source.ip().octets(),
            destination: self.destination.ip().octets(),
            ..Ipv4Header::default()
        };
        let udp = UdpHeader {
            source_port: self.source.port(),
            destination_port: self.destination.port(),
            length: udp_len,
            checksum: 0,
        };
        (ip, udp)
    }

    fn join(&self, ip: &Ipv4Header, udp: &UdpHeader) -> [u8; Self::HEADER] {
        let ethernet = Ethernet2Header {
            source: self.source_mac.0,
            destination: self.destination_mac.0,
            ether_type: EtherType::IPV4,
        };
        let mut header = [0; Self::HEADER];
        header[..14].copy_from_slice(&ethernet.to_bytes());
        header[14..34].copy_from_slice(&ip.to_bytes());
        header[34..].copy_from_slice(&udp.to_bytes());
        header
    }
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// It is a question.
    pub request: bool,
    /// The speaker.
    pub sender: (Mac, Ipv4Addr),
    /// The one asked, or answered; in a question the Ethernet address is zero.
    pub target: (Mac, Ipv4Addr),
}

impl Arp {
    /// Bytes of its frame.
    pub const FRAME: usize = ETHERNET_HEADER + ArpEthIpv4Packet::LEN;

    /// `from` asks everybody who has `whom`.
    pub fn ask(from: (Mac, Ipv4Addr), whom: Ipv4Addr) -> Self {
        Self {
            request: true,
            sender: from,
            target: (Mac::default(), whom),
        }
    }

    /// The answer to this question by the one who is asked for and has `mac`.
    pub fn answer(&self, mac: Mac) -> Self {
        Self {
            request: false,
            sender: (mac, self.target.1),
            target: self.sender,
        }
    }

    /// Its frame: a question goes to everybody, an answer to who asked.
    pub fn frame(&self) -> [u8; Self::FRAME] {
        let ethernet = Ethernet2Header {
            source: self.sender.0.0,
            destination: match self.request {
                true => Mac::BROADCAST.0,
                false => self.target.0.0,
            },
            ether_type: EtherType::ARP,
        };
        let arp = ArpEthIpv4Packet {
            operation: match self.request {
                true => ArpOperation::REQUEST,
                false => ArpOperation::REPLY,
            },
            sender_mac: self.sender.0.0,
            sender_ipv4: self.sender.1.octets(),
            target_mac: self.target.0.0,
            target_ipv4: self.target.1.octets(),
        };
        let mut frame = [0; Self::FRAME];
        frame[..14].copy_from_slice(&ethernet.to_bytes());
        frame[14..].copy_from_slice(&arp.to_bytes());
        frame
    }
}

/// A packet taken apart, as far as it can be.
pub struct Packet<'a>(LaxSlicedPacket<'a>);

impl<'a> Packet<'a> {
    /// Takes apart a frame that begins with its Ethernet header; `None` where it is shorter than that.
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        LaxSlicedPacket::from_ethernet(frame).ok().map(Self)
    }

    /// Source and destination.
    pub fn macs(&self) -> (Mac, Mac) {
        match &self.0.link {
            Some(LinkSlice::Ethernet2(link)) => (Mac(link.source()), Mac(link.destination())),
            _ => (Mac::default(), Mac::default()),
        }
    }

    /// Protocol that the frame carries, past its VLAN tags.
    pub fn ethertype(&self) -> u16 {
        let payload = self.0.ether_payload();
        payload.map_or(0, |payload| payload.ether_type.0)
    }

    /// The tag control information of the outer VLAN tag, where the frame has one in its bytes.
    pub fn vlan(&self) -> Option<u16> {
        self.0.link_exts.iter().find_map(|ext| match ext {
            LaxLinkExtSlice::Vlan(tag) => {
                Some(u16::from_be_bytes([tag.slice()[0], tag.slice()[1]]))
            }
            _ => None,
        })
    }

    /// The ARP packet that it is.
    pub fn arp(&self) -> Option<Arp> {
        let Some(LaxNetSlice::Arp(arp)) = &self.0.net else {
            return None;
        };
        let arp = arp.to_packet().try_eth_ipv4().ok()?;
        Some(Arp {
            request: arp.operation == ArpOperation::REQUEST,
            sender: (Mac(arp.sender_mac), arp.sender_ipv4_addr()),
            target: (Mac(arp.target_mac), arp.target_ipv4_addr()),
        })
    }

    /// Its IP addresses and protocol number.
    pub fn ip(&self) -> Option<(IpAddr, IpAddr, u8)> {
        match self.0.net.as_ref()? {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                let (from, to) = (header.source_addr(), header.destination_addr());
                Some((from.into(), to.into(), ip.payload_ip_number().0))
            }
            LaxNetSlice::Ipv6(ip) => {
                let header = ip.header();
                let (from, to) = (header.source_addr(), header.destination_addr());
                Some((from.into(), to.into(), ip.payload().ip_number.0))
            }
            LaxNetSlice::Arp(_) => None,
        }
    }

    /// Source and destination port of a UDP datagram.
    pub fn udp_ports(&self) -> Option<(u16, u16)> {
        match self.0.transport.as_ref()? {
            TransportSlice::Udp(udp) => Some((udp.source_port(), udp.destination_port())),
            _ => None,
        }
    }
}

/// The packet in words, without its Ethernet addresses: `10.0.0.1:7000 > 10.0.0.2:9 UDP 12 bytes`.
impl fmt::Display for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(arp) = self.arp() {
            let ((mac, sender), (_, target)) = (arp.sender, arp.target);
            return match arp.request {
                true => write!(f, "ARP who has {target}? tell {sender}"),
                false => write!(f, "ARP {sender} is at {mac}"),
            };
        }
        let Some((from, to, protocol)) = self.ip() else {
            return match self.ethertype() {
                length @ ..=1500 => write!(f, "IEEE 802.3, {length} bytes"),
                ethertype => write!(f, "EtherType {ethertype:#06x}"),
            };
        };
        match &self.0.transport {
            Some(TransportSlice::Udp(udp)) => {
                let (source, destination) = (udp.source_port(), udp.destination_port());
                let from = std::net::SocketAddr::new(from, source);
                let to = std::net::SocketAddr::new(to, destination);
                write!(f, "{from} > {to} UDP {} bytes", udp.payload().len())
            }
            Some(TransportSlice::Tcp(tcp)) => {
                let (source, destination) = (tcp.source_port(), tcp.destination_port());
                let from = std::net::SocketAddr::new(from, source);
                let to = std::net::SocketAddr::new(to, destination);
                let flags = [
                    (tcp.syn(), "SYN"),
                    (tcp.fin(), "FIN"),
                    (tcp.rst(), "RST"),
                    (tcp.ack(), "ACK"),
                ];
                write!(f, "{from} > {to} TCP")?;
                for (_, name) in flags.iter().filter(|(set, _)| *set) {
                    write!(f, " {name}")?;
                }
                write!(f, " {} bytes", tcp.payload().len())
            }
            _ => match IpNumber(protocol).keyword_str() {
                Some(name) => write!(f, "{from} > {to} {name}"),
                None => write!(f, "{from} > {to} IP protocol {protocol}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire;

    const OURS: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    const THEIRS: Mac = Mac([0x52, 0x54, 0, 0x65, 0x43, 0x21]);

    fn flow() -> UdpFlow {
        UdpFlow {
            source_mac: OURS,
            destination_mac: THEIRS,
            source: "10.1.2.3:7000".parse().unwrap(),
            destination: "10.1.2.4:9".parse().unwrap(),
        }
    }

    /// The card's part: sums the bytes from `start` on into the field at `field`.
    fn complete(frame: &mut [u8], start: usize, end: usize, field: usize) {
        let sum = Sum16BitWords::new().add_slice(&frame[start..end]);
        let sum = sum.to_ones_complement_with_no_zero().to_be();
        frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }

    #[test]
    fn a_card_that_sums_makes_checksums_that_an_independent_stack_takes() {
        for payload in [&b""[..], b"x", b"page cache", &[0xff; 1472]] {
            let mut frame = flow().header(payload.len()).to_vec();
            frame.extend_from_slice(payload);
            let len = frame.len();
            complete(&mut frame, 14, 34, 24);
            complete(&mut frame, 34, len, 40);
            is_taken_by_an_independent_stack(&frame, payload);
        }
    }

    #[test]
    fn a_card_that_does_not_sum_sends_what_an_independent_stack_takes() {
        for payload in [&b""[..], b"x", b"page cache", &[0xff; 1472]] {
            let frame = [&flow().header_for_any(payload.len()), payload].concat();
            is_taken_by_an_independent_stack(&frame, payload);
            assert_eq!(frame[40..42], [0, 0], "no checksum");
        }
    }

    fn is_taken_by_an_independent_stack(frame: &[u8], payload: &[u8]) {
        let all = ChecksumCapabilities::default();
        let ethernet = wire::EthernetFrame::new_checked(frame).unwrap();
        assert_eq!(ethernet.src_addr().0, OURS.0);
        let ip = wire::Ipv4Packet::new_checked(ethernet.payload()).unwrap();
        let ip_repr = wire::Ipv4Repr::parse(&ip, &all).unwrap();
        let udp = wire::UdpPacket::new_checked(ip.payload()).unwrap();
        let (from, to) = (ip_repr.src_addr.into(), ip_repr.dst_addr.into());
        let udp_repr = wire::UdpRepr::parse(&udp, &from, &to, &all).unwrap();
        assert_eq!((udp_repr.src_port, udp_repr.dst_port), (7000, 9));
        assert_eq!(udp.payload(), payload);
    }

    #[test]
    fn arp_is_understood_by_an_independent_stack_and_by_us() {
        let (ours, theirs) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let ask = Arp::ask((OURS, ours), theirs);
        for (arp, destination) in [(ask, Mac::BROADCAST), (ask.answer(THEIRS), OURS)] {
            let frame = arp.frame();
            let ethernet = wire::EthernetFrame::new_checked(&frame).unwrap();
            assert_eq!(ethernet.dst_addr().0, destination.0);
            let packet = wire::ArpPacket::new_checked(ethernet.payload()).unwrap();
            let wire::ArpRepr::EthernetIpv4 {
                operation,
                source_protocol_addr,
                target_protocol_addr,
                ..
            } = wire::ArpRepr::parse(&packet).unwrap()
            else {
                panic!("not ARP for IPv4");
            };
            assert_eq!(operation == wire::ArpOperation::Request, arp.request);
            assert_eq!(source_protocol_addr, arp.sender.1);
            assert_eq!(target_protocol_addr, arp.target.1);
            assert_eq!(Packet::parse(&frame).unwrap().arp(), Some(arp));
        }
    }

    #[test]
    fn packets_are_told_apart() {
        let mut udp = flow().header(3).to_vec();
        udp.extend_from_slice(b"abc");
        let packet = Packet::parse(&udp).unwrap();
        assert_eq!(packet.macs(), (OURS, THEIRS));
        assert_eq!(packet.ethertype(), 0x0800);
        assert_eq!(packet.udp_ports(), Some((7000, 9)));
        assert_eq!(packet.to_string(), "10.1.2.3:7000 > 10.1.2.4:9 UDP 3 bytes");

        let tag = [0x81, 0x00, 0x60, 0x2a];
        let tagged = [&udp[..12], &tag, &udp[12..]].concat();
        let packet = Packet::parse(&tagged).unwrap();
        assert_eq!(packet.vlan(), Some(0x602a));
        assert_eq!(packet.ethertype(), 0x0800);
        assert_eq!(packet.udp_ports(), Some((7000, 9)));

        let arp = Arp::ask((OURS, [10, 0, 0, 1].into()), [10, 0, 0, 2].into()).frame();
        let packet = Packet::parse(&arp).unwrap();
        assert_eq!(packet.to_string(), "ARP who has 10.0.0.2? tell 10.0.0.1");
        assert_eq!(packet.udp_ports(), None);

        let other = [&udp[..12], &[0x88, 0xb5, 1, 2, 3]].concat();
        let packet = Packet::parse(&other).unwrap();
        assert_eq!(packet.to_string(), "EtherType 0x88b5");
        assert!(Packet::parse(&udp[..13]).is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_some_packet(bytes: Vec<u8>, ethertype in proptest::sample::select(vec![0x0800u16, 0x86dd, 0x0806, 0x8100])) {
            let mut frame = vec![0; 12];
            frame.extend(ethertype.to_be_bytes());
            frame.extend(bytes);
            let packet = Packet::parse(&frame).unwrap();
            let _ = (packet.to_string(), packet.arp(), packet.udp_ports(), packet.vlan());
        }
    }
}

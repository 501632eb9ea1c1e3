//! What asks to be sent back goes back, and nothing else.

use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, IpNumber};
use pinwire::net::{Arp, Echo, Echoed};
use pinwire::nic::{Inspect, Mac};
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, UdpPacket, UdpRepr};

use crate::fakes;
use crate::fakes::e1000::MAC;
use crate::{Bench, bytes, ip, whole};

const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 9];
const OUR_IP: [u8; 4] = [10, 0, 0, 2];
const THEIR_IP: [u8; 4] = [10, 0, 0, 1];
const MACS: [[u8; 6]; 2] = [THEIRS, MAC];
const IPS: [[u8; 4]; 2] = [THEIR_IP, OUR_IP];

fn request(data: &[u8]) -> Vec<u8> {
    let echo = IcmpEchoHeader { id: 77, seq: 5 };
    let header = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), data);
    [&header.to_bytes(), data].concat()
}

fn udp([from, to]: [u16; 2], data: &[u8]) -> Vec<u8> {
    let header = etherparse::UdpHeader::with_ipv4_checksum(
        from,
        to,
        &etherparse::Ipv4Header::new(0, 64, IpNumber::UDP, THEIR_IP, OUR_IP).unwrap(),
        data,
    );
    [&header.unwrap().to_bytes(), data].concat()
}

/// What a fresh echo of `10.0.0.2` makes of these frames.
fn echo(frames: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, Echoed) {
    let mut bench = Bench::one();
    bench.comes(frames);
    let mut echo = Echo::new(&bench.card, OUR_IP.into(), 7).unwrap();
    while echo.round(&mut bench.card).unwrap() > 0 {}
    (bench.sent(), echo.echoed())
}

fn pinged(size: usize) {
    let data = bytes(size, size);
    let (sent, echoed) = echo(ip(MACS, IPS, IpNumber::ICMP, 99, &request(&data)));
    let (addresses, payload) = whole(&sent);
    assert_eq!(addresses, [OUR_IP, THEIR_IP].map(std::net::Ipv4Addr::from));
    let packet = Icmpv4Packet::new_checked(&payload).unwrap();
    let reply = Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default()).unwrap();
    let expected = Icmpv4Repr::EchoReply {
        ident: 77,
        seq_no: 5,
        data: &data,
    };
    assert_eq!(reply, expected);
    for frame in &sent {
        assert_eq!((&frame[..6], &frame[6..12]), (&THEIRS[..], &MAC[..]));
        assert_eq!(frame[22], 64, "time to live");
    }
    assert_eq!((echoed.icmp, echoed.ignored), (1, 0));
    assert_eq!(echoed.fragments as usize, sent.len() - 1);
}

#[test]
fn a_ping_of_any_size_is_answered_as_another_stack_takes_it() {
    for size in [0, 1, 56, 1471, 1472, 1473, 2952, 9000, 65_507] {
        pinged(size);
    }
}

#[test]
fn udp_goes_back_with_a_checksum_that_another_stack_takes() {
    for size in [0, 1, 1472, 1473, 9000] {
        let data = bytes(size, size);
        let (sent, echoed) = echo(ip(MACS, IPS, IpNumber::UDP, 99, &udp([5000, 7], &data)));
        let (addresses, payload) = whole(&sent);
        let [from, to] = addresses.map(Into::into);
        let packet = UdpPacket::new_checked(&payload).unwrap();
        let all = ChecksumCapabilities::default();
        let repr = UdpRepr::parse(&packet, &from, &to, &all).unwrap();
        assert_eq!((repr.src_port, repr.dst_port), (7, 5000));
        assert_eq!(packet.payload(), data);
        assert_eq!((echoed.udp, echoed.ignored), (1, 0));
    }
}

#[test]
fn what_is_longer_than_the_card_sends_ends_nothing() {
    // e1000 receives 96 bytes more than it sends.
    let data = bytes(1, 16_300);
    let mut header = etherparse::Ipv4Header::new(0, 64, IpNumber::ICMP, THEIR_IP, OUR_IP).unwrap();
    header.total_len = 20 + 8 + 16_300;
    header.header_checksum = header.calc_header_checksum();
    let long = [MAC, THEIRS].concat();
    let long = [&long[..], &[8, 0], &header.to_bytes(), &request(&data)].concat();
    let mut frames = vec![long];
    frames.extend(ip(MACS, IPS, IpNumber::ICMP, 99, &request(b"short")));
    let (sent, echoed) = echo(frames);
    assert_eq!(sent.len(), 1);
    assert_eq!((echoed.icmp, echoed.ignored), (1, 1));
}

#[test]
fn a_device_that_writes_on_into_what_it_gave_back_changes_nothing_that_was_read() {
    // Longer than e1000 sends: refused, after the doorbell of what came before it.
    let long = |protocol, payload: &[u8]| {
        let mut header = etherparse::Ipv4Header::new(0, 64, protocol, THEIR_IP, OUR_IP).unwrap();
        header.total_len = 20 + payload.len() as u16;
        header.header_checksum = header.calc_header_checksum();
        [&MAC[..], &THEIRS, &[8, 0], &header.to_bytes(), payload].concat()
    };
    let data = bytes(1, 16_300);
    for scribbled in [[0x00; 64], [0xff; 64], [0x45; 64], [0x88; 64]] {
        let mut bench = Bench::one();
        let short = |id| ip(MACS, IPS, IpNumber::ICMP, id, &request(b"short")).remove(0);
        bench.comes([
            short(1),
            long(IpNumber::ICMP, &request(&data)),
            short(2),
            long(IpNumber::UDP, &udp([5000, 7], &data)),
            short(3),
        ]);
        let rings = bench.card.rings();
        let slots = rings.iter().filter(|ring| ring.name == "receive");
        let buffers = slots
            .flat_map(|ring| &ring.slots)
            .filter_map(|slot| slot.buffer);
        let iovas: Vec<u64> = buffers.map(|(iova, ..)| iova.0).collect();
        fakes::lock(&bench.device).on_doorbell = Some(Box::new(move |memory| {
            for iova in &iovas {
                memory.write(*iova, &scribbled);
            }
        }));
        let mut echo = Echo::new(&bench.card, OUR_IP.into(), 7).unwrap();
        while echo.round(&mut bench.card).unwrap() > 0 {}
        let echoed = echo.echoed();
        assert_eq!((echoed.icmp, echoed.udp, echoed.fragments), (3, 0, 0));
        assert_eq!((echoed.ignored, bench.sent().len()), (2, 3));
    }
}

#[test]
fn an_answer_that_is_too_long_for_its_tag_ends_nothing() {
    // 16285 bytes and a tag: one byte more than e1000 sends.
    let data = bytes(1, 16_289 - 18 - 28);
    let mut header = etherparse::Ipv4Header::new(0, 64, IpNumber::ICMP, THEIR_IP, OUR_IP).unwrap();
    header.total_len = 28 + data.len() as u16;
    header.header_checksum = header.calc_header_checksum();
    let long = [&MAC[..], &THEIRS, &[0x81, 0, 0, 42, 8, 0]].concat();
    let long = [&long[..], &header.to_bytes(), &request(&data)].concat();
    assert_eq!(long.len(), 16_289);
    let short = |data| ip(MACS, IPS, IpNumber::ICMP, 99, &request(data)).remove(0);
    // Long enough not to be padded.
    let (before, after) = (short(&[b'b'; 18]), short(&[b'a'; 18]));
    let (sent, echoed) = echo(vec![before, long, after]);
    assert_eq!(sent.len(), 2);
    assert_eq!((echoed.icmp, echoed.ignored), (2, 1));
    assert_eq!(
        echoed.bytes as usize,
        sent.iter().map(Vec::len).sum::<usize>()
    );
}

#[test]
fn a_tagged_ping_is_answered_with_its_tag() {
    let mut frame = ip(MACS, IPS, IpNumber::ICMP, 1, &request(b"tagged")).remove(0);
    frame.splice(12..12, [0x81, 0x00, 0x00, 0x2a]);
    let (sent, _) = echo(vec![frame]);
    assert_eq!(sent[0][12..16], [0x81, 0x00, 0x00, 0x2a]);
    let untagged = [&sent[0][..12], &sent[0][16..]].concat();
    let (_, payload) = whole(&[untagged]);
    assert!(
        Icmpv4Packet::new_checked(&payload)
            .unwrap()
            .verify_checksum()
    );
}

#[test]
fn who_asks_by_arp_is_told() {
    let question = Arp::ask((Mac(THEIRS), THEIR_IP.into()), OUR_IP.into());
    let other = Arp::ask((Mac(THEIRS), THEIR_IP.into()), [10, 0, 0, 3].into());
    let (sent, echoed) = echo(vec![question.frame().to_vec(), other.frame().to_vec()]);
    let mut answer = question.answer(Mac(MAC)).frame().to_vec();
    // The card's ring pads.
    answer.resize(60, 0);
    assert_eq!(sent, [answer]);
    assert_eq!((echoed.arp, echoed.ignored), (1, 1));
}

#[test]
fn what_is_no_request_to_us_is_not_answered() {
    let good = || ip(MACS, IPS, IpNumber::ICMP, 1, &request(b"x")).remove(0);
    let changed = |at: usize, to: u8| {
        let mut frame = good();
        frame[at] = to;
        frame
    };
    let addressed = |ips, macs| ip(macs, ips, IpNumber::ICMP, 1, &request(b"x")).remove(0);
    let broadcast = [[0xff; 6], MACS[1]];
    let cases = [
        ("a broadcast", addressed(IPS, [THEIRS, [0xff; 6]])),
        ("to another card", addressed(IPS, [THEIRS, THEIRS])),
        ("from a group", addressed(IPS, broadcast)),
        (
            "to another address",
            addressed([THEIR_IP, [10, 0, 0, 3]], MACS),
        ),
        (
            "from a group's address",
            addressed([[224, 0, 0, 1], OUR_IP], MACS),
        ),
        ("from ourselves", addressed([OUR_IP, OUR_IP], MACS)),
        ("a bad header checksum", changed(24, 0x56)),
        ("an answer", changed(34, 0)),
        ("with options", changed(14, 0x46)),
        ("another version", changed(14, 0x65)),
        ("IPv6", changed(13, 0xdd)),
        ("cut short", good()[..30].to_vec()),
        (
            "TCP",
            ip(MACS, IPS, IpNumber::TCP, 1, &request(b"x")).remove(0),
        ),
        (
            "another port",
            ip(MACS, IPS, IpNumber::UDP, 1, &udp([5000, 9], b"x")).remove(0),
        ),
        (
            "from an echo server",
            ip(MACS, IPS, IpNumber::UDP, 1, &udp([7, 7], b"x")).remove(0),
        ),
        (
            "a fragment of nothing",
            ip(MACS, IPS, IpNumber::ICMP, 1, &request(&[1; 3000])).remove(1),
        ),
    ];
    assert_eq!(echo(vec![good()]).0.len(), 1);
    for (what, frame) in cases {
        let (sent, echoed) = echo(vec![frame]);
        assert!(sent.is_empty(), "{what}: {sent:02x?}");
        assert_eq!(echoed.ignored, 1, "{what}");
    }
}

#[test]
fn more_than_the_ring_takes_goes_back_in_order() {
    let requests: Vec<_> = (0..255)
        .map(|seed| {
            ip(
                MACS,
                IPS,
                IpNumber::ICMP,
                seed,
                &request(&bytes(seed.into(), 40)),
            )
            .remove(0)
        })
        .collect();
    let (sent, echoed) = echo(requests.clone());
    assert_eq!(echoed.icmp, 255);
    for (request, answer) in requests.iter().zip(&sent) {
        assert_eq!(request[42..], answer[42..]);
    }
}

#[test]
fn every_bit_of_a_header_is_in_its_checksum() {
    // The bit that RFC 791 reserves: a parser may drop it.
    const RESERVED: u8 = 1 << 7;
    let request = ip(MACS, IPS, IpNumber::ICMP, 1, &request(&bytes(1, 30))).remove(0);
    let mut spoilt = request.clone();
    spoilt[20] ^= RESERVED;
    assert!(echo(vec![spoilt.clone()]).0.is_empty());
    // Adding to a word takes as much from the sum's complement.
    let sum = u16::from_be_bytes([spoilt[24], spoilt[25]]);
    let (less, borrow) = sum.overflowing_sub(u16::from(RESERVED) << 8);
    let right = less - u16::from(borrow);
    spoilt[24..26].copy_from_slice(&right.to_be_bytes());
    let (sent, _) = echo(vec![spoilt]);
    let (addresses, _) = whole(&sent);
    assert_eq!(addresses[0], std::net::Ipv4Addr::from(OUR_IP));
}

proptest! {
    /// No frame, however mangled, makes it panic or answer with a header that is wrong.
    #[test]
    fn a_mangled_request_is_answered_rightly_or_not_at_all(
        tagged: bool,
        mangled in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut: prop::sample::Index,
    ) {
        let mut frame = ip(MACS, IPS, IpNumber::ICMP, 1, &request(&bytes(1, 30))).remove(0);
        if tagged {
            frame.splice(12..12, [0x81, 0x00, 0x00, 0x2a]);
        }
        for (at, value) in mangled {
            *at.get_mut(&mut frame) = value;
        }
        let least = 1;
        frame.truncate((cut.index(2 * frame.len()) + least).min(frame.len()));
        let (sent, _) = echo(vec![frame]);
        for mut answer in sent {
            if answer[12..14] == [0x81, 0x00] {
                answer.drain(12..16);
            }
            let (addresses, _) = whole(&[answer]);
            prop_assert_eq!(addresses[0], std::net::Ipv4Addr::from(OUR_IP));
        }
    }
}

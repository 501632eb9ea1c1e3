//! Work of the card on a frame.

use etherparse::{IpFragOffset, Ipv4Header, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use crate::dma::Pool;
use crate::error::Error;
use crate::nic::{Nic, NicConfig, Offload, OffloadFlags};
use crate::testing::frames::*;
use crate::testing::{Card, LeftOut, OUR_MAC, Outcome, Wire, config, left_out, on, on_real};

/// Leaves a claim out that needs what the card does not offer.
fn offers(nic: &dyn Nic, flags: OffloadFlags) -> Result<(), LeftOut> {
    let lacking = flags.difference(nic.offloads());
    if lacking.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = lacking.iter_names().map(|(name, _)| name).collect();
    left_out(format!("it does not offer {}", names.join(", ")))
}

/// UDP over IPv4 with `payload`, both checksums right.
fn udp(payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2(OUR_MAC.0, [0xff; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(1234, 4321)
        .write(&mut packet, payload)
        .unwrap();
    packet
}

/// The sum of a pseudo-header of these addresses, whose length is `l4_len`.
fn pseudo_header(addresses: &[u8], protocol: u8, l4_len: u16) -> [u8; 2] {
    let words = addresses
        .chunks(2)
        .map(|word| u16::from_be_bytes([word[0], word[1]]));
    let sum: u32 = words.map(u32::from).sum::<u32>() + u32::from(protocol) + u32::from(l4_len);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = ((folded & 0xffff) + (folded >> 16)) as u16;
    folded.to_be_bytes()
}

/// A frame as the driver's caller leaves it to the card: the IP checksum is zero, the other holds the sum of
/// the pseudo-header, whose length is `l4_len`.
fn unsummed(mut packet: Vec<u8>, protocol: u8, field: usize, l4_len: u16) -> Vec<u8> {
    packet[24..26].fill(0);
    let sum = pseudo_header(&packet[26..34], protocol, l4_len);
    packet[field..field + 2].copy_from_slice(&sum);
    packet
}

pub fn what_a_card_does_not_offer_it_refuses(card: &dyn Card) -> Outcome {
    on(card, config(), |nic, _| {
        let pool = Pool::new(nic.dma(), 2, 16_384).unwrap();
        let lacking = OffloadFlags::all().difference(nic.offloads());
        for flag in lacking.iter() {
            // IPV6 alone is no work: it says where other work is.
            let flags = match flag {
                OffloadFlags::IPV6 => flag | OffloadFlags::UDP_CHECKSUM,
                OffloadFlags::TSO => flag | OffloadFlags::TCP_CHECKSUM | OffloadFlags::IP_CHECKSUM,
                OffloadFlags::USO => flag | OffloadFlags::UDP_CHECKSUM | OffloadFlags::IP_CHECKSUM,
                _ => flag,
            };
            let mut refused = scattered(&pool, &udp(&bytes(1, 600)), &[42]);
            refused.set_offload(Offload {
                flags,
                mss: 100,
                vlan: 1,
                ..Offload::UDP4
            });
            assert_refused(nic, refused);
        }
        Ok(())
    })
}

pub fn headers_that_cannot_be_are_refused_and_the_frame_stays(card: &dyn Card) -> Outcome {
    on(card, config(), |nic, wire| {
        let pool = Pool::new(nic.dma(), 2, 2048).unwrap();
        let checksums = OffloadFlags::IP_CHECKSUM | OffloadFlags::UDP_CHECKSUM;
        for (l2_len, l3_len, l4_len) in [(0, 0, 0), (0, 20, 8), (14, 0, 8), (255, 255, 255)] {
            for flags in [
                checksums,
                OffloadFlags::TSO | OffloadFlags::TCP_CHECKSUM,
                OffloadFlags::IP_CHECKSUM,
            ] {
                let mut nonsense = frame(&pool, &out(1, 600));
                nonsense.set_offload(Offload {
                    flags,
                    l2_len,
                    l3_len,
                    l4_len,
                    mss: 100,
                    vlan: 0,
                });
                let mut frames = vec![nonsense];
                let refused = nic.send(&mut frames).unwrap_err();
                assert!(matches!(refused, Error::NotOffered { .. }), "{refused}");
                assert_eq!(frames.len(), 1);
            }
        }
        send_all(nic, vec![frame(&pool, &out(2, 100))]);
        assert_eq!(wire.recv_ours()[..100], out(2, 100));
        Ok(())
    })
}

pub fn a_header_checksum_over_ipv6_is_refused(card: &dyn Card) -> Outcome {
    on(card, config(), |nic, _| {
        let pool = Pool::new(nic.dma(), 1, 2048).unwrap();
        let (packet, summed) = over_ipv6(OffloadFlags::TCP_CHECKSUM, &bytes(1, 800));
        let mut frame = frame(&pool, &packet);
        frame.set_offload(Offload {
            flags: OffloadFlags::IPV6 | OffloadFlags::IP_CHECKSUM,
            ..summed
        });
        assert_refused(nic, frame);
        Ok(())
    })
}

pub fn the_card_inserts_the_ip_checksum(card: &dyn Card) -> Outcome {
    on_real(card, config(), |nic, wire| {
        offers(nic, OffloadFlags::IP_CHECKSUM)?;
        let pool = Pool::new(nic.dma(), 8, 2048).unwrap();
        for len in [1, 2, 777, 1472] {
            let expected = udp(&bytes(len, len));
            // The UDP checksum is there.
            let mut given = expected.clone();
            given[24..26].fill(0);
            let mut cut = scattered(&pool, &given, &[42]);
            cut.set_offload(Offload {
                flags: OffloadFlags::IP_CHECKSUM,
                ..Offload::UDP4
            });
            send_all(nic, vec![cut]);
            let got = wire.recv_ours();
            assert_eq!(got[..expected.len()], expected, "{len} bytes");
        }
        Ok(())
    })
}

pub fn the_card_inserts_ip_and_udp_checksums(card: &dyn Card) -> Outcome {
    on_real(card, config(), |nic, wire| {
        offers(nic, Offload::UDP4.flags)?;
        let pool = Pool::new(nic.dma(), 8, 2048).unwrap();
        for len in [1, 2, 777, 1472] {
            let expected = udp(&bytes(len, len));
            let given = unsummed(expected.clone(), 17, 40, len as u16 + 8);
            assert_ne!(given, expected);
            let mut whole = frame(&pool, &given);
            whole.set_offload(Offload::UDP4);
            let mut cut = scattered(&pool, &given, &[42]);
            cut.set_offload(Offload::UDP4);
            send_all(nic, vec![whole, cut]);
            for form in ["whole", "cut"] {
                let got = wire.recv_ours();
                assert_eq!(got[..expected.len()], expected, "{len} bytes, {form}");
            }
        }
        Ok(())
    })
}

/// UDP or TCP over IPv6 with `payload`, its checksum right; and what is asked of a card that shall make
/// that.
fn over_ipv6(protocol: OffloadFlags, payload: &[u8]) -> (Vec<u8>, Offload) {
    let source = [0xfd, 0xc3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let destination = source.map(|byte: u8| !byte);
    let builder = PacketBuilder::ethernet2(OUR_MAC.0, [0xff; 6]).ipv6(source, destination, 64);
    let mut packet = Vec::new();
    let (written, l4_len) = match protocol {
        OffloadFlags::UDP_CHECKSUM => (builder.udp(1234, 4321).write(&mut packet, payload), 8),
        _ => {
            let tcp = builder.tcp(1234, 4321, 1_000_000, 8192);
            (tcp.write(&mut packet, payload), 20)
        }
    };
    written.unwrap();
    let offload = Offload {
        flags: protocol | OffloadFlags::IPV6,
        l2_len: 14,
        l3_len: 40,
        l4_len,
        mss: 0,
        vlan: 0,
    };
    (packet, offload)
}

/// Checksums of `protocol`, whose field is at `field` of a packet over IPv6.
fn sums_over_ipv6(card: &dyn Card, flag: OffloadFlags, (protocol, field): (u8, usize)) -> Outcome {
    on_real(card, config(), |nic, wire| {
        offers(nic, flag | OffloadFlags::IPV6)?;
        let pool = Pool::new(nic.dma(), 8, 2048).unwrap();
        for len in [1, 2, 777, 1400] {
            let (expected, offload) = over_ipv6(flag, &bytes(len, len));
            let mut given = expected.clone();
            let sum = pseudo_header(&given[22..54], protocol, (given.len() - 54) as u16);
            given[field..field + 2].copy_from_slice(&sum);
            assert_ne!(given, expected);
            let mut whole = frame(&pool, &given);
            whole.set_offload(offload);
            let mut cut = scattered(&pool, &given, &[54]);
            cut.set_offload(offload);
            send_all(nic, vec![whole, cut]);
            for form in ["whole", "cut"] {
                assert_eq!(wire.recv_ours(), expected, "{len} bytes, {form}");
            }
        }
        Ok(())
    })
}

pub fn the_card_inserts_udp_checksums_over_ipv6(card: &dyn Card) -> Outcome {
    sums_over_ipv6(card, OffloadFlags::UDP_CHECKSUM, (17, 60))
}

pub fn the_card_inserts_tcp_checksums_over_ipv6(card: &dyn Card) -> Outcome {
    sums_over_ipv6(card, OffloadFlags::TCP_CHECKSUM, (6, 70))
}

/// The next packet of ours; one that comes in IP fragments is put together.
fn whole_packet(wire: &dyn Wire) -> Vec<u8> {
    const HEADERS: usize = 34;
    let mut whole: Vec<u8> = Vec::new();
    loop {
        let got = wire.recv_ours();
        assert!(got.len() <= 1514, "{} bytes on the wire", got.len());
        let (mut ip, _) = Ipv4Header::from_slice(&got[14..]).unwrap();
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        let (offset, more) = (ip.fragment_offset, ip.more_fragments);
        if offset.value() == 0 && !more {
            return got;
        }
        if whole.is_empty() {
            whole.extend_from_slice(&got[..HEADERS]);
        }
        assert_eq!(usize::from(offset.value()) * 8, whole.len() - HEADERS);
        whole.extend_from_slice(&got[HEADERS..14 + usize::from(ip.total_len)]);
        if !more {
            ip.more_fragments = false;
            ip.fragment_offset = IpFragOffset::ZERO;
            ip.total_len = whole.len() as u16 - 14;
            ip.header_checksum = ip.calc_header_checksum();
            whole[14..HEADERS].copy_from_slice(&ip.to_bytes());
            return whole;
        }
    }
}

pub fn the_card_cuts_a_tcp_segment(card: &dyn Card) -> Outcome {
    const PAYLOAD: usize = 20_000;
    const MSS: usize = 1460;
    on_real(card, config(), |nic, wire| {
        let checksums = OffloadFlags::IP_CHECKSUM | OffloadFlags::TCP_CHECKSUM;
        offers(nic, checksums | OffloadFlags::TSO)?;
        let pool = Pool::new(nic.dma(), 4, 4 + PAYLOAD).unwrap();
        let payload = bytes(3, PAYLOAD);
        let mut packet = Vec::new();
        PacketBuilder::ethernet2(OUR_MAC.0, [0xff; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(1234, 4321, 1_000_000, 8192)
            .ack(77)
            .psh()
            .write(&mut packet, &payload)
            .unwrap();
        // The driver begins the sums of what is to be cut.
        packet[24..26].fill(0xa5);
        packet[50..52].fill(0xa5);
        let offload = Offload {
            flags: checksums | OffloadFlags::TSO,
            l2_len: 14,
            l3_len: 20,
            l4_len: 20,
            mss: MSS as u16,
            vlan: 0,
        };
        // For which it must have all headers in one buffer.
        let mut cut_in_the_header = scattered(&pool, &packet, &[50]);
        cut_in_the_header.set_offload(offload);
        assert_refused(nic, cut_in_the_header);
        let mut whole = scattered(&pool, &packet, &[54]);
        whole.set_offload(offload);
        send_all(nic, vec![whole]);
        let mut together = Vec::new();
        while together.len() < PAYLOAD {
            let got = whole_packet(wire);
            let parsed = SlicedPacket::from_ethernet(&got).unwrap();
            let Some(NetSlice::Ipv4(ip)) = &parsed.net else {
                panic!("{parsed:?}")
            };
            let Some(TransportSlice::Tcp(tcp)) = &parsed.transport else {
                panic!("{parsed:?}")
            };
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let sum = tcp.calc_checksum_ipv4(header.source, header.destination);
            assert_eq!(tcp.checksum(), sum.unwrap());
            assert_eq!(tcp.sequence_number() as usize, 1_000_000 + together.len());
            // Which segment has "push" is the card's to do; QEMU's models have it on the last, on all, or on none.
            // QEMU's e1000e, before 8.0, made one packet in fragments of it.
            let fragments = nic.model() == "Intel 82574L" && tcp.payload().len() == PAYLOAD;
            assert!(fragments || tcp.payload().len() <= MSS);
            together.extend_from_slice(tcp.payload());
        }
        assert_eq!(together, payload);
        Ok(())
    })
}

/// Priority 3, VLAN 100.
const TCI: u16 = 0x6064;

/// Takes all frames, and asks for the card's work on tags.
fn with_tags() -> NicConfig {
    config().vlan_offload(true).promiscuous(true)
}

fn tagged(content: &[u8]) -> Vec<u8> {
    let tag = [&[0x81, 0x00][..], &TCI.to_be_bytes()].concat();
    [&content[..12], &tag, &content[12..]].concat()
}

pub fn the_card_inserts_and_strips_vlan_tags(card: &dyn Card) -> Outcome {
    on_real(card, with_tags(), |nic, wire| {
        offers(nic, OffloadFlags::VLAN | Offload::UDP4.flags)?;
        let pool = Pool::new(nic.dma(), 8, 2048).unwrap();
        let content = out(1, 100);
        let mut plain = frame(&pool, &content);
        plain.set_offload(Offload::NONE.with_vlan(TCI));
        let mut summed = frame(&pool, &unsummed(udp(b"tagged"), 17, 40, 14));
        summed.set_offload(Offload::UDP4.with_vlan(TCI));
        send_all(nic, vec![plain, summed]);
        assert_eq!(wire.recv_ours(), tagged(&content));
        let got = wire.recv_ours();
        assert_eq!(got[12..16], [0x81, 0x00, 0x60, 0x64]);
        let without = [&got[..12], &got[16..]].concat();
        assert_eq!(without[..48], udp(b"tagged")[..48]);

        wire.send(&tagged(&content));
        wire.send(&content);
        let got = receive(nic, 2);
        assert_eq!([got[0].vlan(), got[1].vlan()], [Some(TCI), None]);
        assert_eq!(contents(&got), [content.clone(), content]);
        Ok(())
    })
}

/// Also where it was asked to, and cannot.
pub fn tags_are_as_on_the_wire_where_the_card_leaves_them(card: &dyn Card) -> Outcome {
    let untouched = |nic: &mut dyn Nic, wire: &dyn Wire| {
        if nic.offloads().contains(OffloadFlags::VLAN) {
            return Ok(());
        }
        let pool = Pool::new(nic.dma(), 1, 2048).unwrap();
        let both_ways = tagged(&out(1, 100));
        send_all(nic, vec![frame(&pool, &both_ways)]);
        assert_eq!(wire.recv_ours(), both_ways);
        wire.send(&both_ways);
        let got = receive(nic, 1);
        assert_eq!((got[0].vlan(), contents(&got)), (None, vec![both_ways]));
        Ok(())
    };
    let plain = config().promiscuous(true);
    on_real(card, plain, untouched)?;
    on_real(card, with_tags(), untouched)
}

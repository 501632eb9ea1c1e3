//! `pinwire echo` answers as another stack takes it.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, IpFragOffset, IpNumber, Ipv4Header};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet,
    Ipv4Packet,
};

use crate::{Wire, json, on_every_card, pinwire};

const CARD: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// A ping of `size` bytes to 10.1.2.5, in as many frames as it takes.
fn ping(seq: u16, size: usize) -> Vec<Vec<u8>> {
    let data: Vec<u8> = (0..size).map(|at| (at * 7 + at / 256) as u8).collect();
    let echo = IcmpEchoHeader { id: 4, seq };
    let header = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), &data);
    let message = [&header.to_bytes(), &data[..]].concat();
    let pieces = message.chunks(1480).enumerate().map(|(nth, piece)| {
        let mut ip = Ipv4Header {
            total_len: 20 + piece.len() as u16,
            identification: seq,
            dont_fragment: false,
            more_fragments: nth * 1480 + piece.len() < message.len(),
            fragment_offset: IpFragOffset::try_new((nth * 185) as u16).unwrap(),
            time_to_live: 9,
            protocol: IpNumber::ICMP,
            source: [10, 1, 2, 4],
            destination: [10, 1, 2, 5],
            ..Default::default()
        };
        ip.header_checksum = ip.calc_header_checksum();
        let mut frame = [CARD, THEIRS].concat();
        frame.extend(0x0800u16.to_be_bytes());
        frame.extend(ip.to_bytes());
        frame.extend(piece);
        frame
    });
    pieces.collect()
}

#[test]
fn arp_and_pings_in_fragments_are_answered() {
    on_every_card(|card| {
        const SIZE: usize = 5000;
        let wire = Wire::new();
        let device = wire.device(card);
        let mut command = pinwire([
            "echo",
            &device,
            "--address",
            "10.1.2.5",
            "--count",
            "2",
            "--json",
        ]);
        let echo = thread::spawn(move || command.assert().success().get_output().clone());
        let question = pinwire::net::Arp::ask(
            (pinwire::nic::Mac(THEIRS), [10, 1, 2, 4].into()),
            [10, 1, 2, 5].into(),
        );
        let (mut told, mut answers) = (false, BTreeMap::<u16, Vec<Vec<u8>>>::new());
        let (mut seq, mut ended) = (0, false);
        while !ended {
            // Before the last look at what it sent.
            ended = echo.is_finished();
            if !ended {
                seq += 1;
                wire.send(&question.frame());
                for frame in ping(seq, SIZE) {
                    wire.send(&frame);
                }
            }
            while let Some(frame) = wire.try_recv() {
                let ethernet = EthernetFrame::new_checked(&frame).unwrap();
                assert_eq!(
                    (ethernet.src_addr().0, ethernet.dst_addr().0),
                    (CARD, THEIRS)
                );
                if ethernet.ethertype() == EthernetProtocol::Arp {
                    let arp = ArpPacket::new_checked(ethernet.payload()).unwrap();
                    let ArpRepr::EthernetIpv4 {
                        operation,
                        source_protocol_addr,
                        ..
                    } = ArpRepr::parse(&arp).unwrap()
                    else {
                        panic!("not ARP for IPv4");
                    };
                    assert_eq!(operation, ArpOperation::Reply);
                    assert_eq!(source_protocol_addr.octets(), [10, 1, 2, 5]);
                    told = true;
                    continue;
                }
                let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
                assert!(ip.verify_checksum());
                answers.entry(ip.ident()).or_default().push(frame);
            }
        }
        assert!(told);
        let summary = json(&echo.join().unwrap().stdout);
        assert!(summary["icmp"].as_u64() >= Some(2), "{summary}");
        assert!(summary["arp"].as_u64() >= Some(1), "{summary}");
        assert!(!answers.is_empty());
        for (seq, frames) in answers {
            let mut message = Vec::new();
            for frame in &frames {
                let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
                message.extend(ip.payload());
            }
            let icmp = Icmpv4Packet::new_checked(&message).unwrap();
            assert!(icmp.verify_checksum(), "ping {seq}");
            assert_eq!(icmp.msg_type(), Icmpv4Message::EchoReply);
            let asked: Vec<u8> = ping(seq, SIZE)
                .iter()
                .flat_map(|frame| frame[34..].to_vec())
                .collect();
            assert_eq!(message[4..], asked[4..], "ping {seq}");
        }
    });
}

#[test]
fn it_ends_in_time_and_says_so_to_people() {
    on_every_card(|card| {
        let mut command = pinwire([
            "echo",
            &format!("qtest:{card}"),
            "--address",
            "10.1.2.5",
            "--seconds",
            "0.2",
        ]);
        let begin = std::time::Instant::now();
        let output = command.assert().success().get_output().clone();
        assert!(begin.elapsed() >= Duration::from_millis(200));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("pings answered  0\n"), "{text}");
    });
}

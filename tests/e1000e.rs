//! What the 82574 has and the other cards have not, over QEMU's model: two queues, split headers, and
//! checksums that it looks at.
#![cfg(feature = "testing")]

mod common;

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use pinwire::backend::{Peer, Qtest, QtestSpec};
use pinwire::dma::Pool;
use pinwire::inspect::RingIndices;
use pinwire::nic::Checksum::{Bad, Good, Unchecked};
use pinwire::nic::e1000e::E1000eConfig;
use pinwire::nic::{Nic, NicConfig, Received, Waiting};
use pinwire::open;
use pinwire::testing::Wire;

/// The address that our frames are sent from.
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The address that frames come to us from.
const THEIR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn card(config: &NicConfig) -> Option<(Box<dyn Nic>, UnixDatagram)> {
    if !common::require_qemu() {
        return None;
    }
    let (peer, wire) = Peer::socket().unwrap();
    let spec = QtestSpec::new("e1000e", peer).unwrap();
    let nic = open::start(Qtest::start(&spec).unwrap(), config).unwrap();
    Some((nic, wire))
}

/// Two pairs, looked at without interrupts.
fn two() -> NicConfig {
    NicConfig::default().queues(2).waiting(Waiting::Poll)
}

fn split() -> NicConfig {
    NicConfig::default()
        .rx_ring(8)
        .driver(E1000eConfig::default().split_headers(true))
}

fn udp(to: [u8; 6], addresses: [[u8; 4]; 2], payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2(THEIR_MAC, to)
        .ipv4(addresses[0], addresses[1], 64)
        .udp(1234, 4321)
        .write(&mut packet, payload)
        .unwrap();
    packet.resize(packet.len().max(60), 0);
    packet
}

fn tcp(to: [u8; 6], addresses: [[u8; 4]; 2], ports: [u16; 2]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2(THEIR_MAC, to)
        .ipv4(addresses[0], addresses[1], 64)
        .tcp(ports[0], ports[1], 1, 8192)
        .write(&mut packet, b"some bytes of payload")
        .unwrap();
    packet
}

/// A frame of no protocol that the card knows.
fn raw(to: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = [&to[..], &THEIR_MAC, &[0x88, 0xb5]].concat();
    frame.extend((14..len).map(|i| (i * 7) as u8));
    frame
}

/// The hash of RSS as Microsoft defines it, with the key of its vectors.
fn toeplitz(input: &[u8]) -> u32 {
    const KEY: &str =
        "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa";
    let digit = |i: usize| u8::from_str_radix(&KEY[2 * i..2 * i + 2], 16).unwrap();
    let bit = |i: usize| u32::from(digit(i / 8) >> (7 - i % 8) & 1);
    let window = |at: usize| (at..at + 32).fold(0, |word, i| word << 1 | bit(i));
    let set = |i: &usize| input[i / 8] >> (7 - i % 8) & 1 == 1;
    (0..input.len() * 8)
        .filter(set)
        .map(window)
        .fold(0, |hash, w| hash ^ w)
}

#[test]
fn the_hash_is_that_of_the_published_vectors() {
    // 66.9.149.187:2794 to 161.142.100.80:1766
    let addresses = [66, 9, 149, 187, 161, 142, 100, 80];
    assert_eq!(toeplitz(&addresses), 0x323e_8fc2);
    let ports = [0x0a, 0xea, 0x06, 0xe6];
    assert_eq!(toeplitz(&[&addresses[..], &ports].concat()), 0x51cc_c178);
}

/// What came in on each pair, `count` frames together.
fn receive(nic: &mut dyn Nic, count: usize) -> Vec<Vec<Received>> {
    let begin = Instant::now();
    let mut got: Vec<Vec<Received>> = (0..nic.queues()).map(|_| Vec::new()).collect();
    while got.iter().map(Vec::len).sum::<usize>() < count {
        for (pair, got) in nic.split().into_iter().zip(&mut got) {
            pair.recv(got, 64).unwrap();
        }
        assert!(begin.elapsed() < Duration::from_secs(15), "{count} frames");
    }
    got
}

fn contents(got: &[Received]) -> Vec<Vec<u8>> {
    got.iter().map(|one| one.frame.to_vec()).collect()
}

#[test]
fn the_hash_of_its_addresses_picks_a_frames_queue() {
    let Some((mut nic, wire)) = card(&two()) else {
        return;
    };
    assert_eq!(nic.queues(), 2);
    let mac = nic.mac().0;
    let mut expected = [Vec::new(), Vec::new()];
    let mut send = |frame: Vec<u8>, hash: u32| {
        Wire::send(&wire, &frame);
        expected[hash as usize & 1].push(frame);
    };
    for i in 0..16u8 {
        let addresses = [[10, 0, 0, i], [10, 0, 1, 7]];
        // Of UDP the addresses only, of TCP the ports, too.
        send(udp(mac, addresses, &[i; 30]), toeplitz(&addresses.concat()));
        let ports = [1000 + u16::from(i), 80];
        let input = [addresses.concat(), ports.map(u16::to_be_bytes).concat()].concat();
        send(tcp(mac, addresses, ports), toeplitz(&input));
        send(raw(mac, 60 + usize::from(i)), 0);
    }
    let got = receive(&mut *nic, 48);
    for (queue, expected) in expected.iter().enumerate() {
        assert!(expected.len() > 8, "both queues have some");
        assert_eq!(&contents(&got[queue]), expected, "queue {queue}");
    }
}

#[test]
fn both_queues_send_and_each_on_a_thread_of_its_own() {
    let Some((mut nic, wire)) = card(&two()) else {
        return;
    };
    let pools = [(); 2].map(|()| Pool::new(nic.dma(), 8, 2048).unwrap());
    std::thread::scope(|scope| {
        for (index, (pair, pool)) in nic.split().into_iter().zip(pools).enumerate() {
            scope.spawn(move || {
                for seed in 0..20u8 {
                    let mut frame = raw([0xff; 6], 100);
                    frame[6..12].copy_from_slice(&OUR_MAC);
                    frame[14..16].copy_from_slice(&[index as u8, seed]);
                    let mut buf = pool.alloc().unwrap();
                    buf.fill(&frame);
                    pair.send(&mut vec![buf.into()]).unwrap();
                    let begin = Instant::now();
                    while pair.completed(&mut Vec::new()).unwrap() == 0 {
                        assert!(begin.elapsed() < Duration::from_secs(10));
                    }
                }
            });
        }
    });
    let mut seeds = [Vec::new(), Vec::new()];
    for _ in 0..40 {
        let frame = wire.recv_ours();
        seeds[usize::from(frame[14])].push(frame[15]);
    }
    let all: Vec<u8> = (0..20).collect();
    assert_eq!(seeds, [all.clone(), all]);
    let rings = nic.rings();
    let of: Vec<_> = rings.iter().map(|ring| (ring.name, ring.pair)).collect();
    assert_eq!(
        of,
        [
            ("transmit", 0),
            ("receive", 0),
            ("transmit", 1),
            ("receive", 1)
        ]
    );
}

/// The lengths of a frame's segments.
fn segments(received: &Received) -> Vec<usize> {
    received
        .frame
        .segments()
        .map(|segment| segment.len())
        .collect()
}

#[test]
fn headers_and_payload_come_in_different_buffers() {
    let Some((mut nic, wire)) = card(&split()) else {
        return;
    };
    let mac = nic.mac().0;
    let addresses = [[10, 0, 0, 1], [10, 0, 0, 2]];
    for round in 0..20 {
        let datagram = udp(mac, addresses, &vec![round; 1000 + usize::from(round)]);
        let segment = tcp(mac, addresses, [1, 2]);
        let other = raw(mac, 1514);
        for frame in [&datagram, &segment, &other] {
            Wire::send(&wire, frame);
        }
        let got = receive(&mut *nic, 3).remove(0);
        assert_eq!(segments(&got[0]), [42, 1000 + usize::from(round)]);
        assert_eq!(segments(&got[1]), [54, 21]);
        // No headers that it knows: one buffer after the other.
        assert_eq!(segments(&got[2]), [256, 1258]);
        assert_eq!(contents(&got), [datagram, segment, other]);
    }
    let RingIndices::Registers { head, tail } = nic.rings()[1].indices else {
        panic!("registers");
    };
    assert_eq!((head, tail), (60 % 8, (60 + 7) % 8), "in descriptors");
}

#[test]
fn a_jumbo_frame_is_split_over_all_buffers_of_a_descriptor() {
    let config = split().max_frame(9216);
    let Some((mut nic, wire)) = card(&config) else {
        return;
    };
    let mac = nic.mac().0;
    let addresses = [[10, 0, 0, 1], [10, 0, 0, 2]];
    for len in [1000, 4096, 4097, 9174] {
        let frame = udp(mac, addresses, &vec![len as u8; len]);
        Wire::send(&wire, &frame);
        let got = receive(&mut *nic, 1).remove(0);
        let mut expected = vec![42];
        expected.extend((0..len).step_by(4096).map(|at| (len - at).min(4096)));
        assert_eq!(segments(&got[0]), expected);
        assert_eq!(contents(&got), [frame]);
    }
}

#[test]
fn the_card_says_which_checksums_are_right() {
    for config in [NicConfig::default(), split()] {
        let Some((mut nic, wire)) = card(&config) else {
            return;
        };
        let right = udp(nic.mac().0, [[10, 0, 0, 1], [10, 0, 0, 2]], &[7; 100]);
        let mut bad_payload = right.clone();
        bad_payload[100] ^= 1;
        let mut bad_header = right.clone();
        bad_header[22] ^= 1; // TTL
        let no_ip = raw(nic.mac().0, 100);
        for (frame, expected) in [
            (right, (Good, Good)),
            (bad_payload, (Good, Bad)),
            (bad_header, (Bad, Good)),
            (no_ip, (Unchecked, Unchecked)),
        ] {
            Wire::send(&wire, &frame);
            let got = receive(&mut *nic, 1).remove(0);
            assert_eq!((got[0].ip_checksum(), got[0].l4_checksum()), expected);
        }
    }
}

#[test]
fn a_restarted_card_works_as_before() {
    for config in [two(), split()] {
        let Some((mut nic, wire)) = card(&config) else {
            return;
        };
        for _ in 0..3 {
            nic.restart().unwrap();
            let frame = udp(nic.mac().0, [[10, 0, 0, 1], [10, 0, 0, 2]], &[7; 100]);
            Wire::send(&wire, &frame);
            let got = receive(&mut *nic, 1);
            let all: Vec<_> = got.iter().flat_map(|got| contents(got)).collect();
            assert_eq!(all, [frame]);
        }
    }
}

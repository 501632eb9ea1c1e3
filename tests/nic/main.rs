//! One set of tests for a network card, run by the same bodies wherever there is one.
//!
//! On the host: over each of QEMU's models, with the test at the other end of the cable, and over
//! fakes. In the VM (`tests/vm/card.rs` starts it there): over VFIO with
//! `PINWIRE_DEVICE=0000:00:03.0`, and the kernel's driver on a twin card, `PINWIRE_WIRE=eth0`, at the
//! other end. Each body that has passed is noted in the file `PINWIRE_TABLE`, for `qemu/table`.
#![cfg(feature = "net")]

#[path = "../common/mod.rs"]
mod common;
mod fake_cards;
#[path = "../fakes/mod.rs"]
mod fakes;
mod wire;

use std::io::Write;
use std::time::{Duration, Instant};

use etherparse::{IpFragOffset, Ipv4Header, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use pinwire::backend::{Peer, Qtest, QtestSpec};
use pinwire::dma::{DmaFile, Pool};
use pinwire::inspect::RingView;
use pinwire::nic::{Counter, Frame, Mac, Nic, NicConfig, Offload, OffloadFlags, Received, Waiting};
use pinwire::open;
use wire::{PacketSocket, Wire};

/// The address that our frames are sent from.
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The address that frames come to us from.
const THEIR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const MODELS: [&str; 7] = [
    "e1000",
    "e1000-82544gc",
    "e1000-82545em",
    "e1000e",
    "virtio-net",
    "virtio-net,packed=on",
    "virtio-net,event_idx=off,indirect_desc=off,modern-pio-notify=on",
];

/// Runs `body` over every card at hand, and over the fake ones.
fn on_every_card(config: NicConfig, body: impl Fn(&mut dyn Nic, &dyn Wire)) {
    on_cards(&config, &body);
    if std::env::var_os("PINWIRE_DEVICE").is_none() {
        for card in fake_cards::CARDS {
            println!("--- fake:{card}");
            let (mut nic, cable) = fake_cards::start(card, &config);
            body(&mut *nic, &cable);
            note(card, "fake");
        }
    }
}

/// Runs `body` over every card at hand. What it needs the card to do (checksums, cuts, filters) would
/// be the test's own work on a fake one.
fn on_cards(config: &NicConfig, body: &impl Fn(&mut dyn Nic, &dyn Wire)) {
    if let Ok(device) = std::env::var("PINWIRE_DEVICE") {
        let interface = std::env::var("PINWIRE_WIRE").expect("PINWIRE_WIRE names the twin");
        let wire = PacketSocket::open(&interface).expect("the twin's interface is up");
        let spec: pinwire::device::DeviceSpec = device.parse().unwrap();
        let mut nic = spec.open(config, None).unwrap();
        body(&mut *nic, &wire);
        return note(&std::env::var("PINWIRE_MODEL").unwrap_or(device), "vfio");
    }
    if !common::require_qemu() {
        return;
    }
    for model in MODELS {
        println!("--- qtest:{model}");
        let (peer, wire) = Peer::socket().unwrap();
        let (name, properties) = model.split_once(',').unwrap_or((model, ""));
        let mut spec = QtestSpec::new(name, peer).unwrap();
        for (key, value) in properties.split(',').filter_map(|one| one.split_once('=')) {
            spec = spec.with(key, value).unwrap();
        }
        let mut nic = open::start(Qtest::start(&spec).unwrap(), config).unwrap();
        body(&mut *nic, &wire);
        note(model, "qtest");
    }
}

/// The running test has passed on `card`, reached by `backend`.
fn note(card: &str, backend: &str) {
    let Some(table) = std::env::var_os("PINWIRE_TABLE") else {
        return;
    };
    let thread = std::thread::current();
    let line = format!("{}\t{card}\t{backend}\n", thread.name().unwrap_or("a test"));
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(table);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("PINWIRE_TABLE can be written");
}

fn config() -> NicConfig {
    NicConfig::default()
}

/// `len` bytes that no other `seed` has.
fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (seed * 31 + i * 7 + i / 256) as u8)
        .collect()
}

/// An Ethernet frame of `len` bytes, of the EtherType for experiments.
fn ethernet(to: [u8; 6], from: [u8; 6], seed: usize, len: usize) -> Vec<u8> {
    let mut frame = [&to[..], &from[..], &0x88b5u16.to_be_bytes()].concat();
    frame.extend(bytes(seed, len - 14));
    frame
}

fn out(seed: usize, len: usize) -> Vec<u8> {
    ethernet([0xff; 6], OUR_MAC, seed, len)
}

fn frame(pool: &Pool, content: &[u8]) -> Frame {
    let mut buf = pool.take().expect("a buffer");
    buf.fill(content);
    buf.into()
}

/// `content` in several buffers, cut at `cuts`.
fn scattered(pool: &Pool, content: &[u8], cuts: &[usize]) -> Frame {
    let ends: Vec<_> = cuts.iter().copied().chain([content.len()]).collect();
    let mut start = 0;
    let mut whole: Option<Frame> = None;
    for end in ends {
        let mut buf = pool.take().expect("a buffer");
        buf.fill(&content[start..end]);
        match &mut whole {
            None => whole = Some(buf.into()),
            Some(frame) => frame.append(buf),
        }
        start = end;
    }
    whole.unwrap()
}

/// Sends `frames` and waits until all have come back.
fn send_all(nic: &mut dyn Nic, mut frames: Vec<Frame>) {
    let begin = Instant::now();
    while !frames.is_empty() || nic.in_flight() > 0 {
        nic.send(&mut frames).unwrap();
        nic.reap(&mut Vec::new()).unwrap();
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "the card does not send"
        );
    }
}

/// The frames that came in, `count` of them.
fn receive(nic: &mut dyn Nic, count: usize) -> Vec<Received> {
    let begin = Instant::now();
    let mut got = Vec::new();
    while got.len() < count {
        if nic.recv(&mut got, count).unwrap() == 0 {
            nic.wait(Duration::from_millis(200)).unwrap();
        }
        assert!(
            begin.elapsed() < Duration::from_secs(15),
            "{} of {count} frames",
            got.len()
        );
    }
    got
}

/// What a card does not offer it refuses, and keeps nothing.
fn assert_refused(nic: &mut dyn Nic, frame: Frame) {
    let mut frames = vec![frame];
    let error = nic.send(&mut frames).unwrap_err().to_string();
    assert!(error.contains("cannot do this"), "{error}");
    assert_eq!((frames.len(), nic.in_flight()), (1, 0));
}

fn contents(got: &[Received]) -> Vec<Vec<u8>> {
    got.iter().map(|received| received.frame.to_vec()).collect()
}

#[test]
fn frames_of_every_length_leave_as_they_are() {
    on_every_card(config(), |nic, wire| {
        let pool = Pool::new(nic.dma(), 64, 2048).unwrap();
        for (seed, len) in [60, 61, 64, 65, 127, 128, 1000, 1513, 1514]
            .into_iter()
            .enumerate()
        {
            send_all(nic, vec![frame(&pool, &out(seed, len))]);
            assert_eq!(wire.recv_ours(), out(seed, len), "{len} bytes");
        }
    });
}

#[test]
fn the_ring_wraps_many_times() {
    on_every_card(
        NicConfig {
            tx_ring: 8,
            ..config()
        },
        |nic, wire| {
            let pool = Pool::new(nic.dma(), 8, 2048).unwrap();
            for round in 0..40 {
                let frames = (0..5)
                    .map(|i| frame(&pool, &out(round * 5 + i, 60 + i)))
                    .collect();
                send_all(nic, frames);
                for i in 0..5 {
                    assert_eq!(
                        wire.recv_ours(),
                        out(round * 5 + i, 60 + i),
                        "round {round}"
                    );
                }
            }
        },
    );
}

#[test]
fn a_frame_of_many_segments_leaves_whole() {
    on_every_card(config(), |nic, wire| {
        let pool = Pool::new(nic.dma(), 64, 2048).unwrap();
        let content = out(1, 1514);
        for cuts in [&[14][..], &[1, 2, 3], &[42, 600, 601, 1500, 1513]] {
            send_all(nic, vec![scattered(&pool, &content, cuts)]);
            assert_eq!(wire.recv_ours(), content, "cut at {cuts:?}");
        }
    });
}

#[test]
fn a_jumbo_frame_leaves_whole_and_one_too_long_is_refused() {
    on_every_card(config(), |nic, wire| {
        let most = nic.max_tx_frame();
        let pool = Pool::new(nic.dma(), 2, most + 1).unwrap();
        assert!(
            !nic.offloads().contains(OffloadFlags::VLAN),
            "it was not asked for"
        );
        let error = nic
            .send(&mut vec![frame(&pool, &out(1, most + 1))])
            .unwrap_err();
        let says = format!("{} bytes cannot be sent", most + 1);
        assert!(error.to_string().contains(&says), "{error}");
        let seen = out(1, most.min(wire.longest()));
        send_all(nic, vec![frame(&pool, &seen)]);
        assert_eq!(wire.recv_ours(), seen);
    });
}

/// UDP over IPv4 with `payload`, both checksums right.
fn udp(payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2(OUR_MAC, [0xff; 6])
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

/// What the driver's caller leaves to the card: the IP checksum is zero, the other holds the sum of
/// the pseudo-header, whose length is `l4_len`.
fn unsummed(mut packet: Vec<u8>, protocol: u8, field: usize, l4_len: u16) -> Vec<u8> {
    packet[24..26].fill(0);
    let sum = pseudo_header(&packet[26..34], protocol, l4_len);
    packet[field..field + 2].copy_from_slice(&sum);
    packet
}

#[test]
fn the_card_inserts_ip_and_udp_checksums() {
    on_cards(&config(), &|nic, wire| {
        let pool = Pool::new(nic.dma(), 8, 2048).unwrap();
        for len in [1, 2, 777, 1472] {
            let expected = udp(&bytes(len, len));
            let given = unsummed(expected.clone(), 17, 40, len as u16 + 8);
            assert_ne!(given, expected);
            let mut whole = frame(&pool, &given);
            whole.set_offload(Offload::UDP4);
            let mut cut = scattered(&pool, &given, &[42]);
            cut.set_offload(Offload::UDP4);
            if !nic.offloads().contains(Offload::UDP4.flags) {
                assert_refused(nic, whole);
                // The other one it makes, on a frame whose UDP checksum is there.
                let mut given = expected.clone();
                given[24..26].fill(0xa5);
                cut = scattered(&pool, &given, &[42]);
                cut.set_offload(Offload {
                    flags: OffloadFlags::IP_CHECKSUM,
                    ..Offload::UDP4
                });
                send_all(nic, vec![cut]);
                assert_eq!(wire.recv_ours()[..expected.len()], expected, "{len} bytes");
                continue;
            }
            send_all(nic, vec![whole, cut]);
            for how in ["whole", "cut"] {
                let got = wire.recv_ours();
                assert_eq!(got[..expected.len()], expected, "{len} bytes, {how}");
            }
        }
    });
}

/// UDP or TCP over IPv6 with `payload`, its checksum right; and what is asked of a card that shall make
/// that.
fn over_ipv6(protocol: OffloadFlags, payload: &[u8]) -> (Vec<u8>, Offload) {
    let source = [0xfd, 0xc3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let destination = source.map(|byte| !byte);
    let builder = PacketBuilder::ethernet2(OUR_MAC, [0xff; 6]).ipv6(source, destination, 64);
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

#[test]
fn the_card_inserts_udp_and_tcp_checksums_over_ipv6() {
    on_cards(&config(), &|nic, wire| {
        let pool = Pool::new(nic.dma(), 8, 2048).unwrap();
        for (flag, protocol, field) in [
            (OffloadFlags::UDP_CHECKSUM, 17, 60),
            (OffloadFlags::TCP_CHECKSUM, 6, 70),
        ] {
            for len in [1, 2, 777, 1400] {
                let (expected, offload) = over_ipv6(flag, &bytes(len, len));
                let mut given = expected.clone();
                let sum = pseudo_header(&given[22..54], protocol, (given.len() - 54) as u16);
                given[field..field + 2].copy_from_slice(&sum);
                assert_ne!(given, expected);
                let mut whole = frame(&pool, &given);
                whole.set_offload(offload);
                if !nic.offloads().contains(offload.flags) {
                    assert_refused(nic, whole);
                    continue;
                }
                let mut cut = scattered(&pool, &given, &[54]);
                cut.set_offload(offload);
                send_all(nic, vec![whole, cut]);
                for how in ["whole", "cut"] {
                    assert_eq!(wire.recv_ours(), expected, "{flag:?}, {len} bytes, {how}");
                }
            }
        }
    });
}

#[test]
fn what_would_spoil_a_packet_over_ipv6_is_refused() {
    on_every_card(config(), |nic, _| {
        let pool = Pool::new(nic.dma(), 1, 16_384).unwrap();
        let (packet, summed) = over_ipv6(OffloadFlags::TCP_CHECKSUM, &bytes(1, 8000));
        let header_checksum = Offload {
            flags: OffloadFlags::IPV6 | OffloadFlags::IP_CHECKSUM,
            ..summed
        };
        let cut = Offload {
            flags: summed.flags | OffloadFlags::TSO,
            mss: 1440,
            ..summed
        };
        let mut refused = vec![header_checksum];
        // Of all cards here, this one cuts it right.
        if nic.model() != "Intel 82574L" {
            refused.push(cut);
        }
        for offload in refused {
            let mut frame = frame(&pool, &packet);
            frame.set_offload(offload);
            assert_refused(nic, frame);
        }
    });
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

#[test]
fn headers_that_cannot_be_are_refused_and_the_frame_stays() {
    on_every_card(config(), |nic, wire| {
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
                assert!(
                    matches!(refused, pinwire::Error::NotOffered { .. }),
                    "{refused}"
                );
                assert_eq!(frames.len(), 1);
            }
        }
        send_all(nic, vec![frame(&pool, &out(2, 100))]);
        assert_eq!(wire.recv_ours()[..100], out(2, 100));
    });
}

#[test]
fn the_card_cuts_a_tcp_segment() {
    const PAYLOAD: usize = 20_000;
    const MSS: usize = 1460;
    on_cards(&config(), &|nic, wire| {
        let pool = Pool::new(nic.dma(), 4, 4 + PAYLOAD).unwrap();
        let payload = bytes(3, PAYLOAD);
        let mut packet = Vec::new();
        PacketBuilder::ethernet2(OUR_MAC, [0xff; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(1234, 4321, 1_000_000, 8192)
            .ack(77)
            .psh()
            .write(&mut packet, &payload)
            .unwrap();
        // The driver begins the sums of what is to be cut.
        packet[24..26].fill(0xa5);
        packet[50..52].fill(0xa5);
        let checksums = OffloadFlags::IP_CHECKSUM | OffloadFlags::TCP_CHECKSUM;
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
        if !nic.offloads().contains(OffloadFlags::TSO) {
            return assert_refused(nic, whole);
        }
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
            assert_eq!(
                tcp.checksum(),
                tcp.calc_checksum_ipv4(header.source, header.destination)
                    .unwrap()
            );
            assert_eq!(tcp.sequence_number() as usize, 1_000_000 + together.len());
            // Which segment has "push" is the card's to do; QEMU's models have it on the last, on all, or on none.
            // QEMU's e1000e, before 8.0, made one packet in fragments of it.
            let fragments = nic.model() == "Intel 82574L" && tcp.payload().len() == PAYLOAD;
            assert!(fragments || tcp.payload().len() <= MSS);
            together.extend_from_slice(tcp.payload());
        }
        assert_eq!(together, payload);
    });
}

#[test]
fn the_vlan_filter_takes_what_it_should() {
    let config = NicConfig {
        vlan_filter: true,
        ..config()
    };
    on_cards(&config, &|nic, wire| {
        let plain = ethernet(nic.mac().0, THEIR_MAC, 1, 60);
        let tagged =
            |vlan: u16| [&plain[..12], &[0x81, 0], &vlan.to_be_bytes(), &plain[12..]].concat();
        nic.set_vlans(Some(&[100])).unwrap();
        for frame in [tagged(200), tagged(100), plain.clone()] {
            wire.send(&frame);
        }
        assert_eq!(contents(&receive(nic, 2)), [tagged(100), plain.clone()]);
        assert!(nic.set_vlans(Some(&[4096])).is_err());
        nic.set_vlans(None).unwrap();
        wire.send(&tagged(200));
        assert_eq!(contents(&receive(nic, 1)), [tagged(200)]);
    });
}

#[test]
fn the_card_inserts_and_strips_vlan_tags() {
    const TCI: u16 = 0x6064; // priority 3, VLAN 100
    on_cards(
        &NicConfig {
            vlan_offload: true,
            promiscuous: true,
            ..config()
        },
        &|nic, wire| {
            let pool = Pool::new(nic.dma(), 8, 2048).unwrap();
            let content = out(1, 100);
            let tagged = [
                &content[..12],
                &[0x81, 0x00],
                &TCI.to_be_bytes(),
                &content[12..],
            ]
            .concat();
            let mut plain = frame(&pool, &content);
            plain.set_offload(Offload::NONE.with_vlan(TCI));
            let mut summed = frame(&pool, &unsummed(udp(b"tagged"), 17, 40, 14));
            summed.set_offload(Offload::UDP4.with_vlan(TCI));
            if !nic.offloads().contains(OffloadFlags::VLAN) {
                // Tags are as on the wire.
                assert_refused(nic, plain);
                wire.send(&tagged);
                let got = receive(nic, 1);
                assert_eq!((got[0].vlan(), contents(&got)), (None, vec![tagged]));
                return;
            }
            send_all(nic, vec![plain, summed]);
            assert_eq!(wire.recv_ours(), tagged);
            let got = wire.recv_ours();
            assert_eq!(got[12..16], [0x81, 0x00, 0x60, 0x64]);
            assert_eq!(
                [&got[..12], &got[16..]].concat()[..48],
                udp(b"tagged")[..48]
            );

            wire.send(&tagged);
            wire.send(&content);
            let got = receive(nic, 2);
            assert_eq!([got[0].vlan(), got[1].vlan()], [Some(TCI), None]);
            assert_eq!(contents(&got), [content.clone(), content]);
        },
    );
}

#[test]
fn the_payload_is_read_from_the_page_cache() {
    // Not on a fake card: that one is the CPU, which may not read the payload.
    on_cards(&config(), &|nic: &mut dyn Nic, wire: &dyn Wire| {
        let pool = Pool::new(nic.dma(), 4, 64).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        let mut content = bytes(9, 10_000);
        file.write_all(&content).unwrap();
        let mapped = DmaFile::map(nic.dma(), &file, 4).unwrap();
        mapped.deny_cpu().unwrap();
        let header = out(0, 42);
        for (offset, len) in [(0, 1), (0, 1400), (4095, 2), (8600, 1400)] {
            let mut whole = frame(&pool, &header);
            whole.append(mapped.slice(offset, len).unwrap());
            send_all(nic, vec![whole]);
            let got = wire.recv_ours();
            let payload = &content[offset as usize..][..len];
            assert_eq!(
                got[..42 + len],
                [&header, payload].concat(),
                "{len} at {offset}"
            );
        }
        // What is written to the file is in the next frame.
        std::os::unix::fs::FileExt::write_all_at(&file, b"changed", 100).unwrap();
        content[100..107].copy_from_slice(b"changed");
        let mut whole = frame(&pool, &header);
        whole.append(mapped.slice(90, 50).unwrap());
        send_all(nic, vec![whole]);
        assert_eq!(wire.recv_ours()[42..92], content[90..140]);
    });
}

#[test]
fn frames_of_every_length_come_in_as_they_are() {
    on_every_card(
        NicConfig {
            rx_ring: 8,
            ..config()
        },
        |nic, wire| {
            let mac = nic.mac().0;
            for (seed, len) in [60, 61, 128, 1513, 1514]
                .into_iter()
                .cycle()
                .take(40)
                .enumerate()
            {
                wire.send(&ethernet(mac, THEIR_MAC, seed, len));
                let got = receive(nic, 1);
                assert_eq!(
                    contents(&got),
                    [ethernet(mac, THEIR_MAC, seed, len)],
                    "{len} bytes"
                );
                assert_eq!(got[0].vlan(), None);
            }
        },
    );
}

#[test]
fn a_jumbo_frame_comes_in_over_several_descriptors() {
    on_every_card(
        NicConfig {
            max_frame: 9014,
            ..config()
        },
        |nic, wire| {
            let content = ethernet(nic.mac().0, THEIR_MAC, 1, 9014);
            wire.send(&content);
            let got = receive(nic, 1);
            assert_eq!(got[0].frame.segments().count(), 5);
            assert_eq!(contents(&got), [content]);
        },
    );
}

#[test]
fn the_filter_takes_what_it_should() {
    on_cards(&config(), &|nic, wire| {
        let mac = nic.mac().0;
        let group = Mac([0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb]);
        let other_group = Mac([0x01, 0x00, 0x5e, 0x7f, 0x12, 0x34]);
        let to = |to: [u8; 6], seed| ethernet(to, THEIR_MAC, seed, 60);
        nic.set_multicast(&[group]).unwrap();
        wire.send(&to([2, 9, 9, 9, 9, 9], 1));
        wire.send(&to(other_group.0, 2));
        wire.send(&to(group.0, 3));
        wire.send(&to([0xff; 6], 4));
        wire.send(&to(mac, 5));
        let expected = [to(group.0, 3), to([0xff; 6], 4), to(mac, 5)];
        assert_eq!(contents(&receive(nic, 3)), expected);

        nic.set_promiscuous(true).unwrap();
        wire.send(&to([2, 9, 9, 9, 9, 9], 6));
        wire.send(&to(other_group.0, 7));
        let expected = [to([2, 9, 9, 9, 9, 9], 6), to(other_group.0, 7)];
        assert_eq!(contents(&receive(nic, 2)), expected);
    });
}

#[test]
fn what_waits_for_a_card_meets_its_filter() {
    on_cards(&config(), &|nic, wire| {
        let mac = nic.mac().0;
        nic.stop().unwrap();
        for other in [[2, 9, 9, 9, 9, 9], [0x33, 0x33, 0, 0, 0, 2], [0xff; 6]] {
            wire.send(&ethernet(other, THEIR_MAC, 1, 60));
        }
        nic.restart().unwrap();
        let ours = ethernet(mac, THEIR_MAC, 2, 60);
        wire.send(&ours);
        // A card may have dropped what came while it was stopped.
        let came = contents(&receive(nic, 1)).remove(0);
        if came != ours {
            assert_eq!(came, ethernet([0xff; 6], THEIR_MAC, 1, 60));
            assert_eq!(contents(&receive(nic, 1)), [ours]);
        }
    });
}

#[test]
fn counters_and_link_say_what_happened() {
    on_cards(&config(), &|nic, wire| {
        let link = nic.link();
        assert!(link.up && link.full_duplex, "{link:?}");
        // A virtual card need not say how fast it is.
        let unknown = link.mbps == 0 && nic.model().starts_with("virtio");
        assert!(link.mbps == 1000 || unknown, "{link:?}");
        let pool = Pool::new(nic.dma(), 8, 2048).unwrap();
        send_all(nic, (0..8).map(|i| frame(&pool, &out(i, 100))).collect());
        for _ in 0..8 {
            wire.recv_ours();
        }
        for i in 0..4 {
            wire.send(&ethernet(nic.mac().0, THEIR_MAC, i, 200));
        }
        receive(nic, 4);
        let stats = nic.stats();
        let counter = match nic.model().starts_with("virtio") {
            true => Counter::Driver,
            false => Counter::Card,
        };
        assert_eq!(stats.counted_by, counter);
        assert_eq!(stats.by_card().is_some(), counter == Counter::Card);
        // QEMU's e1000e left the check sequence out of the bytes that it sent, and later does not.
        let sent = match (nic.model(), stats.tx_bytes) {
            ("Intel 82574L", 800) => 100,
            _ => 104,
        };
        assert_eq!((stats.tx_frames, stats.rx_frames), (8, 4), "{stats:?}");
        assert_eq!(
            (stats.tx_bytes, stats.rx_bytes),
            (8 * sent, 4 * 204),
            "{stats:?}"
        );
        let missed = (counter == Counter::Card).then_some(0);
        assert_eq!((stats.rx_errors, stats.rx_missed), (0, missed), "{stats:?}");

        send_all(nic, vec![frame(&pool, &out(9, 100))]);
        let again = nic.stats();
        assert_eq!((again.tx_frames, again.rx_frames), (9, 4), "once each");
        assert_eq!(again.tx_bytes, 9 * sent, "once each");
    });
}

#[test]
fn an_idle_wait_sleeps_and_a_frame_ends_it() {
    on_every_card(config(), |nic, wire| {
        let mac = nic.mac().0;
        wire.send(&ethernet(mac, THEIR_MAC, 0, 60));
        receive(nic, 1);
        // It may be told once more of what it has seen.
        let begin = Instant::now();
        while nic.wait(Duration::from_millis(100)).unwrap() {
            assert!(
                begin.elapsed() < Duration::from_secs(5),
                "it does not sleep"
            );
        }
        wire.send(&ethernet(mac, THEIR_MAC, 1, 60));
        let begin = Instant::now();
        assert!(nic.wait(Duration::from_secs(10)).unwrap());
        assert!(begin.elapsed() < Duration::from_secs(5));
        receive(nic, 1);
    });
}

/// It comes in before the driver looks, between its look and its sleep, and when it sleeps.
#[test]
fn no_frame_is_slept_on_whenever_it_comes() {
    const LOST: Duration = Duration::from_secs(10);
    for waiting in [Waiting::Interrupt, Waiting::Adaptive] {
        let config = NicConfig {
            waiting,
            ..config()
        };
        on_every_card(config, |nic, wire| {
            let (mac, mut got) = (nic.mac().0, Vec::new());
            for round in 0..300 {
                wire.send(&ethernet(mac, THEIR_MAC, round, 60));
                for _ in 0..10 * round {
                    std::hint::spin_loop();
                }
                let begin = Instant::now();
                while nic.recv(&mut got, 8).unwrap() == 0 {
                    nic.wait(LOST).unwrap();
                    assert!(begin.elapsed() < LOST, "round {round}");
                }
            }
        });
    }
}

#[test]
fn a_card_can_be_stopped_and_a_stopped_one_does_not_touch_memory() {
    on_every_card(config(), |nic, wire| {
        nic.stop().unwrap();
        let before = nic.rings().remove(1);
        let buffers = contents_of_buffers(&before);
        wire.send(&ethernet(nic.mac().0, THEIR_MAC, 1, 60));
        std::thread::sleep(Duration::from_millis(1500));
        let after = nic.rings().remove(1);
        assert_eq!(before.marks, after.marks);
        for (before, after) in before.slots.iter().zip(&after.slots) {
            assert_eq!(before.words, after.words);
        }
        assert!(contents_of_buffers(&after) == buffers);
    });
}

/// What lies in the buffers that were lent to a device, which is stopped.
fn contents_of_buffers(ring: &RingView) -> Vec<u8> {
    let buffers = ring.slots.iter().filter_map(|slot| slot.buffer);
    buffers
        .flat_map(|(_, address, len)| {
            // SAFETY: the card has a buffer of that length there, and lends it to nobody.
            unsafe { std::slice::from_raw_parts(address as *const u8, len) }
        })
        .copied()
        .collect()
}

#[test]
fn received_buffers_can_be_sent_again() {
    on_every_card(config(), |nic, wire| {
        for seed in 0..20 {
            wire.send(&ethernet(nic.mac().0, THEIR_MAC, seed, 100));
            let received = receive(nic, 1).pop().unwrap();
            let mut buf = received.frame.into_buf().unwrap();
            buf.put(0, &THEIR_MAC);
            buf.put(6, &OUR_MAC);
            send_all(nic, vec![buf.into()]);
            assert_eq!(wire.recv_ours(), ethernet(THEIR_MAC, OUR_MAC, seed, 100));
        }
    });
}

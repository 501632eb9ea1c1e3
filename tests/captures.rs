//! Captures that other people's tools write: what `tcpdump -r` reads as Ethernet is read here, too.
#![cfg(feature = "net")]

mod captures {
    pub mod build;
    pub mod tcpdump;
}
mod common;

use std::io::{Cursor, Write};
use std::task::Poll;

use captures::build::{EPB, IDB, Ng, PB, SPB, frame, pcap, pcap_in};
use captures::tcpdump;
use pinwire::Error;
use pinwire::net::CaptureReader;
use proptest::prelude::*;

/// A packet: its time in nanoseconds, its bytes.
type Packet = (Option<i128>, Vec<u8>);

/// What our reader gives, and what ended it.
fn ours(bytes: &[u8]) -> (Vec<Packet>, Option<Error>) {
    let mut reader = CaptureReader::from_reader(Cursor::new(bytes.to_vec()), "capture");
    let mut packets = Vec::new();
    loop {
        match reader.poll_next() {
            Ok(Poll::Ready(Some(packet))) => packets.push((packet.time, packet.data.to_vec())),
            Ok(Poll::Ready(None)) => return (packets, None),
            Ok(Poll::Pending) => panic!("nothing waits here"),
            Err(error) => return (packets, Some(error)),
        }
    }
}

/// The frames of a capture that is read to its end.
#[track_caller]
fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (packets, error) = ours(bytes);
    if let Some(error) = error {
        panic!("{error}");
    }
    packets.into_iter().map(|(_, data)| data).collect()
}

/// Microseconds, as far as a file of 32 bits of seconds can tell.
fn micros(nanos: i128) -> i128 {
    nanos.div_euclid(1000).rem_euclid(1_000_000 << 32)
}

/// Returns whether libpcap's times may be wrong: it multiplies the fraction of a second by a million in 64 bits, which
/// is too much for units below 2^-44 s (if_tsresol above 0xac).
fn overflows_libpcap(bytes: &[u8]) -> bool {
    let is_option =
        |word: &[u8]| matches!(word, [9, 0, 1, 0, 0xad..=0xff] | [0, 9, 0, 1, 0xad..=0xff]);
    bytes.windows(5).any(is_option)
}

/// Everything that `tcpdump` reads is read here with the same times and bytes, but for check sequences,
/// and for what libpcap cuts off behind the length that the file's header names.
#[track_caller]
fn as_tcpdump(name: &str, bytes: &[u8]) {
    let has_times = !overflows_libpcap(bytes);
    let theirs = tcpdump::read(bytes);
    if !theirs.ethernet {
        return;
    }
    let (packets, error) = ours(bytes);
    let (count, most) = (packets.len(), theirs.packets.len());
    assert!(
        count >= most,
        "{name}: {count} of {most} packets: {error:?}"
    );
    if theirs.whole {
        assert!(
            count == most && error.is_none(),
            "{name}: {count}, {most}: {error:?}"
        );
    }
    for (number, (ours, theirs)) in packets.iter().zip(&theirs.packets).enumerate() {
        let (time, data) = ours;
        assert!(
            data.starts_with(&theirs.1) || theirs.1.starts_with(data),
            "{name}: packet {number}"
        );
        assert!(theirs.1.len() <= data.len() + 30, "{name}: packet {number}");
        if let (Some(time), Some(theirs), true) = (time, theirs.0, has_times) {
            assert_eq!(
                micros(*time),
                micros(theirs * 1000),
                "{name}: packet {number}"
            );
        }
    }
}

#[test]
fn times_in_the_smallest_units_are_exact() {
    for (big, ticks, micros) in [
        (false, 0x1100_0000_0000, 2),
        (true, 1 << 62, 500_000),
        (false, 3 << 62, 1_500_000),
    ] {
        let mut ng = Ng::new(big, 0, u64::MAX);
        ng.interface(1, 0, &[(9, &[0xbf])]);
        ng.packet(EPB, 0, ticks, &frame(60), 60, &[]);
        let time = ours(&ng.bytes).0[0].0.unwrap();
        assert_eq!(self::micros(time), micros, "{ticks:#x}");
    }
}

/// Captures of every kind that is read.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for big in [false, true] {
        for (magic, header) in [(0xa1b2_c3d4, 16), (0xa1b2_3c4d, 16), (0xa1b2_cd34, 24)] {
            for version in [(2, 4), (2, 3), (2, 2), (543, 0)] {
                let bytes = pcap_in(big, magic, header, version, 262_144, 1);
                all.push((format!("pcap {big} {magic:x} {version:?}"), bytes));
            }
        }
        for (snaplen, link) in [(0, 1), (u32::MAX, 1), (40, 1), (65_535, 0x2400_0001)] {
            let bytes = pcap_in(big, 0xa1b2_c3d4, 16, (2, 4), snaplen, link);
            all.push((format!("pcap {big} {snaplen} {link:x}"), bytes));
        }
        for minor in [0, 2] {
            all.push((
                format!("ng {big} 1.{minor}"),
                Ng::new(big, minor, u64::MAX).all_packets(),
            ));
        }
        all.push((
            format!("ng {big} length"),
            Ng::new(big, 0, 12).all_packets(),
        ));
        for resolution in [0, 3, 6, 9, 19, 0x80, 0x81, 0xa0, 0xac, 0xbf] {
            let mut ng = Ng::new(big, 0, u64::MAX);
            ng.interface(1, 0, &[(9, &[resolution])]);
            for ticks in [0, 1, 999_999_999, 1 << 40] {
                ng.packet(EPB, 0, ticks, &frame(60), 60, &[]);
            }
            all.push((format!("ng {big} resolution {resolution}"), ng.bytes));
        }
        for offset in [0i64, 1000, -1000, i64::MAX, i64::MIN] {
            let mut ng = Ng::new(big, 0, u64::MAX);
            let value = ng.i64(offset);
            ng.interface(1, 0, &[(14, &value)]);
            ng.packet(EPB, 0, 5_000_000_000, &frame(60), 60, &[]);
            all.push((format!("ng {big} offset {offset}"), ng.bytes));
        }
    }
    all
}

#[test]
fn what_tcpdump_reads_is_read() {
    if !tcpdump::require() {
        return;
    }
    for (name, bytes) in corpus() {
        as_tcpdump(&name, &bytes);
        assert!(!ours(&bytes).0.is_empty(), "{name}");
        for cut in [bytes.len() - 1, bytes.len() / 2, 30] {
            as_tcpdump(&format!("{name}, {cut} bytes"), &bytes[..cut]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn what_tcpdump_reads_of_a_damaged_capture_is_read(
        which: prop::sample::Index,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        if !tcpdump::require() {
            return Ok(());
        }
        let mut corpus = corpus();
        let (name, mut bytes) = corpus.swap_remove(which.index(corpus.len()));
        for (at, value) in damage {
            *at.get_mut(&mut bytes) = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        as_tcpdump(&name, &bytes);
    }
}

#[test]
fn options_that_are_wrong_cost_no_packet() {
    for big in [false, true] {
        let short = [0u8, 1];
        let long = [0u8; 9];
        let wrong: [&[(u16, &[u8])]; 9] = [
            &[(1, b"Connexion au r\xe9seau local")],
            &[(2, b"eth0x"), (3, b"\xff\xfe\xfd")],
            &[(8, &short)],
            &[(8, &[0; 4])],
            &[(9, b"")],
            &[(9, &[0x7f])],
            &[(9, &[0xff])],
            &[(13, b"")],
            &[(14, &long), (14, &short)],
        ];
        for options in wrong {
            for ended in [true, false] {
                let mut ng = Ng::new(big, 0, u64::MAX);
                ng.ended = ended;
                ng.interface(1, 0, options);
                ng.packet(
                    EPB,
                    0,
                    1,
                    &frame(61),
                    61,
                    &[(1, b"caf\xe9"), (2, b"x"), (4, b"y")],
                );
                ng.packet(PB, 0, 1, &frame(62), 62, &[]);
                assert_eq!(frames(&ng.bytes), [frame(61), frame(62)], "{options:?}");
            }
        }
        // An option that runs past the end of its block.
        let mut ng = Ng::new(big, 0, u64::MAX);
        let mut body = ng.u16(1).to_vec();
        body.extend([0; 6]);
        body.extend(ng.u16(2));
        body.extend(ng.u16(60_000));
        ng.block(IDB, &body);
        ng.packet(EPB, 0, 1, &frame(60), 60, &[]);
        assert_eq!(frames(&ng.bytes), [frame(60)]);
    }
}

#[test]
fn lengths_that_contradict_each_other_cost_no_packet() {
    let lens = [(60, 60), (80, 64), (60, 0), (40, 1500)];
    let records: Vec<_> = lens
        .iter()
        .map(|(kept, wire)| (0, frame(*kept), *wire))
        .collect();
    let expected = [60, 80, 60, 40].map(frame);
    assert_eq!(frames(&pcap(&records, 1)), expected);
    let mut ng = Ng::new(false, 0, u64::MAX);
    ng.interface(1, 0, &[]);
    for (kept, wire) in lens {
        ng.packet(EPB, 0, 1, &frame(kept), wire as u32, &[]);
    }
    // Its length once more at its end is another one.
    let end = ng.bytes.len() - 4;
    ng.bytes[end] ^= 0x55;
    assert_eq!(frames(&ng.bytes), expected);
}

#[test]
fn what_nobody_knows_is_skipped_however_long_it_is() {
    for len in [0, 1, 9 << 20, 40 << 20] {
        let mut ng = Ng::new(true, 0, u64::MAX);
        ng.interface(1, 0, &[]);
        for kind in [4, 5, 9, 10, 0xbad, 0x4000_0bad, 0x8000_0001] {
            ng.block(kind, &vec![0xa5; if kind == 10 { len } else { 20 }]);
            ng.packet(EPB, 0, 1, &frame(60), 60, &[]);
        }
        assert_eq!(frames(&ng.bytes).len(), 7, "{len} bytes");
        let cut = ng.bytes.len() - 96 - 20;
        let (packets, error) = ours(&ng.bytes[..cut]);
        assert_eq!(packets.len(), 6);
        assert!(error.unwrap().to_string().contains("truncated"));
    }
    // Comments of a packet that together are longer than anything that is kept.
    let comment = vec![b'x'; 65_000];
    let comments: Vec<(u16, &[u8])> = (0..300).map(|_| (1, &*comment)).collect();
    let mut ng = Ng::new(false, 0, u64::MAX);
    ng.interface(1, 0, &[]);
    ng.packet(EPB, 0, 1, &frame(60), 60, &comments);
    ng.packet(EPB, 0, 1, &frame(61), 61, &comments[..140]);
    assert_eq!(frames(&ng.bytes), [frame(60), frame(61)]);
}

#[test]
fn sections_have_their_own_byte_order_and_interfaces() {
    let mut ng = Ng::new(false, 0, u64::MAX);
    ng.interface(1, 0, &[(9, &[9])]);
    ng.packet(EPB, 0, 1, &frame(60), 60, &[]);
    let mut other = Ng::new(true, 0, 40);
    other.interface(113, 0, &[]);
    other.interface(1, 50, &[(9, &[6])]);
    other.packet(EPB, 1, 1, &frame(61), 61, &[]);
    ng.bytes.extend(other.bytes);
    let (packets, error) = ours(&ng.bytes);
    assert!(error.is_none());
    assert_eq!(packets, [(Some(1), frame(60)), (Some(1000), frame(61))]);
}

#[test]
fn packets_of_other_links_are_left_out_and_said() {
    let mut ng = Ng::new(false, 0, u64::MAX);
    ng.interface(113, 0, &[]);
    ng.interface(1, 0, &[]);
    for id in [0, 1, 7, 1] {
        ng.packet(EPB, id, 1, &frame(60 + id as usize), 60, &[]);
    }
    let mut reader = CaptureReader::from_reader(Cursor::new(ng.bytes), "capture");
    let mut lens = Vec::new();
    while let Ok(Poll::Ready(Some(packet))) = reader.poll_next() {
        lens.push((packet.number, packet.data.len()));
    }
    assert_eq!(lens, [(2, 61), (4, 61)]);
    let left_out = reader.left_out().unwrap();
    assert_eq!((left_out.packets, left_out.first.0), (2, 1));
    assert!(left_out.first.1.contains("LINUX_SLL"), "{left_out:?}");

    let mut none = Ng::new(false, 0, u64::MAX);
    none.packet(EPB, 0, 1, &frame(60), 60, &[]);
    let error = ours(&none.bytes).1.unwrap().to_string();
    assert!(
        error.contains("packet 1") && error.contains("interface 0"),
        "{error}"
    );
}

#[test]
fn check_sequences_are_taken_off() {
    let with = |len: usize, fcs: usize| [frame(len), vec![0xfc; fcs]].concat();
    // By the file's link type, in words of 16 bits.
    let record = |data: Vec<u8>, wire| (0, data, wire);
    let records = [
        record(with(60, 4), 64),
        record(frame(50), 64),   // cut short before it
        record(with(60, 2), 64), // and within
        record(vec![1; 3], 3),
    ];
    let expected = [frame(60), frame(50), frame(60), vec![]];
    assert_eq!(frames(&pcap(&records, 0x2400_0001)), expected);
    // Without the bit that says so, the upper bits say nothing.
    assert_eq!(frames(&pcap(&records[..1], 0x2000_0001)), [with(60, 4)]);
    // By an interface's, in bits or bytes, and by the packet's own, which goes before.
    for (interface, flags, fcs) in [
        (Some(32), None, 4),
        (Some(4), None, 4),
        (Some(0), None, 0),
        (Some(16), Some(4), 4),
        (Some(32), Some(0), 4),
        (None, Some(4), 4),
        (None, None, 0),
    ] {
        for kind in [EPB, PB] {
            let mut ng = Ng::new(true, 0, u64::MAX);
            let bits = interface.map(|bits| [bits]);
            let option = bits.as_ref().map(|bits| (13, &bits[..]));
            ng.interface(1, 0, option.as_slice());
            let word = flags.map(|bytes: u32| ng.u32(bytes << 5));
            let option = word.as_ref().map(|word| (2, &word[..]));
            let data = with(60, 4);
            ng.packet(kind, 0, 1, &data, 64, option.as_slice());
            assert_eq!(
                frames(&ng.bytes),
                [&data[..64 - fcs]],
                "{interface:?} {flags:?}"
            );
        }
    }
}

#[test]
fn simple_packets_are_as_long_as_their_interface_keeps_them() {
    for (snaplen, wire, kept) in [(0, 61, 61), (40, 61, 40), (100, 61, 61)] {
        let mut ng = Ng::new(false, 0, u64::MAX);
        ng.interface(1, snaplen, &[]);
        ng.packet(SPB, 0, 0, &frame(kept), wire, &[]);
        assert_eq!(frames(&ng.bytes), [frame(kept)]);
    }
}

#[test]
fn gzip_is_read_and_other_compression_is_named_with_what_to_type() {
    let records = [(0, frame(60), 60), (1, frame(61), 61)];
    let plain = pcap(&records, 1);
    let zip = |bytes: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    };
    let (begin, end) = plain.split_at(50);
    for bytes in [zip(&plain), [zip(begin), zip(end)].concat()] {
        assert_eq!(frames(&bytes), [frame(60), frame(61)]);
    }
    let whole = zip(&plain);
    let (_, error) = ours(&whole[..whole.len() - 12]);
    assert!(error.unwrap().to_string().contains("truncated"));
    for (magic, says) in [
        (&b"\x28\xb5\x2f\xfd...................."[..], "zstdcat"),
        (b"\xfd7zXZ\0.......................", "xzcat"),
        (b"\x04\x22\x4d\x18.......................", "lz4 -dc"),
        (b"BZh91AY&SY.......................", "bzcat"),
        (b"PK\x03\x04.......................", "unzip -p"),
    ] {
        let error = ours(magic).1.unwrap().to_string();
        assert!(
            error.contains("compressed") && error.contains(says),
            "{error}"
        );
    }
}

//! The reader by itself: what is written is read back, damage ends in packets or an error.

use std::io::Write;

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::simple_packet::SimplePacketBlock;
use proptest::prelude::*;

use super::*;

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Time, bytes, length on the wire.
type Packet = (Option<i128>, Vec<u8>, usize);

/// All packets, then the error that ended it.
fn read(bytes: &[u8]) -> (Vec<Packet>, Option<Error>) {
    let file = file(bytes);
    let mut packets = Vec::new();
    let mut reader = match CaptureReader::open(file.path()) {
        Ok(reader) => reader,
        Err(error) => return (packets, Some(error)),
    };
    loop {
        match reader.poll_next() {
            Ok(Poll::Ready(Some(packet))) => {
                packets.push((packet.time, packet.data.to_vec(), packet.wire_len));
                // Those that are left out count, so that Wireshark shows the same number.
                let number = packet.number;
                let left_out = reader.left_out().map_or(0, |left_out| left_out.packets);
                assert_eq!(number, packets.len() as u64 + left_out);
            }
            Ok(Poll::Ready(None)) => return (packets, None),
            Ok(Poll::Pending) => panic!("a file that waits"),
            Err(error) => return (packets, Some(error)),
        }
    }
}

fn pcap() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = CaptureWriter::new(&mut bytes).unwrap();
    writer.write(Duration::from_millis(1500), &[1; 60]).unwrap();
    writer.write(Duration::from_millis(1750), &[2; 61]).unwrap();
    bytes
}

fn pcapng(resolution: Option<u8>, link: DataLink) -> Vec<u8> {
    let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
    let mut interface = InterfaceDescriptionBlock::new(link, 0);
    let resolution = resolution.map(InterfaceDescriptionOption::IfTsResol);
    interface.options.extend(resolution);
    writer.write_pcapng_block(interface).unwrap();
    let packet = EnhancedPacketBlock {
        interface_id: 0,
        timestamp: Duration::from_nanos(2500), // ticks
        original_len: 70,
        data: vec![3; 63].into(),
        options: Vec::new(),
    };
    writer.write_pcapng_block(packet).unwrap();
    let packet = SimplePacketBlock {
        original_len: 61,
        data: vec![4; 61].into(),
    };
    writer.write_pcapng_block(packet).unwrap();
    writer.into_inner()
}

#[test]
fn what_is_written_is_read_back() {
    let (packets, error) = read(&pcap());
    assert!(error.is_none());
    let millis = |millis: i128| Some(millis * 1_000_000);
    let expected = [
        (millis(1500), vec![1; 60], 60),
        (millis(1750), vec![2; 61], 61),
    ];
    assert_eq!(packets, expected);
}

#[test]
fn pcapng_times_are_in_the_interface_s_unit() {
    let of = |resolution| {
        read(&pcapng(resolution, DataLink::ETHERNET)).0[0]
            .0
            .unwrap()
    };
    assert_eq!(of(None), 2_500_000);
    assert_eq!(of(Some(9)), 2500);
    assert_eq!(of(Some(3)), 2_500_000_000);
    assert_eq!(of(Some(0x80 | 1)), 1_250_000_000_000);
}

#[test]
fn pcapng_packets_lose_their_padding_and_keep_their_length_on_the_wire() {
    let (packets, error) = read(&pcapng(None, DataLink::ETHERNET));
    assert!(error.is_none());
    assert_eq!((&*packets[0].1, packets[0].2), (&[3; 63][..], 70));
    assert_eq!(packets[1], (None, vec![4; 61], 61));
}

#[test]
fn a_bad_capture_names_the_packet() {
    let whole = pcap();
    for cut in [whole.len() - 1, whole.len() - 60, whole.len() - 76] {
        let (packets, error) = read(&whole[..cut]);
        let error = error.unwrap().to_string();
        assert_eq!(packets.len(), 1);
        assert!(
            error.contains("packet 2") && error.contains("truncated"),
            "{error}"
        );
    }
    let (_, error) = read(&whole[..20]);
    assert!(error.unwrap().to_string().contains("truncated"));

    let mut liar = whole.clone();
    liar[24 + 8..24 + 12].copy_from_slice(&0x1000_0000u32.to_le_bytes());
    let (_, error) = read(&liar);
    assert!(error.unwrap().to_string().contains("packet 1"));
    assert!(read(&liar).0.is_empty());
}

#[test]
fn what_is_no_ethernet_capture_is_refused() {
    for nothing in [&b""[..], b"abc", b"GET / HTTP/1.1\r\n\r\n"] {
        let (_, error) = read(nothing);
        assert!(matches!(error, Some(Error::BadCapture { .. })));
    }
    let mut raw_ip = pcap();
    raw_ip[20] = 101;
    for bytes in [raw_ip, pcapng(None, DataLink::RAW)] {
        let error = read(&bytes).1.unwrap().to_string();
        assert!(error.contains("RAW, not ETHERNET"), "{error}");
    }
}

proptest! {
    #[test]
    fn any_damage_ends_in_packets_or_an_error(
        ng: bool,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut: prop::sample::Index,
    ) {
        let mut bytes = if ng { pcapng(Some(9), DataLink::ETHERNET) } else { pcap() };
        for (at, value) in damage {
            *at.get_mut(&mut bytes) = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        read(&bytes);
    }
}

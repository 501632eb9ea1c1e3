//! What `pinwire recv` shows and writes is what came in.

use std::io::Read;
use std::thread;
use std::time::Duration;

use etherparse::PacketBuilder;
use smoltcp::wire;

use crate::{Wire, frame, json, on_every_card, pinwire, read_pcap, spawn};

/// The address that QEMU gives its first card.
const CARD: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// A UDP datagram to the card.
fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(THEIRS, CARD)
        .ipv4([10, 1, 2, 4], [10, 1, 2, 5], 64)
        .udp(port, port);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// Frame `number` to the card.
fn to_card(number: u32, len: usize) -> Vec<u8> {
    let mut frame = frame(number, len);
    frame[..6].copy_from_slice(&CARD);
    frame
}

/// What the card says of a right checksum. QEMU's e1000 looks at none (IXSM), virtio at none that comes from a
/// socket; and that must show.
fn verdict(card: &str) -> &'static str {
    match card {
        "e1000e" => "good",
        _ => "unchecked",
    }
}

/// Runs `pinwire recv` on a card that `frames` come in to, again and again until it has enough: its
/// output.
fn receive(card: &str, frames: &[Vec<u8>], args: &[&str]) -> std::process::Output {
    let wire = Wire::new();
    let device = wire.device(card);
    let mut command = pinwire(["recv", &device]);
    command.args(args);
    let receiver = thread::spawn(move || command.assert().success().get_output().clone());
    while !receiver.is_finished() {
        for frame in frames {
            wire.send(frame);
        }
        thread::sleep(Duration::from_millis(20));
    }
    receiver.join().unwrap()
}

#[test]
fn a_line_a_frame_for_people() {
    on_every_card(|card| {
        let output = receive(card, &[udp(7000, b"hello there, card")], &["--count", "2"]);
        let lines = String::from_utf8(output.stdout).unwrap();
        assert_eq!(lines.lines().count(), 2, "{lines}");
        for words in [
            "02:00:00:00:00:09 > 52:54:00:12:34:56",
            "10.1.2.4:7000 > 10.1.2.5:7000 UDP 17 bytes",
        ] {
            assert!(lines.contains(words), "{words:?} is not in: {lines}");
        }
        let summary = String::from_utf8(output.stderr).unwrap();
        assert!(summary.contains("frames received  2\n"), "{summary}");
        let verdicts = match verdict(card) {
            "good" => "IP header checksums  2 good, 0 bad, 0 not looked at",
            _ => "IP header checksums  0 good, 0 bad, 2 not looked at",
        };
        assert!(summary.contains(verdicts), "{summary}");
        let no_counters = "the device counted  nothing: it has no counters";
        let claims_nothing = summary.contains(no_counters);
        assert_eq!(claims_nothing, card.starts_with("virtio"), "{summary}");
    });
}

#[test]
fn frames_are_written_as_they_came() {
    on_every_card(|card| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.pcap");
        let frames = [60, 61, 777, 1514].map(|len| to_card(len as u32, len));
        let args = ["--count", "40", "--write", path.to_str().unwrap()];
        receive(card, &frames, &args);
        let written = read_pcap(&std::fs::read(path).unwrap());
        assert_eq!(written.len(), 40);
        assert!(written.iter().all(|one| frames.contains(one)));
        assert!(frames.iter().all(|one| written.contains(one)));
    });
}

#[test]
fn a_capture_on_standard_output_comes_as_the_frames_do() {
    on_every_card(|card| {
        let wire = Wire::new();
        let device = wire.device(card);
        let mut receiver = spawn(["recv", &device, "-w", "-", "--count", "3"]);
        let mut stdout = receiver.stdout.take().unwrap();
        let mut bytes = vec![0; 24];
        // Its header comes before any frame does.
        stdout.read_exact(&mut bytes).unwrap();
        let frame = to_card(1, 80);
        let (sent, stop) = std::sync::mpsc::channel::<()>();
        let sender = {
            let frame = frame.clone();
            thread::spawn(move || {
                while stop.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    wire.send(&frame);
                    thread::sleep(Duration::from_millis(200));
                }
            })
        };
        for _ in 0..3 {
            let mut record = vec![0; 16 + frame.len()];
            stdout.read_exact(&mut record).unwrap();
            bytes.extend(record);
        }
        drop(sent);
        sender.join().unwrap();
        assert!(receiver.wait().unwrap().success());
        assert_eq!(stdout.read(&mut [0]).unwrap(), 0);
        assert_eq!(read_pcap(&bytes), [&frame[..], &frame, &frame]);
    });
}

#[test]
fn filters_keep_the_rest_away() {
    on_every_card(|card| {
        let mixed = [udp(53, b"a question"), udp(7000, b"x"), to_card(1, 60)];
        let output = receive(
            card,
            &mixed,
            &["--udp-port", "53", "--count", "3", "--json"],
        );
        let lines = String::from_utf8(output.stdout.clone()).unwrap();
        let (frames, summary) = lines.trim_end().rsplit_once('\n').unwrap();
        for line in frames.lines() {
            let frame: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(frame["packet"], "10.1.2.4:53 > 10.1.2.5:53 UDP 10 bytes");
            assert_eq!(frame["source"], "02:00:00:00:00:09");
            assert_eq!(frame["l4_checksum"], verdict(card));
        }
        let summary = &json(summary.as_bytes())["summary"];
        assert_eq!(summary["frames"], 3);
        assert!(summary["filtered_out"].as_u64().unwrap() >= 2);
        let counted = [
            "frames_counted_by_device",
            "missed_by_device",
            "errors_counted_by_device",
        ]
        .map(|figure| summary[figure].is_u64());
        match card.starts_with("virtio") {
            true => assert_eq!(
                (&summary["counted_by"], counted),
                (&"driver".into(), [false; 3])
            ),
            false => assert_eq!(
                (&summary["counted_by"], counted),
                (&"card".into(), [true; 3])
            ),
        }

        let output = receive(card, &mixed, &["--ethertype", "0x88b5", "--count", "2"]);
        let lines = String::from_utf8(output.stdout).unwrap();
        assert!(
            lines.lines().all(|line| line.contains("EtherType 0x88b5")),
            "{lines}"
        );
    });
}

#[test]
fn others_frames_are_seen_by_the_promiscuous_only() {
    on_every_card(|card| {
        let theirs = frame(1, 60);
        let output = receive(card, &[theirs.clone(), to_card(2, 60)], &["--count", "5"]);
        let lines = String::from_utf8(output.stdout).unwrap();
        assert!(!lines.contains("> 02:00:00:00:00:02"), "{lines}");
        let output = receive(card, &[theirs], &["--count", "1", "--promiscuous"]);
        let lines = String::from_utf8(output.stdout).unwrap();
        assert!(lines.contains("> 02:00:00:00:00:02"), "{lines}");
    });
}

#[test]
fn no_card_takes_frames_longer_than_the_limit() {
    on_every_card(|card| {
        for limit in [1000, 1518, 1522, 9000] {
            let lens = [60, limit - 1, limit, limit + 1, limit + 4, 16_000];
            let frames: Vec<_> = (0..).zip(lens).map(|(n, len)| to_card(n, len)).collect();
            let most = limit.to_string();
            let output = receive(
                card,
                &frames,
                &["--max-frame", &most, "--count", "12", "--json"],
            );
            let text = String::from_utf8(output.stdout).unwrap();
            let each = text.lines().map(|line| json(line.as_bytes()));
            let taken: Vec<_> = each.filter_map(|line| line["bytes"].as_u64()).collect();
            assert_eq!(taken.len(), 12);
            assert!(
                taken.iter().all(|len| *len <= limit as u64),
                "{limit}: {taken:?}"
            );
            assert!(taken.contains(&(limit as u64)), "{limit}: {taken:?}");
            let summary = &json(text.as_bytes())["summary"];
            // Those that the card itself keeps away it does not hand over to be counted.
            if limit == 1522 || limit == 9000 {
                assert!(summary["longer"].as_u64().unwrap() > 0, "{summary}");
            }
        }
    });
}

#[test]
fn it_ends_when_its_time_is_up() {
    on_every_card(|card| {
        let output = pinwire([
            "recv",
            &format!("qtest:{card}"),
            "--seconds",
            "0.3",
            "--json",
        ])
        .assert();
        let summary = &json(&output.success().get_output().stdout)["summary"];
        assert_eq!(summary["frames"], 0);
        assert!((0.3..5.0).contains(&summary["seconds"].as_f64().unwrap()));
    });
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    on_every_card(|card| {
        let wire = Wire::new();
        let device = wire.device(card);
        let mut receiver = spawn(["recv", &device]);
        drop(receiver.stdout.take());
        let status = loop {
            wire.send(&to_card(1, 60));
            thread::sleep(Duration::from_millis(20));
            if let Some(status) = receiver.try_wait().unwrap() {
                break status;
            }
        };
        let mut stderr = String::new();
        receiver
            .stderr
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        assert!(status.success(), "{stderr}");
        assert_eq!(stderr, "");
    });
}

#[test]
fn arp_for_its_address_is_answered() {
    on_every_card(|card| {
        let wire = Wire::new();
        let device = wire.device(card);
        let mut command = pinwire(["recv", &device, "--address", "10.1.2.5", "--seconds", "4"]);
        let receiver = thread::spawn(move || command.assert().success());
        let question = wire::ArpRepr::EthernetIpv4 {
            operation: wire::ArpOperation::Request,
            source_hardware_addr: wire::EthernetAddress(THEIRS),
            source_protocol_addr: "10.1.2.4".parse().unwrap(),
            target_hardware_addr: wire::EthernetAddress([0; 6]),
            target_protocol_addr: "10.1.2.5".parse().unwrap(),
        };
        let mut ask = vec![0; 60];
        let mut ethernet = wire::EthernetFrame::new_unchecked(&mut ask);
        ethernet.set_src_addr(wire::EthernetAddress(THEIRS));
        ethernet.set_dst_addr(wire::EthernetAddress::BROADCAST);
        ethernet.set_ethertype(wire::EthernetProtocol::Arp);
        question.emit(&mut wire::ArpPacket::new_unchecked(ethernet.payload_mut()));
        let answer = loop {
            wire.send(&ask);
            if let Some(answer) = wire.try_recv() {
                break answer;
            }
            assert!(!receiver.is_finished(), "no answer came");
        };
        let ethernet = wire::EthernetFrame::new_checked(&answer).unwrap();
        assert_eq!(ethernet.dst_addr().0, THEIRS);
        let packet = wire::ArpPacket::new_checked(ethernet.payload()).unwrap();
        assert_eq!(packet.operation(), wire::ArpOperation::Reply);
        assert_eq!(packet.source_hardware_addr(), CARD);
        assert_eq!(packet.source_protocol_addr(), [10, 1, 2, 5]);
        receiver.join().unwrap();
    });
}

//! What `pinwire send` sends is what was asked for, byte for byte.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire;

use crate::common::require_qemu;
use crate::{BOUND, Wire, frame, json, on_every_card, pinwire, read_pcap, spawn, write_pcap};

/// The receiver of what is sent.
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 9];
const VIA: &str = "02:00:00:00:00:09";
const TO: &str = "10.1.2.4:7000";

/// Bytes of a file whose datagrams all fit into a socket's buffer, however late they are taken out.
const FITS: usize = 80_000;

/// A device that QEMU captures, and where.
fn captured(card: &str, dir: &Path) -> (String, PathBuf) {
    let path = dir.join("out.pcap");
    (format!("qtest:{card},pcap={}", path.display()), path)
}

/// virtio's checksums are made at the cable's other end, and a socket makes none.
fn sums(card: &str) -> bool {
    !card.starts_with("virtio")
}

/// A datagram's payload, where another stack finds headers and checksums right.
fn payload(card: &str, frame: &[u8]) -> Vec<u8> {
    let all = ChecksumCapabilities::default();
    let ethernet = wire::EthernetFrame::new_checked(frame).unwrap();
    assert_eq!(ethernet.dst_addr().0, THEIRS);
    let ip = wire::Ipv4Packet::new_checked(ethernet.payload()).unwrap();
    let addresses = wire::Ipv4Repr::parse(&ip, &all).expect("a right IPv4 header checksum");
    assert_eq!(addresses.dst_addr.to_string(), "10.1.2.4");
    assert_eq!(addresses.src_addr.to_string(), "10.1.2.5");
    let udp = wire::UdpPacket::new_checked(ip.payload()).unwrap();
    // Zero is none (RFC 768).
    assert_eq!(udp.checksum() != 0, sums(card));
    let (from, to) = (addresses.src_addr.into(), addresses.dst_addr.into());
    let ports = wire::UdpRepr::parse(&udp, &from, &to, &all).expect("a right UDP checksum");
    assert_eq!((ports.src_port, ports.dst_port), (7000, 7000));
    udp.payload().to_vec()
}

/// Bytes that do not repeat soon.
fn content(len: usize) -> Vec<u8> {
    let step = |state: &mut u64| {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        Some((*state >> 33) as u8)
    };
    (0..len).scan(7, |state, _| step(state)).collect()
}

#[test]
fn a_capture_leaves_byte_for_byte() {
    on_every_card(|card| {
        let dir = tempfile::tempdir().unwrap();
        let (device, out) = captured(card, dir.path());
        let capture = dir.path().join("in.pcap");
        let packets: Vec<_> = (0..300)
            .map(|number| (number, frame(number, 60 + 37 * number as usize % 1455)))
            .collect();
        write_pcap(&capture, &packets);
        let args = [
            "send",
            &device,
            "--pcap",
            capture.to_str().unwrap(),
            "--json",
        ];
        let output = pinwire(args)
            .args(["--loop", "3", "--rate", "20000"])
            .assert()
            .success();
        let summary = json(&output.get_output().stdout);
        let expected: Vec<_> = packets.into_iter().map(|(_, packet)| packet).collect();
        let sent = read_pcap(&std::fs::read(out).unwrap());
        assert!(sent == [&*expected, &expected, &expected].concat());

        let bytes: usize = sent.iter().map(Vec::len).sum();
        assert_eq!(summary["frames"], 900);
        assert_eq!(summary["bytes"], bytes);
        assert_eq!(summary["payload_bytes_copied_by_cpu"], bytes);
        check_counter(card, &summary);
        assert_eq!(summary["error"], serde_json::Value::Null);
    });
}

/// A second count of the frames is there where the card has one, and nowhere else.
fn check_counter(card: &str, summary: &serde_json::Value) {
    let (frames, bytes) = (
        &summary["frames_counted_by_device"],
        &summary["bytes_counted_by_device"],
    );
    if card.starts_with("virtio") {
        assert_eq!(summary["counted_by"], "driver", "{summary}");
        assert!(frames.is_null() && bytes.is_null(), "{summary}");
    } else {
        assert_eq!(summary["counted_by"], "card", "{summary}");
        assert_eq!(frames, &summary["frames"], "{summary}");
        assert!(bytes.as_u64() >= summary["bytes"].as_u64(), "{summary}");
    }
}

#[test]
fn a_capture_keeps_its_gaps() {
    if !require_qemu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let capture = dir.path().join("in.pcap");
    // 5 packets, 50 ms apart; the clock steps back once, as between two interfaces.
    let at = [0, 50_000, 100_000, 90_000, 200_000].map(|micros| (micros, frame(micros, 60)));
    write_pcap(&capture, &at);
    let path = capture.to_str().unwrap();
    let seconds = |more: &[&str]| {
        let mut command = pinwire(["send", "qtest:e1000", "--json", "--pcap", path]);
        let output = command.args(more).assert().success();
        let summary = json(&output.get_output().stdout);
        summary["seconds"].as_f64().unwrap()
    };
    let recorded = seconds(&[]);
    assert!((0.2..2.0).contains(&recorded), "{recorded}");
    let twice = seconds(&["--loop", "2"]);
    assert!((0.4..4.0).contains(&twice), "{twice}");
    let paced = seconds(&["--rate", "10"]);
    assert!((0.4..4.0).contains(&paced), "{paced}");
}

/// Sends `file` while the wire listens: the payloads, and the summary.
fn send_file(card: &str, file: &Path, more: &[&str]) -> (Vec<Vec<u8>>, serde_json::Value) {
    let wire = Wire::new();
    let device = wire.device(card);
    let args = [
        "send",
        &device,
        "--file",
        file.to_str().unwrap(),
        "--to",
        TO,
        "--json",
    ];
    let mut command = pinwire(args);
    command.args(["--via", VIA, "--rate", "5000"]).args(more);
    thread::scope(|scope| {
        let sender = scope.spawn(move || command.assert().success().get_output().stdout.clone());
        let mut payloads = Vec::new();
        loop {
            let over = sender.is_finished();
            match wire.try_recv() {
                Some(frame) => payloads.push(payload(card, &frame)),
                None if over => break,
                None => {}
            }
        }
        (payloads, json(&sender.join().unwrap()))
    })
}

#[test]
fn a_file_leaves_from_its_page_cache_with_the_cpu_denied() {
    on_every_card(|card| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let bytes = content(FITS);
        std::fs::write(&file, &bytes).unwrap();
        let (payloads, summary) = send_file(card, &file, &["--prove"]);
        assert!(payloads.concat() == bytes);
        assert_eq!(payloads.len(), FITS.div_ceil(1472));
        assert_eq!(summary["frames"], payloads.len());
        assert_eq!(summary["payload_bytes_copied_by_cpu"], 0);
        assert_eq!(summary["header_bytes_by_cpu"], 42 * payloads.len());
        assert_eq!(summary["payload_denied_to_cpu"], true);
        check_counter(card, &summary);
    });
}

#[test]
fn a_group_hears_of_a_source_that_a_host_can_have() {
    on_every_card(|card| {
        let dir = tempfile::tempdir().unwrap();
        let (device, out) = captured(card, dir.path());
        let file = dir.path().join("file");
        std::fs::write(&file, b"to you all").unwrap();
        let file = file.to_str().unwrap();
        for (to, mac, ttl) in [
            ("224.0.0.1:7000", [0x01, 0, 0x5e, 0, 0, 1], 1),
            ("239.129.2.3:7000", [0x01, 0, 0x5e, 1, 2, 3], 1),
            ("255.255.255.255:7000", [0xff; 6], 64),
        ] {
            let args = ["send", &device, "--file", file, "--to", to];
            let output = pinwire(args).assert().success().get_output().clone();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(
                said.contains("169.254.") && said.contains("--from"),
                "{said}"
            );
            let sent = read_pcap(&std::fs::read(&out).unwrap());
            let ethernet = wire::EthernetFrame::new_checked(&sent[0]).unwrap();
            assert_eq!(ethernet.dst_addr().0, mac, "{to}");
            let ip = wire::Ipv4Packet::new_checked(ethernet.payload()).unwrap();
            assert!(ip.verify_checksum());
            assert_eq!(ip.hop_limit(), ttl, "{to}");
            assert!(ip.src_addr().is_link_local(), "{to}: {}", ip.src_addr());
        }
    });
}

#[test]
fn files_of_awkward_lengths_leave_whole() {
    on_every_card(|card| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        for (len, payload, frames) in [
            (1, 1472, 1),
            (4096, 4096, 1),
            (4097, 1024, 5),
            (199, 1, 199),
        ] {
            let bytes = content(len);
            std::fs::write(&file, &bytes).unwrap();
            let (payloads, _) = send_file(card, &file, &["--payload", &payload.to_string()]);
            assert!(payloads.concat() == bytes, "{len} bytes");
            assert_eq!(payloads.len(), frames);
        }
    });
}

#[test]
fn the_receiver_is_asked_for_by_arp() {
    on_every_card(|card| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"found you").unwrap();
        let wire = Wire::new();
        let device = wire.device(card);
        let args = [
            "send",
            &device,
            "--file",
            file.to_str().unwrap(),
            "--to",
            TO,
        ];
        let mut command = pinwire(args);
        let sender = thread::spawn(move || command.assert().success());
        // The card receives nothing in its first second, so it asks more than once.
        let datagram = loop {
            let frame = wire.recv();
            let ethernet = wire::EthernetFrame::new_checked(&frame).unwrap();
            if ethernet.ethertype() != wire::EthernetProtocol::Arp {
                break frame;
            }
            let question = wire::ArpPacket::new_checked(ethernet.payload()).unwrap();
            let wire::ArpRepr::EthernetIpv4 {
                operation: wire::ArpOperation::Request,
                source_hardware_addr,
                source_protocol_addr,
                target_protocol_addr,
                ..
            } = wire::ArpRepr::parse(&question).unwrap()
            else {
                panic!("not a question");
            };
            assert_eq!(ethernet.dst_addr(), wire::EthernetAddress::BROADCAST);
            assert_eq!(target_protocol_addr.to_string(), "10.1.2.4");
            let answer = wire::ArpRepr::EthernetIpv4 {
                operation: wire::ArpOperation::Reply,
                source_hardware_addr: wire::EthernetAddress(THEIRS),
                source_protocol_addr: target_protocol_addr,
                target_hardware_addr: source_hardware_addr,
                target_protocol_addr: source_protocol_addr,
            };
            let mut reply = vec![0; 60];
            let mut ethernet = wire::EthernetFrame::new_unchecked(&mut reply);
            ethernet.set_src_addr(wire::EthernetAddress(THEIRS));
            ethernet.set_dst_addr(source_hardware_addr);
            ethernet.set_ethertype(wire::EthernetProtocol::Arp);
            answer.emit(&mut wire::ArpPacket::new_unchecked(ethernet.payload_mut()));
            wire.send(&reply);
        };
        assert_eq!(payload(card, &datagram), b"found you");
        sender.join().unwrap();
    });
}

#[test]
fn a_receiver_that_does_not_answer_is_an_error_that_names_via() {
    on_every_card(|card| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"anybody?").unwrap();
        let begin = Instant::now();
        let args = [
            "send",
            &format!("qtest:{card}"),
            "--file",
            file.to_str().unwrap(),
            "--to",
            TO,
        ];
        let output = pinwire(args).assert().code(1).get_output().clone();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.contains("10.1.2.4") && stderr.contains("--via MAC"),
            "{stderr}"
        );
        assert!(begin.elapsed() < Duration::from_secs(20));
    });
}

#[test]
fn what_is_written_to_the_file_is_in_the_next_frame() {
    on_every_card(|card| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, [b'a'; 3000]).unwrap();
        let wire = Wire::new();
        let device = wire.device(card);
        let args = [
            "send",
            &device,
            "--file",
            file.to_str().unwrap(),
            "--to",
            TO,
            "--via",
            VIA,
            "--payload",
            "1000",
            "--rate",
            "1",
        ];
        let mut command = pinwire(args);
        let sender = thread::spawn(move || command.assert().success());
        assert_eq!(payload(card, &wire.recv()), [b'a'; 1000]);
        let writer = OpenOptions::new().write(true).open(&file).unwrap();
        writer.write_all_at(&[b'b'; 1000], 2000).unwrap();
        assert_eq!(payload(card, &wire.recv()), [b'a'; 1000]);
        assert_eq!(payload(card, &wire.recv()), [b'b'; 1000]);
        sender.join().unwrap();
    });
}

#[test]
fn a_file_truncated_meanwhile_is_sent_as_it_was_mapped_and_told() {
    on_every_card(|card| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, [b'a'; 3000]).unwrap();
        let wire = Wire::new();
        let device = wire.device(card);
        let args = [
            "send",
            &device,
            "--file",
            file.to_str().unwrap(),
            "--to",
            TO,
            "--via",
            VIA,
            "--payload",
            "1000",
            "--rate",
            "2",
        ];
        let mut command = pinwire(args);
        let sender = thread::spawn(move || command.assert().code(1).get_output().clone());
        assert_eq!(payload(card, &wire.recv()).len(), 1000);
        // Within its only page, which stays: QEMU on the host could not stand more.
        let truncated = OpenOptions::new().write(true).open(&file).unwrap();
        truncated.set_len(1500).unwrap();
        assert_eq!(payload(card, &wire.recv()).len(), 1000);
        assert_eq!(payload(card, &wire.recv()).len(), 1000);
        let stderr = String::from_utf8(sender.join().unwrap().stderr).unwrap();
        let says = "truncated from 3000 to 1500 bytes";
        assert!(stderr.contains(says), "{stderr}");
    });
}

#[test]
fn made_up_frames_are_numbered() {
    on_every_card(|card| {
        let dir = tempfile::tempdir().unwrap();
        let (device, out) = captured(card, dir.path());
        let args = [
            "send",
            &device,
            "--synthetic",
            "100",
            "--count",
            "500",
            "--rate",
            "20000",
        ];
        let beside = dir.path().join("summary.json");
        let output = pinwire(args)
            .args(["--via", VIA])
            .arg(format!("--json={}", beside.display()))
            .assert()
            .success();
        let sent = read_pcap(&std::fs::read(out).unwrap());
        assert_eq!(sent.len(), 500);
        for (number, frame) in sent.iter().enumerate() {
            assert_eq!(frame.len(), 100);
            assert_eq!(frame[..6], THEIRS);
            assert_eq!(frame[14..22], (number as u64).to_be_bytes());
            assert!((22..100).all(|at| frame[at] == (at - 14) as u8));
        }
        let table = String::from_utf8_lossy(&output.get_output().stdout);
        let beside = json(&std::fs::read(&beside).unwrap());
        check_counter(card, &beside);
        // Six digits of what is measured.
        for figure in ["seconds", "packets_per_second", "megabits_per_second"] {
            let text = beside[figure].to_string();
            let digits = text.split(['e', 'E']).next().unwrap().replace('.', "");
            assert!(
                digits.trim_start_matches('0').len() <= 6,
                "{figure}: {text}"
            );
        }
        let device = match card.starts_with("virtio") {
            true => "the device counted  nothing: it has no counters",
            false => "the device counted  the same frames",
        };
        for row in ["frames sent  500", "bytes  50 000", device] {
            assert!(table.contains(row), "{row:?} is not in:\n{table}");
        }
    });
}

/// The processes that `parent` started.
fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        // "pid (name) state parent ...", and the name may hold anything.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest);
        after_name.and_then(|rest| rest.split(' ').nth(1)) == Some(&parent.to_string())
    })
    .collect()
}

#[test]
fn ctrl_c_ends_it_with_130_a_summary_and_nothing_left_behind() {
    on_every_card(|card| {
        let wire = Wire::new();
        let device = wire.device(card);
        let mut sender = spawn([
            "send",
            &device,
            "--synthetic",
            "64",
            "--rate",
            "100",
            "--json",
        ]);
        for _ in 0..10 {
            wire.recv();
        }
        let qemu = children(sender.id());
        assert!(!qemu.is_empty());
        // SAFETY: no memory is touched; the process is our child and not waited for yet.
        assert_eq!(unsafe { libc::kill(sender.id() as i32, libc::SIGINT) }, 0);
        let begin = Instant::now();
        let status = sender.wait().unwrap();
        assert!(begin.elapsed() < BOUND / 6);
        assert_eq!(status.code(), Some(130));
        let mut output = Vec::new();
        sender
            .stdout
            .take()
            .unwrap()
            .read_to_end(&mut output)
            .unwrap();
        let summary = json(&output);
        assert!(summary["frames"].as_u64().unwrap() >= 10);
        check_counter(card, &summary);
        for pid in qemu {
            assert!(
                !Path::new(&format!("/proc/{pid}")).exists(),
                "QEMU {pid} is left"
            );
        }
    });
}

#[test]
fn a_device_that_goes_away_in_the_middle_is_an_error_that_says_so() {
    on_every_card(|card| {
        let wire = Wire::new();
        let device = wire.device(card);
        let mut sender = spawn(["send", &device, "--synthetic", "64", "--rate", "1000"]);
        for _ in 0..10 {
            wire.recv();
        }
        for qemu in children(sender.id()) {
            // SAFETY: no memory is touched; it is our child's child, which runs.
            assert_eq!(unsafe { libc::kill(qemu as i32, libc::SIGKILL) }, 0);
        }
        let begin = Instant::now();
        let status = sender.wait().unwrap();
        assert!(begin.elapsed() < BOUND / 6);
        assert_eq!(status.code(), Some(1));
        let mut says = String::new();
        sender
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut says)
            .unwrap();
        let (model, _) = card.split_once(',').unwrap_or((card, ""));
        assert!(says.contains(&format!("qtest:{model} is gone")), "{says}");
    });
}

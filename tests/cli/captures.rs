//! Captures as they are met in the wild, through the command.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::require_qemu;
use crate::{Running, Wire, frame, json, on_every_card, pinwire, read_pcap, write_pcap};

/// A capture of frames of these lengths at these microseconds, in its bytes.
fn capture(packets: &[(u32, usize)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.pcap");
    let each = packets.iter().map(|(at, len)| (*at, frame(*at, *len)));
    write_pcap(&path, &each.collect::<Vec<_>>());
    std::fs::read(path).unwrap()
}

/// What leaves a card, and what is said, where `bytes` are sent.
fn send(card: &str, bytes: &[u8], more: &[&str]) -> (Vec<Vec<u8>>, String) {
    let dir = tempfile::tempdir().unwrap();
    let [input, out] = ["in.pcap", "out.pcap"].map(|name| dir.path().join(name));
    std::fs::write(&input, bytes).unwrap();
    let device = format!("qtest:{card},pcap={}", out.display());
    let mut command = pinwire(["send", &device, "--pcap", input.to_str().unwrap()]);
    let output = command.args(more).assert().success().get_output().clone();
    let sent = read_pcap(&std::fs::read(out).unwrap());
    (sent, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn frames_shorter_than_ethernet_s_least_are_padded_and_that_is_said_once() {
    on_every_card(|card| {
        let lens = [60, 14, 0, 6, 13, 15, 60];
        let packets: Vec<_> = (0..).zip(lens).collect();
        let mut bytes = capture(&packets[..2]);
        // By hand: what makes frames here makes none that short.
        bytes.truncate(24);
        for (number, len) in (0u8..).zip(lens) {
            for word in [1, 0, len as u32, len as u32] {
                bytes.extend(word.to_le_bytes());
            }
            bytes.extend(vec![number + 1; len]);
        }
        let (sent, said) = send(card, &bytes, &[]);
        assert_eq!(sent.len(), lens.len());
        for ((number, len), sent) in (1u8..).zip(lens).zip(&sent) {
            assert!(sent[..len].iter().all(|byte| *byte == number), "{len}");
            assert!(sent[len..].iter().all(|byte| *byte == 0), "{len}");
            assert!(sent.len() >= 60, "{len}");
        }
        assert_eq!(said.matches("padded with zeros").count(), 1, "{said}");
        assert!(said.contains("5 packets"), "{said}");
    });
}

#[test]
fn times_of_interfaces_are_compared_with_their_offsets() {
    if !require_qemu() {
        return;
    }
    let mut bytes = Vec::new();
    let mut words = |words: &[u32]| {
        words
            .iter()
            .for_each(|word| bytes.extend(word.to_le_bytes()))
    };
    words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]);
    words(&[1, 36, 1, 0, 0x0008_000e, 1000, 0, 0, 36]); // if_tsoffset: 1000 s
    words(&[1, 20, 1, 0, 20]);
    for (id, micros) in [(0, 1_000_000), (1, 1_001_300_000), (0, 1_600_000)] {
        words(&[6, 92, id, 0, micros, 60, 60]);
        words(&[micros; 15]);
        words(&[92]);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.pcapng");
    std::fs::write(&path, bytes).unwrap();
    let args = [
        "send",
        "qtest:e1000",
        "--json",
        "--pcap",
        path.to_str().unwrap(),
    ];
    let output = pinwire(args).assert().success().get_output().clone();
    let summary = json(&output.stdout);
    assert_eq!(summary["frames"], 3);
    let seconds = summary["seconds"].as_f64().unwrap();
    assert!((0.6..20.0).contains(&seconds), "{seconds}");
    assert!(output.stderr.is_empty());
}

#[test]
fn a_long_gap_is_announced_and_can_be_shortened() {
    if !require_qemu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.pcap");
    // Back to where it was, and 1 h 2 min on.
    let at = [5_000_000, 0, 3_725_000_000];
    write_pcap(&path, &at.map(|micros| (micros, frame(micros, 60))));
    let args = ["send", "qtest:e1000", "--pcap", path.to_str().unwrap()];
    let mut waiting = Running(
        Command::new(env!("CARGO_BIN_EXE_pinwire"))
            .args(args)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut said = String::new();
    let stderr = waiting.0.stderr.take().unwrap();
    BufReader::new(stderr).read_line(&mut said).unwrap();
    for words in ["packet 3", "1 h 1 min", "--max-gap", "--rate max"] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    waiting.interrupt();

    let mut shortened = pinwire(args);
    let output = shortened.args(["--max-gap", "0.1"]).assert().success();
    assert!(output.get_output().stderr.is_empty());
}

/// `pinwire` that sends what comes through `pipe`, or through its standard input.
fn live(device: &str, pipe: Option<&Path>) -> Child {
    let path = pipe.map_or("-", |path| path.to_str().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinwire"));
    command.args(["send", device, "--pcap", path, "--json"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    piped.stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_live_capture_is_sent_packet_by_packet_and_ctrl_c_ends_it() {
    on_every_card(|card| {
        let wire = Wire::new();
        let mut running = Running(live(&wire.device(card), None));
        let mut pipe = running.0.stdin.take().unwrap();
        let bytes = capture(&[(0, 60), (1, 61), (2, 62)]);
        let record = |number: usize| 24 + number * 76 + number * number.saturating_sub(1) / 2;
        // With a part of the next that has not come yet.
        let mut written = 0;
        for number in 1..=2 {
            let end = record(number) + 20;
            pipe.write_all(&bytes[written..end]).unwrap();
            written = end;
            let at = number as u32 - 1;
            assert_eq!(wire.recv(), frame(at, 60 + at as usize));
        }
        running.interrupt();
        let mut said = Vec::new();
        running
            .0
            .stdout
            .take()
            .unwrap()
            .read_to_end(&mut said)
            .unwrap();
        assert_eq!(json(&said)["frames"], 2);
    });
}

#[test]
fn a_capture_comes_through_standard_input_and_gzip() {
    if !require_qemu() {
        return;
    }
    let bytes = capture(&[(0, 60), (1, 61)]);
    let zipped = {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&bytes).unwrap();
        gzip.finish().unwrap()
    };
    let expected = [frame(0, 60), frame(1, 61)];
    assert_eq!(
        send("e1000", &zipped, &["--loop", "2"]).0,
        [expected.clone(), expected.clone()].concat()
    );
    for bytes in [&bytes, &zipped] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.pcap");
        let device = format!("qtest:e1000,pcap={}", out.display());
        let mut command = pinwire(["send", &device, "--pcap", "-"]);
        command.write_stdin(bytes.clone()).assert().success();
        assert_eq!(read_pcap(&std::fs::read(out).unwrap()), expected);
    }
    let mut twice = pinwire(["send", "qtest:e1000", "--pcap", "-", "--loop", "2"]);
    let output = twice
        .write_stdin(bytes)
        .assert()
        .code(1)
        .get_output()
        .clone();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("once only") && said.contains("--loop"),
        "{said}"
    );
}

#[test]
fn a_pipe_that_nobody_writes_into_is_waited_for_until_ctrl_c() {
    // Before the card is touched: there is none at that address.
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("pipe");
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    for pipe in [Some(&*path), None] {
        let mut running = Running(live("ffff:ff:1f.7", pipe));
        let _open = running.0.stdin.take();
        let stat = format!("/proc/{}/status", running.0.id());
        // Signals are caught before the file is opened: bit 1 is SIGINT's.
        let caught = || {
            let status = std::fs::read_to_string(&stat).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            u64::from_str_radix(line.unwrap().trim(), 16).unwrap() & 2 != 0
        };
        while !caught() {
            std::thread::yield_now();
        }
        running.interrupt();
    }
}

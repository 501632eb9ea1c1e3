//! What cannot be done is said, with what to do about it, before anything is touched.

use std::path::{Path, PathBuf};

use crate::common::require_qemu;
use crate::{frame, pinwire, read_pcap, write_pcap};

/// A PCI address that no machine has a function at.
const NOWHERE: &str = "ffff:ff:1f.7";
/// An address to send made-up frames from.
const ONE_FRAME: [&str; 4] = ["--synthetic", "64", "--count", "1"];

#[track_caller]
fn fails<const N: usize>(args: [&str; N], code: i32, says: &[&str]) {
    let output = pinwire(args).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty());
    for words in says {
        assert!(stderr.contains(words), "{words:?} is not in: {stderr}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn scratch(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    (dir, path)
}

#[test]
fn a_device_that_is_not_there() {
    let [a, b, c, d] = ONE_FRAME;
    let says = [
        "error: ffff:ff:1f.7: there is no such PCI function",
        "pinwire list",
    ];
    fails(["send", NOWHERE, a, b, c, d], 1, &says);
    fails(["recv", NOWHERE], 1, &says);
}

#[test]
fn a_capture_that_is_compressed_in_another_way() {
    let (_dir, path) = scratch("capture", b"\x28\xb5\x2f\xfd....................");
    let path = text(&path);
    let says = ["compressed (zstd)", "zstdcat", "--pcap -"];
    fails(["send", "qtest:e1000", "--pcap", path], 1, &says);
}

#[test]
fn a_spec_that_is_nonsense() {
    let [a, b, c, d] = ONE_FRAME;
    for nonsense in ["eth0", "qtest:e1000 e", "qtest:e1000,net=moon", "00:03"] {
        let says = [nonsense, "0000:00:03.0", "qtest:e1000"];
        fails(["send", nonsense, a, b, c, d], 2, &says);
        fails(["recv", nonsense], 2, &says);
    }
}

#[test]
fn not_what_to_send_or_too_much_of_it() {
    fails(["send", NOWHERE], 2, &["--pcap", "--file", "--synthetic"]);
    let both = [
        "send",
        NOWHERE,
        "--pcap",
        "a",
        "--file",
        "b",
        "--to",
        "10.0.0.2:9",
    ];
    fails(both, 2, &["cannot be used with"]);
    fails(["send", NOWHERE, "--file", "a"], 2, &["--to <IP:PORT>"]);
    let misplaced: [[&str; 2]; 4] = [
        ["--loop", "2"],
        ["--payload", "99"],
        ["--from", "10.0.0.1:9"],
        ["--to", "10.0.0.2:9"],
    ];
    for [option, value] in misplaced {
        let args = ["send", NOWHERE, "--synthetic", "64", option, value];
        fails(args, 2, &["cannot be used with", option]);
    }
}

#[test]
fn values_that_do_not_parse() {
    let file = ["send", NOWHERE, "--file", "a", "--to"];
    let [send, device, option, path, to] = file;
    for receiver in ["10.0.0.2", "host:9", "10.0.0.2:70000", "[::1]:9"] {
        fails(
            [send, device, option, path, to, receiver],
            2,
            &[receiver, "--to"],
        );
    }
    for (option, value) in [
        ("--via", "52:54:00"),
        ("--payload", "0"),
        ("--payload", "70000"),
        ("--rate", "fast"),
        ("--batch", "0"),
        ("--from", "10.0.0.1"),
    ] {
        let args = [
            send,
            device,
            "--file",
            path,
            to,
            "10.0.0.2:9",
            option,
            value,
        ];
        fails(args, 2, &[value, option]);
    }
    fails(["recv", NOWHERE, "--ethertype", "ip"], 2, &["0x0800"]);
    fails(["recv", NOWHERE, "--udp-port", "70000"], 2, &["70000"]);
    fails(["recv", NOWHERE, "--seconds", "never"], 2, &["never"]);
}

#[test]
fn files_that_are_not_there() {
    let missing = "/nowhere/at/all";
    fails(
        ["send", NOWHERE, "--pcap", missing],
        1,
        &[missing, "No such file"],
    );
    let file = ["send", NOWHERE, "--file", missing, "--to", "10.0.0.2:9"];
    fails(file, 1, &[missing, "No such file"]);
    fails(
        ["recv", NOWHERE, "--write", missing],
        1,
        &[missing, "No such file"],
    );
    let folder = ["send", NOWHERE, "--file", "/usr", "--to", "10.0.0.2:9"];
    fails(folder, 1, &["/usr", "not a regular file"]);
}

#[test]
fn addresses_that_no_wire_leads_to_are_refused() {
    let (_dir, path) = scratch("file", b"content");
    let file = ["send", NOWHERE, "--file", text(&path), "--to"];
    let [send, device, option, path, to] = file;
    for receiver in ["127.0.0.1:9", "0.0.0.0:9", "10.0.0.2:0"] {
        fails(
            [send, device, option, path, to, receiver],
            1,
            &[receiver, "receiver"],
        );
    }
    for from in [
        "224.0.0.1:9",
        "255.255.255.255:9",
        "127.0.0.1:9",
        "10.0.0.2:9",
    ] {
        let args = [send, device, option, path, to, "10.0.0.2:9", "--from", from];
        fails(args, 1, &[from, "subnet"]);
    }
}

/// A pipe that nobody writes into.
fn named_pipe() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    (dir, path)
}

#[test]
fn a_named_pipe_keeps_nobody_waiting() {
    let (_dir, pipe) = named_pipe();
    let says = [text(&pipe), "it is a pipe, not a regular file", "cat"];
    let file = ["send", NOWHERE, "--file", text(&pipe), "--to", "10.0.0.2:9"];
    fails(file, 1, &says);
    fails(["ladder", "--loopback", text(&pipe)], 1, &says);
}

#[test]
fn a_pipe_that_nobody_reads_keeps_nobody_waiting() {
    if !require_qemu() {
        return;
    }
    const CARD: &str = "qtest:e1000";
    let (_dir, pipe) = named_pipe();
    let says = [
        text(&pipe),
        "it is a pipe that nobody reads",
        "begin its reader first",
    ];
    fails(["recv", CARD, "--write", text(&pipe)], 1, &says);
    fails(["forward", CARD, CARD, "--write", text(&pipe)], 1, &says);
    let json = format!("--json={}", text(&pipe));
    fails(
        ["send", CARD, "--synthetic", "64", "--count", "1", &json],
        1,
        &says,
    );
}

#[test]
fn a_length_that_the_kernel_makes_up_is_said_and_not_taken_for_empty() {
    for (path, said) in [
        ("/proc/cpuinfo", "0 bytes, it is said"),
        ("/sys/kernel/cpu_byteorder", "4096 bytes, it is said"),
    ] {
        let says = [path, "made up", said, "cat"];
        let file = ["send", NOWHERE, "--file", path, "--to", "10.0.0.2:9"];
        fails(file, 1, &says);
        fails(["ladder", "--loopback", path], 1, &says);
    }
}

#[test]
fn an_empty_file_is_nothing_to_send_and_no_failure() {
    let (_dir, path) = scratch("empty", b"");
    let args = ["send", NOWHERE, "--file", text(&path), "--to", "10.0.0.2:9"];
    let ran = pinwire(args).assert().success();
    let stderr = String::from_utf8_lossy(&ran.get_output().stderr);
    assert!(stderr.contains("is empty: nothing to send"), "{stderr}");
}

#[test]
fn a_capture_that_is_none() {
    for (name, content) in [
        ("empty", &b""[..]),
        ("short", b"\xd4\xc3\xb2\xa1\x02\x00"),
        ("text", b"these are no packets at all"),
    ] {
        let (_dir, path) = scratch(name, content);
        let args = ["send", NOWHERE, "--pcap", text(&path)];
        fails(args, 1, &[name, "not a capture that can be sent"]);
    }
}

#[test]
fn a_capture_and_json_do_not_share_standard_output() {
    fails(["recv", NOWHERE, "-w", "-", "--json"], 1, &["--write FILE"]);
}

/// What a bad capture holds before its bad packet is sent.
fn sent_before(capture: &Path, says: &[&str]) -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.pcap");
    let device = format!("qtest:e1000,pcap={}", out.display());
    let args = ["send", &device, "--pcap", text(capture), "--json"];
    let output = pinwire(args).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for words in says {
        assert!(stderr.contains(words), "{words:?} is not in: {stderr}");
    }
    let summary = crate::json(&output.stdout);
    let error = summary["error"].as_str().unwrap();
    assert!(stderr.contains(error));
    read_pcap(&std::fs::read(out).unwrap())
}

#[test]
fn a_truncated_capture_is_sent_as_far_as_it_goes_and_the_packet_named() {
    if !require_qemu() {
        return;
    }
    let (_dir, path) = scratch("cut.pcap", b"");
    let frames: Vec<_> = (0..5).map(|number| (number, frame(number, 100))).collect();
    write_pcap(&path, &frames);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    let sent = sent_before(&path, &["packet 5", "truncated"]);
    assert_eq!(sent, [0, 1, 2, 3].map(|number| frame(number, 100)));
}

#[test]
fn a_malformed_record_is_named() {
    if !require_qemu() {
        return;
    }
    let (_dir, path) = scratch("bad.pcap", b"");
    let frames: Vec<_> = (0..3).map(|number| (number, frame(number, 60))).collect();
    write_pcap(&path, &frames);
    let mut bytes = std::fs::read(&path).unwrap();
    let second = 24 + 16 + 60;
    bytes[second + 8..second + 12].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(sent_before(&path, &["packet 2"]), [frame(0, 60)]);
}

#[test]
fn a_frame_too_long_for_the_device_is_named_with_what_to_do() {
    if !require_qemu() {
        return;
    }
    let (_dir, path) = scratch("long.pcap", b"");
    write_pcap(
        &path,
        &[(0, frame(0, 60)), (1, frame(1, 20_000)), (2, frame(2, 60))],
    );
    let says = [
        "packet 2: a frame of 20000 bytes",
        "14 to 16288 bytes",
        "editcap",
    ];
    assert_eq!(sent_before(&path, &says), [frame(0, 60)]);

    let file = scratch("file", b"content");
    let args = [
        "send",
        "qtest:e1000",
        "--file",
        text(&file.1),
        "--to",
        "10.0.0.2:9",
    ];
    let mut command = pinwire(args);
    let ran = command.args(["--payload", "20000", "--via", "02:00:00:00:00:09"]);
    let stderr = ran.assert().code(1).get_output().stderr.clone();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(stderr.contains("--payload"), "{stderr}");
}

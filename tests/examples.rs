//! The examples do what they say, on QEMU's model on this host and over VFIO in the VM.
#![cfg(feature = "net")]

mod common;

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

/// QEMU's default address.
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const NAMES: [&str; 5] = ["hello_bar", "hello_dma", "send", "receive", "echo"];

/// The example `name`; all of them are built first, which `cargo test --test examples` leaves out.
fn example(name: &str) -> Command {
    static TARGET: LazyLock<PathBuf> = LazyLock::new(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--examples"]);
        let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(built.expect("cargo").success(), "the examples do not build");
        let tests = std::env::current_exe().expect("our own path");
        let target = tests.parent().and_then(Path::parent);
        target.expect("target/PROFILE/deps").join("examples")
    });
    Command::new(TARGET.join(name))
}

/// What an example printed; it must have ended well.
fn run(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("the example was built");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{out}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    out
}

/// The packets of a capture that QEMU wrote.
fn packets(capture: &Path) -> Vec<Vec<u8>> {
    let file = std::fs::File::open(capture).expect("QEMU's capture");
    let mut reader = pcap_file::pcap::PcapReader::new(file).expect("a capture");
    let next = || {
        reader
            .next_packet()
            .map(|packet| packet.expect("whole").data.into_owned())
    };
    std::iter::from_fn(next).collect()
}

fn is_hello(packet: &[u8]) -> bool {
    let head = [
        &[0xff; 6][..],
        &[2, 0, 0, 0, 0, 1],
        &[0x88, 0xb5],
        b"hello, DMA",
    ]
    .concat();
    packet.len() == 60 && packet.starts_with(&head) && packet[24..].iter().all(|byte| *byte == 0)
}

/// Frame `number` of the `send` example, from a card with the address `mac`.
fn is_sent(packet: &[u8], mac: [u8; 6], number: u32) -> bool {
    let head = [&[0xff; 6][..], &mac, &[0x88, 0xb5], &number.to_be_bytes()].concat();
    packet.len() == 60 && packet.starts_with(&head)
}

/// The far end of a cable, as UDP datagrams, and the device spec of the near one.
fn cable() -> (UdpSocket, u16, String) {
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let (ours, theirs) = (bind(), bind());
    ours.set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a time limit");
    let port = |socket: &UdpSocket| socket.local_addr().expect("bound").port();
    let spec = format!("qtest:e1000,net=udp:{}:{}", port(&theirs), port(&ours));
    let to = port(&theirs);
    (ours, to, spec)
}

fn frame(number: u8) -> Vec<u8> {
    [&MAC[..], &PEER, &[0x88, 0xb5], &[number; 50]].concat()
}

/// Sends frames into the cable, whether or not anybody listens yet, until `child` has ended.
fn feed(child: &mut Child, wire: &UdpSocket, to: u16) -> Vec<Vec<u8>> {
    let mut came = Vec::new();
    for number in 0..=255 {
        let _ = wire.send_to(&frame(number), (Ipv4Addr::LOCALHOST, to));
        let mut back = vec![0; 2000];
        while let Ok(len) = wire.recv(&mut back) {
            came.push(back[..len].to_vec());
        }
        if child.try_wait().expect("our child").is_some() {
            return came;
        }
    }
    child.kill().expect("our child");
    panic!("it did not end");
}

#[test]
fn hello_bar_reads_the_mac_from_the_mapped_bar() {
    if common::require_qemu() {
        let out = run(example("hello_bar").arg("qtest:e1000"));
        assert!(out.contains("52:54:00:12:34:56"), "{out}");
    }
}

#[test]
fn hello_dma_sends_one_packet_by_one_descriptor() {
    if !common::require_qemu() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let capture = dir.path().join("hello.pcap");
    let out = run(example("hello_dma").arg(format!("qtest:e1000,pcap={}", capture.display())));
    assert!(
        out.contains("before  legacy") && out.contains("rs dd"),
        "{out}"
    );
    let packets = packets(&capture);
    assert!(packets.len() == 1 && is_hello(&packets[0]), "{packets:x?}");
}

#[test]
fn send_sends_numbered_frames() {
    if !common::require_qemu() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let capture = dir.path().join("sent.pcap");
    let out =
        run(example("send").args([&format!("qtest:e1000,pcap={}", capture.display()), "200"]));
    assert!(out.contains("sent 200; the card counted 200"), "{out}");
    let packets = packets(&capture);
    assert_eq!(packets.len(), 200);
    assert!(
        packets
            .iter()
            .zip(0..)
            .all(|(packet, i)| is_sent(packet, MAC, i)),
        "{packets:x?}"
    );
}

#[test]
fn receive_prints_what_comes_in() {
    if !common::require_qemu() {
        return;
    }
    let (wire, to, spec) = cable();
    let mut command = example("receive");
    let mut child = command
        .args([&spec, "3"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("built");
    feed(&mut child, &wire, to);
    let output = child.wait_with_output().expect("our child");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}");
    let line = "64 bytes 02:00:00:00:00:02 > 52:54:00:12:34:56 type 0x88b5";
    assert_eq!(out.matches(line).count(), 3, "{out}");
}

#[test]
fn echo_sends_back_what_came() {
    if !common::require_qemu() {
        return;
    }
    let (wire, to, spec) = cable();
    let mut command = example("echo");
    let mut child = command
        .args([&spec, "3"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("built");
    let came = feed(&mut child, &wire, to);
    assert!(child.wait().expect("our child").success());
    assert!(came.len() >= 3, "{came:x?}");
    for echoed in came {
        let expected = [&PEER[..], &MAC, &[0x88, 0xb5], &[echoed[14]; 50]].concat();
        assert_eq!(echoed, expected);
    }
}

#[test]
fn examples_do_the_same_over_vfio() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("a UTF-8 path");
    // The third card stays the kernel's, whose ARP questions come back to it.
    let command = "set -e; export PATH=/examples:$PATH
        pinwire bind 0000:00:03.0 0000:00:04.0 >&2
        hello_bar 0000:00:03.0; hello_dma 0000:00:03.0; send 0000:00:03.0 300
        receive 0000:00:04.0 50 & sleep 2; send 0000:00:03.0 50 >&2; wait $!
        ip addr add 10.0.0.1/24 dev eth2; ip link set eth2 up promisc on; sleep 2
        /examples/echo 0000:00:04.0 3 & sleep 2; arping -c 10 -I eth2 10.0.0.2 >&2 || true; wait $!
        cat /sys/class/net/eth2/statistics/rx_packets";
    let options = [
        ["--nic", "e1000,e1000-82545em,e1000"],
        ["--net", "hub:0,hub:0,hub:0"],
        ["--pcap", path],
    ];
    let Some(output) = common::vm(options.as_flattened(), command) else {
        return;
    };
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{out}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        out.contains("52:54:00:12:34:56") && out.contains("rs dd"),
        "{out}"
    );
    assert!(out.contains("sent 300; the card counted 300"), "{out}");
    let line = "60 bytes 52:54:00:12:34:56 > ff:ff:ff:ff:ff:ff type 0x88b5";
    assert_eq!(out.matches(line).count(), 50, "{out}");
    assert!(out.contains("echoed"), "{out}");
    let echoed: u32 = out
        .lines()
        .last()
        .and_then(|line| line.parse().ok())
        .expect("a count");
    assert!(echoed >= 3, "{out}");

    let captured = packets(&dir.path().join("nic0.pcap"));
    assert!(captured.iter().any(|packet| is_hello(packet)));
    for number in 0..300 {
        assert!(
            captured.iter().any(|packet| is_sent(packet, MAC, number)),
            "frame {number}"
        );
    }
}

#[test]
fn an_example_fits_on_two_screens() {
    for name in NAMES {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.rs"));
        let text = std::fs::read_to_string(&path).expect("the example");
        assert!(
            text.lines().count() < 120,
            "{name} is longer than 120 lines"
        );
    }
}

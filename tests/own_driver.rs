//! `examples/own-driver`, a crate outside of this one: it is short, its card has every command, and it passes the
//! tests for drivers, on QEMU's model on this host and over VFIO in the VM.
#![cfg(all(feature = "cli", feature = "testing"))]

mod common;

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use cargo_metadata::Message;

/// Lines of the driver may be fewer than this, without comments and blank ones.
const MOST_LINES: usize = 400;
/// The claims that do not concern an RTL8139C+, and the reason in a word.
const LEFT_OUT: [(&str, &str); 8] = [
    ("a_jumbo_frame_comes_in_whole", "1518"),
    ("the_card_cuts_a_tcp_segment", "TSO"),
    ("the_card_inserts_and_strips_vlan_tags", "VLAN"),
    ("the_card_inserts_ip_and_udp_checksums", "UDP_CHECKSUM"),
    ("the_card_inserts_tcp_checksums_over_ipv6", "TCP_CHECKSUM"),
    ("the_card_inserts_the_ip_checksum", "IP_CHECKSUM"),
    ("the_card_inserts_udp_checksums_over_ipv6", "UDP_CHECKSUM"),
    ("the_vlan_filter_takes_what_it_should", "VLANs"),
];
/// QEMU's default address.
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

fn crate_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/own-driver")
}

/// Has cargo make what `arguments` say of the crate, beside what it has made of this one; gives the programs.
fn build(arguments: &[&str], flags: &str) -> Vec<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let mut cargo = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--quiet", "--locked", "--offline"])
        .args(["--message-format", "json-render-diagnostics"])
        // As our own profiles say: what both crates need is built once.
        .args(["--config", "profile.dev.debug='line-tables-only'"])
        .args(["--config", "profile.dev.package.'*'.debug=false"])
        .args(["--config", "profile.release.debug='line-tables-only'"])
        .args(["--config", "profile.release.codegen-units=1"])
        .current_dir(crate_root())
        .env("CARGO_TARGET_DIR", target.expect("cargo's own folder"))
        .env("RUSTFLAGS", flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cargo");
    let output = std::io::BufReader::new(cargo.stdout.take().expect("piped"));
    let built = Message::parse_stream(output).filter_map(|message| match message {
        Ok(Message::CompilerArtifact(artifact)) => artifact.executable,
        _ => None,
    });
    let built: Vec<PathBuf> = built.map(PathBuf::from).collect();
    assert!(cargo.wait().expect("cargo").success(), "it does not build");
    built
}

/// The one of `programs` of that name, behind which cargo may have put a hash.
fn named<'a>(programs: &'a [PathBuf], name: &str) -> &'a Path {
    let is = |path: &&PathBuf| {
        let file = path.file_name().and_then(|file| file.to_str());
        file.is_some_and(|file| file == name || file.starts_with(&format!("{name}-")))
    };
    programs
        .iter()
        .find(is)
        .unwrap_or_else(|| panic!("no {name} in {programs:?}"))
}

/// The command with the driver.
fn own_driver() -> Command {
    static BUILT: LazyLock<Vec<PathBuf>> =
        LazyLock::new(|| build(&["build"], &std::env::var("RUSTFLAGS").unwrap_or_default()));
    let mut command = Command::new(named(&BUILT, "own-driver"));
    command.stdin(Stdio::null());
    command
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// What the command printed; it must have ended well.
fn run(arguments: &[&str]) -> String {
    let output = own_driver().args(arguments).output().expect("built");
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    out
}

/// The far end of a cable, as UDP datagrams, where the card's end listens, and the spec of the card.
fn cable(card: &str) -> (UdpSocket, u16, String) {
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let (ours, theirs) = (bind(), bind());
    ours.set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a time limit");
    let port = |socket: &UdpSocket| socket.local_addr().expect("bound").port();
    let spec = format!("{card},net=udp:{}:{}", port(&theirs), port(&ours));
    let to = port(&theirs);
    (ours, to, spec)
}

/// Sends frames into the cable that ends at port `to`, whether or not anybody listens yet, until `is_done`.
fn feed(wire: &UdpSocket, to: u16, mut is_done: impl FnMut() -> bool) {
    for number in 0..=255 {
        let frame = [&MAC[..], &[2, 0, 0, 0, 0, 2], &[0x88, 0xb5], &[number; 50]].concat();
        let _ = wire.send_to(&frame, (Ipv4Addr::LOCALHOST, to));
        if is_done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("nothing came of it");
}

/// Ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lines that are neither blank nor a comment.
fn lines_of_code(text: &str) -> usize {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count()
}

#[test]
fn it_is_short() {
    let sources = std::fs::read_dir(crate_root().join("src")).expect("its sources");
    let texts = sources.map(|entry| std::fs::read_to_string(entry.expect("one").path()));
    let lines: usize = texts.map(|text| lines_of_code(&text.expect("text"))).sum();
    assert!(lines < MOST_LINES, "{lines} lines");
    // One line each but for what it imports: its program, and its tests.
    let main = std::fs::read_to_string(crate_root().join("src/main.rs")).expect("its program");
    assert!(lines_of_code(&main) <= 3, "{main}");
    let tests = std::fs::read_to_string(crate_root().join("tests/conformance.rs"));
    let tests = tests.expect("its tests");
    let lines = tests.lines().filter(|line| !line.starts_with("use "));
    let lines: String = lines.flat_map(|line| [line, "\n"]).collect();
    assert_eq!(lines_of_code(&lines), 1, "{tests}");
}

#[test]
fn it_passes_the_tests_for_drivers_and_lists_what_they_left_out() {
    if !common::require_qemu() {
        return;
    }
    let programs = tests();
    let output = Command::new(named(&programs, "conformance")).output();
    let (out, err) = texts(&output.expect("built"));
    assert_eq!(passed(&out), pinwire::testing::CLAIMS.len(), "{out}{err}");
    left_out_on("qtest:rtl8139", &err);
}

#[test]
fn it_passes_them_on_a_fake_and_survives_one_that_lies() {
    let output = Command::new(named(&tests(), "fake")).output();
    let (out, err) = texts(&output.expect("built"));
    assert!(passed(&out) > pinwire::testing::CLAIMS.len(), "{out}{err}");
}

/// Its tests, as programs.
fn tests() -> Vec<PathBuf> {
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    build(&["test", "--no-run"], &flags)
}

/// How many tests have passed; none has failed.
fn passed(out: &str) -> usize {
    let result = out
        .lines()
        .find_map(|line| line.strip_prefix("test result: ok. "));
    let count = result.and_then(|result| result.split(' ').next());
    count
        .and_then(|count| count.parse().ok())
        .unwrap_or_default()
}

/// Checks what was said to be left out.
fn left_out_on(card: &str, said: &str) {
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("LEFT OUT"))
        .collect();
    for (claim, why) in LEFT_OUT {
        let begin = format!("LEFT OUT: {claim} on {card}: ");
        let told = lines.iter().find_map(|line| line.strip_prefix(&begin));
        assert!(
            told.is_some_and(|told| told.contains(why)),
            "{claim}: {said}"
        );
    }
    assert_eq!(lines.len(), LEFT_OUT.len(), "{said}");
}

#[test]
fn its_card_sends_and_shows_its_rings_and_is_measured_like_ours() {
    if !common::require_qemu() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let capture = dir.path().join("sent.pcap");
    let spec = format!("qtest:rtl8139,pcap={}", capture.display());
    let told = run(&[
        "send",
        &spec,
        "--synthetic",
        "64",
        "--count",
        "3",
        "--explain",
    ]);
    for words in [
        "Realtek RTL8139C+",
        "write TPPOLL   = 0x40",
        "length=64 own fs ls",
        "transmit ring: next to post 0 -> 1",
        "clears OWN",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    // As QEMU saw them.
    let file = std::fs::File::open(&capture).expect("QEMU's capture");
    let mut reader = pcap_file::pcap::PcapReader::new(file).expect("a capture");
    let next = || {
        reader
            .next_packet()
            .map(|packet| packet.expect("whole").data.into_owned())
    };
    let packets: Vec<Vec<u8>> = std::iter::from_fn(next).collect();
    assert_eq!(packets.len(), 3);
    assert!(
        packets
            .iter()
            .all(|packet| packet.len() == 64 && packet[6..12] == MAC)
    );

    let shown = run(&["show", "qtest:rtl8139", "--ring", "rx"]);
    assert!(shown.contains("receive ring, with OWN bits,"), "{shown}");
    assert!(shown.contains("next = oldest = 0"), "{shown}");
    let json = run(&[
        "show",
        "qtest:rtl8139",
        "--ring",
        "tx",
        "--after",
        "5",
        "--stage",
        "sent",
        "--json",
    ]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let own = &json["rings"][0]["own"];
    assert_eq!(
        (&own["next"], &own["oldest"]),
        (&5.into(), &0.into()),
        "{json}"
    );

    let table = run(&[
        "bench",
        "qtest:rtl8139",
        "tx",
        "--size",
        "64",
        "--rounds",
        "1",
    ]);
    assert!(table.contains("tx") && !table.contains("limit"), "{table}");
    // Ours are still there.
    run(&["send", "qtest:e1000", "--synthetic", "64", "--count", "3"]);
}

#[test]
fn its_card_receives_and_forwards_to_one_of_ours() {
    if !common::require_qemu() {
        return;
    }
    let (wire, to, spec) = cable("qtest:rtl8139");
    let mut command = own_driver();
    command
        .args(["recv", &spec, "--count", "2", "--json"])
        .stdout(Stdio::piped());
    let mut receiver = Running(command.spawn().expect("built"));
    feed(&wire, to, || {
        receiver.0.try_wait().expect("our child").is_some()
    });
    let mut said = String::new();
    let mut out = receiver.0.stdout.take().expect("piped");
    std::io::Read::read_to_string(&mut out, &mut said).expect("text");
    assert!(said.contains("\"frames\":2"), "{said}");

    let (wire, to, theirs) = cable("qtest:rtl8139");
    let (far, _, ours) = cable("qtest:e1000");
    let mut command = own_driver();
    command
        .args(["forward", &theirs, &ours])
        .stdout(Stdio::null());
    let _forwarder = Running(command.spawn().expect("built"));
    let mut frame = [0; 2000];
    feed(
        &wire,
        to,
        || matches!(far.recv(&mut frame), Ok(length) if length >= 64 - 4),
    );
    assert_eq!(frame[..6], MAC);
    assert_eq!(frame[12..14], [0x88, 0xb5]);
}

/// For the VM's shell: brings up the kernel's card in slot 4, and names its interface.
const TWIN: &str = "
    wire=$(ls /sys/bus/pci/devices/0000:00:04.0/net)
    ip link set $wire mtu 9000 promisc on up
    until [ \"$(cat /sys/class/net/$wire/carrier)\" = 1 ]; do sleep 0.1; done
    sleep 1.5 # the twin's model takes frames in a second after its receiver was set up
    export PINWIRE_DEVICE=0000:00:03.0 PINWIRE_WIRE=$wire PINWIRE_MODEL=rtl8139\n";

#[test]
fn in_the_vm_its_card_is_bound_sends_and_passes_the_tests_for_drivers() {
    if !common::wants_vm() {
        return;
    }
    let share = tempfile::tempdir().expect("a directory");
    let triple = "x86_64-unknown-linux-gnu";
    // The guest has no libraries.
    let flags = "-C target-feature=+crt-static";
    for (arguments, name) in [
        (
            &["build", "--release", "--target", triple][..],
            "own-driver",
        ),
        (
            &["test", "--no-run", "--release", "--target", triple],
            "conformance",
        ),
    ] {
        let programs = build(arguments, flags);
        std::fs::copy(named(&programs, name), share.path().join(name)).expect("room for it");
    }
    let path = share.path().to_str().expect("a UTF-8 path");
    let command = format!(
        "{}{TWIN}
        /share/own-driver bind 0000:00:03.0 || exit 1
        /share/own-driver list || exit 1
        /share/own-driver send 0000:00:03.0 --synthetic 64 --count 10 --json || exit 1
        /share/conformance --test-threads=1",
        common::NO_IPV6
    );
    let nics = ["--nic", "rtl8139,e1000", "--net", "hub:0,hub:0"];
    let options = [&nics[..], &["--share", path, "--pcap", path]].concat();
    let Some(output) = common::vm(&options, &command) else {
        return;
    };
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}\n{err}");
    let line = out
        .lines()
        .find(|line| line.contains("Ethernet controller: Realtek"));
    assert!(line.is_some_and(|line| line.contains("yes")), "{out}");
    assert!(out.contains("\"frames\":10,"), "{out}");
    let all = pinwire::testing::CLAIMS.len();
    assert!(
        out.contains(&format!("{all} passed; 0 failed")),
        "{out}\n{err}"
    );
    left_out_on("vfio:rtl8139", &err);
}

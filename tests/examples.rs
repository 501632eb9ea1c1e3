//! The examples do what they say, on QEMU's model on this host and over VFIO in the VM.
#![cfg(feature = "net")]

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// QEMU's default address.
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// A far end that says nothing for so long says nothing.
const BOUND: Duration = Duration::from_secs(20);
/// QEMU's cards, as device specs begin.
const INTEL: [&str; 2] = ["qtest:e1000", "qtest:e1000e"];
const VIRTIO: [&str; 2] = ["qtest:virtio-net", "qtest:virtio-net,packed=on"];

/// All of them.
fn cards() -> impl Iterator<Item = &'static str> {
    INTEL.into_iter().chain(VIRTIO)
}

/// With how many lines each may have.
const NAMES: [(&str, usize); 12] = [
    // What lib.rs begins with.
    ("packet", 18),
    ("hello_bar", 120),
    // For two cards, and every step of it.
    ("hello_dma", 140),
    ("hello_virtqueue", 120),
    ("send", 120),
    ("receive", 120),
    ("echo", 120),
    // A driver and what is done with it.
    ("edu", 150),
    ("tokio_echo", 120),
    ("smoltcp_echo", 150),
    ("splice_echo", 120),
    ("splice_relay", 120),
];

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

/// The far end of a cable, as UDP datagrams, and the device spec of the near one, which is in `card`.
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

fn frame(number: u8) -> Vec<u8> {
    [&MAC[..], &PEER, &[0x88, 0xb5], &[number; 50]].concat()
}

/// Sends frames into the cable, whether or not anybody listens yet, until `child` has ended.
fn feed(child: &mut Child, wire: &UdpSocket, to: u16) -> Vec<Vec<u8>> {
    let mut came = Vec::new();
    for number in 0..=255 {
        let _ = wire.send_to(&frame(number), (Ipv4Addr::LOCALHOST, to));
        // Before the last look at what it sent.
        let ended = child.try_wait().expect("our child").is_some();
        let mut back = vec![0; 2000];
        while let Ok(len) = wire.recv(&mut back) {
            came.push(back[..len].to_vec());
        }
        if ended {
            return came;
        }
    }
    child.kill().expect("our child");
    panic!("it did not end");
}

#[test]
fn hello_bar_reads_the_mac_from_the_mapped_bar() {
    if !common::require_qemu() {
        return;
    }
    for card in cards() {
        // Another one than QEMU's default, so that it is this card's for certain.
        let out = run(example("hello_bar").arg(format!("{card},mac=52:54:00:ab:cd:ef")));
        assert!(
            out.contains("Ethernet address 52:54:00:ab:cd:ef"),
            "{card}: {out}"
        );
    }
}

/// `name` sends one packet through `card`, and says what it did with the descriptor.
fn says_hello(name: &str, card: &str, said: &[&str]) {
    let dir = tempfile::tempdir().expect("a directory");
    let capture = dir.path().join("hello.pcap");
    let out = run(example(name).arg(format!("{card},pcap={}", capture.display())));
    assert!(said.iter().all(|word| out.contains(word)), "{card}: {out}");
    let packets = packets(&capture);
    assert!(
        packets.len() == 1 && is_hello(&packets[0]),
        "{card}: {packets:x?}"
    );
}

#[test]
fn hello_dma_sends_one_packet_by_one_descriptor() {
    if !common::require_qemu() {
        return;
    }
    for card in INTEL {
        says_hello("hello_dma", card, &["before  legacy", "rs dd"]);
    }
}

#[test]
fn hello_virtqueue_sends_one_packet_by_one_descriptor() {
    if !common::require_qemu() {
        return;
    }
    for card in VIRTIO {
        let said = ["len=72 flags=0", "used    idx=1 id=0"];
        says_hello("hello_virtqueue", card, &said);
    }
}

#[test]
fn an_example_says_which_other_is_for_the_card() {
    if !common::require_qemu() {
        return;
    }
    for (name, card, other) in [
        ("hello_bar", "qtest:edu", "not a card whose registers"),
        ("hello_dma", VIRTIO[0], "hello_virtqueue"),
        ("hello_virtqueue", INTEL[1], "hello_dma"),
    ] {
        let refused = example(name).arg(card).output().expect("built");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(
            !refused.status.success() && said.contains(other),
            "{name}: {said}"
        );
    }
}

#[test]
fn send_sends_numbered_frames() {
    if !common::require_qemu() {
        return;
    }
    for card in cards() {
        let dir = tempfile::tempdir().expect("a directory");
        let capture = dir.path().join("sent.pcap");
        let spec = format!("{card},pcap={}", capture.display());
        let out = run(example("send").args([&spec, "200"]));
        // virtio-net has no counters.
        let counter = if card.contains("virtio") {
            "driver"
        } else {
            "card"
        };
        let said = format!("sent 200; the {counter} counted 200");
        assert!(out.contains(&said), "{card}: {out}");
        let packets = packets(&capture);
        assert_eq!(packets.len(), 200, "{card}");
        let mut numbered = packets.iter().zip(0..);
        assert!(
            numbered.all(|(packet, i)| is_sent(packet, MAC, i)),
            "{card}: {packets:x?}"
        );
    }
}

#[test]
fn receive_prints_what_comes_in() {
    if !common::require_qemu() {
        return;
    }
    for card in cards() {
        let (wire, to, spec) = cable(card);
        let mut command = example("receive");
        let mut child = command
            .args([&spec, "3"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("built");
        feed(&mut child, &wire, to);
        let output = child.wait_with_output().expect("our child");
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{card}: {out}");
        let line = "64 bytes 02:00:00:00:00:02 > 52:54:00:12:34:56 type 0x88b5";
        assert_eq!(out.matches(line).count(), 3, "{card}: {out}");
    }
}

#[test]
fn echo_sends_back_what_came() {
    if !common::require_qemu() {
        return;
    }
    for card in cards() {
        let (wire, to, spec) = cable(card);
        let mut command = example("echo");
        let mut child = command
            .args([&spec, "3"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("built");
        let came = feed(&mut child, &wire, to);
        assert!(child.wait().expect("our child").success(), "{card}");
        assert!(came.len() >= 3, "{card}: {came:x?}");
        for echoed in came {
            let expected = [&PEER[..], &MAC, &[0x88, 0xb5], &[echoed[14]; 50]].concat();
            assert_eq!(echoed, expected, "{card}");
        }
    }
}

/// Has `command` send its packet through `card`, and receive one.
fn sends_and_receives_a_packet(command: &mut Command, card: &str) {
    let (wire, to, spec) = cable(card);
    let mut child = command
        .arg(&spec)
        .stdout(Stdio::piped())
        .spawn()
        .expect("built");
    let left = feed(&mut child, &wire, to);
    let output = child.wait_with_output().expect("our child");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{card}: {out}");
    let sent = [&[0xff; 6][..], &MAC, &[0x88, 0xb5], &[0; 46]].concat();
    assert_eq!(left, [sent], "{card}");
    let came = (0..=255).any(|number| out.trim_end() == format!("{:02x?}", frame(number)));
    assert!(came, "{card}: {out}");
}

#[test]
fn the_first_program_sends_a_packet_and_prints_the_one_that_came() {
    if !common::require_qemu() {
        return;
    }
    for card in cards() {
        sends_and_receives_a_packet(&mut example("packet"), card);
    }
}

/// A package of its own, with `main` as its program, that depends on nothing but the library with no feature, in the
/// versions that are here.
fn package(main: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = format!(
        "[package]\nname = \"own\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         pinwire = {{ path = {root:?}, default-features = false }}\n"
    );
    let put =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("room");
    put("Cargo.toml", &manifest);
    std::fs::create_dir(folder.path().join("src")).expect("room");
    put("src/main.rs", main);
    std::fs::copy(root.join("Cargo.lock"), folder.path().join("Cargo.lock")).expect("room");
    folder
}

/// Does the ELF file need a program that loads it, as one with shared libraries does?
fn is_dynamic(elf: &[u8]) -> bool {
    const PT_INTERP: [u8; 4] = 3u32.to_le_bytes();
    let half = |at: usize| usize::from(u16::from_le_bytes([elf[at], elf[at + 1]]));
    let headers = usize::try_from(u64::from_le_bytes(elf[32..40].try_into().expect("eight")));
    let headers = &elf[headers.expect("in the file")..];
    let mut headers = headers.chunks(half(54)).take(half(56));
    headers.any(|header| header.starts_with(&PT_INTERP))
}

/// What cargo prints in a package of its own, and where it builds the package's program, for `target`.
fn cargo(package: &Path, target: &str, arguments: &[&str]) -> (String, PathBuf) {
    // Kept from one run to the next, beside what the tests are built into.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("own");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(arguments)
        .args(["--offline", "--target", target]);
    cargo.env("CARGO_TARGET_DIR", &folder);
    if target.ends_with("gnu") {
        cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    }
    let output = cargo.current_dir(package).output().expect("cargo");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let out = String::from_utf8(output.stdout).expect("text");
    (out, folder.join(target).join("debug/own"))
}

const GNU: &str = "x86_64-unknown-linux-gnu";
const MUSL: &str = "x86_64-unknown-linux-musl";

#[test]
fn the_library_alone_brings_small_crates_only() {
    let own = package(include_str!("../examples/packet.rs"));
    let arguments = ["tree", "--prefix", "none", "--edges", "normal"];
    let (tree, _) = cargo(own.path(), GNU, &arguments);
    assert!(tree.contains("rustix "), "{tree}");
    let large = [
        "clap",
        "etherparse",
        "gungraun",
        "nix",
        "serde",
        "smoltcp",
        "tokio",
    ];
    for name in large {
        let is_there = tree
            .lines()
            .any(|line| line.starts_with(&format!("{name} ")));
        assert!(!is_there, "{name} is in\n{tree}");
    }
}

/// Builds the first program in a package of its own, as one file, and has it send and receive.
fn is_one_file_that_works(target: &str) {
    let own = package(include_str!("../examples/packet.rs"));
    let (_, program) = cargo(own.path(), target, &["build", "--quiet"]);
    let elf = |path: &Path| std::fs::read(path).expect("built");
    assert!(is_dynamic(&elf(
        &std::env::current_exe().expect("this test")
    )));
    assert!(!is_dynamic(&elf(&program)), "{target}");
    sends_and_receives_a_packet(&mut Command::new(program), "qtest:e1000");
}

#[test]
fn with_the_library_alone_a_program_is_one_static_file() {
    if common::require_qemu() {
        is_one_file_that_works(GNU);
    }
}

/// Where Rust for that target is installed; like the least Rust of `qemu/msrv`, it is not downloaded.
#[test]
fn with_musl_a_program_is_one_static_file() {
    let rustc = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", MUSL])
        .output();
    let folder = String::from_utf8(rustc.expect("rustc").stdout).expect("text");
    if !Path::new(folder.trim()).exists() {
        let _ = writeln!(
            std::io::stderr(),
            "\nNOT RUN: Rust for musl is not here: rustup target add {MUSL}"
        );
    } else if common::require_qemu() {
        is_one_file_that_works(MUSL);
    }
}

#[test]
fn frames_come_back_from_within_tokio_while_a_timer_of_its_ticks() {
    if !common::require_qemu() {
        return;
    }
    for card in cards() {
        let (wire, to, spec) = cable(card);
        let mut command = example("tokio_echo");
        let mut child = command
            .args([&spec, "3"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("built");
        let came = feed(&mut child, &wire, to);
        let output = child.wait_with_output().expect("our child");
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{card}: {out}");
        assert!(
            out.contains(" ticks of a timer") && !out.contains(" 0 ticks"),
            "{card}: {out}"
        );
        assert!(came.len() >= 3, "{card}: {came:x?}");
        for echoed in came {
            let expected = [&PEER[..], &MAC, &[0x88, 0xb5], &[echoed[14]; 50]].concat();
            assert_eq!(echoed, expected, "{card}");
        }
    }
}

/// The kernel's end of the card's cable, which is gone with the process.
const TAP: &str = "echo 0 0 >/proc/sys/net/ipv4/ping_group_range
    ip tuntap add tap0 mode tap
    ip addr add 10.0.0.1/24 dev tap0
    ip link set tap0 up";

#[test]
fn linux_pings_smoltcp_over_every_card_and_speaks_tcp_with_it() {
    if !common::require_qemu() {
        return;
    }
    // Here and not in the namespace, which has no network to build with.
    let _ = example("smoltcp_echo");
    if !common::again(&["--net"], TAP, "EXAMPLES_INSIDE") {
        return;
    }
    for card in cards() {
        let spec = format!("{card},net=tap:tap0");
        let mut command = example("smoltcp_echo");
        let mut child = command
            .args([&spec, "10.0.0.2/24", "1"])
            .spawn()
            .expect("built");
        let talked = ping().and_then(|()| talk(100_000));
        if talked.is_err() {
            child.kill().expect("our child");
        }
        let status = child.wait().expect("our child");
        talked.unwrap_or_else(|error| panic!("{card}: {error}"));
        assert!(status.success(), "{card}");
    }
}

/// The card's host.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Asks the card's host by ICMP until it answers: an e1000 of QEMU receives nothing in its first second.
fn ping() -> std::io::Result<()> {
    use rustix::net::{AddressFamily, SocketType, ipproto, socket};
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP))?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let begin = Instant::now();
    loop {
        let question = [&[8, 0, 0, 0, 0, 0, 0, 1][..], b"are you there?"].concat();
        socket.send_to(&question, (HOST, 0))?;
        let mut answer = [0; 100];
        match socket.recv(&mut answer) {
            Err(error) if begin.elapsed() > BOUND => return Err(error),
            Err(_) => {}
            Ok(len) => {
                assert_eq!((answer[0], &answer[8..len]), (0, &question[8..]));
                return Ok(());
            }
        }
    }
}

/// Sends `len` bytes to port 7 of the card, and reads them back until the other end closes.
fn talk(len: usize) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&(HOST, 7).into(), BOUND)?;
    stream.set_read_timeout(Some(BOUND))?;
    let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + i / 256) as u8).collect();
    let mut back = Vec::new();
    let mut sender = stream.try_clone()?;
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| {
            sender.write_all(&bytes)?;
            sender.shutdown(Shutdown::Write)
        });
        let read = stream.read_to_end(&mut back);
        sent.join().expect("no panic").and(read.map(drop))
    })?;
    assert!(back == bytes, "{} of {len} bytes, or others", back.len());
    Ok(())
}

/// What `edu` prints of the device that people call `name`.
fn tour(name: &str, kind: &str) -> String {
    format!("{name} is edu 1.0\n10! is 3628800\n{kind}: copied twice by the device\n")
}

#[test]
fn edu_computes_copies_and_interrupts() {
    if !common::require_qemu() {
        return;
    }
    for (word, kind) in [("msi", "Msi"), ("intx", "Intx")] {
        let out = run(example("edu").args(["qtest:edu", word]));
        assert_eq!(out, tour("qtest:edu", kind));
    }
    let refused = example("edu").arg("qtest:e1000").output().expect("built");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("another device than edu"), "{said}");
}

#[test]
fn examples_do_the_same_over_vfio_on_every_card() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("a UTF-8 path");
    // All are on one hub. The fifth card stays the kernel's: it asks by ARP, and its questions come back
    // to it; and a virtio card waits for somebody to take its frames, which it does.
    let command = "set -e; export PATH=/examples:$PATH
        e1000=0000:00:03.0 e1000e=0000:00:04.0 virtio=0000:00:05.0 packed=0000:00:06.0 edu=0000:00:10.0
        cards=\"$e1000 $e1000e $virtio $packed\" kernel=$(ls /sys/bus/pci/devices/0000:00:07.0/net)
        echo 1 2>/dev/null >/proc/sys/net/ipv6/conf/all/disable_ipv6 || true
        pinwire bind $cards >&2; pinwire bind --force $edu >&2
        ip addr add 10.0.0.1/24 dev $kernel; ip link set $kernel up promisc on
        edu $edu; edu $edu intx

        # PROGRAM COUNT CARD...: in the background, on each card; back when all of them listen.
        each() {
            program=$1 count=$2; shift 2; pids= files=
            for card in $@; do
                file=/tmp/$program.$card
                /examples/$program $card $count >$file & pid=$!
                until [ -s $file ] || ! kill -0 $pid; do sleep 0.1; done
                pids=\"$pids $pid\" files=\"$files $file\"
            done
        }
        ended() { for pid in $pids; do wait $pid; done; cat $files; }
        each receive 50 $e1000e $virtio $packed; send $e1000 50 >&2; ended
        each receive 50 $e1000; send $packed 50 >&2; ended

        for card in $cards; do hello_bar $card; done
        hello_dma $e1000; hello_dma $e1000e; hello_virtqueue $virtio; hello_virtqueue $packed
        for card in $cards; do send $card 300; done

        # Each waits for a frame: the kernel's next question.
        for card in $cards; do
            packet $card >/tmp/packet & pid=$!
            while kill -0 $pid 2>/dev/null; do arping -c 1 -I $kernel 10.0.0.2 >&2 || true; done
            wait $pid; cat /tmp/packet
        done

        before=$(cat /sys/class/net/$kernel/statistics/rx_packets)
        each echo 3 $cards; arping -c 4 -I $kernel 10.0.0.2 >&2 || true; ended
        echo came back $(($(cat /sys/class/net/$kernel/statistics/rx_packets) - before))";
    let options = [
        ["--nic", "e1000,e1000e,virtio,virtio-packed,e1000"],
        ["--net", "hub:0,hub:0,hub:0,hub:0,hub:0"],
        ["--pcap", path],
        ["--device", "edu,addr=0x10"],
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
    let tours = ["Msi", "Intx"].map(|kind| tour("0000:00:10.0", kind));
    assert!(out.starts_with(&tours.concat()), "{out}");

    let macs = [0x56, 0x57, 0x58, 0x59].map(|last| [0x52, 0x54, 0x00, 0x12, 0x34, last]);
    let came = |last: &str| {
        let line = format!("60 bytes 52:54:00:12:34:{last} > ff:ff:ff:ff:ff:ff type 0x88b5");
        out.matches(&line).count()
    };
    assert_eq!([came("56"), came("59")], [3 * 50, 50], "{out}");
    for last in ["56", "57", "58", "59"] {
        let address = format!("Ethernet address 52:54:00:12:34:{last}");
        assert!(out.contains(&address), "{address}: {out}");
    }
    let times = |said: &str| out.matches(said).count();
    // To everybody, from the kernel's card, by ARP.
    let question = "[ff, ff, ff, ff, ff, ff, 52, 54, 00, 12, 34, 5a, 08, 06, ";
    assert_eq!(times(question), 4, "{out}");
    assert_eq!(times("rs dd"), 2, "{out}");
    assert_eq!(times("used    idx=1 id=0"), 2, "{out}");
    // Two of the four have no counters.
    let counted = ["card", "driver"].map(|by| times(&format!("sent 300; the {by} counted 300")));
    assert_eq!(counted, [2, 2], "{out}");
    assert_eq!(times("echoed "), 4, "{out}");
    let back = out
        .lines()
        .last()
        .and_then(|line| line.strip_prefix("came back "));
    let back: u32 = back.and_then(|count| count.parse().ok()).expect("a count");
    assert!(back >= 4 * 3, "{out}");

    // The hub's cable to the kernel's card, which none of the examples had in hand.
    let captured = packets(&dir.path().join("nic4.pcap"));
    let hellos = captured.iter().filter(|packet| is_hello(packet));
    assert_eq!(hellos.count(), 4, "one from each card");
    for mac in macs {
        for number in 0..300 {
            assert!(
                captured.iter().any(|packet| is_sent(packet, mac, number)),
                "frame {number} of {mac:x?}"
            );
        }
    }
}

#[test]
fn an_example_fits_on_two_screens() {
    for (name, most) in NAMES {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.rs"));
        let text = std::fs::read_to_string(&path).expect("the example");
        assert!(
            text.lines().count() < most,
            "{name} is longer than {most} lines"
        );
    }
}

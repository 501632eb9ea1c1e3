//! `pinwire forward`: what goes in at one cable comes out at the other.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::{PacketBuilder, TcpOptionElement};
use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::Value;
use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};

use crate::common::{again, require_qemu};
use crate::{BOUND, Running, Wire, frame, json, pinwire};

/// Forwards between two cables, into which frames go again and again, until it has enough: its output
/// and what came out of each.
fn forward(models: [&str; 2], args: &[&str]) -> (std::process::Output, [Vec<Vec<u8>>; 2]) {
    let wires = [Wire::new(), Wire::new()];
    let devices = [0, 1].map(|side| wires[side].device(models[side]));
    let mut command = pinwire(["forward", &devices[0], &devices[1]]);
    command.args(args);
    let forwarder = thread::spawn(move || command.assert().success().get_output().clone());
    let mut came = [Vec::new(), Vec::new()];
    while !forwarder.is_finished() {
        let both = came.iter().all(|came| !came.is_empty());
        for (wire, came) in wires.iter().zip(&mut came) {
            // Few, until both let frames through: else one alone might have enough of them.
            for number in 0..if both { 4 } else { 1 } {
                wire.send(&sent(number));
            }
            while let Some(frame) = wire.try_recv() {
                came.push(frame);
            }
        }
    }
    for (wire, came) in wires.iter().zip(&mut came) {
        while let Some(frame) = wire.try_recv() {
            came.push(frame);
        }
    }
    (forwarder.join().unwrap(), came)
}

fn sent(number: u32) -> Vec<u8> {
    frame(number, 60 + 400 * number as usize)
}

#[test]
fn frames_pass_both_ways_and_are_captured_with_the_card_that_they_came_in_by() {
    if !require_qemu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.pcapng");
    let args = [
        "--count",
        "200",
        "--json",
        "--write",
        path.to_str().unwrap(),
    ];
    let (output, came) = forward(["e1000", "e1000"], &args);
    let summary = json(&output.stdout);
    assert_eq!(summary["frames"], 200, "{summary}");
    for (side, came) in ["b", "a"].into_iter().zip(&came) {
        assert_eq!(summary[side]["frames"], came.len(), "{summary}");
        assert!(
            came.iter()
                .all(|frame| (0..4).any(|number| sent(number) == *frame))
        );
        assert!((0..4).all(|number| came.contains(&sent(number))));
        assert_eq!(summary[side]["dropped"]["bad_length"], 0, "{summary}");
    }
    let mut reader = PcapNgReader::new(File::open(path).unwrap()).unwrap();
    let mut captured = [0, 0];
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            captured[packet.interface_id as usize] += 1;
            assert!((0..4).any(|number| sent(number) == *packet.data));
        }
    }
    assert_eq!(captured[0], summary["a"]["frames"].as_u64().unwrap());
    assert_eq!(captured[1], summary["b"]["frames"].as_u64().unwrap());
    assert_eq!(reader.interfaces().len(), 2);
}

#[test]
fn frames_come_from_the_card_that_they_leave_by_and_go_to_the_next_hop() {
    if !require_qemu() {
        return;
    }
    let args = [
        "--count",
        "40",
        "--rewrite-mac",
        "--next-hop-b",
        "02:00:00:00:00:07",
    ];
    let (output, [from_a, from_b]) = forward(["e1000", "e1000"], &args);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("A to B"), "{text}");
    let mac = |last: u8| [0x52, 0x54, 0x00, 0x12, 0x34, last];
    assert!(!from_a.is_empty() && !from_b.is_empty());
    for frame in from_a {
        assert_eq!(
            (&frame[..6], &frame[6..12]),
            (&[2, 0, 0, 0, 0, 2][..], &mac(0x56)[..])
        );
    }
    for frame in from_b {
        assert_eq!(
            (&frame[..6], &frame[6..12]),
            (&[2, 0, 0, 0, 0, 7][..], &mac(0x57)[..])
        );
    }
}

#[test]
fn cards_of_different_kinds_hand_frames_to_each_other() {
    if !require_qemu() {
        return;
    }
    for models in [
        ["e1000", "virtio-net"],
        ["virtio-net,packed=on", "e1000e"],
        ["virtio-net", "virtio-net,packed=on"],
    ] {
        let (output, came) = forward(models, &["--count", "200", "--json"]);
        let summary = json(&output.stdout);
        assert_eq!(summary["frames"], 200, "{models:?}: {summary}");
        for (side, came) in ["b", "a"].into_iter().zip(&came) {
            assert_eq!(summary[side]["frames"], came.len(), "{models:?}: {summary}");
            let known = |frame: &Vec<u8>| (0..4).any(|number| sent(number) == *frame);
            assert!(came.iter().all(known), "{models:?}");
            let all = (0..4).all(|number| came.contains(&sent(number)));
            assert!(all, "{models:?}: {summary}");
        }
        for (side, model) in ["a", "b"].into_iter().zip(models) {
            let side = &summary[side];
            let counted = ["received_by_device", "sent_by_device", "missed_by_device"]
                .map(|figure| side[figure].is_u64());
            match model.starts_with("virtio") {
                true => assert_eq!(
                    (&side["counted_by"], counted),
                    (&"driver".into(), [false; 3])
                ),
                false => assert_eq!((&side["counted_by"], counted), (&"card".into(), [true; 3])),
            }
        }
    }
}

#[test]
fn cards_that_cannot_share_memory_are_refused() {
    let mut command = pinwire(["forward", "qtest:e1000", "0000:00:03.0"]);
    let output = command.assert().code(1).get_output().clone();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("cannot reach the same memory"), "{text}");
}

/// A network that is gone with the process: nothing leaves the machine. The kernel believes 10.0.0.2 to be
/// behind the tap.
const NETWORK: &str = "ip tuntap add tap0 mode tap
echo 1 > /proc/sys/net/ipv6/conf/tap0/disable_ipv6
ip link set tap0 address 02:00:00:00:00:01
ip addr add 10.0.0.1/24 dev tap0
ip link set tap0 up
ip neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev tap0
ip link set lo up";

const KERNEL_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const KERNEL_IP: [u8; 4] = [10, 0, 0, 1];
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const FAR_IP: [u8; 4] = [10, 0, 0, 2];
const RINGS: [&str; 2] = ["virtio-net,packed=off", "virtio-net,packed=on"];
const MSS: u16 = 1460;

/// Is this process in a network of its own? Where it is not, runs the calling test again in one; the
/// test must return then.
fn has_a_network() -> bool {
    require_qemu() && again(&["--net"], NETWORK, "FORWARD_INSIDE")
}

/// From the kernel's tap to a wire, once something has passed.
struct FromTheKernel {
    child: Running,
    wire: Wire,
    /// A socket of the kernel's whose datagrams have no checksum, so that nothing is left to be done.
    complete: UdpSocket,
    /// What has come out at the wire.
    came: Vec<Vec<u8>>,
}

impl FromTheKernel {
    fn start(kernels_card: &str, wires_card: &str, more: &[&str]) -> Self {
        let wire = Wire::new();
        let a = format!("qtest:{kernels_card},net=tap:tap0");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pinwire"));
        let command = command.args(["forward", &a, &wire.device(wires_card), "--json"]);
        let mut forwarding = Self {
            child: Running(command.args(more).stdout(Stdio::piped()).spawn().unwrap()),
            wire,
            complete: without_checksum(),
            came: Vec::new(),
        };
        // Until the kernel has heard of the cable, it sends nothing.
        forwarding.pass_a_datagram(b"begin");
        forwarding
    }

    /// From the wire to the kernel: QEMU's e1000 receives nothing in its first second, which would make the
    /// kernel believe that the way is long, and send little at a time.
    fn pass_a_datagram_back(&self) {
        let mut datagram = Vec::new();
        PacketBuilder::ethernet2(FAR_MAC, KERNEL_MAC)
            .ipv4(FAR_IP, KERNEL_IP, 64)
            .udp(9, self.complete.local_addr().unwrap().port())
            .write(&mut datagram, b"back")
            .unwrap();
        let soon = Duration::from_millis(100);
        self.complete.set_read_timeout(Some(soon)).unwrap();
        let begin = Instant::now();
        while self.complete.recv(&mut [0; 4]).is_err() {
            assert!(begin.elapsed() < BOUND, "nothing passes back");
            self.wire.send(&datagram);
        }
    }

    /// Sends a datagram that can pass, until it has: what went before it has passed or was dropped.
    fn pass_a_datagram(&mut self, payload: &[u8]) {
        let begin = Instant::now();
        loop {
            let _ = self.complete.send_to(payload, (Ipv4Addr::from(FAR_IP), 9));
            if self.next().is_some_and(|frame| frame.ends_with(payload)) {
                return;
            }
            assert!(begin.elapsed() < BOUND, "nothing passes");
        }
    }

    /// The next frame that comes out, if one does soon: without what a card padded it with.
    fn next(&mut self) -> Option<&[u8]> {
        let mut frame = self.wire.try_recv()?;
        if frame[12..14] == [8, 0] {
            let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
            let len = 14 + usize::from(ip.total_len());
            frame.truncate(len);
        }
        self.came.push(frame);
        self.came.last().map(Vec::as_slice)
    }

    /// Plays a server to a client of the kernel's: the first `len` bytes that it says. All it says at
    /// once is less than a new connection may.
    fn serve(&mut self, len: usize) -> Vec<u8> {
        let begin = Instant::now();
        let (mut said, mut from) = (Vec::new(), None);
        while said.len() < len {
            assert!(begin.elapsed() < BOUND, "the client says no more");
            let Some(segment) = self.next().and_then(segment) else {
                continue;
            };
            if segment.syn {
                self.wire.send(&accept(&segment));
                from = Some(segment.number.wrapping_add(1));
            } else if Some(segment.number.wrapping_sub(said.len() as u32)) == from {
                said.extend(segment.payload);
            }
        }
        said
    }

    /// Ends it: its summary, and all that came out.
    fn end(mut self) -> (Value, Vec<Vec<u8>>) {
        let mut stdout = self.child.0.stdout.take().unwrap();
        self.child.interrupt();
        let mut summary = Vec::new();
        stdout.read_to_end(&mut summary).unwrap();
        while self.next().is_some() {}
        (json(&summary), self.came)
    }
}

fn without_checksum() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::from(KERNEL_IP), 0)).unwrap();
    let on: libc::c_int = 1;
    let (value, len) = ((&raw const on).cast(), size_of_val(&on) as u32);
    // SAFETY: an int, and its length.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            value,
            len,
        )
    };
    assert_eq!(set, 0);
    socket
}

/// What a client of the kernel's said.
struct Segment {
    port: u16,
    number: u32,
    syn: bool,
    payload: Vec<u8>,
}

/// A TCP segment, whose checksums another stack finds right.
fn segment(frame: &[u8]) -> Option<Segment> {
    let ip = Ipv4Packet::new_checked(frame.get(14..)?).ok()?;
    if ip.next_header() != IpProtocol::Tcp {
        return None;
    }
    assert!(ip.verify_checksum());
    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
    assert!(tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
    assert!(tcp.payload().len() <= MSS.into());
    Some(Segment {
        port: tcp.src_port(),
        number: tcp.seq_number().0 as u32,
        syn: tcp.syn(),
        payload: tcp.payload().to_vec(),
    })
}

/// The server's first word.
fn accept(hello: &Segment) -> Vec<u8> {
    let mut answer = Vec::new();
    PacketBuilder::ethernet2(FAR_MAC, KERNEL_MAC)
        .ipv4(FAR_IP, KERNEL_IP, 64)
        .tcp(80, hello.port, 99, 65_535)
        .syn()
        .ack(hello.number.wrapping_add(1))
        .options(&[TcpOptionElement::MaximumSegmentSize(MSS)])
        .unwrap()
        .write(&mut answer, &[])
        .unwrap();
    answer
}

#[test]
fn with_offload_the_other_card_cuts_what_the_kernel_left_together() {
    if !has_a_network() {
        return;
    }
    let content: Vec<u8> = (0..14_000)
        .map(|at: u32| (at * 7 + at / 256) as u8)
        .collect();
    for kernels_card in RINGS {
        for more in [&["--offload"][..], &[]] {
            // QEMU's e1000e, before 8.0, makes one packet in fragments of it.
            let mut forwarding = FromTheKernel::start(kernels_card, "e1000", more);
            forwarding.pass_a_datagram_back();
            let client = thread::spawn({
                let content = content.clone();
                move || {
                    let mut server = TcpStream::connect((Ipv4Addr::from(FAR_IP), 80)).unwrap();
                    server.write_all(&content).unwrap();
                    server
                }
            });
            assert!(forwarding.serve(content.len()) == content);
            drop(client.join().unwrap());
            let (summary, came) = forwarding.end();
            let frames = summary["a"]["frames"].as_u64().unwrap();
            // How much the kernel leaves together is for it to say.
            match more.is_empty() {
                true => assert_eq!(frames, came.len() as u64, "{summary}"),
                false => assert!(frames < came.len() as u64, "{summary}"),
            }
            assert_eq!(summary["a"]["dropped"]["not_offered"], 0, "{summary}");
        }
    }
}

/// The datagram with this payload, whose checksums another stack finds right.
fn datagram(came: &[Vec<u8>], payload: &[u8]) -> bool {
    let frame = came.iter().find(|frame| frame.ends_with(payload));
    let Some(frame) = frame else { return false };
    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert!(ip.verify_checksum() && udp.checksum() != 0);
    assert!(udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
    true
}

#[test]
fn with_offload_the_other_card_sums_what_the_kernel_did_not_or_drops_and_counts_it() {
    if !has_a_network() {
        return;
    }
    let kernels = UdpSocket::bind((Ipv4Addr::from(KERNEL_IP), 0)).unwrap();
    for ring in RINGS {
        // A virtio card sums nothing where its cable is a socket.
        for (wires_card, more, passes) in [
            ("e1000", &["--offload"][..], true),
            ("e1000e", &["--offload"], true),
            (ring, &["--offload"], false),
            (ring, &[], true),
        ] {
            let mut forwarding = FromTheKernel::start(ring, wires_card, more);
            let to = (Ipv4Addr::from(FAR_IP), 9);
            kernels.send_to(b"with a checksum", to).unwrap();
            forwarding.pass_a_datagram(b"end");
            let (summary, came) = forwarding.end();
            let what = format!("{ring} to {wires_card}, {more:?}: {summary}");
            assert_eq!(datagram(&came, b"with a checksum"), passes, "{what}");
            let dropped = u64::from(!passes);
            assert_eq!(summary["a"]["dropped"]["not_offered"], dropped, "{what}");
        }
    }
}

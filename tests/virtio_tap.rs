//! virtio-net's checksums and segmentation against Linux: QEMU offers them where its cable is a tap.
//!
//! Each test runs itself again in a network of its own, with two taps. On the first is the card that is
//! tested; the kernel is its peer, and the way to the second, on which is an e1000. A tap with no such
//! offloads makes the kernel itself finish what a card left to others: what comes out there is checked
//! by another stack, byte for byte.
#![cfg(feature = "cli")]

mod common;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etherparse::{
    Ethernet2Header, NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TcpSlice, TransportSlice,
};
use pinwire::backend::Qtest;
use pinwire::dma::{Frame, Offload, OffloadFlags, Pool};
use pinwire::nic::{self, Checksum, Nic, NicConfig, Received};

/// The kernel's taps; the first is 10.0.0.1, the second 10.0.1.1.
const TAP: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The card on the first, which is 10.0.0.2.
const CARD: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
const KERNEL_IP: [u8; 4] = [10, 0, 0, 1];
const CARD_IP: [u8; 4] = [10, 0, 0, 2];
/// The card on the second.
const FAR_IP: [u8; 4] = [10, 0, 1, 2];
const FAR: &str = "qtest:e1000,net=tap:tap1,mac=52:54:00:00:01:02";
const RINGS: [&str; 2] = ["off", "on"];
const BOUND: Duration = Duration::from_secs(20);
const MSS: usize = 1460;

/// A network that is gone with the process: nothing leaves the machine. Both taps are there before
/// anything is sent to them.
const NETWORK: &str = "for n in 0 1; do
    ip tuntap add tap$n mode tap
    echo 1 > /proc/sys/net/ipv6/conf/tap$n/disable_ipv6
    ip link set tap$n address 02:00:00:00:0$n:01
    ip addr add 10.0.$n.1/24 dev tap$n
    ip link set tap$n up
    ip neigh add 10.0.$n.2 lladdr 52:54:00:00:0$n:02 dev tap$n
done
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward";

/// Is this process in a network of its own? Where it is not, runs the calling test again in one; the
/// test must return then.
fn has_a_network() -> bool {
    common::require_qemu() && common::again(&["--net"], NETWORK, "VIRTIO_TAP_INSIDE")
}

/// The card on the first tap.
fn card(packed: &str, config: &NicConfig) -> Box<dyn Nic> {
    start(&card_spec(packed), config)
}

fn card_spec(packed: &str) -> String {
    format!("qtest:virtio-net,net=tap:tap0,packed={packed},mac=52:54:00:00:00:02")
}

fn start(spec: &str, config: &NicConfig) -> Box<dyn Nic> {
    let spec = spec.strip_prefix("qtest:").unwrap();
    let qtest = Qtest::start(&spec.parse().unwrap()).unwrap();
    let nic = nic::start(qtest, config).unwrap();
    // Until the kernel has heard of the cable, which may take it a second, it drops what is for us.
    let tap = if spec.contains("tap0") {
        "tap0"
    } else {
        "tap1"
    };
    let begin = Instant::now();
    while !is_up(tap) {
        assert!(begin.elapsed() < BOUND, "{tap} is down");
        std::thread::sleep(Duration::from_millis(10));
    }
    nic
}

fn is_up(tap: &str) -> bool {
    let output = Command::new("ip")
        .args(["-o", "link", "show", tap])
        .output();
    String::from_utf8_lossy(&output.unwrap().stdout).contains("state UP")
}

fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (seed * 31 + i * 7 + i / 256) as u8)
        .collect()
}

/// UDP from the card, both checksums right.
fn udp(to: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2(CARD, TAP)
        .ipv4(CARD_IP, to, 64)
        .udp(1234, port)
        .write(&mut packet, payload)
        .unwrap();
    packet
}

/// TCP from the card, both checksums right.
fn tcp(to: [u8; 4], header: TcpHeader, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2(CARD, TAP)
        .ipv4(CARD_IP, to, 64)
        .tcp_header(header)
        .write(&mut packet, payload)
        .unwrap();
    packet
}

/// What is asked for, of a packet without options.
fn offload(flags: OffloadFlags, mss: usize) -> Offload {
    let udp = flags.contains(OffloadFlags::UDP_CHECKSUM);
    Offload {
        flags: flags | OffloadFlags::IP_CHECKSUM,
        l2_len: 14,
        l3_len: 20,
        l4_len: if udp { 8 } else { 20 },
        mss: mss as u16,
        vlan: 0,
    }
}

/// What the caller leaves to the card: the IP checksum is wrong, the other holds the sum of the
/// pseudo-header.
fn unsummed(mut packet: Vec<u8>, offload: Offload) -> Vec<u8> {
    packet[24..26].fill(0xaa);
    let (protocol, field) = match offload.flags.contains(OffloadFlags::UDP_CHECKSUM) {
        true => (17, 40),
        false => (6, 50),
    };
    let words = packet[26..34].chunks(2);
    let words = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let mut sum = words.sum::<u32>() + protocol + packet.len() as u32 - 34;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[field..field + 2].copy_from_slice(&(sum as u16).to_be_bytes());
    packet
}

/// Sends one frame and waits until the card has taken it.
fn send(nic: &mut dyn Nic, packet: &[u8], offload: Offload) {
    let pool = Pool::new(nic.dma(), 1, 65_536).unwrap();
    let mut buf = pool.take().unwrap();
    buf.fill(packet);
    let mut frame = Frame::from(buf);
    frame.set_offload(offload);
    assert_eq!(nic.send(&mut vec![frame]).unwrap(), 1);
    let mut done = Vec::new();
    let begin = Instant::now();
    while nic.reap(&mut done).unwrap() == 0 {
        assert!(begin.elapsed() < BOUND, "the card does not take a frame");
    }
}

/// The next frame that `wanted` finds something in.
fn next<T>(nic: &mut dyn Nic, wanted: impl Fn(&Received, &[u8]) -> Option<T>) -> T {
    let begin = Instant::now();
    let mut got = Vec::new();
    while begin.elapsed() < BOUND {
        nic.wait(Duration::from_millis(100)).unwrap();
        nic.recv(&mut got, 1).unwrap();
        for received in got.drain(..) {
            let packet = received.frame.to_vec();
            if let Some(found) = wanted(&received, &packet) {
                return found;
            }
        }
    }
    panic!("nothing of the kind came in");
}

/// The payload of a UDP packet, or a TCP packet, all of whose checksums are right.
fn sound(packet: &[u8]) -> Option<Vec<u8>> {
    let parsed = SlicedPacket::from_ethernet(packet).unwrap();
    let Some(NetSlice::Ipv4(ip)) = &parsed.net else {
        return None;
    };
    let header = ip.header();
    assert_eq!(
        header.header_checksum(),
        header.to_header().calc_header_checksum()
    );
    let (found, sum, payload) = match &parsed.transport {
        Some(TransportSlice::Udp(udp)) => {
            let sum = udp
                .to_header()
                .calc_checksum_ipv4(&header.to_header(), udp.payload());
            (udp.checksum(), sum.unwrap(), udp.payload())
        }
        Some(TransportSlice::Tcp(tcp)) => {
            let sum = tcp.calc_checksum_ipv4(header.source(), header.destination());
            (tcp.checksum(), sum.unwrap(), tcp.payload())
        }
        _ => return None,
    };
    assert_eq!(found, sum, "the checksum of {} bytes", payload.len());
    Some(payload.to_vec())
}

/// The kernel's counter `name` of `protocol`.
fn counted(protocol: &str, name: &str) -> u64 {
    let snmp = std::fs::read_to_string("/proc/self/net/snmp").unwrap();
    let mut lines = snmp.lines().filter_map(|line| line.split_once(": "));
    let mut next = || lines.find(|(of, _)| *of == protocol).unwrap().1;
    let (names, values) = (next(), next());
    let at = names.split(' ').position(|known| known == name).unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

/// Everything that the kernel found wrong with what came in.
fn complaints() -> [u64; 4] {
    [
        ("Ip", "InHdrErrors"),
        ("Udp", "InCsumErrors"),
        ("Tcp", "InCsumErrors"),
        ("Udp", "InErrors"),
    ]
    .map(|(protocol, name)| counted(protocol, name))
}

#[test]
fn udp_whose_checksums_are_left_to_the_card_arrives_in_a_socket_of_the_kernel() {
    if !has_a_network() {
        return;
    }
    let socket = UdpSocket::bind("10.0.0.1:4321").unwrap();
    socket.set_read_timeout(Some(BOUND)).unwrap();
    for packed in RINGS {
        let mut nic = card(packed, &NicConfig::default());
        let left = offload(OffloadFlags::UDP_CHECKSUM, 0);
        assert!(nic.offloads().contains(left.flags | OffloadFlags::TSO));
        let before = complaints();
        let mut arrived = vec![0; 65_536];
        for len in [1, 2, 777, 1472] {
            let payload = bytes(len, len);
            let packet = unsummed(udp(KERNEL_IP, 4321, &payload), left);
            send(&mut *nic, &packet, left);
            assert_eq!(socket.recv(&mut arrived).unwrap(), len);
            assert_eq!(arrived[..len], payload);
        }
        assert_eq!(complaints(), before, "packed={packed}");
        // The kernel does look: the same with nobody asked to finish it.
        let wrong = unsummed(udp(KERNEL_IP, 4321, &bytes(1, 100)), left);
        send(&mut *nic, &wrong, offload(OffloadFlags::IP_CHECKSUM, 0));
        let right = udp(KERNEL_IP, 4321, b"after it");
        send(&mut *nic, &right, Offload::NONE);
        assert_eq!(socket.recv(&mut arrived).unwrap(), 8);
        let [ip, udp, tcp, errors] = before;
        assert_eq!(complaints(), [ip, udp + 1, tcp, errors + 1]);
    }
}

/// The kernel hands on what a card left to others without a look at it: so a wrong sum of a
/// pseudo-header would make a wrong checksum on the far side.
#[test]
fn checksums_that_the_kernel_finishes_are_right_on_the_far_side() {
    if !has_a_network() {
        return;
    }
    for packed in RINGS {
        let mut nic = card(packed, &NicConfig::default());
        let mut far = start(FAR, &NicConfig::default());
        for len in [1, 2, 777, 1460] {
            let payload = bytes(len, len);
            let header = TcpHeader::new(1234, 9, 77, 8192);
            let sums = [OffloadFlags::UDP_CHECKSUM, OffloadFlags::TCP_CHECKSUM];
            for (sum, packet) in sums.into_iter().zip([
                udp(FAR_IP, 9, &payload),
                tcp(FAR_IP, header.clone(), &payload),
            ]) {
                let left = offload(sum, 0);
                send(&mut *nic, &unsummed(packet, left), left);
                let arrived = next(&mut *far, |_, packet| sound(packet));
                assert_eq!(arrived, payload, "{sum:?}, packed={packed}");
            }
        }
    }
}

#[test]
fn tcp_to_be_cut_arrives_in_segments_that_are_right_on_the_far_side() {
    if !has_a_network() {
        return;
    }
    for packed in RINGS {
        let mut nic = card(packed, &NicConfig::default());
        let mut far = start(FAR, &NicConfig::default());
        for (len, mss) in [(20_000, MSS), (20_000, 536), (65_481, MSS), (1461, MSS)] {
            let payload = bytes(len, len);
            let mut header = TcpHeader::new(1234, 9, 1_000_000, 8192);
            (header.ack, header.psh) = (true, true);
            let left = offload(OffloadFlags::TCP_CHECKSUM | OffloadFlags::TSO, mss);
            let packet = unsummed(tcp(FAR_IP, header, &payload), left);
            send(&mut *nic, &packet, left);
            let mut together = Vec::new();
            while together.len() < len {
                let (number, segment) = next(&mut *far, |_, packet| {
                    let segment = sound(packet)?;
                    Some((tcp_of(packet)?.sequence_number(), segment))
                });
                assert_eq!(number as usize, 1_000_000 + together.len(), "in order");
                assert!(segment.len() <= mss, "{} bytes", segment.len());
                together.extend(segment);
            }
            assert_eq!(together, payload, "mss {mss}, packed={packed}");
        }
    }
}

fn tcp_of(packet: &[u8]) -> Option<TcpSlice<'_>> {
    match SlicedPacket::from_ethernet(packet).ok()?.transport {
        Some(TransportSlice::Tcp(tcp)) => Some(tcp),
        _ => None,
    }
}

#[test]
fn what_the_kernel_left_undone_is_told_with_rx_offload_and_done_without() {
    if !has_a_network() {
        return;
    }
    let socket = UdpSocket::bind("10.0.0.1:4321").unwrap();
    for packed in RINGS {
        for rx_offload in [true, false] {
            let config = NicConfig {
                rx_offload,
                ..NicConfig::default()
            };
            let mut nic = card(packed, &config);
            for len in [1, 777, 1472] {
                let payload = bytes(len, len);
                socket.send_to(&payload, "10.0.0.2:5555").unwrap();
                let (packet, said, left) = next(&mut *nic, |received, packet| {
                    let said = received.l4_checksum;
                    let whole = Ethernet2Header::from_slice(packet).ok()?.0.source == TAP;
                    let is_udp = packet.get(23) == Some(&17);
                    (whole && is_udp).then(|| (packet.to_vec(), said, received.frame.offload()))
                });
                assert_eq!(packet[42..], payload);
                if rx_offload {
                    let flags = OffloadFlags::UDP_CHECKSUM;
                    let expected = Offload {
                        flags,
                        ..offload(flags, 0)
                    };
                    assert_eq!((said, left), (Checksum::Good, expected));
                    let mut mine = unsummed(packet.clone(), expected);
                    mine[24..26].copy_from_slice(&packet[24..26]);
                    assert_eq!(packet, mine, "it has the pseudo-header's sum");
                } else {
                    assert_eq!((said, left), (Checksum::Unchecked, Offload::NONE));
                    assert_eq!(sound(&packet).unwrap(), payload);
                }
            }
        }
    }
}

/// A server of the kernel's writes more than goes into one segment.
#[test]
fn tcp_comes_in_uncut_with_rx_offload_and_in_segments_without() {
    if !has_a_network() {
        return;
    }
    for (packed, port) in [("off", 7000), ("on", 7001)] {
        let mut longest = Vec::new();
        for rx_offload in [true, false] {
            let port = port + 10 * u16::from(rx_offload);
            let config = NicConfig {
                rx_offload,
                ..NicConfig::default()
            };
            let mut nic = card(packed, &config);
            let frames = download(&mut *nic, port, &bytes(5, 14_000));
            let mut together = Vec::new();
            for (packet, left, said) in &frames {
                let payload = tcp_of(packet).unwrap().payload().to_vec();
                if rx_offload {
                    let sum = OffloadFlags::TCP_CHECKSUM;
                    assert!(left.flags.contains(sum) && *said == Checksum::Good);
                    let cut = left.flags.contains(OffloadFlags::TSO);
                    assert_eq!(cut, payload.len() > MSS, "{} bytes", payload.len());
                    assert_eq!(left.mss, if cut { MSS as u16 } else { 0 });
                } else {
                    assert_eq!(*left, Offload::NONE);
                    sound(packet).expect("TCP");
                }
                together.extend(payload);
            }
            assert_eq!(together, bytes(5, 14_000), "packed={packed}");
            let lengths = frames.iter().map(|(packet, ..)| packet.len());
            longest.push(lengths.max().unwrap());
        }
        // How many segments the kernel leaves together is for it to say.
        let [uncut, cut] = longest[..] else {
            panic!("{longest:?}")
        };
        assert!(uncut > 54 + MSS && cut == 54 + MSS, "{longest:?}");
    }
}

/// Everything that a server of the kernel's says once it is connected to.
fn download(nic: &mut dyn Nic, port: u16, says: &[u8]) -> Vec<(Vec<u8>, Offload, Checksum)> {
    let server = TcpListener::bind((Ipv4Addr::from(KERNEL_IP), port)).unwrap();
    let mut hello = TcpHeader::new(4000, port, 99, 65_535);
    hello.syn = true;
    hello
        .set_options(&[etherparse::TcpOptionElement::MaximumSegmentSize(MSS as u16)])
        .unwrap();
    send(nic, &tcp(KERNEL_IP, hello, &[]), Offload::NONE);
    let first = next(nic, |_, packet| {
        let answer = tcp_of(packet)?;
        answer.syn().then(|| answer.sequence_number())
    });
    let mut answer = TcpHeader::new(4000, port, 100, 65_535);
    (answer.ack, answer.acknowledgment_number) = (true, first.wrapping_add(1));
    send(nic, &tcp(KERNEL_IP, answer, &[]), Offload::NONE);
    let (mut peer, _) = server.accept().unwrap();
    peer.write_all(says).unwrap();
    let (mut frames, mut next_number, mut came) = (Vec::new(), first.wrapping_add(1), 0);
    while came < says.len() {
        let (frame, len) = next(nic, |received, packet| {
            let tcp = tcp_of(packet)?;
            // Not what the kernel says again.
            let is_next = tcp.sequence_number() == next_number && !tcp.payload().is_empty();
            is_next.then(|| {
                let frame = (
                    packet.to_vec(),
                    received.frame.offload(),
                    received.l4_checksum,
                );
                (frame, tcp.payload().len())
            })
        });
        next_number = next_number.wrapping_add(len as u32);
        came += len;
        frames.push(frame);
    }
    frames
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn pings_of_every_size_are_answered_by_the_kernel_and_through_it() {
    if !has_a_network() {
        return;
    }
    for packed in RINGS {
        let card = card_spec(packed);
        // By the kernel; then through it, by `pinwire echo`, once from either side.
        pings(&card, "10.0.0.1", &[]);
        let far = [(&*card, "10.0.0.2", FAR, "10.0.1.2", "02:00:00:00:01:01")];
        let near = [(FAR, "10.0.1.2", &*card, "10.0.0.2", "02:00:00:00:00:01")];
        for (answers, at, asks, from, via) in far.into_iter().chain(near) {
            let echo = Command::new(env!("CARGO_BIN_EXE_pinwire"))
                .args(["echo", answers, "--address", at])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let _echo = Running(echo.unwrap());
            pings(asks, at, &["--from", from, "--via", via]);
        }
    }
}

/// A ping of `size` bytes from `card`, asked for `count` times: how many were answered whole.
fn ping(card: &str, whom: &str, more: &[&str], size: &str, count: &str) -> u64 {
    let output = Command::new(env!("CARGO_BIN_EXE_pinwire"))
        .args(["ping", card, whom, "--json", "-s", size])
        .args(["-c", count, "-i", "0.02"])
        .args(more)
        .output()
        .unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {card} to {whom}: {complaint}")
    });
    assert_eq!(
        (&said["damaged"], &said["duplicates"]),
        (&0.into(), &0.into())
    );
    said["received"].as_u64().unwrap()
}

fn pings(card: &str, whom: &str, more: &[&str]) {
    for size in ["1", "2", "56", "1472", "1473", "9000", "65507"] {
        // Who answers may not have begun; and each plugs the cable in anew, of which the kernel may take
        // a second to hear. Until then it drops what is for the card.
        let all = (0..10).any(|_| ping(card, whom, more, size, "5") == 5);
        assert!(all, "{size} bytes from {card} to {whom}");
    }
}

//! Checksums and segmentation against Linux, over IPv4 and IPv6: QEMU's virtio-net offers them where its
//! cable is a tap, and its e1000e leaves them to the tap, too.
//!
//! Each test runs itself again in a network of its own, with two taps. On the first is the card that is
//! tested; the kernel is its peer, and the way to the second, on which is an e1000. A tap with no such
//! offloads makes the kernel itself finish what a card left to others: what comes out there is checked
//! by another stack, byte for byte. The card may be in the VM, over VFIO, too, where this file's
//! `in_the_vm` has it; its cable and all others are where they were.
#![cfg(all(feature = "cli", feature = "testing"))]

mod common;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etherparse::{
    Ethernet2Header, IpHeaders, NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket,
    TcpHeader, TcpSlice, TransportSlice,
};
use pinwire::backend::Qtest;
use pinwire::dma::Pool;
use pinwire::net::Forward;
use pinwire::nic::{Checksum, Frame, Nic, NicConfig, Offload, OffloadFlags, Received};
use pinwire::open;
use pinwire::testing::{PacketSocket, Wire};

/// The kernel's taps; the first is 10.0.0.1 and fd00:0:0:1::1, the second 10.0.1.1 and fd00:0:0:2::1.
const TAP: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The card on the first, which is 10.0.0.2 and fd00:0:0:1::2.
const CARD: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
/// By IPv4, and by IPv6.
const KERNEL: [IpAddr; 2] = [ipv4(0, 1), ipv6(0, 1)];
const CARD_IP: [IpAddr; 2] = [ipv4(0, 2), ipv6(0, 2)];
/// The card on the second.
const FAR: [IpAddr; 2] = [ipv4(1, 2), ipv6(1, 2)];
const FAR_CARD: &str = "qtest:e1000,net=tap:tap1,mac=52:54:00:00:01:02";
const RINGS: [&str; 2] = ["virtio-net,packed=off", "virtio-net,packed=on"];
/// Those that leave their work on what they send to the tap.
const CARDS: [&str; 3] = [RINGS[0], RINGS[1], "e1000e"];
const BOUND: Duration = Duration::from_secs(20);
const MTU: usize = 1500;

const fn ipv4(tap: u8, host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, tap, host))
}

const fn ipv6(tap: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, tap + 1, 0, 0, 0, host))
}

/// A network that is gone with the process: nothing leaves the machine. Both taps are there before
/// anything is sent to them.
const NETWORK: &str = "for n in 0 1; do
    ip tuntap add tap$n mode tap
    ip link set tap$n address 02:00:00:00:0$n:01 addrgenmode none
    ip addr add 10.0.$n.1/24 dev tap$n
    ip addr add fd00:0:0:$((n + 1))::1/64 dev tap$n nodad
    ip link set tap$n up
    for ip in 10.0.$n.2 fd00:0:0:$((n + 1))::2; do
        ip neigh add $ip lladdr 52:54:00:00:0$n:02 dev tap$n
    done
done
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";

/// Is this process in a network of its own? Where it is not, runs the calling test again in one; the
/// test must return then.
fn has_a_network() -> bool {
    common::require_qemu() && common::again(&["--net"], NETWORK, "VIRTIO_TAP_INSIDE")
}

/// The card on the first tap.
fn card(model: &str, config: &NicConfig) -> Box<dyn Nic> {
    start(&card_spec(model), config)
}

fn card_spec(model: &str) -> String {
    format!("qtest:{model},net=tap:tap0,mac=52:54:00:00:00:02")
}

fn start(spec: &str, config: &NicConfig) -> Box<dyn Nic> {
    let spec = spec.strip_prefix("qtest:").unwrap();
    let qtest = Qtest::start(&spec.parse().unwrap()).unwrap();
    let nic = open::start(qtest, config).unwrap();
    await_cable(if spec.contains("tap0") {
        "tap0"
    } else {
        "tap1"
    });
    nic
}

/// Until the kernel has heard of the cable, which may take it a second, it drops what is for us.
fn await_cable(tap: &str) {
    let begin = Instant::now();
    while !is_up(tap) {
        assert!(begin.elapsed() < BOUND, "{tap} is down");
        std::thread::sleep(Duration::from_millis(10));
    }
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

/// A packet from the card.
fn from_card(to: IpAddr) -> PacketBuilderStep<IpHeaders> {
    let builder = PacketBuilder::ethernet2(CARD, TAP);
    let [card, card6] = CARD_IP;
    match (to, card, card6) {
        (IpAddr::V4(to), IpAddr::V4(card), _) => builder.ipv4(card.octets(), to.octets(), 64),
        (IpAddr::V6(to), _, IpAddr::V6(card)) => builder.ipv6(card.octets(), to.octets(), 64),
        _ => unreachable!("an address of each kind"),
    }
}

/// UDP from the card, all checksums right.
fn udp(to: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let udp = from_card(to).udp(1234, port);
    udp.write(&mut packet, payload).unwrap();
    packet
}

/// TCP from the card, all checksums right.
fn tcp(to: IpAddr, header: TcpHeader, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let tcp = from_card(to).tcp_header(header);
    tcp.write(&mut packet, payload).unwrap();
    packet
}

fn ip_header(ip: IpAddr) -> usize {
    if ip.is_ipv6() { 40 } else { 20 }
}

/// The most that TCP without options has in a packet.
fn longest_segment(ip: IpAddr) -> usize {
    MTU - ip_header(ip) - 20
}

/// What is asked for, of a packet between `ip` and us that has no options.
fn offload(ip: IpAddr, flags: OffloadFlags, mss: usize) -> Offload {
    let udp = flags.contains(OffloadFlags::UDP_CHECKSUM);
    let over = match ip {
        IpAddr::V4(_) => OffloadFlags::IP_CHECKSUM,
        IpAddr::V6(_) => OffloadFlags::IPV6,
    };
    Offload {
        flags: flags | over,
        l2_len: 14,
        l3_len: ip_header(ip) as u8,
        l4_len: if udp { 8 } else { 20 },
        mss: mss as u16,
        vlan: 0,
    }
}

/// What the caller leaves to the card: the IP checksum is wrong, the other holds the sum of the
/// pseudo-header; its length is zero where the card shall cut, and adds each piece's.
fn unsummed(mut packet: Vec<u8>, offload: Offload) -> Vec<u8> {
    let l4 = usize::from(offload.l2_len + offload.l3_len);
    let length = match offload.flags.contains(OffloadFlags::TSO) {
        true => 0,
        false => packet.len() - l4,
    };
    let (protocol, field) = match offload.flags.contains(OffloadFlags::UDP_CHECKSUM) {
        true => (17, l4 + 6),
        false => (6, l4 + 16),
    };
    let addresses = match offload.flags.contains(OffloadFlags::IPV6) {
        true => 22..54,
        false => {
            packet[24..26].fill(0xaa);
            26..34
        }
    };
    let words = packet[addresses].chunks(2);
    let words = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let mut sum = words.sum::<u32>() + protocol + length as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[field..field + 2].copy_from_slice(&(sum as u16).to_be_bytes());
    packet
}

/// Sends one frame and waits until the card has taken it.
fn send(nic: &mut dyn Nic, packet: &[u8], offload: Offload) {
    let pool = Pool::new(nic.dma(), 1, 65_536).unwrap();
    let mut buf = pool.alloc().unwrap();
    buf.fill(packet);
    let mut frame = Frame::from(buf);
    frame.set_offload(offload);
    assert_eq!(nic.send(&mut vec![frame]).unwrap(), 1);
    let mut done = Vec::new();
    let begin = Instant::now();
    while nic.completed(&mut done).unwrap() == 0 {
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

/// The payload of a UDP packet, or a TCP packet, all of whose lengths and checksums are right.
fn sound(packet: &[u8]) -> Option<Vec<u8>> {
    // Strict: a length that goes beyond the packet is an error.
    let parsed = SlicedPacket::from_ethernet(packet).unwrap();
    let (found, sum, payload) = match (&parsed.net, &parsed.transport) {
        (Some(NetSlice::Ipv4(ip)), Some(transport)) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let (source, destination) = (header.source, header.destination);
            match transport {
                TransportSlice::Udp(udp) => {
                    let sum = udp.to_header().calc_checksum_ipv4(&header, udp.payload());
                    (udp.checksum(), sum.unwrap(), udp.payload())
                }
                TransportSlice::Tcp(tcp) => {
                    let sum = tcp.calc_checksum_ipv4(source, destination);
                    (tcp.checksum(), sum.unwrap(), tcp.payload())
                }
                _ => return None,
            }
        }
        (Some(NetSlice::Ipv6(ip)), Some(transport)) => {
            let header = ip.header().to_header();
            assert_eq!(usize::from(header.payload_length), packet.len() - 54);
            match transport {
                TransportSlice::Udp(udp) => {
                    let sum = udp.to_header().calc_checksum_ipv6(&header, udp.payload());
                    (udp.checksum(), sum.unwrap(), udp.payload())
                }
                TransportSlice::Tcp(tcp) => {
                    let sum = tcp.calc_checksum_ipv6(header.source, header.destination);
                    (tcp.checksum(), sum.unwrap(), tcp.payload())
                }
                _ => return None,
            }
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

/// The kernel's counter `name` of IPv6.
fn counted_ipv6(name: &str) -> u64 {
    let snmp = std::fs::read_to_string("/proc/self/net/snmp6").unwrap();
    let mut lines = snmp
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace));
    let (_, value) = lines.find(|(known, _)| *known == name).unwrap();
    value.trim().parse().unwrap()
}

/// Everything that the kernel found wrong with what came in; UDP's checksums are the first two.
fn complaints() -> [u64; 6] {
    [
        counted("Udp", "InCsumErrors"),
        counted_ipv6("Udp6InCsumErrors"),
        counted("Tcp", "InCsumErrors"),
        counted("Ip", "InHdrErrors"),
        counted_ipv6("Ip6InHdrErrors"),
        counted_ipv6("Ip6InTruncatedPkts"),
    ]
}

#[test]
fn udp_whose_checksums_are_left_to_the_card_arrives_in_a_socket_of_the_kernel() {
    if !has_a_network() {
        return;
    }
    let sockets = KERNEL.map(|ip| UdpSocket::bind((ip, 4321)).unwrap());
    for model in CARDS {
        let mut nic = card(model, &NicConfig::default());
        for (nth, (kernel, socket)) in KERNEL.into_iter().zip(&sockets).enumerate() {
            socket.set_read_timeout(Some(BOUND)).unwrap();
            let left = offload(kernel, OffloadFlags::UDP_CHECKSUM, 0);
            assert!(nic.offloads().contains(left.flags | OffloadFlags::TSO));
            let before = complaints();
            let mut arrived = vec![0; 65_536];
            for len in [1, 2, 777, 1452] {
                let payload = bytes(len, len);
                let packet = unsummed(udp(kernel, 4321, &payload), left);
                send(&mut *nic, &packet, left);
                assert_eq!(socket.recv(&mut arrived).unwrap(), len);
                assert_eq!(arrived[..len], payload);
            }
            assert_eq!(complaints(), before, "{model}");
            // The kernel does look: the same with nobody asked to finish it.
            let wrong = unsummed(udp(kernel, 4321, &bytes(1, 100)), left);
            let ip_only = Offload {
                flags: left.flags & OffloadFlags::IP_CHECKSUM,
                ..left
            };
            send(&mut *nic, &wrong, ip_only);
            let right = udp(kernel, 4321, b"after it");
            send(&mut *nic, &right, Offload::NONE);
            assert_eq!(socket.recv(&mut arrived).unwrap(), 8);
            let mut expected = before;
            expected[nth] += 1;
            assert_eq!(complaints(), expected);
        }
    }
}

/// The kernel hands on what a card left to others without a look at it: so a wrong sum of a
/// pseudo-header would make a wrong checksum on the far side.
#[test]
fn checksums_that_the_kernel_finishes_are_right_on_the_far_side() {
    if !has_a_network() {
        return;
    }
    for model in CARDS {
        let mut nic = card(model, &NicConfig::default());
        let mut far = start(FAR_CARD, &NicConfig::default());
        for (ip, len) in FAR
            .into_iter()
            .flat_map(|ip| [1, 2, 777, 1440].map(|len| (ip, len)))
        {
            sends_summed(&mut *nic, ip, len);
            arrives_summed(&mut *far, len);
        }
    }
}

/// Sends UDP and TCP to `ip`, whose checksums are left to the card.
fn sends_summed(nic: &mut dyn Nic, ip: IpAddr, len: usize) {
    let payload = bytes(len, len);
    let left = offload(ip, OffloadFlags::UDP_CHECKSUM, 0);
    send(nic, &unsummed(udp(ip, 9, &payload), left), left);
    let left = offload(ip, OffloadFlags::TCP_CHECKSUM, 0);
    let header = TcpHeader::new(1234, 9, 77, 8192);
    send(nic, &unsummed(tcp(ip, header, &payload), left), left);
}

/// What [`sends_summed`] sent.
fn arrives_summed(far: &mut dyn Nic, len: usize) {
    for protocol in ["UDP", "TCP"] {
        let arrived = next(far, |_, packet| sound(packet));
        assert_eq!(arrived, bytes(len, len), "{protocol}");
    }
}

#[test]
fn tcp_to_be_cut_arrives_in_segments_that_are_right_on_the_far_side() {
    if !has_a_network() {
        return;
    }
    for model in CARDS {
        let mut nic = card(model, &NicConfig::default());
        let mut far = start(FAR_CARD, &NicConfig::default());
        for ip in FAR {
            let longest = longest_segment(ip);
            let most = 65_535 - 14 - ip_header(ip) - 20;
            for (len, mss) in [
                (20_000, longest),
                (20_000, 536),
                (most, longest),
                (longest + 1, longest),
            ] {
                sends_uncut(&mut *nic, ip, len, mss);
                arrives_cut(&mut *far, len, mss);
            }
        }
    }
}

/// The number of the first byte that [`sends_uncut`] sends.
const FIRST: usize = 1_000_000;

/// Sends TCP to `ip`, `len` bytes that are to be cut.
fn sends_uncut(nic: &mut dyn Nic, ip: IpAddr, len: usize, mss: usize) {
    let mut header = TcpHeader::new(1234, 9, FIRST as u32, 8192);
    (header.ack, header.psh) = (true, true);
    let left = offload(ip, OffloadFlags::TCP_CHECKSUM | OffloadFlags::TSO, mss);
    let packet = unsummed(tcp(ip, header, &bytes(len, len)), left);
    send(nic, &packet, left);
}

/// What [`sends_uncut`] sent.
fn arrives_cut(far: &mut dyn Nic, len: usize, mss: usize) {
    let mut together = Vec::new();
    while together.len() < len {
        let (number, segment) = next(far, |_, packet| {
            let segment = sound(packet)?;
            Some((tcp_of(packet)?.sequence_number(), segment))
        });
        assert_eq!(number as usize, FIRST + together.len(), "in order");
        let rest = len - together.len();
        assert_eq!(segment.len(), mss.min(rest), "at {}", together.len());
        together.extend(segment);
    }
    assert_eq!(together, bytes(len, len), "mss {mss}");
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
    for (model, rx_offload) in RINGS
        .into_iter()
        .flat_map(|ring| [(ring, true), (ring, false)])
    {
        let config = NicConfig::default().rx_offload(rx_offload);
        let mut nic = card(model, &config);
        for (kernel, card) in KERNEL.into_iter().zip(CARD_IP) {
            let socket = UdpSocket::bind((kernel, 4321)).unwrap();
            for len in [1, 777, 1452] {
                let payload = bytes(len, len);
                socket.send_to(&payload, (card, 5555)).unwrap();
                let datagram = next_datagram(&mut *nic);
                is_left_undone(datagram, kernel, rx_offload, &payload);
            }
        }
    }
}

/// The next of UDP from the kernel, and what is said of it.
fn next_datagram(nic: &mut dyn Nic) -> (Vec<u8>, Checksum, Offload) {
    next(nic, |received, packet| {
        datagram_of(packet)?;
        let left = received.frame.offload();
        Some((packet.to_vec(), received.l4_checksum(), left))
    })
}

/// The payload of UDP from the kernel.
fn datagram_of(packet: &[u8]) -> Option<&[u8]> {
    let is_whole = Ethernet2Header::from_slice(packet).ok()?.0.source == TAP;
    match SlicedPacket::from_ethernet(packet).ok()?.transport {
        Some(TransportSlice::Udp(udp)) if is_whole => Some(udp.payload()),
        _ => None,
    }
}

/// Is this datagram from the kernel's `ip` as it left it, and told so; or finished?
fn is_left_undone(
    (packet, said, left): (Vec<u8>, Checksum, Offload),
    ip: IpAddr,
    rx_offload: bool,
    payload: &[u8],
) {
    if !rx_offload {
        assert_eq!((said, left), (Checksum::Unchecked, Offload::NONE));
        return assert_eq!(sound(&packet).unwrap(), payload);
    }
    let asked = offload(ip, OffloadFlags::UDP_CHECKSUM, 0);
    let expected = Offload {
        // The kernel has made that of IPv4.
        flags: asked.flags - OffloadFlags::IP_CHECKSUM,
        ..asked
    };
    assert_eq!((said, left), (Checksum::Good, expected));
    let mut mine = unsummed(packet.clone(), expected);
    mine[24..26].copy_from_slice(&packet[24..26]);
    assert_eq!(packet, mine, "it has the pseudo-header's sum");
    assert_eq!(datagram_of(&packet).unwrap(), payload);
}

/// Bytes that a server of the kernel's says: more than goes into one segment, and no more than it says
/// before it has an answer.
const SPEECH: usize = 14_000;

#[test]
fn tcp_comes_in_uncut_with_rx_offload_and_in_segments_without() {
    if !has_a_network() {
        return;
    }
    let servers = KERNEL.map(|ip| TcpListener::bind((ip, 7000)).unwrap());
    let mut from_port = 4000;
    for model in RINGS {
        for (kernel, server) in KERNEL.into_iter().zip(&servers) {
            let mut longest = Vec::new();
            for rx_offload in [true, false] {
                let config = NicConfig::default().rx_offload(rx_offload);
                let mut nic = card(model, &config);
                from_port += 1;
                let next_number = connect(&mut *nic, kernel, from_port);
                let (mut peer, _) = server.accept().unwrap();
                peer.write_all(&bytes(5, SPEECH)).unwrap();
                let frames = hear(&mut *nic, next_number);
                let lengths = frames.iter().map(|heard| heard.packet.len());
                longest.push(lengths.max().unwrap());
                is_the_speech(&frames, kernel, rx_offload);
            }
            // How many segments the kernel leaves together is for it to say.
            let [uncut, cut] = longest[..] else {
                panic!("{longest:?}")
            };
            let whole = 14 + MTU;
            assert!(uncut > whole && cut == whole, "{longest:?}");
        }
    }
}

/// A frame of a server's speech.
struct Heard {
    packet: Vec<u8>,
    left: Offload,
    said: Checksum,
}

/// Connects to a server of the kernel's; gives the number of the first byte that it will say.
fn connect(nic: &mut dyn Nic, kernel: IpAddr, from_port: u16) -> u32 {
    let mut hello = TcpHeader::new(from_port, 7000, 99, 65_535);
    hello.syn = true;
    let mss = longest_segment(kernel) as u16;
    hello
        .set_options(&[etherparse::TcpOptionElement::MaximumSegmentSize(mss)])
        .unwrap();
    send(nic, &tcp(kernel, hello, &[]), Offload::NONE);
    let first = next(nic, |_, packet| {
        let answer = tcp_of(packet).filter(|tcp| tcp.destination_port() == from_port)?;
        answer.syn().then(|| answer.sequence_number())
    });
    let next_number = first.wrapping_add(1);
    let mut answer = TcpHeader::new(from_port, 7000, 100, 65_535);
    (answer.ack, answer.acknowledgment_number) = (true, next_number);
    send(nic, &tcp(kernel, answer, &[]), Offload::NONE);
    next_number
}

/// Everything that the server says from byte `next_number` on.
fn hear(nic: &mut dyn Nic, mut next_number: u32) -> Vec<Heard> {
    let (mut frames, mut came) = (Vec::new(), 0);
    while came < SPEECH {
        let (heard, len) = next(nic, |received, packet| {
            let tcp = tcp_of(packet)?;
            // Not what the kernel says again.
            let is_next = tcp.sequence_number() == next_number && !tcp.payload().is_empty();
            is_next.then(|| {
                let heard = Heard {
                    packet: packet.to_vec(),
                    left: received.frame.offload(),
                    said: received.l4_checksum(),
                };
                (heard, tcp.payload().len())
            })
        });
        next_number = next_number.wrapping_add(len as u32);
        came += len;
        frames.push(heard);
    }
    frames
}

/// Is it complete, and is told of each frame what is left to do to it?
fn is_the_speech(frames: &[Heard], kernel: IpAddr, rx_offload: bool) {
    let mss = longest_segment(kernel);
    let mut together = Vec::new();
    for Heard { packet, left, said } in frames {
        let payload = tcp_of(packet).unwrap().payload().to_vec();
        if rx_offload {
            let sum = OffloadFlags::TCP_CHECKSUM;
            assert!(left.flags.contains(sum) && *said == Checksum::Good);
            let over_ipv6 = left.flags.contains(OffloadFlags::IPV6);
            assert_eq!(over_ipv6, kernel.is_ipv6());
            let cut = left.flags.contains(OffloadFlags::TSO);
            assert_eq!(cut, payload.len() > mss, "{} bytes", payload.len());
            assert_eq!(left.mss, if cut { mss as u16 } else { 0 });
        } else {
            assert_eq!(*left, Offload::NONE);
            sound(packet).expect("TCP");
        }
        together.extend(payload);
    }
    assert_eq!(together, bytes(5, SPEECH), "{kernel}");
}

/// What the kernel left to a virtio card is done by the one that it is handed to: an e1000, which does it
/// before the tap.
#[test]
fn forwarded_tcp_is_cut_right_by_the_other_card() {
    if !has_a_network() {
        return;
    }
    let config = NicConfig::default().rx_offload(true);
    let server = TcpListener::bind((KERNEL[0], 7000)).unwrap();
    let specs = [&card_spec(RINGS[0]), FAR_CARD].map(|spec| spec.parse().unwrap());
    let mut cards = pinwire::DeviceSpec::open_all(&specs, &config, None).unwrap();
    ["tap0", "tap1"].into_iter().for_each(await_cable);
    let cable = PacketSocket::open("tap1").unwrap();
    let [near, far] = &mut cards[..] else {
        unreachable!("two cards");
    };
    let next_number = connect(&mut **near, KERNEL[0], 4000);
    let (mut peer, _) = server.accept().unwrap();
    peer.write_all(&bytes(5, SPEECH)).unwrap();
    let mut forward = Forward::new(&mut **near, &mut **far, 64).unwrap();
    let (begin, mut together) = (Instant::now(), Vec::new());
    while together.len() < SPEECH {
        assert!(begin.elapsed() < BOUND, "{} bytes", together.len());
        forward.round(u64::MAX, None).unwrap();
        let Some(packet) = cable.recv(Duration::from_millis(1)) else {
            continue;
        };
        let next = next_number.wrapping_add(together.len() as u32);
        if tcp_of(&packet).is_some_and(|tcp| tcp.sequence_number() == next) {
            together.extend(sound(&packet).unwrap());
        }
    }
    assert_eq!(together, bytes(5, SPEECH));
}

/// What goes out and comes in over VFIO.
const LENGTHS: [usize; 3] = [1, 777, 1440];
const UNCUT: usize = 20_000;

#[test]
fn over_vfio_on_virtio_net_with_split_queues() {
    over_vfio("virtio");
}

#[test]
fn over_vfio_on_virtio_net_with_packed_queues() {
    over_vfio("virtio-packed");
}

/// The kernel finishes and cuts what the card in the VM sends, and leaves to it what it sends itself.
fn over_vfio(nic: &str) {
    // In the VM's view of /sys, its tap is there.
    let network = format!("mount -t sysfs sysfs /sys\n{NETWORK}");
    let has_a_network = || common::again(&["--net", "--mount"], &network, "VIRTIO_TAP_INSIDE");
    if !common::wants_vm() || !common::require_qemu() || !has_a_network() {
        return;
    }
    let share = tempfile::tempdir().expect("a directory");
    common::put_test("virtio_tap", share.path());
    let inside = "pinwire bind 0000:00:03.0 >&2 || exit 1
        PINWIRE_DEVICE=0000:00:03.0 /share/virtio_tap --exact in_the_vm --ignored --nocapture";
    let nic = format!("{nic}+mac=52:54:00:00:00:02");
    let share = share.path().to_str().expect("a UTF-8 path");
    let options = ["--nic", &nic, "--net", "tap:tap0", "--share", share];
    let servers = KERNEL.map(|ip| TcpListener::bind((ip, 7000)).unwrap());
    let hello = UdpSocket::bind((KERNEL[0], 4321)).unwrap();
    hello
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut far = start(FAR_CARD, &NicConfig::default());
    let before = complaints();
    let output = std::thread::scope(|scope| {
        let vm = scope.spawn(|| common::vm(&options, inside));
        while hello.recv(&mut [0; 64]).is_err() {
            // It says what is wrong.
            if vm.is_finished() {
                return vm.join().unwrap();
            }
        }
        for ip in FAR {
            for len in LENGTHS {
                arrives_summed(&mut *far, len);
            }
            arrives_cut(&mut *far, UNCUT, longest_segment(ip));
        }
        for (server, card) in servers.iter().zip(CARD_IP) {
            let (mut peer, kernel) = (server.accept().unwrap().0, server.local_addr().unwrap());
            let socket = UdpSocket::bind((kernel.ip(), 0)).unwrap();
            for len in LENGTHS {
                socket.send_to(&bytes(len, len), (card, 5555)).unwrap();
            }
            peer.write_all(&bytes(5, SPEECH)).unwrap();
        }
        vm.join().unwrap()
    });
    let output = output.expect("VMs are wanted");
    let said = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{err}");
    assert!(said.contains("1 passed"), "{said}{err}");
    assert_eq!(complaints(), before, "{said}");
}

#[test]
#[ignore = "over_vfio runs it, in the VM"]
fn in_the_vm() {
    let device = std::env::var("PINWIRE_DEVICE").expect("PINWIRE_DEVICE names the card");
    let spec: pinwire::DeviceSpec = device.parse().unwrap();
    let config = NicConfig::default().rx_offload(true);
    let mut nic = spec.open(&config, None).unwrap();
    let nic = &mut *nic;
    send(nic, &udp(KERNEL[0], 4321, b"hello"), Offload::NONE);
    for ip in FAR {
        for len in LENGTHS {
            sends_summed(nic, ip, len);
        }
        sends_uncut(nic, ip, UNCUT, longest_segment(ip));
    }
    for kernel in KERNEL {
        let next_number = connect(nic, kernel, 4000);
        for len in LENGTHS {
            let datagram = next_datagram(nic);
            is_left_undone(datagram, kernel, true, &bytes(len, len));
        }
        let frames = hear(nic, next_number);
        let uncut = |heard: &Heard| heard.left.flags.contains(OffloadFlags::TSO);
        assert!(frames.iter().any(uncut), "{} frames", frames.len());
        is_the_speech(&frames, kernel, true);
    }
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
    for model in RINGS {
        let card = card_spec(model);
        // By the kernel; then through it, by `pinwire echo`, once from either side.
        pings(&card, "10.0.0.1", &[]);
        let far = [(
            &*card,
            "10.0.0.2",
            FAR_CARD,
            "10.0.1.2",
            "02:00:00:00:01:01",
        )];
        let near = [(
            FAR_CARD,
            "10.0.1.2",
            &*card,
            "10.0.0.2",
            "02:00:00:00:00:01",
        )];
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

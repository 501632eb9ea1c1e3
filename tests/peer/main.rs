//! One of our cards and the kernel's driver at the other end of the cable, in the VM: what one sends,
//! the other takes, and the kernel's own counters have nothing against it. `tests/vm/peer.rs` takes
//! this there, with our card in `PINWIRE_DEVICE` and the kernel's interface in `PINWIRE_WIRE`.
#![cfg(feature = "net")]

use std::hash::{DefaultHasher, Hasher};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use etherparse::checksum::Sum16BitWords;
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use pinwire::DeviceSpec;
use pinwire::dma::Pool;
use pinwire::net::{Packet, UdpFlow};
use pinwire::nic::{Frame, Mac, Nic, NicConfig, Offload, OffloadFlags};

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The same on the VLAN.
const OURS_TAGGED: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 2);
const THEIRS_TAGGED: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
const VLAN: u16 = 42;

/// Bytes of a datagram's payload.
const PAYLOAD: usize = 1472;
/// Datagrams under way at once: as many as the smallest queue on their way holds.
const WINDOW: u64 = 96;
/// How long nothing may come.
const STUCK: Duration = Duration::from_secs(20);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

fn open(config: &NicConfig) -> Box<dyn Nic> {
    let spec: DeviceSpec = variable("PINWIRE_DEVICE").parse().unwrap();
    let mut nic = spec.open(config, None).unwrap();
    // QEMU's e1000 takes nothing in during its first second.
    std::thread::sleep(Duration::from_millis(1500));
    nic.recv(&mut Vec::new(), 256).unwrap();
    nic
}

/// The kernel's Ethernet address.
fn their_mac() -> Mac {
    let path = format!("/sys/class/net/{}/address", variable("PINWIRE_WIRE"));
    std::fs::read_to_string(path)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

/// How many bytes go each way.
fn amount() -> u64 {
    variable("PINWIRE_UDP_BYTES").parse().unwrap()
}

/// A counter of `/proc/net/snmp`.
fn counter(group: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/net/snmp").unwrap();
    let group = format!("{group}: ");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&group));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(other, _)| *other == name).unwrap();
    value.parse().unwrap()
}

/// What the kernel has against checksums, of all protocols.
fn bad_checksums() -> u64 {
    let sums = ["Icmp", "Tcp", "Udp"].map(|group| counter(group, "InCsumErrors"));
    sums.iter().sum::<u64>() + counter("Ip", "InHdrErrors")
}

/// Payload of datagram `number`, all of them unlike each other.
fn content(number: u64, into: &mut [u8]) {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in into.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
}

/// Datagrams until `amount` bytes have gone, and the length of each.
fn datagrams(amount: u64) -> impl Iterator<Item = (u64, usize)> {
    let count = amount.div_ceil(PAYLOAD as u64);
    (0..count).map(move |number| {
        let left = amount - number * PAYLOAD as u64;
        (number, PAYLOAD.min(left.try_into().unwrap_or(PAYLOAD)))
    })
}

fn flow(source: SocketAddrV4, destination: SocketAddrV4, nic: &dyn Nic) -> UdpFlow {
    UdpFlow {
        source_mac: nic.mac(),
        destination_mac: their_mac(),
        source,
        destination,
    }
}

fn rate(what: &str, amount: u64, begin: Instant) {
    let seconds = begin.elapsed().as_secs_f64();
    println!("{what}: {:.1} MiB/s", amount as f64 / seconds / 1_048_576.0);
}

/// A UDP packet without options, whose sums are left to the card as [`Offload::UDP4`] has it: those
/// that the card does not make are made here.
fn complete(offered: OffloadFlags, packet: &mut [u8], mut offload: Offload) -> Offload {
    let (l3, l4) = (
        usize::from(offload.l2_len),
        usize::from(offload.l2_len) + 20,
    );
    let sums = [
        (OffloadFlags::IP_CHECKSUM, l3..l4, l3 + 10),
        (OffloadFlags::UDP_CHECKSUM, l4..packet.len(), l4 + 6),
    ];
    for (flag, over, field) in sums {
        if !offered.contains(flag) {
            let sum = Sum16BitWords::new().add_slice(&packet[over]);
            let sum = sum.to_ones_complement_with_no_zero().to_be();
            packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
            offload.flags -= flag;
        }
    }
    offload
}

fn send_all(nic: &mut dyn Nic, mut frames: Vec<Frame>) {
    let begin = Instant::now();
    let mut done = Vec::new();
    while !frames.is_empty() || nic.in_flight() > 0 {
        nic.send(&mut frames).unwrap();
        nic.completed(&mut done).unwrap();
        assert!(begin.elapsed() < STUCK, "the card does not send");
    }
}

#[test]
fn datagrams_from_the_card_arrive_whole_in_the_kernel() {
    let mut nic = open(&NicConfig::default());
    let nic = &mut *nic;
    let before = bad_checksums();
    let socket = UdpSocket::bind((THEIRS, 9000)).unwrap();
    socket.set_read_timeout(Some(STUCK)).unwrap();
    let arrived = AtomicU64::new(0);
    let amount = amount();
    let begin = Instant::now();
    let (sent, received) = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let (mut hash, mut buffer) = (DefaultHasher::new(), [0; 2048]);
            for (number, length) in datagrams(amount) {
                let got = socket.recv(&mut buffer).expect("a datagram in time");
                assert_eq!(got, length, "datagram {number}");
                hash.write(&buffer[..got]);
                arrived.store(number + 1, Ordering::Release);
            }
            hash.finish()
        });
        let flow = flow(
            SocketAddrV4::new(OURS, 9001),
            SocketAddrV4::new(THEIRS, 9000),
            nic,
        );
        let pool = Pool::new(nic.dma(), 2 * WINDOW as usize, 2048).unwrap();
        let (offered, mut packet) = (nic.offloads(), Vec::new());
        let mut hash = DefaultHasher::new();
        let (mut out, mut back, mut payload) = (Vec::new(), Vec::new(), [0; PAYLOAD]);
        for (number, length) in datagrams(amount) {
            while number >= arrived.load(Ordering::Acquire) + WINDOW {
                nic.send(&mut out).unwrap();
                nic.completed(&mut back).unwrap();
                back.clear();
                std::thread::yield_now();
                assert!(!receiver.is_finished(), "the receiver has given up");
            }
            content(number, &mut payload[..length]);
            hash.write(&payload[..length]);
            packet.clear();
            packet.extend_from_slice(&flow.header(length));
            packet.extend_from_slice(&payload[..length]);
            let offload = complete(offered, &mut packet, Offload::UDP4);
            let mut buf = loop {
                if let Some(buf) = pool.alloc() {
                    break buf;
                }
                nic.completed(&mut back).unwrap();
                back.clear();
            };
            buf.fill(&packet);
            let mut frame = Frame::from(buf);
            frame.set_offload(offload);
            out.push(frame);
            if out.len() == 32 {
                nic.send(&mut out).unwrap();
                nic.completed(&mut back).unwrap();
                back.clear();
            }
        }
        send_all(nic, out);
        (hash.finish(), receiver.join().unwrap())
    });
    rate("card to kernel", amount, begin);
    assert_eq!(sent, received);
    assert_eq!(bad_checksums(), before);
}

#[test]
fn datagrams_from_the_kernel_arrive_whole_in_the_card() {
    let mut nic = open(&NicConfig::default());
    let socket = UdpSocket::bind((THEIRS, 9000)).unwrap();
    socket.connect((OURS, 9001)).unwrap();
    let arrived = AtomicU64::new(0);
    let amount = amount();
    let begin = Instant::now();
    let (sent, received) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let (mut hash, mut payload) = (DefaultHasher::new(), [0; PAYLOAD]);
            for (number, length) in datagrams(amount) {
                let begin = Instant::now();
                while number >= arrived.load(Ordering::Acquire) + WINDOW {
                    std::thread::yield_now();
                    assert!(begin.elapsed() < STUCK, "datagram {number} is missing");
                }
                content(number, &mut payload[..length]);
                hash.write(&payload[..length]);
                assert_eq!(socket.send(&payload[..length]).unwrap(), length);
            }
            hash.finish()
        });
        let mut hash = DefaultHasher::new();
        let (mut came, mut bytes) = (Vec::new(), Vec::new());
        let mut wanted = datagrams(amount);
        let mut next = wanted.next();
        while let Some((number, length)) = next {
            if nic.recv(&mut came, 64).unwrap() == 0 {
                nic.wait(Duration::from_millis(100)).unwrap();
                assert!(!sender.is_finished() || arrived.load(Ordering::Relaxed) > 0);
                assert!(
                    begin.elapsed() < Duration::from_secs(2400),
                    "datagram {number} is missing"
                );
            }
            for received in came.drain(..) {
                received.frame.copy_to(&mut bytes);
                let packet = Packet::parse(&bytes).unwrap();
                if packet.udp_ports() != Some((9000, 9001)) {
                    continue;
                }
                let (number, length) = next.unwrap_or((number, length));
                let payload = &bytes[UdpFlow::HEADER..][..length];
                if number % 64 == 0 {
                    let parsed = SlicedPacket::from_ethernet(&bytes).unwrap();
                    let Some(TransportSlice::Udp(udp)) = &parsed.transport else {
                        panic!("{parsed:?}")
                    };
                    let sum = udp
                        .to_header()
                        .calc_checksum_ipv4_raw(THEIRS.octets(), OURS.octets(), payload)
                        .unwrap();
                    assert_eq!(udp.checksum(), sum, "datagram {number}");
                }
                hash.write(payload);
                arrived.store(number + 1, Ordering::Release);
                next = wanted.next();
            }
        }
        (sender.join().unwrap(), hash.finish())
    });
    rate("kernel to card", amount, begin);
    assert_eq!(sent, received);
}

#[test]
fn tagged_frames_pass_both_ways() {
    let config = NicConfig::default().vlan_offload(true);
    let mut nic = open(&config);
    let nic = &mut *nic;
    let before = bad_checksums();
    let socket = UdpSocket::bind((THEIRS_TAGGED, 9000)).unwrap();
    socket.set_read_timeout(Some(STUCK)).unwrap();
    let to = SocketAddrV4::new(THEIRS_TAGGED, 9000);
    let header = flow(SocketAddrV4::new(OURS_TAGGED, 9001), to, nic).header(5);
    let plain = [&header[..], b"plain"].concat();
    let mut frames = Vec::new();
    let pool = Pool::new(nic.dma(), 4, 2048).unwrap();
    let offered = nic.offloads();
    let mut add = |content: &[u8], offload| {
        let mut content = content.to_vec();
        let offload = complete(offered, &mut content, offload);
        let mut buf = pool.alloc().unwrap();
        buf.fill(&content);
        let mut frame = Frame::from(buf);
        frame.set_offload(offload);
        frames.push(frame);
    };
    // The card inserts the tag, where it can; else it is in the frame.
    if offered.contains(OffloadFlags::VLAN) {
        add(&plain, Offload::UDP4.with_vlan(VLAN));
    }
    let tag = [0x81, 0x00, 0x00, VLAN as u8];
    let tagged = [&plain[..12], &tag, &plain[12..]].concat();
    let offload = Offload {
        l2_len: 18,
        ..Offload::UDP4
    };
    add(&tagged, offload);
    let count = frames.len();
    send_all(nic, frames);
    for _ in 0..count {
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer).expect("a tagged datagram");
        assert_eq!(&buffer[..length], b"plain");
        assert_eq!(from.ip(), OURS_TAGGED);
    }
    assert_eq!(bad_checksums(), before);

    socket.send_to(b"back", (OURS_TAGGED, 9001)).unwrap();
    let begin = Instant::now();
    let mut came = Vec::new();
    loop {
        assert!(begin.elapsed() < STUCK, "no tagged datagram came");
        nic.wait(Duration::from_millis(100)).unwrap();
        nic.recv(&mut came, 64).unwrap();
        let found = came.drain(..).any(|received| {
            let bytes = received.frame.to_vec();
            let packet = Packet::parse(&bytes).unwrap();
            let tag = received.vlan().or(packet.vlan()).map(|tag| tag & 0xfff);
            packet.udp_ports() == Some((9000, 9001)) && tag == Some(VLAN)
        });
        if found {
            break;
        }
    }
}

/// The kernel looks at the checksum of a segment before it says that nobody listens there; its RST
/// says where the segment ended.
#[test]
fn the_kernel_takes_segments_that_the_card_cut_and_summed() {
    const SEQUENCE: u32 = 1_000_000;
    const LENGTH: usize = 20_000;
    const MSS: usize = 1460;
    let mut nic = open(&NicConfig::default());
    let nic = &mut *nic;
    let tcp = |payload: &[u8]| {
        let mut packet = Vec::new();
        PacketBuilder::ethernet2(nic.mac().0, their_mac().0)
            .ipv4(OURS.octets(), THEIRS.octets(), 64)
            .tcp(7777, 9, SEQUENCE, 8192)
            .psh()
            .write(&mut packet, payload)
            .unwrap();
        packet
    };
    let payload: Vec<u8> = (0..LENGTH).map(|at| (at * 7 + at / 256) as u8).collect();
    let (short, long) = (tcp(&payload[..1000]), tcp(&payload));
    let mut wrong = short.clone();
    wrong[60] ^= 1;
    let pool = Pool::new(nic.dma(), 4, 54 + LENGTH).unwrap();
    let frame = |content: &[u8], offload| {
        let mut buf = pool.alloc().unwrap();
        buf.fill(content);
        let mut frame = Frame::from(buf);
        frame.set_offload(offload);
        frame
    };
    let checksums = Offload {
        flags: OffloadFlags::IP_CHECKSUM | OffloadFlags::TCP_CHECKSUM,
        l2_len: 14,
        l3_len: 20,
        l4_len: 20,
        mss: 0,
        vlan: 0,
    };
    let cut = Offload {
        flags: checksums.flags | OffloadFlags::TSO,
        mss: MSS as u16,
        ..checksums
    };
    let before = bad_checksums();
    let offered = nic.offloads();
    // A hub takes no frame with work left to do, so virtio-net offers nothing of it there; Intel's cards
    // do it themselves.
    let does_it = nic.model().starts_with("Intel");
    assert_eq!(offered.contains(cut.flags), does_it, "{offered:?}");
    assert_eq!(offered.contains(checksums.flags), does_it, "{offered:?}");

    // So that the rest of this test can fail.
    send_all(nic, vec![frame(&wrong, Offload::NONE)]);
    let begin = Instant::now();
    while bad_checksums() == before {
        assert!(
            begin.elapsed() < STUCK,
            "the kernel does not look at checksums"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(bad_checksums(), before + 1);

    if does_it {
        let given = unsummed(short, (20 + 1000) as u16);
        send_all(nic, vec![frame(&given, checksums)]);
        refused(nic, SEQUENCE + 1000);
        // For segmentation the pseudo-header's length is zero: the card adds each segment's.
        let given = unsummed(long, 0);
        send_all(nic, vec![frame(&given, cut)]);
        refused(nic, SEQUENCE + LENGTH as u32);
    }
    assert_eq!(bad_checksums(), before + 1);
}

/// Waits for the kernel's RST to the segment that ends there.
fn refused(nic: &mut dyn Nic, end: u32) {
    let begin = Instant::now();
    let mut came = Vec::new();
    loop {
        assert!(
            begin.elapsed() < STUCK,
            "the segment up to {end} was not taken"
        );
        nic.wait(Duration::from_millis(100)).unwrap();
        nic.recv(&mut came, 64).unwrap();
        for received in came.drain(..) {
            let bytes = received.frame.to_vec();
            let parsed = SlicedPacket::from_ethernet(&bytes).unwrap();
            if let Some(TransportSlice::Tcp(tcp)) = &parsed.transport
                && tcp.rst()
                && tcp.acknowledgment_number() == end
            {
                return;
            }
        }
    }
}

/// What is left to the card: the IP checksum is zero, TCP's holds the sum of the pseudo-header.
fn unsummed(mut packet: Vec<u8>, length: u16) -> Vec<u8> {
    packet[24..26].fill(0);
    let words = packet[26..34].chunks(2);
    let words = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum = words.sum::<u32>() + 6 + u32::from(length);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
    packet[50..52].copy_from_slice(&sum.to_be_bytes());
    packet
}

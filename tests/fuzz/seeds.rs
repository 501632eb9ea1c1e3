//! Where a fuzzer begins: inputs of the kind that the tests are about.

use etherparse::PacketBuilder;
use pinwire::net::Arp;
use pinwire::nic::Mac;

type Seeds = Vec<(String, Vec<u8>)>;

pub fn all() -> Vec<(&'static str, Seeds)> {
    vec![
        ("split", virtqueue()),
        ("packed", virtqueue()),
        ("e1000", intel()),
        ("e1000e", intel()),
        ("virtio_net", virtio_net()),
        ("config", config()),
        ("capture", captures()),
        ("http", http()),
        ("packets", packets()),
    ]
}

fn named(each: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Seeds {
    each.into_iter()
        .map(|(name, data)| (name.to_owned(), data))
        .collect()
}

/// Size, features, then deeds: see `virtqueue` in `bodies.rs`.
fn virtqueue() -> Seeds {
    let round = [0, 0, 1, 64, 3, 7, 4];
    let begin = |features: u8| vec![3, features];
    let around = |features: u8| [begin(features), round.repeat(12)].concat();
    let chains = [0, 4, 2, 9, 9, 9, 9, 9, 3, 7, 6, 5, 8].repeat(6);
    // An index, an element and a descriptor of the device's own making.
    let lie = [
        2, 7, 3, 8, 2, 2, 0, 1, 0xff, 0xff, 4, 8, 2, 4, 0, 7, 9, 0, 0, 0, 1, 0, 0, 0, 5, 9,
    ];
    named([
        ("round", around(0)),
        ("event-idx", around(1)),
        ("in-order", around(4)),
        ("all", around(15)),
        ("chains", [begin(2), chains].concat()),
        ("lie", [begin(0), lie.to_vec()].concat()),
    ])
}

/// Deeds: see `intel` in `bodies.rs`.
fn intel() -> Seeds {
    let send = [0, 47, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    let receive = [3, 50, 0, 1, 15, 0];
    let sum = [0, 100, 5, 14, 20, 8, 0, 0, 0, 0, 2];
    let lie = [4, 1, 0, 1, 0xff, 0xff, 0, 0, 3, 0, 0, 0, 1, 15, 0, 9, 0];
    let ones = [5, 0x10, 0x40, 0xff, 0xff, 0xff, 0xff, 6, 7, 8];
    named([
        ("send", [&[0], &send.repeat(10)[..]].concat()),
        ("receive", [&[0], &receive.repeat(10)[..]].concat()),
        ("headers-apart", [&[1], &receive.repeat(10)[..]].concat()),
        ("checksum", [&[0], &sum.repeat(5)[..]].concat()),
        ("length", [&[0], &lie[..]].concat()),
        ("ones", [&[0], &ones[..]].concat()),
    ])
}

/// The header of §5.1.6, then a length and so many bytes, up to 200, again and again.
fn virtio_net() -> Seeds {
    let frame = udp(Vec::new(), 60);
    let input = |packed: u8, header: [u8; 12]| {
        let length = (frame.len() as u16).to_le_bytes();
        [&[packed], &header[..], &length, &frame].concat()
    };
    named([
        ("plain", input(0, [0; 12])),
        ("packed", input(1, [0; 12])),
        // NEEDS_CSUM from byte 34 on, 6 bytes into the UDP header; then as far off as can be said.
        ("checksum", input(0, [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 1, 0])),
        ("far", input(0, [1, 0, 0, 0, 0, 0, 239, 0, 16, 0, 1, 0])),
        ("cut", input(0, [1, 1, 54, 0, 100, 0, 34, 0, 16, 0, 1, 0])),
    ])
}

/// A BAR's size, config space, registers: see `config` in `bodies.rs`.
fn config() -> Seeds {
    let function = |vendor: u16, device: u16, capabilities: &[(usize, &[u8])]| {
        let mut space = vec![0; 256];
        space[..2].copy_from_slice(&vendor.to_le_bytes());
        space[2..4].copy_from_slice(&device.to_le_bytes());
        if let Some((first, _)) = capabilities.first() {
            (space[6], space[0x34]) = (0x10, *first as u8);
        }
        for (at, bytes) in capabilities {
            space[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        [&[7], &space[..]].concat()
    };
    // Vendor capabilities of virtio, §4.1.4: common, notify, ISR, device; each in BAR 4.
    let structure = |kind: u8, next: u8| {
        let mut bytes = vec![9, next, 20, kind, 4, 0, 0, 0];
        bytes.extend((u32::from(kind) << 12).to_le_bytes());
        bytes.extend(0x1000u32.to_le_bytes());
        bytes.extend(4u32.to_le_bytes());
        bytes
    };
    let each: Vec<_> = (1..=4u8)
        .map(|kind| {
            let at = 0x40 + 0x18 * usize::from(kind);
            let next = if kind == 4 { 0 } else { at as u8 + 0x18 };
            (at, structure(kind, next))
        })
        .collect();
    let capabilities: Vec<_> = each.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
    let looped: &[(usize, &[u8])] = &[(0x40, &[1, 0x40, 0, 0])];
    named([
        ("e1000", function(0x8086, 0x100e, &[])),
        ("e1000e", function(0x8086, 0x10d3, &[])),
        ("virtio", function(0x1af4, 0x1041, &capabilities)),
        ("loop", function(0x1af4, 0x1041, looped)),
        ("unknown", function(0x1234, 0x11e8, &[])),
    ])
}

/// Classic captures; those that people's tools wrote are in the corpus already.
fn captures() -> Seeds {
    let mut seeds = Seeds::new();
    let frame = udp(Vec::new(), 20);
    for (name, magic) in [("micro", 0xa1b2_c3d4_u32), ("nano", 0xa1b2_3c4d)] {
        let length = (frame.len() as u32).to_le_bytes();
        let header = [
            2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0,
        ];
        let mut file = [&magic.to_le_bytes()[..], &header].concat();
        for second in 0..3u32 {
            file.extend(second.to_le_bytes());
            file.extend([0; 4]);
            file.extend([length, length].concat());
            file.extend(&frame);
        }
        seeds.push((name.to_owned(), file));
    }
    seeds
}

fn http() -> Seeds {
    let request = |text: &str| text.replace('\n', "\r\n").into_bytes();
    named([
        ("plain", request("GET /a HTTP/1.1\nHost: x\n\n")),
        (
            "range",
            request("GET /a HTTP/1.1\nHost: x\nRange: bytes=0-1,5-,-7\nIf-Range: \"a\"\n\n"),
        ),
        (
            "absolute",
            request("GET http://x:80/a%20b?c HTTP/1.1\nHost: x\n\n"),
        ),
        (
            "secure",
            request("HEAD https://[::1]/ HTTP/1.1\nHost: [::1]\nConnection: close\n\n"),
        ),
        ("old", request("GET / HTTP/1.0\n\n")),
        ("all", request("OPTIONS * HTTP/1.1\nHost: x\n\n")),
        (
            "since",
            request(
                "GET / HTTP/1.1\nHost: x\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\n\n",
            ),
        ),
        (
            "body",
            request("POST / HTTP/1.1\nHost: x\nContent-Length: 3\n\nabc"),
        ),
    ])
}

fn udp(options: Vec<u8>, len: usize) -> Vec<u8> {
    let header = etherparse::Ipv4Options::try_from(&options[..]).expect("options");
    let mut ip = etherparse::Ipv4Header::new(
        0,
        64,
        etherparse::IpNumber::UDP,
        [10, 0, 0, 1],
        [10, 0, 0, 2],
    )
    .expect("a short header");
    ip.options = header;
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], crate::fakes::e1000::MAC)
        .ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
        .udp(4000, 7);
    let mut bytes = Vec::new();
    builder
        .write(&mut bytes, &vec![5; len])
        .expect("it is written to memory");
    bytes
}

/// How it comes in, a length, and so many bytes, again and again.
fn packets() -> Seeds {
    let input = |frames: &[Vec<u8>], kind: u8| {
        let each = frames.iter().flat_map(|frame| {
            let length = (frame.len() as u16).to_le_bytes();
            [&[kind], &length[..], frame].concat()
        });
        [0].into_iter().chain(each).collect::<Vec<u8>>()
    };
    let arp = Arp::ask(
        (Mac([2, 0, 0, 0, 0, 9]), [10, 0, 0, 1].into()),
        [10, 0, 0, 2].into(),
    );
    let icmp = |kind: etherparse::Icmpv4Type| {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], crate::fakes::e1000::MAC)
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .icmpv4(kind);
        let mut bytes = Vec::new();
        builder
            .write(&mut bytes, &[8; 56])
            .expect("it is written to memory");
        bytes
    };
    let echo = etherparse::IcmpEchoHeader { id: 1, seq: 1 };
    let mut tagged = udp(Vec::new(), 20);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    let mut fragment = udp(Vec::new(), 1000);
    fragment[20] |= 0x20;
    named([
        ("arp", input(&[arp.frame().to_vec()], 0)),
        ("udp", input(&[udp(Vec::new(), 20), udp(vec![1; 4], 20)], 0)),
        (
            "request",
            input(&[icmp(etherparse::Icmpv4Type::EchoRequest(echo))], 0),
        ),
        (
            "reply",
            input(&[icmp(etherparse::Icmpv4Type::EchoReply(echo))], 1),
        ),
        ("tag", input(&[tagged], 0)),
        ("fragment", input(&[fragment.clone(), fragment], 0)),
        ("short", input(&[vec![0xff; 13], vec![]], 0)),
    ])
}

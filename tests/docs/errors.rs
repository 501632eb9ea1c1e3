//! One of each error, as the page of troubleshooting shows it.

use std::net::Ipv4Addr;
use std::time::Duration;

use pinwire::Error;
use pinwire::pci::Address;

/// The names of all variants, from the source: a test cannot count them otherwise.
pub fn variants() -> Vec<&'static str> {
    let source = include_str!("../../src/error.rs");
    let (_, body) = source.split_once("pub enum Error {\n").unwrap();
    let (body, _) = body.split_once("\n}\n").unwrap();
    let names: Vec<_> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .map(|line| line.split(|c: char| !c.is_alphanumeric()).next().unwrap())
        .collect();
    assert!(names.len() > 20, "only {names:?}");
    names
}

/// Each with values that could be.
pub fn samples() -> Vec<(&'static str, Error)> {
    let address: Address = "0000:00:03.0".parse().unwrap();
    let neighbour: Address = "0000:00:03.1".parse().unwrap();
    let device = || address.to_string();
    vec![
        ("BadDevice", "eth0".parse::<Address>().unwrap_err()),
        ("NoSuchDevice", Error::NoSuchDevice(address)),
        (
            "Unsupported",
            Error::Unsupported {
                device: device(),
                vendor: 0x10ec,
                id: 0x8139,
                known: "8086:100e (Intel 82540EM), 8086:100c (Intel 82544GC), ...".to_owned(),
            },
        ),
        (
            "NotBound",
            Error::NotBound {
                address,
                driver: Some("e1000".to_owned()),
            },
        ),
        (
            "GroupNotViable",
            Error::GroupNotViable {
                address,
                group: 7,
                members: vec![(neighbour, "e1000e".to_owned())],
            },
        ),
        ("NoIommu", Error::NoIommu(address)),
        ("AroundIommu", Error::AroundIommu(address)),
        (
            "KernelLacks",
            Error::KernelLacks {
                what: "the kernel's vfio-pci driver is not loaded".to_owned(),
                remedy: "sudo modprobe vfio-pci".to_owned(),
            },
        ),
        (
            "NotPermitted",
            Error::NotPermitted {
                path: "/dev/vfio/7".to_owned(),
                owner: "root".to_owned(),
                mode: 0o600,
            },
        ),
        (
            "NeedsRoot",
            Error::NeedsRoot {
                what: "0000:00:03.0: taking it from its driver".to_owned(),
                command: "pinwire bind 0000:00:03.0".to_owned(),
            },
        ),
        (
            "InUse",
            Error::InUse {
                address,
                usage: "eth0 is up with the address 10.0.2.15".to_owned(),
            },
        ),
        (
            "DiskInUse",
            Error::DiskInUse {
                address,
                usage: "/home is mounted from the volume vg-home (dm-1, LVM), made of nvme0n1p3"
                    .to_owned(),
            },
        ),
        (
            "NotNetwork",
            Error::NotNetwork {
                address,
                class: "a USB controller",
                driver: Some("xhci_hcd".to_owned()),
            },
        ),
        (
            "NotGivenBack",
            Error::NotGivenBack {
                address,
                what: "e1000 did not take it: Device or resource busy (os error 16); it is on no driver"
                    .to_owned(),
                remedy: "see what dmesg says, then again: pinwire unbind 0000:00:03.0".to_owned(),
            },
        ),
        (
            "Rebind",
            Error::Rebind {
                address,
                driver: "vfio-pci".to_owned(),
                why: "the driver refused it; dmesg may say why".to_owned(),
            },
        ),
        (
            "MemlockLimit",
            Error::MemlockLimit {
                needed: 9_437_184,
                limit: 8_388_608,
            },
        ),
        (
            "GroupBusy",
            Error::GroupBusy {
                address,
                group: 7,
                holder: Some("pinwire (process 412)".to_owned()),
            },
        ),
        ("DeviceGone", Error::DeviceGone(device())),
        ("BusError", Error::BusError("0000:00:04.0".to_owned())),
        (
            "UnusableBar",
            Error::UnusableBar {
                device: device(),
                bar: 0,
                size: 0x1000,
                needed: 0x5800,
                why: "it is too short",
            },
        ),
        (
            "ProtocolViolation",
            Error::ProtocolViolation {
                device: device(),
                what: "9000 bytes in a buffer of 2048 (descriptor 3)".to_owned(),
            },
        ),
        ("Stopped", Error::Stopped { device: device() }),
        ("NeedsReset", Error::NeedsReset { device: device() }),
        ("WasReset", Error::WasReset { device: device() }),
        (
            "Timeout",
            Error::Timeout {
                device: device(),
                what: "link-up",
                bound: Duration::from_secs(5),
                remedy: "plug in a cable, or (QEMU) set_link on; then try again",
            },
        ),
        (
            "FrameLength",
            Error::FrameLength {
                device: device(),
                length: 20_000,
                min: 14,
                max: 16_288,
                remedy: "choose another size",
            },
        ),
        (
            "RingFull",
            Error::RingFull {
                device: device(),
                in_flight: 255,
            },
        ),
        (
            "NoBuffer",
            Error::NoBuffer {
                device: device(),
                count: 512,
            },
        ),
        (
            "Packet",
            Error::Packet {
                number: 12,
                source: Box::new(Error::FrameLength {
                    device: device(),
                    length: 65_535,
                    min: 14,
                    max: 16_288,
                    remedy: "cut long packets (editcap -s BYTES IN OUT), or leave this one out (editcap IN OUT NUMBER)",
                }),
            },
        ),
        (
            "NoAnswer",
            Error::NoAnswer {
                address: Ipv4Addr::new(10, 0, 0, 2),
                bound: Duration::from_secs(4),
            },
        ),
        (
            "ForeignMemory",
            Error::ForeignMemory { device: device() },
        ),
        (
            "NotOffered",
            Error::NotOffered {
                device: device(),
                what: "insert VLAN tags: it was started without vlan_offload".to_owned(),
            },
        ),
        (
            "BadRequest",
            Error::BadRequest {
                device: device(),
                what: "read at block 16384".to_owned(),
                why: "it has blocks 0 to 16383".to_owned(),
            },
        ),
        (
            "RequestFailed",
            Error::RequestFailed {
                what: "read of block 700".to_owned(),
                failure: "unrecovered read error (status 0x281)".to_owned(),
            },
        ),
        (
            "NoIova",
            Error::NoIova {
                device: device(),
                len: 1 << 40,
                ranges: "0x0..=0xfedfffff, 0xfef00000..=0x7fffffffff".to_owned(),
            },
        ),
        (
            "OutOfReach",
            Error::OutOfReach {
                device: device(),
                last: 0xffff_ffff,
                end: 0x1_0000_0fff,
            },
        ),
        (
            "Qemu",
            Error::Qemu {
                what: "qtest:e1000 needs QEMU, and there is no qemu-system-x86_64".to_owned(),
                remedy: "install it with qemu/setup, or as the package qemu-system-x86; or name it in PINWIRE_QEMU"
                    .to_owned(),
            },
        ),
        (
            "BadCapture",
            Error::BadCapture {
                path: "web.pcap".into(),
                why: "packet 3: the file ends in the middle of it: the capture is truncated".to_owned(),
            },
        ),
        (
            "File",
            Error::File {
                path: "film".into(),
                what: "it is a pipe, not a regular file, and only those have a page cache to send from\n  copy it into \
                       a file first: cat film > COPY"
                    .to_owned(),
            },
        ),
        (
            "Usage",
            Error::Usage("a ring of 100 descriptors (tx_ring): it must be a power of two from 8 to 4096".to_owned()),
        ),
        ("Interrupted", Error::Interrupted),
        (
            "Io",
            Error::io("cannot read film.mkv", std::io::Error::from_raw_os_error(libc::ENOENT)),
        ),
    ]
}

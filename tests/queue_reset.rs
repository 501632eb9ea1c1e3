//! One queue reset by itself (virtio 1.2, §2.6.1), on QEMU's virtio-net: what was pushed comes back, and
//! the queue goes on from the beginning, while the device stays as it is.

mod common;

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use pinwire::backend::{Peer, Qtest, QtestSpec};
use pinwire::dma::DmaRegion;
use pinwire::virtio::features::{EVENT_IDX, RING_PACKED, RING_RESET, VERSION_1};
use pinwire::virtio::pci::PciTransport;
use pinwire::virtio::{Doorbell, Packed, Piece, Ring, RingConfig, Split, Status, Transport};

/// The queue that sends.
const QUEUE: u16 = 1;
/// Bytes of a virtio-net header.
const HEADER: usize = 12;

fn frame(number: u8) -> Vec<u8> {
    [
        &[0xff; 6][..],
        &[2, 0, 0, 0, 0, 1],
        &[0x88, 0xb5],
        &[number; 46],
    ]
    .concat()
}

fn open(packed: bool) -> (PciTransport<Qtest>, UnixDatagram, u64) {
    let (peer, wire) = Peer::socket().unwrap();
    wire.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let spec = QtestSpec::new("virtio-net", peer).unwrap();
    let spec = spec
        .with("packed", if packed { "on" } else { "off" })
        .unwrap();
    let device = PciTransport::open(Qtest::start(&spec).unwrap()).unwrap();
    let offered = device.begin_init().unwrap();
    let wanted = VERSION_1 | EVENT_IDX | RING_RESET | RING_PACKED;
    device.negotiate(offered & wanted).unwrap();
    (device, wire, offered & wanted)
}

/// Sends frame `number` by the queue, and sees it come out.
fn send<R: Ring<u8>>(
    ring: &mut R,
    doorbell: &impl Doorbell,
    memory: &mut DmaRegion,
    wire: &UnixDatagram,
    number: u8,
) {
    memory.write(HEADER, &frame(number));
    let piece = Piece {
        iova: memory.iova(),
        len: (HEADER + frame(0).len()) as u32,
    };
    ring.submit(&[piece], 1, number).unwrap();
    if let Some(value) = ring.publish() {
        doorbell.ring(value);
    }
    let mut bytes = [0; 2048];
    let len = wire.recv(&mut bytes).expect("the frame comes out");
    assert_eq!(bytes[..len], frame(number));
    let begin = Instant::now();
    loop {
        match ring.poll().unwrap() {
            Some(used) => return assert_eq!(used.token, number),
            None => assert!(begin.elapsed() < Duration::from_secs(5), "not used"),
        }
    }
}

fn a_queue_is_reset_alone<R: Ring<u8>>(packed: bool) {
    if !common::require_qemu() {
        return;
    }
    let (device, wire, taken) = open(packed);
    assert_ne!(taken & RING_RESET, 0, "QEMU offers it from 7.2 on");
    assert_eq!(taken & RING_PACKED != 0, packed);
    let mut memory = DmaRegion::alloc(device.dma(), 4096).unwrap();
    let config = RingConfig {
        device: "a test".to_owned(),
        index: QUEUE,
        size: 16,
        event_idx: taken & EVENT_IDX != 0,
        indirect: false,
        in_order: false,
        notification_data: false,
    };
    let mut ring = R::new(device.dma(), &config).unwrap();
    let mut doorbell = device.enable_queue(QUEUE, 16, ring.areas(), None).unwrap();
    device.bus_master(true).unwrap();
    device.set_status(device.status() | Status::DRIVER_OK);
    for round in 0..5 {
        for number in 0..7 {
            send(
                &mut ring,
                &doorbell,
                &mut memory,
                &wire,
                10 * round + number,
            );
        }
        // Sink, but never shown to the device.
        let piece = Piece {
            iova: memory.iova(),
            len: 60,
        };
        ring.submit(&[piece], 1, 100 + round).unwrap();
        device.reset_queue(QUEUE).unwrap();
        assert_eq!(ring.reset(), [100 + round], "what was out comes back");
        let status = device.status();
        assert!(
            status.contains(Status::DRIVER_OK),
            "the device stays: {status:?}"
        );
        doorbell = device.enable_queue(QUEUE, 16, ring.areas(), None).unwrap();
    }
    send(&mut ring, &doorbell, &mut memory, &wire, 255);
    device.reset().unwrap();
    device.bus_master(false).unwrap();
}

#[test]
fn a_split_queue_is_reset_alone() {
    a_queue_is_reset_alone::<Split<u8>>(false);
}

#[test]
fn a_packed_queue_is_reset_alone() {
    a_queue_is_reset_alone::<Packed<u8>>(true);
}

#[test]
fn a_device_that_does_not_offer_it_is_not_asked() {
    if !common::require_qemu() {
        return;
    }
    let (peer, _wire) = Peer::socket().unwrap();
    let spec = QtestSpec::new("virtio-net", peer).unwrap();
    let spec = spec.with("queue_reset", "off").unwrap();
    let device = PciTransport::open(Qtest::start(&spec).unwrap()).unwrap();
    let offered = device.begin_init().unwrap();
    assert_eq!(offered & RING_RESET, 0);
    device.negotiate(VERSION_1).unwrap();
    let error = device.reset_queue(QUEUE).unwrap_err().to_string();
    assert!(error.contains("VIRTIO_F_RING_RESET"), "{error}");
}

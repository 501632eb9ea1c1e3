//! virtio-net against a fake card: every mix of ring features, what the headers say,
//! several queue pairs, and cards that lie.
#![cfg(feature = "net")]

mod fakes;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fakes::virtio::net::*;
use pinwire::backend::{Fake, FakeMemory};
use pinwire::dma::Pool;
use pinwire::nic::virtio_net::VirtioNet;
use pinwire::nic::virtio_net::VirtioNetConfig;
use pinwire::nic::{
    Checksum, Frame, Inspect, Mac, Nic, NicConfig, Offload, OffloadFlags, Received, Waiting,
};
use pinwire::open;
use pinwire::virtio::pci::PciTransport;

type Net = VirtioNet<PciTransport<Fake>>;

struct Bench {
    nic: Net,
    card: Arc<Mutex<FakeVirtioNet>>,
    memory: Arc<FakeMemory>,
}

fn small() -> NicConfig {
    NicConfig::default().tx_ring(16).rx_ring(16)
}

fn filtering() -> NicConfig {
    small().vlan_filter(true)
}

fn start(fake: Fake, config: &NicConfig) -> pinwire::Result<Net> {
    VirtioNet::start(PciTransport::open(fake)?, config)
}

fn bench(offered: u64, config: &NicConfig) -> Bench {
    let (fake, card) = FakeVirtioNet::fake(offered);
    on(fake, card, config)
}

fn on(fake: Fake, card: Arc<Mutex<FakeVirtioNet>>, config: &NicConfig) -> Bench {
    let memory = Arc::clone(fake.memory());
    let nic = start(fake, config).unwrap();
    Bench { nic, card, memory }
}

/// What starting a card says that was first changed by `change`.
fn refusal(offered: u64, change: impl FnOnce(&mut FakeVirtioNet)) -> String {
    let (fake, card) = FakeVirtioNet::fake(offered);
    let memory = Arc::clone(fake.memory());
    change(&mut FakeVirtioNet::lock(&card));
    let error = start(fake, &small()).map(|_| ()).unwrap_err();
    assert_eq!(memory.mappings(), 0, "memory is given back");
    error.to_string()
}

impl Bench {
    fn card(&self) -> std::sync::MutexGuard<'_, FakeVirtioNet> {
        FakeVirtioNet::lock(&self.card)
    }

    fn receive(&mut self, header: [u8; 12], content: &[u8]) -> Vec<Received> {
        assert!(FakeVirtioNet::lock(&self.card).receive(&self.memory, 0, header, content));
        self.got().unwrap()
    }

    fn got(&mut self) -> pinwire::Result<Vec<Received>> {
        let mut got = Vec::new();
        self.nic.recv(&mut got, 64)?;
        Ok(got)
    }

    fn lie(&mut self) -> String {
        self.card
            .lock()
            .unwrap()
            .receive(&self.memory, 0, [0; 12], &bytes(1, 100));
        let error = self.got().unwrap_err().to_string();
        assert!(error.contains("wrote what cannot be true"), "{error}");
        error
    }
}

fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (seed * 31 + i * 7 + i / 256) as u8)
        .collect()
}

fn frame(pool: &Pool, content: &[u8]) -> Frame {
    let mut buf = pool.alloc().expect("a buffer");
    buf.fill(content);
    buf.into()
}

/// Every mix of what a ring can do.
fn every_ring(body: impl Fn(u64)) {
    for mix in 0..32 {
        let all = [PACKED, EVENT_IDX, INDIRECT, IN_ORDER, NOTIFICATION_DATA];
        let bits = all
            .iter()
            .enumerate()
            .filter(|(nth, _)| mix >> nth & 1 != 0);
        body(bits.map(|(_, bit)| bit).sum());
    }
}

#[test]
fn frames_go_out_and_come_in_over_every_ring() {
    every_ring(|ring| {
        let mut b = bench(PLAIN | MRG_RXBUF | ring, &small());
        let pool = Pool::new(b.nic.dma(), 16, 2048).unwrap();
        let mut done = Vec::new();
        for round in 0..50 {
            let content: Vec<_> = (0..11).map(|i| bytes(round + i, 60 + i)).collect();
            let mut frames: Vec<_> = content.iter().map(|c| frame(&pool, c)).collect();
            let before = b.card().notifications.len();
            assert_eq!(b.nic.send(&mut frames).unwrap(), 11);
            assert_eq!(
                b.nic.completed(&mut done).unwrap(),
                11,
                "{ring:#x}, round {round}"
            );
            done.clear();
            assert!(b.card().notifications.len() - before <= 1, "one a batch");
            let sent = std::mem::take(&mut b.card().sent);
            let expected = content.iter().map(|c| (1, [&[0; 12], &c[..]].concat()));
            assert_eq!(sent, expected.collect::<Vec<_>>());
            assert!(b.card().pieces.drain(..).all(|pieces| pieces == 1));
            for c in &content {
                let got = b.receive([0; 12], c);
                assert_eq!(got.len(), 1);
                assert_eq!(got[0].frame.to_vec(), *c);
            }
        }
        let stats = b.nic.stats();
        assert_eq!((stats.tx_frames, stats.rx_frames), (550, 550));
    });
}

#[test]
fn a_frame_of_many_segments_and_one_that_begins_in_a_file_leave_whole() {
    every_ring(|ring| {
        let mut b = bench(PLAIN | ring, &small());
        let pool = Pool::new(b.nic.dma(), 16, 2048).unwrap();
        let content = bytes(3, 3000);
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &content, 0).unwrap();
        let file = pinwire::dma::DmaFile::map(b.nic.dma(), &file, 4).unwrap();
        for _ in 0..20 {
            let mut parts = frame(&pool, &content[..14]);
            parts.append(frame(&pool, &content[14..100]).into_buf().unwrap());
            parts.append(file.slice(100, 1400).unwrap());
            let from_file = Frame::from(file.slice(0, 1500).unwrap());
            b.nic.send(&mut vec![parts, from_file]).unwrap();
            let mut done = Vec::new();
            assert_eq!(b.nic.completed(&mut done).unwrap(), 2);
            assert_eq!(done[0].segments().count(), 3, "as it was given");
            assert_eq!(done[1].segments().count(), 1);
            for (_, sent) in std::mem::take(&mut b.card().sent) {
                assert_eq!(sent, [&[0; 12], &content[..1500]].concat(), "{ring:#x}");
            }
            assert_eq!(std::mem::take(&mut b.card().pieces), [3, 2]);
        }
    });
}

/// A frame that begins `early` bytes early, in its headroom.
fn early(pool: &Pool, early: usize, content: &[u8]) -> Frame {
    let mut buf = pool.alloc().expect("a buffer");
    buf.prepend(early);
    buf.fill(content);
    buf.into()
}

#[test]
fn a_frame_without_headroom_leaves_whole_at_any_place_of_a_batch() {
    every_ring(|ring| {
        let mut b = bench(PLAIN | ring, &small());
        let pool = Pool::new(b.nic.dma(), 16, 2048).unwrap();
        for begins in [0, 1, 51, 52, 53, 54, 63, 64] {
            for place in 0..5 {
                let content: Vec<_> = (0..5).map(|i| bytes(begins + i, 60 + i)).collect();
                let frames = content.iter().enumerate();
                let mut frames: Vec<_> = frames
                    .map(|(nth, c)| early(&pool, if nth == place { begins } else { 0 }, c))
                    .collect();
                assert_eq!(b.nic.send(&mut frames).unwrap(), 5, "{begins} at {place}");
                let sent = std::mem::take(&mut b.card().sent);
                let expected = content.iter().map(|c| (1, [&[0; 12], &c[..]].concat()));
                assert_eq!(sent, expected.collect::<Vec<_>>(), "{begins} at {place}");
                assert_eq!(b.nic.completed(&mut Vec::new()).unwrap(), 5);
            }
        }
        assert_eq!(b.memory.faults(), []);
    });
}

#[test]
fn empty_segments_of_a_frame_make_no_descriptor() {
    every_ring(|ring| {
        let mut b = bench(PLAIN | ring, &small());
        let pool = Pool::new(b.nic.dma(), 8, 2048).unwrap();
        let nothing = Pool::new(b.nic.dma(), 8, 0).unwrap();
        let content = bytes(1, 120);
        let empties = |pool: &Pool| pool.alloc().unwrap();
        for first in [&nothing, &pool] {
            let mut whole = Frame::from(empties(first));
            whole.append(empties(&nothing));
            whole.append(frame(&pool, &content[..60]).into_buf().unwrap());
            whole.append(empties(&pool));
            whole.append(frame(&pool, &content[60..]).into_buf().unwrap());
            whole.append(empties(&nothing));
            // The fake card refuses descriptors of length 0.
            assert_eq!(b.nic.send(&mut vec![whole]).unwrap(), 1);
            assert_eq!(b.nic.completed(&mut Vec::new()).unwrap(), 1);
            let (_, sent) = b.card().sent.pop().unwrap();
            assert_eq!(sent[12..], content);
        }
        let mut all_empty = vec![Frame::from(empties(&nothing))];
        assert!(b.nic.send(&mut all_empty).is_err());
        assert_eq!(all_empty.len(), 1);
    });
}

#[test]
fn a_frame_over_several_buffers_is_joined() {
    for ring in [0, PACKED] {
        let mut b = bench(PLAIN | MRG_RXBUF | ring, &small().max_frame(9014));
        for len in [2048, 2049, 2048 + 2060, 2048 + 2060 + 1, 9014] {
            let got = b.receive([0; 12], &bytes(len, len));
            assert_eq!(got[0].frame.to_vec(), bytes(len, len), "{len} bytes");
        }
        // Each goes out again as it is, wherever it begins.
        let got = b.receive([0; 12], &bytes(9, 9014));
        let frames = got.into_iter().flat_map(|got| got.frame.into_segments());
        b.nic.send(&mut frames.map(Frame::from).collect()).unwrap();
        let sent: Vec<u8> = b
            .card()
            .sent
            .iter()
            .flat_map(|sent| sent.1[12..].to_vec())
            .collect();
        assert_eq!(sent, bytes(9, 9014));
    }
}

#[test]
fn without_mergeable_buffers_one_holds_the_longest_frame() {
    let mut b = bench(PLAIN, &small().max_frame(9014));
    let got = b.receive([0; 12], &bytes(1, 9014));
    assert_eq!(got[0].frame.segments().count(), 1);
    assert_eq!(got[0].frame.to_vec(), bytes(1, 9014));
}

/// An Ethernet, IPv4 and TCP header, the IPv4 checksum zero, and `payload` bytes.
fn tcp(payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(1, 2, 3, 4)
        .write(&mut packet, &bytes(1, payload))
        .unwrap();
    packet
}

fn tso() -> Offload {
    Offload {
        flags: OffloadFlags::IP_CHECKSUM | OffloadFlags::TCP_CHECKSUM | OffloadFlags::TSO,
        l2_len: 14,
        l3_len: 20,
        l4_len: 20,
        mss: 1460,
        vlan: 0,
    }
}

#[test]
fn a_header_says_what_is_to_be_done_and_the_driver_does_the_rest() {
    let mut b = bench(PLAIN | CSUM | HOST_TSO4, &small());
    let pool = Pool::new(b.nic.dma(), 4, 16_384).unwrap();
    let whole = tcp(8000);
    let mut given = whole.clone();
    given[24..26].fill(0xaa);
    given[50..52].fill(0);
    let mut cut = frame(&pool, &given);
    cut.set_offload(tso());
    // Twice: what was done to it the first time does no harm.
    for _ in 0..2 {
        let mut frames = vec![cut];
        b.nic.send(&mut frames).unwrap();
        let (_, sent) = b.card().sent.pop().unwrap();
        // NEEDS_CSUM, TCPV4, 54 bytes of headers, 1460, from 34 on, at 16.
        assert_eq!(sent[..10], [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0]);
        assert_eq!(sent[12 + 24..12 + 26], whole[24..26], "the IPv4 checksum");
        let pseudo: u32 = [0x0a00u32, 1, 0x0a00, 2, 6, 8020].iter().sum();
        assert_eq!(sent[12 + 50..12 + 52], (pseudo as u16).to_be_bytes());
        let mut done = Vec::new();
        b.nic.completed(&mut done).unwrap();
        cut = done.pop().unwrap();
    }
}

#[test]
fn what_the_card_does_not_offer_is_refused() {
    let mut b = bench(PLAIN, &small());
    let pool = Pool::new(b.nic.dma(), 4, 16_384).unwrap();
    let mut cut = frame(&pool, &tcp(8000));
    cut.set_offload(tso());
    let mut frames = vec![frame(&pool, &tcp(1)), cut, frame(&pool, &tcp(1))];
    let error = b.nic.send(&mut frames).unwrap_err().to_string();
    assert!(
        error.contains("TSO") && error.contains("vhost-user"),
        "{error}"
    );
    assert_eq!((frames.len(), b.card().sent.len()), (2, 1));
    frames.remove(0);
    b.nic.send(&mut frames).unwrap();
    for nonsense in [
        Offload {
            l3_len: 0,
            ..Offload::UDP4
        },
        Offload {
            l2_len: 255,
            ..Offload::UDP4
        },
    ] {
        let flags = OffloadFlags::IP_CHECKSUM;
        let mut bad = frame(&pool, &tcp(1));
        bad.set_offload(Offload { flags, ..nonsense });
        assert!(b.nic.send(&mut vec![bad]).is_err(), "{nonsense:?}");
    }
}

#[test]
fn what_is_left_to_do_to_a_frame_that_came_in_is_told() {
    let config = small().rx_offload(true);
    let mut b = bench(PLAIN | GUEST_CSUM | GUEST_TSO4 | MRG_RXBUF, &config);
    let header = |flags, gso, size: u16, start: u8, offset| {
        let [low, high] = size.to_le_bytes();
        [flags, gso, 0, 0, low, high, start, 0, offset, 0, 0, 0]
    };
    let got = b.receive(header(0, 0, 0, 0, 0), &tcp(100));
    assert_eq!(
        (got[0].l4_checksum(), got[0].frame.offload()),
        (Checksum::Unchecked, Offload::NONE)
    );
    let got = b.receive(header(2, 0, 0, 0, 0), &tcp(100));
    assert_eq!(
        (got[0].l4_checksum(), got[0].frame.offload()),
        (Checksum::Good, Offload::NONE)
    );
    let got = b.receive(header(1, 0, 0, 34, 16), &tcp(100));
    let expected = Offload {
        flags: OffloadFlags::TCP_CHECKSUM,
        mss: 0,
        ..tso()
    };
    assert_eq!(
        (got[0].l4_checksum(), got[0].frame.offload()),
        (Checksum::Good, expected)
    );
    let got = b.receive(header(1, 1, 1460, 34, 16), &tcp(9000));
    let flags = OffloadFlags::TCP_CHECKSUM | OffloadFlags::TSO;
    assert_eq!(got[0].frame.offload(), Offload { flags, ..tso() });
    // What cannot be is dropped and counted.
    for nonsense in [
        header(1, 0, 0, 34, 200),
        header(1, 0, 0, 3, 16),
        header(1, 1, 0, 34, 16),
        header(1, 4, 1460, 34, 16),
        header(0, 1, 1460, 34, 16),
        header(1, 77, 1460, 34, 16),
    ] {
        assert!(b.receive(nonsense, &tcp(100)).is_empty(), "{nonsense:?}");
    }
    assert_eq!(b.nic.stats().rx_errors, 6);
}

#[test]
fn a_card_that_lies_about_buffers_is_found_out() {
    for ring in [0, PACKED] {
        for (num_buffers, written) in [
            (Some(0), None),
            (Some(17), None),
            (Some(2), None),
            (None, Some(0)),
            (None, Some(12)),
            (None, Some(5000)),
        ] {
            let mut b = bench(PLAIN | MRG_RXBUF | ring, &small());
            b.card().lies = Lies {
                num_buffers,
                written,
                ..Lies::default()
            };
            b.lie();
            // It was stopped.
            assert_eq!(b.card().status, 0);
            b.nic.restart().unwrap();
            assert_eq!(b.receive([0; 12], &bytes(1, 60)).len(), 1);
        }
    }
}

#[test]
fn a_card_that_cannot_be_driven_says_what_to_do() {
    let error = refusal(PLAIN & !VERSION_1, |_| {});
    assert!(
        error.contains("disable-legacy=on,disable-modern=off"),
        "{error}"
    );
    let error = refusal(PLAIN & !ACCESS_PLATFORM, |_| {});
    assert!(
        error.contains("iommu_platform=on,disable-legacy=on"),
        "{error}"
    );
    let error = refusal(PLAIN, |card| card.lies.takes_features_back = true);
    assert!(error.contains("took FEATURES_OK back"), "{error}");
    let error = refusal(PLAIN, |card| card.hide_structures());
    assert!(error.contains("legacy interface only"), "{error}");
    let error = refusal(PLAIN, |card| card.queue_max = 0);
    assert!(
        error.contains("queue 0 (rx_ring) has no descriptors"),
        "{error}"
    );
    let error = refusal(PLAIN, |card| card.link = false);
    assert!(error.contains("link-up did not happen"), "{error}");
}

/// Frames go out and come in.
fn is_driven(b: &mut Bench) {
    let pool = Pool::new(b.nic.dma(), 4, 2048).unwrap();
    b.card().forget();
    assert_eq!(
        b.nic.send(&mut vec![frame(&pool, &bytes(1, 60))]).unwrap(),
        1
    );
    assert_eq!(b.card().sent.len(), 1);
    assert_eq!(b.nic.completed(&mut Vec::new()).unwrap(), 1);
    assert_eq!(b.receive([0; 12], &bytes(2, 70)).len(), 1);
}

/// Starts a card that was first changed by `change`, and drives it.
fn driven(offered: u64, config: &NicConfig, change: impl FnOnce(&mut FakeVirtioNet)) -> Bench {
    let (fake, card) = FakeVirtioNet::fake(offered);
    change(&mut FakeVirtioNet::lock(&card));
    let mut b = on(fake, card, config);
    is_driven(&mut b);
    b.nic.restart().unwrap();
    is_driven(&mut b);
    b
}

#[test]
fn the_first_capability_that_can_be_used_is() {
    const IO: u8 = 2;
    for kind in 1..=4u8 {
        let full = if kind == 2 { 20 } else { 16 };
        let mut odd = vec![
            // Reserved BARs, I/O ports.
            (kind, full, 6, (0, 0x1000)),
            (kind, full, 255, (0, 0x1000)),
            (kind, full, IO, (0, 0x1000)),
            // Beyond the BAR's end, wherever the sum goes.
            (kind, full, 4, (0x4000, 0x1000)),
            (kind, full, 4, (0x3ffc, 8)),
            (kind, full, 4, (0xffff_fffc, 0xffff_ffff)),
            (kind, full, 4, (0xf000_0000, 0x1000_0000)),
            // A capability that is too short for its type.
            (kind, full - 1, 4, (0, 0x1000)),
            (kind, 0, 4, (0, 0x1000)),
            // Types that are reserved.
            (0, full, 4, (0, 0x1000)),
            (6, full, 4, (0, 0x1000)),
            (kind + 0x80, full, 4, (0, 0x1000)),
        ];
        if kind != 4 {
            odd.push((kind, full, 4, (0, 0)));
        }
        if kind != 3 {
            odd.push((kind, full, 4, (0x2001, 0x1000)));
        }
        for (kind, len, bar, at) in odd {
            driven(PLAIN, &small(), |card| {
                card.make_io(IO.into());
                card.put_in_front(0, kind, len, bar, at);
            });
        }
        // Several, in a list whose end leads back to its beginning.
        driven(PLAIN, &small(), |card| {
            card.make_io(IO.into());
            card.put_in_front(0, kind, full, IO, (0, 4));
            card.put_in_front(1, kind, full, 7, (0, 0x1000));
            card.put_in_front(2, kind, full, 4, (0x5000, 0x1000));
            card.link_capability(0x90, 0xc8);
        });
        // The first of two that can.
        driven(PLAIN, &small(), |card| {
            let at = [(0, 0x3c), (0x3000, 0x1000), (0x1000, 1), (0x2000, 0x18)];
            card.move_structure([0, 3, 1, 2][usize::from(kind) - 1], 0x100, 0x1000);
            card.put_in_front(0, kind, full, 4, at[usize::from(kind) - 1]);
            // The multiplier.
            card.put_word(0xb0, 4);
        });
        let nowhere = refusal(PLAIN, |card| {
            card.make_io(4);
        });
        assert!(nowhere.contains("I/O ports"), "{nowhere}");
    }
}

#[test]
fn a_queue_is_as_long_as_the_device_can_have_it() {
    let offered = PLAIN | CTRL_VQ | CTRL_RX;
    let big = NicConfig::default();
    for (ring, most, size) in [
        (0, 8, 8),
        (0, 48, 32),
        (0, 0xffff, 256),
        (PACKED, 3, 3),
        (PACKED, 48, 48),
        (PACKED, 0xffff, 256),
    ] {
        let b = driven(offered | ring, &big, |card| card.queue_max = most);
        assert_eq!(b.card().size_of(0), Some(size), "{most}");
        assert_eq!(b.card().size_of(1), Some(size), "{most}");
        assert_eq!(b.nic.tx_capacity(256), size as usize);
    }
    for (ring, most, size) in [
        (0, 48, 32),
        (0, 2, 2),
        (PACKED, 48, 48),
        (PACKED, 3, 3),
        (PACKED, 1024, 64),
    ] {
        let b = driven(offered | ring, &big, |card| card.control_max = Some(most));
        assert_eq!(b.card().size_of(2), Some(size), "{most}");
        assert!(!b.card().commands.is_empty());
    }
}

#[test]
fn a_card_whose_control_queue_cannot_be_used_is_driven_without() {
    let offered = PLAIN | CTRL_VQ | CTRL_RX | CTRL_VLAN | GUEST_ANNOUNCE | MQ | RSS;
    for ring in [0, PACKED] {
        for most in [0, 1] {
            let mut b = driven(offered | ring, &filtering(), |card| {
                card.control_max = Some(most);
            });
            assert_eq!(b.card().taken & !(PLAIN | ring), 0);
            assert!(b.card().commands.is_empty());
            let error = b.nic.set_promiscuous(true).unwrap_err().to_string();
            assert!(error.contains("CTRL_RX"), "{error}");
        }
    }
    let (fake, card) = FakeVirtioNet::fake(offered);
    (
        FakeVirtioNet::lock(&card).pairs,
        FakeVirtioNet::lock(&card).control_max,
    ) = (2, Some(1));
    let two = small().queues(2);
    let error = start(fake, &two).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("control queue (number 4) has 1"), "{error}");
}

#[test]
fn as_many_queue_pairs_as_the_specification_allows_are_no_lie() {
    let offered = PLAIN | CTRL_VQ | MQ;
    let two = small().queues(2);
    let b = driven(offered, &two, |card| card.pairs = 500);
    assert_eq!(b.card().size_of(1000), Some(64), "the control queue");
    for (pairs, says) in [
        (0x8000, "would be number 65536"),
        (
            0,
            "0 queue pairs (max_virtqueue_pairs): there are 1 to 32768",
        ),
        (0x8001, "32769 queue pairs"),
        (0xffff, "65535 queue pairs"),
    ] {
        let (fake, card) = FakeVirtioNet::fake(offered);
        FakeVirtioNet::lock(&card).pairs = pairs;
        let error = start(fake, &two).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    // Who wants one pair need not know.
    driven(offered, &small(), |card| card.pairs = 0x8000);
}

#[test]
fn a_doorbell_is_inside_of_its_structure_however_far_apart_they_are() {
    for multiplier in [0xffff_ffff, 0x8000_0000, 0x1_0000] {
        let error = refusal(PLAIN, |card| {
            card.set_multiplier(multiplier);
            card.lies.doorbell_outside = true;
        });
        assert!(error.contains("the doorbell of queue 0"), "{error}");
    }
}

#[test]
fn a_card_that_lies_about_itself_is_not_started() {
    for nth in 0..4 {
        for (offset, length) in [(0x4000, 0x1000), (0xffff_f000, 0x2000), (0x3ff0, 0x3c)] {
            let error = refusal(PLAIN, |card| card.move_structure(nth, offset, length));
            assert!(error.contains("structure is"), "{error}");
        }
    }
    let error = refusal(PLAIN, |card| card.move_structure(0, 0, 0x30));
    assert!(error.contains("56 bytes are needed"), "{error}");
    let error = refusal(PLAIN, |card| card.lies.doorbell_outside = true);
    assert!(error.contains("the doorbell of queue 0"), "{error}");
    let error = refusal(PLAIN, |card| card.lies.config_never_stands_still = true);
    assert!(error.contains("changed during each of"), "{error}");
    let error = refusal(PLAIN, |card| card.lies.gives_no_vector = true);
    assert!(error.contains("0xffff"), "{error}");
    let error = refusal(PLAIN | CTRL_VQ | CTRL_RX, |card| card.lies.no_answer = true);
    assert!(error.contains("control queue"), "{error}");
    let error = refusal(PLAIN | CTRL_VQ | CTRL_RX, |card| card.lies.says_no = true);
    assert!(error.contains("says no"), "{error}");
    let error = refusal(PLAIN, |card| {
        card.status = 4;
        card.lies.never_resets = true;
    });
    assert!(error.contains("DEVICE_STATUS"), "{error}");
    let error = refusal(PLAIN, |card| card.gone = true);
    assert!(error.contains("is gone"), "{error}");
}

#[test]
fn a_card_that_gives_up_is_started_again_and_gives_back_what_it_had() {
    for ring in [0, PACKED, PACKED | IN_ORDER, IN_ORDER] {
        let mut b = bench(PLAIN | CTRL_VQ | CTRL_RX | ring, &small());
        b.card().works = false;
        let pool = Pool::new(b.nic.dma(), 4, 64).unwrap();
        let content: Vec<_> = (0..3).map(|i| bytes(i, 60)).collect();
        b.nic
            .send(&mut content.iter().map(|c| frame(&pool, c)).collect())
            .unwrap();
        b.nic.check().unwrap();
        b.card().status |= 64;
        let error = b.nic.check().unwrap_err().to_string();
        assert!(error.contains("DEVICE_NEEDS_RESET"), "{error}");
        b.card().works = true;
        let back = b.nic.restart().unwrap();
        assert_eq!(back.iter().map(Frame::to_vec).collect::<Vec<_>>(), content);
        b.nic.check().unwrap();
        b.nic.send(&mut { back }).unwrap();
        assert_eq!(b.card().sent.len(), 3);
        assert_eq!(b.receive([0; 12], &bytes(1, 60)).len(), 1);
    }
}

#[test]
fn features_that_are_gone_after_a_reset_are_a_lie() {
    let mut b = bench(PLAIN | MRG_RXBUF, &small());
    b.card().offered = PLAIN;
    let error = b.nic.restart().unwrap_err().to_string();
    assert!(
        error.contains("does not offer features any more"),
        "{error}"
    );
    drop(b.nic);
    assert_eq!(b.memory.mappings(), 0);
}

#[test]
fn a_configuration_that_changes_while_it_is_read_is_read_again() {
    let (fake, card) = FakeVirtioNet::fake(PLAIN | MTU);
    FakeVirtioNet::lock(&card).next_mtu = Some(9000);
    let b = on(fake, card, &small());
    assert_eq!(b.nic.max_tx_frame(), 9014);
}

#[test]
fn a_card_that_is_another_after_a_reset_is_not_driven() {
    let mut b = bench(PLAIN | MTU, &small());
    b.card().mtu = 1000;
    let error = b.nic.restart().unwrap_err().to_string();
    assert!(error.contains("MTU"), "{error}");
    assert_eq!(b.card().status, 0, "it was let go");
}

#[test]
fn a_card_that_is_dropped_is_reset_and_then_its_memory_is_freed() {
    for ring in [0, PACKED] {
        let b = bench(PLAIN | ring, &small());
        let card = Arc::clone(&b.card);
        assert_eq!(FakeVirtioNet::lock(&card).status, 15);
        drop(b.nic);
        assert_eq!(
            (FakeVirtioNet::lock(&card).status, b.memory.mappings()),
            (0, 0)
        );
    }
}

#[test]
fn a_card_that_is_pulled_out_is_gone_and_its_memory_is_freed() {
    let mut b = bench(PLAIN, &small());
    b.card().gone = true;
    assert!(!b.nic.link().up);
    for error in [b.nic.check().unwrap_err(), b.nic.stop().unwrap_err()] {
        assert!(error.to_string().contains("is gone"), "{error}");
    }
    drop(b.nic);
    assert_eq!(b.memory.mappings(), 0);
}

#[test]
fn several_pairs_have_a_vector_each() {
    for (feature, command) in [
        (MQ, vec![4, 0, 3, 0]),
        (MQ | RSS, vec![4, 1, 0x3f, 0, 0, 0, 127, 0]),
    ] {
        let (fake, card) = FakeVirtioNet::fake(PLAIN | CTRL_VQ | feature);
        FakeVirtioNet::lock(&card).pairs = 4;
        let config = small().queues(3).waiting(Waiting::Interrupt);
        let mut b = on(fake, card, &config);
        let last = b.card().commands.last().unwrap().clone();
        assert_eq!(last[..command.len()], command);
        if feature & RSS != 0 {
            // Unhashed to 0; 128 entries round the three; 3 queues; 40 bytes of key.
            assert_eq!(last[8..18], [0, 0, 0, 0, 1, 0, 2, 0, 0, 0]);
            assert_eq!(last.len(), 10 + 256 + 3 + 40);
            assert_eq!(last[10 + 256..][..3], [3, 0, 40]);
        }
        let pool = Pool::new(b.nic.dma(), 8, 64).unwrap();
        for pair in 0..3 {
            assert!(!b.nic.pair_mut(pair).wait(Duration::ZERO).unwrap());
            assert!(!b.nic.pair_mut(pair).arm().unwrap());
            assert!(FakeVirtioNet::lock(&b.card).receive(
                &b.memory,
                pair as u16,
                [0; 12],
                &bytes(pair, 60)
            ));
            assert!(
                b.nic
                    .pair(pair)
                    .irq()
                    .unwrap()
                    .wait(Duration::ZERO)
                    .unwrap()
            );
            b.nic.pair_mut(pair).disarm().unwrap();
            let mut got = Vec::new();
            assert_eq!(b.nic.pair_mut(pair).recv(&mut got, 8).unwrap(), 1);
            b.nic
                .pair_mut(pair)
                .send(&mut vec![frame(&pool, &bytes(pair, 60))])
                .unwrap();
            assert_eq!(b.card().sent.pop().unwrap().0, 2 * pair as u16 + 1);
        }
        assert_eq!(b.nic.rings().len(), 7);
    }
}

#[test]
fn more_pairs_than_the_card_has_are_refused() {
    let (fake, _card) = FakeVirtioNet::fake(PLAIN | CTRL_VQ);
    let config = small().queues(2);
    let error = start(fake, &config).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("it has 1") && error.contains("mq=on"),
        "{error}"
    );
}

#[test]
fn the_control_queue_is_told_who_may_come_in() {
    for ring in [0, PACKED, PACKED | INDIRECT, INDIRECT] {
        let mut b = bench(PLAIN | CTRL_VQ | CTRL_RX | CTRL_VLAN | ring, &filtering());
        let first = std::mem::take(&mut b.card().commands);
        assert_eq!(first[0], [0, 0, 0], "not promiscuous");
        let added: Vec<_> = first.iter().filter(|c| c[..2] == [2, 0]).collect();
        assert_eq!(added.len(), 4096, "all VLANs");
        b.nic.set_vlans(Some(&[5, 4095])).unwrap();
        let removed = std::mem::take(&mut b.card().commands);
        assert_eq!(removed.len(), 4094);
        assert!(removed.iter().all(|c| c[..2] == [2, 1]));
        b.nic.set_vlans(Some(&[5, 6])).unwrap();
        assert_eq!(
            std::mem::take(&mut b.card().commands),
            [vec![2, 0, 6, 0], vec![2, 1, 0xff, 0xf]]
        );
        b.nic.set_multicast(&[Mac([1; 6])]).unwrap();
        let ours = [&[1, 0, 1, 0, 0, 0], &MAC[..]].concat();
        let table = [&ours[..], &[1, 0, 0, 0, 1, 1, 1, 1, 1, 1]].concat();
        assert_eq!(std::mem::take(&mut b.card().commands), [table]);
        b.nic.set_promiscuous(true).unwrap();
        assert_eq!(
            std::mem::take(&mut b.card().commands),
            [[0, 0, 1], [0, 1, 1]]
        );
    }
    let mut b = bench(PLAIN, &small());
    assert!(b.nic.set_promiscuous(true).is_err());
}

/// A device may let in all until it was told what to filter (QEMU's does).
#[test]
fn no_buffer_is_lent_before_the_filter_is_told() {
    for ring in [0, PACKED] {
        let mut b = bench(PLAIN | CTRL_VQ | CTRL_RX | CTRL_VLAN | ring, &filtering());
        b.nic.restart().unwrap();
        let lent = b.card().lent_at_command.clone();
        assert_eq!(lent, [false; 2 * (3 + 4096)]);
        b.nic.set_promiscuous(true).unwrap();
        assert_eq!(b.card().lent_at_command.last(), Some(&true));
    }
}

#[test]
fn the_network_is_told_where_the_card_is_when_the_device_asks() {
    for ring in [0, PACKED, EVENT_IDX] {
        let mut b = bench(PLAIN | CTRL_VQ | GUEST_ANNOUNCE | ring, &small());
        b.nic.wait(Duration::from_millis(1)).unwrap();
        assert!(b.card().sent.is_empty(), "nobody asked");
        b.card().announce = true;
        b.card().change();
        assert!(b.nic.wait(Duration::from_secs(10)).unwrap());
        assert!(!b.card().announce, "the device was told");
        let (queue, frame) = b.card().sent.remove(0);
        let packet = etherparse::Ethernet2Header::from_slice(&frame[12..])
            .unwrap()
            .0;
        assert_eq!(
            (queue, packet.source, packet.destination),
            (1, MAC, [0xff; 6])
        );
        assert_eq!(packet.ether_type.0, 0x8035);
        assert_eq!(frame[12 + 22..12 + 28], MAC, "who asks is who is asked for");
        assert_eq!(
            frame[12 + 32..],
            MAC.iter().chain(&[0; 4]).copied().collect::<Vec<_>>()
        );
        // It is nobody's frame: none comes back, and it is not counted.
        let mut done = Vec::new();
        assert_eq!(b.nic.completed(&mut done).unwrap(), 0);
        assert_eq!(
            (done.len(), b.nic.in_flight(), b.nic.stats().tx_frames),
            (0, 0, 0)
        );
        b.nic.wait(Duration::from_millis(1)).unwrap();
        assert!(b.card().sent.is_empty(), "once is enough");
    }
}

#[test]
fn a_change_of_the_link_ends_a_wait() {
    for feature in [0, EVENT_IDX, PACKED] {
        let mut b = bench(PLAIN | feature, &small());
        assert!(!b.nic.wait(Duration::from_millis(1)).unwrap());
        assert!(b.nic.link().up);
        b.card().link = false;
        b.card().change();
        assert!(b.nic.wait(Duration::from_secs(10)).unwrap());
        assert!(!b.nic.link().up);
        assert!(!b.nic.wait(Duration::from_millis(1)).unwrap());
    }
}

/// The device uses a buffer at any moment between two looks of the driver.
#[test]
fn no_wake_up_is_lost() {
    for feature in [0, EVENT_IDX, PACKED, PACKED | EVENT_IDX] {
        let config = small().waiting(Waiting::Interrupt);
        let mut b = bench(PLAIN | feature, &config);
        const FRAMES: usize = 2000;
        std::thread::scope(|scope| {
            let (card, memory) = (Arc::clone(&b.card), Arc::clone(&b.memory));
            scope.spawn(move || {
                for n in 0..FRAMES {
                    while !FakeVirtioNet::lock(&card).receive(&memory, 0, [0; 12], &bytes(n, 60)) {
                        std::thread::yield_now();
                    }
                    if n % 7 == 0 {
                        std::thread::sleep(Duration::from_micros(20));
                    }
                }
            });
            let (mut got, mut count) = (Vec::new(), 0);
            while count < FRAMES {
                got.clear();
                match b.nic.recv(&mut got, 4).unwrap() {
                    0 => assert!(
                        b.nic.wait(Duration::from_secs(20)).unwrap(),
                        "{count} frames"
                    ),
                    some => count += some,
                }
            }
        });
    }
}

#[test]
fn the_limit_is_reached_with_one_buffer_and_leaves_the_ring_usable() {
    every_ring(|ring| {
        let mut b = bench(PLAIN | ring, &small());
        let pool = Pool::new(b.nic.dma(), 4, 64).unwrap();
        for frames in [1, 7, 16, 1000, 1003] {
            b.nic.limit(60, 4, frames).unwrap();
            assert_eq!(b.card().sent.len() as u64, frames, "{ring:#x}");
            b.card().sent.clear();
            b.nic.send(&mut vec![frame(&pool, &bytes(1, 60))]).unwrap();
            let mut done = Vec::new();
            assert_eq!(b.nic.completed(&mut done).unwrap(), 1);
            b.card().sent.clear();
        }
        assert!(b.nic.limit(60, 16, 100).is_err());
    });
}

#[test]
fn registers_are_named_wherever_they_are_and_reading_them_disturbs_nothing() {
    let b = bench(PLAIN | CTRL_VQ | CTRL_RX, &small());
    let place = |offset, width| pinwire::mmio::Place {
        bar: 4,
        offset,
        width,
    };
    let name = |offset, width| {
        b.nic
            .register_at(place(offset, width))
            .map(|(info, _)| info.name)
    };
    use pinwire::mmio::Width::{Four, One, Two};
    assert_eq!(name(0x14, One), Some("DEVICE_STATUS"));
    assert_eq!(name(0x1c, Two), Some("QUEUE_ENABLE"));
    assert_eq!(name(0x1000, One), Some("ISR_STATUS"));
    assert_eq!(name(0x2006, Two), Some("STATUS"));
    assert_eq!(name(0x3004, Two), Some("NOTIFY_QUEUE"));
    assert_eq!(name(0x3004, Four), Some("NOTIFY_DATA"));
    assert_eq!(name(0x3f00_0000, Four), None);
    b.card().change();
    let before = b.nic.registers();
    let sizes: Vec<_> = before
        .iter()
        .filter(|view| view.info.name == "QUEUE_SIZE")
        .collect();
    assert_eq!(
        sizes
            .iter()
            .map(|view| (view.index, view.value))
            .collect::<Vec<_>>(),
        [(0, 16), (1, 16), (2, 64)]
    );
    assert!(b.nic.irq_is_due(), "the ISR is not read");
}

trait IrqIsDue {
    fn irq_is_due(&self) -> bool;
}

impl IrqIsDue for Net {
    fn irq_is_due(&self) -> bool {
        use pinwire::virtio::Transport;
        (self.transport().isr())().1
    }
}

#[test]
fn features_are_listed_with_what_became_of_them() {
    let config = small().driver(VirtioNetConfig::default().refuse_features(MRG_RXBUF));
    let b = bench(PLAIN | MRG_RXBUF | PACKED, &config);
    let of = |name: &str| {
        let view = b
            .nic
            .features()
            .into_iter()
            .find(|view| view.name == name)
            .unwrap();
        (view.bit, view.offered, view.negotiated)
    };
    assert_eq!(of("MRG_RXBUF"), (15, true, false));
    assert_eq!(of("RING_PACKED"), (34, true, true));
    assert_eq!(of("EVENT_IDX"), (29, false, false));
    assert_eq!(b.card().taken & MRG_RXBUF, 0);
    let drivers = open::Drivers::default();
    let knows = |device| drivers.is_supported(0x1af4, device);
    assert!(knows(0x1041) && knows(0x1000) && !knows(0x1042));
}

#[test]
fn a_feature_is_not_taken_without_all_that_it_needs() {
    // It needs the control queue to be answered, and the status to be asked for.
    for without in [
        PLAIN | GUEST_ANNOUNCE,
        PLAIN & !STATUS | GUEST_ANNOUNCE | CTRL_VQ,
    ] {
        let mut b = bench(without, &small());
        assert_eq!(b.card().taken & GUEST_ANNOUNCE, 0);
        b.card().announce = true;
        b.card().change();
        b.nic.wait(Duration::ZERO).unwrap();
    }
}

#[test]
fn frames_longer_than_virtio_has_are_refused_before_the_card_is_touched() {
    let (fake, card) = FakeVirtioNet::fake(PLAIN);
    let longest = 65_550;
    for (max_frame, fits) in [(longest, true), (longest + 1, false), (1 << 55, false)] {
        let config = small().max_frame(max_frame);
        let memory = Arc::clone(fake.memory());
        let started = start(Fake::beside(card.clone(), SIZE, &memory), &config).map(|_| ());
        assert_eq!(started.is_ok(), fits, "{max_frame} bytes");
        if let Err(error) = started {
            assert!(matches!(error, pinwire::Error::Usage(_)), "{error}");
            let says = format!("frames of {max_frame} bytes: the card receives up to {longest}");
            assert!(error.to_string().contains(&says), "{error}");
        }
    }
}

#[test]
fn what_keeps_memory_safe_cannot_be_refused() {
    for feature in [ACCESS_PLATFORM, VERSION_1] {
        let (fake, card) = FakeVirtioNet::fake(PLAIN);
        let config = small().driver(VirtioNetConfig::default().refuse_features(feature));
        let error = start(fake, &config).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("do not refuse them"), "{error}");
        assert_eq!(
            FakeVirtioNet::lock(&card).status & 12,
            0,
            "it was never let go"
        );
    }
}

#[test]
fn after_a_no_the_control_queue_is_heard_again() {
    for ring in [0, PACKED, IN_ORDER, PACKED | IN_ORDER] {
        let mut b = bench(PLAIN | CTRL_VQ | CTRL_RX | CTRL_VLAN | ring, &filtering());
        b.card().lies.says_no_to = Some(vec![2, 1, 7, 0]);
        let error = b.nic.set_vlans(Some(&[])).unwrap_err().to_string();
        assert!(error.contains("says no"), "{error}");
        b.nic.set_multicast(&[]).unwrap();
        b.card().lies.says_no_to = None;
        b.card().commands.clear();
        // Which of them it did is not known: all are told again.
        b.nic.set_vlans(Some(&[5])).unwrap();
        let told = std::mem::take(&mut b.card().commands);
        assert_eq!((told.len(), &told[0][..]), (4096, &[2, 0, 5, 0][..]));
    }
}

#[test]
fn a_card_that_answers_slowly_is_given_up_after_one_bound_for_all() {
    let mut b = bench(PLAIN | CTRL_VQ | CTRL_VLAN, &filtering());
    b.card().works = false;
    std::thread::scope(|scope| {
        let (card, memory) = (Arc::clone(&b.card), Arc::clone(&b.memory));
        scope.spawn(move || {
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(250));
                FakeVirtioNet::lock(&card).obey(2, &memory, 1);
            }
        });
        let without: Vec<u16> = (10..4096).collect();
        let begin = std::time::Instant::now();
        let error = b.nic.set_vlans(Some(&without)).unwrap_err();
        assert!(matches!(error, pinwire::Error::Timeout { .. }), "{error}");
        // While it answers still.
        assert!(begin.elapsed() < Duration::from_millis(2500));
    });
}

#[test]
fn the_vlan_filter_is_taken_only_where_it_is_wanted() {
    let mut b = bench(PLAIN | CTRL_VQ | CTRL_VLAN, &small());
    assert_eq!(b.card().taken & CTRL_VLAN, 0);
    assert!(b.card().commands.is_empty());
    let error = b.nic.set_vlans(Some(&[5])).unwrap_err().to_string();
    assert!(error.contains("NicConfig::vlan_filter"), "{error}");
    let mut b = bench(PLAIN | CTRL_VQ, &filtering());
    let error = b.nic.set_vlans(Some(&[5])).unwrap_err().to_string();
    assert!(error.contains("CTRL_VLAN"), "{error}");
}

#[test]
fn what_is_no_vlan_id_is_refused() {
    let mut b = bench(PLAIN | CTRL_VQ | CTRL_VLAN, &filtering());
    b.card().commands.clear();
    let error = b.nic.set_vlans(Some(&[5, 4096])).unwrap_err();
    assert!(matches!(error, pinwire::Error::Usage(_)), "{error}");
    assert!(b.card().commands.is_empty());
}

#[test]
fn an_address_made_up_is_told_to_the_filter() {
    const MAC_FEATURE: u64 = 1 << 5;
    let b = bench(PLAIN & !MAC_FEATURE | CTRL_VQ | CTRL_RX, &small());
    assert_ne!(b.nic.mac().0, MAC);
    let table = [&[1, 0, 1, 0, 0, 0], &b.nic.mac().0[..], &[0; 4]].concat();
    assert_eq!(b.card().commands.last(), Some(&table));
}

#[test]
fn a_card_that_is_gone_asks_for_nothing() {
    let mut b = bench(PLAIN | CTRL_VQ | GUEST_ANNOUNCE, &small());
    b.card().gone = true;
    let begin = std::time::Instant::now();
    let error = b.nic.wait(Duration::from_millis(1)).unwrap_err();
    assert!(matches!(error, pinwire::Error::DeviceGone(_)), "{error}");
    assert!(begin.elapsed() < Duration::from_millis(900));
}

#[test]
fn a_no_to_an_announcement_ends_nothing() {
    let mut b = bench(PLAIN | CTRL_VQ | GUEST_ANNOUNCE, &small());
    b.card().lies.says_no = true;
    b.card().announce = true;
    b.card().change();
    b.nic.wait(Duration::from_secs(10)).unwrap();
    assert_eq!(b.card().sent.len(), 1, "the network was told");
    assert_eq!(b.receive([0; 12], &bytes(1, 60)).len(), 1);
}

#[test]
fn who_forwards_announces_both_cards() {
    let offered = PLAIN | CTRL_VQ | GUEST_ANNOUNCE;
    let (first, a) = FakeVirtioNet::fake(offered);
    let memory = Arc::clone(first.memory());
    let b = Arc::new(Mutex::new(FakeVirtioNet::new(offered)));
    let second = Fake::beside(b.clone(), SIZE, &memory);
    let (mut one, mut two) = (on(first, a, &small()), on(second, b, &small()));
    let mut forward = pinwire::net::Forward::new(&mut one.nic, &mut two.nic, 8).unwrap();
    for card in [&one.card, &two.card] {
        FakeVirtioNet::lock(card).announce = true;
        FakeVirtioNet::lock(card).change();
        forward.wait(Duration::from_secs(10)).unwrap();
        let sent = std::mem::take(&mut FakeVirtioNet::lock(card).sent);
        assert_eq!((sent.len(), &sent[0].1[12 + 6..12 + 12]), (1, &MAC[..]));
        assert!(!FakeVirtioNet::lock(card).announce, "the device was told");
    }
}

#[test]
fn tcp_is_cut_only_over_the_ip_that_was_agreed_on() {
    for (feature, over) in [
        (HOST_TSO4, OffloadFlags::IPV6),
        (HOST_TSO6, OffloadFlags::empty()),
    ] {
        let mut b = bench(PLAIN | CSUM | feature, &small());
        let pool = Pool::new(b.nic.dma(), 4, 16_384).unwrap();
        let mut cut = frame(&pool, &tcp(8000));
        let flags = OffloadFlags::TCP_CHECKSUM | OffloadFlags::TSO | over;
        cut.set_offload(Offload { flags, ..tso() });
        let error = b.nic.send(&mut vec![cut]).unwrap_err().to_string();
        assert!(error.contains("TSO"), "{error}");
        assert!(b.card().sent.is_empty());
    }
}

/// An Ethernet frame with a VLAN tag and `payload` bytes after it.
fn tagged(payload: usize) -> Vec<u8> {
    [&[2; 12][..], &[0x81, 0, 0, 5, 0x08, 0], &bytes(1, payload)].concat()
}

#[test]
fn a_tag_does_not_count_for_the_mtu() {
    let mut b = bench(PLAIN | MTU, &small());
    let pool = Pool::new(b.nic.dma(), 4, 2048).unwrap();
    assert_eq!(b.nic.max_tx_frame(), 1514);
    for (content, fits) in [
        (bytes(1, 1514), true),
        (bytes(1, 1515), false),
        (tagged(1500), true),
        (tagged(1501), false),
    ] {
        let sent = b.nic.send(&mut vec![frame(&pool, &content)]);
        assert_eq!(sent.is_ok(), fits, "{} bytes", content.len());
    }
    // And comes in, where one buffer must hold it, and is taken where that is not more than is wanted.
    for (max_frame, taken) in [(1518, false), (9017, false), (9018, true)] {
        let (fake, card) = FakeVirtioNet::fake(PLAIN | MTU);
        FakeVirtioNet::lock(&card).mtu = 9000;
        let config = small().max_frame(max_frame);
        let mut b = on(fake, card, &config);
        let got = b.receive([0; 12], &tagged(9000));
        let got: Vec<_> = got.iter().map(|got| got.frame.to_vec()).collect();
        assert_eq!(got.len(), usize::from(taken), "{max_frame}");
        assert!(got.iter().all(|got| *got == tagged(9000)));
        assert_eq!(b.nic.dropped_longer(), u64::from(!taken), "{max_frame}");
    }
}

#[test]
fn an_mtu_that_no_device_may_have_is_a_lie() {
    let error = refusal(PLAIN | MTU, |card| card.mtu = 67);
    assert!(
        error.contains("wrote what cannot be true") && error.contains("67"),
        "{error}"
    );
}

#[test]
fn a_card_that_cannot_be_started_again_is_stopped() {
    let config = small().link_wait(Duration::from_millis(20));
    let mut b = bench(PLAIN, &config);
    b.card().link = false;
    let error = b.nic.restart().unwrap_err().to_string();
    assert!(error.contains("link-up did not happen"), "{error}");
    assert_eq!(b.card().status, 0);
}

#[test]
fn buffers_that_came_home_are_lent_before_the_sleep() {
    for ring in [0, PACKED] {
        let mut b = bench(PLAIN | ring, &small());
        let mut held = Vec::new();
        while FakeVirtioNet::lock(&b.card).receive(&b.memory, 0, [0; 12], &bytes(1, 60)) {
            held.append(&mut b.got().unwrap());
        }
        assert_eq!(held.len(), 32, "all that there are");
        drop(held);
        assert!(!b.nic.wait(Duration::from_millis(1)).unwrap());
        assert!(FakeVirtioNet::lock(&b.card).receive(&b.memory, 0, [0; 12], &bytes(1, 60)));
    }
}

#[test]
fn what_was_not_taken_is_not_believed_of_a_frame_that_came_in() {
    let mut b = bench(PLAIN | GUEST_CSUM | GUEST_TSO4 | MRG_RXBUF, &small());
    let needs = |flags, gso| [flags, gso, 0, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
    let got = b.receive(needs(2, 0), &tcp(100));
    assert_eq!(got[0].l4_checksum(), Checksum::Unchecked);
    for header in [needs(1, 0), needs(1, 1)] {
        assert!(b.receive(header, &tcp(100)).is_empty());
    }
    let config = small().rx_offload(true);
    let mut b = bench(PLAIN | GUEST_CSUM | MRG_RXBUF, &config);
    assert_eq!(b.receive(needs(1, 0), &tcp(100)).len(), 1);
    assert!(b.receive(needs(1, 1), &tcp(100)).is_empty(), "not TSO");
    assert_eq!(b.nic.stats().rx_errors, 1);
}

#[test]
fn a_wait_that_finds_work_asks_the_device_nothing() {
    let mut b = bench(PLAIN | CTRL_VQ | GUEST_ANNOUNCE, &small());
    assert!(FakeVirtioNet::lock(&b.card).receive(&b.memory, 0, [0; 12], &bytes(1, 60)));
    let before = b.card().reads;
    assert!(b.nic.wait(Duration::from_secs(10)).unwrap());
    assert_eq!(b.card().reads, before);
}

/// Where a packet's headers are, and what is asked for: to cut it where `gso` names a kind.
struct Long {
    packet: Vec<u8>,
    offload: Offload,
    gso: u8,
}

const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;

impl Long {
    fn new(gso: u8, ipv6: bool) -> Self {
        let to = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]);
        let to = match ipv6 {
            true => to.ipv6([0xfd; 16], [0xab; 16], 64),
            false => to.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
        };
        let mut packet = Vec::new();
        let payload = bytes(1, 8000);
        let over = match ipv6 {
            true => OffloadFlags::IPV6,
            false => OffloadFlags::empty(),
        };
        let (flags, l4_len) = match gso {
            GSO_UDP_L4 => {
                to.udp(1, 2).write(&mut packet, &payload).unwrap();
                (OffloadFlags::UDP_CHECKSUM | OffloadFlags::USO, 8)
            }
            _ => {
                to.tcp(1, 2, 3, 4).write(&mut packet, &payload).unwrap();
                (OffloadFlags::TCP_CHECKSUM | OffloadFlags::TSO, 20)
            }
        };
        let offload = Offload {
            flags: flags | over,
            l3_len: if ipv6 { 40 } else { 20 },
            l4_len,
            mss: 1400,
            ..tso()
        };
        Self {
            packet,
            offload,
            gso,
        }
    }

    fn l4(&self) -> usize {
        usize::from(self.offload.l2_len + self.offload.l3_len)
    }

    fn checksum_offset(&self) -> usize {
        if self.gso == GSO_UDP_L4 { 6 } else { 16 }
    }

    /// What virtio says of it.
    fn header(&self) -> [u8; 12] {
        let [low, high] = self.offload.mss.to_le_bytes();
        let (l4, headers) = (self.l4() as u8, self.l4() as u8 + self.offload.l4_len);
        let offset = self.checksum_offset() as u8;
        [1, self.gso, headers, 0, low, high, l4, 0, offset, 0, 0, 0]
    }
}

/// What a device does that completes the checksum from `start` on, at `offset` there.
fn completed(mut packet: Vec<u8>, start: usize, offset: usize) -> Vec<u8> {
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&packet[start..]);
    let sum = sum.to_ones_complement_with_no_zero().to_be();
    packet[start + offset..][..2].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[test]
fn tcp_and_udp_to_be_cut_leave_with_a_sum_that_the_device_can_complete() {
    let offered = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_USO;
    for ring in [0, PACKED] {
        let mut b = bench(PLAIN | offered | ring, &small());
        let pool = Pool::new(b.nic.dma(), 1, 16_384).unwrap();
        for (gso, ipv6) in [
            (GSO_TCPV4, false),
            (GSO_TCPV6, true),
            (GSO_UDP_L4, false),
            (GSO_UDP_L4, true),
        ] {
            let long = Long::new(gso, ipv6);
            assert!(b.nic.offloads().contains(long.offload.flags));
            let (start, offset) = (long.l4(), long.checksum_offset());
            let mut given = long.packet.clone();
            given[start + offset..][..2].fill(0xa5);
            let mut cut = frame(&pool, &given);
            cut.set_offload(long.offload);
            b.nic.send(&mut vec![cut]).unwrap();
            b.nic.completed(&mut Vec::new()).unwrap();
            let (_, sent) = b.card().sent.pop().unwrap();
            assert_eq!(sent[..12], long.header(), "{:?}", long.offload);
            let whole = completed(sent[12..].to_vec(), start, offset);
            assert_eq!(whole, long.packet, "{:?}", long.offload);
        }
    }
}

#[test]
fn udp_is_cut_only_where_that_was_agreed_on() {
    let mut b = bench(PLAIN | CSUM | HOST_TSO4 | HOST_TSO6, &small());
    let pool = Pool::new(b.nic.dma(), 1, 16_384).unwrap();
    for ipv6 in [false, true] {
        let long = Long::new(GSO_UDP_L4, ipv6);
        let mut cut = frame(&pool, &long.packet);
        cut.set_offload(long.offload);
        let error = b.nic.send(&mut vec![cut]).unwrap_err().to_string();
        assert!(error.contains("USO"), "{error}");
        assert!(b.card().sent.is_empty());
    }
}

#[test]
fn what_came_in_uncut_is_told_for_what_it_is_and_dropped_where_it_was_not_agreed_on() {
    let config = small().rx_offload(true);
    let kinds = [
        (GSO_TCPV4, false, GUEST_TSO4),
        (GSO_TCPV6, true, GUEST_TSO6),
        (GSO_UDP_L4, false, GUEST_USO4),
        (GSO_UDP_L4, true, GUEST_USO6),
    ];
    let all: u64 = kinds.iter().map(|(.., feature)| feature).sum();
    for ring in [0, PACKED] {
        for (gso, ipv6, feature) in kinds {
            let long = Long::new(gso, ipv6);
            let plain = PLAIN | GUEST_CSUM | MRG_RXBUF | ring;
            let mut b = bench(plain | all, &config);
            let got = b.receive(long.header(), &long.packet);
            assert_eq!(got[0].frame.offload(), long.offload);
            assert_eq!(got[0].l4_checksum(), Checksum::Good);
            assert_eq!(got[0].frame.to_vec(), long.packet);

            let mut b = bench(plain | all & !feature, &config);
            assert!(b.receive(long.header(), &long.packet).is_empty());
            assert_eq!(b.nic.stats().rx_errors, 1, "{:?}", long.offload);
        }
    }
}

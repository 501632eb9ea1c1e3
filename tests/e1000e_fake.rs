//! The e1000e driver against a fake device: a small 82574, written from the datasheet
//! with its own constants so that it can disagree with the driver, and able to lie.

mod fakes;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fakes::e1000e::{FakeE1000e, MAC, Untruth};
use fakes::lock;
use pinwire::Error;
use pinwire::backend::{Backend, Fake, FakeBar, FakeMemory};
use pinwire::dma::{DmaSpace, Pool};
use pinwire::irq::{Irq, IrqKind};
use pinwire::nic::e1000e::E1000e;
use pinwire::nic::e1000e::E1000eConfig;
use pinwire::nic::{Frame, Inspect, Nic, NicConfig, Offload, OffloadFlags, Waiting};
use pinwire::pci::config::Config;
use proptest::prelude::*;

struct Bench {
    card: E1000e<Fake>,
    device: Arc<Mutex<FakeE1000e>>,
    memory: Arc<FakeMemory>,
}

fn bench(config: &NicConfig) -> Bench {
    let (fake, device) = FakeE1000e::fake();
    let memory = Arc::clone(fake.memory());
    let card = E1000e::start(fake, config).unwrap();
    Bench {
        card,
        device,
        memory,
    }
}

fn small() -> NicConfig {
    NicConfig::default().tx_ring(8).rx_ring(8)
}

fn small_split() -> NicConfig {
    small().driver(E1000eConfig::default().split_headers(true))
}

fn two() -> NicConfig {
    small().queues(2)
}

/// `len` bytes that no other `seed` has.
fn bytes(seed: u32, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (seed as usize * 31 + i * 7) as u8)
        .collect()
}

fn frame(pool: &Pool, content: &[u8]) -> Frame {
    let mut buf = pool.alloc().expect("a buffer");
    buf.fill(content);
    Frame::from(buf)
}

/// One frame comes in to `queue`.
fn comes_in(b: &Bench, queue: usize, content: Vec<u8>) {
    let mut device = lock(&b.device);
    device.inbox[queue].push_back(content);
    device.step_rx(&b.memory);
}

#[test]
fn the_address_is_read_with_the_82574s_own_bits() {
    assert_eq!(bench(&small()).card.mac().0, MAC);
}

#[test]
fn the_bus_is_quiet_before_a_reset() {
    let b = bench(&small());
    assert_eq!(lock(&b.device).resets_on_a_busy_bus, 0);
    drop(b.card);
    let device = lock(&b.device);
    assert_eq!(device.resets_on_a_busy_bus, 0);
    assert!(device.resets >= 2);
    assert_eq!(b.memory.mappings(), 0);
}

#[test]
fn each_queue_has_its_own_registers_and_rings() {
    let mut b = bench(&two());
    let pool = Pool::new(b.card.dma(), 4, 2048).unwrap();
    let mut frames = vec![frame(&pool, &bytes(1, 60)), frame(&pool, &bytes(2, 60))];
    assert_eq!(b.card.pair_mut(1).send(&mut frames).unwrap(), 2);
    assert_eq!(b.card.in_flight(), 0, "the first pair has none");
    assert_eq!(lock(&b.device).sent, [(1, bytes(1, 60)), (1, bytes(2, 60))]);
    assert_eq!(b.card.pair_mut(1).completed(&mut Vec::new()).unwrap(), 2);
    comes_in(&b, 1, bytes(3, 100));
    let mut got = Vec::new();
    assert_eq!(b.card.recv(&mut got, 8).unwrap(), 0);
    assert_eq!(b.card.pair_mut(1).recv(&mut got, 8).unwrap(), 1);
    assert_eq!(got[0].frame.to_vec(), bytes(3, 100));
}

#[test]
fn a_queues_interrupt_wakes_its_own_pair_and_none_is_lost() {
    let mut b = bench(&two());
    for round in 0..3 {
        for queue in [1, 0] {
            // The cause comes before it is asked for.
            comes_in(&b, queue, bytes(round, 60));
            let other = b.card.pair_mut(1 - queue);
            assert!(!other.wait(Duration::from_millis(5)).unwrap(), "{queue}");
            let pair = b.card.pair_mut(queue);
            assert!(!pair.arm().unwrap() || pair.is_ready());
            assert!(pair.irq().unwrap().wait(Duration::from_secs(5)).unwrap());
            pair.disarm().unwrap();
            assert_eq!(pair.recv(&mut Vec::new(), 8).unwrap(), 1);
        }
    }
    let idle = b.card.pair_mut(1).wait(Duration::from_millis(20)).unwrap();
    assert!(!idle);
}

#[test]
fn buffers_that_came_home_are_lent_before_the_sleep() {
    let mut b = bench(&small());
    let mut held = Vec::new();
    for i in 0..17 {
        comes_in(&b, 0, bytes(i, 60));
        b.card.recv(&mut held, 8).unwrap();
    }
    assert_eq!(held.len(), 16, "all buffers that there are");
    drop(held);
    assert!(b.card.wait(Duration::from_millis(1)).unwrap());
    assert_eq!(b.card.recv(&mut Vec::new(), 8).unwrap(), 1);
}

#[test]
fn disarming_one_pair_leaves_the_others_cause() {
    let mut b = bench(&two());
    comes_in(&b, 1, bytes(1, 60));
    b.card.pair_mut(0).arm().unwrap();
    b.card.pair_mut(0).disarm().unwrap();
    let pair = b.card.pair_mut(1);
    pair.arm().unwrap();
    assert!(pair.irq().unwrap().wait(Duration::from_secs(5)).unwrap());
}

#[test]
fn every_frame_with_checksums_has_a_context_of_its_own() {
    let mut b = bench(&two());
    lock(&b.device).eager = false;
    let pool = Pool::new(b.card.dma(), 2, 2048).unwrap();
    let summed = || {
        let mut frame = frame(&pool, &bytes(1, 60));
        frame.set_offload(Offload::UDP4);
        frame
    };
    let mut frames = vec![summed(), summed()];
    assert_eq!(b.card.send(&mut frames).unwrap(), 2);
    let slots = &b.card.rings()[0].slots;
    let kinds: Vec<_> = slots[..4].iter().map(|slot| &slot.text[..4]).collect();
    assert_eq!(kinds, ["cont", "data", "cont", "data"]);
}

#[test]
fn a_card_that_cannot_be_started_again_is_stopped() {
    let mut b = bench(&small().link_wait(Duration::from_millis(20)));
    lock(&b.device).link = false;
    let error = b.card.restart().unwrap_err();
    assert!(
        matches!(
            error,
            Error::Timeout {
                what: "link-up",
                ..
            }
        ),
        "{error}"
    );
    assert!(!lock(&b.device).is_on());
}

#[test]
fn three_queues_are_refused() {
    let (fake, _) = FakeE1000e::fake();
    let config = small().queues(3);
    let error = E1000e::start(fake, &config).err().expect("an error");
    assert!(
        error
            .to_string()
            .contains("3 queue pairs: the card has 1 or 2")
    );
}

#[test]
fn no_descriptor_goes_across_a_page() {
    let mut b = bench(&small().tx_ring(64));
    let pool = Pool::new(b.card.dma(), 16, 9216).unwrap();
    let mut frames: Vec<_> = (0..8).map(|i| frame(&pool, &bytes(i, 9000))).collect();
    let mut short: Vec<_> = (8..16).map(|i| frame(&pool, &bytes(i, 60))).collect();
    frames.append(&mut short);
    assert_eq!(b.card.send(&mut frames).unwrap(), 16);
    let device = lock(&b.device);
    let sent: Vec<_> = device.sent.iter().map(|(_, frame)| frame.clone()).collect();
    let expected: Vec<_> = (0..16)
        .map(|i| bytes(i, if i < 8 { 9000 } else { 60 }))
        .collect();
    assert_eq!(sent, expected);
    assert_eq!(device.across_pages, 0);
}

#[test]
fn more_than_an_ip_packet_is_not_cut() {
    let mut b = bench(&small().tx_ring(64));
    let pool = Pool::new(b.card.dma(), 1, 65_600).unwrap();
    let mut long = frame(&pool, &bytes(1, 65_590));
    long.set_offload(Offload {
        flags: OffloadFlags::TSO | OffloadFlags::TCP_CHECKSUM,
        l2_len: 14,
        l3_len: 20,
        l4_len: 20,
        mss: 1460,
        vlan: 0,
    });
    let error = b.card.send(&mut vec![long]).unwrap_err();
    assert!(
        matches!(error, Error::FrameLength { max: 65_589, .. }),
        "{error}"
    );
}

#[test]
fn damaged_and_empty_frames_are_dropped_and_their_buffers_lent_again() {
    for config in [small(), small_split()] {
        let mut b = bench(&config);
        for round in 0..20 {
            lock(&b.device).errors = 1 << 24 << [0, 1, 2, 4, 7][round % 5];
            comes_in(&b, 0, bytes(1, 60));
            lock(&b.device).errors = 0;
            comes_in(&b, 0, Vec::new());
            comes_in(&b, 0, bytes(2, 60));
            let mut got = Vec::new();
            assert_eq!(b.card.recv(&mut got, 8).unwrap(), 1, "round {round}");
            assert_eq!(got[0].frame.to_vec(), bytes(2, 60));
        }
    }
}

/// What `untruth` makes of some frames coming in: the error says `text`, and the card is stopped.
fn is_a_lie(config: &NicConfig, untruth: Untruth, text: &str) {
    let mut b = bench(config);
    lock(&b.device).untruth = untruth;
    let mut got = Vec::new();
    let error = (0..64).find_map(|i| {
        comes_in(&b, 0, bytes(i, 1500));
        b.card.recv(&mut got, 64).err()
    });
    let error = error.expect("an error, and not a ring without buffers");
    assert!(matches!(error, Error::ProtocolViolation { .. }), "{error}");
    assert!(error.to_string().contains(text), "{error}");
    assert!(got.is_empty());
    assert!(!lock(&b.device).is_on(), "it is stopped");
    // It can be started again, with all its buffers.
    lock(&b.device).untruth = Untruth::None;
    lock(&b.device).inbox[0].clear();
    b.card.restart().unwrap();
    for i in 0..20 {
        comes_in(&b, 0, bytes(i, 60));
        assert_eq!(b.card.recv(&mut got, 8).unwrap(), 1);
        got.clear();
    }
}

#[test]
fn a_length_beyond_the_buffer_is_a_lie() {
    is_a_lie(
        &small(),
        Untruth::Length(2049),
        "2049 bytes in a buffer of 2048",
    );
    is_a_lie(
        &small_split(),
        Untruth::Length(257),
        "257 bytes in a buffer of 256",
    );
    is_a_lie(
        &small_split(),
        Untruth::Payload(2049),
        "2049 bytes in a buffer of 2048",
    );
}

#[test]
fn a_frame_that_never_ends_is_a_lie() {
    is_a_lie(&small(), Untruth::NoEop, "a frame of more than 16384 bytes");
    is_a_lie(
        &small_split(),
        Untruth::NoEop,
        "a frame of more than 16384 bytes",
    );
}

#[test]
fn a_frame_of_a_byte_a_buffer_does_not_take_all_buffers() {
    for config in [small(), small_split()] {
        is_a_lie(&config, Untruth::Crumbs, "or ");
    }
}

#[test]
fn a_device_that_does_not_stop_is_an_error_within_a_bound() {
    let mut b = bench(&small());
    lock(&b.device).untruth = Untruth::ResetNeverEnds;
    let begin = Instant::now();
    let error = b.card.stop().unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn stopping_and_restarting_give_all_buffers_back() {
    for config in [two(), small_split()] {
        let mut b = bench(&config);
        lock(&b.device).eager = false;
        let pool = Pool::new(b.card.dma(), 10, 2048).unwrap();
        for round in 0..20 {
            for index in 0..config.queues {
                let mut frames: Vec<_> = (0..5).map(|i| frame(&pool, &bytes(i, 60))).collect();
                assert_eq!(b.card.pair_mut(index).send(&mut frames).unwrap(), 5);
            }
            let back = b.card.restart().unwrap();
            assert_eq!(back.len(), 5 * config.queues, "round {round}");
        }
        assert_eq!(
            std::iter::from_fn(|| pool.alloc())
                .collect::<Vec<_>>()
                .len(),
            10
        );
        comes_in(&b, 0, bytes(9, 60));
        let mut got = Vec::new();
        assert_eq!(b.card.recv(&mut got, 8).unwrap(), 1, "it has buffers");
        drop((got, pool, b.card));
        assert_eq!(b.memory.mappings(), 0);
    }
}

#[test]
fn a_pair_that_polls_needs_no_interrupt() {
    let mut b = bench(&two().waiting(Waiting::Poll));
    assert!(b.card.pair_mut(1).arm().is_err());
    comes_in(&b, 1, bytes(1, 60));
    assert!(b.card.pair_mut(1).wait(Duration::from_secs(1)).unwrap());
}

/// A fake that has only some kinds of interrupts.
struct Has(Fake, &'static [IrqKind]);

impl Config for Has {
    fn read(&self, offset: u16, into: &mut [u8]) -> pinwire::Result<()> {
        self.0.read(offset, into)
    }

    fn write(&self, offset: u16, from: &[u8]) -> pinwire::Result<()> {
        self.0.write(offset, from)
    }
}

impl Backend for Has {
    type Bar = FakeBar;

    fn name(&self) -> &str {
        self.0.name()
    }

    fn map_bar(&self, index: u8, least: usize) -> pinwire::Result<FakeBar> {
        self.0.map_bar(index, least)
    }

    fn dma(&self) -> &Arc<dyn DmaSpace> {
        self.0.dma()
    }

    fn interrupts(&self, kind: IrqKind, count: usize) -> pinwire::Result<Vec<Irq>> {
        if self.1.contains(&kind) {
            return self.0.interrupts(kind, count);
        }
        Err(Error::NotOffered {
            device: "fake".to_owned(),
            what: format!("{kind:?}"),
        })
    }

    fn reset(&self) -> pinwire::Result<bool> {
        self.0.reset()
    }

    fn has_iommu(&self) -> bool {
        self.0.has_iommu()
    }
}

#[test]
fn without_msix_a_message_or_a_line_does_for_one_pair() {
    for kinds in [&[IrqKind::Msi, IrqKind::Intx][..], &[IrqKind::Intx]] {
        let (fake, device) = FakeE1000e::fake();
        lock(&device).msix = false;
        let memory = Arc::clone(fake.memory());
        let card = E1000e::start(Has(fake, kinds), &small()).unwrap();
        let mut b = (card, device);
        for round in 0..3 {
            lock(&b.1).inbox[0].push_back(bytes(round, 60));
            lock(&b.1).step_rx(&memory);
            let pair = b.0.pair_mut(0);
            assert!(pair.arm().unwrap());
            assert!(pair.irq().unwrap().wait(Duration::from_secs(5)).unwrap());
            pair.disarm().unwrap();
            assert_eq!(pair.recv(&mut Vec::new(), 8).unwrap(), 1);
            assert!(!pair.wait(Duration::from_millis(5)).unwrap());
        }
    }
}

#[test]
fn without_msix_two_pairs_must_poll() {
    let (fake, _) = FakeE1000e::fake();
    let only_a_line = Has(fake, &[IrqKind::Intx]);
    let error = E1000e::start(only_a_line, &two()).err().expect("an error");
    assert!(
        error.to_string().contains("or poll (Waiting::Poll)"),
        "{error}"
    );
    let polling = two().waiting(Waiting::Poll);
    let (fake, _) = FakeE1000e::fake();
    assert!(E1000e::start(Has(fake, &[]), &polling).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever comes in, to whichever queue, split or not: every frame is received once, in order and
    /// whole, over any number of wraps.
    #[test]
    fn every_frame_comes_in_once(
        split in any::<bool>(),
        jumbo in any::<bool>(),
        rounds in prop::collection::vec(
            (prop::collection::vec((0usize..2, 1usize..9000), 0..6), 1usize..6), 1..40)
    ) {
        let mut b = bench(&small().max_frame(if jumbo { 9000 } else { 1518 }).rx_ring(16).queues(2).driver(E1000eConfig::default().split_headers(split)));
        let mut expected = [VecDeque::new(), VecDeque::new()];
        let mut seed = 0;
        let take = |b: &mut Bench, expected: &mut [VecDeque<Vec<u8>>; 2], most| {
            for (index, expected) in expected.iter_mut().enumerate() {
                let mut got = Vec::new();
                b.card.pair_mut(index).recv(&mut got, most).unwrap();
                for received in got {
                    assert_eq!(Some(received.frame.to_vec()), expected.pop_front());
                }
            }
        };
        for (frames, most) in rounds {
            for (queue, len) in frames {
                seed += 1;
                let content = bytes(seed, if jumbo { len } else { len % 1518 + 1 });
                expected[queue].push_back(content.clone());
                lock(&b.device).inbox[queue].push_back(content);
            }
            lock(&b.device).step_rx(&b.memory);
            take(&mut b, &mut expected, most);
        }
        for _ in 0..600 {
            lock(&b.device).step_rx(&b.memory);
            take(&mut b, &mut expected, 16);
        }
        prop_assert!(expected.iter().all(VecDeque::is_empty));
        prop_assert!(b.memory.faults().is_empty());
    }
}

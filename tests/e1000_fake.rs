//! The e1000 driver against a fake device: one that behaves, one that is slow, and
//! one that lies.

mod fakes;

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fakes::e1000::{FakeE1000, Lie, MAC};
use fakes::lock;
use pinwire::Error;
use pinwire::backend::FakeMemory;
use pinwire::dma::{DmaArray, DmaFile, DmaRegion, DmaSpace, Pool};
use pinwire::inspect::{Owner, RingIndices};
use pinwire::mmio::{Place, Width};
use pinwire::nic::e1000::E1000;
use pinwire::nic::{Frame, Inspect, Nic, NicConfig, Offload, OffloadFlags};
use proptest::prelude::*;

type Card = E1000<pinwire::backend::Fake>;

struct Bench {
    card: Card,
    device: Arc<Mutex<FakeE1000>>,
    memory: Arc<FakeMemory>,
}

fn bench(config: NicConfig) -> Bench {
    let (fake, device) = FakeE1000::fake();
    let memory = Arc::clone(fake.memory());
    let card = E1000::start(fake, &config).unwrap();
    Bench {
        card,
        device,
        memory,
    }
}

fn small() -> NicConfig {
    NicConfig::default().tx_ring(8).rx_ring(8)
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

/// Starting with `lie` fails with an error that says `text`, within `bound`.
fn start_fails(lie: Lie, bound: Duration, text: &str) {
    let (fake, device) = FakeE1000::fake();
    let memory = Arc::clone(fake.memory());
    lock(&device).lie = lie;
    let config = NicConfig::default().link_wait(Duration::from_millis(100));
    let begin = Instant::now();
    let error = E1000::start(fake, &config)
        .err()
        .expect("an error")
        .to_string();
    assert!(begin.elapsed() < bound, "took {:?}", begin.elapsed());
    assert!(error.contains(text), "{error}");
    assert_eq!(memory.mappings(), 0, "memory is still mapped");
}

#[test]
fn the_mac_comes_from_the_eeprom() {
    assert_eq!(bench(small()).card.mac().0, MAC);
}

#[test]
fn a_batch_rings_the_doorbell_once_and_asks_for_one_write_back() {
    let mut b = bench(NicConfig::default());
    let pool = Pool::new(b.card.dma(), 100, 2048).unwrap();
    let mut frames: Vec<_> = (0..100).map(|i| frame(&pool, &bytes(i, 60))).collect();
    assert_eq!(b.card.send(&mut frames).unwrap(), 100);
    let mut done = Vec::new();
    assert_eq!(b.card.completed(&mut done).unwrap(), 100);
    let device = lock(&b.device);
    assert_eq!((device.doorbells, device.write_backs), (1, 1));
    assert_eq!(device.sent.len(), 100);
    assert_eq!(device.sent[99], bytes(99, 60));
}

#[test]
fn a_full_ring_gives_the_frame_back() {
    let mut b = bench(small());
    lock(&b.device).eager = false;
    let pool = Pool::new(b.card.dma(), 10, 2048).unwrap();
    let mut frames: Vec<_> = (0..10).map(|i| frame(&pool, &bytes(i, 60))).collect();
    // One slot stays empty: head == tail is an empty ring.
    assert_eq!(b.card.send(&mut frames).unwrap(), 7);
    assert_eq!((frames.len(), b.card.in_flight()), (3, 7));
    assert_eq!(b.card.send(&mut frames).unwrap(), 0);
    lock(&b.device).step_tx(&b.memory, usize::MAX);
    assert_eq!(b.card.completed(&mut Vec::new()).unwrap(), 7);
    assert_eq!(b.card.send(&mut frames).unwrap(), 3);
}

#[test]
fn a_frame_that_cannot_be_sent_stays_and_those_before_it_go() {
    let mut b = bench(small());
    let pool = Pool::new(b.card.dma(), 4, 16_384).unwrap();
    let lengths = [60, 16_289, 61, 13];
    let mut frames: Vec<_> = lengths
        .iter()
        .map(|len| frame(&pool, &bytes(1, *len)))
        .collect();
    let error = b.card.send(&mut frames).unwrap_err();
    assert!(
        matches!(
            error,
            Error::FrameLength {
                length: 16_289,
                max: 16_288,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        frames.iter().map(Frame::len).collect::<Vec<_>>(),
        [16_289, 61, 13]
    );
    frames.remove(0);
    let error = b.card.send(&mut frames).unwrap_err();
    assert!(
        matches!(
            error,
            Error::FrameLength {
                length: 13,
                min: 14,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(lock(&b.device).sent, [bytes(1, 60), bytes(1, 61)]);
}

#[test]
fn header_and_payload_from_different_memory_leave_as_one_frame() {
    let mut b = bench(small());
    let pool = Pool::new(b.card.dma(), 1, 64).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let content = bytes(9, 5000);
    std::io::Write::write_all(&mut file, &content).unwrap();
    let mapped = DmaFile::map(b.card.dma(), &file, 8).unwrap();
    let mut out = frame(&pool, &bytes(1, 42));
    out.append(mapped.slice(4000, 1000).unwrap());
    out.set_offload(Offload::UDP4);
    assert_eq!(b.card.send(&mut vec![out]).unwrap(), 1);
    let expected = [bytes(1, 42), content[4000..].to_vec()].concat();
    assert_eq!(lock(&b.device).sent, [expected]);
    let mut done = Vec::new();
    b.card.completed(&mut done).unwrap();
    assert_eq!(done.len(), 1);
    assert!(pool.alloc().is_none(), "the frame still has the header");
    drop(done);
    assert!(pool.alloc().is_some(), "the header is home");
}

#[test]
fn a_context_is_sent_again_only_when_it_changes() {
    let mut b = bench(NicConfig::default());
    lock(&b.device).eager = false;
    let pool = Pool::new(b.card.dma(), 4, 2048).unwrap();
    let checksummed = || {
        let mut out = frame(&pool, &bytes(1, 60));
        out.set_offload(Offload::UDP4);
        out
    };
    let mut frames = vec![checksummed(), checksummed(), checksummed()];
    assert_eq!(b.card.send(&mut frames).unwrap(), 3);
    // One context, three data descriptors.
    assert_eq!(lock(&b.device).step_tx(&b.memory, usize::MAX), 4);
}

#[test]
fn a_long_frame_comes_in_over_several_descriptors() {
    let mut b = bench(small().max_frame(9000));
    let content = bytes(3, 9000);
    lock(&b.device).inbox.push_back(content.clone());
    lock(&b.device).step_rx(&b.memory);
    let mut got = Vec::new();
    assert_eq!(b.card.recv(&mut got, 8).unwrap(), 1);
    assert_eq!(got[0].frame.segments().count(), 5);
    assert_eq!(got[0].frame.to_vec(), content);
}

#[test]
fn what_the_card_says_of_checksums_is_passed_on() {
    use pinwire::nic::Checksum::{Bad, Good, Unchecked};
    const IXSM: u8 = 0x04;
    const TCPCS: u8 = 0x20;
    const IPCS: u8 = 0x40;
    const TCPE: u8 = 0x20;
    const IPE: u8 = 0x40;
    let cases = [
        ((0, 0), (Unchecked, Unchecked)),
        ((IPCS | TCPCS, 0), (Good, Good)),
        ((IPCS | TCPCS, IPE), (Bad, Good)),
        ((IPCS | TCPCS, TCPE), (Good, Bad)),
        ((IPCS, TCPE), (Good, Unchecked)),
        ((IXSM | IPCS | TCPCS, IPE | TCPE), (Unchecked, Unchecked)),
    ];
    let mut b = bench(small());
    for (rx_word, expected) in cases {
        lock(&b.device).rx_word = rx_word;
        lock(&b.device).inbox.push_back(bytes(1, 60));
        lock(&b.device).step_rx(&b.memory);
        let mut got = Vec::new();
        b.card.recv(&mut got, 8).unwrap();
        assert_eq!(
            (got[0].ip_checksum(), got[0].l4_checksum()),
            expected,
            "{rx_word:?}"
        );
    }
}

#[test]
fn a_frame_without_a_buffer_is_counted_once() {
    let mut b = bench(small());
    for i in 0..8 {
        lock(&b.device).inbox.push_back(bytes(i, 60));
    }
    lock(&b.device).step_rx(&b.memory);
    assert_eq!(b.card.stats().rx_missed, Some(1));
    assert_eq!(
        b.card.stats().rx_missed,
        Some(1),
        "reading them again adds nothing"
    );
}

/// GPRC, GPTC; GORCL, GOTCL; TORL, TOTL; §13.7.
const FRAMES: [usize; 2] = [0x4074, 0x4080];
const GOOD: [usize; 2] = [0x4088, 0x4090];
const TOTAL: [usize; 2] = [0x40c0, 0x40c8];

/// Has the card count in both directions.
fn count(b: &Bench, registers: [usize; 2], more: u32) {
    for register in registers {
        lock(&b.device).count(register, more);
    }
}

fn octets(b: &mut Bench) -> [u64; 2] {
    let stats = b.card.stats();
    assert_eq!(stats.by_card(), Some(stats));
    [stats.rx_bytes, stats.tx_bytes]
}

#[test]
fn octets_are_those_of_the_good_frames() {
    let mut b = bench(small());
    for (frames, good, total) in [(3, 300, 1000), (0, 0, 500), (1, 64, 64)] {
        count(&b, FRAMES, frames);
        count(&b, GOOD, good);
        count(&b, TOTAL, total);
        octets(&mut b);
    }
    assert_eq!(octets(&mut b), [364; 2], "without those of bad frames");
}

/// As the e1000 of QEMU 11.
#[test]
fn a_card_that_counts_no_good_octets_has_the_total_of_all() {
    let mut b = bench(small());
    // One that comes between the reads of two registers: its frame is counted the next time.
    count(&b, TOTAL, 104);
    assert_eq!(octets(&mut b), [0; 2]);
    count(&b, FRAMES, 1);
    assert_eq!(octets(&mut b), [104; 2]);
    count(&b, FRAMES, 8);
    count(&b, TOTAL, 832);
    assert_eq!(octets(&mut b), [936; 2]);
    assert_eq!(octets(&mut b), [936; 2], "once each");
}

#[test]
fn counters_of_all_ones_stay_at_their_end() {
    let mut b = bench(small());
    lock(&b.device).lie = Lie::CountsAll;
    let mut before = b.card.stats();
    for _ in 0..3 {
        let now = b.card.stats();
        assert_eq!(now.rx_bytes, u64::MAX, "both halves are ones");
        assert!(now.rx_frames >= before.rx_frames && now.rx_errors >= before.rx_errors);
        let since = now.since(before);
        assert!(since.rx_frames <= u32::MAX.into(), "{since:?}");
        before = now;
    }
    lock(&b.device).lie = Lie::None;
    b.card.restart().unwrap();
    assert!(b.card.stats().rx_frames >= before.rx_frames);
}

#[test]
fn what_a_card_says_that_goes_while_it_is_asked_is_not_counted() {
    let mut b = bench(small());
    lock(&b.device).inbox.push_back(bytes(1, 60));
    lock(&b.device).step_rx(&b.memory);
    let before = b.card.stats();
    lock(&b.device).lie = Lie::GoneSoon;
    assert_eq!(b.card.stats(), before);
}

/// A frame of `len` bytes that the card shall do `offload` to.
fn worked_on(b: &mut Bench, len: usize, offload: Offload) -> pinwire::Result<usize> {
    let pool = Pool::new(b.card.dma(), 1, 16_000).unwrap();
    let mut out = frame(&pool, &bytes(1, len));
    out.set_offload(offload);
    let sent = b.card.send(&mut vec![out]);
    b.card.completed(&mut Vec::new()).unwrap();
    sent
}

#[test]
fn headers_that_end_where_a_context_can_just_say_it_are_summed() {
    // As forwarded from a card whose header says csum_start 239, with the longest TCP header.
    let far = Offload {
        flags: OffloadFlags::TCP_CHECKSUM,
        l2_len: 14,
        l3_len: 225,
        l4_len: 60,
        mss: 0,
        vlan: 0,
    };
    let mut b = bench(small());
    assert_eq!(worked_on(&mut b, 300, far).unwrap(), 1);
    let further = Offload { l3_len: 226, ..far };
    assert!(worked_on(&mut b, 300, further).is_err());
    // The checksum's place must be in the frame.
    assert!(worked_on(&mut b, 258, far).is_err());
    assert_eq!(worked_on(&mut b, 259, far).unwrap(), 1);
}

#[test]
fn headers_too_short_for_what_shall_be_done_to_them_are_refused() {
    let cut = Offload {
        flags: OffloadFlags::TSO | OffloadFlags::TCP_CHECKSUM,
        l2_len: 14,
        l3_len: 20,
        l4_len: 20,
        mss: 1000,
        vlan: 0,
    };
    let mut b = bench(small());
    assert_eq!(worked_on(&mut b, 3000, cut).unwrap(), 1);
    let ipv6 = OffloadFlags::IPV6 | OffloadFlags::TCP_CHECKSUM;
    for (offload, says) in [
        (Offload { l3_len: 19, ..cut }, "19 of IP header"),
        (Offload { l3_len: 0, ..cut }, "0 of IP header"),
        (Offload { l2_len: 13, ..cut }, "13 bytes of link header"),
        (Offload { l4_len: 19, ..cut }, "header of 19 bytes"),
        (Offload { l4_len: 0, ..cut }, "header of 0 bytes"),
        (Offload { mss: 0, ..cut }, "an mss of 0"),
        (
            Offload {
                flags: OffloadFlags::TSO,
                ..cut
            },
            "TCP_CHECKSUM",
        ),
        (Offload { l3_len: 255, ..cut }, "255"),
        (Offload { l4_len: 255, ..cut }, "255"),
        (
            Offload {
                l2_len: 255,
                l3_len: 255,
                l4_len: 255,
                ..cut
            },
            "255",
        ),
        (
            Offload {
                flags: ipv6,
                l3_len: 39,
                ..cut
            },
            "39 of IP header",
        ),
    ] {
        let error = worked_on(&mut b, 3000, offload).unwrap_err();
        assert!(matches!(error, Error::NotOffered { .. }), "{error}");
        assert!(error.to_string().contains(says), "{offload:?}: {error}");
    }
    assert_eq!(lock(&b.device).sent.len(), 1);
}

#[test]
fn what_was_counted_before_a_restart_counts() {
    let mut b = bench(small());
    for i in 0..8 {
        lock(&b.device).inbox.push_back(bytes(i, 60));
    }
    lock(&b.device).step_rx(&b.memory);
    b.card.restart().unwrap();
    assert_eq!(b.card.stats().rx_missed, Some(1));
}

#[test]
fn a_segment_that_is_too_long_is_named_with_its_headers() {
    let mut b = bench(small());
    let pool = Pool::new(b.card.dma(), 1, 16_000).unwrap();
    let mut cut = frame(&pool, &bytes(1, 15_000));
    cut.set_offload(Offload {
        flags: OffloadFlags::TSO | OffloadFlags::TCP_CHECKSUM,
        l2_len: 14,
        l3_len: 20,
        l4_len: 20,
        mss: 16_288,
        vlan: 0,
    });
    let error = b.card.send(&mut vec![cut]).unwrap_err().to_string();
    let says = "a frame of 16342 bytes cannot be sent: fake takes 55 to 16288 bytes";
    assert!(error.contains(says), "{error}");
}

#[test]
fn what_a_card_offers_does_not_change_as_it_goes() {
    let b = bench(small());
    let before = b.card.offloads();
    lock(&b.device).lie = Lie::Gone;
    assert_eq!(b.card.offloads(), before);
}

#[test]
fn a_device_that_neither_sends_nor_stops_keeps_the_addresses_that_it_was_given() {
    let mut b = bench(small());
    let before = b.memory.mappings();
    let dma: Arc<dyn DmaSpace> = b.memory.clone();
    let next = || DmaRegion::alloc(&dma, 4096).unwrap().iova();
    let free = next();
    lock(&b.device).lie = Lie::Silent;
    assert!(b.card.limit(60, 4, 100).is_err());
    assert_eq!(
        b.memory.mappings(),
        before,
        "it stopped: the buffer is freed"
    );
    assert_eq!(next(), free);
    lock(&b.device).lie = Lie::None;
    b.card.restart().unwrap();
    lock(&b.device).lie = Lie::ResetNeverEnds;
    lock(&b.device).eager = false;
    assert!(b.card.limit(60, 4, 100).is_err());
    assert_eq!(b.memory.mappings(), before, "it is cut off from the buffer");
    assert_ne!(next(), free, "it may still reach for the buffer's address");
}

#[test]
fn a_frame_that_came_in_damaged_is_dropped_and_its_buffer_lent_again() {
    let mut b = bench(small());
    for error in [0x01, 0x02, 0x04, 0x10, 0x80] {
        for rx_word in [(0, error), (0, 0)] {
            lock(&b.device).rx_word = rx_word;
            lock(&b.device).inbox.push_back(bytes(u32::from(error), 60));
            lock(&b.device).step_rx(&b.memory);
        }
        let mut got = Vec::new();
        assert_eq!(b.card.recv(&mut got, 8).unwrap(), 1, "{error:#x}");
    }
}

#[test]
fn an_interrupt_wakes_a_wait_and_none_is_lost() {
    let mut b = bench(small());
    assert!(!b.card.wait(Duration::from_millis(20)).unwrap());
    for round in 0..3 {
        // The cause comes before the wait, and the driver has read the ring before that.
        lock(&b.device).inbox.push_back(bytes(round, 60));
        lock(&b.device).step_rx(&b.memory);
        let begin = Instant::now();
        assert!(b.card.wait(Duration::from_secs(10)).unwrap());
        assert!(begin.elapsed() < Duration::from_secs(5));
        assert_eq!(b.card.recv(&mut Vec::new(), 8).unwrap(), 1);
    }
    // The last round's cause may wake one wait for nothing; then there is none left.
    b.card.wait(Duration::from_millis(20)).unwrap();
    assert!(!b.card.wait(Duration::from_millis(20)).unwrap());
}

#[test]
fn show_sees_who_owns_what() {
    let mut b = bench(small());
    lock(&b.device).eager = false;
    let pool = Pool::new(b.card.dma(), 4, 2048).unwrap();
    let mut frames: Vec<_> = (0..3).map(|i| frame(&pool, &bytes(i, 60))).collect();
    let iova = frames[0].first().iova();
    b.card.send(&mut frames).unwrap();
    let rings = b.card.rings();
    let (tx, rx) = (&rings[0], &rings[1]);
    let owners: Vec<_> = tx.slots.iter().map(|slot| slot.owner).collect();
    assert_eq!(
        owners[..4],
        [Owner::Device, Owner::Device, Owner::Device, Owner::Driver]
    );
    assert_eq!(tx.slots[0].buffer.unwrap().0, iova);
    assert_eq!(tx.indices, RingIndices::Registers { head: 0, tail: 3 });
    assert_eq!(
        rx.slots
            .iter()
            .filter(|slot| slot.owner == Owner::Device)
            .count(),
        7
    );
    lock(&b.device).step_tx(&b.memory, usize::MAX);
    assert_eq!(b.card.rings()[0].slots[2].owner, Owner::Done);
}

#[test]
fn dropping_the_card_stops_it_and_unmaps_all() {
    let b = bench(small());
    let pool = Pool::new(b.card.dma(), 4, 2048).unwrap();
    drop(b.card);
    drop(pool);
    assert_eq!(b.memory.mappings(), 0);
    let mut device = lock(&b.device);
    use pinwire::backend::FakeDevice;
    let mut reads = |offset| {
        device.read(Place {
            bar: 0,
            offset,
            width: Width::Four,
        })
    };
    assert_eq!(reads(0x0400) & 2, 0, "the transmitter is on");
    assert_eq!(reads(0x0100) & 2, 0, "the receiver is on");
    assert_eq!(device.config()[4] & 4, 0, "bus mastering is on");
}

#[test]
fn buffers_that_came_home_are_lent_before_the_sleep() {
    let mut b = bench(small());
    let mut held = Vec::new();
    for i in 0..17 {
        lock(&b.device).inbox.push_back(bytes(i, 60));
        lock(&b.device).step_rx(&b.memory);
        b.card.recv(&mut held, 8).unwrap();
    }
    assert_eq!(held.len(), 16, "all buffers that there are");
    drop(held);
    assert!(b.card.wait(Duration::from_millis(1)).unwrap());
    lock(&b.device).step_rx(&b.memory);
    assert_eq!(b.card.recv(&mut Vec::new(), 8).unwrap(), 1);
}

#[test]
fn a_card_that_cannot_be_started_again_is_stopped() {
    use pinwire::backend::FakeDevice;
    let mut b = bench(small().link_wait(Duration::from_millis(20)));
    lock(&b.device).lie = Lie::NoLink;
    let error = b.card.restart().unwrap_err().to_string();
    assert!(error.contains("link-up did not happen"), "{error}");
    assert_eq!(lock(&b.device).config()[4] & 4, 0, "bus mastering is on");
}

#[test]
fn a_panic_stops_the_card_too() {
    let b = bench(small());
    let card = std::panic::AssertUnwindSafe(b.card);
    let panicked = std::panic::catch_unwind(move || {
        let _card = card;
        panic!("on purpose");
    });
    assert!(panicked.is_err());
    assert_eq!(b.memory.mappings(), 0);
}

#[test]
fn frames_outlive_their_pool_and_their_card() {
    let b = bench(small());
    let pool = Pool::new(b.card.dma(), 2, 2048).unwrap();
    let kept = frame(&pool, &bytes(5, 60));
    drop(pool);
    drop(b.card);
    assert_eq!(
        b.memory.mappings(),
        1,
        "the memory of the frame that is kept"
    );
    assert_eq!(kept.to_vec(), bytes(5, 60));
    std::thread::spawn(move || drop(kept)).join().unwrap();
    assert_eq!(b.memory.mappings(), 0);
}

#[test]
fn memory_beyond_all_addresses_is_refused_with_its_size() {
    let b = bench(small());
    let dma = b.card.dma();
    let refused = [
        // 2 to the power of 64 bytes: none, to who counts no further.
        DmaArray::<AtomicU64>::alloc(dma, 1 << 61).map(|_| ()),
        DmaRegion::alloc(dma, usize::MAX).map(|_| ()),
        Pool::new(dma, 512, 1 << 55).map(|_| ()),
        Pool::new(dma, 1 << 32, 64).map(|_| ()),
        Pool::new(dma, 1, usize::MAX).map(|_| ()),
    ];
    let sizes = [1 << 61, usize::MAX, 1 << 55, 1 << 32, usize::MAX];
    for (refused, size) in refused.into_iter().zip(sizes) {
        let error = refused.expect_err("no such memory");
        assert!(matches!(error, Error::Usage(_)), "{error}");
        assert!(error.to_string().contains(&size.to_string()), "{error}");
    }
}

// A device that lies.

#[test]
fn a_reset_that_never_ends_is_an_error() {
    start_fails(
        Lie::ResetNeverEnds,
        Duration::from_secs(2),
        "the end of the device's reset",
    );
}

#[test]
fn a_link_that_never_comes_is_an_error() {
    start_fails(
        Lie::NoLink,
        Duration::from_secs(2),
        "link-up did not happen within 100 ms",
    );
}

#[test]
fn a_device_that_is_gone_is_an_error() {
    start_fails(
        Lie::Gone,
        Duration::from_secs(2),
        "is gone: its config space reads all ones",
    );
}

#[test]
fn no_eeprom_and_no_receive_address_is_an_error() {
    start_fails(
        Lie::NoEeprom,
        Duration::from_secs(30),
        "no Ethernet address",
    );
}

#[test]
fn a_length_beyond_the_buffer_stops_the_device() {
    let mut b = bench(small());
    lock(&b.device).lie = Lie::Length(2049);
    lock(&b.device).inbox.push_back(bytes(1, 60));
    lock(&b.device).step_rx(&b.memory);
    let error = b.card.recv(&mut Vec::new(), 8).unwrap_err();
    assert!(matches!(error, Error::ProtocolViolation { .. }), "{error}");
    assert!(
        error.to_string().contains("2049 bytes in a buffer of 2048"),
        "{error}"
    );
    use pinwire::backend::FakeDevice;
    assert_eq!(lock(&b.device).config()[4] & 4, 0, "bus mastering is on");
}

#[test]
fn a_frame_that_never_ends_stops_the_device() {
    let mut b = bench(small().rx_ring(32));
    lock(&b.device).lie = Lie::NoEop;
    for i in 0..20 {
        lock(&b.device).inbox.push_back(bytes(i, 2048));
    }
    lock(&b.device).step_rx(&b.memory);
    let error = b.card.recv(&mut Vec::new(), 8).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a frame of more than 16384 bytes"),
        "{error}"
    );
}

#[test]
fn a_frame_that_never_ends_does_not_get_all_buffers_byte_by_byte() {
    let mut b = bench(small().rx_ring(32));
    lock(&b.device).lie = Lie::NoEop;
    lock(&b.device).inbox.extend((0..20).map(|i| bytes(i, 1)));
    lock(&b.device).step_rx(&b.memory);
    let error = b.card.recv(&mut Vec::new(), 8).unwrap_err();
    assert!(matches!(error, Error::ProtocolViolation { .. }), "{error}");
    assert!(error.to_string().contains("9 buffers"), "{error}");
}

#[test]
fn done_on_descriptors_never_sent_is_not_believed() {
    let mut b = bench(small());
    let pool = Pool::new(b.card.dma(), 4, 2048).unwrap();
    lock(&b.device).lie = Lie::AllDone;
    b.card.send(&mut vec![frame(&pool, &bytes(1, 60))]).unwrap();
    let mut done = Vec::new();
    assert_eq!(b.card.completed(&mut done).unwrap(), 1);
    lock(&b.device).eager = false;
    b.card.send(&mut vec![frame(&pool, &bytes(2, 60))]).unwrap();
    assert_eq!(
        b.card.completed(&mut done).unwrap(),
        0,
        "posting cleared the lie"
    );
    assert_eq!(b.card.in_flight(), 1);
}

#[test]
fn a_head_outside_the_ring_is_only_shown() {
    let mut b = bench(small());
    let pool = Pool::new(b.card.dma(), 4, 2048).unwrap();
    lock(&b.device).lie = Lie::Head(0xdead_beef);
    let indices = &b.card.rings()[0].indices;
    assert!(matches!(
        indices,
        RingIndices::Registers {
            head: 0xdead_beef,
            ..
        }
    ));
    b.card.send(&mut vec![frame(&pool, &bytes(1, 60))]).unwrap();
    assert_eq!(b.card.completed(&mut Vec::new()).unwrap(), 1);
    assert_eq!(b.card.recv(&mut Vec::new(), 8).unwrap(), 0);
}

#[test]
fn gone_in_the_middle_of_sending_is_found_and_nothing_hangs() {
    let mut b = bench(small());
    let pool = Pool::new(b.card.dma(), 4, 2048).unwrap();
    lock(&b.device).lie = Lie::Gone;
    b.card.send(&mut vec![frame(&pool, &bytes(1, 60))]).unwrap();
    b.card.completed(&mut Vec::new()).unwrap();
    assert!(matches!(b.card.check(), Err(Error::DeviceGone(_))));
    assert!(!b.card.link().up);
    let begin = Instant::now();
    drop(b.card);
    assert!(begin.elapsed() < Duration::from_secs(2));
}

#[test]
fn the_limit_of_a_silent_device_ends() {
    let mut b = bench(small());
    assert!(b.card.limit(60, 4, 1000).unwrap() > Duration::ZERO);
    lock(&b.device).lie = Lie::Silent;
    let error = b.card.limit(60, 4, 1000).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

/// One step of a transmit history.
#[derive(Debug, Clone)]
enum Step {
    /// Push frames of these segment lengths.
    Send(Vec<Vec<usize>>),
    /// The device takes some descriptors.
    Device(usize),
    Reap,
}

fn step() -> impl Strategy<Value = Step> {
    let frame = prop::collection::vec(17usize..300, 1..5);
    prop_oneof![
        prop::collection::vec(frame, 1..6).prop_map(Step::Send),
        (0usize..12).prop_map(Step::Device),
        Just(Step::Reap),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the order of pushing, device work and reaping: every frame leaves once, in order and
    /// whole, and comes back once it is written back, over any number of wraps.
    #[test]
    fn every_frame_leaves_once_and_comes_back(steps in prop::collection::vec(step(), 1..80)) {
        let mut b = bench(small().tx_ring(16));
        lock(&b.device).eager = false;
        let pool = Pool::new(b.card.dma(), 256, 300).unwrap();
        let mut expected = Vec::new();
        let mut waiting: Vec<Frame> = Vec::new();
        let mut in_flight: VecDeque<Vec<u8>> = VecDeque::new();
        let mut done = Vec::new();
        let mut seed = 0;
        let send = |card: &mut Card, waiting: &mut Vec<Frame>, in_flight: &mut VecDeque<Vec<u8>>, expected: &mut Vec<Vec<u8>>| {
            let contents: Vec<_> = waiting.iter().map(Frame::to_vec).collect();
            let sent = card.send(waiting).unwrap();
            for content in contents.into_iter().take(sent) {
                let mut wire = content.clone();
                // The ring pads.
                wire.resize(content.len().max(60), 0);
                expected.push(wire);
                in_flight.push_back(content);
            }
            assert_eq!(card.in_flight(), in_flight.len());
        };
        for step in steps {
            match step {
                Step::Send(frames) if waiting.len() < 20 => {
                    for segments in frames {
                        let mut pieces = segments.iter().map(|len| {
                            seed += 1;
                            frame(&pool, &bytes(seed, *len))
                        });
                        let mut whole = pieces.next().unwrap();
                        for piece in pieces {
                            whole.append(piece.into_buf().unwrap());
                        }
                        waiting.push(whole);
                    }
                    send(&mut b.card, &mut waiting, &mut in_flight, &mut expected);
                }
                Step::Send(_) => {}
                Step::Device(most) => {
                    lock(&b.device).step_tx(&b.memory, most);
                }
                Step::Reap => {
                    b.card.completed(&mut done).unwrap();
                    for frame in done.drain(..) {
                        prop_assert_eq!(Some(frame.to_vec()), in_flight.pop_front());
                    }
                }
            }
        }
        for _ in 0..40 {
            lock(&b.device).step_tx(&b.memory, usize::MAX);
            b.card.completed(&mut done).unwrap();
            for frame in done.drain(..) {
                prop_assert_eq!(Some(frame.to_vec()), in_flight.pop_front());
            }
            send(&mut b.card, &mut waiting, &mut in_flight, &mut expected);
        }
        prop_assert!(waiting.is_empty() && in_flight.is_empty());
        prop_assert_eq!(&lock(&b.device).sent, &expected);
        prop_assert_eq!(&lock(&b.device).silicon.complaints, &Vec::<String>::new());
        let home: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        prop_assert_eq!(home.len(), 256);
        prop_assert!(b.memory.faults().is_empty());
    }

    /// Whatever an offload says, which may be a device's word or a peer's: the frame goes or is refused,
    /// and what the card is told of its headers lies within the frame.
    #[test]
    fn whatever_an_offload_says_it_is_done_or_refused(
        len in 17usize..600,
        flags in any::<u8>(),
        lengths in prop::array::uniform3(prop_oneof![Just(0u8), 8..70u8, 200..=255u8, any::<u8>()]),
        mss in prop_oneof![Just(0u16), 1..2000u16, any::<u16>()],
        vlan in any::<u16>(),
    ) {
        let mut b = bench(small().vlan_offload(flags & 1 != 0));
        let [l2_len, l3_len, l4_len] = lengths;
        let flags = OffloadFlags::from_bits_truncate(flags);
        let offload = Offload { flags, l2_len, l3_len, l4_len, mss, vlan };
        let sent = worked_on(&mut b, len, offload);
        prop_assert_eq!(lock(&b.device).sent.len(), usize::from(sent.is_ok()));
        for [ip_sum, l4_sum] in lock(&b.device).sums.drain(..) {
            let ip = flags.contains(OffloadFlags::IP_CHECKSUM);
            let l4 = flags.intersects(OffloadFlags::TCP_CHECKSUM | OffloadFlags::UDP_CHECKSUM);
            prop_assert!(!ip || usize::from(ip_sum) + 2 <= len, "{offload:?}");
            prop_assert!(!l4 || usize::from(l4_sum) + 2 <= len, "{offload:?}");
            prop_assert!(l4_sum >= l2_len.saturating_add(l3_len), "{offload:?}");
        }
    }

    /// Whatever comes in, in whatever pieces: every frame is received once, in order and whole.
    #[test]
    fn every_frame_comes_in_once(
        rounds in prop::collection::vec((prop::collection::vec(1usize..9000, 0..6), 1usize..6), 1..40)
    ) {
        let mut b = bench(small().max_frame(9000).rx_ring(16));
        let mut expected = Vec::new();
        let mut got = Vec::new();
        for (lengths, most) in rounds {
            for len in lengths {
                let content = bytes(expected.len() as u32, len);
                lock(&b.device).inbox.push_back(content.clone());
                expected.push(content);
            }
            lock(&b.device).step_rx(&b.memory);
            let before = got.len();
            let mut fresh = Vec::new();
            b.card.recv(&mut fresh, most).unwrap();
            prop_assert!(fresh.len() <= most);
            got.extend(fresh.iter().map(|received| received.frame.to_vec()));
            prop_assert_eq!(&got[before..], &expected[before..got.len()]);
        }
        while got.len() < expected.len() {
            lock(&b.device).step_rx(&b.memory);
            let mut fresh = Vec::new();
            prop_assert!(b.card.recv(&mut fresh, 16).unwrap() > 0, "stuck at {}", got.len());
            got.extend(fresh.iter().map(|received| received.frame.to_vec()));
        }
        prop_assert_eq!(got, expected);
    }
}

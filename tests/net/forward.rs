//! Each card sends what the other receives.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use pinwire::Error;
use pinwire::net::{Forward, Passed, Rewrite, Side, Until};
use pinwire::nic::{Inspect, Mac, Nic, NicConfig};
use proptest::prelude::*;

use crate::fakes::e1000::MAC;
use crate::fakes::lock;
use crate::{Bench, bytes};

static NEVER: AtomicBool = AtomicBool::new(false);

fn small() -> NicConfig {
    NicConfig::default().tx_ring(8).rx_ring(16)
}

fn passed(frames: u64, bytes: u64) -> Passed {
    Passed {
        frames,
        bytes,
        ..Passed::default()
    }
}

#[test]
fn frames_pass_both_ways_out_of_the_buffers_that_they_came_in() {
    let [mut a, mut b] = Bench::pair(&NicConfig::default());
    let lent: BTreeSet<_> = a.card.rings()[1]
        .slots
        .iter()
        .filter_map(|slot| slot.buffer.map(|(iova, _, _)| iova))
        .collect();
    a.comes((0..3).map(|seed| bytes(seed, 60 + seed)));
    b.comes([bytes(9, 1514)]);
    let mut forward = Forward::new(&mut a.card, &mut b.card, 64).unwrap();
    assert_eq!(forward.round(u64::MAX, None).unwrap(), 2 * 4);
    assert_eq!(forward.passed(Side::A), passed(3, 60 + 61 + 62));
    assert_eq!(forward.passed(Side::B), passed(1, 1514));

    // In B's transmit ring are A's receive buffers.
    let sent_from = forward.card(Side::B).rings()[0].slots[..3]
        .iter()
        .map(|slot| slot.buffer.unwrap().0)
        .collect::<Vec<_>>();
    assert!(sent_from.iter().all(|iova| lent.contains(iova)));
    assert_eq!(a.sent(), [bytes(9, 1514)]);
    assert_eq!(
        b.sent(),
        (0..3)
            .map(|seed| bytes(seed, 60 + seed))
            .collect::<Vec<_>>()
    );
}

#[test]
fn cards_that_are_not_in_one_domain_are_refused() {
    let (mut a, mut b) = (Bench::one(), Bench::one());
    let error = Forward::new(&mut a.card, &mut b.card, 64).err().unwrap();
    assert!(
        error.to_string().contains("not in one IOMMU domain"),
        "{error}"
    );
}

#[test]
fn addresses_are_rewritten_but_for_groups() {
    let [mut a, mut b] = Bench::pair(&NicConfig::default());
    let hop = Mac([2, 0, 0, 0, 0, 5]);
    let mut group = bytes(2, 60);
    group[0] |= 1;
    let mut host = bytes(1, 60);
    host[0] &= !1;
    a.comes([host.clone(), group.clone()]);
    let mut forward = Forward::new(&mut a.card, &mut b.card, 64).unwrap();
    let rewrite = Rewrite {
        source: true,
        destination: Some(hop),
    };
    forward.rewrite(Side::B, rewrite);
    forward.round(u64::MAX, None).unwrap();
    host[..6].copy_from_slice(&hop.0);
    host[6..12].copy_from_slice(&MAC);
    group[6..12].copy_from_slice(&MAC);
    assert_eq!(b.sent(), [host, group]);
}

#[test]
fn the_tap_sees_each_frame_as_it_came_and_where() {
    let [mut a, mut b] = Bench::pair(&NicConfig::default());
    a.comes([bytes(1, 60)]);
    b.comes([bytes(2, 61)]);
    let mut forward = Forward::new(&mut a.card, &mut b.card, 64).unwrap();
    let rewrite = Rewrite {
        source: true,
        destination: None,
    };
    forward.rewrite(Side::B, rewrite);
    let mut seen = Vec::new();
    let mut tap = |side, received: &pinwire::nic::Received| {
        seen.push((side, received.frame.to_vec()));
        Ok(())
    };
    forward.round(u64::MAX, Some(&mut tap)).unwrap();
    assert_eq!(seen, [(Side::A, bytes(1, 60)), (Side::B, bytes(2, 61))]);
}

#[test]
fn a_tag_that_the_other_card_cannot_insert_drops_the_frame() {
    let tags = NicConfig::default().vlan_offload(true);
    let [mut a, mut b] = Bench::pair(&NicConfig::default());
    drop((a.card, b.card));
    let mut pair = crate::fakes::e1000::FakeE1000::fake_pair().into_iter();
    let (fake, device) = pair.next().unwrap();
    a = Bench::new(fake, device, &tags);
    let (fake, device) = pair.next().unwrap();
    b = Bench::new(fake, device, &NicConfig::default());
    lock(&a.device).rx_word = (8, 0); // VP
    a.comes([bytes(1, 60)]);
    let mut forward = Forward::new(&mut a.card, &mut b.card, 64).unwrap();
    forward.round(u64::MAX, None).unwrap();
    let counted = Passed {
        not_offered: 1,
        ..Passed::default()
    };
    assert_eq!(forward.passed(Side::A), counted);
    assert_eq!(b.sent(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_frame_that_the_other_card_does_not_send_is_dropped_and_its_neighbours_pass() {
    let [mut a, mut b] = Bench::pair(&NicConfig::default());
    let frames = [60, 5, 61].map(|len| bytes(len, len));
    a.comes(frames.clone());
    let mut forward = Forward::new(&mut a.card, &mut b.card, 64).unwrap();
    forward.round(u64::MAX, None).unwrap();
    let counted = Passed {
        bad_length: 1,
        ..passed(2, 60 + 61)
    };
    assert_eq!(forward.passed(Side::A), counted);
    assert_eq!(b.sent(), [frames[0].clone(), frames[2].clone()]);
}

#[test]
fn it_ends_after_so_many_frames_and_they_have_left() {
    let [mut a, mut b] = Bench::pair(&NicConfig::default());
    a.comes((0..100).map(|seed| bytes(seed, 60)));
    b.comes((0..100).map(|seed| bytes(seed, 60)));
    let mut forward = Forward::new(&mut a.card, &mut b.card, 16).unwrap();
    let until = Until {
        frames: 90,
        time: None,
        stop: &NEVER,
    };
    forward.run(until, None).unwrap();
    assert_eq!(a.sent().len() + b.sent().len(), 90);
    assert_eq!(a.card.in_flight() + b.card.in_flight(), 0);
}

#[test]
fn it_ends_in_time_and_at_a_stop() {
    let [mut a, mut b] = Bench::pair(&NicConfig::default());
    let mut forward = Forward::new(&mut a.card, &mut b.card, 16).unwrap();
    let begin = Instant::now();
    let mut until = Until {
        frames: u64::MAX,
        time: Some(begin + Duration::from_millis(150)),
        stop: &NEVER,
    };
    forward.run(until, None).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(150));
    static STOP: AtomicBool = AtomicBool::new(true);
    until.stop = &STOP;
    assert!(matches!(forward.run(until, None), Err(Error::Interrupted)));
}

/// B sends nothing: what A's ring holds is kept there, and passes when B sends again.
#[test]
fn nothing_is_lost_while_the_ring_has_buffers() {
    let [mut a, mut b] = Bench::pair(&small());
    lock(&b.device).eager = false;
    let mut forward = Forward::new(&mut a.card, &mut b.card, 4).unwrap();
    // 7 fit into B's ring, 4 are held, the others stay in A's ring.
    for seed in 0..20 {
        let mut device = lock(&a.device);
        device.inbox.push_back(bytes(seed, 60));
        device.step_rx(&a.memory);
        drop(device);
        for _ in 0..3 {
            forward.round(u64::MAX, None).unwrap();
        }
    }
    assert_eq!(forward.passed(Side::A).frames, 7);
    assert_eq!(lock(&a.device).inbox.len(), 0, "A had no buffer");
    {
        let mut device = lock(&b.device);
        device.eager = true;
        device.step_tx(&b.memory, usize::MAX);
    }
    for _ in 0..20 {
        forward.round(u64::MAX, None).unwrap();
    }
    assert_eq!(forward.passed(Side::A), passed(20, 20 * 60));
    assert_eq!(
        b.sent(),
        (0..20).map(|seed| bytes(seed, 60)).collect::<Vec<_>>()
    );
}

#[test]
fn a_card_that_takes_nothing_for_a_second_is_given_up_until_it_does() {
    let [mut a, mut b] = Bench::pair(&small());
    lock(&b.device).eager = false;
    a.comes((0..11).map(|seed| bytes(seed, 60)));
    let mut forward = Forward::new(&mut a.card, &mut b.card, 4).unwrap();
    let until = |millis| Until {
        frames: u64::MAX,
        time: Some(Instant::now() + Duration::from_millis(millis)),
        stop: &NEVER,
    };
    forward.run(until(1300), None).unwrap();
    let counted = Passed {
        no_room: 4,
        ..passed(7, 7 * 60)
    };
    assert_eq!(forward.passed(Side::A), counted);
    {
        let mut device = lock(&b.device);
        device.eager = true;
        device.step_tx(&b.memory, usize::MAX);
        let mut device = lock(&a.device);
        device.inbox.extend((0..4).map(|seed| bytes(seed, 60)));
        device.step_rx(&a.memory);
    }
    for _ in 0..4 {
        forward.round(u64::MAX, None).unwrap();
    }
    assert_eq!(forward.passed(Side::A).frames, 11);
}

proptest! {
    /// Whatever the devices do when, frames pass once, in order, and none is lost.
    #[test]
    fn every_frame_passes_once_and_in_order(steps in prop::collection::vec((0..5u8, 1..8usize), 1..60), batch in 1..9usize) {
        let [mut a, mut b] = Bench::pair(&small());
        for bench in [&a, &b] {
            lock(&bench.device).eager = false;
        }
        let devices = [a.device.clone(), b.device.clone()];
        let memory = a.memory.clone();
        let mut came = [0; 2];
        let mut forward = Forward::new(&mut a.card, &mut b.card, batch).unwrap();
        for (what, count) in steps {
            let side = usize::from(what & 1);
            let mut device = lock(&devices[side]);
            match what {
                0 | 1 => {
                    device.inbox.extend((came[side]..came[side] + count).map(|seed| bytes(seed, 60)));
                    came[side] += count;
                    device.step_rx(&memory);
                }
                2 | 3 => {
                    device.step_tx(&memory, count);
                }
                _ => {
                    drop(device);
                    forward.round(u64::MAX, None).unwrap();
                }
            }
        }
        for _ in 0..200 {
            for device in &devices {
                lock(device).step_rx(&memory);
                lock(device).step_tx(&memory, usize::MAX);
            }
            forward.round(u64::MAX, None).unwrap();
        }
        for (side, other) in [(0, 1), (1, 0)] {
            let expected: Vec<_> = (0..came[side]).map(|seed| bytes(seed, 60)).collect();
            prop_assert_eq!(&lock(&devices[other]).sent, &expected);
        }
    }
}

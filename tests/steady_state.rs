//! A packet costs no allocation once all is set up. Its instructions are counted by `benches/cards.rs`.
#![cfg(feature = "net")]

mod batches;
mod fakes;

use batches::cards::{CARDS, Receiving, Sending, buffer, two_cards};
use batches::{BATCH, Counting, allocations};
use pinwire::dma::Pool;
use pinwire::net::{Forward, Rewrite, Side};
use pinwire::nic::{Frame, Mac, Offload};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn allocations_are_counted() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

fn sending_allocates_nothing(frame: impl Fn(&Pool) -> Frame) {
    for which in CARDS {
        let mut sending = Sending::new(which, &frame);
        sending.batches(10);
        assert_eq!(allocations(|| sending.batches(1000)), 0, "{which}");
    }
}

#[test]
fn sending_plain_frames_allocates_nothing() {
    sending_allocates_nothing(|pool| buffer(pool, 64));
}

#[test]
fn sending_frames_of_two_segments_with_checksums_allocates_nothing() {
    sending_allocates_nothing(|pool| {
        let mut frame = buffer(pool, 42);
        frame.append(buffer(pool, 600).into_buf().expect("one buffer"));
        frame.set_offload(Offload::UDP4);
        frame
    });
}

#[test]
fn receiving_allocates_nothing() {
    for which in CARDS {
        let mut receiving = Receiving::new(which);
        receiving.batches(10);
        assert_eq!(allocations(|| receiving.batches(1000)), 0, "{which}");
    }
}

#[test]
fn forwarding_allocates_nothing() {
    for a in CARDS {
        for b in CARDS {
            assert_eq!(forwarding_allocates([a, b]), 0, "{a} and {b}");
        }
    }
}

fn forwarding_allocates(pair: [&str; 2]) -> u64 {
    let [mut a, mut b] = two_cards(pair, BATCH);
    let mut forward = Forward::new(&mut *a, &mut *b, BATCH).expect("one domain");
    let rewrite = Rewrite {
        source: true,
        destination: Some(Mac([2, 0, 0, 0, 0, 1])),
    };
    forward.rewrite(Side::A, rewrite);
    let mut rounds = |rounds| {
        for _ in 0..rounds {
            let moved = forward.round(u64::MAX, None).expect("cards that behave");
            // Came in, handed over, and back, each way.
            assert!(moved >= 4 * BATCH, "{pair:?}");
        }
    };
    rounds(10);
    allocations(|| rounds(100))
}

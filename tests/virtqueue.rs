//! Both virtqueues against the device's side of them, a fake from the specification: one that
//! behaves, in and out of order, and one that lies.

mod fakes;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

use fakes::virtio::NoDevice;
use fakes::virtio::queue::{Agreed, Chain, Queue};
use pinwire::Error;
use pinwire::backend::{Backend, Fake, FakeMemory};
use pinwire::dma::{DmaRegion, DmaSpace, Iova};
use pinwire::inspect::{Owner, RingIndices};
use pinwire::virtio::{Areas, Packed, Piece, Ring, RingConfig, Sink, Split, Used};
use proptest::prelude::*;

/// Which kind of ring a test is about.
trait Kind: Ring<u64> {
    const PACKED: bool;
}

impl Kind for Split<u64> {
    const PACKED: bool = false;
}

impl Kind for Packed<u64> {
    const PACKED: bool = true;
}

/// Gives what comes to a closure. One that is picky takes some by themselves.
struct Each<F> {
    each: F,
    is_picky: bool,
    accepted: VecDeque<u32>,
}

impl<F: FnMut(u64, u32)> Sink<u64> for Each<F> {
    fn take(&mut self, used: Used<u64>) {
        (self.each)(used.token, used.written);
    }

    fn lengths(&self) -> RangeInclusive<u32> {
        if self.is_picky { 3..=90 } else { 0..=u32::MAX }
    }

    fn accept(&mut self, token: &mut u64, written: u32) -> bool {
        let is_accepted = !self.is_picky || !token.is_multiple_of(3);
        self.accepted.extend(is_accepted.then_some(written));
        is_accepted
    }

    fn take_all(&mut self, tokens: impl Iterator<Item = u64>) {
        for token in tokens {
            let written = self.accepted.pop_front().expect("it was accepted");
            (self.each)(token, written);
        }
    }
}

fn pop_each<R: Ring<u64>>(
    ring: &mut R,
    most: usize,
    each: impl FnMut(u64, u32),
) -> Result<usize, Error> {
    let mut sink = Each {
        each,
        is_picky: most % 2 == 1,
        accepted: VecDeque::new(),
    };
    ring.poll_into(most, &mut sink)
}

/// A piece of [`pieces`] for the device to write.
const LENGTH: u32 = 100;

fn refill<R: Ring<u64>>(ring: &mut R, tokens: impl Iterator<Item = u64>) -> usize {
    ring.refill(LENGTH, tokens, |token| pieces(*token, 1)[0].iova)
}

/// A ring and its device.
struct Bench<R> {
    ring: R,
    queue: Queue,
    memory: Arc<FakeMemory>,
}

fn config(size: u16, agreed: Agreed) -> RingConfig {
    RingConfig {
        device: "fake".to_owned(),
        index: 5,
        size,
        event_idx: agreed.event_idx,
        indirect: agreed.indirect,
        in_order: agreed.in_order,
        notification_data: false,
    }
}

fn bench_with<R: Kind>(config: &RingConfig) -> Bench<R> {
    let fake = Fake::new(Arc::new(Mutex::new(NoDevice([0; 256]))), 4096);
    let memory = Arc::clone(fake.memory());
    let ring = R::new(fake.dma(), config).unwrap();
    let queue = queue_of(&ring, config);
    Bench {
        ring,
        queue,
        memory,
    }
}

fn queue_of<R: Kind>(ring: &R, config: &RingConfig) -> Queue {
    let areas = ring.areas();
    let agreed = Agreed {
        packed: R::PACKED,
        event_idx: config.event_idx,
        indirect: config.indirect,
        in_order: config.in_order,
    };
    let (desc, driver, device) = (areas.descriptors.0, areas.driver.0, areas.device.0);
    Queue::new(config.size, desc, driver, device, agreed)
}

fn bench<R: Kind>(size: u16, agreed: Agreed) -> Bench<R> {
    bench_with(&config(size, agreed))
}

const PLAIN: Agreed = Agreed {
    packed: false,
    event_idx: false,
    indirect: false,
    in_order: false,
};
const IN_ORDER: Agreed = Agreed {
    in_order: true,
    ..PLAIN
};
const EVENT_IDX: Agreed = Agreed {
    event_idx: true,
    ..PLAIN
};
const INDIRECT: Agreed = Agreed {
    indirect: true,
    ..PLAIN
};

/// `count` pieces that no other `seed` has, 100 bytes and more each.
fn pieces(seed: u64, count: usize) -> Vec<Piece> {
    (0..count)
        .map(|nth| Piece {
            iova: Iova(0x10_0000_0000 + seed * 0x10_0000 + nth as u64 * 0x1000),
            len: 100 + nth as u32,
        })
        .collect()
}

/// As the device should see them.
fn seen(pieces: &[Piece], readable: usize) -> Seen {
    let each = pieces.iter().enumerate();
    each.map(|(nth, piece)| (piece.iova.0, piece.len, nth >= readable))
        .collect()
}

impl<R: Kind> Bench<R> {
    /// Pushes `count` writable chains of one piece, tokens from `first` on.
    fn push(&mut self, first: u64, count: u64) {
        for token in first..first + count {
            self.ring.submit(&pieces(token, 1), 0, token).unwrap();
        }
    }

    fn take(&mut self) -> Chain {
        self.queue.take(&self.memory).expect("a chain")
    }

    fn give(&mut self, chain: &Chain, written: u32) {
        self.queue.give(&self.memory, chain, written);
    }

    fn pop(&mut self) -> Option<(u64, u32)> {
        let used = self.ring.poll().expect("a device that tells the truth");
        used.map(|used| (used.token, used.written))
    }

    /// It is stopped with `tokens` in it, some of them used: none comes out and nothing goes in, until a
    /// reset gives them back, after which it works.
    fn is_stopped(&mut self, tokens: &[u64]) {
        self.ring.stop();
        for _ in 0..3 {
            assert!(matches!(self.ring.poll(), Err(Error::Stopped { .. })));
            let each = pop_each(&mut self.ring, 9, |_, _| panic!("something came"));
            assert!(matches!(each, Err(Error::Stopped { .. })));
            assert!(self.ring.is_ready() && self.ring.arm());
            self.takes_nothing();
        }
        let _ = (self.ring.indices(), self.ring.slots(|_, _| None));
        assert_eq!(self.ring.in_flight(), tokens.len());
        assert_eq!(self.ring.reset(), tokens);
        self.works_as_at_first();
    }

    /// The next pop is an error that says `text`, and so is every one after it; nothing the device
    /// says opens the ring again, and a reset gives back `tokens`, after which it works.
    fn is_shut(&mut self, text: &str, tokens: &[u64]) {
        assert!(self.ring.is_ready(), "nobody would look");
        let error = self.ring.poll().expect_err("a lie");
        assert!(matches!(error, Error::ProtocolViolation { .. }), "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.to_string().contains("queue 5"), "{error}");
        for _ in 0..3 {
            assert!(matches!(
                self.ring.poll(),
                Err(Error::ProtocolViolation { .. })
            ));
            let each = pop_each(&mut self.ring, 9, |_, _| panic!("something came"));
            assert!(matches!(each, Err(Error::ProtocolViolation { .. })));
            assert!(self.ring.is_ready() && self.ring.arm());
            self.takes_nothing();
        }
        let _ = (self.ring.indices(), self.ring.slots(|_, _| None));
        assert_eq!(self.ring.reset(), tokens);
        self.works_as_at_first();
    }

    fn works_as_at_first(&mut self) {
        assert_eq!(self.ring.in_flight(), 0);
        assert_eq!(self.ring.room(), self.ring.size());
        assert!(!self.ring.is_ready());
        self.queue = Queue::new(
            self.queue.size,
            self.queue.desc,
            self.queue.driver,
            self.queue.device,
            self.queue.agreed(),
        );
        self.goes_round(1000);
    }

    /// Nothing goes in, and the device is told of nothing.
    fn takes_nothing(&mut self) {
        assert_eq!(self.ring.room(), 0);
        for count in [1, 2] {
            assert_eq!(self.ring.submit(&pieces(77, count), 0, 77), Err(77));
        }
        assert_eq!(refill(&mut self.ring, 0..3), 0);
        let mut tokens = vec![0, 1, 2];
        let piece = |token: &mut u64| Some(pieces(*token, 1)[0]);
        assert_eq!(self.ring.submit_front(&mut tokens, piece), 0);
        assert_eq!(tokens, [0, 1, 2]);
        assert_eq!(self.ring.publish(), None);
    }

    /// One chain there and back.
    fn goes_round(&mut self, token: u64) {
        self.queue.ask(&self.memory);
        self.push(token, 1);
        assert!(self.ring.publish().is_some());
        let chain = self.take();
        assert_eq!(chain.pieces, seen(&pieces(token, 1), 0));
        self.give(&chain, 64);
        assert_eq!(self.pop(), Some((token, 64)));
        assert_eq!(self.pop(), None);
    }
}

/// A test over both rings.
macro_rules! both {
    ($($(#[$meta:meta])* fn $name:ident<$kind:ident>() $body:block)*) => {
        $(mod $name {
            use super::*;

            fn body<$kind: Kind>() $body

            #[test]
            $(#[$meta])*
            fn split() {
                body::<Split<u64>>();
            }

            #[test]
            $(#[$meta])*
            fn packed() {
                body::<Packed<u64>>();
            }
        })*
    };
}

both! {
    fn the_device_sees_nothing_before_publish_and_all_of_it_after<R>() {
        let mut b = bench::<R>(8, PLAIN);
        b.push(0, 3);
        assert!(!b.queue.has_available(&b.memory));
        assert_eq!(b.ring.publish(), Some(5));
        assert_eq!(b.ring.publish(), None);
        for token in 0..3 {
            assert_eq!(b.take().pieces, seen(&pieces(token, 1), 0));
        }
        assert_eq!(b.queue.take(&b.memory), None);
        b.push(3, 2);
        assert!(!b.queue.has_available(&b.memory));
    }

    fn a_full_ring_gives_the_token_back<R>() {
        let mut b = bench::<R>(4, PLAIN);
        b.push(0, 2);
        assert_eq!(b.ring.submit(&pieces(7, 3), 1, 7), Err(7));
        b.ring.submit(&pieces(2, 2), 1, 2).unwrap();
        assert_eq!((b.ring.room(), b.ring.in_flight()), (0, 3));
        assert_eq!(b.ring.submit(&pieces(7, 1), 1, 7), Err(7));
        b.ring.publish();
        let chain = b.take();
        b.give(&chain, 100);
        assert_eq!(b.pop(), Some((0, 100)));
        assert_eq!((b.ring.room(), b.ring.in_flight()), (1, 2));
        b.push(3, 1);
    }

    fn a_chain_as_long_as_the_ring_goes_and_a_longer_one_never<R>() {
        let mut b = bench::<R>(4, PLAIN);
        for round in 0..3 {
            assert_eq!(b.ring.submit(&pieces(9, 5), 5, 9), Err(9));
            b.ring.submit(&pieces(round, 4), 2, round).unwrap();
            b.ring.publish();
            let chain = b.take();
            assert_eq!((chain.count, &chain.pieces), (4, &seen(&pieces(round, 4), 2)));
            b.give(&chain, chain.writable());
            assert_eq!(b.pop(), Some((round, 205)));
        }
    }

    fn a_chain_of_three_takes_one_descriptor_where_it_may_go_indirect<R>() {
        let mut b = bench::<R>(4, INDIRECT);
        assert_eq!([1, 2, 3, 4, 5].map(|n| b.ring.needs(n)), [1, 2, 1, 1, 5]);
        for token in 0..4 {
            b.ring.submit(&pieces(token, 4), 1, token).unwrap();
        }
        assert_eq!(b.ring.room(), 0);
        b.ring.publish();
        let chains = [0, 1, 2, 3].map(|_| b.take());
        for (token, chain) in chains.iter().enumerate().rev() {
            assert_eq!(chain.count, 1);
            assert_eq!(chain.pieces, seen(&pieces(token as u64, 4), 1));
            b.give(chain, 306);
            assert_eq!(b.pop(), Some((token as u64, 306)));
        }
    }

    fn reset_gives_back_all_in_the_order_of_their_pushing<R>() {
        let mut b = bench::<R>(8, PLAIN);
        b.push(0, 6);
        b.ring.publish();
        let chains = [0, 1, 2, 3, 4, 5].map(|_| b.take());
        for which in [4, 1, 2] {
            b.give(&chains[which], 1);
            b.pop().unwrap();
        }
        b.push(6, 3);
        b.ring.publish();
        b.push(9, 2);
        assert_eq!(b.ring.reset(), [0, 3, 5, 6, 7, 8, 9, 10]);
        b.queue = queue_of(&b.ring, &config(8, PLAIN));
        for token in 0..20 {
            b.goes_round(token);
        }
    }

    fn a_ring_of_one_works<R>() {
        for agreed in [PLAIN, IN_ORDER, EVENT_IDX, INDIRECT] {
            let mut b = bench::<R>(1, agreed);
            for token in 0..70_000 {
                b.push(token, 1);
                assert_eq!(b.ring.submit(&[Piece { iova: Iova(1), len: 1 }], 0, 0), Err(0));
                b.ring.publish();
                let chain = b.take();
                b.give(&chain, 3);
                assert_eq!(b.pop(), Some((token, 3)));
                assert_eq!(b.pop(), None);
            }
        }
    }

    fn a_ring_of_no_size_is_refused<R>() {
        let fake = Fake::new(Arc::new(Mutex::new(NoDevice([0; 256]))), 4096);
        for size in [0, 0x8001, 0xffff] {
            let error = R::new(fake.dma(), &config(size, PLAIN)).err().expect("an error");
            assert!(matches!(error, Error::Usage(_)), "{error}");
        }
        assert_eq!(R::new(fake.dma(), &config(0x8000, INDIRECT)).unwrap().room(), 0x8000);
        assert_eq!(fake.memory().mappings(), 0);
    }

    fn quarantined_memory_is_cut_off_and_its_addresses_are_nobodys<R>() {
        let mut b = bench::<R>(4, INDIRECT);
        b.push(7, 1);
        b.push(8, 3);
        let Areas { descriptors, driver, device } = b.ring.areas();
        let mut abandoned = Vec::new();
        b.ring.quarantine(|token| abandoned.push(token));
        assert_eq!(abandoned, [7, 8, 9, 10]);
        drop(b.ring);
        assert_eq!(b.memory.mappings(), 0);
        let dma: Arc<dyn DmaSpace> = b.memory.clone();
        let others: Vec<_> = (0..64).map(|_| DmaRegion::alloc(&dma, 4096).unwrap()).collect();
        for iova in [descriptors, driver, device] {
            let is_theirs = |other: &DmaRegion| other.iova().0 >> 12 == iova.0 >> 12;
            assert!(!others.iter().any(is_theirs), "{iova} was given out again");
            assert!(!b.memory.write(iova.0, &[0xee]), "{iova} leads into somebody else's memory");
        }
    }

    fn a_notification_says_where_the_driver_is<R>() {
        let agreed = EVENT_IDX;
        let config = RingConfig { notification_data: true, ..config(4, agreed) };
        let mut b = bench_with::<R>(&config);
        for token in 0..70_000 {
            b.queue.ask(&b.memory);
            b.push(token, 1);
            let told = b.ring.publish().expect("the device asked");
            let chain = b.take();
            assert_eq!(told, 5 | u32::from(b.queue.next_word()) << 16);
            b.give(&chain, 1);
            b.pop().unwrap();
        }
    }

    fn a_used_id_out_of_range_is_a_lie<R>() {
        for agreed in [PLAIN, IN_ORDER] {
            for id in [4, 5, 0xffff] {
                let mut b = bench::<R>(4, agreed);
                b.push(0, 3);
                b.ring.publish();
                b.queue.say_used(&b.memory, id, 1, 1);
                b.is_shut("used id", &[0, 1, 2]);
            }
        }
    }

    fn a_used_id_that_was_given_back_already_is_a_lie<R>() {
        for agreed in [PLAIN, IN_ORDER] {
            let mut b = bench::<R>(4, agreed);
            b.push(0, 3);
            b.ring.publish();
            let chain = b.take();
            b.give(&chain, 1);
            assert_eq!(b.pop(), Some((0, 1)));
            b.give(&chain, 1);
            b.is_shut("which it has not", &[1, 2]);
        }
    }

    fn a_used_id_of_the_middle_of_a_chain_is_a_lie<R>() {
        let mut b = bench::<R>(8, PLAIN);
        b.ring.submit(&pieces(0, 3), 0, 0).unwrap();
        b.push(1, 1);
        b.ring.publish();
        let chain = b.take();
        b.queue.say_used(&b.memory, u32::from(chain.id) + 2, 1, 1);
        b.is_shut("which it has not", &[0, 1]);
    }

    fn a_chain_that_was_not_published_cannot_be_used<R>() {
        for agreed in [PLAIN, IN_ORDER] {
            let mut b = bench::<R>(4, agreed);
            b.push(0, 1);
            b.ring.publish();
            let first = b.take();
            b.push(1, 1);
            let hidden = if first.id == 0 { 1 } else { 0 };
            b.queue.say_used(&b.memory, hidden, 1, 1);
            b.is_shut("not made available", &[0, 1]);
        }
    }

    fn a_device_that_has_nothing_cannot_have_used_something<R>() {
        for agreed in [PLAIN, IN_ORDER] {
            let mut b = bench::<R>(4, agreed);
            b.queue.say_used(&b.memory, 0, 1, 1);
            b.is_shut("used", &[]);
        }
    }

    fn a_ring_that_is_stopped_gives_and_takes_nothing<R>() {
        for agreed in [PLAIN, IN_ORDER, INDIRECT] {
            let mut b = bench::<R>(8, agreed);
            b.push(0, 4);
            b.ring.publish();
            for _ in 0..3 {
                let chain = b.take();
                b.give(&chain, 1);
            }
            assert_eq!(b.pop(), Some((0, 1)));
            // Two are used, one is with the device, one was never shown to it.
            b.push(4, 1);
            b.is_stopped(&[1, 2, 3, 4]);
        }
    }

    fn what_came_before_a_lie_is_given<R>() {
        for agreed in [PLAIN, IN_ORDER] {
            let mut b = bench::<R>(8, agreed);
            b.push(0, 4);
            b.ring.publish();
            let chains = [0, 1, 2, 3].map(|_| b.take());
            b.give(&chains[0], 1);
            b.give(&chains[1], 2);
            b.queue.say_used(&b.memory, 7, 0, 1);
            let mut got = Vec::new();
            let each = pop_each(&mut b.ring, 9, |token, written| got.push((token, written)));
            assert!(each.is_err());
            assert_eq!(got, [(0, 1), (1, 2)]);
            b.is_shut("which it has not", &[2, 3]);
        }
    }

    fn more_bytes_than_there_is_room_for_are_a_lie<R>() {
        for agreed in [PLAIN, IN_ORDER, INDIRECT] {
            let mut b = bench::<R>(8, agreed);
            b.ring.submit(&pieces(0, 4), 2, 0).unwrap();
            b.ring.publish();
            let chain = b.take();
            b.give(&chain, 102 + 103 + 1);
            b.is_shut("room for 205", &[0]);
        }
        let mut b = bench::<R>(8, PLAIN);
        b.ring.submit(&pieces(0, 1), 1, 0).unwrap();
        b.ring.publish();
        let chain = b.take();
        b.give(&chain, 1);
        b.is_shut("room for 0", &[0]);
    }

    fn one_entry_stands_for_all_before_it_in_order<R>() {
        let mut b = bench::<R>(8, IN_ORDER);
        for token in 0..6 {
            b.ring.submit(&pieces(token, 1 + token as usize % 2), 1, token).unwrap();
            if b.ring.room() < 2 {
                break;
            }
        }
        b.ring.publish();
        let chains: Vec<_> = (0..4).map(|_| b.take()).collect();
        b.queue.give_up_to(&b.memory, &chains, 7);
        assert_eq!(b.pop(), Some((0, 0)));
        assert_eq!(b.pop(), Some((1, 101)), "used completely");
        assert!(b.ring.is_ready());
        assert_eq!(b.pop(), Some((2, 0)));
        assert_eq!(b.pop(), Some((3, 7)));
        assert!(!b.ring.is_ready());
        assert_eq!(b.pop(), None);
    }

    fn the_views_say_who_owns_what<R>() {
        for agreed in [PLAIN, IN_ORDER, INDIRECT] {
            let mut b = bench::<R>(8, agreed);
            b.push(0, 1);
            b.ring.submit(&pieces(1, 2), 1, 1).unwrap();
            b.push(2, 1);
            b.ring.publish();
            b.push(3, 1);
            let chain = b.take();
            b.give(&chain, 9);
            let buffer = |token: &u64, iova: Iova| {
                let piece = pieces(*token, 2).into_iter().find(|piece| piece.iova == iova)?;
                Some((piece.iova, *token as usize, piece.len as usize))
            };
            let slots = b.ring.slots(buffer);
            let owners: Vec<_> = slots.iter().map(|slot| slot.owner).collect();
            let (done, device, driver) = (Owner::Done, Owner::Device, Owner::Driver);
            assert_eq!(
                owners,
                [done, device, device, device, driver, driver, driver, driver]
            );
            let tokens: Vec<_> = slots.iter().map(|slot| slot.buffer.map(|b| b.1)).collect();
            assert_eq!(tokens[1..5], [Some(1), Some(1), Some(2), Some(3)]);
            assert!(slots[1].text.contains("len=100") && slots[1].text.contains("NEXT"));
            b.pop().unwrap();
            assert_eq!(b.ring.slots(buffer)[0].owner, Owner::Driver);
        }
    }

    fn no_wake_up_is_lost<R>() {
        for agreed in [PLAIN, EVENT_IDX, Agreed { in_order: true, ..EVENT_IDX }] {
            let mut b = bench::<R>(4, agreed);
            // Both sides work a little, and sleep unless told. Neither may be asleep for good while
            // there is work.
            let (mut random, mut token, mut back) = (1u32, 0u64, 0);
            let (mut told, mut interrupted) = (true, true);
            let mut held = VecDeque::new();
            while back < 70_000 {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let many = random >> 30;
                if interrupted {
                    b.ring.disarm();
                    for _ in 0..=many {
                        if let Some((got, _)) = b.pop() {
                            assert_eq!(got, back);
                            back += 1;
                        }
                        if b.ring.submit(&[Piece { iova: Iova(token), len: 9 }], 0, token).is_ok() {
                            token += 1;
                        }
                    }
                    // The driver goes to sleep only where nothing came back, and it has nothing
                    // more to give.
                    told |= b.ring.publish().is_some();
                    interrupted = b.ring.arm() || b.ring.room() > 0 && b.ring.in_flight() < 2;
                }
                if told {
                    b.queue.be_quiet(&b.memory);
                    held.extend((0..many).map_while(|_| b.queue.take(&b.memory)));
                    while held.len() > 1 || (many & 1 == 0 && !held.is_empty()) {
                        let chain = held.pop_front().unwrap();
                        b.give(&chain, 1);
                    }
                    interrupted |= b.queue.must_interrupt(&b.memory);
                    told = b.queue.ask(&b.memory) || !held.is_empty();
                }
                assert!(told || interrupted, "both are asleep: {:?}", b.ring.indices());
            }
        }
    }

    fn a_device_that_does_not_want_to_be_told_is_not_told<R>() {
        for agreed in [PLAIN, EVENT_IDX] {
            let mut b = bench::<R>(8, agreed);
            b.queue.be_quiet(&b.memory);
            b.push(0, 2);
            assert_eq!(b.ring.publish(), None);
            b.take();
            b.take();
            assert!(!b.queue.ask(&b.memory));
            b.push(2, 3);
            assert_eq!(b.ring.publish(), Some(5));
            b.take();
            b.push(5, 1);
            // With EVENT_IDX the place it asked for is passed; a flag stays up.
            assert_eq!(b.ring.publish(), (!agreed.event_idx).then_some(5));
        }
    }

    fn a_driver_that_does_not_want_to_be_told_is_not_told<R>() {
        for agreed in [PLAIN, EVENT_IDX] {
            let mut b = bench::<R>(8, agreed);
            for round in 0..70_000u64 {
                b.push(round, 1);
                b.ring.publish();
                let chain = b.take();
                let wants = round % 3 == 0;
                if wants {
                    assert!(!b.ring.arm());
                } else {
                    b.ring.disarm();
                }
                b.give(&chain, 1);
                assert_eq!(b.queue.must_interrupt(&b.memory), wants);
                assert!(!wants || b.ring.arm(), "one is there already");
                b.pop().unwrap();
            }
        }
    }

    fn whatever_the_device_writes_no_token_comes_back_twice_or_early<R>() {
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            cases: 600,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        // Small numbers hit what is there; large ones miss.
        let value = prop_oneof![0..12u32, any::<u32>(), Just(0x8080_0001), Just(0x0001_0000)];
        let step = prop_oneof![
            3 => (1..=4usize, 0..=4usize).prop_map(|(count, readable)| Step::Push(count, readable)),
            1 => (0..5usize).prop_map(Step::Refill),
            3 => Just(Step::Publish),
            6 => (any::<prop::sample::Index>(), value).prop_map(|(at, value)| Step::Scribble(at, value)),
            3 => (0..10u32, 0..500u32, 1..3u16).prop_map(|(id, len, skip)| Step::Say(id, len, skip)),
            2 => Just(Step::Pop),
            2 => (0..9usize).prop_map(Step::PopEach),
            1 => any::<bool>().prop_map(Step::Arm),
        ];
        let agreed = (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(event_idx, indirect, in_order)| Agreed { packed: R::PACKED, event_idx, indirect, in_order },
        );
        runner
            .run(&(0..=3u16, agreed, prop::collection::vec(step, 1..60)), |(n, agreed, steps)| {
                Siege::new(bench::<R>(1 << n, agreed)).hold(&steps);
                Ok(())
            })
            .unwrap();
    }

    fn a_producer_that_panics_at_any_place_leaves_all_it_gave_and_nothing_else<R>() {
        for (agreed, before, count) in [PLAIN, IN_ORDER]
            .into_iter()
            .flat_map(|agreed| (0..3).flat_map(move |before| (0..8).map(move |n| (agreed, before, n))))
        {
            let mut walk = Walk::new(bench::<R>(8, agreed), agreed);
            // Twice round the ring, with what went before not shown to the device yet.
            for _ in 0..6 {
                walk.step(&Step::Refill(before));
                walk.step(&Step::RefillPanics(count));
                walk.step(&Step::PushFront(count / 2, true));
                walk.step(&Step::Publish);
                walk.step(&Step::Take(9));
                assert!(walk.published.is_empty(), "the device found all that the ring kept");
                while let Some((token, chain)) = walk.taken.pop_front() {
                    let written = chain.writable();
                    walk.b.give(&chain, written);
                    walk.given.push_back((token, written, chain.count.into()));
                }
                walk.step(&Step::PopEachPanics(count));
                walk.step(&Step::PopAll);
            }
            walk.walk(0, &[]);
        }
    }

    fn a_device_that_turns_from_order_to_disorder_and_back_gives_all_back<R>() {
        let mut walk = Walk::new(bench::<R>(8, PLAIN), PLAIN);
        for round in 0..200 {
            // Now a batch in order, now one back to front, now one that leaves the oldest to the next.
            walk.step(&Step::Refill(5));
            walk.step(&Step::PushFront(round % 4, false));
            walk.step(&Step::Publish);
            walk.step(&Step::Take(8));
            let stay = usize::from(round % 3 == 2 && round < 190);
            while walk.taken.len() > stay {
                let at = if round % 40 < 20 { stay } else { walk.taken.len() - 1 };
                let (token, chain) = walk.taken.remove(at).unwrap();
                let written = chain.writable() / 2;
                walk.b.give(&chain, written);
                walk.given.push_back((token, written, chain.count.into()));
            }
            walk.step(&Step::PopEach(3));
            walk.step(&Step::PopAll);
        }
        walk.walk(0, &[]);
    }

    fn no_descriptor_is_of_length_0<R>() {
        for agreed in [PLAIN, INDIRECT, IN_ORDER] {
            for empty in 0..31 {
                for readable in 0..=5 {
                    let mut walk = Walk::new(bench::<R>(8, agreed), agreed);
                    walk.step(&Step::PushEmpty(5, readable, empty));
                    walk.step(&Step::Publish);
                    walk.step(&Step::Take(1));
                    assert_eq!(walk.taken.len(), 1);
                }
            }
        }
        let nothing = [Piece { iova: Iova(0x1000), len: 0 }; 2];
        for chain in [&nothing[..1], &nothing] {
            let mut b = bench::<R>(8, PLAIN);
            assert!(catch_unwind(AssertUnwindSafe(|| b.ring.submit(chain, 1, 0))).is_err());
            let none = catch_unwind(AssertUnwindSafe(|| b.ring.refill(0, 0..1, |_| chain[0].iova)));
            assert!(none.is_err());
            assert_eq!((b.ring.in_flight(), b.ring.publish()), (0, None));
        }
    }

    fn what_comes_back_is_what_the_model_says<R>() {
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            cases: 300,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let step = prop_oneof![
            4 => (1..=6usize, 0..=6usize).prop_map(|(count, readable)| Step::Push(count, readable)),
            2 => (0..12usize).prop_map(Step::Refill),
            1 => (0..12usize).prop_map(Step::RefillPanics),
            2 => (0..12usize, any::<bool>()).prop_map(|(count, panics)| Step::PushFront(count, panics)),
            2 => (1..=6usize, 0..=6usize, any::<u8>())
                .prop_map(|(count, readable, empty)| Step::PushEmpty(count, readable, empty)),
            2 => Just(Step::Publish),
            2 => (1..9usize).prop_map(Step::Take),
            3 => (any::<prop::sample::Index>(), 0..200u32).prop_map(|(w, len)| Step::Give(w, len)),
            1 => (any::<prop::sample::Index>(), 0..200u32).prop_map(|(w, len)| Step::GiveMany(w, len)),
            3 => Just(Step::Pop),
            1 => Just(Step::PopAll),
            2 => (0..12usize).prop_map(Step::PopEach),
            1 => (0..12usize).prop_map(Step::PopEachPanics),
        ];
        let agreed = (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(event_idx, indirect, in_order)| Agreed { packed: R::PACKED, event_idx, indirect, in_order },
        );
        let sizes = if R::PACKED { 1..=13u16 } else { 0..=4 };
        let steps = prop::collection::vec(step, 1..400);
        let warm = prop_oneof![9 => Just(0u32), 1 => 65_500..65_540u32];
        let all = (sizes, agreed, warm, steps);
        let size = |n: u16| if R::PACKED { n } else { 1 << n };
        runner
            .run(&all, |(n, agreed, warm, steps)| {
                Walk::new(bench::<R>(size(n), agreed), agreed).walk(warm, &steps);
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn a_split_rings_size_is_a_power_of_two() {
    let fake = Fake::new(Arc::new(Mutex::new(NoDevice([0; 256]))), 4096);
    let error = <Split<u64> as Ring<u64>>::new(fake.dma(), &config(6, PLAIN)).err();
    assert!(
        error
            .expect("an error")
            .to_string()
            .contains("power of two")
    );
}

#[test]
fn a_split_rings_used_index_cannot_run_ahead() {
    for (agreed, ahead) in [PLAIN, IN_ORDER]
        .into_iter()
        .flat_map(|agreed| [3, 4, 0x7fff, 0x8000, 0xffff].map(|ahead| (agreed, ahead)))
    {
        let mut b = bench::<Split<u64>>(4, agreed);
        b.push(0, 2);
        b.ring.publish();
        b.push(2, 1);
        b.take();
        b.queue.say_used(&b.memory, 0, 1, ahead);
        b.is_shut("chains used, of 2", &[0, 1, 2]);
    }
}

#[test]
fn in_order_an_entry_cannot_stand_for_more_than_the_index_says() {
    let mut b = bench::<Split<u64>>(4, IN_ORDER);
    b.push(0, 3);
    b.ring.publish();
    let chains = [0, 1, 2].map(|_| b.take());
    b.queue.say_used(&b.memory, chains[2].id.into(), 1, 2);
    b.is_shut("beyond its used index", &[0, 1, 2]);
}

#[test]
fn a_split_rings_marks_are_what_is_in_memory() {
    let mut b = bench::<Split<u64>>(4, EVENT_IDX);
    b.push(0, 3);
    b.ring.publish();
    let chain = b.take();
    b.give(&chain, 77);
    b.queue.ask(&b.memory);
    b.ring.arm();
    let RingIndices::Split(indices) = b.ring.indices() else {
        panic!("not a split ring's");
    };
    assert_eq!(
        (indices.avail_idx, indices.used_idx, indices.taken_idx),
        (3, 1, 0)
    );
    assert_eq!((indices.used_event, indices.avail_event), (0, 1));
    assert_eq!(indices.avail[..3], [0, 1, 2]);
    assert_eq!(indices.used[0], (0, 77));
    assert_eq!((indices.avail_flags, indices.used_flags), (0, 0));
    assert_eq!(indices.avail_iova, b.ring.areas().driver);
    assert_eq!(indices.used_iova, b.ring.areas().device);
}

#[test]
fn a_packed_ring_of_any_size_goes_round_and_round() {
    for size in 1..=33 {
        let mut b = bench::<Packed<u64>>(size, PLAIN);
        for token in 0..u64::from(size) * 5 {
            b.goes_round(token);
        }
    }
    let mut b = bench::<Packed<u64>>(0x8000, PLAIN);
    for token in 0..70_000 {
        b.goes_round(token);
    }
}

#[test]
fn without_write_a_packed_rings_length_counts_where_it_can_be() {
    for (said, counts) in [(100, 100), (101, 0), (u32::MAX, 0), (0, 0)] {
        let mut b = bench::<Packed<u64>>(4, PLAIN);
        b.push(0, 1);
        b.ring.publish();
        let chain = b.take();
        b.give(&chain, said);
        let flags = b.queue.desc + 14;
        b.memory.write(flags, &0x8080u16.to_le_bytes());
        assert_eq!(b.pop(), Some((0, counts)));
    }
}

#[test]
fn a_descriptor_that_is_not_next_is_not_looked_at() {
    let mut b = bench::<Packed<u64>>(4, PLAIN);
    b.push(0, 3);
    b.ring.publish();
    for nth in [1, 2, 3] {
        b.memory
            .write(b.queue.desc + 16 * nth + 14, &0x8080u16.to_le_bytes());
    }
    assert_eq!(b.pop(), None);
    assert!(!b.ring.arm());
}

#[test]
fn event_flags_that_do_not_exist_are_answered_with_a_notification() {
    for (agreed, flags) in [(PLAIN, 2), (PLAIN, 3), (EVENT_IDX, 3), (EVENT_IDX, 0xffff)] {
        let mut b = bench::<Packed<u64>>(4, agreed);
        b.memory
            .write(b.queue.device, &[0, 0, flags as u8, (flags >> 8) as u8]);
        b.push(0, 1);
        assert_eq!(b.ring.publish(), Some(5));
    }
}

#[test]
fn a_packed_rings_marks_are_what_is_in_memory() {
    let mut b = bench::<Packed<u64>>(4, EVENT_IDX);
    for token in 0..3 {
        b.goes_round(token);
    }
    b.push(3, 2);
    b.ring.publish();
    b.queue.ask(&b.memory);
    b.ring.arm();
    let RingIndices::Packed(indices) = b.ring.indices() else {
        panic!("not a packed ring's");
    };
    assert_eq!((indices.next_avail, indices.avail_wrap), (1, false));
    assert_eq!((indices.next_used, indices.used_wrap), (3, true));
    assert_eq!(indices.driver_event, [0x8003, 2]);
    assert_eq!(indices.device_event, [0x8003, 2]);
    assert_eq!(indices.driver_event_iova, b.ring.areas().driver);
    assert_eq!(indices.device_event_iova, b.ring.areas().device);
}

/// A step of [`Walk`].
#[derive(Debug, Clone)]
enum Step {
    /// Pieces, and how many of them are readable.
    Push(usize, usize),
    /// As [`Step::Push`], the pieces of length 0 that have a bit of the last.
    PushEmpty(usize, usize, u8),
    /// Chains of one piece that the device writes.
    Refill(usize),
    /// The same, by an iterator that panics after them.
    RefillPanics(usize),
    /// Chains of one piece that the device reads, from the front of a list whose next one is refused or, where
    /// this is set, panics.
    PushFront(usize, bool),
    Publish,
    /// The device takes up to as many.
    Take(usize),
    /// It gives one back: any, or the oldest where it works in order.
    Give(prop::sample::Index, u32),
    /// In order: it gives several back with one entry.
    GiveMany(prop::sample::Index, u32),
    Pop,
    PopAll,
    /// Up to as many.
    PopEach(usize),
    /// All, to a callback that panics as it has got so many.
    PopEachPanics(usize),
    /// The device writes somewhere into the queue's memory: which 4 bytes, what.
    Scribble(prop::sample::Index, u32),
    /// It says that it used a chain: id, length, entries or descriptors.
    Say(u32, u32, u16),
    /// On, or off.
    Arm(bool),
}

/// A ring beside a device that writes whatever it likes.
struct Siege<R> {
    b: Bench<R>,
    /// Token, bytes the device may write, "it knows".
    pushed: Vec<(u64, u32, bool)>,
    token: u64,
    shut: bool,
}

impl<R: Kind> Siege<R> {
    fn new(b: Bench<R>) -> Self {
        Self {
            b,
            pushed: Vec::new(),
            token: 0,
            shut: false,
        }
    }

    fn came(&mut self, token: u64, written: u32) {
        assert!(!self.shut, "something came from a ring that is shut");
        let at = self.pushed.iter().position(|pushed| pushed.0 == token);
        let (_, writable, known) = self.pushed.remove(at.expect("a token that is not there"));
        assert!(known && written <= writable, "{written} of {writable}");
    }

    fn hold(mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Push(count, readable) => {
                    let readable = *readable.min(count);
                    let these = pieces(self.token, *count);
                    if self.b.ring.submit(&these, readable, self.token).is_ok() {
                        let writable = these[readable..].iter().map(|piece| piece.len).sum();
                        self.pushed.push((self.token, writable, false));
                        self.token += 1;
                    }
                }
                Step::Refill(count) => {
                    let first = self.token;
                    let went = refill(&mut self.b.ring, (first..).take(*count)) as u64;
                    self.pushed
                        .extend((first..first + went).map(|token| (token, LENGTH, false)));
                    self.token += went;
                }
                Step::Publish => {
                    self.b.ring.publish();
                    if !self.shut {
                        self.pushed.iter_mut().for_each(|pushed| pushed.2 = true);
                    }
                }
                Step::Scribble(at, value) => {
                    let words = 16 * u64::from(self.b.queue.size) / 4;
                    // The descriptors, and what the device is meant to write: used ring or event.
                    let at = at.index(2 * words as usize) as u64;
                    let (base, past) = match at.checked_sub(words) {
                        None => (self.b.queue.desc, at),
                        Some(past) => (self.b.queue.device, past),
                    };
                    self.b.memory.write(base + 4 * past, &value.to_le_bytes());
                }
                Step::Say(id, len, skip) => self.b.queue.say_used(&self.b.memory, *id, *len, *skip),
                Step::Pop => match self.b.ring.poll() {
                    Ok(Some(used)) => self.came(used.token, used.written),
                    Ok(None) => assert!(!self.shut, "a lie that is forgotten"),
                    Err(_) => self.shut = true,
                },
                Step::PopEach(most) => {
                    let mut got = Vec::new();
                    let popped = pop_each(&mut self.b.ring, *most, |token, written| {
                        got.push((token, written))
                    });
                    got.into_iter()
                        .for_each(|(token, written)| self.came(token, written));
                    self.shut |= popped.is_err();
                }
                Step::Arm(true) => assert!(self.b.ring.arm() || !self.shut),
                Step::Arm(false) => self.b.ring.disarm(),
                _ => unreachable!(),
            }
            assert_eq!(self.b.ring.in_flight(), self.pushed.len());
            assert!(self.b.ring.is_ready() || !self.shut);
            let _ = (self.b.ring.indices(), self.b.ring.slots(|_, _| None));
        }
        let left: Vec<_> = self.pushed.iter().map(|pushed| pushed.0).collect();
        assert_eq!(self.b.ring.reset(), left);
        self.b.queue = Queue::new(
            self.b.queue.size,
            self.b.queue.desc,
            self.b.queue.driver,
            self.b.queue.device,
            self.b.queue.agreed(),
        );
        self.b.goes_round(self.token);
    }
}

/// The pieces of a chain as the device should see them.
type Seen = Vec<(u64, u32, bool)>;

/// A ring beside a model of it: queues of what is where.
struct Walk<R> {
    b: Bench<R>,
    in_order: bool,
    token: u64,
    room: usize,
    pushed: VecDeque<(u64, Seen)>,
    published: VecDeque<(u64, Seen)>,
    taken: VecDeque<(u64, Chain)>,
    /// Token, bytes written, descriptors.
    given: VecDeque<(u64, u32, usize)>,
}

impl<R: Kind> Walk<R> {
    fn new(b: Bench<R>, agreed: Agreed) -> Self {
        Self {
            room: b.ring.size(),
            in_order: agreed.in_order,
            b,
            token: 0,
            pushed: VecDeque::new(),
            published: VecDeque::new(),
            taken: VecDeque::new(),
            given: VecDeque::new(),
        }
    }

    fn walk(mut self, warm: u32, steps: &[Step]) {
        for _ in 0..warm {
            let token = self.token;
            self.token += 1;
            self.b.goes_round(token);
        }
        for step in steps {
            self.step(step);
            let there = [&self.pushed, &self.published].map(VecDeque::len);
            let in_flight = there[0] + there[1] + self.taken.len() + self.given.len();
            assert_eq!(self.b.ring.in_flight(), in_flight);
            assert_eq!(self.b.ring.room(), self.room);
            assert_eq!(self.b.ring.is_ready(), !self.given.is_empty());
            assert_eq!(
                self.b.queue.has_available(&self.b.memory),
                !self.published.is_empty()
            );
            assert_eq!(self.b.ring.slots(|_, _| None).len(), self.b.ring.size());
        }
        // What is left comes back with a reset, oldest first.
        let mut left: Vec<_> = self.given.iter().map(|given| given.0).collect();
        left.extend(self.taken.iter().map(|taken| taken.0));
        left.extend(self.published.iter().chain(&self.pushed).map(|(t, _)| *t));
        left.sort_unstable();
        assert_eq!(self.b.ring.reset(), left);
        assert_eq!(self.b.memory.faults(), []);
    }

    /// So many more are in the ring, for the device to write.
    fn refilled(&mut self, count: usize) {
        let first = self.token;
        self.token += count as u64;
        self.room -= count;
        let tokens = first..self.token;
        self.pushed
            .extend(tokens.map(|token| (token, seen(&pieces(token, 1), 0))));
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Push(count, readable) => {
                let readable = *readable.min(count);
                let (token, these) = (self.token, pieces(self.token, *count));
                let needs = self.b.ring.needs(*count);
                let done = self.b.ring.submit(&these, readable, token);
                assert_eq!(
                    done,
                    if needs <= self.room {
                        Ok(())
                    } else {
                        Err(token)
                    }
                );
                if done.is_ok() {
                    self.token += 1;
                    self.room -= needs;
                    self.pushed.push_back((token, seen(&these, readable)));
                }
            }
            Step::Refill(count) => {
                let fits = self.room.min(*count);
                let mut tokens = self.token..self.token + *count as u64;
                assert_eq!(refill(&mut self.b.ring, &mut tokens), fits);
                assert_eq!(tokens.count(), count - fits, "the others are still there");
                self.refilled(fits);
            }
            Step::RefillPanics(count) => {
                let first = self.token;
                let tokens = (first..).inspect(|token| {
                    if token - first == *count as u64 {
                        resume_unwind(Box::new("no more"));
                    }
                });
                let ring = &mut self.b.ring;
                let before = ring.in_flight();
                let pushed = catch_unwind(AssertUnwindSafe(|| refill(ring, tokens)));
                assert_eq!(pushed.is_err(), *count < self.room);
                let went = self.b.ring.in_flight() - before;
                assert!(went <= *count && pushed.is_ok() == (went == self.room));
                self.refilled(went);
            }
            Step::PushFront(count, panics) => {
                let (first, wanted) = (self.token, *count as u64);
                let mut tokens: Vec<_> = (first..first + wanted + 2).collect();
                let ring = &mut self.b.ring;
                let push = || {
                    ring.submit_front(&mut tokens, |token| {
                        let past = *token - first;
                        if past == wanted && *panics {
                            resume_unwind(Box::new("no more"));
                        }
                        (past < wanted).then(|| pieces(*token, 1)[0])
                    })
                };
                let pushed = catch_unwind(AssertUnwindSafe(push));
                // None is lost: what is not in the ring is in the list.
                let went = wanted as usize + 2 - tokens.len();
                self.token += went as u64;
                assert_eq!(tokens, (self.token..first + wanted + 2).collect::<Vec<_>>());
                let fits = self.room.min(*count);
                match pushed {
                    Ok(pushed) => assert_eq!((pushed, went), (fits, fits)),
                    Err(_) => assert!(*panics && *count < self.room && went <= fits),
                }
                self.room -= went;
                let readable = 1;
                self.pushed.extend(
                    (first..self.token).map(|token| (token, seen(&pieces(token, 1), readable))),
                );
            }
            Step::PushEmpty(count, readable, empty) => {
                let readable = *readable.min(count);
                let (token, mut these) = (self.token, pieces(self.token, *count));
                for (nth, piece) in these.iter_mut().enumerate() {
                    if empty >> nth & 1 != 0 {
                        piece.len = 0;
                    }
                }
                let mut wanted = seen(&these, readable);
                wanted.retain(|piece| piece.1 > 0);
                if wanted.is_empty() {
                    return;
                }
                let needs = self.b.ring.needs(wanted.len());
                let done = self.b.ring.submit(&these, readable, token);
                assert_eq!(done.is_ok(), needs <= self.room);
                if done.is_ok() {
                    self.token += 1;
                    self.room -= needs;
                    self.pushed.push_back((token, wanted));
                }
            }
            Step::Publish => {
                self.b.ring.publish();
                self.published.append(&mut self.pushed);
            }
            Step::Take(most) => {
                for _ in 0..*most {
                    let Some(chain) = self.b.queue.take(&self.b.memory) else {
                        break;
                    };
                    let (token, pieces) = self.published.pop_front().expect("a chain too many");
                    assert_eq!(chain.pieces, pieces);
                    self.taken.push_back((token, chain));
                }
            }
            Step::Give(which, len) => {
                if self.taken.is_empty() {
                    return;
                }
                let which = if self.in_order {
                    0
                } else {
                    which.index(self.taken.len())
                };
                let (token, chain) = self.taken.remove(which).unwrap();
                let len = *len.min(&chain.writable());
                self.b.give(&chain, len);
                self.given.push_back((token, len, chain.count.into()));
            }
            Step::GiveMany(which, len) => {
                if self.taken.is_empty() || !self.in_order {
                    return;
                }
                let many = 1 + which.index(self.taken.len());
                let (tokens, chains): (Vec<_>, Vec<_>) = self.taken.drain(..many).unzip();
                let len = *len.min(&chains[many - 1].writable());
                self.b.queue.give_up_to(&self.b.memory, &chains, len);
                for (nth, (token, chain)) in tokens.into_iter().zip(&chains).enumerate() {
                    let last = nth + 1 == many;
                    let written = if last { len } else { chain.writable() };
                    self.given.push_back((token, written, chain.count.into()));
                }
            }
            Step::Pop => {
                let given = self.given.pop_front();
                assert_eq!(self.b.pop(), given.map(|(token, len, _)| (token, len)));
                self.room += given.map_or(0, |given| given.2);
            }
            Step::PopEach(most) => {
                let mut got = Vec::new();
                let popped = pop_each(&mut self.b.ring, *most, |token, written| {
                    got.push((token, written))
                });
                assert_eq!(popped.unwrap(), got.len());
                // It may have seen fewer than there are, but not none.
                assert_eq!(got.is_empty(), *most == 0 || self.given.is_empty());
                for got in got {
                    let (token, len, count) = self.given.pop_front().expect("one too many");
                    assert_eq!(got, (token, len));
                    self.room += count;
                }
            }
            Step::PopEachPanics(at) => {
                let mut got = Vec::new();
                let ring = &mut self.b.ring;
                let popped = catch_unwind(AssertUnwindSafe(|| {
                    pop_each(ring, usize::MAX, |token, written| {
                        got.push((token, written));
                        if got.len() > *at {
                            resume_unwind(Box::new("enough"));
                        }
                    })
                }));
                assert_eq!(popped.is_err(), got.len() > *at);
                for got in got {
                    let (token, len, count) = self.given.pop_front().expect("one too many");
                    assert_eq!(got, (token, len));
                    self.room += count;
                }
            }
            Step::PopAll => {
                while !self.given.is_empty() {
                    self.step(&Step::Pop);
                }
                self.step(&Step::Pop);
            }
            Step::Scribble(..) | Step::Say(..) | Step::Arm(_) => unreachable!(),
        }
    }
}

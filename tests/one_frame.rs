//! What a program has that wants a packet and no batch: `alloc`, `send_one`, and a buffer's bytes as atomics.

mod fakes;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use fakes::e1000::FakeE1000;
use fakes::e1000e::FakeE1000e;
use fakes::lock;
use fakes::virtio::net::{FakeVirtioNet, MRG_RXBUF, PACKED, PLAIN};
use pinwire::backend::{Fake, FakeMemory};
use pinwire::dma::{DmaRegion, DmaSpace, Pool};
use pinwire::nic::{Frame, Nic, NicConfig, NotSent};
use pinwire::{Error, open};

const RING: usize = 8;
const CARDS: [&str; 4] = ["e1000", "e1000e", "split", "packed"];

/// What a test asks of a fake, whichever it is.
enum Device {
    E1000(Arc<Mutex<FakeE1000>>),
    E1000e(Arc<Mutex<FakeE1000e>>),
    Virtio(Arc<Mutex<FakeVirtioNet>>),
}

impl Device {
    fn sent(&self) -> Vec<Vec<u8>> {
        match self {
            Self::E1000(card) => lock(card).sent.clone(),
            Self::E1000e(card) => lock(card)
                .sent
                .iter()
                .map(|(_, sent)| sent.clone())
                .collect(),
            // Behind the header of virtio-net.
            Self::Virtio(card) => lock(card)
                .sent
                .iter()
                .map(|(_, sent)| sent[12..].to_vec())
                .collect(),
        }
    }

    /// It sends nothing until [`Device::send_all`].
    fn stand_still(&self) {
        match self {
            Self::E1000(card) => lock(card).eager = false,
            Self::E1000e(card) => lock(card).eager = false,
            Self::Virtio(card) => lock(card).works = false,
        }
    }

    fn send_all(&self, memory: &FakeMemory) {
        match self {
            Self::E1000(card) => drop(lock(card).step_tx(memory, RING)),
            Self::E1000e(card) => lock(card).step_tx(memory, 0),
            Self::Virtio(card) => lock(card).work(1, memory),
        }
    }

    fn receive(&self, memory: &FakeMemory, frame: &[u8]) {
        match self {
            Self::E1000(card) => {
                lock(card).inbox.push_back(frame.to_vec());
                lock(card).step_rx(memory);
            }
            Self::E1000e(card) => {
                lock(card).inbox[0].push_back(frame.to_vec());
                lock(card).step_rx(memory);
            }
            Self::Virtio(card) => assert!(lock(card).receive(memory, 0, [0; 12], frame)),
        }
    }
}

fn start(which: &str) -> (Box<dyn Nic>, Device, Arc<FakeMemory>) {
    let (fake, device) = match which {
        "e1000" => {
            let (fake, card) = FakeE1000::fake();
            (fake, Device::E1000(card))
        }
        "e1000e" => {
            let (fake, card) = FakeE1000e::fake();
            (fake, Device::E1000e(card))
        }
        _ => {
            let ring = if which == "packed" { PACKED } else { 0 };
            let (fake, card) = FakeVirtioNet::fake(PLAIN | MRG_RXBUF | ring);
            (fake, Device::Virtio(card))
        }
    };
    let memory = Arc::clone(fake.memory());
    let config = NicConfig::default().tx_ring(RING).rx_ring(2 * RING);
    let card = open::start(fake, &config).expect("a card that behaves starts");
    (card, device, memory)
}

/// A frame of 60 bytes, each of them `byte`, in a buffer of the card's.
fn frame(card: &mut dyn Nic, byte: u8) -> Frame {
    let mut buf = card.alloc(60).expect("a buffer");
    buf.put(0, &[byte; 60]);
    buf.into()
}

/// Sends frames numbered from 0 until one comes back; gives its number, and what came back.
fn fill(card: &mut dyn Nic) -> (u8, NotSent) {
    for byte in 0..=u8::MAX {
        let frame = frame(card, byte);
        if let Err(not_sent) = card.send_one(frame) {
            return (byte, not_sent);
        }
    }
    panic!("a ring of {RING} takes more than that");
}

#[test]
fn a_frame_is_sent_by_one_call() {
    for which in CARDS {
        let (mut card, device, _) = start(which);
        let frame = frame(&mut *card, 7);
        card.send_one(frame).expect("it is sent");
        assert_eq!(device.sent(), [[7; 60]], "{which}");
    }
}

#[test]
fn a_frame_that_finds_no_room_comes_back_and_goes_when_there_is_some() {
    for which in CARDS {
        let (mut card, device, memory) = start(which);
        device.stand_still();
        let (count, not_sent) = fill(&mut *card);
        assert!(usize::from(count) >= RING - 1, "{which}: only {count} went");
        assert!(
            matches!(not_sent.error, Error::RingFull { in_flight, .. } if in_flight == usize::from(count)),
            "{which}: {not_sent}"
        );
        let frame = not_sent.frame.expect("it did not go");
        assert_eq!(frame.to_vec(), [count; 60], "{which}");

        device.send_all(&memory);
        card.send_one(frame).expect("there is room now");
        device.send_all(&memory);
        let numbers: Vec<_> = device.sent().iter().map(|sent| sent[0]).collect();
        assert!(numbers.into_iter().eq(0..=count), "{which}");
    }
}

#[test]
fn a_frame_that_cannot_be_sent_comes_back() {
    for which in CARDS {
        let (mut card, device, _) = start(which);
        let pool = Pool::new(card.dma(), 1, 20_000).expect("memory");
        let mut buf = pool.alloc().expect("a buffer");
        buf.set_len(card.max_tx_frame() + 1);
        let not_sent = card.send_one(buf.into()).expect_err("it is too long");
        assert!(
            matches!(not_sent.error, Error::FrameLength { .. }),
            "{which}: {not_sent}"
        );
        drop(not_sent.frame.expect("it did not go"));
        assert!(pool.alloc().is_some(), "{which}: it went home");
        assert!(device.sent().is_empty(), "{which}");
    }
}

#[test]
fn a_stopped_card_gives_the_frame_back() {
    for which in CARDS {
        let (mut card, _, _) = start(which);
        let frame = frame(&mut *card, 7);
        card.stop().expect("it stops");
        let not_sent = card.send_one(frame).expect_err("it is stopped");
        assert!(
            matches!(not_sent.error, Error::Stopped { .. }),
            "{which}: {not_sent}"
        );
        assert_eq!(not_sent.frame.expect("it did not go").to_vec(), [7; 60]);
    }
}

#[test]
fn buffers_of_what_was_sent_go_home_with_the_next_frames() {
    for which in CARDS {
        let (mut card, device, _) = start(which);
        let buffers = card.rx_pool().count();
        for number in 0..4 * buffers {
            let frame = frame(&mut *card, number as u8);
            card.send_one(frame).expect("it is sent");
        }
        assert_eq!(device.sent().len(), 4 * buffers, "{which}");
    }
}

#[test]
fn half_of_the_pool_is_the_programs_and_then_it_says_that_all_are_out() {
    for which in CARDS {
        let (mut card, _, _) = start(which);
        let mut held = Vec::new();
        let error = loop {
            match card.alloc(60) {
                Ok(buf) => held.push(buf),
                Err(error) => break error,
            }
        };
        let count = card.rx_pool().count();
        assert!(
            held.len() >= count / 2,
            "{which}: {} of {count}",
            held.len()
        );
        assert!(
            matches!(error, Error::NoBuffer { count: all, .. } if all == count),
            "{which}: {error}"
        );
        held.pop();
        card.alloc(60).expect("one is home");

        // What is on its way out is the program's, too, and comes home when it has left.
        for buf in held {
            let sent = card.send_one(buf.into());
            sent.expect("there is room, and it is sent");
        }
        let held: Vec<_> = std::iter::from_fn(|| card.alloc(60).ok()).collect();
        assert!(
            held.len() >= count / 2,
            "{which}: {} of {count}",
            held.len()
        );
    }
}

#[test]
fn a_buffer_has_zeros_and_nothing_of_what_came_in_before() {
    for which in CARDS {
        let (mut card, device, memory) = start(which);
        let mut came = Vec::new();
        for _ in 0..4 * card.rx_pool().count() {
            device.receive(&memory, &[0xee; 60]);
            assert_eq!(card.recv(&mut came, 1).expect("it came"), 1, "{which}");
            came.clear();
        }
        let held: Vec<_> = std::iter::from_fn(|| card.alloc(60).ok()).collect();
        assert!(held.iter().all(|buf| buf.to_vec() == [0; 60]), "{which}");
    }
}

#[test]
fn a_buffer_longer_than_those_of_the_card_is_refused_with_their_length() {
    for which in CARDS {
        let (mut card, _, _) = start(which);
        let capacity = card.rx_pool().capacity();
        assert_eq!(card.alloc(capacity).expect("it fits").len(), capacity);
        let error = card.alloc(capacity + 1).expect_err("too long").to_string();
        let said = format!("those of {} have {capacity}\n", card.name());
        assert!(error.contains(&said), "{error}");
    }
}

#[test]
fn bytes_seen_as_atomics_are_those_that_the_device_sees() {
    let (mut card, device, _) = start("e1000");
    let mut buf = card.alloc(60).expect("a buffer");
    for (byte, value) in buf.atomic_bytes().iter().zip(0..) {
        byte.store(value, Relaxed);
    }
    card.send_one(buf.into()).expect("it is sent");
    assert!(device.sent()[0].iter().copied().eq(0..60));

    let memory = Arc::clone(Fake::new(Arc::new(Mutex::new(FakeE1000e::new())), 0x20000).memory());
    let dma: Arc<dyn DmaSpace> = memory.clone();
    let mut region = DmaRegion::alloc(&dma, 4096).expect("memory");
    memory.write(region.iova().0 + 7, &[1, 2, 3]);
    let bytes = region.atomic_bytes();
    assert_eq!(bytes.len(), 4096);
    assert_eq!([7, 8, 9].map(|at| bytes[at].load(Relaxed)), [1, 2, 3]);
    bytes[4095].store(4, Relaxed);
    let mut last = [0];
    memory.read(region.iova().0 + 4095, &mut last);
    assert_eq!(last, [4]);
}

#[test]
fn a_slice_of_a_file_has_no_bytes_to_be_seen() {
    use std::io::Write;
    let (card, _, _) = start("e1000");
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&[7; 100]).expect("room");
    let file = pinwire::dma::DmaFile::map(card.dma(), &file, 1).expect("it is mapped");
    let mut frame = Frame::from(file.slice(0, 100).expect("one"));
    assert!(frame.first_mut().atomic_bytes().is_none());
}

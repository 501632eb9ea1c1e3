//! Batches that a card sends, or receives.

use std::sync::{Arc, Mutex};

use pinwire::backend::{Fake, FakeDevice, FakeMemory};
use pinwire::dma::Pool;
use pinwire::mmio::Place;
use pinwire::nic::e1000e::E1000eConfig;
use pinwire::nic::{Frame, Nic, NicConfig, Received};
use pinwire::open;

use super::{BATCH, device_at_work};
use crate::fakes::e1000::FakeE1000;
use crate::fakes::e1000e::FakeE1000e;
use crate::fakes::virtio::net::{
    CSUM, EVENT_IDX, FakeVirtioNet, INDIRECT, MRG_RXBUF, PACKED, PLAIN, SIZE,
};

/// The [`Device`]'s demands on a fake.
trait FakeCard: FakeDevice {
    /// Forgets what was sent.
    fn forget(&mut self);

    /// These are to come in, and nothing else.
    fn set_inbox(&mut self, frames: impl Iterator<Item = Vec<u8>>);
}

impl FakeCard for FakeE1000 {
    fn forget(&mut self) {
        self.sent.clear();
    }

    fn set_inbox(&mut self, frames: impl Iterator<Item = Vec<u8>>) {
        self.inbox.clear();
        self.inbox.extend(frames);
    }
}

impl FakeCard for FakeE1000e {
    fn forget(&mut self) {
        self.sent.clear();
    }

    fn set_inbox(&mut self, frames: impl Iterator<Item = Vec<u8>>) {
        self.inbox[0].clear();
        self.inbox[0].extend(frames);
    }
}

/// The device, which forgets what it sent.
struct Device<M> {
    inner: M,
    /// Frames that come in whenever the driver gives buffers.
    incoming: usize,
}

impl<M: FakeCard> Device<M> {
    fn work<T>(&mut self, step: impl FnOnce(&mut M) -> T) -> T {
        device_at_work(|| {
            let result = step(&mut self.inner);
            self.inner.forget();
            result
        })
    }
}

impl<M: FakeCard> FakeDevice for Device<M> {
    fn read(&mut self, place: Place) -> u64 {
        self.work(|inner| inner.read(place))
    }

    fn write(&mut self, place: Place, value: u64, memory: &FakeMemory) {
        const RDT: usize = 0x2818;
        let incoming = self.incoming;
        self.work(|inner| {
            if place.offset == RDT {
                inner.set_inbox((0..incoming).map(|_| vec![7; 60]));
            }
            inner.write(place, value, memory);
        });
    }

    fn config(&mut self) -> &mut [u8; 256] {
        self.inner.config()
    }
}

/// The same with a virtio card.
struct VirtioDevice {
    card: FakeVirtioNet,
    incoming: usize,
}

impl FakeDevice for VirtioDevice {
    fn read(&mut self, place: Place) -> u64 {
        self.card.read(place)
    }

    fn write(&mut self, place: Place, value: u64, memory: &FakeMemory) {
        const DOORBELLS: usize = 0x3000;
        device_at_work(|| {
            self.card.write(place, value, memory);
            self.card.forget();
            // Queue 0: buffers to receive into.
            if place.offset >= DOORBELLS && value == 0 {
                for _ in 0..self.incoming {
                    self.card.receive(memory, 0, [0; 12], &[7; 60]);
                }
            }
        });
    }

    fn config(&mut self) -> &mut [u8; 256] {
        self.card.config()
    }
}

/// The cards, each of which gets `incoming` frames whenever it has buffers.
pub const CARDS: [&str; 5] = [
    "e1000",
    "e1000e",
    "e1000e, headers apart",
    "split",
    "packed",
];

/// The device, and how long its BAR is.
fn device(which: &str, incoming: usize) -> (Arc<Mutex<dyn FakeDevice>>, usize) {
    let ring = match which {
        "e1000" => {
            let inner = Arc::into_inner(FakeE1000::new(0x100e)).expect("nobody else has it");
            let inner = inner.into_inner().expect("nobody panicked with it");
            return (Arc::new(Mutex::new(Device { inner, incoming })), 0x20000);
        }
        "e1000e" | "e1000e, headers apart" => {
            let inner = FakeE1000e::new();
            return (Arc::new(Mutex::new(Device { inner, incoming })), 0x20000);
        }
        "split" => 0,
        _ => PACKED,
    };
    // With EVENT_IDX a card that has buffers left would not be told of more.
    let event_idx = if incoming > 0 { 0 } else { EVENT_IDX };
    let card = FakeVirtioNet::new(PLAIN | MRG_RXBUF | INDIRECT | CSUM | event_idx | ring);
    (Arc::new(Mutex::new(VirtioDevice { card, incoming })), SIZE)
}

fn start(which: &str, fake: Fake) -> Box<dyn Nic> {
    let apart = E1000eConfig::default().split_headers(which == "e1000e, headers apart");
    let config = NicConfig::default().driver(apart);
    open::start(fake, &config).expect("a card that behaves starts")
}

/// One of [`CARDS`].
pub fn card(which: &str, incoming: usize) -> Box<dyn Nic> {
    let (device, size) = device(which, incoming);
    start(which, Fake::new(device, size))
}

/// Two that reach the same memory.
pub fn two_cards([a, b]: [&str; 2], incoming: usize) -> [Box<dyn Nic>; 2] {
    let [(first, first_size), (second, second_size)] = [a, b].map(|which| device(which, incoming));
    let first = Fake::new(first, first_size);
    let second = Fake::beside(second, second_size, first.memory());
    [start(a, first), start(b, second)]
}

/// A frame of `length` bytes in a buffer of `pool`.
pub fn buffer(pool: &Pool, length: usize) -> Frame {
    let mut buf = pool.alloc().expect("a buffer");
    buf.fill(&vec![1; length]);
    Frame::from(buf)
}

/// A card that sends.
pub struct Sending {
    card: Box<dyn Nic>,
    ready: Vec<Frame>,
    done: Vec<Frame>,
}

impl Sending {
    /// One of [`CARDS`], and a batch of what `frame` makes.
    pub fn new(which: &str, frame: impl Fn(&Pool) -> Frame) -> Self {
        let card = card(which, 0);
        let pool = Pool::new(card.dma(), 2 * BATCH, 2048).expect("memory");
        Self {
            ready: (0..BATCH).map(|_| frame(&pool)).collect(),
            done: Vec::with_capacity(BATCH),
            card,
        }
    }

    /// As `pinwire bench tx`.
    #[inline(never)]
    pub fn batches(&mut self, batches: usize) {
        for _ in 0..batches {
            let nic = &mut self.card;
            nic.send(&mut self.ready).expect("frames that can be sent");
            nic.completed(&mut self.done)
                .expect("a device that tells the truth");
            assert_eq!((self.ready.len(), self.done.len()), (0, BATCH));
            std::mem::swap(&mut self.ready, &mut self.done);
        }
    }
}

/// A card that receives.
pub struct Receiving {
    card: Box<dyn Nic>,
    got: Vec<Received>,
}

impl Receiving {
    /// One of [`CARDS`].
    pub fn new(which: &str) -> Self {
        Self {
            card: card(which, BATCH),
            got: Vec::with_capacity(BATCH),
        }
    }

    /// As `pinwire bench rx`.
    #[inline(never)]
    pub fn batches(&mut self, batches: usize) {
        for _ in 0..batches {
            let came = self.card.recv(&mut self.got, BATCH);
            assert_eq!(came.expect("a device that tells the truth"), BATCH);
            // The buffers go back to their pool.
            self.got.clear();
        }
    }
}

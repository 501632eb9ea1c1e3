//! What a packet costs once all is set up: no allocation, counted here; and instructions, which
//! callgrind counts (see the last test).
#![cfg(feature = "net")]

mod fakes;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::{Arc, Mutex};

use fakes::e1000::FakeE1000;
use fakes::e1000e::FakeE1000e;
use fakes::virtio::net::{
    CSUM, EVENT_IDX, FakeVirtioNet, INDIRECT, MRG_RXBUF, PACKED, PLAIN, SIZE,
};
use pinwire::backend::{Fake, FakeDevice, FakeMemory};
use pinwire::dma::Pool;
use pinwire::mmio::Place;
use pinwire::net::{Forward, Rewrite, Side};
use pinwire::nic::{Frame, Mac, Nic, NicConfig, Offload, Received};
use pinwire::open;

/// The system's allocator; it counts what this thread allocates outside of the fake device.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static DEVICE_AT_WORK: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if !DEVICE_AT_WORK.get() {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    }
}

// SAFETY: all is left to `System`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's word.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's word.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's word.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's word.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` allocates.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

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

/// The device: what it allocates does not count, and what it sent is forgotten.
struct Device<M> {
    inner: M,
    /// Frames that come in whenever the driver gives buffers.
    incoming: usize,
}

impl<M: FakeCard> Device<M> {
    fn work<T>(&mut self, step: impl FnOnce(&mut M) -> T) -> T {
        DEVICE_AT_WORK.set(true);
        let result = step(&mut self.inner);
        self.inner.forget();
        DEVICE_AT_WORK.set(false);
        result
    }
}

impl<M: FakeCard> FakeDevice for Device<M> {
    fn read(&mut self, place: Place) -> u32 {
        self.work(|inner| inner.read(place))
    }

    fn write(&mut self, place: Place, value: u32, memory: &FakeMemory) {
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
    fn read(&mut self, place: Place) -> u32 {
        self.card.read(place)
    }

    fn write(&mut self, place: Place, value: u32, memory: &FakeMemory) {
        const DOORBELLS: usize = 0x3000;
        DEVICE_AT_WORK.set(true);
        self.card.write(place, value, memory);
        self.card.forget();
        // Queue 0: buffers to receive into.
        if place.offset >= DOORBELLS && value == 0 {
            for _ in 0..self.incoming {
                self.card.receive(memory, 0, [0; 12], &[7; 60]);
            }
        }
        DEVICE_AT_WORK.set(false);
    }

    fn config(&mut self) -> &mut [u8; 256] {
        self.card.config()
    }
}

/// The cards, each of which gets `incoming` frames whenever it has buffers.
const CARDS: [&str; 5] = [
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
    let config = NicConfig {
        split_headers: which == "e1000e, headers apart",
        ..NicConfig::default()
    };
    open::start(fake, &config).expect("a card that behaves starts")
}

fn card(which: &str, incoming: usize) -> Box<dyn Nic> {
    let (device, size) = device(which, incoming);
    start(which, Fake::new(device, size))
}

/// Two that reach the same memory.
fn two_cards([a, b]: [&str; 2], incoming: usize) -> [Box<dyn Nic>; 2] {
    let [(first, first_size), (second, second_size)] = [a, b].map(|which| device(which, incoming));
    let first = Fake::new(first, first_size);
    let second = Fake::beside(second, second_size, first.memory());
    [start(a, first), start(b, second)]
}

const BATCH: usize = 64;

/// As `pinwire bench tx`.
#[inline(never)]
fn send_batches(nic: &mut dyn Nic, ready: &mut Vec<Frame>, done: &mut Vec<Frame>, batches: usize) {
    for _ in 0..batches {
        nic.send(ready).expect("frames that can be sent");
        nic.reap(done).expect("a device that tells the truth");
        assert_eq!((ready.len(), done.len()), (0, BATCH));
        std::mem::swap(ready, done);
    }
}

/// As `pinwire bench rx`.
#[inline(never)]
fn receive_batches(nic: &mut dyn Nic, got: &mut Vec<Received>, batches: usize) {
    for _ in 0..batches {
        let came = nic.recv(got, BATCH).expect("a device that tells the truth");
        assert_eq!(came, BATCH);
        // The buffers go back to their pool.
        got.clear();
    }
}

fn sending_allocates_nothing(frame: impl Fn(&Pool) -> Frame) {
    for which in CARDS {
        let mut card = card(which, 0);
        let pool = Pool::new(card.dma(), 2 * BATCH, 2048).expect("memory");
        let mut ready: Vec<Frame> = (0..BATCH).map(|_| frame(&pool)).collect();
        let mut done = Vec::with_capacity(BATCH);
        let mut send = |batches| send_batches(&mut *card, &mut ready, &mut done, batches);
        send(10);
        assert_eq!(allocations(|| send(1000)), 0, "{which}");
    }
}

fn buffer(pool: &Pool, length: usize) -> Frame {
    let mut buf = pool.take().expect("a buffer");
    buf.fill(&vec![1; length]);
    Frame::from(buf)
}

#[test]
fn allocations_are_counted() {
    assert_eq!(allocations(|| drop(Box::new(1))), 1);
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
        let mut card = card(which, BATCH);
        let mut got = Vec::with_capacity(BATCH);
        receive_batches(&mut *card, &mut got, 10);
        let allocated = allocations(|| receive_batches(&mut *card, &mut got, 1000));
        assert_eq!(allocated, 0, "{which}");
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

/// Counts the instructions of 640 000 packets each way, without what the device does; for sending over
/// a split queue:
///
/// ```text
/// cargo test --release --test steady_state --no-run
/// valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*_batches*' \
///     --toggle-collect='*Device*write*' target/release/deps/steady_state-... --ignored sending_split
/// ```
mod instructions {
    use super::*;

    fn sending(which: &str) {
        let mut card = card(which, 0);
        let pool = Pool::new(card.dma(), BATCH, 2048).expect("memory");
        let mut ready: Vec<Frame> = (0..BATCH).map(|_| buffer(&pool, 64)).collect();
        let mut done = Vec::with_capacity(BATCH);
        send_batches(&mut *card, &mut ready, &mut done, 10_000);
    }

    fn receiving(which: &str) {
        let mut got = Vec::with_capacity(BATCH);
        receive_batches(&mut *card(which, BATCH), &mut got, 10_000);
    }

    #[test]
    #[ignore = "for callgrind"]
    fn sending_e1000() {
        sending("e1000");
    }

    #[test]
    #[ignore = "for callgrind"]
    fn sending_split() {
        sending("split");
    }

    #[test]
    #[ignore = "for callgrind"]
    fn sending_packed() {
        sending("packed");
    }

    #[test]
    #[ignore = "for callgrind"]
    fn receiving_e1000() {
        receiving("e1000");
    }

    #[test]
    #[ignore = "for callgrind"]
    fn receiving_split() {
        receiving("split");
    }

    #[test]
    #[ignore = "for callgrind"]
    fn receiving_packed() {
        receiving("packed");
    }
}

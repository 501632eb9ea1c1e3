//! What a packet costs once all is set up: no allocation, counted here; and instructions, which
//! callgrind counts (see the last test).

mod model;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::{Arc, Mutex};

use model::Model;
use pinwire::backend::{Fake, FakeDevice, FakeMemory};
use pinwire::dma::{Frame, Offload, Pool};
use pinwire::nic::{Nic, NicConfig, Received, e1000::E1000};

/// The system's allocator; it counts what this thread allocates while nobody plays the device.
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

/// The device: what it allocates does not count, and what it sent is forgotten.
struct Device {
    model: Model,
    /// Frames that come in whenever the driver gives buffers.
    incoming: usize,
}

impl Device {
    fn play<T>(&mut self, play: impl FnOnce(&mut Model) -> T) -> T {
        DEVICE_AT_WORK.set(true);
        let result = play(&mut self.model);
        self.model.sent.clear();
        DEVICE_AT_WORK.set(false);
        result
    }
}

impl FakeDevice for Device {
    fn read32(&mut self, offset: usize) -> u32 {
        self.play(|model| model.read32(offset))
    }

    fn write32(&mut self, offset: usize, value: u32, memory: &FakeMemory) {
        const RDT: usize = 0x2818;
        let incoming = self.incoming;
        self.play(|model| {
            if offset == RDT {
                model.inbox.clear();
                model.inbox.extend((0..incoming).map(|_| vec![7; 60]));
            }
            model.write32(offset, value, memory);
        });
    }

    fn config(&mut self) -> &mut [u8; 256] {
        self.model.config()
    }
}

/// A card to whom `incoming` frames come whenever it has buffers.
fn card(incoming: usize) -> E1000<Fake> {
    let model = Arc::into_inner(Model::new(0x100e)).expect("nobody else has it");
    let model = model.into_inner().expect("nobody panicked with it");
    let device = Device { model, incoming };
    let fake = Fake::new(Arc::new(Mutex::new(device)), 0x20000);
    E1000::start(fake, &NicConfig::default()).expect("a card that behaves starts")
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
    let mut card = card(0);
    let pool = Pool::new(card.dma(), 2 * BATCH, 2048).expect("memory");
    let mut ready: Vec<Frame> = (0..BATCH).map(|_| frame(&pool)).collect();
    let mut done = Vec::with_capacity(BATCH);
    let mut send = |batches| send_batches(&mut card, &mut ready, &mut done, batches);
    send(10);
    assert_eq!(allocations(|| send(1000)), 0);
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
    let mut card = card(BATCH);
    let mut got = Vec::with_capacity(BATCH);
    receive_batches(&mut card, &mut got, 10);
    assert_eq!(
        allocations(|| receive_batches(&mut card, &mut got, 1000)),
        0
    );
}

/// Counts the instructions of 640 000 packets each way, without what the device does; for `sending`:
///
/// ```text
/// cargo test --release --test steady_state --no-run
/// valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*_batches*' \
///     --toggle-collect='*Device*write32*' target/release/deps/steady_state-... --ignored sending
/// ```
mod instructions {
    use super::*;

    #[test]
    #[ignore = "for callgrind"]
    fn sending() {
        let mut card = card(0);
        let pool = Pool::new(card.dma(), BATCH, 2048).expect("memory");
        let mut ready: Vec<Frame> = (0..BATCH).map(|_| buffer(&pool, 64)).collect();
        send_batches(
            &mut card,
            &mut ready,
            &mut Vec::with_capacity(BATCH),
            10_000,
        );
    }

    #[test]
    #[ignore = "for callgrind"]
    fn receiving() {
        let mut got = Vec::with_capacity(BATCH);
        receive_batches(&mut card(BATCH), &mut got, 10_000);
    }
}

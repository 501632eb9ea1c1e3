//! What a packet costs a virtqueue: no allocation, counted here; and instructions, which callgrind
//! counts (see the last module).

mod fakes;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::{Arc, Mutex};

use fakes::virtio::NoDevice;
use fakes::virtio::queue::{Agreed, Queue};
use pinwire::backend::{Backend, Fake, FakeMemory};
use pinwire::dma::Pool;
use pinwire::nic::Frame;
use pinwire::virtio::{Packed, Piece, Ring, RingConfig, Split};

/// The system's allocator; it counts what this thread allocates outside of the fake device.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static DEVICE_AT_WORK: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: all is left to `System`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !DEVICE_AT_WORK.get() {
            ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        }
        // SAFETY: the caller's word.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's word.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BATCH: usize = 64;
const SIZE: u16 = 256;

/// The device: it uses all there is at once.
struct Device {
    queue: Queue,
    memory: Arc<FakeMemory>,
    in_order: bool,
}

impl Device {
    #[inline(never)]
    fn work(&mut self) {
        DEVICE_AT_WORK.set(true);
        let mut chains = Vec::new();
        while let Some(chain) = self.queue.take(&self.memory) {
            chains.push(chain);
        }
        if self.in_order {
            self.queue.give_up_to(&self.memory, &chains, 0);
        } else {
            for chain in &chains {
                self.queue.give(&self.memory, chain, 0);
            }
        }
        self.queue.must_interrupt(&self.memory);
        self.queue.ask(&self.memory);
        DEVICE_AT_WORK.set(false);
    }
}

struct Bench<R> {
    ring: R,
    device: Device,
    frames: Vec<Frame>,
    // The frames' memory.
    _pool: Pool,
}

fn bench<R: Ring<Frame>>(packed: bool, in_order: bool) -> Bench<R> {
    let fake = Fake::new(Arc::new(Mutex::new(NoDevice([0; 256]))), 4096);
    let config = RingConfig {
        device: "fake".to_owned(),
        index: 0,
        size: SIZE,
        event_idx: true,
        indirect: true,
        in_order,
        notification_data: false,
    };
    let ring = R::new(fake.dma(), &config).expect("memory");
    let areas = ring.areas();
    let agreed = Agreed {
        packed,
        event_idx: true,
        indirect: true,
        in_order,
    };
    let (desc, driver, device) = (areas.descriptors.0, areas.driver.0, areas.device.0);
    let pool = Pool::new(fake.dma(), BATCH, 2048).expect("memory");
    let frames = (0..BATCH).map(|_| {
        let mut buf = pool.take().expect("a buffer");
        buf.fill(&[1; 64]);
        Frame::from(buf)
    });
    Bench {
        ring,
        device: Device {
            queue: Queue::new(SIZE, desc, driver, device, agreed),
            memory: Arc::clone(fake.memory()),
            in_order,
        },
        frames: frames.collect(),
        _pool: pool,
    }
}

/// Sends all frames there and back, `batches` times, all at once.
#[inline(never)]
fn whole_batches<R: Ring<Frame>>(bench: &mut Bench<R>, batches: usize) {
    for _ in 0..batches {
        let chains = bench.frames.drain(..).map(|frame| {
            let segment = frame.first();
            let piece = Piece {
                iova: segment.iova(),
                len: segment.len() as u32,
            };
            (piece, frame)
        });
        assert_eq!(bench.ring.push_each(false, chains), BATCH);
        assert!(bench.ring.publish().is_some(), "the device asked");
        bench.device.work();
        let frames = &mut bench.frames;
        let popped = bench.ring.pop_each(BATCH, |used| frames.push(used.token));
        assert_eq!(popped.expect("a device that tells the truth"), BATCH);
    }
}

/// Sends all frames there and back, `batches` times, each as a chain of `pieces`.
#[inline(never)]
fn single_batches<R: Ring<Frame>>(bench: &mut Bench<R>, pieces: usize, batches: usize) {
    for _ in 0..batches {
        for frame in bench.frames.drain(..) {
            let segment = frame.first();
            let piece = Piece {
                iova: segment.iova(),
                len: segment.len() as u32,
            };
            let pushed = match pieces {
                1 => bench.ring.push(&[piece], 1, frame),
                _ => bench.ring.push(&[piece; 8][..pieces], 1, frame),
            };
            pushed.expect("room");
        }
        assert!(bench.ring.publish().is_some(), "the device asked");
        bench.device.work();
        while let Some(used) = bench.ring.pop().expect("a device that tells the truth") {
            bench.frames.push(used.token);
        }
        assert_eq!(bench.frames.len(), BATCH);
    }
}

fn a_packet_allocates_nothing<R: Ring<Frame>>(packed: bool) {
    for (pieces, in_order) in [(1, false), (1, true), (2, false), (4, false), (4, true)] {
        let mut bench = bench::<R>(packed, in_order);
        single_batches(&mut bench, pieces, 2);
        let before = ALLOCATIONS.get();
        single_batches(&mut bench, pieces, 300);
        whole_batches(&mut bench, 300);
        assert_eq!(ALLOCATIONS.get() - before, 0, "{pieces} pieces");
    }
}

#[test]
fn a_packet_allocates_nothing_split() {
    a_packet_allocates_nothing::<Split<Frame>>(false);
}

#[test]
fn a_packet_allocates_nothing_packed() {
    a_packet_allocates_nothing::<Packed<Frame>>(true);
}

#[test]
fn allocations_are_counted() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

/// Counts the instructions of 64 000 packets, without what the device does; for one of the tests:
///
/// ```text
/// cargo test --release --test virtqueue_cost --no-run
/// valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*_batches*' \
///     --toggle-collect='*Device*work*' target/release/deps/virtqueue_cost-... --ignored split_all
/// ```
mod instructions {
    use super::*;

    #[test]
    #[ignore = "for callgrind"]
    fn split_one_by_one() {
        single_batches(&mut bench::<Split<Frame>>(false, false), 1, 1000);
    }

    #[test]
    #[ignore = "for callgrind"]
    fn packed_one_by_one() {
        single_batches(&mut bench::<Packed<Frame>>(true, false), 1, 1000);
    }

    #[test]
    #[ignore = "for callgrind"]
    fn split_all_at_once() {
        whole_batches(&mut bench::<Split<Frame>>(false, false), 1000);
    }

    #[test]
    #[ignore = "for callgrind"]
    fn packed_all_at_once() {
        whole_batches(&mut bench::<Packed<Frame>>(true, false), 1000);
    }
}

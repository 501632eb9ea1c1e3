//! The loop that sends, through the driver, to a fake device.
#![cfg(feature = "net")]

mod fakes;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fakes::e1000::{FakeE1000, Lie};
use fakes::lock;
use pinwire::backend::{Fake, FakeMemory};
use pinwire::dma::Pool;
use pinwire::net::{
    CopySource, CpuBytes, FileSource, Limit, Manner, NOBODY, Next, Pace, Progress, Source,
    SyntheticSource, UdpFlow, resolve, transmit,
};
use pinwire::nic::e1000::E1000;
use pinwire::nic::{Frame, Mac, Nic, NicConfig};
use pinwire::{Error, Result};

/// Counts what the current thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const RING: usize = 8;
static NEVER: AtomicBool = AtomicBool::new(false);
const FAST: Manner<'static> = Manner {
    pace: Pace::Max,
    batch: 5,
    stop: &NEVER,
    announce: |_, _| {},
};

/// A card with rings of [`RING`] descriptors.
fn card() -> (E1000<Fake>, Arc<Mutex<FakeE1000>>, Arc<FakeMemory>) {
    let (fake, device) = FakeE1000::fake();
    let memory = Arc::clone(fake.memory());
    let config = NicConfig::default().tx_ring(RING).rx_ring(RING);
    (E1000::start(fake, &config).unwrap(), device, memory)
}

fn synthetic(nic: &dyn Nic, left: u64) -> Limit<SyntheticSource> {
    Limit {
        inner: SyntheticSource::new(nic, NOBODY, 64, 20).unwrap(),
        left,
    }
}

/// The numbers of the frames that the device sent.
fn numbers(device: &Mutex<FakeE1000>) -> Vec<u64> {
    let sent = std::mem::take(&mut lock(device).sent);
    let number = |frame: Vec<u8>| u64::from_be_bytes(frame[14..22].try_into().unwrap());
    sent.into_iter().map(number).collect()
}

/// Runs `body` while the device works in a thread of its own, a descriptor or two at a time.
fn with_slow_device<T>(
    device: &Mutex<FakeE1000>,
    memory: &FakeMemory,
    body: impl FnOnce() -> T,
) -> T {
    // Two threads that poll are enough for a small machine.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    lock(device).eager = false;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for step in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                if lock(device).step_tx(memory, 1 + step % 2) == 0 {
                    std::thread::sleep(Duration::from_micros(20));
                }
            }
        });
        let result = catch_unwind(AssertUnwindSafe(body));
        over.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[test]
fn every_frame_leaves_once_and_in_order() {
    let (mut card, device, memory) = card();
    for slow in [false, true] {
        let progress = Progress::default();
        let mut source = synthetic(&card, 500);
        let mut send = || transmit(&mut card, &mut source, FAST, &progress);
        match slow {
            false => send().unwrap(),
            true => with_slow_device(&device, &memory, send).unwrap(),
        }
        assert!(numbers(&device).into_iter().eq(0..500), "slow: {slow}");
        assert_eq!((progress.frames(), progress.bytes()), (500, 32_000));
        assert_eq!(card.in_flight(), 0);
    }
}

#[test]
fn the_loop_allocates_nothing_per_frame() {
    let (mut card, device, memory) = card();
    let mut allocations = |frames: u64| {
        let mut source = synthetic(&card, frames);
        let count = with_slow_device(&device, &memory, || {
            let before = ALLOCATIONS.get();
            transmit(&mut card, &mut source, FAST, &Progress::default()).unwrap();
            ALLOCATIONS.get() - before
        });
        assert_eq!(numbers(&device).len() as u64, frames);
        count
    };
    let (few, many) = (allocations(100), allocations(2000));
    assert_eq!(few, many);
    assert!(few < 10, "{few}");
}

#[test]
fn a_device_that_never_reports_is_an_error_within_a_bound() {
    let (mut card, device, _) = card();
    lock(&device).lie = Lie::Silent;
    for pace in [Pace::Max, Pace::PerSecond(2.0)] {
        let begin = Instant::now();
        let manner = Manner { pace, ..FAST };
        let mut source = synthetic(&card, 100);
        let sent = transmit(&mut card, &mut source, manner, &Progress::default());
        assert!(matches!(sent, Err(Error::Timeout { .. })), "{sent:?}");
        let took = begin.elapsed();
        assert!((1..6).contains(&took.as_secs()), "{took:?}");
    }
}

#[test]
fn a_device_that_goes_while_sending_is_gone() {
    let (mut card, device, memory) = card();
    let progress = Progress::default();
    let mut source = synthetic(&card, u64::MAX);
    lock(&device).eager = false;
    let begin = Instant::now();
    let sent = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100 {
                lock(&device).step_tx(&memory, RING);
                std::thread::sleep(Duration::from_millis(1));
            }
            lock(&device).lie = Lie::Gone;
        });
        transmit(&mut card, &mut source, FAST, &progress)
    });
    assert!(matches!(sent, Err(Error::DeviceGone(_))), "{sent:?}");
    assert!(begin.elapsed() < Duration::from_secs(6));
    assert!(progress.frames() > 0);
}

#[test]
fn stopping_lets_what_was_handed_over_leave() {
    let (mut card, device, memory) = card();
    let (progress, stop) = (Progress::default(), AtomicBool::new(false));
    let manner = Manner {
        stop: &stop,
        ..FAST
    };
    let mut source = synthetic(&card, u64::MAX);
    let sent = std::thread::scope(|scope| {
        scope.spawn(|| {
            while progress.frames() < 50 {
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
        });
        with_slow_device(&device, &memory, || {
            transmit(&mut card, &mut source, manner, &progress)
        })
    });
    assert!(matches!(sent, Err(Error::Interrupted)), "{sent:?}");
    assert_eq!(card.in_flight(), 0);
    assert_eq!(numbers(&device).len() as u64, progress.frames());
}

/// Frames of these lengths, then an error.
struct Broken {
    pool: Pool,
    lengths: Vec<usize>,
}

impl Source for Broken {
    fn next(&mut self, _spent: Option<Frame>) -> Result<Next> {
        if self.lengths.is_empty() {
            return Err(Error::Usage("the source broke".to_owned()));
        }
        let Some(mut buf) = self.pool.alloc() else {
            return Ok(Next::Wait);
        };
        buf.fill(&vec![7; self.lengths.remove(0)]);
        Ok(Next::Frame(buf.into()))
    }

    fn by_cpu(&self) -> CpuBytes {
        CpuBytes::default()
    }
}

#[test]
fn what_came_before_an_error_leaves() {
    let (mut card, device, _) = card();
    for (lengths, says) in [
        (vec![60; 13], "the source broke"),
        (vec![60, 60, 60, 5, 60, 60], "a frame of 5 bytes"),
    ] {
        let good = lengths.iter().take_while(|len| **len == 60).count();
        let pool = Pool::new(card.dma(), 3, 64).unwrap();
        let progress = Progress::default();
        let sent = transmit(&mut card, &mut Broken { pool, lengths }, FAST, &progress);
        let error = sent.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert_eq!(lock(&device).sent.len(), good);
        assert_eq!(progress.frames(), good as u64);
        lock(&device).sent.clear();
    }
}

fn flow(source_mac: Mac) -> UdpFlow {
    UdpFlow {
        source_mac,
        destination_mac: NOBODY,
        source: "10.0.0.1:1".parse().unwrap(),
        destination: "10.0.0.2:2".parse().unwrap(),
    }
}

#[test]
fn a_file_leaves_whole_with_fewer_buffers_than_descriptors() {
    let (mut card, device, memory) = card();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let content: Vec<u8> = (0..10_000u32).map(|at| (at * at / 8) as u8).collect();
    file.write_all(&content).unwrap();
    let flow = flow(card.mac());
    let named = (file.as_file(), file.path());
    let mut source = FileSource::new(&card, named, 0..10_000, flow, 333, 2).unwrap();
    let progress = Progress::default();
    with_slow_device(&device, &memory, || {
        transmit(&mut card, &mut source, FAST, &progress)
    })
    .unwrap();
    let sent = std::mem::take(&mut lock(&device).sent);
    assert_eq!(sent.len(), 10_000usize.div_ceil(333));
    let payloads: Vec<u8> = sent
        .iter()
        .flat_map(|frame| &frame[42..])
        .copied()
        .collect();
    let (payloads, padding) = payloads.split_at(content.len());
    assert!(payloads == content);
    // Of the last frame, of which 10 bytes were left.
    assert_eq!(padding, [0; 60 - 42 - 10]);
    assert_eq!(source.by_cpu().payload, 0);
    source.check_length().unwrap();
    file.as_file().set_len(9999).unwrap();
    let error = source.check_length().unwrap_err().to_string();
    assert!(error.contains("from 10000 to 9999"), "{error}");
}

#[test]
fn broadcast_and_multicast_need_not_be_asked_for() {
    let (mut card, device, _) = card();
    let ours = Ipv4Addr::new(10, 0, 0, 1);
    let mut of = |address: [u8; 4]| resolve(&mut card, ours, address.into(), &NEVER).unwrap();
    assert_eq!(of([255; 4]), Mac::BROADCAST);
    assert_eq!(of([239, 129, 2, 3]), Mac([0x01, 0, 0x5e, 1, 2, 3]));
    assert!(lock(&device).sent.is_empty());
}

#[test]
fn a_file_whose_length_is_made_up_ends_a_copy() {
    let (card, _model, _memory) = card();
    // The kernel says one page, whatever there is.
    let path = std::path::Path::new("/sys/devices/system/cpu/online");
    let file = std::fs::File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    assert_eq!(len, 4096);
    let mut source =
        CopySource::new(&card, (&file, path), 0..len, flow(card.mac()), 1000, 4).unwrap();
    let error = source.next(None).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    for words in ["/sys/devices", "4096 bytes", "cp"] {
        assert!(error.to_string().contains(words), "{error}");
    }
}

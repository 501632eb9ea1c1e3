//! What several threads do with one pool, one file, one card: run by ThreadSanitizer, too (`qemu/tsan`).

mod common;
mod fakes;

use std::io::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use fakes::e1000e::FakeE1000e;
use pinwire::backend::{Fake, FakeMemory};
use pinwire::dma::{DmaBuf, DmaFile, DmaSpace, Pool};
use pinwire::nic::{Frame, Nic, NicConfig};
use pinwire::open;

const ROUNDS: u32 = 2000;

/// A card over memory that the test has, too.
fn card(queues: usize) -> (Box<dyn Nic>, Arc<FakeMemory>, Arc<Mutex<FakeE1000e>>) {
    let mut pcie = FakeE1000e::new();
    pcie.msix = true;
    let device = Arc::new(Mutex::new(pcie));
    let fake = Fake::new(device.clone(), 0x20000);
    let memory = Arc::clone(fake.memory());
    let config = NicConfig::default().queues(queues);
    let card = open::start(fake, &config).expect("a card that behaves starts");
    (card, memory, device)
}

fn dma() -> Arc<dyn DmaSpace> {
    card(1).0.dma().clone()
}

fn number(buf: &DmaBuf) -> u32 {
    u32::from_le_bytes(buf.array(0).expect("four bytes"))
}

/// Each owner writes its buffer, passes it on, and the next reads what was written: whoever gets it by way
/// of the pool finds nothing half done.
#[test]
fn buffers_go_from_thread_to_thread_and_home() {
    let pool = Pool::new(&dma(), 8, 64).unwrap();
    let (to_reader, buffers) = channel::<DmaBuf>();
    let (to_dropper, read) = channel::<DmaBuf>();
    thread::scope(|scope| {
        scope.spawn(move || {
            for (expected, mut buf) in (0..ROUNDS).zip(buffers) {
                assert_eq!(number(&buf), expected);
                buf.put(0, &u32::MAX.to_le_bytes());
                if expected % 2 == 0 {
                    to_dropper.send(buf).unwrap();
                }
            }
        });
        scope.spawn(move || {
            read.into_iter()
                .for_each(|buf| assert_eq!(number(&buf), u32::MAX))
        });
        for round in 0..ROUNDS {
            let mut buf = std::iter::repeat_with(|| pool.alloc())
                .find_map(|buf| buf)
                .unwrap();
            buf.fill(&round.to_le_bytes());
            to_reader.send(buf).unwrap();
        }
        drop(to_reader);
    });
    let home: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!(home.len(), 8);
}

/// A buffer's bytes as atomics are many threads', and what they wrote is there when the view has ended.
#[test]
fn a_buffer_seen_as_atomics_is_written_by_threads_at_once() {
    let pool = Pool::new(&dma(), 1, 64).unwrap();
    let mut buf = pool.alloc().unwrap();
    buf.set_len(64);
    buf.zero();
    let bytes = buf.atomic_bytes();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    for byte in bytes {
                        byte.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(buf.to_vec(), [(2 * ROUNDS) as u8; 64]);
}

/// Whoever is last frees the memory: the pool, or one of the threads that have its buffers.
#[test]
fn the_last_owner_on_whatever_thread_frees_the_memory() {
    let (_card, memory, _) = card(1);
    let dma: Arc<dyn DmaSpace> = memory.clone();
    let before = memory.mappings();
    for round in 0..ROUNDS / 10 {
        let pool = Pool::new(&dma, 4, 64).unwrap();
        let bufs: Vec<DmaBuf> = std::iter::from_fn(|| pool.alloc()).collect();
        thread::scope(|scope| {
            for (nth, mut buf) in bufs.into_iter().enumerate() {
                scope.spawn(move || {
                    buf.fill(&round.to_le_bytes());
                    match nth {
                        0 if round % 3 == 0 => buf.quarantine(),
                        _ => drop(buf),
                    }
                });
            }
            drop(pool);
        });
        assert_eq!(memory.mappings(), before, "round {round}");
    }
}

#[test]
fn slices_of_a_file_are_dropped_on_other_threads() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 8192]).unwrap();
    let mapped = DmaFile::map(&dma(), &file, 16).unwrap();
    let (send, slices) = channel();
    thread::scope(|scope| {
        scope.spawn(move || slices.into_iter().for_each(drop));
        for round in 0..u64::from(ROUNDS) {
            let slice = || mapped.slice(round % 4096, 100);
            send.send(
                std::iter::repeat_with(slice)
                    .find_map(|slice| slice)
                    .unwrap(),
            )
            .unwrap();
        }
        drop(send);
    });
}

/// A thread a pair, each with frames of a pool of its own; what comes in on one goes out on the other.
#[test]
fn pairs_of_one_card_work_on_threads_of_their_own() {
    let (mut card, memory, device) = card(2);
    let dma = card.dma().clone();
    let came = fakes::lock(&device).inbox.each_mut().map(|inbox| {
        inbox.extend((0..40).map(|nth| vec![nth; 64]));
        inbox.len()
    });
    fakes::lock(&device).step_rx(&memory);
    let [first, second] = &mut card.split()[..] else {
        panic!("two pairs")
    };
    let (to_second, from_first) = channel::<Frame>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut got = Vec::new();
            while got.len() < came[0] {
                first.recv(&mut got, 8).unwrap();
            }
            for received in got.drain(..) {
                to_second.send(received.frame).unwrap();
            }
        });
        scope.spawn(move || {
            let pool = Pool::new(&dma, 64, 2048).unwrap();
            let (mut done, mut sent) = (Vec::new(), 0);
            for frame in from_first {
                let mut own = pool.alloc().unwrap();
                own.fill(&[1; 64]);
                let mut frames = vec![frame, own.into()];
                while !frames.is_empty() {
                    sent += second.send(&mut frames).unwrap();
                    second.completed(&mut done).unwrap();
                    done.clear();
                }
            }
            assert_eq!(sent, 2 * came[0]);
        });
    });
}

/// The card interrupts from a thread of its own while the pair falls asleep and wakes up.
#[test]
fn an_interrupt_from_another_thread_wakes_the_pair() {
    let (mut card, memory, device) = card(1);
    for nth in 0..50 {
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut device = fakes::lock(&device);
                device.inbox[0].push_back(vec![nth; 64]);
                device.step_rx(&memory);
            });
            let mut got = Vec::new();
            while got.is_empty() {
                card.wait(std::time::Duration::from_secs(10)).unwrap();
                card.recv(&mut got, 8).unwrap();
            }
        });
    }
}

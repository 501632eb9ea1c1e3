//! The NVMe driver against a controller of our own: one that behaves in every order, and one that lies.

mod fakes;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fakes::lock;
use fakes::nvme::{BLOCKS, FakeNvme, Lie};
use pinwire::Error;
use pinwire::backend::{Fake, FakeMemory};
use pinwire::block::nvme::Nvme;
use pinwire::block::{Completed, Disk, DiskConfig, Reason, Request};
use pinwire::dma::Pool;
use pinwire::nic::Waiting;
use proptest::prelude::*;

struct Bench {
    disk: Nvme<Fake>,
    device: Arc<Mutex<FakeNvme>>,
    memory: Arc<FakeMemory>,
    pool: Pool,
}

fn config() -> DiskConfig {
    DiskConfig::default().waiting(Waiting::Poll)
}

fn start(
    device: FakeNvme,
    config: &DiskConfig,
) -> (Arc<Mutex<FakeNvme>>, pinwire::Result<Nvme<Fake>>) {
    let device = Arc::new(Mutex::new(device));
    let fake = Fake::new(device.clone(), 0x4000);
    (device.clone(), Nvme::start(fake, config))
}

fn bench(config: &DiskConfig) -> Bench {
    let device = Arc::new(Mutex::new(FakeNvme::new()));
    let fake = Fake::new(device.clone(), 0x4000);
    let memory = Arc::clone(fake.memory());
    let disk = Nvme::start(fake, config).expect("a controller that behaves starts");
    let pool = Pool::pages(disk.dma(), 300, 4096).expect("memory");
    Bench {
        disk,
        device,
        memory,
        pool,
    }
}

impl Bench {
    fn read(&self, lba: u64) -> Request {
        let mut buf = self.pool.alloc().expect("a buffer");
        buf.set_len(4096);
        Request::read(lba, buf)
    }

    fn block(&self, lba: u64) -> Vec<u8> {
        lock(&self.device).blocks[lba as usize * 512..][..4096].to_vec()
    }

    /// Submits and rings; the controller has done it then.
    fn submit(&mut self, mut requests: Vec<Request>) {
        let queue = self.disk.queue_mut(0);
        queue.submit(&mut requests).expect("good ones");
        assert!(requests.is_empty());
        queue.doorbell().expect("it runs");
    }

    fn completed(&mut self) -> pinwire::Result<Vec<Completed>> {
        let mut done = Vec::new();
        self.disk.queue_mut(0).completed(&mut done, usize::MAX)?;
        Ok(done)
    }

    /// Nothing was complained of on either side.
    fn check(&self) {
        assert_eq!(self.memory.faults(), []);
        assert_eq!(lock(&self.device).complaints, [""; 0]);
    }
}

#[test]
fn each_request_comes_back_with_its_blocks() {
    let mut b = bench(&config());
    for round in 0..10 {
        let requests = (0..100).map(|nth| b.read(nth * 8 + round).tagged(nth));
        let requests = requests.collect();
        b.submit(requests);
        let done = b.completed().unwrap();
        assert_eq!(done.len(), 100);
        for one in done {
            let lba = one.request.tag * 8 + round;
            let data = one.succeeded().unwrap().into_data().unwrap();
            assert!(data.to_vec() == b.block(lba), "block {lba}");
        }
    }
    b.check();
}

/// A breach: the error says so, nothing more comes out, nothing that was in flight is lost, and after a restart the
/// disk works.
fn breaks(lie: Lie, words: &str) {
    let mut b = bench(&config());
    lock(&b.device).lie = lie;
    let requests = (0..4).map(|nth| b.read(nth)).collect();
    b.submit(requests);
    let begin = Instant::now();
    let mut done = Vec::new();
    let queue = b.disk.queue_mut(0);
    let error = queue.completed(&mut done, usize::MAX).unwrap_err();
    assert!(
        matches!(error, Error::ProtocolViolation { .. }),
        "{lie:?}: {error}"
    );
    assert!(error.to_string().contains(words), "{lie:?}: {error}");
    // The same again, whichever way is asked.
    let came = done.len();
    for error in [
        queue.completed(&mut done, 1).unwrap_err(),
        queue.submit(&mut Vec::new()).unwrap_err(),
        queue.doorbell().unwrap_err(),
        queue.wait(Duration::from_millis(1)).unwrap_err(),
    ] {
        assert!(
            matches!(error, Error::ProtocolViolation { .. }),
            "{lie:?}: {error}"
        );
    }
    assert_eq!(done.len(), came);
    lock(&b.device).lie = Lie::None;
    let lost = b.disk.restart().unwrap();
    assert_eq!(lost.len() + came, 4, "{lie:?}");
    b.submit(lost);
    for one in b.completed().unwrap() {
        one.succeeded().unwrap();
    }
    assert!(begin.elapsed() < Duration::from_secs(5));
    b.check();
}

#[test]
fn a_completion_of_no_command_breaks_the_queue() {
    breaks(
        Lie::Cid(100),
        "completed command 100, which is not in flight",
    );
    breaks(Lie::Cid(0xffff), "completed command 65535");
    breaks(Lie::Twice, "which is not in flight");
}

#[test]
fn a_completion_of_another_queue_breaks_it() {
    breaks(Lie::Queue(2), "completed a command of queue 2 on queue 1");
    breaks(Lie::Queue(0), "of queue 0 on queue 1");
}

#[test]
fn a_head_beyond_what_was_submitted_breaks_the_queue() {
    breaks(Lie::Head(5), "is at command 5");
    breaks(Lie::Head(0xffff), "is at command 65535");
    // Back again, after the first had said 4.
    breaks(Lie::Head(128), "is at command 128");
}

#[test]
fn a_failure_is_the_requests_own() {
    for (status, reason, is_final) in [
        (0x4080, Reason::OutOfRange, true),
        (0x0281, Reason::Medium, false),
        (0x0007, Reason::Aborted, false),
        (0x07ff, Reason::Other, false),
    ] {
        let mut b = bench(&config());
        lock(&b.device).lie = Lie::Status(status);
        let request = b.read(0);
        b.submit(vec![request]);
        let failure = b.completed().unwrap().remove(0).status.unwrap_err();
        assert_eq!((failure.reason, failure.is_final), (reason, is_final));
        // Others go on.
        lock(&b.device).lie = Lie::None;
        let request = b.read(0);
        b.submit(vec![request]);
        b.completed().unwrap().remove(0).succeeded().unwrap();
    }
}

#[test]
fn one_that_cannot_be_started_says_why_and_leaves_nothing() {
    for (lie, words) in [
        (Lie::NeverReady, "getting ready"),
        (Lie::FailsAtOnce, "CSTS.CFS"),
        (Lie::Gone, "gone"),
        (Lie::Lists(2), "lists a namespace 2"),
        (Lie::Lists(u32::MAX), "lists a namespace 4294967295"),
    ] {
        let mut device = FakeNvme::new();
        device.lie = lie;
        let device = Arc::new(Mutex::new(device));
        let fake = Fake::new(device.clone(), 0x4000);
        let memory = Arc::clone(fake.memory());
        let begin = Instant::now();
        let error = Nvme::start(fake, &config())
            .err()
            .expect("it lies")
            .to_string();
        assert!(error.contains(words), "{lie:?}: {error}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{lie:?}");
        assert_eq!(memory.mappings(), 0, "{lie:?}");
        assert_eq!(lock(&device).complaints, [""; 0]);
    }
}

#[test]
fn namespaces_that_cannot_be_used_are_left_out() {
    for lie in [
        Lie::Format(8, 9),
        Lie::Format(0, 3),
        Lie::Format(0, 200),
        Lie::Blocks(u64::MAX),
        Lie::Blocks(0),
    ] {
        let mut device = FakeNvme::new();
        device.lie = lie;
        let (_device, disk) = start(device, &config());
        assert_eq!(disk.unwrap().namespaces(), [], "{lie:?}");
    }
}

#[test]
fn identify_of_nonsense_is_an_error_or_a_disk() {
    for byte in [0, 1, 0x7f, 0xff] {
        let mut device = FakeNvme::new();
        device.lie = Lie::Nonsense(byte);
        let (_device, disk) = start(device, &config());
        if let Ok(disk) = disk {
            assert!(disk.limits().max_transfer > 0);
        }
    }
}

#[test]
fn a_bar_that_is_too_short_is_refused() {
    for size in [0x800, 0x1000, 0x1008] {
        let device = Arc::new(Mutex::new(FakeNvme::new()));
        let error = Nvme::start(Fake::new(device, size), &config()).err();
        let error = error.expect("too short").to_string();
        assert!(error.contains("BAR 0"), "{size:#x}: {error}");
    }
}

#[test]
fn memory_of_one_that_does_not_stop_is_nobody_elses_again() {
    let mut b = bench(&config());
    lock(&b.device).lie = Lie::Silent;
    let requests = (0..4).map(|nth| b.read(nth)).collect();
    b.submit(requests);
    lock(&b.device).lie = Lie::NeverStops;
    let error = b.disk.stop().unwrap_err().to_string();
    assert!(error.contains("stopping (CSTS.RDY)"), "{error}");
    let Bench {
        disk, pool, memory, ..
    } = b;
    let space = Arc::clone(disk.dma());
    drop((disk, pool));
    // All is cut off, and its addresses are not given out again.
    assert_eq!(memory.mappings(), 0);
    let first = Pool::pages(&space, 1, 4096).unwrap().mapping().iova;
    assert!(first.0 > 0x1000 * 300, "{first}");
}

#[test]
fn many_queues_do_not_meet() {
    let mut b = bench(&config().queues(4));
    assert_eq!(b.disk.queues(), 4);
    let mut requests: Vec<Vec<Request>> = (0..4u64)
        .map(|queue| {
            (0..20)
                .map(|nth| b.read(queue * 200 + nth).tagged(queue))
                .collect()
        })
        .collect();
    std::thread::scope(|scope| {
        for (queue, requests) in b.disk.split().into_iter().zip(&mut requests) {
            scope.spawn(move || {
                let mut done = Vec::new();
                queue.submit(requests).unwrap();
                queue.doorbell().unwrap();
                while done.len() < 20 {
                    queue.completed(&mut done, 64).unwrap();
                }
                let first = done[0].request.tag;
                assert!(done.iter().all(|one| one.request.tag == first));
            });
        }
    });
    let error = start(FakeNvme::new(), &config().queues(9)).1.err().unwrap();
    assert!(error.to_string().contains("9 queues: it has 8"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any length of queue, batches of any size, completions in any order: each comes back once, with its own blocks.
    #[test]
    fn nothing_is_lost_and_nothing_mixed_up(
        depth in prop_oneof![1usize..8, 8usize..70, Just(255usize)],
        out_of_order: bool,
        batches in prop::collection::vec((0usize..40, 0usize..50), 1..60),
    ) {
        let mut b = bench(&config().depth(depth));
        if out_of_order {
            lock(&b.device).lie = Lie::OutOfOrder;
        }
        let mut next = 0u64;
        let mut expected: std::collections::BTreeSet<u64> = Default::default();
        for (count, most) in batches {
            let mut requests = Vec::new();
            for _ in 0..count.min(250 - expected.len()) {
                requests.push(b.read(next % (BLOCKS - 8)).tagged(next));
                next += 1;
            }
            let (first, all) = (next - requests.len() as u64, requests.len());
            let queue = b.disk.queue_mut(0);
            let room = queue.depth() - queue.in_flight();
            let went = queue.submit(&mut requests).unwrap();
            prop_assert_eq!(went, all.min(room));
            expected.extend(first..first + went as u64);
            queue.doorbell().unwrap();
            let mut done = Vec::new();
            let came = queue.completed(&mut done, most).unwrap();
            prop_assert_eq!(came, done.len());
            prop_assert!(came <= most);
            prop_assert_eq!(queue.in_flight(), expected.len() - came);
            for one in done {
                let tag = one.request.tag;
                prop_assert!(expected.remove(&tag), "{} came twice", tag);
                let data = one.succeeded().unwrap().into_data().unwrap();
                prop_assert!(data.to_vec() == b.block(tag % (BLOCKS - 8)));
            }
        }
        b.check();
    }
}

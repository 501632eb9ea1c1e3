//! Disks over QEMU's models on this host. The image is a file, which this test writes and reads by itself: what the
//! disk's driver says is held against that.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use common::require_qemu;
use pinwire::Error;
use pinwire::block::{Completed, Disk, DiskConfig, Reason, Request};
use pinwire::dma::{Chain, DmaBuf, Pool};
use pinwire::nic::Waiting;
use pinwire::open::Drivers;

const BOUND: Duration = Duration::from_secs(20);
const BYTES: u64 = 8 << 20;

/// An image of which each block of 512 bytes says its number, and the disk that has it.
struct Bench {
    disk: Box<dyn Disk>,
    pool: Pool,
    image: tempfile::NamedTempFile,
}

fn pattern(lba: u64) -> [u8; 512] {
    std::array::from_fn(|at| (lba as usize * 7 + at / 8) as u8 ^ at as u8)
}

impl Bench {
    fn start(options: &str, config: &DiskConfig) -> Self {
        let image = tempfile::NamedTempFile::new().expect("an image");
        for lba in 0..BYTES / 512 {
            let file = image.as_file();
            file.write_all_at(&pattern(lba), lba * 512).expect("room");
        }
        let path = image.path().to_str().expect("text");
        let spec = format!("qtest:nvme,drive={path}{options}");
        let disk = Drivers::default().open_disk(&spec.parse().expect("a spec"), config, None);
        let disk = disk.unwrap_or_else(|error| panic!("{error}"));
        let pool = Pool::pages(disk.dma(), 64, 128 << 10).expect("memory");
        Self { disk, pool, image }
    }

    fn buf(&self, len: usize) -> DmaBuf {
        let mut buf = self.pool.alloc().expect("a buffer");
        buf.set_len(len);
        buf.zero();
        buf
    }

    /// Submits all, and waits for all.
    fn run(&mut self, mut requests: Vec<Request>) -> Result<Vec<Completed>, Error> {
        let (mut done, all) = (Vec::new(), requests.len());
        let begin = Instant::now();
        let queue = self.disk.queue_mut(0);
        while done.len() < all {
            queue.submit(&mut requests)?;
            queue.doorbell()?;
            if queue.completed(&mut done, 32)? == 0 {
                queue.wait(Duration::from_secs(1))?;
            }
            assert!(
                begin.elapsed() < BOUND,
                "{} of {all} were completed",
                done.len()
            );
        }
        Ok(done)
    }

    fn one(&mut self, request: Request) -> Completed {
        self.run(vec![request])
            .expect("a request that can be")
            .remove(0)
    }

    /// Blocks of the image, read by itself.
    fn image(&self, lba: u64, blocks: usize) -> Vec<u8> {
        let mut bytes = vec![0; blocks * 512];
        let file = File::open(self.image.path()).expect("the image");
        file.read_exact_at(&mut bytes, lba * 512).expect("inside");
        bytes
    }
}

fn data(done: Completed) -> Vec<u8> {
    let request = done.succeeded().expect("it succeeds");
    request.into_data().expect("its memory").to_vec()
}

fn on_each_wait(body: impl Fn(&mut Bench)) {
    if !require_qemu() {
        return;
    }
    for waiting in [Waiting::Poll, Waiting::Interrupt] {
        body(&mut Bench::start(
            "",
            &DiskConfig::default().waiting(waiting),
        ));
    }
}

#[test]
fn what_is_read_is_what_the_image_holds() {
    on_each_wait(|b| {
        // One page, two, a list of them, and from within a page.
        for (lba, len) in [(0, 512), (3, 4096), (9, 8192), (100, 128 << 10)] {
            let buf = b.buf(len);
            let read = data(b.one(Request::read(lba, buf)));
            assert!(read == b.image(lba, len / 512), "{len} bytes from {lba}");
        }
    });
}

#[test]
fn what_is_written_is_in_the_image_and_nothing_else_changes() {
    on_each_wait(|b| {
        let before = b.image(0, (BYTES / 512) as usize);
        let mut buf = b.buf(64 << 10);
        let bytes: Vec<u8> = (0..64 << 10).map(|at| (at / 3) as u8).collect();
        buf.put(0, &bytes);
        data(b.one(Request::write(1000, buf)));
        b.one(Request::flush()).succeeded().unwrap();
        let mut after = before;
        after[512_000..][..64 << 10].copy_from_slice(&bytes);
        assert!(b.image(0, (BYTES / 512) as usize) == after);
    });
}

#[test]
fn a_chain_of_pages_is_read_in_order() {
    on_each_wait(|b| {
        let mut chain = Chain::from(b.buf(128 << 10));
        chain.append(b.buf(4096));
        chain.append(b.buf(512));
        let done = b.one(Request::read(5, chain));
        let bytes: Vec<u8> = done
            .succeeded()
            .unwrap()
            .into_data()
            .unwrap()
            .into_segments()
            .flat_map(|segment| Chain::from(segment).to_vec())
            .collect();
        assert!(bytes == b.image(5, 256 + 8 + 1));
    });
}

#[test]
fn many_at_once_come_back_each_with_its_own() {
    on_each_wait(|b| {
        let mut requests = Vec::new();
        for nth in 0..60 {
            requests.push(Request::read(nth * 37, b.buf(4096)).tagged(nth));
        }
        // More than one round of the queue.
        for round in 0..8 {
            let done = b.run(std::mem::take(&mut requests)).unwrap();
            assert_eq!(done.len(), 60);
            for one in done {
                let tag = one.request.tag;
                let request = one.succeeded().unwrap();
                let bytes = request.data().unwrap().to_vec();
                assert!(
                    bytes == b.image(tag * 37, 8),
                    "round {round}, request {tag}"
                );
                requests.push(request);
            }
        }
    });
}

#[test]
fn what_the_disk_can_besides() {
    on_each_wait(|b| {
        let limits = *b.disk.limits();
        assert!(limits.write_zeroes && limits.discard && limits.compare);
        // Compare.
        let mut buf = b.buf(512);
        buf.put(0, &pattern(7));
        b.one(Request::compare(7, buf)).succeeded().unwrap();
        let buf = b.buf(512);
        let failure = b.one(Request::compare(7, buf)).status.unwrap_err();
        assert_eq!(failure.reason, Reason::Differs);
        // Zeroes.
        b.one(Request::write_zeroes(10, 20)).succeeded().unwrap();
        assert!(b.image(10, 20).iter().all(|byte| *byte == 0));
        assert_eq!(b.image(9, 1), pattern(9));
        assert_eq!(b.image(30, 1), pattern(30));
        // A hint.
        b.one(Request::discard(2000, 16)).succeeded().unwrap();
        assert_eq!(b.image(1999, 1), pattern(1999));
        assert_eq!(b.image(2016, 1), pattern(2016));
        if limits.copy > 0 {
            b.one(Request::copy(40, 4, 3000)).succeeded().unwrap();
            assert_eq!(b.image(3000, 4), b.image(40, 4));
            assert_eq!(b.image(3004, 1), pattern(3004));
        }
    });
}

#[test]
fn what_cannot_be_is_refused_before_the_disk_sees_it() {
    on_each_wait(|b| {
        let blocks = BYTES / 512;
        let other = Bench::start("", &DiskConfig::default());
        let refused: [(Request, &str); 8] = [
            (
                Request::read(blocks, b.buf(512)),
                "it has blocks 0 to 16383",
            ),
            (
                Request::read(blocks - 1, b.buf(1024)),
                "it has blocks 0 to 16383",
            ),
            (
                Request::read(u64::MAX, b.buf(512)),
                "it has blocks 0 to 16383",
            ),
            (
                Request::read(0, b.buf(100)),
                "100 bytes are no whole blocks of 512",
            ),
            (Request::read(0, b.buf(0)), "0 blocks at once"),
            (Request::write_zeroes(0, 70_000), "70000 blocks at once"),
            (
                Request::read(0, b.buf(512)).on(9),
                "there is no namespace 9",
            ),
            (Request::read(0, other.buf(512)), "another address space"),
        ];
        for (request, words) in refused {
            let mut good = Request::read(1, b.buf(512));
            good.tag = 77;
            let mut batch = vec![good, request];
            let queue = b.disk.queue_mut(0);
            let error = queue.submit(&mut batch).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
            // It is still there, and the one before it went.
            assert_eq!((batch.len(), queue.in_flight()), (1, 1));
            let done = b.run(Vec::new()).map(|_| ());
            done.unwrap();
            let mut done = Vec::new();
            let queue = b.disk.queue_mut(0);
            queue.doorbell().unwrap();
            while queue.completed(&mut done, 8).unwrap() == 0 {
                queue.wait(Duration::from_secs(1)).unwrap();
            }
            assert_eq!(done[0].request.tag, 77);
        }
    });
}

#[test]
fn a_disk_is_what_it_was_started_as() {
    if !require_qemu() {
        return;
    }
    let options = ",serial=abc,logical_block_size=4096,physical_block_size=4096";
    let mut b = Bench::start(options, &DiskConfig::default().depth(7));
    assert!(
        b.disk.model().contains("QEMU NVMe Ctrl, abc"),
        "{}",
        b.disk.model()
    );
    let namespace = b.disk.namespaces()[0].clone();
    assert_eq!((namespace.block_size, namespace.bytes()), (4096, BYTES));
    assert_eq!(b.disk.queue(0).depth(), 7);
    let buf = b.buf(8192);
    assert!(data(b.one(Request::read(2, buf))) == b.image(16, 16));
}

#[test]
fn stopped_it_does_nothing_and_started_again_it_works() {
    on_each_wait(|b| {
        let mut batch = vec![Request::read(1, b.buf(512))];
        b.disk.queue_mut(0).submit(&mut batch).unwrap();
        b.disk.stop().unwrap();
        let queue = b.disk.queue_mut(0);
        for error in [
            queue.doorbell().unwrap_err(),
            queue.submit(&mut batch).unwrap_err(),
            queue.completed(&mut Vec::new(), 1).unwrap_err(),
            queue.wait(Duration::from_millis(1)).unwrap_err(),
        ] {
            assert!(matches!(error, Error::Stopped { .. }), "{error}");
        }
        let lost = b.disk.restart().unwrap();
        assert_eq!(lost.len(), 1);
        for request in lost {
            assert_eq!(data(b.one(request)), pattern(1));
        }
    });
}

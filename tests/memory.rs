//! Memory that a device can reach, and who owns it: what a card that does not stop had is never given to
//! anybody else, and what belongs to another address space is refused.

mod common;
mod fakes;

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fakes::e1000::FakeE1000;
use fakes::e1000e::FakeE1000e;
use fakes::virtio::net::{FakeVirtioNet, INDIRECT, MRG_RXBUF, PACKED, PLAIN, SIZE};
use pinwire::backend::{Backend, Fake, FakeDevice, FakeMemory};
use pinwire::dma::{Chain, DmaArray, DmaFile, DmaRegion, DmaSpace, Iova, Pool};
use pinwire::inspect::Owner;
use pinwire::mmio::Place;
use pinwire::nic::e1000e::E1000eConfig;
use pinwire::nic::{Frame, Nic, NicConfig, Offload};
use pinwire::{Error, open};

const CARDS: [&str; 5] = [
    "e1000",
    "e1000e",
    "e1000e, headers apart",
    "split",
    "packed",
];

/// A card that hears nothing any more once it is deaf: no doorbell, no reset. Its memory accesses are the
/// test's.
struct Deaf {
    card: Box<dyn FakeDevice>,
    is_intel: bool,
    is_deaf: bool,
}

impl FakeDevice for Deaf {
    fn read(&mut self, place: Place) -> u64 {
        /// CTRL.RST of Intel's cards: the reset goes on.
        const RST: u64 = 1 << 26;
        let value = self.card.read(place);
        match self.is_deaf && self.is_intel && place.offset == 0 {
            true => value | RST,
            false => value,
        }
    }

    fn write(&mut self, place: Place, value: u64, memory: &FakeMemory) {
        if !self.is_deaf {
            self.card.write(place, value, memory);
        }
    }

    fn config(&mut self) -> &mut [u8; 256] {
        self.card.config()
    }
}

/// [`FakeE1000`] and the like are shared with the test elsewhere.
struct Shared<T>(Arc<Mutex<T>>);

impl<T: FakeDevice> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: FakeDevice> FakeDevice for Shared<T> {
    fn read(&mut self, place: Place) -> u64 {
        self.lock().read(place)
    }

    fn write(&mut self, place: Place, value: u64, memory: &FakeMemory) {
        self.lock().write(place, value, memory);
    }

    fn config(&mut self) -> &mut [u8; 256] {
        let config: *mut [u8; 256] = self.lock().config();
        // SAFETY: the fake device lives as long as we do, and its lock is taken by our own calls only.
        unsafe { &mut *config }
    }
}

fn device(which: &str) -> (Deaf, usize) {
    let (card, size): (Box<dyn FakeDevice>, _) = match which {
        "e1000" => (Box::new(Shared(FakeE1000::new(0x100e))), 0x20000),
        "e1000e" | "e1000e, headers apart" => (Box::new(FakeE1000e::new()), 0x20000),
        _ => {
            let ring = if which == "packed" { PACKED } else { 0 };
            (
                Box::new(FakeVirtioNet::new(PLAIN | MRG_RXBUF | INDIRECT | ring)),
                SIZE,
            )
        }
    };
    let is_intel = which.starts_with("e1000");
    (
        Deaf {
            card,
            is_intel,
            is_deaf: false,
        },
        size,
    )
}

struct Bench {
    device: Arc<Mutex<Deaf>>,
    memory: Arc<FakeMemory>,
    card: Box<dyn Nic>,
}

impl Bench {
    fn new(which: &str) -> Self {
        let (device, size) = device(which);
        let device = Arc::new(Mutex::new(device));
        let fake = Fake::new(device.clone(), size);
        let memory = Arc::clone(fake.memory());
        let apart = E1000eConfig::default().split_headers(which == "e1000e, headers apart");
        let config = NicConfig::default().tx_ring(64).rx_ring(64).driver(apart);
        let card = open::start(fake, &config).expect("a card that behaves starts");
        Self {
            device,
            memory,
            card,
        }
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.memory.clone()
    }
}

fn frame(pool: &Pool) -> Frame {
    let mut buf = pool.alloc().expect("a buffer is at hand");
    buf.fill(&[0x5a; 64]);
    buf.into()
}

fn file(bytes: usize) -> File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(&vec![0x77; bytes]).expect("room for it");
    file
}

/// Descriptors and buffers that the card may have fetched before it went deaf.
fn within_reach(card: &dyn Nic) -> Vec<Iova> {
    let slots = card.rings().into_iter().flat_map(|ring| ring.slots);
    let with_device = slots.filter(|slot| slot.owner == Owner::Device);
    let each = with_device.flat_map(|slot| {
        let buffer = slot.buffer.map(|(iova, _, _)| iova);
        [Some(slot.iova), buffer]
    });
    each.flatten().collect()
}

#[test]
fn what_a_card_that_does_not_stop_had_is_never_given_to_anybody_else() {
    for which in CARDS {
        let Bench {
            device,
            memory,
            mut card,
        } = Bench::new(which);
        let dma: Arc<dyn DmaSpace> = memory.clone();
        let pool = Pool::new(&dma, 64, 2048).expect("memory");
        let in_file = DmaFile::map(&dma, &file(4096), 8).expect("memory");
        device.lock().unwrap().is_deaf = true;
        let mut frames: Vec<Frame> = (0..8).map(|_| frame(&pool)).collect();
        frames[7].append(in_file.slice(0, 100).expect("a slice"));
        assert_eq!(card.send(&mut frames).unwrap(), 8, "{which}");
        let reach = within_reach(&*card);
        assert!(reach.len() > 64 + 8, "{which}: {} places", reach.len());

        // Everything goes; only the address space lives on.
        drop((card, pool, in_file));
        assert_eq!(memory.mappings(), 0, "{which}: cut off, so freed");
        let others: Vec<_> = (0..32)
            .map(|_| Pool::new(&dma, 64, 2048).unwrap())
            .collect();
        for iova in reach {
            assert!(
                !memory.write(iova.0, &[0xee; 16]),
                "{which}: {iova} is somebody else's now"
            );
        }
        drop(others);
    }
}

/// The pool is the program's: it works on, without the buffers that the card may have.
#[test]
fn buffers_of_a_card_that_does_not_stop_do_not_come_back() {
    for which in CARDS {
        let Bench {
            device,
            memory,
            mut card,
        } = Bench::new(which);
        let dma: Arc<dyn DmaSpace> = memory.clone();
        let pool = Pool::new(&dma, 16, 2048).expect("memory");
        device.lock().unwrap().is_deaf = true;
        let mut frames: Vec<Frame> = (0..5).map(|_| frame(&pool)).collect();
        let gone: Vec<Iova> = frames.iter().map(|frame| frame.first().iova()).collect();
        card.send(&mut frames).unwrap();
        drop(card);
        for _ in 0..3 {
            let all: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
            assert_eq!(all.len(), 11, "{which}");
            assert!(!all.iter().any(|buf| gone.contains(&buf.iova())), "{which}");
        }
        assert_eq!(memory.mappings(), 1, "{which}: the pool's");
        drop(pool);
        assert_eq!(memory.mappings(), 0, "{which}");
        let next = DmaRegion::alloc(&dma, 4096).unwrap();
        assert!(!gone.contains(&next.iova()), "{which}");
    }
}

/// All ones in config space are a claim like any other.
#[test]
fn what_a_card_could_write_that_only_says_it_is_gone_is_never_given_to_anybody_else() {
    for which in CARDS {
        let Bench {
            device,
            memory,
            mut card,
        } = Bench::new(which);
        let dma: Arc<dyn DmaSpace> = memory.clone();
        let pool = Pool::new(&dma, 16, 2048).expect("memory");
        device.lock().unwrap().is_deaf = true;
        let mut frames: Vec<Frame> = (0..5).map(|_| frame(&pool)).collect();
        card.send(&mut frames).unwrap();
        let rings = card.rings();
        let slots = rings
            .iter()
            .filter(|ring| ring.name == "receive")
            .flat_map(|ring| &ring.slots);
        let buffers = slots.filter_map(|slot| slot.buffer);
        let own: Vec<Iova> = buffers
            .map(|(iova, ..)| iova)
            .chain(rings.iter().map(|ring| ring.slots[0].iova))
            .collect();
        device.lock().unwrap().config().fill(0xff);
        drop(card);
        let home: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        assert_eq!(
            home.len(),
            16,
            "{which}: what it could only read comes home"
        );
        let others: Vec<_> = (0..32)
            .map(|_| Pool::new(&dma, 64, 2048).unwrap())
            .collect();
        for iova in own {
            assert!(
                !memory.write(iova.0, &[0xee; 16]),
                "{which}: {iova} is somebody else's now"
            );
        }
        drop(others);
    }
}

#[test]
fn addresses_of_a_card_that_stops_are_used_again() {
    for which in CARDS {
        let Bench { memory, card, .. } = Bench::new(which);
        let dma: Arc<dyn DmaSpace> = memory.clone();
        drop(card);
        let lowest = DmaRegion::alloc(&dma, 1 << 20).unwrap().iova();
        assert_eq!(
            lowest,
            Iova(0x1000),
            "{which}: nothing is lost where all is well"
        );
    }
}

#[test]
fn a_frame_of_another_address_space_is_refused_wherever_it_lies() {
    for which in CARDS {
        let mut ours = Bench::new(which);
        let theirs = Bench::new(which);
        let (pool, other) = (
            Pool::new(&ours.dma(), 16, 2048),
            Pool::new(&theirs.dma(), 16, 2048),
        );
        let (pool, other) = (pool.unwrap(), other.unwrap());
        let file = DmaFile::map(&theirs.dma(), &file(4096), 8).unwrap();
        let whole = || frame(&other);
        let behind = || {
            let mut frame = frame(&pool);
            frame.append(
                other
                    .alloc()
                    .map(|mut buf| {
                        buf.fill(&[1; 60]);
                        buf
                    })
                    .unwrap(),
            );
            frame
        };
        let from_file = || {
            let mut frame = frame(&pool);
            frame.append(file.slice(0, 60).unwrap());
            frame
        };
        let with_work = || {
            let mut frame = frame(&other);
            frame.set_offload(Offload {
                l2_len: 14,
                l3_len: 20,
                l4_len: 8,
                ..Offload::UDP4
            });
            frame
        };
        let foreign: [&dyn Fn() -> Frame; 4] = [&whole, &behind, &from_file, &with_work];
        for (nth, foreign) in foreign.into_iter().enumerate() {
            let mut frames = vec![frame(&pool), foreign(), frame(&pool)];
            let error = ours.card.send(&mut frames).unwrap_err();
            assert!(
                matches!(error, Error::ForeignMemory { .. }),
                "{which}, {nth}: {error}"
            );
            assert_eq!(frames.len(), 2, "{which}, {nth}: those before it went");
            let mut done = Vec::new();
            ours.card.completed(&mut done).unwrap();
            assert_eq!(ours.memory.faults(), [], "{which}, {nth}");
        }
        let mut frames = vec![frame(&pool), frame(&pool)];
        assert_eq!(
            ours.card.send(&mut frames).unwrap(),
            2,
            "{which}: it goes on"
        );
    }
}

#[test]
fn cards_in_one_space_send_each_others_frames() {
    let ours = Bench::new("e1000");
    let (device, size) = device("split");
    let beside = Fake::beside(Arc::new(Mutex::new(device)), size, &ours.memory);
    let mut other = open::start(beside, &NicConfig::default()).unwrap();
    let pool = Pool::new(ours.card.dma(), 4, 2048).unwrap();
    assert_eq!(other.send(&mut vec![frame(&pool)]).unwrap(), 1);
}

#[test]
fn more_than_there_are_addresses_is_an_error_and_not_a_wrapped_length() {
    let ours = Bench::new("e1000");
    let dma = ours.dma();
    for len in [
        usize::MAX,
        usize::MAX - 4095,
        isize::MAX as usize,
        isize::MAX as usize - 4095,
    ] {
        assert!(dma.alloc(len).is_err(), "{len:#x}");
        assert!(dma.map_file(&file(1), 0, len).is_err(), "{len:#x}");
        assert!(DmaRegion::alloc(&dma, len).is_err(), "{len:#x}");
        assert!(
            DmaArray::<std::sync::atomic::AtomicU64>::alloc(&dma, len).is_err(),
            "{len:#x}"
        );
        assert!(Pool::new(&dma, 1, len).is_err(), "{len:#x}");
    }
}

/// A card that says that it has so many address lines.
fn with_lines(lines: u32) -> (Fake, pinwire::Result<()>) {
    let (fake, _) = FakeE1000::fake();
    let limited = fake.limit_dma(lines);
    (fake, limited)
}

#[test]
fn what_a_device_of_few_address_lines_is_given_it_reaches() {
    const MIB: usize = 1 << 20;
    let (fake, limited) = with_lines(24);
    limited.unwrap();
    let memory = DmaRegion::alloc(fake.dma(), 10 * MIB).unwrap();
    // A file's page cache, too.
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[1; 4096]).unwrap();
    file.set_len(10 * MIB as u64).unwrap();
    let part = DmaFile::map_part(fake.dma(), &file, (0, 4 * MIB as u64), 1).unwrap();
    let slice = part.slice(0, 4 * MIB).unwrap();
    let ends = [
        memory.iova().0 + 10 * MIB as u64,
        slice.iova().0 + 4 * MIB as u64,
    ];
    assert!(ends.iter().all(|end| *end <= 1 << 24), "{ends:x?}");
    // There is room beyond, which is nobody's.
    for error in [
        DmaRegion::alloc(fake.dma(), 4 * MIB).map(drop).unwrap_err(),
        DmaFile::map(fake.dma(), &file, 1).map(drop).unwrap_err(),
    ] {
        let Error::NoIova { ranges, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(ranges, "0x0..=0xffffff");
    }
    drop(memory);
    DmaRegion::alloc(fake.dma(), 4 * MIB).unwrap();
}

#[test]
fn a_device_that_does_not_reach_what_its_neighbours_have_says_so() {
    let (fake, limited) = with_lines(64);
    limited.unwrap();
    let region = DmaRegion::alloc(fake.dma(), 1 << 20).unwrap();
    let end = region.iova().0 + (1 << 20) - 1;
    let error = fake.limit_dma(16).unwrap_err();
    let (device, last) = ("fake".to_owned(), 0xffff);
    let expected = Error::OutOfReach { device, last, end };
    assert_eq!(error.to_string(), expected.to_string());
    // Nothing has changed.
    DmaRegion::alloc(fake.dma(), 1 << 20).unwrap();
    drop(region);
}

#[test]
fn pages_begin_on_one_and_have_no_headroom_whenever_they_are_taken() {
    let pool = Pool::pages(Fake::idle().dma(), 3, 5000).unwrap();
    for _ in 0..3 {
        let bufs: Vec<_> = pool.alloc_each().collect();
        assert_eq!(bufs.len(), 3);
        for mut buf in bufs {
            assert!(buf.iova().0.is_multiple_of(4096) && buf.capacity() == 5000);
            buf.set_len(5000);
            let mut chain = Chain::from(buf);
            assert_eq!(chain.first().headroom::<12>(), None);
            assert_eq!(chain.first_mut().put_header([1; 12]), None);
        }
    }
}

#[test]
#[should_panic(expected = "early == 0")]
fn nothing_is_prepended_to_a_page() {
    let pool = Pool::pages(Fake::idle().dma(), 1, 4096).unwrap();
    pool.alloc().unwrap().prepend(1);
}

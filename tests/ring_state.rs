//! A card that broke the protocol, that was stopped, and that was started again: every card gives the
//! same answers, by its own queue pair and as a [`Nic`], and none of them reaches the device.

mod fakes;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fakes::e1000::{FakeE1000, Lie};
use fakes::e1000e::{FakeE1000e, Untruth};
use fakes::lock;
use fakes::virtio::net::{
    CTRL_VQ, FakeVirtioNet, IN_ORDER, MQ, MRG_RXBUF, PACKED, PLAIN, RING_RESET,
};
use pinwire::backend::{Fake, FakeMemory, Watch, Watched};
use pinwire::dma::Pool;
use pinwire::mmio::Place;
use pinwire::nic::e1000e::E1000eConfig;
use pinwire::nic::{Frame, Nic, NicConfig, QueuePair, Received, wait_any};
use pinwire::{Error, Result, open};

/// What the test makes a device do, whichever it is.
trait Device {
    /// A frame of 60 bytes comes in to pair `pair`.
    fn receive(&self, pair: usize);

    /// The next frame comes in with what cannot be true, or none does.
    fn lies(&self, lies: bool);

    /// It takes frames to send only once this is over.
    fn stands_still(&self, still: bool);

    /// Does it work on the rings of pair `pair`?
    fn is_on(&self, pair: usize) -> bool;
}

struct Intel(Arc<Mutex<FakeE1000>>, Arc<FakeMemory>);

impl Device for Intel {
    fn receive(&self, _: usize) {
        lock(&self.0).inbox.push_back(vec![7; 60]);
        lock(&self.0).step_rx(&self.1);
    }

    fn lies(&self, lies: bool) {
        let lie = Lie::Length(2049);
        lock(&self.0).lie = if lies { lie } else { Lie::None };
    }

    fn stands_still(&self, still: bool) {
        lock(&self.0).eager = !still;
    }

    fn is_on(&self, _: usize) -> bool {
        lock(&self.0).is_on()
    }
}

struct Intel82574(Arc<Mutex<FakeE1000e>>, Arc<FakeMemory>);

impl Device for Intel82574 {
    fn receive(&self, pair: usize) {
        lock(&self.0).inbox[pair].push_back(vec![7; 60]);
        lock(&self.0).step_rx(&self.1);
    }

    fn lies(&self, lies: bool) {
        let lie = Untruth::Length(2049);
        lock(&self.0).untruth = if lies { lie } else { Untruth::None };
    }

    fn stands_still(&self, still: bool) {
        lock(&self.0).eager = !still;
    }

    fn is_on(&self, _: usize) -> bool {
        lock(&self.0).is_on()
    }
}

struct Virtio {
    card: Arc<Mutex<FakeVirtioNet>>,
    memory: Arc<FakeMemory>,
    /// A frame in no buffer, which the card's driver finds out; else one longer than its buffer, which
    /// the queue finds out.
    in_the_header: bool,
}

impl Device for Virtio {
    fn receive(&self, pair: usize) {
        FakeVirtioNet::lock(&self.card).receive(&self.memory, pair as u16, [0; 12], &[7; 60]);
    }

    fn lies(&self, lies: bool) {
        let mut card = FakeVirtioNet::lock(&self.card);
        card.lies.num_buffers = (lies && self.in_the_header).then_some(0);
        card.lies.written = (lies && !self.in_the_header).then_some(5000);
    }

    fn stands_still(&self, still: bool) {
        FakeVirtioNet::lock(&self.card).works = !still;
    }

    fn is_on(&self, pair: usize) -> bool {
        let queues = &FakeVirtioNet::lock(&self.card).queues;
        let first = 2 * pair as u16;
        queues.contains_key(&first) || queues.contains_key(&(first + 1))
    }
}

/// Counts register accesses.
#[derive(Default)]
struct Accesses(AtomicUsize);

impl Watch for Accesses {
    fn read(&self, _: Place, value: u64) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed);
        value
    }

    fn write(&self, _: Place, value: u64) -> Option<u64> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Some(value)
    }
}

struct Bench {
    name: &'static str,
    nic: Box<dyn Nic>,
    device: Box<dyn Device>,
    accesses: Arc<Accesses>,
    pool: Pool,
}

#[derive(Debug, Clone, Copy)]
enum Which {
    E1000,
    E1000e { split: bool },
    Virtio { features: u64, in_the_header: bool },
}

const CARDS: [(&str, Which); 9] = {
    const fn virtio(features: u64, in_the_header: bool) -> Which {
        Which::Virtio {
            features: PLAIN | MRG_RXBUF | features,
            in_the_header,
        }
    }
    [
        ("e1000", Which::E1000),
        ("e1000e", Which::E1000e { split: false }),
        ("e1000e, headers apart", Which::E1000e { split: true }),
        ("split", virtio(0, false)),
        ("split, header", virtio(0, true)),
        ("packed", virtio(PACKED, false)),
        ("packed, header", virtio(PACKED, true)),
        ("split, reset alone", virtio(RING_RESET | IN_ORDER, false)),
        (
            "packed, reset alone",
            virtio(RING_RESET | PACKED | IN_ORDER, true),
        ),
    ]
};

fn bench(name: &'static str, which: Which, queues: usize) -> Bench {
    let (fake, device): (Fake, Box<dyn Device>) = match which {
        Which::E1000 => {
            let (fake, device) = FakeE1000::fake();
            let memory = Arc::clone(fake.memory());
            (fake, Box::new(Intel(device, memory)))
        }
        Which::E1000e { .. } => {
            let (fake, device) = FakeE1000e::fake();
            let memory = Arc::clone(fake.memory());
            (fake, Box::new(Intel82574(device, memory)))
        }
        Which::Virtio {
            features,
            in_the_header,
        } => {
            let several = if queues > 1 { MQ | CTRL_VQ } else { 0 };
            let (fake, card) = FakeVirtioNet::fake(features | several);
            FakeVirtioNet::lock(&card).pairs = queues as u16;
            let memory = Arc::clone(fake.memory());
            let device = Virtio {
                card,
                memory,
                in_the_header,
            };
            (fake, Box::new(device))
        }
    };
    let config = NicConfig::default()
        .tx_ring(16)
        .rx_ring(16)
        .queues(queues)
        .driver(
            E1000eConfig::default().split_headers(matches!(which, Which::E1000e { split: true })),
        );
    let accesses = Arc::new(Accesses::default());
    let nic = open::start(Watched::new(fake, accesses.clone()), &config).unwrap();
    let pool = Pool::new(nic.dma(), 8, 2048).unwrap();
    Bench {
        name,
        nic,
        device,
        accesses,
        pool,
    }
}

/// By which way a card is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Card,
    Pair,
}

impl Bench {
    fn frame(&self) -> Frame {
        let mut buf = self.pool.alloc().expect("a buffer");
        buf.fill(&[1; 60]);
        buf.into()
    }

    fn recv(&mut self, way: Way) -> Result<Vec<Received>> {
        let mut got = Vec::new();
        match way {
            Way::Card => self.nic.recv(&mut got, 8)?,
            Way::Pair => self.nic.pair_mut(0).recv(&mut got, 8)?,
        };
        Ok(got)
    }

    /// Frames come in, the first of which cannot be; the error that tells of it.
    fn found_out(&mut self, way: Way) -> String {
        self.device.lies(true);
        self.device.receive(0);
        self.device.lies(false);
        for _ in 0..3 {
            self.device.receive(0);
        }
        let error = self.recv(way).expect_err("it cannot be");
        assert!(matches!(error, Error::ProtocolViolation { .. }), "{error}");
        error.to_string()
    }

    /// All that can be asked gives an error that says `text`; no frame moves, no register is touched.
    fn is_shut(&mut self, way: Way, text: &str) {
        let who = format!("{}, {way:?}, {text}", self.name);
        let before = self.accesses.0.load(Ordering::Relaxed);
        let in_flight = self.nic.in_flight();
        for _ in 0..3 {
            let mut frames = vec![self.frame()];
            let (mut done, nic) = (Vec::new(), &mut *self.nic);
            let second = Duration::from_secs(1);
            assert!(nic.pair(0).is_ready(), "{who}: nobody would look");
            let mut refused = match way {
                Way::Card => vec![
                    nic.send(&mut frames).map(|_| ()),
                    nic.submit(&mut frames).map(|_| ()),
                    nic.doorbell(),
                    nic.completed(&mut done).map(|_| ()),
                    nic.wait(second).map(|_| ()),
                    nic.service(),
                    nic.limit(60, 4, 100).map(|_| ()),
                    nic.set_promiscuous(true),
                ],
                Way::Pair => {
                    let pair = nic.pair_mut(0);
                    vec![
                        pair.check_running(),
                        pair.send(&mut frames).map(|_| ()),
                        pair.submit(&mut frames).map(|_| ()),
                        pair.doorbell(),
                        pair.completed(&mut done).map(|_| ()),
                        pair.wait(second).map(|_| ()),
                        pair.arm().map(|_| ()),
                        wait_any(&mut [pair], second).map(|_| ()),
                    ]
                }
            };
            // A card without a filter, or one that serves nobody, has its own answer.
            refused.retain(|answer| !matches!(answer, Err(Error::NotOffered { .. })));
            if nic_tends_nothing(self.name) {
                refused.retain(Result::is_err);
            }
            refused.push(self.recv(way).map(drop));
            for (nth, answer) in refused.into_iter().enumerate() {
                let error = answer
                    .expect_err(&format!("{who}: answer {nth}"))
                    .to_string();
                assert!(error.contains(text), "{who}: answer {nth}: {error}");
            }
            assert_eq!((frames.len(), done.len()), (1, 0), "{who}");
        }
        assert_eq!(self.nic.in_flight(), in_flight, "{who}");
        let after = self.accesses.0.load(Ordering::Relaxed);
        assert_eq!(after - before, 0, "{who}: register accesses");
    }

    /// Started again it gives back `in_flight` frames, and works.
    fn works_once_started_again(&mut self, in_flight: usize) {
        self.device.stands_still(false);
        assert_eq!(
            self.nic.restart().unwrap().len(),
            in_flight,
            "{}",
            self.name
        );
        for _ in 0..20 {
            self.device.receive(0);
            assert_eq!(self.recv(Way::Pair).unwrap().len(), 1, "{}", self.name);
            let mut frames = vec![self.frame()];
            assert_eq!(self.nic.send(&mut frames).unwrap(), 1);
            assert_eq!(self.nic.completed(&mut frames).unwrap(), 1);
        }
    }

    fn sends_two_that_stay(&mut self) {
        self.device.stands_still(true);
        let mut frames = vec![self.frame(), self.frame()];
        assert_eq!(self.nic.send(&mut frames).unwrap(), 2);
    }
}

/// Intel's cards ask for nothing beside their frames.
fn nic_tends_nothing(name: &str) -> bool {
    name.starts_with("e1000")
}

#[test]
fn after_a_lie_every_ring_is_broken_until_the_card_is_started_again() {
    for (name, which) in CARDS {
        for way in [Way::Card, Way::Pair] {
            let mut b = bench(name, which, 1);
            for _ in 0..3 {
                b.sends_two_that_stay();
                let told = b.found_out(way);
                let what = told.split(": ").nth(2).unwrap().lines().next().unwrap();
                assert!(!b.device.is_on(0), "{name}: it still works on its rings");
                b.is_shut(way, what);
                // Whoever asks by the other way hears the same.
                let error = b.recv(Way::Pair).unwrap_err().to_string();
                assert!(error.contains(what), "{error}");
                b.nic.stop().unwrap();
                b.is_shut(Way::Card, what);
                b.is_shut(Way::Pair, what);
                b.works_once_started_again(2);
            }
        }
    }
}

#[test]
fn after_a_stop_nothing_reaches_the_device_until_it_is_started_again() {
    for (name, which) in CARDS {
        let mut b = bench(name, which, 1);
        for _ in 0..3 {
            b.sends_two_that_stay();
            // What came in before is not given out after.
            b.device.receive(0);
            b.nic.stop().unwrap();
            assert!(!b.device.is_on(0), "{name}");
            let before = b.accesses.0.load(Ordering::Relaxed);
            b.nic.stop().unwrap();
            let after = b.accesses.0.load(Ordering::Relaxed);
            assert_eq!(after, before, "{name}: it is stopped already");
            for way in [Way::Card, Way::Pair] {
                b.is_shut(way, "fake is stopped");
            }
            b.works_once_started_again(2);
        }
    }
}

#[test]
fn a_lie_on_one_pair_stops_what_stops_with_it() {
    let virtio = |features| Which::Virtio {
        features: PLAIN | MRG_RXBUF | features,
        in_the_header: false,
    };
    let cards = [
        (Which::E1000e { split: false }, false),
        (virtio(0), false),
        (virtio(PACKED), false),
        (virtio(RING_RESET), true),
        (virtio(RING_RESET | PACKED), true),
    ];
    for (which, alone) in cards {
        let mut b = bench("two pairs", which, 2);
        b.device.lies(true);
        b.device.receive(0);
        b.device.lies(false);
        b.device.receive(1);
        {
            let mut pairs = b.nic.split();
            let (first, second) = pairs.split_at_mut(1);
            // Each on a thread of its own, as a card's pairs are worked.
            std::thread::scope(|scope| {
                let pair = &mut *first[0];
                let lie = move || pair.recv(&mut Vec::new(), 8).unwrap_err();
                let error = scope.spawn(lie).join().unwrap();
                assert!(matches!(error, Error::ProtocolViolation { .. }), "{error}");
            });
            let mut got = Vec::new();
            let other: &mut dyn QueuePair = &mut *second[0];
            match other.recv(&mut got, 8) {
                Ok(came) => assert!(alone && came == 1, "{which:?}"),
                Err(error) => {
                    assert!(!alone, "{which:?}");
                    assert!(matches!(error, Error::ProtocolViolation { .. }), "{error}");
                    assert!(matches!(
                        other.doorbell(),
                        Err(Error::ProtocolViolation { .. })
                    ));
                }
            }
        }
        assert_eq!(
            (b.device.is_on(0), b.device.is_on(1)),
            (false, alone),
            "{which:?}"
        );
        b.works_once_started_again(0);
    }
}

#[test]
fn a_card_that_is_stopped_refuses_what_is_pushed_one_by_one() {
    let (fake, _device) = FakeE1000::fake();
    let mut card = pinwire::nic::e1000::E1000::start(fake, &NicConfig::default()).unwrap();
    let pool = Pool::new(card.dma(), 1, 2048).unwrap();
    let mut buf = pool.alloc().unwrap();
    buf.fill(&[1; 60]);
    card.stop().unwrap();
    use pinwire::nic::e1000::SubmitError;
    let refused = card.tx().submit(buf.into());
    assert!(matches!(
        refused,
        Err(SubmitError::Refused(_, Error::Stopped { .. }))
    ));
    assert!(matches!(card.tx().doorbell(), Err(Error::Stopped { .. })));
    assert!(matches!(
        card.tx().completed(&mut Vec::new()),
        Err(Error::Stopped { .. })
    ));
    assert!(matches!(card.rx().refill(), Err(Error::Stopped { .. })));
    assert!(matches!(
        card.rx().poll(&mut Vec::new(), 1),
        Err(Error::Stopped { .. })
    ));
}

/// A place that holds a ring could be swapped with another card's, and dropped with that one while the
/// first card works on it. So what drivers give out is borrowed from a private place (`TxRing`), or has no
/// size (`dyn QueuePair`), which cannot be swapped.
#[test]
fn no_driver_gives_out_a_place_that_holds_what_a_card_reaches() {
    let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![src.join("nic"), src.join("virtio")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // A frame is no driver: who has one owns it, and what it is made of; so it is with a caller's batch.
            if path.ends_with("nic/frame.rs") || path.ends_with("nic/front.rs") {
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            for signature in text.split("fn ").skip(1) {
                let signature = signature.split(['{', ';']).next().unwrap();
                let given = signature.split_once("->").map_or("", |(_, given)| given);
                let place = given.contains("&mut") && !given.contains("&mut dyn");
                // What stays within the driver is its own.
                let before = &text[..signature.as_ptr().addr() - text.as_ptr().addr()];
                let inside = before.ends_with("pub(super) fn ")
                    || before.ends_with("pub(in crate::nic) fn ");
                assert!(!place || inside, "{}: fn {signature}", path.display());
            }
        }
    }
    assert!(files > 20, "no drivers found");
}

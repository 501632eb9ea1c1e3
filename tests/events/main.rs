//! What happens to a card in the middle of traffic: it is pulled out, its cable is, or somebody else
//! resets it. One body for all cards: each says clearly what happened or goes on, and every buffer is
//! accounted for: none comes back twice, and none stays away.
//!
//! On the host: over QEMU's models. In the VM (`tests/vm/faults.rs` starts it there): over VFIO with
//! `PINWIRE_DEVICE=0000:01:00.0`, and the kernel's driver on a twin, `PINWIRE_WIRE=eth0`, at the other
//! end of the cable.
#![cfg(feature = "testing")]

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "net")]
mod forwarding;
mod outside;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use outside::Outside;
use pinwire::backend::{Backend, Peer, Qtest, QtestSpec};
use pinwire::device::{DeviceSpec, Driver};
use pinwire::dma::Pool;
use pinwire::mmio::{Mmio, Width};
use pinwire::nic::{Frame, Nic, NicConfig, Received, Waiting, wait_any};
use pinwire::testing::{PacketSocket, Wire};
use pinwire::{Error, Result, open};

/// The address that our frames are sent from.
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MODELS: [&str; 4] = ["e1000", "e1000e", "virtio-net", "virtio-net,packed=on"];
/// Frames that the test has to send.
const FRAMES: usize = 64;
/// What has not come about by then does not.
const BOUND: Duration = Duration::from_secs(30);

/// Opens a card twice: for its driver, and for somebody who resets it behind the driver's back.
struct WithReset(NicConfig);

impl Driver for WithReset {
    type Output = (Box<dyn Nic>, Box<dyn Fn() + Send>);
    type Error = Error;

    fn start<B: Backend + 'static>(self, device: B) -> Result<Self::Output> {
        let (vendor, _) = device.ids()?;
        let reset: Box<dyn Fn() + Send> = if vendor == 0x1af4 {
            // device_status, where QEMU has the common configuration (virtio 1.2, §4.1.4.3).
            let bar = device.map_bar(4, 0x15)?;
            Box::new(move || bar.write(0x14, Width::One, 0))
        } else {
            let bar = device.map_bar(0, 0x381c)?;
            Box::new(move || {
                // CTRL.RST (8254x §13.4.1, 82574 §10.2.2.1).
                bar.write32(0, bar.read32(0) | 1 << 26);
                // QEMU's models reset next to nothing before 8.1. RCTL and TCTL, then the lengths, heads
                // and tails of the rings.
                for offset in [0x100, 0x400, 0x2808, 0x2810, 0x2818, 0x3808, 0x3810, 0x3818] {
                    bar.write32(offset, 0);
                }
            })
        };
        Ok((open::start(device, &self.0)?, reset))
    }
}

struct Bench {
    nic: Box<dyn Nic>,
    reset: Box<dyn Fn() + Send>,
    outside: Outside,
    wire: Box<dyn Wire>,
    /// The frames that we send.
    pool: Pool,
    /// Numbers of those that the card has.
    out: BTreeSet<u64>,
    /// Of the next one to be sent, and of the next one to come in.
    next: [u64; 2],
    /// Numbers that came in.
    came: BTreeSet<u64>,
    /// Numbers that left.
    left: BTreeSet<u64>,
    /// What the test keeps of what came in.
    kept: Vec<Received>,
}

/// Runs `body` over every card at hand, in every way of waiting that is named.
fn on_every_card(ways: &[Waiting], body: impl Fn(Bench)) {
    let config = |waiting| NicConfig::default().waiting(waiting);
    if let Ok(device) = std::env::var("PINWIRE_DEVICE") {
        let named = |key: &str| std::env::var(key).unwrap_or_else(|_| panic!("{key} is missing"));
        let wire = PacketSocket::open(&named("PINWIRE_WIRE")).expect("the twin's interface is up");
        let spec: DeviceSpec = device.parse().unwrap();
        let outside = Outside::Vm {
            folder: PathBuf::from("/share"),
            id: named("PINWIRE_ID"),
        };
        let opened = spec.open_with(WithReset(config(ways[0]))).unwrap();
        return body(Bench::new(opened, outside, Box::new(wire)));
    }
    if !common::require_qemu() {
        return;
    }
    for model in MODELS {
        for waiting in ways {
            println!("--- qtest:{model}, {waiting:?}");
            let (peer, wire) = Peer::socket().unwrap();
            // A card that is gone takes nothing.
            wire.set_write_timeout(Some(Duration::from_millis(1)))
                .unwrap();
            let (model, property) = model.split_once(',').unwrap_or((model, ""));
            let mut spec = QtestSpec::new(model, peer).unwrap();
            let hotplug = ("hotplug", "on");
            for (key, value) in property.split_once('=').into_iter().chain([hotplug]) {
                spec = spec.with(key, value).unwrap();
            }
            let qtest = Qtest::start(&spec).unwrap();
            let outside = Outside::Qtest(qtest.control());
            let opened = WithReset(config(*waiting)).start(qtest).unwrap();
            body(Bench::new(opened, outside, Box::new(wire)));
        }
    }
}

/// A frame of ours that says its number.
fn numbered(to: [u8; 6], from: [u8; 6], number: u64) -> Vec<u8> {
    let head = [&to[..], &from, &0x88b5u16.to_be_bytes()].concat();
    let tail = [number.wrapping_mul(0x9e37_79b9_7f4a_7c15) as u8; 46 + 8];
    [&head[..], &number.to_be_bytes(), &tail].concat()
}

fn number_of(frame: &[u8]) -> Option<u64> {
    let ours = frame.get(12..14)? == [0x88, 0xb5];
    let number = u64::from_be_bytes(frame.get(14..22)?.try_into().ok()?);
    let whole = frame
        == numbered(
            frame[..6].try_into().ok()?,
            frame[6..12].try_into().ok()?,
            number,
        );
    (ours && whole).then_some(number)
}

impl Bench {
    fn new(
        (nic, reset): (Box<dyn Nic>, Box<dyn Fn() + Send>),
        outside: Outside,
        wire: Box<dyn Wire>,
    ) -> Self {
        let pool = Pool::new(nic.dma(), FRAMES, 2048).unwrap();
        Self {
            nic,
            reset,
            outside,
            wire,
            pool,
            out: BTreeSet::new(),
            next: [0; 2],
            came: BTreeSet::new(),
            left: BTreeSet::new(),
            kept: Vec::new(),
        }
    }

    /// Frames that the card gave back: each was out, so none comes twice.
    fn account(&mut self, back: Vec<Frame>) {
        for frame in back {
            let number = number_of(&frame.to_vec()).expect("a frame as it was given");
            assert!(self.out.remove(&number), "frame {number} is back twice");
        }
    }

    /// Sends what there is, takes what came, both ways.
    fn round(&mut self) -> Result<()> {
        let mut frames = Vec::new();
        let mut numbers = Vec::new();
        while let Some(mut buf) = self.pool.alloc() {
            buf.fill(&numbered([0xff; 6], OUR_MAC, self.next[0]));
            numbers.push(self.next[0]);
            self.next[0] += 1;
            frames.push(Frame::from(buf));
        }
        let sent = self.nic.send(&mut frames)?;
        self.out.extend(&numbers[..sent]);
        let mut back = Vec::new();
        let reaped = self.nic.completed(&mut back);
        self.account(back);
        reaped?;
        let mac = self.nic.mac().0;
        for _ in 0..4 {
            self.wire
                .try_send(&numbered(mac, [2, 0, 0, 0, 0, 2], self.next[1]));
            self.next[1] += 1;
        }
        let mut got = Vec::new();
        let received = self.nic.recv(&mut got, 64);
        for received in got {
            let frame = received.frame.to_vec();
            let number =
                number_of(&frame).unwrap_or_else(|| panic!("not as it was sent: {frame:02x?}"));
            assert!(self.came.insert(number), "frame {number} came in twice");
            // Some are kept, as a program might.
            if self.kept.len() < 16 {
                self.kept.push(received);
            }
        }
        received?;
        while let Some(frame) = self.wire.recv(Duration::from_millis(1)) {
            if let Some(number) = number_of(&frame).filter(|_| frame[6..12] == OUR_MAC) {
                assert!(self.left.insert(number), "frame {number} left twice");
            }
        }
        Ok(())
    }

    /// Rounds until `done`.
    fn traffic(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            self.round().unwrap();
            assert!(begin.elapsed() < BOUND, "{what} does not come about");
        }
    }

    /// Frames go out and come in.
    fn both_ways(&mut self) {
        let before = (self.left.len(), self.came.len());
        self.traffic("traffic both ways", |bench| {
            bench.left.len() >= before.0 + 200 && bench.came.len() >= before.1 + 20
        });
    }

    /// A card that has a link again works, or (QEMU's packed queues, 7.2: it spoils them while it has none)
    /// says that it must be started again; then it works.
    fn both_ways_again(&mut self) {
        let before = (self.left.len(), self.came.len());
        let spoiled = self.nic.model() == "virtio-net, packed queues";
        let begin = Instant::now();
        while self.left.len() < before.0 + 200 || self.came.len() < before.1 + 20 {
            self.round().unwrap();
            match self.nic.check() {
                Err(Error::NeedsReset { .. }) if spoiled => {
                    let back = self.nic.restart().unwrap();
                    self.account(back);
                    assert!(self.out.is_empty(), "lost: {:?}", self.out);
                }
                well => well.unwrap(),
            }
            assert!(begin.elapsed() < BOUND, "no traffic");
        }
    }

    /// Takes back what is in flight.
    fn drain(&mut self) {
        let begin = Instant::now();
        while self.nic.in_flight() > 0 {
            let mut back = Vec::new();
            self.nic.completed(&mut back).unwrap();
            self.account(back);
            while self.wire.recv(Duration::from_millis(1)).is_some() {}
            assert!(
                begin.elapsed() < BOUND,
                "{} in flight",
                self.nic.in_flight()
            );
        }
        assert!(self.out.is_empty(), "never came back: {:?}", self.out);
    }

    /// Of the pool that frames come in by, each buffer is at hand, lent to the card, or kept: once.
    fn assert_receive_buffers(&mut self) {
        self.kept.clear();
        let pool = self.nic.rx_pool();
        let mut at_hand = Vec::new();
        while let Some(buf) = pool.alloc() {
            at_hand.push(buf);
        }
        let rings = self.nic.rings();
        let slots = rings.iter().filter(|ring| ring.name == "receive");
        let lent = slots.flat_map(|ring| &ring.slots);
        let places: BTreeSet<u64> = lent
            .filter_map(|slot| slot.buffer)
            // Where it is told to write may begin before the buffer does.
            .map(|(iova, _, _)| iova.0.next_multiple_of(64))
            .chain(at_hand.iter().map(|buf| buf.iova().0))
            .collect();
        assert_eq!(places.len(), self.nic.rx_pool().count());
    }

    /// The card goes; every buffer that it had comes home, and what it had received stays as it was.
    fn end(self) {
        let received = |kept: &[Received]| -> Vec<_> {
            kept.iter()
                .map(|received| received.frame.to_vec())
                .collect()
        };
        let before = received(&self.kept);
        drop(self.nic);
        assert_eq!(received(&self.kept), before);
        drop(self.kept);
        let home: Vec<_> = std::iter::from_fn(|| self.pool.alloc()).collect();
        assert_eq!(home.len(), self.pool.count(), "buffers stay away");
        let places: BTreeSet<_> = home.iter().map(|buf| buf.iova()).collect();
        assert_eq!(places.len(), home.len(), "a buffer is there twice");
    }
}

fn is_gone<T: std::fmt::Debug>(outcome: Result<T>) {
    assert!(matches!(outcome, Err(Error::DeviceGone(_))), "{outcome:?}");
}

#[test]
fn a_card_that_is_pulled_out_in_traffic_is_gone_and_every_buffer_comes_home() {
    on_every_card(&[Waiting::Adaptive, Waiting::Poll], |mut bench| {
        bench.both_ways();
        let outside = bench.outside.clone();
        let hand = std::thread::spawn(move || outside.unplug());
        let begin = Instant::now();
        let error = loop {
            match bench.round() {
                Ok(()) => assert!(begin.elapsed() < BOUND, "nobody notices"),
                Err(error) => break error,
            }
        };
        is_gone(Err::<(), _>(error));
        hand.join().unwrap();
        // It is given nothing any more, and what it has stays with it.
        let before = bench.nic.in_flight();
        is_gone(bench.round());
        assert_eq!(bench.nic.in_flight(), before);
        is_gone(bench.nic.check());
        is_gone(bench.nic.pair(0).check_running());
        is_gone(bench.nic.restart());
        is_gone(bench.nic.stop());
        if bench.nic.pair(0).waiting() != Waiting::Poll {
            is_gone(bench.nic.wait(BOUND));
            is_gone(wait_any(&mut bench.nic.split(), BOUND));
        }
        // Nobody panics who has not heard yet.
        let _ = (bench.nic.stats(), bench.nic.link(), bench.nic.registers());
        bench.end();
    });
}

#[test]
fn who_sleeps_on_a_card_that_is_pulled_out_wakes_and_is_told() {
    const LONG: Duration = Duration::from_secs(600);
    on_every_card(&[Waiting::Adaptive, Waiting::Interrupt], |mut bench| {
        bench.both_ways();
        bench.drain();
        let outside = bench.outside.clone();
        let hand = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            outside.unplug();
        });
        let begin = Instant::now();
        // It may be woken for what is left of the traffic.
        let error = loop {
            let woken = bench
                .nic
                .wait(LONG)
                .and_then(|_| bench.nic.recv(&mut Vec::new(), 64));
            assert!(begin.elapsed() < BOUND);
            if let Err(error) = woken {
                break error;
            }
        };
        is_gone(Err::<(), _>(error));
        is_gone(bench.nic.wait(LONG));
        is_gone(wait_any(&mut bench.nic.split(), LONG));
        hand.join().unwrap();
        bench.end();
    });
}

#[test]
fn a_link_that_goes_down_and_up_wakes_who_sleeps_and_no_frame_comes_twice() {
    on_every_card(&[Waiting::Adaptive, Waiting::Interrupt], |mut bench| {
        bench.both_ways();
        for _ in 0..3 {
            bench.outside.set_link(false);
            // The card goes on taking frames, or keeps them: none is lost from our books.
            let begin = Instant::now();
            bench.traffic("a link that is down", |bench| {
                !bench.nic.link().up && begin.elapsed() > Duration::from_millis(100)
            });
            bench.nic.check().unwrap();
            // What came before is taken; then there is nothing to wake for but the link.
            let begin = Instant::now();
            while bench.nic.wait(Duration::from_millis(100)).unwrap() {
                assert!(begin.elapsed() < BOUND, "woken without end");
                let mut back = Vec::new();
                bench.nic.completed(&mut back).unwrap();
                bench.account(back);
                bench.nic.recv(&mut Vec::new(), 64).unwrap();
            }
            let outside = bench.outside.clone();
            let hand = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(200));
                outside.set_link(true);
            });
            let begin = Instant::now();
            assert!(
                bench.nic.wait(BOUND).unwrap(),
                "slept on a link that came up"
            );
            assert!(begin.elapsed() < BOUND / 2);
            hand.join().unwrap();
            bench.traffic("a link that is up", |bench| bench.nic.link().up);
            bench.both_ways_again();
        }
        bench.drain();
        bench.assert_receive_buffers();
        bench.end();
    });
}

#[test]
fn a_card_that_is_reset_behind_our_back_says_so_and_a_restart_gives_back_what_it_had() {
    on_every_card(&[Waiting::Adaptive, Waiting::Poll], |mut bench| {
        for _ in 0..3 {
            bench.both_ways();
            bench.nic.check().unwrap();
            (bench.reset)();
            // Frames go on being given to it: it takes none.
            for _ in 0..5 {
                bench.round().unwrap();
            }
            let error = bench.nic.check().unwrap_err();
            assert!(matches!(error, Error::WasReset { .. }), "{error}");
            assert!(error.to_string().contains("Nic::restart"), "{error}");
            let in_flight = bench.nic.in_flight();
            assert!(in_flight > 0, "it took them");
            let back = bench.nic.restart().unwrap();
            assert_eq!(back.len(), in_flight);
            bench.account(back);
            assert!(bench.out.is_empty(), "lost: {:?}", bench.out);
            bench.nic.check().unwrap();
        }
        bench.both_ways();
        bench.drain();
        bench.assert_receive_buffers();
        bench.nic.stop().unwrap();
        bench.nic.check().unwrap();
        bench.end();
    });
}

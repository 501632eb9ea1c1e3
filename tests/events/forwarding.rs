//! The same for who has two cards: frames come in by one that stays and leave by one that does not.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pinwire::Error;
use pinwire::backend::{Peer, Qtest, QtestControl, QtestSpec};
use pinwire::device::Driver;
use pinwire::net::{Forward, Limit, Manner, Pace, Progress, SyntheticSource, Until, transmit};
use pinwire::nic::{Nic, NicConfig};

use super::{BOUND, MODELS, WithReset, common, numbered};

static NEVER: AtomicBool = AtomicBool::new(false);

/// Two cards in one QEMU: the first on a socket, the second where it can be pulled out and reset.
struct Two {
    stays: Box<dyn Nic>,
    goes: Box<dyn Nic>,
    reset: Box<dyn Fn() + Send>,
    control: QtestControl,
    wire: UnixDatagram,
}

fn on_every_card(body: impl Fn(Two)) {
    if std::env::var_os("PINWIRE_DEVICE").is_some() || !common::require_qemu() {
        return;
    }
    for model in MODELS {
        println!("--- qtest:{model}");
        let (peer, wire) = Peer::socket().unwrap();
        // Who forwards no more takes nothing.
        wire.set_write_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        let specs = [
            QtestSpec::new("e1000", peer).unwrap(),
            format!("{model},hotplug=on").parse().unwrap(),
        ];
        let mut cards = Qtest::start_all(&specs).unwrap();
        let (goes, stays) = (cards.remove(1), cards.remove(0));
        let control = goes.control();
        let config = NicConfig::default().promiscuous(true);
        let (stays, _) = WithReset(config.clone()).start(stays).unwrap();
        let (goes, reset) = WithReset(config).start(goes).unwrap();
        body(Two {
            stays,
            goes,
            reset,
            control,
            wire,
        });
    }
}

/// Forwards while frames come in without end, and something `happens` after a second of it. Gives the
/// error that this ends with.
fn forward_until(two: &mut Two, happens: impl FnOnce() + Send) -> Error {
    let ended = AtomicBool::new(false);
    // Before the threads, which a panic in here would leave without an end.
    let mut forward = Forward::new(&mut *two.stays, &mut *two.goes, 16).unwrap();
    std::thread::scope(|scope| {
        let (wire, ended) = (&two.wire, &ended);
        scope.spawn(move || {
            for number in 0.. {
                let _ = wire.send(&numbered([0xff; 6], [2, 0, 0, 0, 0, 2], number));
                if ended.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(1500));
            happens();
        });
        let until = Until {
            stop: &NEVER,
            frames: u64::MAX,
            time: Some(Instant::now() + BOUND),
        };
        let outcome = forward.run(until, None);
        ended.store(true, Ordering::Relaxed);
        outcome.expect_err("it does not notice")
    })
}

/// Every buffer that frames come in by is at home with the card that stays, or lent to its device.
fn assert_home(stays: &dyn Nic) {
    let mut at_hand: Vec<_> = std::iter::from_fn(|| stays.rx_pool().alloc()).collect();
    let rings = stays.rings();
    let lent = rings[1].slots.iter().filter_map(|slot| slot.buffer);
    let places: BTreeSet<_> = lent
        .map(|(iova, _, _)| iova)
        .chain(at_hand.iter().map(|buf| buf.iova()))
        .collect();
    assert_eq!(places.len(), stays.rx_pool().count());
    at_hand.clear();
}

#[test]
fn forwarding_ends_when_the_other_card_is_pulled_out_and_its_frames_come_home() {
    on_every_card(|mut two| {
        let control = two.control.clone();
        let error = forward_until(&mut two, move || control.unplug().unwrap());
        assert!(matches!(error, Error::DeviceGone(_)), "{error}");
        drop(two.goes);
        assert_home(&*two.stays);
        two.stays.check().unwrap();
    });
}

#[test]
fn forwarding_ends_when_the_other_card_is_reset_by_others_and_goes_on_after_a_restart() {
    on_every_card(|mut two| {
        for _ in 0..2 {
            let mut reset = std::mem::replace(&mut two.reset, Box::new(|| {}));
            let by = &mut reset;
            let error = forward_until(&mut two, by);
            two.reset = reset;
            assert!(matches!(error, Error::WasReset { .. }), "{error}");
            drop(two.goes.restart().unwrap());
            assert_home(&*two.stays);
        }
    });
}

#[test]
fn sending_ends_when_the_card_is_pulled_out_or_reset_by_others() {
    on_every_card(|mut two| {
        for unplugged in [false, true] {
            let source = SyntheticSource::new(&*two.goes, pinwire::net::NOBODY, 64, 300).unwrap();
            let mut source = Limit {
                inner: source,
                left: u64::MAX,
            };
            let manner = Manner {
                pace: Pace::Max,
                batch: 8,
                stop: &NEVER,
                announce: |_, _| {},
            };
            let progress = Progress::default();
            let (control, reset) = (&two.control, &mut two.reset);
            let nic = &mut *two.goes;
            let begin = Instant::now();
            let error = std::thread::scope(|scope| {
                let sender = scope.spawn(|| transmit(nic, &mut source, manner, &progress));
                while progress.frames() == 0 && !sender.is_finished() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                match unplugged {
                    true => control.unplug().unwrap(),
                    false => reset(),
                }
                sender.join().unwrap().expect_err("it does not notice")
            });
            assert!(begin.elapsed() < BOUND);
            match unplugged {
                true => assert!(matches!(error, Error::DeviceGone(_)), "{error}"),
                false => {
                    assert!(matches!(error, Error::WasReset { .. }), "{error}");
                    drop(two.goes.restart().unwrap());
                }
            }
        }
    });
}

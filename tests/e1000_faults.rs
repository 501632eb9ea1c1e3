//! The e1000 driver over QEMU's own model, with a fault between the two: what the driver reads is
//! changed, or what it writes is lost.
#![cfg(feature = "net")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pinwire::backend::{Peer, Qtest, QtestSpec, Watch, Watched};
use pinwire::dma::Pool;
use pinwire::inspect::RingIndices;
use pinwire::mmio::Place;
use pinwire::net::{Manner, Pace, Progress, SyntheticSource, transmit};
use pinwire::nic::{Frame, Mac, Nic, NicConfig};
use pinwire::{Error, Result, open};

const CTRL: usize = 0x0000;
const STATUS: usize = 0x0008;
const RDH: usize = 0x2810;
const TDH: usize = 0x3810;
const TDT: usize = 0x3818;

/// A fault that can be switched on.
struct Fault {
    on: AtomicBool,
    read: fn(usize, u64) -> u64,
    write: fn(usize, u64) -> Option<u64>,
}

impl Watch for Fault {
    fn read(&self, place: Place, value: u64) -> u64 {
        match self.on.load(Ordering::Relaxed) {
            true => (self.read)(place.offset, value),
            false => value,
        }
    }

    fn write(&self, place: Place, value: u64) -> Option<u64> {
        match self.on.load(Ordering::Relaxed) {
            true => (self.write)(place.offset, value),
            false => Some(value),
        }
    }
}

fn reading(read: fn(usize, u64) -> u64) -> Arc<Fault> {
    Arc::new(Fault {
        on: AtomicBool::new(false),
        read,
        write: |_, value| Some(value),
    })
}

fn start(fault: &Arc<Fault>) -> Result<Box<dyn Nic>> {
    let qtest = Qtest::start(&QtestSpec::new("e1000", Peer::Hub(0))?)?;
    let config = NicConfig::default().link_wait(Duration::from_millis(300));
    open::start(Watched::new(qtest, fault.clone()), &config)
}

/// A card that works until the fault is switched on.
fn card(fault: &Arc<Fault>) -> Option<Box<dyn Nic>> {
    common::require_qemu().then(|| start(fault).expect("a card"))
}

fn on(fault: &Fault) {
    fault.on.store(true, Ordering::Relaxed);
}

fn one_frame(nic: &mut dyn Nic) -> Result<usize> {
    let pool = Pool::new(nic.dma(), 1, 64)?;
    let mut buf = pool.alloc().expect("a buffer");
    buf.fill(&[0xff; 60]);
    nic.send(&mut vec![Frame::from(buf)])
}

fn fails_to_start(fault: &Arc<Fault>, says: &str) {
    if !common::require_qemu() {
        return;
    }
    on(fault);
    let begin = Instant::now();
    let error = start(fault).err().expect("an error").to_string();
    assert!(error.contains(says), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_reset_that_never_ends() {
    let fault = reading(|offset, value| {
        if offset == CTRL {
            value | 1 << 26
        } else {
            value
        }
    });
    fails_to_start(
        &fault,
        "the end of the device's reset (CTRL.RST) did not happen within 200 ms",
    );
}

#[test]
fn a_link_that_never_comes() {
    let fault = reading(|offset, value| if offset == STATUS { value & !2 } else { value });
    fails_to_start(&fault, "link-up did not happen within 300 ms");
}

#[test]
fn registers_that_all_read_as_ones() {
    fails_to_start(&reading(|_, _| u64::from(u32::MAX)), "reset");
}

#[test]
fn a_doorbell_that_is_lost_is_an_error_and_not_a_hang() {
    let fault = Arc::new(Fault {
        on: AtomicBool::new(false),
        read: |_, value| value,
        write: |offset, value| (offset != TDT).then_some(value),
    });
    let Some(mut nic) = card(&fault) else { return };
    on(&fault);
    let mut source = SyntheticSource::new(&*nic, Mac::BROADCAST, 64, 256).expect("frames");
    let stop = AtomicBool::new(false);
    let manner = Manner {
        pace: Pace::Max,
        batch: 64,
        stop: &stop,
        announce: |_, _| {},
    };
    let begin = Instant::now();
    let error = transmit(&mut *nic, &mut source, manner, &Progress::default()).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn heads_outside_of_the_rings_are_only_shown() {
    let fault = reading(|offset, value| match offset {
        TDH | RDH => 0xdead_beef,
        _ => value,
    });
    let Some(mut nic) = card(&fault) else { return };
    on(&fault);
    let indices = &nic.rings()[0].indices;
    assert!(matches!(
        indices,
        RingIndices::Registers {
            head: 0xdead_beef,
            ..
        }
    ));
    assert_eq!(one_frame(&mut *nic).unwrap(), 1);
    let begin = Instant::now();
    while nic.completed(&mut Vec::new()).unwrap() == 0 {
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(nic.recv(&mut Vec::new(), 8).unwrap(), 0);
}

#[test]
fn a_reset_that_does_not_end_when_the_card_is_dropped_is_bounded() {
    let fault = reading(|offset, value| {
        if offset == CTRL {
            value | 1 << 26
        } else {
            value
        }
    });
    let Some(mut nic) = card(&fault) else { return };
    one_frame(&mut *nic).unwrap();
    on(&fault);
    let begin = Instant::now();
    assert!(matches!(nic.stop(), Err(Error::Timeout { .. })));
    drop(nic);
    assert!(begin.elapsed() < Duration::from_secs(10));
}

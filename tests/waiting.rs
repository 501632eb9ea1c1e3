//! Waiting for a fake card: no wake-up is lost, whenever the frame comes. A lost one would be slept
//! on until the time limit, which fails the test.

mod fakes;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use fakes::e1000::FakeE1000;
use fakes::lock;
use pinwire::nic::e1000::E1000;
use pinwire::nic::{Nic, NicConfig, Waiting};

/// A wait that takes so long has lost its wake-up.
const LOST: Duration = Duration::from_secs(10);

fn config(waiting: Waiting) -> NicConfig {
    NicConfig::default()
        .rx_ring(8)
        .tx_ring(8)
        .waiting(waiting)
        .interrupt_interval(Duration::ZERO)
}

/// Has `deliver` bring one frame a round while `nic` waits, each a little later than the one before:
/// before the driver looks, between its look and its sleep, and when it sleeps.
fn every_frame_ends_a_wait(nic: &mut dyn Nic, rounds: u32, deliver: impl Fn() + Send) {
    let (go, started) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for round in started {
                let spins: u32 = round;
                for _ in 0..spins % 3000 {
                    std::hint::spin_loop();
                }
                deliver();
            }
        });
        let mut got = Vec::new();
        for round in 0..rounds {
            go.send(round).unwrap();
            let begin = Instant::now();
            while nic.recv(&mut got, 8).unwrap() == 0 {
                nic.wait(LOST).unwrap();
                assert!(
                    begin.elapsed() < LOST / 2,
                    "round {round}: slept on a frame"
                );
            }
            got.clear();
        }
        drop(go);
    });
}

#[test]
fn no_wake_up_of_an_e1000_is_lost() {
    for waiting in [Waiting::Interrupt, Waiting::Adaptive, Waiting::Poll] {
        let (fake, card) = FakeE1000::fake();
        let memory = std::sync::Arc::clone(fake.memory());
        let mut nic = E1000::start(fake, &config(waiting)).unwrap();
        every_frame_ends_a_wait(&mut nic, 6000, || {
            let mut card = lock(&card);
            card.inbox.push_back(vec![7; 60]);
            card.step_rx(&memory);
        });
    }
}

#[test]
fn who_polls_needs_no_interrupt_and_who_does_not_has_one() {
    let (fake, _card) = FakeE1000::fake();
    let mut nic = E1000::start(fake, &config(Waiting::Poll)).unwrap();
    assert!(!nic.wait(Duration::from_millis(5)).unwrap());
    let error = nic.pair_mut(0).arm().unwrap_err().to_string();
    assert!(error.contains("poll instead"), "{error}");
    assert!(nic.pair(0).irq().is_none());
}

#[test]
fn an_event_loop_can_hold_a_card() {
    use std::os::fd::{AsFd, AsRawFd};
    let (fake, card) = FakeE1000::fake();
    let memory = std::sync::Arc::clone(fake.memory());
    let mut nic: Box<dyn Nic> = Box::new(E1000::start(fake, &config(Waiting::Interrupt)).unwrap());
    let readable = |nic: &dyn Nic| {
        let mut poll = libc::pollfd {
            fd: nic.as_fd().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid `pollfd`.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    };
    let deliver = || {
        lock(&card).inbox.push_back(vec![7; 60]);
        lock(&card).step_rx(&memory);
    };
    assert!(!nic.pair_mut(0).arm().unwrap());
    assert!(!readable(&*nic), "nothing has come");
    deliver();
    assert!(readable(&*nic));
    nic.pair_mut(0).disarm().unwrap();
    assert!(!readable(&*nic), "the event was taken");
    assert_eq!(nic.recv(&mut Vec::new(), 8).unwrap(), 1);
    deliver();
    assert!(!readable(&*nic), "nobody asked for an interrupt");
    assert!(nic.pair_mut(0).arm().unwrap(), "something is there");
}

#[test]
fn a_restart_gives_back_what_was_in_flight_and_goes_on() {
    let (fake, card) = FakeE1000::fake();
    let memory = std::sync::Arc::clone(fake.memory());
    let mut nic = E1000::start(fake, &config(Waiting::Interrupt)).unwrap();
    let pool = pinwire::dma::Pool::new(nic.dma(), 8, 60).unwrap();
    let frame = |byte: u8| {
        let mut buf = pool.alloc().expect("a buffer");
        buf.fill(&[byte; 60]);
        pinwire::nic::Frame::from(buf)
    };
    lock(&card).eager = false;
    for _ in 0..3 {
        nic.send(&mut (1..=6).map(frame).collect()).unwrap();
        let back = nic.restart().unwrap();
        let bytes: Vec<u8> = back.iter().map(|frame| frame.to_vec()[0]).collect();
        assert_eq!(
            bytes,
            [1, 2, 3, 4, 5, 6],
            "in the order in which they were sent"
        );
        assert_eq!(nic.in_flight(), 0);
    }
    lock(&card).eager = true;
    nic.send(&mut vec![frame(9)]).unwrap();
    assert_eq!(nic.completed(&mut Vec::new()).unwrap(), 1);
    assert_eq!(lock(&card).sent, [vec![9; 60]]);
    lock(&card).inbox.push_back(vec![7; 60]);
    lock(&card).step_rx(&memory);
    assert_eq!(nic.recv(&mut Vec::new(), 8).unwrap(), 1);
}

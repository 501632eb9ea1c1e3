//! No wake-up is lost, wherever between the last look and the sleep a frame comes: a test that loses
//! one sleeps for a minute.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pinwire::backend::{Fake, FakeDevice, FakeMemory};
use pinwire::mmio::Place;
use pinwire::net::Forward;
use pinwire::nic::e1000::E1000;
use pinwire::nic::{Nic, NicConfig, Waiting};
use vmm_sys_util::eventfd::EventFd;

use crate::bytes;
use crate::fakes::e1000::FakeE1000;

const ICR: usize = 0x00c0;
const IMS: usize = 0x00d0;
const IMC: usize = 0x00d8;
/// What a wake-up that is lost costs.
const FOREVER: Duration = Duration::from_secs(60);
/// What one that is not may, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// When a frame comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The interrupt is about to be asked for: nobody is told.
    BeforeUnmask,
    /// It has just been asked for.
    AfterUnmask,
    /// It is about to be masked again.
    BeforeMask,
    /// It is masked, and the cause not yet read.
    AfterMask,
    /// The cause is about to be read, and is cleared by that.
    BeforeCause,
    /// The cause has been read.
    AfterCause,
}

/// An 8254x to which a frame comes at just that moment, every time.
struct Device {
    inner: FakeE1000,
    moment: Option<Moment>,
    came: usize,
}

impl Device {
    fn frame_comes(&mut self, moment: Moment, memory: &FakeMemory) {
        if self.moment == Some(moment) {
            self.inner.inbox.push_back(bytes(self.came, 60));
            self.came += 1;
            self.inner.step_rx(memory);
        }
    }
}

/// The device, and the memory that it writes to where a register is read.
struct Shared {
    device: Device,
    memory: Arc<Mutex<Option<Arc<FakeMemory>>>>,
}

impl FakeDevice for Shared {
    fn read(&mut self, place: Place) -> u64 {
        let memory = self.memory.lock().unwrap().clone();
        if let (ICR, Some(memory)) = (place.offset, &memory) {
            self.device.frame_comes(Moment::BeforeCause, memory);
        }
        let value = self.device.inner.read(place);
        if let (ICR, Some(memory)) = (place.offset, &memory) {
            self.device.frame_comes(Moment::AfterCause, memory);
        }
        value
    }

    fn write(&mut self, place: Place, value: u64, memory: &FakeMemory) {
        match place.offset {
            IMS => self.device.frame_comes(Moment::BeforeUnmask, memory),
            IMC => self.device.frame_comes(Moment::BeforeMask, memory),
            _ => {}
        }
        self.device.inner.write(place, value, memory);
        match place.offset {
            IMS => self.device.frame_comes(Moment::AfterUnmask, memory),
            IMC => self.device.frame_comes(Moment::AfterMask, memory),
            _ => {}
        }
    }

    fn config(&mut self) -> &mut [u8; 256] {
        self.device.inner.config()
    }

    fn connect_irq(&mut self, vector: usize, event: EventFd) {
        self.device.inner.connect_irq(vector, event);
    }

    fn unmask_irq(&mut self) {
        self.device.inner.unmask_irq();
    }
}

fn device() -> Arc<Mutex<Shared>> {
    let inner = Arc::into_inner(FakeE1000::new(0x100e))
        .unwrap()
        .into_inner()
        .unwrap();
    Arc::new(Mutex::new(Shared {
        device: Device {
            inner,
            moment: None,
            came: 0,
        },
        memory: Arc::default(),
    }))
}

fn start(fake: Fake, device: &Mutex<Shared>, waiting: Waiting) -> E1000<Fake> {
    let memory = Arc::clone(fake.memory());
    let config = NicConfig::default().waiting(waiting);
    let card = E1000::start(fake, &config).unwrap();
    *device.lock().unwrap().memory.lock().unwrap() = Some(memory);
    card
}

/// Waits until something has come in, then takes it; gives how many came.
fn wait_and_take(mut wait: impl FnMut(Duration) -> usize, what: impl std::fmt::Debug) -> usize {
    let begin = Instant::now();
    let mut came = 0;
    // One more wait may end for what was seen already.
    while came == 0 && begin.elapsed() < SOON {
        came = wait(FOREVER);
    }
    assert!(begin.elapsed() < SOON, "{what:?}: a wake-up was lost");
    came
}

const UNMASKING: [Moment; 2] = [Moment::BeforeUnmask, Moment::AfterUnmask];
const MASKING: [Moment; 4] = [
    Moment::BeforeMask,
    Moment::AfterMask,
    Moment::BeforeCause,
    Moment::AfterCause,
];

#[test]
fn a_frame_that_comes_between_look_and_sleep_wakes_one_card() {
    for waiting in [Waiting::Interrupt, Waiting::Adaptive] {
        for moment in UNMASKING {
            let device = device();
            let mut card = start(Fake::new(device.clone(), 0x20000), &device, waiting);
            device.lock().unwrap().device.moment = Some(moment);
            let mut got = Vec::new();
            for _ in 0..20 {
                let wait = |timeout| {
                    card.wait(timeout).unwrap();
                    card.recv(&mut got, 64).unwrap()
                };
                wait_and_take(wait, (waiting, moment));
            }
            let came = device.lock().unwrap().device.came;
            assert_eq!(got.len(), came, "{waiting:?} {moment:?}");
        }
    }
}

/// The next wait must see what came while the last one ended, when no interrupt will tell of it.
#[test]
fn a_frame_that_comes_as_a_wait_ends_is_seen_by_the_next() {
    for moment in MASKING {
        let device = device();
        let mut card = start(
            Fake::new(device.clone(), 0x20000),
            &device,
            Waiting::Interrupt,
        );
        let mut got = Vec::new();
        for _ in 0..20 {
            device.lock().unwrap().device.moment = Some(moment);
            // It ends for want of a frame, and then one comes.
            card.wait(Duration::ZERO).unwrap();
            device.lock().unwrap().device.moment = None;
            let wait = |timeout| {
                card.wait(timeout).unwrap();
                card.recv(&mut got, 64).unwrap()
            };
            wait_and_take(wait, moment);
        }
        assert_eq!(got.len(), device.lock().unwrap().device.came, "{moment:?}");
    }
}

#[test]
fn a_frame_that_comes_to_either_of_two_cards_wakes_both() {
    for waiting in [Waiting::Interrupt, Waiting::Adaptive] {
        for moment in UNMASKING {
            for which in [0, 1] {
                let devices = [device(), device()];
                let first = Fake::new(devices[0].clone(), 0x20000);
                let second = Fake::beside(devices[1].clone(), 0x20000, first.memory());
                let mut a = start(first, &devices[0], waiting);
                let mut b = start(second, &devices[1], waiting);
                devices[which].lock().unwrap().device.moment = Some(moment);
                let mut forward = Forward::new(&mut a, &mut b, 64).unwrap();
                for _ in 0..20 {
                    let wait = |timeout| {
                        forward.wait(timeout).unwrap();
                        forward.round(u64::MAX, None).unwrap()
                    };
                    wait_and_take(wait, (waiting, moment, which));
                }
                let came = devices[which].lock().unwrap().device.came;
                let sent = devices[1 - which].lock().unwrap().device.inner.sent.len();
                assert_eq!(sent, came, "{waiting:?} {moment:?} {which}");
            }
        }
    }
}

#[test]
fn a_card_that_sleeps_is_woken_from_another_thread() {
    let device = device();
    let mut card = start(
        Fake::new(device.clone(), 0x20000),
        &device,
        Waiting::Interrupt,
    );
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            let mut shared = device.lock().unwrap();
            let memory = shared.memory.lock().unwrap().clone().unwrap();
            shared.device.moment = Some(Moment::AfterMask);
            shared.device.frame_comes(Moment::AfterMask, &memory);
        });
        assert!(card.wait(FOREVER).unwrap());
    });
    assert!((Duration::from_millis(90)..SOON).contains(&begin.elapsed()));
}

#[test]
fn two_cards_to_whom_nothing_comes_sleep_as_long_as_they_may() {
    let devices = [device(), device()];
    let first = Fake::new(devices[0].clone(), 0x20000);
    let second = Fake::beside(devices[1].clone(), 0x20000, first.memory());
    let mut a = start(first, &devices[0], Waiting::Adaptive);
    let mut b = start(second, &devices[1], Waiting::Adaptive);
    let mut forward = Forward::new(&mut a, &mut b, 64).unwrap();
    let begin = Instant::now();
    assert!(!forward.wait(Duration::from_millis(120)).unwrap());
    assert!(begin.elapsed() >= Duration::from_millis(115));
}

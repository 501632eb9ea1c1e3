//! A BAR is as long as the device says: one in which a register of the driver has no place is refused
//! before the first access, with both sizes, and one that has just room enough is driven.

mod fakes;

use std::sync::{Arc, Mutex};

use fakes::e1000::FakeE1000;
use fakes::e1000e::FakeE1000e;
use fakes::virtio::net::{FakeVirtioNet, PLAIN};
use pinwire::backend::{Fake, FakeDevice, FakeMemory};
use pinwire::mmio::{Place, RegInfo};
use pinwire::nic::{NicConfig, e1000, e1000e};
use pinwire::{Error, open};

/// A device whose registers end where its BAR does: what reaches further is a bug of the driver.
struct Cut<D> {
    device: D,
    size: usize,
    accesses: usize,
}

impl<D: FakeDevice> FakeDevice for Cut<D> {
    fn read(&mut self, place: Place) -> u64 {
        self.accesses += 1;
        assert!(place.offset + place.width.bytes() <= self.size, "{place:?}");
        self.device.read(place)
    }

    fn write(&mut self, place: Place, value: u64, memory: &FakeMemory) {
        self.accesses += 1;
        assert!(place.offset + place.width.bytes() <= self.size, "{place:?}");
        self.device.write(place, value, memory);
    }

    fn config(&mut self) -> &mut [u8; 256] {
        self.device.config()
    }
}

/// Starting it with BARs of `size` bytes: what it says, and how many registers were touched.
fn start<D: FakeDevice + 'static>(device: D, size: usize) -> (Result<(), Error>, usize) {
    let accesses = 0;
    let device = Arc::new(Mutex::new(Cut {
        device,
        size,
        accesses,
    }));
    let started = open::start(Fake::new(device.clone(), size), &NicConfig::default());
    let started = started.map(drop);
    let accesses = device.lock().unwrap().accesses;
    (started, accesses)
}

fn is_refused<D: FakeDevice + 'static>(device: D, size: usize, needed: usize) {
    let (started, accesses) = start(device, size);
    let error = started.expect_err("no place for the registers").to_string();
    let both = format!("BAR 0 has {size:#x} bytes, and {needed:#x} bytes of memory are needed");
    assert!(error.contains(&both), "{error}");
    assert_eq!(accesses, 0, "{error}");
}

fn e1000() -> FakeE1000 {
    let device = Arc::into_inner(FakeE1000::new(0x100e)).expect("nobody else has it");
    device.into_inner().expect("nobody panicked with it")
}

#[test]
fn an_e1000_needs_all_registers_of_its_table() {
    let needed = RegInfo::size_of(e1000::regs::TABLE);
    for size in [0, 4, 4096, needed - 4] {
        is_refused(e1000(), size, needed);
    }
    start(e1000(), needed).0.expect("just enough");
}

#[test]
fn an_e1000e_needs_all_registers_of_its_table() {
    let needed = RegInfo::size_of(e1000e::regs::TABLE);
    for size in [0, 4, 4096, needed - 4] {
        is_refused(FakeE1000e::new(), size, needed);
    }
    start(FakeE1000e::new(), needed).0.expect("just enough");
}

#[test]
fn every_structure_of_a_virtio_card_must_be_inside_of_its_bar() {
    // Where the fake card has them, and where the last of them, the doorbells, ends.
    let ends = [0x3c, 0x1001, 0x2018, 0x4000];
    for (nth, end) in ends.into_iter().enumerate() {
        for size in [0, 4, end - 4] {
            let (started, accesses) = start(FakeVirtioNet::new(PLAIN), size);
            let error = started.expect_err("no place for a structure").to_string();
            assert!(error.contains(&format!("{size:#x}")), "{nth}: {error}");
            assert_eq!(accesses, 0, "{nth}: {error}");
        }
    }
    start(FakeVirtioNet::new(PLAIN), 0x4000)
        .0
        .expect("just enough");
}

#[test]
fn a_structure_that_ends_beyond_its_bar_is_refused() {
    for nth in 0..4 {
        for (offset, length) in [
            (0x4000, 4),
            (0x3ffc, 0x1000),
            (u32::MAX - 3, 4),
            (0x1000, u32::MAX),
        ] {
            let mut card = FakeVirtioNet::new(PLAIN);
            card.move_structure(nth, offset, length);
            let (started, accesses) = start(card, 0x4000);
            let error = started.expect_err("outside of the BAR").to_string();
            assert!(error.contains("0x4000"), "{nth}: {error}");
            assert_eq!(accesses, 0, "{nth}: {error}");
        }
    }
}

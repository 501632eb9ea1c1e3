//! Every claim about drivers on a fake chip, and what happens where that one lies.

mod chip;

use chip::{FakeCard, Lie, MAC, lock, start};
use own_driver::Driver;
use pinwire::Error;
use pinwire::backend::{Backend, Fake};
use pinwire::dma::DmaRegion;
use pinwire::nic::{NicConfig, Received};
use pinwire::open::Drivers;
use pinwire::testing::{Cards, Wire};

pinwire::conformance!(Cards::new(Drivers::none().with::<Driver>()).with(FakeCard));

fn frame(seed: u8, len: usize) -> Vec<u8> {
    [&MAC[..], &vec![seed; len - 6]].concat()
}

#[test]
fn a_frame_over_several_buffers_is_one_frame_and_dropped_for_its_length() {
    let (mut nic, cable) = start(&NicConfig::default()).unwrap();
    // One that ends where the second buffer begins has its check sequence there, by itself.
    for len in [1519, 1532, 1533, 1536, 1540, 4000] {
        cable.send(&frame(1, len));
    }
    let next = frame(2, 100);
    cable.send(&next);
    let mut got: Vec<Received> = Vec::new();
    assert_eq!(nic.recv(&mut got, 16).unwrap(), 1);
    assert_eq!(got[0].frame.to_vec(), next);
    assert_eq!((nic.dropped_longer(), nic.stats().rx_errors), (6, 0));
}

#[test]
fn a_length_that_cannot_be_stops_the_card_until_it_is_restarted() {
    let (mut nic, cable) = start(&NicConfig::default()).unwrap();
    lock(&cable.chip).lie = Lie::Length(8000);
    cable.send(&frame(1, 100));
    for _ in 0..2 {
        let error = nic.recv(&mut Vec::new(), 16).unwrap_err();
        assert!(matches!(error, Error::ProtocolViolation { .. }), "{error}");
        assert!(
            error.to_string().contains("7996 bytes in a buffer of 1536"),
            "{error}"
        );
    }
    lock(&cable.chip).lie = Lie::None;
    cable.send(&frame(2, 100));
    nic.restart().unwrap();
    cable.send(&frame(3, 100));
    let mut got: Vec<Received> = Vec::new();
    assert_eq!(nic.recv(&mut got, 16).unwrap(), 1);
    assert_eq!(got[0].frame.to_vec(), frame(3, 100));
}

#[test]
fn what_a_chip_without_buffers_drops_is_counted() {
    let config = NicConfig::default().rx_ring(4);
    let (mut nic, cable) = start(&config).unwrap();
    for seed in 0..6 {
        cable.send(&frame(seed, 100));
    }
    let mut got: Vec<Received> = Vec::new();
    assert_eq!(nic.recv(&mut got, 16).unwrap(), 4);
    assert_eq!(nic.stats().rx_missed, Some(2));
}

#[test]
fn memory_of_a_chip_that_does_not_stop_is_never_anybody_elses() {
    let (nic, cable) = start(&NicConfig::default()).unwrap();
    let rings = nic.rings();
    let mut had: Vec<u64> = Vec::new();
    for slot in rings.iter().flat_map(|ring| &ring.slots) {
        had.push(slot.iova.0 & !4095);
        had.extend(slot.buffer.map(|(iova, ..)| iova.0 & !4095));
    }
    assert!(had.len() > 64);
    lock(&cable.chip).lie = Lie::ResetNeverEnds;
    drop(nic);
    let neighbour = Fake::beside(cable.chip.clone(), 256, &cable.memory);
    for _ in 0..100 {
        let region = DmaRegion::alloc(neighbour.dma(), 4096).unwrap();
        assert!(!had.contains(&region.iova().0), "{region:?}");
        std::mem::forget(region);
    }
}

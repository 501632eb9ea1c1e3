//! Every claim of `pinwire::testing` on every card of ours, and what is peculiar to these.
//!
//! On the host: over each of QEMU's models, with the test at the other end of the cable, and over
//! fakes. In the VM (`tests/vm/card.rs` starts it there): over VFIO with
//! `PINWIRE_DEVICE=0000:00:03.0`, and the kernel's driver on a twin card, `PINWIRE_WIRE=eth0`, at the
//! other end. What has passed is noted in the file `PINWIRE_TABLE`, for `qemu/table`.
#![cfg(feature = "testing")]

#[path = "../common/mod.rs"]
mod common;
mod fake_cards;
#[path = "../fakes/mod.rs"]
mod fakes;
mod peculiar;

use pinwire::open::Drivers;
use pinwire::testing::Cards;

const MODELS: [&str; 7] = [
    "qtest:e1000",
    "qtest:e1000-82544gc",
    "qtest:e1000-82545em",
    "qtest:e1000e",
    "qtest:virtio-net",
    "qtest:virtio-net,packed=on",
    "qtest:virtio-net,event_idx=off,indirect_desc=off,modern-pio-notify=on",
];

/// Every card at hand, and the fake ones.
fn cards() -> Cards {
    let models = Cards::new(Drivers::default());
    let models = MODELS.into_iter().fold(models, Cards::model);
    let fakes = fake_cards::CARDS.into_iter();
    fakes.fold(models, |cards, name| cards.with(fake_cards::FakeCard(name)))
}

pinwire::conformance!(cards());

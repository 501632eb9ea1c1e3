//! What a real 82574 refuses and QEMU's model forgives: the driver against a device that complains. The
//! driver's table of these is `src/nic/intel/quirks.rs`.

mod fakes;

use std::sync::{Arc, Mutex};

use fakes::e1000e::{FakeE1000e, MAC};
use fakes::lock;
use pinwire::backend::{Backend, Fake};
use pinwire::mmio::Mmio;
use pinwire::nic::e1000e::E1000e;
use pinwire::nic::{Nic, NicConfig};
use pinwire::pci::config::Config;
use pinwire::pci::express::{Aspm, aspm};

fn start(fake: Fake, device: &Mutex<FakeE1000e>, config: &NicConfig) -> E1000e<Fake> {
    let card = E1000e::start(fake, config).expect("a card that behaves starts");
    is_content(device);
    card
}

fn is_content(device: &Mutex<FakeE1000e>) {
    let complaints = &lock(device).complaints;
    assert!(complaints.is_empty(), "{complaints:?}");
}

fn started() -> (E1000e<Fake>, Arc<Mutex<FakeE1000e>>) {
    let (fake, device) = FakeE1000e::fake();
    let card = start(fake, &device, &NicConfig::default());
    (card, device)
}

#[test]
fn it_is_quiet_for_10_ms_and_owns_the_mdio_lines_before_a_reset_and_waits_25_ms_after_auto_rd() {
    let (mut card, device) = started();
    card.restart().unwrap();
    card.stop().unwrap();
    drop(card);
    is_content(&device);
    assert_eq!(lock(&device).resets, 3);
}

#[test]
fn it_waits_for_a_firmware_that_has_the_mdio_lines_and_gives_them_back() {
    let (fake, device) = FakeE1000e::fake();
    lock(&device).firmware_keeps = 3;
    let card = start(fake, &device, &NicConfig::default());
    assert_eq!(card.mac().0, MAC);
    assert_eq!(card.bar().read32(0x0f00) & 0x20, 0, "they are its again");
}

#[test]
fn a_firmware_that_never_lets_go_does_not_keep_the_card_from_starting() {
    let (fake, device) = FakeE1000e::fake();
    lock(&device).firmware_keeps = usize::MAX;
    assert!(E1000e::start(fake, &NicConfig::default()).is_ok());
}

#[test]
fn ctrl_bit_29_is_clear_before_it_transmits() {
    let (mut card, device) = started();
    assert_eq!(card.bar().read32(0) & 1 << 29, 0);
    card.restart().unwrap();
    is_content(&device);
}

#[test]
fn aspm_is_off() {
    let (fake, device) = FakeE1000e::fake();
    assert_eq!(aspm(&fake).unwrap(), Aspm::L0S | Aspm::L1);
    let _card = start(fake, &device, &NicConfig::default());
    use pinwire::backend::FakeDevice;
    assert_eq!(lock(&device).config()[0xf0], 0x40, "and nothing else");
}

#[test]
fn aspm_of_a_function_without_a_link_is_nothing() {
    let (fake, _) = fakes::e1000::FakeE1000::fake();
    assert_eq!(fake.disable_aspm().unwrap(), Aspm::empty());
    assert!(fake.capabilities().unwrap().is_empty());
}

#[test]
fn a_phy_that_a_kernel_powered_down_is_powered_up() {
    let (fake, device) = FakeE1000e::fake();
    lock(&device).bmcr |= 1 << 11;
    let card = start(fake, &device, &NicConfig::default());
    assert!(card.link().up);
    assert_eq!(lock(&device).bmcr, 0x1140);
}

#[test]
fn the_packet_buffer_is_halved_whatever_a_kernel_left() {
    let (fake, device) = FakeE1000e::fake();
    // Linux leaves 32 of 40 KB to reception: a frame of 9 KiB would never leave.
    fake.map_bar(0, 0x1004).unwrap().write32(0x1000, 32);
    let config = NicConfig::default().max_frame(9000);
    let _card = start(fake, &device, &config);
    assert_eq!(lock(&device).pba, 20);
}

#[test]
fn short_frames_are_left_to_the_hardware_which_pads_them_well() {
    let (mut card, device) = started();
    let pool = pinwire::dma::Pool::new(card.dma(), 1, 64).unwrap();
    let mut buf = pool.alloc().unwrap();
    buf.fill(&[7; 17]);
    card.send(&mut vec![buf.into()]).unwrap();
    assert_eq!(lock(&device).sent, [(0, vec![7; 17])]);
}

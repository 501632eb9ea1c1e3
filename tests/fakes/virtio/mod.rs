//! Fake virtio devices, and the device's side of a virtqueue.

pub mod net;
pub mod queue;

use pinwire::backend::{FakeDevice, FakeMemory};
use pinwire::mmio::Place;

/// A function without registers: only its memory is of interest.
pub struct NoDevice(pub [u8; 256]);

impl FakeDevice for NoDevice {
    fn read(&mut self, _: Place) -> u64 {
        0
    }

    fn write(&mut self, _: Place, _: u64, _: &FakeMemory) {}

    fn config(&mut self) -> &mut [u8; 256] {
        &mut self.0
    }
}

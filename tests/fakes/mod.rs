//! Our own devices in software, for [`Fake`](pinwire::backend::Fake): a fake is one of these, a model is
//! QEMU's. Each is written from the datasheet or the specification with constants of its own, so that it
//! can disagree with the driver; it watches for what real silicon refuses, and lies where it is told to.

#![allow(dead_code, reason = "each test uses some of it")]

pub mod e1000;
pub mod e1000e;
pub mod nvme;
pub mod silicon;
pub mod virtio;

use std::sync::{Mutex, MutexGuard};

/// The device, which a panicking test must not hide.
pub fn lock<T>(device: &Mutex<T>) -> MutexGuard<'_, T> {
    device
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

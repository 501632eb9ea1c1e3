//! A backend wrapped in another pair of eyes: every register access passes by a [`Watch`].
//!
//! A watch that only looks tells a learner what the driver does (`--explain`); one that changes what
//! is read or swallows what is written is a device that misbehaves, for tests.

use std::sync::Arc;

use super::Backend;
use crate::dma::DmaSpace;
use crate::error::Result;
use crate::irq::{Irq, IrqKind, Removal};
use crate::mmio::{Mmio, Place, Width};
use crate::pci::config::Config;
use crate::pci::express::Aspm;

/// Sees every register access, and may change it.
pub trait Watch: Send + Sync {
    /// The device gave `value`; what the driver shall see instead.
    fn read(&self, place: Place, value: u64) -> u64 {
        let _ = place;
        value
    }

    /// The driver writes `value`; what the device shall see instead, or nothing.
    fn write(&self, place: Place, value: u64) -> Option<u64> {
        let _ = place;
        Some(value)
    }
}

/// A [`Backend`] whose register accesses are watched.
pub struct Watched<B> {
    inner: B,
    watch: Arc<dyn Watch>,
}

impl<B: Backend> Watched<B> {
    /// `inner`, seen by `watch`.
    pub fn new(inner: B, watch: Arc<dyn Watch>) -> Self {
        Self { inner, watch }
    }
}

impl<B: Backend> Config for Watched<B> {
    fn read(&self, offset: u16, into: &mut [u8]) -> Result<()> {
        self.inner.read(offset, into)
    }

    fn write(&self, offset: u16, from: &[u8]) -> Result<()> {
        self.inner.write(offset, from)
    }
}

impl<B: Backend> Backend for Watched<B> {
    type Bar = WatchedBar<B::Bar>;

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn map_bar(&self, index: u8, least: usize) -> Result<Self::Bar> {
        Ok(WatchedBar {
            inner: self.inner.map_bar(index, least)?,
            watch: Arc::clone(&self.watch),
            bar: index,
        })
    }

    fn map_ports(&self, least: usize) -> Result<Self::Bar> {
        Ok(WatchedBar {
            inner: self.inner.map_ports(least)?,
            watch: Arc::clone(&self.watch),
            bar: self.inner.io_bar()?.unwrap_or_default(),
        })
    }

    fn disable_aspm(&self) -> Result<Aspm> {
        self.inner.disable_aspm()
    }

    fn dma(&self) -> &Arc<dyn DmaSpace> {
        self.inner.dma()
    }

    fn interrupts(&self, kind: IrqKind, count: usize) -> Result<Vec<Irq>> {
        self.inner.interrupts(kind, count)
    }

    fn reset(&self) -> Result<bool> {
        self.inner.reset()
    }

    fn has_iommu(&self) -> bool {
        self.inner.has_iommu()
    }

    fn removal(&self) -> Arc<Removal> {
        self.inner.removal()
    }

    fn check_present(&self) -> Result<()> {
        self.inner.check_present()
    }
}

/// The BAR of a [`Watched`].
#[derive(Clone)]
pub struct WatchedBar<M> {
    inner: M,
    watch: Arc<dyn Watch>,
    bar: u8,
}

impl<M> WatchedBar<M> {
    fn place(&self, offset: usize, width: Width) -> Place {
        Place {
            bar: self.bar,
            offset,
            width,
        }
    }
}

impl<M: Mmio> Mmio for WatchedBar<M> {
    fn size(&self) -> usize {
        self.inner.size()
    }

    fn read(&self, offset: usize, width: Width) -> u64 {
        let value = self.inner.read(offset, width);
        self.watch.read(self.place(offset, width), value)
    }

    fn write(&self, offset: usize, width: Width, value: u64) {
        if let Some(value) = self.watch.write(self.place(offset, width), value) {
            self.inner.write(offset, width, value);
        }
    }
}

//! A backend wrapped in another pair of eyes: every register access passes by a [`Watch`].
//!
//! A watch that only looks tells a learner what the driver does (`--explain`); one that changes what
//! is read or swallows what is written is a device that misbehaves, for tests.

use std::sync::Arc;

use super::Backend;
use crate::dma::DmaSpace;
use crate::error::Result;
use crate::irq::{Irq, IrqKind};
use crate::mmio::Mmio;
use crate::pci::config::Config;

/// Sees every register access, and may change it.
pub trait Watch: Send + Sync {
    /// The device gave `value`; what the driver shall see instead.
    fn read32(&self, offset: usize, value: u32) -> u32 {
        let _ = offset;
        value
    }

    /// The driver writes `value`; what the device shall see instead, or nothing.
    fn write32(&self, offset: usize, value: u32) -> Option<u32> {
        let _ = offset;
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

    fn map_bar(&self, index: u8) -> Result<Self::Bar> {
        Ok(WatchedBar {
            inner: self.inner.map_bar(index)?,
            watch: Arc::clone(&self.watch),
        })
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
}

/// The BAR of a [`Watched`].
#[derive(Clone)]
pub struct WatchedBar<M> {
    inner: M,
    watch: Arc<dyn Watch>,
}

impl<M: Mmio> Mmio for WatchedBar<M> {
    fn size(&self) -> usize {
        self.inner.size()
    }

    fn read32(&self, offset: usize) -> u32 {
        self.watch.read32(offset, self.inner.read32(offset))
    }

    fn write32(&self, offset: usize, value: u32) {
        if let Some(value) = self.watch.write32(offset, value) {
            self.inner.write32(offset, value);
        }
    }
}

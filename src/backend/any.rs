//! A function that is reached in whichever way was named at run time, as one type.
//!
//! A driver is generic over its [`Backend`], and a list of drivers cannot hold what is generic. So what the list
//! starts is started over this one: a `match` stands before each register access, beside which it costs nothing, and
//! none per packet.

use std::sync::Arc;

use super::{Backend, Fake, FakeBar, Qtest, QtestBar, Vfio, VfioBar, Watch, Watched, WatchedBar};
use crate::dma::DmaSpace;
use crate::error::Result;
use crate::irq::{Irq, IrqKind, Removal};
use crate::mmio::{Mmio, Width};
use crate::pci::config::Config;
use crate::pci::express::Aspm;

/// One of this crate's backends.
pub enum AnyBackend {
    /// A real function, over VFIO.
    Vfio(Vfio),
    /// A device model of QEMU.
    Qtest(Qtest),
    /// A device that a test plays.
    Fake(Fake),
    /// Any of these, with somebody who sees every register access.
    Watched(Box<Watched<AnyBackend>>),
}

impl AnyBackend {
    /// The same, seen by `watch`.
    pub fn watched(self, watch: Arc<dyn Watch>) -> Self {
        Self::Watched(Box::new(Watched::new(self, watch)))
    }
}

impl From<Vfio> for AnyBackend {
    fn from(backend: Vfio) -> Self {
        Self::Vfio(backend)
    }
}

impl From<Qtest> for AnyBackend {
    fn from(backend: Qtest) -> Self {
        Self::Qtest(backend)
    }
}

impl From<Fake> for AnyBackend {
    fn from(backend: Fake) -> Self {
        Self::Fake(backend)
    }
}

/// Evaluates `$body` with the backend, or BAR, in `$any`.
macro_rules! each {
    ($kind:ident, $any:expr, $one:ident => $body:expr) => {
        match $any {
            $kind::Vfio($one) => $body,
            $kind::Qtest($one) => $body,
            $kind::Fake($one) => $body,
            $kind::Watched($one) => $body,
        }
    };
}

impl Config for AnyBackend {
    fn read(&self, offset: u16, into: &mut [u8]) -> Result<()> {
        each!(Self, self, one => one.read(offset, into))
    }

    fn write(&self, offset: u16, from: &[u8]) -> Result<()> {
        each!(Self, self, one => one.write(offset, from))
    }
}

/// Maps with `$map`, and wraps the BAR as its backend is.
macro_rules! wrapped {
    ($any:expr, $one:ident => $map:expr) => {
        match $any {
            AnyBackend::Vfio($one) => AnyBar::Vfio($map),
            AnyBackend::Qtest($one) => AnyBar::Qtest($map),
            AnyBackend::Fake($one) => AnyBar::Fake($map),
            AnyBackend::Watched($one) => AnyBar::Watched(Box::new($map)),
        }
    };
}

impl Backend for AnyBackend {
    type Bar = AnyBar;

    fn name(&self) -> &str {
        each!(Self, self, one => one.name())
    }

    fn map_bar(&self, index: u8, least: usize) -> Result<AnyBar> {
        Ok(wrapped!(self, one => one.map_bar(index, least)?))
    }

    fn map_ports(&self, least: usize) -> Result<AnyBar> {
        Ok(wrapped!(self, one => one.map_ports(least)?))
    }

    fn disable_aspm(&self) -> Result<Aspm> {
        each!(Self, self, one => one.disable_aspm())
    }

    fn dma(&self) -> &Arc<dyn DmaSpace> {
        each!(Self, self, one => one.dma())
    }

    fn interrupts(&self, kind: IrqKind, count: usize) -> Result<Vec<Irq>> {
        each!(Self, self, one => one.interrupts(kind, count))
    }

    fn reset(&self) -> Result<bool> {
        each!(Self, self, one => one.reset())
    }

    fn has_iommu(&self) -> bool {
        each!(Self, self, one => one.has_iommu())
    }

    fn removal(&self) -> Arc<Removal> {
        each!(Self, self, one => one.removal())
    }

    fn is_absent(&self) -> bool {
        each!(Self, self, one => one.is_absent())
    }

    fn check_present(&self) -> Result<()> {
        each!(Self, self, one => one.check_present())
    }
}

/// The BAR of an [`AnyBackend`].
#[derive(Clone)]
pub enum AnyBar {
    /// BAR of a [`Vfio`].
    Vfio(VfioBar),
    /// BAR of a [`Qtest`].
    Qtest(QtestBar),
    /// BAR of a [`Fake`].
    Fake(FakeBar),
    /// BAR of a [`Watched`].
    Watched(Box<WatchedBar<AnyBar>>),
}

impl Mmio for AnyBar {
    fn size(&self) -> usize {
        each!(Self, self, one => one.size())
    }

    #[inline]
    fn read(&self, offset: usize, width: Width) -> u64 {
        each!(Self, self, one => one.read(offset, width))
    }

    #[inline]
    fn write(&self, offset: usize, width: Width, value: u64) {
        each!(Self, self, one => one.write(offset, width, value));
    }
}

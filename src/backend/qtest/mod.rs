//! QEMU's own device models on this host: no guest, no root, no kernel driver.
//!
//! QEMU runs with a processor that sleeps. Its test protocol (qtest) reaches the model's registers,
//! one line an access; its RAM is a file that we map too, so the model's DMA lands in our memory;
//! its interrupt line comes as an eventfd. QEMU is started and stopped with the [`Qtest`].

mod config;
mod files;
mod intx;
mod memory;
mod monitor;
mod qemu;
mod spec;
mod wire;

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use spec::{Peer, QtestSpec};

use self::config::{Bar, INTA, Ports};
use self::files::Files;
use self::intx::Intx;
use self::memory::Memory;
use self::monitor::Monitor;
use self::qemu::{Launch, Qemu};
use self::wire::Wire;
use super::Backend;
use crate::dma::DmaSpace;
use crate::error::{Error, Result};
use crate::irq::{Irq, IrqKind};
use crate::mmio::Mmio;
use crate::pci::config::{Command, Config};

/// How long QEMU may take for one answer, the first one included: it comes within a second, but the
/// machine may be busy.
const BOUND: Duration = Duration::from_secs(20);

/// One of QEMU's device models, reached over qtest.
pub struct Qtest {
    name: String,
    wire: Arc<Wire>,
    ports: Ports,
    bars: Vec<Bar>,
    intx: Arc<Intx>,
    dma: Arc<dyn DmaSpace>,
    qemu: Qemu,
    /// Starts QEMU and reads its answers.
    reader: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Qtest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Qtest({}, QEMU is process {})",
            self.name,
            self.qemu.pid()
        )
    }
}

impl Qtest {
    /// Starts QEMU with the device that `spec` names, and gives the device's BARs addresses.
    ///
    /// # Errors
    /// [`Error::Qemu`] where QEMU is missing, too old, or does not come up: with its own words.
    pub fn start(spec: &QtestSpec) -> Result<Self> {
        let start = Instant::now();
        let (launch, ends) = Launch::new(spec)?;
        let name = spec.name();
        let wire = Arc::new(Wire::new(ends.qtest, BOUND)?);
        let monitor = Monitor::new(ends.monitor, BOUND)?;
        let files = Files::new(Arc::clone(&wire), monitor);
        let dma = Memory::new(name.clone(), &ends.ram, files)?;
        let intx = Arc::new(Intx::default());

        let (started, starting) = mpsc::channel();
        let (their_wire, their_intx) = (Arc::clone(&wire), Arc::clone(&intx));
        let reader = std::thread::Builder::new()
            .name("qtest".to_owned())
            .spawn(move || {
                let qemu = launch.spawn();
                let up = qemu.is_ok();
                if started.send(qemu).is_ok() && up {
                    their_wire.read(|edge| {
                        if edge.line == INTA {
                            their_intx.set(edge.high);
                        }
                    });
                    their_intx.hang_up();
                }
            })
            .map_err(|error| Error::io("starting a thread", error))?;
        let mut qemu = starting.recv().map_err(|_| Error::Qemu {
            what: "the thread that starts QEMU has panicked".to_owned(),
            remedy: "see its message above".to_owned(),
        })??;

        // The interrupt controller's inputs come to us, not to it.
        let answer = wire.ask(format_args!("irq_intercept_in ioapic"));
        if answer.is_none() {
            return Err(qemu.failure(start.elapsed() >= BOUND));
        }
        let ports = Ports::new(Arc::clone(&wire));
        let bars = ports.assign_bars()?;
        tracing::debug!(
            "{name}: QEMU (process {}) came up in {:?}; BARs: {bars:x?}",
            qemu.pid(),
            start.elapsed()
        );
        Ok(Self {
            name,
            wire,
            ports,
            bars,
            intx,
            dma,
            qemu,
            reader: Some(reader),
        })
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.qemu.pid()
    }
}

impl Drop for Qtest {
    fn drop(&mut self) {
        // What still has the BAR or a mapping sees a device that is gone. The thread ends with the
        // socket, and QEMU with the thread, if it were not killed by the field that is dropped next.
        self.wire.close();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Config for Qtest {
    fn read(&self, offset: u16, into: &mut [u8]) -> Result<()> {
        self.ports.read(offset, into)
    }

    fn write(&self, offset: u16, from: &[u8]) -> Result<()> {
        self.ports.write(offset, from)
    }
}

impl Backend for Qtest {
    type Bar = QtestBar;

    fn name(&self) -> &str {
        &self.name
    }

    fn map_bar(&self, index: u8) -> Result<QtestBar> {
        let found = self.bars.iter().find(|bar| bar.index == index);
        let Some(bar) = found else {
            let there: Vec<_> = self.bars.iter().map(|bar| bar.index.to_string()).collect();
            return Err(Error::NotOffered {
                device: self.name.clone(),
                what: format!("map BAR {index}; its memory BARs are: {}", there.join(", ")),
            });
        };
        self.command(Command::MEMORY, Command::empty())?;
        Ok(QtestBar {
            wire: Arc::clone(&self.wire),
            base: bar.base,
            size: bar.size as usize,
        })
    }

    fn dma(&self) -> &Arc<dyn DmaSpace> {
        &self.dma
    }

    fn interrupts(&self, kind: IrqKind, count: usize) -> Result<Vec<Irq>> {
        self.intx.disconnect();
        match (kind, count) {
            (_, 0) => Ok(Vec::new()),
            (IrqKind::Intx, 1) => {
                self.command(Command::empty(), Command::INTX_DISABLE)?;
                Ok(vec![self.intx.connect(&self.wire)?])
            }
            _ => Err(Error::NotOffered {
                device: self.name.clone(),
                what: format!("{count} interrupts of kind {kind:?}; over qtest there is one INTx"),
            }),
        }
    }

    /// A function on QEMU's root bus has no reset of the bus's own.
    fn reset(&self) -> Result<bool> {
        Ok(false)
    }

    fn has_iommu(&self) -> bool {
        false
    }
}

/// A BAR of a [`Qtest`]: each access is a line on a socket.
#[derive(Clone)]
pub struct QtestBar {
    wire: Arc<Wire>,
    base: u64,
    size: usize,
}

impl QtestBar {
    fn address(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(4) && offset < self.size);
        self.base + offset as u64
    }
}

impl Mmio for QtestBar {
    fn size(&self) -> usize {
        self.size
    }

    fn read32(&self, offset: usize) -> u32 {
        let request = format_args!("readl {:#x}", self.address(offset));
        self.wire
            .ask(request)
            .map_or(u32::MAX, |value| value as u32)
    }

    fn write32(&self, offset: usize, value: u32) {
        let address = self.address(offset);
        self.wire
            .post(format_args!("writel {address:#x} {value:#x}"));
    }
}

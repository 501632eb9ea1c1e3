//! QEMU's own device models on this host: no guest, no root, no kernel driver.
//!
//! QEMU runs with a processor that sleeps. Its test protocol (qtest) reaches the model's registers,
//! one line an access; its RAM is a file that we map too, so the model's DMA lands in our memory;
//! its interrupts come as eventfds. QEMU is started and stopped with the [`Qtest`].

mod cable;
mod config;
mod control;
mod files;
mod intx;
mod machine;
mod mailbox;
mod memory;
mod monitor;
mod msi;
mod qemu;
mod spec;
mod wire;

use std::borrow::Borrow;
use std::sync::{Arc, Mutex};

pub use cable::UdpPort;
pub use control::QtestControl;
pub use spec::{Peer, QtestSpec};

use self::config::{Bar, Ports, slots};
use self::intx::Intx;
use self::machine::Machine;
use self::mailbox::{VECTORS, Vectors};
use self::wire::{Wire, lock};
use super::{Backend, Found, unusable_bar};
use crate::dma::DmaSpace;
use crate::error::{Error, Result};
use crate::irq::{Irq, IrqKind, Removal};
use crate::mmio::{Mmio, Width};
use crate::pci::config::{Command, Config};

/// One of QEMU's device models, reached over qtest.
pub struct Qtest {
    ports: Ports,
    bars: Vec<Bar>,
    intx: Arc<Intx>,
    /// Messages that are turned on.
    vectors: Mutex<Option<Vectors>>,
    control: QtestControl,
    machine: Arc<Machine>,
}

impl std::fmt::Debug for Qtest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Qtest({}, QEMU is process {})", self.name(), self.pid())
    }
}

impl Qtest {
    /// Starts QEMU with the device that `spec` names, and gives the device's BARs addresses.
    ///
    /// # Errors
    /// [`Error::Qemu`] where QEMU is missing, too old, or does not come up: with its own words.
    pub fn start(spec: &QtestSpec) -> Result<Self> {
        let mut all = Self::start_all(&[spec])?;
        Ok(all.remove(0))
    }

    /// Starts one QEMU with all the devices: they reach the same memory, and those on hubs of the same
    /// number reach each other. It ends with the last of them.
    ///
    /// # Errors
    /// As [`Qtest::start`]; [`Error::Usage`] where there are none, or too many.
    pub fn start_all(specs: &[impl Borrow<QtestSpec>]) -> Result<Vec<Self>> {
        let specs: Vec<&QtestSpec> = specs.iter().map(Borrow::borrow).collect();
        let most = slots().len();
        if !(1..=most).contains(&specs.len()) {
            let asked = specs.len();
            return Err(Error::Usage(format!(
                "{asked} devices in one QEMU: it takes 1 to {most}"
            )));
        }
        let names = specs.iter().zip(1..).map(|(spec, number)| match specs[..] {
            [_] => spec.name(),
            _ => format!("{}#{number}", spec.name()),
        });
        let names: Vec<String> = names.collect();
        let (machine, lines) = Machine::start(&names.join(", "), &specs)?;
        let machine = Arc::new(machine);
        let each = slots().zip(specs).zip(names).zip(lines);
        each.map(|(((slot, spec), name), intx)| {
            let (port, ports, bars) = if spec.hotplug {
                let (port, ports, bars) = control::below_a_port(&machine.bridge, slot)?;
                (Some(Arc::new(port)), ports, bars)
            } else {
                let ports = Ports::new(Arc::clone(&machine.bridge), 0, slot);
                let bars = ports.assign_bars()?;
                (None, ports, bars)
            };
            tracing::debug!("{name}: BARs: {bars:x?}");
            let control = QtestControl {
                removal: Removal::of(name.as_str()),
                name,
                slot,
                port,
                machine: Arc::downgrade(&machine),
            };
            super::set_intx(&ports, false)?;
            Ok(Self {
                ports,
                bars,
                intx,
                vectors: Mutex::default(),
                control,
                machine: Arc::clone(&machine),
            })
        })
        .collect()
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.machine.pid()
    }

    /// Handle for what can be done to the device from outside, also after a driver has it.
    pub fn control(&self) -> QtestControl {
        self.control.clone()
    }

    fn disable_interrupts(&self) -> Result<()> {
        super::set_intx(self, false)?;
        self.intx.disconnect();
        if let Some(vectors) = lock(&self.vectors).take() {
            msi::disable(self)?;
            // After it: nobody else gets a vector that may still be written to.
            drop(vectors);
        }
        Ok(())
    }
}

/// The function is left quiet, as its neighbours may live on: no interrupt, no DMA.
impl Drop for Qtest {
    fn drop(&mut self) {
        let quiet = self.disable_interrupts();
        let quiet = quiet.and_then(|()| self.command(Command::empty(), Command::BUS_MASTER));
        if let Err(error) = quiet {
            tracing::debug!(name = self.name(), %error, "leaving it quiet");
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
        &self.control.name
    }

    fn map_bar(&self, index: u8, least: usize) -> Result<QtestBar> {
        let found = self.bars.iter().find(|bar| bar.index == index);
        let memory = found.filter(|bar| !bar.is_io);
        let Some(bar) = memory.filter(|bar| bar.size >= least as u64) else {
            let found = match found {
                None => Found::Nothing,
                Some(bar) if bar.is_io => Found::Ports(bar.size),
                Some(bar) => Found::Memory(bar.size),
            };
            return Err(unusable_bar(self.name(), index, found, least));
        };
        self.command(Command::MEMORY, Command::empty())?;
        Ok(QtestBar {
            wire: Arc::clone(&self.machine.wire),
            base: bar.base,
            size: bar.size as usize,
            removal: Arc::clone(&self.control.removal),
        })
    }

    fn dma(&self) -> &Arc<dyn DmaSpace> {
        &self.machine.dma
    }

    fn interrupts(&self, kind: IrqKind, count: usize) -> Result<Vec<Irq>> {
        self.disable_interrupts()?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let has = msi::count(self, kind)?;
        let refused = |why: String| Error::NotOffered {
            device: self.name().to_owned(),
            what: format!("{count} {kind:?} interrupts: {why}"),
        };
        if count > has {
            return Err(refused(format!("it has {has}")));
        }
        if kind == IrqKind::Intx {
            let mut irqs = vec![self.intx.connect(&self.machine.wire)?];
            super::set_intx(self, true)?;
            self.control.removal.wakes_all(&mut irqs)?;
            return Ok(irqs);
        }
        // The data of an MSI has 16 bits.
        let among = if kind == IrqKind::Msi { 16 } else { VECTORS };
        let connected = self.machine.mailbox.connect(count, among)?;
        let (vectors, mut irqs) = connected.ok_or_else(|| {
            refused(format!(
                "over qtest there are {VECTORS} for all devices of one QEMU"
            ))
        })?;
        self.command(Command::MEMORY, Command::empty())?;
        let wire = &self.machine.wire;
        msi::enable(self, kind, vectors.messages(), &self.bars, wire)?;
        *lock(&self.vectors) = Some(vectors);
        self.control.removal.wakes_all(&mut irqs)?;
        Ok(irqs)
    }

    /// A function on QEMU's root bus has no reset of the bus's own.
    fn reset(&self) -> Result<bool> {
        Ok(false)
    }

    fn has_iommu(&self) -> bool {
        false
    }

    fn removal(&self) -> Arc<Removal> {
        Arc::clone(&self.control.removal)
    }
}

/// A BAR of a [`Qtest`]: each access is a line on a socket.
#[derive(Clone)]
pub struct QtestBar {
    wire: Arc<Wire>,
    base: u64,
    size: usize,
    /// Announces that the device is out of its slot. QEMU reads zeros from an empty slot, the PCI bus all ones.
    removal: Arc<Removal>,
}

impl QtestBar {
    fn address(&self, offset: usize, width: Width) -> u64 {
        let past = offset.checked_add(width.bytes());
        assert!(offset.is_multiple_of(width.bytes()) && past.is_some_and(|past| past <= self.size));
        self.base + offset as u64
    }
}

fn suffix(width: Width) -> char {
    match width {
        Width::One => 'b',
        Width::Two => 'w',
        Width::Four => 'l',
        Width::Eight => 'q',
    }
}

impl Mmio for QtestBar {
    fn size(&self) -> usize {
        self.size
    }

    fn read(&self, offset: usize, width: Width) -> u64 {
        let (suffix, address) = (suffix(width), self.address(offset, width));
        let value = self.wire.ask(format_args!("read{suffix} {address:#x}"));
        let value = value.filter(|_| !self.removal.is_announced());
        value.map_or(width.ones(), |value| value & width.ones())
    }

    fn write(&self, offset: usize, width: Width, value: u64) {
        let (suffix, address) = (suffix(width), self.address(offset, width));
        let value = value & width.ones();
        self.wire
            .post(format_args!("write{suffix} {address:#x} {value:#x}"));
    }
}

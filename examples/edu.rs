//! A whole driver, as small as they come: for QEMU's `edu`, a device made to learn on.
//!
//!     edu qtest:edu            QEMU's model on this host
//!     edu 0000:00:05.0         one that is bound to vfio-pci
//!     edu 0000:00:05.0 intx    by the interrupt wire, not by a message
//!
//! Registers are those of QEMU's `docs/specs/edu.txt`.

use std::error::Error;
use std::time::{Duration, Instant};

use pinwire::backend::Backend;
use pinwire::barrier::{dma_rmb, dma_wmb};
use pinwire::device::{DeviceSpec, Driver};
use pinwire::dma::DmaRegion;
use pinwire::irq::{Irq, IrqKind};
use pinwire::mmio::{Mmio, ReadOnly, ReadWrite, Reg, WriteOnly};
use pinwire::pci::config::Command;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

const IDENTIFICATION: Reg<u32, ReadOnly> = Reg::at(0x00); // 0xRRrr00ed, version RR.rr
const FACTORIAL: Reg<u32, ReadWrite> = Reg::at(0x08); // n goes in, n! comes out
const STATUS: Reg<u32, ReadWrite> = Reg::at(0x20);
const INTERRUPT: Reg<u32, ReadOnly> = Reg::at(0x24); // its causes
const ACKNOWLEDGE: Reg<u32, WriteOnly> = Reg::at(0x64); // clears the causes that are written
const DMA_SOURCE: Reg<u64, ReadWrite, u64> = Reg::at(0x80); // an IOVA, or an address in its buffer
const DMA_TARGET: Reg<u64, ReadWrite, u64> = Reg::at(0x88); // the other of these
const DMA_COUNT: Reg<u32, ReadWrite> = Reg::at(0x90); // bytes
const DMA_COMMAND: Reg<u32, ReadWrite> = Reg::at(0x98); // bit 0: go; 1: out; 2: interrupt

const COMPUTING: u32 = 1 << 0; // STATUS
const DMA_DONE: u32 = 1 << 8; // INTERRUPT
const GO_IN: u32 = 0b101;
const GO_OUT: u32 = 0b111;
const BUFFER: u64 = 0x40000; // where the device has 4 KiB of its own

const BOUND: Duration = Duration::from_secs(5);

/// The device, which nobody else touches.
struct Edu<B: Backend> {
    device: B,
    bar: B::Bar,
    irq: Irq,
    memory: DmaRegion,
}

impl<B: Backend> Edu<B> {
    fn start(device: B, kind: IrqKind) -> Result<Self> {
        if device.ids()? != (0x1234, 0x11e8) {
            return Err(format!("{} is another device than edu", device.name()).into());
        }
        // It answers to its BARs, and may use the bus by itself: for DMA, and for messages.
        device.command(Command::MEMORY | Command::BUS_MASTER, Command::empty())?;
        let bar = device.map_bar(0, DMA_COMMAND.end())?;
        device.limit_dma(28)?; // it has so many address lines, and cuts off what is above
        let memory = DmaRegion::alloc(device.dma(), 4096)?;
        bar.set(ACKNOWLEDGE, u32::MAX); // nothing of an earlier owner
        let irq = device.interrupts(kind, 1)?.remove(0);
        Ok(Self {
            device,
            bar,
            irq,
            memory,
        })
    }

    /// n!, asked for again and again until it is there.
    fn factorial(&self, n: u32) -> Result<u32> {
        self.bar.set(FACTORIAL, n);
        let begin = Instant::now();
        while self.bar.get(STATUS) & COMPUTING != 0 {
            if begin.elapsed() > BOUND {
                return Err(format!("{}: no factorial came", self.device.name()).into());
            }
        }
        Ok(self.bar.get(FACTORIAL))
    }

    /// Has the device copy `count` bytes: into its buffer, or out of it.
    fn copy(&self, source: u64, target: u64, count: usize, command: u32) -> Result<()> {
        self.bar.set(DMA_SOURCE, source);
        self.bar.set(DMA_TARGET, target);
        self.bar.set(DMA_COUNT, count as u32);
        dma_wmb(); // memory before the doorbell: else the device reads what is not yet written
        self.bar.set(DMA_COMMAND, command);
        self.wait_for(DMA_DONE)?;
        dma_rmb(); // the cause before the memory: else we read what is not yet written
        Ok(())
    }

    /// Sleeps until the device interrupts for `cause`.
    fn wait_for(&self, cause: u32) -> Result<()> {
        while self.irq.wait(BOUND)? {
            let causes = self.bar.get(INTERRUPT);
            self.bar.set(ACKNOWLEDGE, causes);
            self.irq.unmask()?; // acknowledged first: else the wire is still up, and it fires again
            if causes & cause != 0 {
                return Ok(());
            }
        }
        Err(format!("{}: no interrupt came", self.device.name()).into())
    }
}

/// Quiet before the memory goes: what is not a bus master does no DMA.
impl<B: Backend> Drop for Edu<B> {
    fn drop(&mut self) {
        let _ = self.device.command(Command::empty(), Command::BUS_MASTER);
    }
}

/// What to do with the device, whatever reaches it.
struct Tour(IrqKind);

impl Driver for Tour {
    type Output = ();
    type Error = Box<dyn Error>;

    fn start<B: Backend + 'static>(self, device: B) -> Result<()> {
        let mut edu = Edu::start(device, self.0)?;
        let [_, _, minor, major] = edu.bar.get(IDENTIFICATION).to_le_bytes();
        println!("{} is edu {major}.{minor}", edu.device.name());
        println!("10! is {}", edu.factorial(10)?);

        // Into the device from the first half of our memory, and out of it into the second.
        let (here, text) = (edu.memory.iova().0, b"copied twice by the device");
        edu.memory.write(0, text);
        edu.copy(here, BUFFER, text.len(), GO_IN)?;
        edu.copy(BUFFER, here + 2048, text.len(), GO_OUT)?;
        let mut back = vec![0; text.len()];
        edu.memory.read(2048, &mut back);
        println!("{:?}: {}", self.0, String::from_utf8_lossy(&back));
        Ok(())
    }
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let spec: DeviceSpec = args.next().ok_or("usage: edu DEVICE [intx]")?.parse()?;
    let intx = args.next().is_some_and(|kind| kind == "intx");
    spec.open_with(Tour(if intx { IrqKind::Intx } else { IrqKind::Msi }))
}

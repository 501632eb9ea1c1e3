//! Intel 8254x: 82540EM, 82544GC and 82545EM.
//!
//! The order of [`E1000::start`] is that of the manual's chapter 14 (317453, rev. 4.0): reset,
//! general configuration, receive, transmit. [`regs`] and [`desc`] read beside chapters 13 and 3. The
//! card owns its rings, the rings own what the device can reach, and the card is stopped before they
//! go.

pub mod desc;
mod eeprom;
pub mod regs;
mod rx;
mod stats;
mod tx;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use rx::{BUFFER, Rx};
pub use tx::{MAX_FRAME, MIN_FRAME, PushError, Tx};

use self::regs::*;
use self::stats::Counters;
use super::{
    Link, Mac, Nic, NicConfig, Received, RegisterView, RingView, Stats, poll_until, read_registers,
};
use crate::backend::Backend;
use crate::dma::{DmaSpace, Frame, OffloadFlags, Pool};
use crate::error::{Error, Result};
use crate::irq::{Irq, IrqKind};
use crate::mmio::{Mmio, RegInfo};
use crate::pci::config::Command;

/// Intel's PCI vendor id.
pub const VENDOR: u16 = 0x8086;
/// How long a reset may take.
const RESET_BOUND: Duration = Duration::from_millis(200);
/// Pending bus transactions end within this, §13.4.1 (RST).
const SETTLE: Duration = Duration::from_millis(1);

/// The chips that this driver knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Model {
    /// 0x100e
    I82540Em,
    /// 0x100c
    I82544Gc,
    /// 0x100f
    I82545Em,
}

impl Model {
    fn of(device: u16) -> Option<Self> {
        match device {
            0x100e => Some(Self::I82540Em),
            0x100c => Some(Self::I82544Gc),
            0x100f => Some(Self::I82545Em),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::I82540Em => "Intel 82540EM",
            Self::I82544Gc => "Intel 82544GC",
            Self::I82545Em => "Intel 82545EM",
        }
    }

    /// The 82544 came before EERD, ITR and the absolute timers.
    fn is_82544(self) -> bool {
        self == Self::I82544Gc
    }
}

/// Does this driver know a PCI function with these ids?
pub fn knows(vendor: u16, device: u16) -> bool {
    vendor == VENDOR && Model::of(device).is_some()
}

/// A started card. Dropping it stops the device, then frees the memory that the device could reach.
pub struct E1000<B: Backend> {
    // Dropped in this order, after `Drop::drop` has stopped the device.
    tx: Tx<B::Bar>,
    rx: Rx<B::Bar>,
    irq: Option<Irq>,
    bar: B::Bar,
    backend: B,
    model: Model,
    mac: Mac,
    counters: Counters,
}

impl<B: Backend> E1000<B> {
    /// Resets the card and starts it.
    ///
    /// # Errors
    /// A card of another kind, one that does not reset or has no link within
    /// [`NicConfig::link_wait`], or no memory for its rings.
    pub fn start(backend: B, config: &NicConfig) -> Result<Self> {
        backend.check_present()?;
        let (vendor, id) = backend.ids()?;
        let model =
            Model::of(id)
                .filter(|_| vendor == VENDOR)
                .ok_or_else(|| Error::Unsupported {
                    device: backend.name().to_owned(),
                    vendor,
                    id,
                    known: "8086:100e (82540EM), 8086:100c (82544GC), 8086:100f (82545EM)",
                })?;
        check_config(config)?;
        let bar = backend.map_bar(0)?;
        backend.command(Command::MEMORY, Command::BUS_MASTER)?;
        reset(&bar, backend.name())?;
        let mac = read_mac(&bar, model).ok_or_else(|| Error::NotOffered {
            device: backend.name().to_owned(),
            what: "no Ethernet address: neither its EEPROM nor its receive address 0 holds one"
                .to_owned(),
        })?;
        configure(&bar, config);

        let (name, dma) = (backend.name(), backend.dma());
        let rx = Rx::new(&bar, name, dma, config.rx_ring, config.vlan_offload)?;
        let tx = Tx::new(&bar, name, dma, config.tx_ring, config.vlan_offload)?;
        // From here on dropping the card stops it, whatever fails.
        let mut card = Self {
            tx,
            rx,
            irq: None,
            bar,
            backend,
            model,
            mac,
            counters: Counters::default(),
        };
        card.backend
            .command(Command::BUS_MASTER, Command::INTX_DISABLE)?;
        card.start_receive(config);
        card.start_transmit();
        card.throttle_interrupts(config.interrupt_interval);
        card.await_link(config.link_wait)?;
        card.counters.read(&card.bar);
        card.counters = Counters::default();
        Ok(card)
    }

    /// §14.4, and RCTL once only: each write of it makes QEMU's model wait a second before it
    /// receives.
    fn start_receive(&mut self, config: &NicConfig) {
        let [a, b, c, d, e, f] = self.mac.0;
        self.bar.set(RAL.index(0), u32::from_le_bytes([a, b, c, d]));
        let high = Rah::new()
            .with_rah(u16::from_le_bytes([e, f]))
            .with_av(true);
        self.bar.set(RAH.index(0), high);
        for index in 1..RAL.count() {
            self.bar.set(RAH.index(index), Rah::new());
            self.bar.set(RAL.index(index), 0);
        }
        for index in 0..MTA.count() {
            self.bar.set(MTA.index(index), 0);
        }
        self.bar
            .set(RXCSUM, Rxcsum::new().with_ipofld(true).with_tuofld(true));
        self.bar.set(RDTR, Rdtr::new());
        if !self.model.is_82544() {
            self.bar.set(RADV, 0);
        }
        let rctl = Rctl::new()
            .with_en(true)
            .with_bam(true)
            .with_secrc(true)
            .with_upe(config.promiscuous)
            .with_mpe(config.promiscuous)
            .with_lpe(config.max_frame > 1518);
        self.bar.set(
            RCTL,
            rctl.with_buffer(BUFFER).expect("a size that BSIZE has"),
        );
        self.rx.lend();
    }

    /// §14.5
    fn start_transmit(&mut self) {
        let ipgt = if self.model.is_82544() { 8 } else { 10 };
        self.bar.set(
            TIPG,
            Tipg::new().with_ipgt(ipgt).with_ipgr1(8).with_ipgr2(6),
        );
        self.bar.set(TIDV, 1);
        let tctl = Tctl::new().with_psp(true).with_ct(0x0f).with_cold(0x40);
        self.bar.set(TCTL, tctl.with_en(true));
        flush(&self.bar);
    }

    /// §13.4.18: ITR counts 256 ns.
    fn throttle_interrupts(&self, interval: Duration) {
        if !self.model.is_82544() {
            let ticks = interval.as_nanos().div_ceil(256).min(0xffff);
            self.bar.set(ITR, ticks as u32);
        }
    }

    fn await_link(&self, bound: Duration) -> Result<()> {
        let begin = Instant::now();
        while !bound.is_zero() && !self.link().up {
            if begin.elapsed() >= bound {
                self.check()?;
                return Err(Error::Timeout {
                    device: self.name().to_owned(),
                    what: "link-up",
                    bound,
                    remedy: "plug in a cable, or (QEMU) set_link on; then try again",
                });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The transmit ring, for programs that want no batch between themselves and it.
    pub fn tx(&mut self) -> &mut Tx<B::Bar> {
        &mut self.tx
    }

    /// The receive ring, likewise.
    pub fn rx(&mut self) -> &mut Rx<B::Bar> {
        &mut self.rx
    }

    /// The mapped BAR 0.
    pub fn bar(&self) -> &B::Bar {
        &self.bar
    }
}

/// What [`Tx`] and [`Rx`] need of a configuration, §13.4.27 and §13.4.38.
fn check_config(config: &NicConfig) -> Result<()> {
    for (ring, len) in [("tx_ring", config.tx_ring), ("rx_ring", config.rx_ring)] {
        if !len.is_power_of_two() || !(8..=4096).contains(&len) {
            return Err(Error::Usage(format!(
                "a ring of {len} descriptors ({ring}): it must be a power of two from 8 to 4096"
            )));
        }
    }
    if config.max_frame > MAX_FRAME {
        return Err(Error::Usage(format!(
            "frames of {} bytes: the card receives up to {MAX_FRAME}",
            config.max_frame
        )));
    }
    Ok(())
}

/// Quiets the device and resets it, §14.3 and §13.4.1 (RST).
fn reset<M: Mmio>(bar: &M, device: &str) -> Result<()> {
    quiet(bar);
    bar.update(CTRL, |ctrl| ctrl.with_rst(true));
    // The device must not be touched while it resets.
    std::thread::sleep(SETTLE);
    if !poll_until(RESET_BOUND, || !bar.get(CTRL).rst()) {
        return Err(Error::Timeout {
            device: device.to_owned(),
            what: "the end of the device's reset (CTRL.RST)",
            bound: RESET_BOUND,
            remedy: "power the machine (or the VM) off and on; the device is stuck",
        });
    }
    quiet(bar);
    Ok(())
}

/// No interrupt, no new DMA; what is under way ends within [`SETTLE`].
fn quiet<M: Mmio>(bar: &M) {
    bar.set(IMC, Interrupts::from(u32::MAX));
    bar.set(RCTL, Rctl::new());
    bar.set(TCTL, Tctl::new().with_psp(true));
    flush(bar);
    std::thread::sleep(SETTLE);
    let _ = bar.get(ICR);
}

/// A read does not pass the writes before it: it returns once they have arrived.
fn flush<M: Mmio>(bar: &M) {
    let _ = bar.get(STATUS);
}

/// §14.3: link up by auto-negotiation, no flow control.
fn configure<M: Mmio>(bar: &M, config: &NicConfig) {
    bar.update(CTRL, |ctrl| {
        ctrl.with_slu(true)
            .with_asde(true)
            .with_lrst(false)
            .with_phy_rst(false)
            .with_ilos(false)
            .with_rfce(false)
            .with_tfce(false)
            .with_vme(config.vlan_offload)
    });
    bar.set(VET, 0x8100);
    bar.set(FCAL, 0);
    bar.set(FCAH, 0);
    bar.set(FCT, 0);
    bar.set(FCTTV, 0);
}

/// From the EEPROM; else what the device loaded into receive address 0 at power-on.
fn read_mac<M: Mmio>(bar: &M, model: Model) -> Option<Mac> {
    eeprom::mac(bar, !model.is_82544()).or_else(|| {
        let [a, b, c, d] = bar.get(RAL.index(0)).to_le_bytes();
        let high = bar.get(RAH.index(0));
        let [e, f] = high.rah().to_le_bytes();
        let mac = [a, b, c, d, e, f];
        (high.av() && mac != [0; 6] && mac != [0xff; 6]).then_some(Mac(mac))
    })
}

impl<B: Backend> Nic for E1000<B> {
    fn name(&self) -> &str {
        self.backend.name()
    }

    fn model(&self) -> &'static str {
        self.model.name()
    }

    fn mac(&self) -> Mac {
        self.mac
    }

    fn link(&self) -> Link {
        let status = self.bar.get(STATUS);
        Link {
            // All ones is a device that is gone, not one that is up.
            up: status.lu() && status.into_bits() != u32::MAX,
            mbps: [10, 100, 1000, 1000][usize::from(status.speed())],
            full_duplex: status.fd(),
        }
    }

    fn min_tx_frame(&self) -> usize {
        MIN_FRAME
    }

    fn max_tx_frame(&self) -> usize {
        MAX_FRAME
    }

    fn offloads(&self) -> OffloadFlags {
        match self.bar.get(CTRL).vme() {
            true => OffloadFlags::all(),
            false => OffloadFlags::all() - OffloadFlags::VLAN,
        }
    }

    fn dma(&self) -> &Arc<dyn DmaSpace> {
        self.backend.dma()
    }

    fn post(&mut self, frames: &mut Vec<Frame>) -> Result<usize> {
        let mut sent = self.tx.push_plain(frames);
        if frames.is_empty() {
            return Ok(sent);
        }
        let fitting = self.tx.fitting(frames);
        let mut refused = None;
        let mut going = frames.drain(..fitting);
        for frame in going.by_ref() {
            match self.tx.push(frame) {
                Ok(()) => sent += 1,
                Err(PushError::Full(frame)) => {
                    refused = Some((frame, None));
                    break;
                }
                Err(PushError::Refused(frame, error)) => {
                    refused = Some((frame, Some(error)));
                    break;
                }
            }
        }
        let rest = refused.map(|(frame, error)| (frame, error, going.collect::<Vec<_>>()));
        if let Some((frame, error, rest)) = rest {
            // Those before the refused one went; it and the rest stay.
            frames.splice(0..0, std::iter::once(frame).chain(rest));
            if let Some(error) = error {
                return Err(error);
            }
        }
        Ok(sent)
    }

    fn doorbell(&mut self) {
        self.tx.doorbell();
    }

    fn reap(&mut self, done: &mut Vec<Frame>) -> Result<usize> {
        Ok(self.tx.reap(done))
    }

    fn in_flight(&self) -> usize {
        self.tx.in_flight()
    }

    fn recv(&mut self, into: &mut Vec<Received>, most: usize) -> Result<usize> {
        match self.rx.take(into, most) {
            Ok(count) => {
                self.rx.lend();
                Ok(count)
            }
            Err(lied) => {
                self.stop()?;
                Err(lied)
            }
        }
    }

    /// Interrupts are on only in here. A cause that came before they were is still in ICR, so the
    /// line rises as soon as IMS has it: no wake-up is lost.
    fn wait(&mut self, timeout: Duration) -> Result<bool> {
        if self.irq.is_none() {
            self.irq = self.backend.interrupts(IrqKind::Intx, 1)?.pop();
        }
        let irq = self.irq.as_ref().ok_or_else(|| Error::NotOffered {
            device: self.backend.name().to_owned(),
            what: "an interrupt".to_owned(),
        })?;
        if self.rx.is_ready() {
            return Ok(true);
        }
        let causes = Interrupts::new()
            .with_rxt0(true)
            .with_rxdmt0(true)
            .with_rxo(true)
            .with_lsc(true)
            .with_txdw(self.tx.in_flight() > 0);
        self.bar.set(IMS, causes);
        let fired = irq.wait(timeout);
        self.bar.set(IMC, Interrupts::from(u32::MAX));
        // Reading ICR clears the causes, which lowers the line; only then may it be unmasked.
        let _ = self.bar.get(ICR);
        irq.unmask()?;
        fired
    }

    fn check(&self) -> Result<()> {
        self.backend.check_present()
    }

    fn stats(&mut self) -> Stats {
        self.counters.read(&self.bar)
    }

    fn set_promiscuous(&mut self, on: bool) {
        self.bar.update(RCTL, |rctl| rctl.with_upe(on).with_mpe(on));
        flush(&self.bar);
    }

    /// A hash of bits 47:36 of the address picks one of 4096 bits, §13.5.1 with RCTL.MO = 0.
    fn set_multicast(&mut self, groups: &[Mac]) {
        let mut table = [0u32; 128];
        for Mac(bytes) in groups {
            let hash = u16::from(bytes[4]) >> 4 | u16::from(bytes[5]) << 4;
            table[usize::from(hash >> 5)] |= 1 << (hash & 31);
        }
        for (index, bits) in table.into_iter().enumerate() {
            self.bar.set(MTA.index(index), bits);
        }
        flush(&self.bar);
    }

    fn register_table(&self) -> &'static [RegInfo] {
        TABLE
    }

    fn registers(&self) -> Vec<RegisterView> {
        read_registers(&self.bar, TABLE)
    }

    fn rings(&self) -> Vec<RingView> {
        vec![self.tx.view(), self.rx.view()]
    }

    fn rx_pool(&self) -> &Pool {
        self.rx.pool()
    }

    fn limit(&mut self, len: usize, batch: usize, frames: u64) -> Result<Duration> {
        if !(MIN_FRAME..=BUFFER).contains(&len) {
            return Err(Error::Usage(format!(
                "frames of {len} bytes: {MIN_FRAME} to {BUFFER} can be measured"
            )));
        }
        let pool = Pool::new(self.backend.dma(), 1, BUFFER)?;
        let mut buf = pool.take().expect("a fresh pool has a buffer");
        let mut content = vec![0; len];
        // To an address that nobody has (locally administered): no receiver shall be kept busy.
        content[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0]);
        content[6..12].copy_from_slice(&self.mac.0);
        buf.fill(&content);
        let begin = Instant::now();
        let frame = Frame::from(buf);
        let measured = self.tx.limit(frame.first(), batch, frames);
        let took = begin.elapsed();
        if let Err(error) = measured {
            // The device must not be reading the buffer when it is freed; where it does not stop, it
            // never is.
            if let Err(error) = self.stop() {
                std::mem::forget(frame);
                return Err(error);
            }
            return Err(error);
        }
        Ok(took)
    }

    fn stop(&mut self) -> Result<()> {
        let quieted = reset(&self.bar, self.backend.name());
        let off = self.backend.command(Command::empty(), Command::BUS_MASTER);
        // A device that is gone reads as one that never ends its reset.
        self.check()?;
        quieted.and(off)
    }
}

impl<B: Backend> Drop for E1000<B> {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!("{error}");
            // A device that is gone does no DMA, and an IOMMU stops one that will not.
            if !self.backend.has_iommu() && self.backend.check_present().is_ok() {
                self.tx.leak();
                self.rx.leak();
            }
        }
    }
}

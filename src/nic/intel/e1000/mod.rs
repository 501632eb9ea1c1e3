//! Intel 8254x: 82540EM, 82544GC and 82545EM.
//!
//! The order of [`E1000::start`] is that of the manual's chapter 14 (317453, rev. 4.0): reset,
//! general configuration, receive, transmit. [`regs`] and [`desc`] read beside chapters 13 and 3. The
//! card owns its rings, the rings own what the device can reach, and the card is stopped before they
//! go.

pub mod desc;
mod eeprom;
mod pair;
pub mod regs;
mod rx;

use std::sync::Arc;
use std::time::Duration;

pub use crate::nic::intel::VENDOR;
pub use crate::nic::intel::tx::{PushError, TxRing};
pub use rx::{BUFFER, RxRing};

use self::pair::Pair;
use self::regs::*;
use self::rx::Rx;
use crate::backend::Backend;
use crate::dma::DmaSpace;
use crate::error::{Error, Result};
use crate::inspect::{RegisterView, RingView, read_registers};
use crate::irq::{Irq, IrqKind};
use crate::mmio::{Mmio, Place, RegInfo};
use crate::nic::intel::quirks::{I82540EM, I82544GC, I82545EM, Quirks, Reload};
use crate::nic::intel::stats::{Counters, OctetRegs, StatRegs};
use crate::nic::intel::tx::{MAX_BUFFER, MAX_PAYLEN, Tx, TxRegs, TxSetup};
use crate::nic::intel::{self, filter, flush, phy};
use crate::nic::longest::Longest;
use crate::nic::{
    DeviceId, Frame, Inspect, Link, Mac, Nic, NicConfig, OffloadFlags, QueuePair, Stats, Waiting,
    await_link,
};
use crate::pci::config::Command;
use crate::ring_state::RingState;
use crate::wait::poll_until;

/// Shortest frame, in bytes: a header of Ethernet's. The ring itself pads what is short of 60 bytes.
pub const MIN_FRAME: usize = 14;
/// Longest packet that the device takes, in bytes, §3.3.3.
pub const MAX_FRAME: usize = MAX_BUFFER;
/// How long a reset may take.
const RESET_BOUND: Duration = Duration::from_millis(200);
/// The device must not be touched for so long after RST, §13.4.1.
const SETTLE: Duration = Duration::from_millis(1);
/// Bytes of the I/O ports: IOADDR and IODATA, §13.2.2.
const PORTS: usize = 8;

/// The chips that this driver knows.
#[derive(Debug, Clone, Copy)]
struct Model {
    /// What it has besides what all have.
    features: Features,
    /// What it needs besides what all need.
    quirks: &'static Quirks,
}

/// What differs in the manual itself.
#[derive(Debug, Clone, Copy)]
struct Features {
    /// The 82544 came before ITR and the absolute timers.
    timers: bool,
    /// Back-to-back gap (TIPG.IPGT, §13.4.34).
    ipgt: u16,
}

const FEATURES: Features = Features {
    timers: true,
    ipgt: 10,
};

const MODELS: &[(DeviceId, Model)] = &[
    (
        DeviceId::new(VENDOR, 0x100e, "Intel 82540EM"),
        Model {
            features: FEATURES,
            quirks: &I82540EM,
        },
    ),
    (
        DeviceId::new(VENDOR, 0x100c, "Intel 82544GC"),
        Model {
            features: Features {
                timers: false,
                ipgt: 8,
            },
            quirks: &I82544GC,
        },
    ),
    (
        DeviceId::new(VENDOR, 0x100f, "Intel 82545EM"),
        Model {
            features: FEATURES,
            quirks: &I82545EM,
        },
    ),
];

/// The cards that this driver knows.
pub fn devices() -> impl Iterator<Item = DeviceId> {
    MODELS.iter().map(|(known, _)| *known)
}

/// The registers of the transmit queue, §13.4.36 to §13.4.40.
const TX: TxRegs = TxRegs {
    tdbal: TDBAL,
    tdbah: TDBAH,
    tdlen: TDLEN,
    tdh: TDH,
    tdt: TDT,
};

/// §13.7. Not RNBC: those frames waited in the FIFO, or are in MPC, too.
const STATISTICS: StatRegs = StatRegs {
    rx_frames: GPRC,
    rx_bytes: OctetRegs {
        good: (GORCL, GORCH),
        total: (TORL, TORH),
    },
    tx_frames: GPTC,
    tx_bytes: OctetRegs {
        good: (GOTCL, GOTCH),
        total: (TOTL, TOTH),
    },
    missed: MPC,
    errors: &[
        CRCERRS, ALGNERRC, SYMERRS, RXERRC, SEC, CEXTERR, RLEC, RUC, RFC, ROC, RJC,
    ],
};

/// A started card. Dropping it stops the device, then frees the memory that the device could reach.
pub struct E1000<B: Backend> {
    // Dropped in this order, after `Drop::drop` has stopped the device.
    pair: Pair<B::Bar>,
    bar: B::Bar,
    /// The other way to the registers, where the card has it and the backend reaches it.
    ports: Option<B::Bar>,
    backend: B,
    config: NicConfig,
    name: &'static str,
    model: Model,
    mac: Mac,
    counters: Counters,
    /// That of all its rings.
    state: RingState,
    /// Was it started, and not stopped since?
    running: bool,
    /// Was it reset, and not touched since?
    is_reset: bool,
}

impl<B: Backend> E1000<B> {
    /// Resets the card and starts it.
    ///
    /// # Errors
    /// A card of another kind, one that does not reset or has no link within
    /// [`NicConfig::link_wait`], or no memory for its rings.
    pub fn start(backend: B, config: &NicConfig) -> Result<Self> {
        backend.check_present()?;
        let (model_name, model) = intel::model_of(&backend, MODELS)?;
        intel::check_config(config, MAX_FRAME)?;
        let bar = backend.map_bar(0, RegInfo::size_of(TABLE))?;
        backend.command(Command::MEMORY, Command::BUS_MASTER)?;
        let quirks = model.quirks;
        let ports = ports(&backend, quirks);
        reset(&bar, ports.as_ref(), backend.name(), quirks, config)?;
        let mac = read_mac(&bar, quirks).ok_or_else(|| Error::NotOffered {
            device: backend.name().to_owned(),
            what: "no Ethernet address: neither its EEPROM nor its receive address 0 holds one"
                .to_owned(),
        })?;
        configure(&bar, backend.name(), config);

        let irq = match config.waiting {
            Waiting::Poll => Irq::never()?,
            _ => backend.interrupts(IrqKind::Intx, 1)?.remove(0),
        };
        let (name, dma) = (backend.name(), backend.dma());
        let tx_setup = TxSetup {
            regs: TX,
            pair: 0,
            len: config.tx_ring,
            min_frame: MIN_FRAME,
            max_frame: MAX_FRAME,
            max_payload: MAX_PAYLEN,
            within_page: false,
            keeps_context: true,
            vlan: config.vlan_offload,
            // It counts the IPv6 header into each piece's payload length, §3.5.9.
            cuts_ipv6: false,
            space: dma.id(),
            quirks: quirks.transmit(bar.get(STATUS).pcix_mode()),
        };
        let within = quirks.writes_within;
        // The card has one transmitter and one receiver, which stop together.
        let halted = bar.clone();
        let state = RingState::new(name, move || quiet(&halted));
        let pair = Pair {
            rx: Rx::new(
                &bar,
                &state,
                dma,
                config.rx_ring,
                config.vlan_offload,
                within,
            )?,
            tx: Tx::new(&bar, name, dma, &state, tx_setup, within)?,
            irq,
            waiting: config.waiting,
            longest: Longest::new(config),
            bar: bar.clone(),
            state: state.clone(),
            quirks,
        };
        // From here on dropping the card stops it, whatever fails.
        let mut card = Self {
            pair,
            bar,
            ports,
            backend,
            config: config.clone(),
            name: model_name,
            model,
            mac,
            counters: Counters::default(),
            state,
            running: false,
            is_reset: false,
        };
        card.run()?;
        card.counters.read(&card.bar, &STATISTICS);
        card.counters = Counters::default();
        Ok(card)
    }

    /// The rings are set up: lets the device work on them.
    fn run(&mut self) -> Result<()> {
        self.backend
            .command(Command::BUS_MASTER, Command::empty())?;
        self.state.start();
        self.start_receive();
        self.start_transmit();
        self.throttle_interrupts();
        self.running = true;
        await_link(self, self.config.link_wait)?;
        follow_link(&self.bar, self.model.quirks);
        Ok(())
    }

    /// §14.4, and RCTL once only: each write of it makes QEMU's model wait a second before it
    /// receives.
    fn start_receive(&mut self) {
        let (low, high) = filter::halves(self.mac);
        self.bar.set(RAL.index(0), low);
        self.bar
            .set(RAH.index(0), Rah::new().with_rah(high).with_av(true));
        for index in 1..RAL.count() {
            self.bar.set(RAH.index(index), Rah::new());
            self.bar.set(RAL.index(index), 0);
        }
        filter::write(&self.bar, &MTA, [0; 128]);
        self.bar
            .set(RXCSUM, Rxcsum::new().with_ipofld(true).with_tuofld(true));
        self.bar.set(RDTR, Rdtr::new());
        if self.model.features.timers {
            self.bar.set(RADV, 0);
        }
        let rctl = Rctl::new()
            .with_en(true)
            .with_bam(true)
            .with_secrc(true)
            .with_upe(self.config.promiscuous)
            .with_mpe(self.config.promiscuous)
            .with_lpe(self.config.max_frame > 1518);
        self.bar.set(
            RCTL,
            rctl.with_buffer(BUFFER).expect("a size that BSIZE has"),
        );
        self.pair.rx.lend();
    }

    /// §14.5
    fn start_transmit(&mut self) {
        let gap = Tipg::new().with_ipgt(self.model.features.ipgt);
        self.bar.set(TIPG, gap.with_ipgr1(8).with_ipgr2(6));
        self.bar.set(TIDV, 1);
        let cold = self.model.quirks.cold_for(true);
        let tctl = Tctl::new().with_psp(true).with_ct(0x0f).with_cold(cold);
        self.bar.set(TCTL, tctl.with_en(true));
        flush(&self.bar);
    }

    /// §13.4.18: ITR counts 256 ns.
    fn throttle_interrupts(&self) {
        if self.model.features.timers {
            let ticks = intel::throttle_ticks(self.config.interrupt_interval);
            self.bar.set(ITR, ticks);
        }
    }

    /// The transmit ring, for programs that want no batch between themselves and it.
    pub fn tx(&mut self) -> TxRing<'_, B::Bar> {
        TxRing::new(&mut self.pair.tx)
    }

    /// The receive ring, likewise.
    pub fn rx(&mut self) -> RxRing<'_, B::Bar> {
        RxRing::new(&mut self.pair.rx)
    }

    /// Stops the rings, then resets the device.
    fn halt(&mut self) -> Result<()> {
        self.running = false;
        self.state.stop();
        // A reset clears them.
        self.counters.read(&self.bar, &STATISTICS);
        let quieted = reset(
            &self.bar,
            self.ports.as_ref(),
            self.backend.name(),
            self.model.quirks,
            &self.config,
        );
        let off = self.backend.command(Command::empty(), Command::BUS_MASTER);
        let stopped = quieted.and(off);
        self.is_reset = stopped.is_ok();
        // A device that is gone reads as one that never ends its reset.
        self.backend.check_present()?;
        stopped
    }

    /// The mapped BAR 0.
    pub fn bar(&self) -> &B::Bar {
        &self.bar
    }
}

/// The way to the registers by I/O ports, for a chip that is reset by them. Where there is none the card is
/// reset by memory: right wherever no bridge makes one write of 64 bits out of two.
fn ports<B: Backend>(backend: &B, quirks: &Quirks) -> Option<B::Bar> {
    if !quirks.reset_by_ports {
        return None;
    }
    let ports = backend.map_ports(PORTS);
    ports
        .inspect_err(|error| tracing::debug!("{error}; it is reset by memory"))
        .ok()
}

/// Quiets the device and resets it, §14.3 and §13.4.1 (RST).
fn reset<M: Mmio>(
    bar: &M,
    ports: Option<&M>,
    device: &str,
    quirks: &Quirks,
    config: &NicConfig,
) -> Result<()> {
    quiet(bar);
    // `Quirks::receive_kb`: it counts from the reset on.
    let receive_kb = quirks.receive_kb_for(config.max_frame);
    bar.set(PBA, Pba::new().with_rxa(receive_kb));
    flush(bar);
    // `Quirks::before_reset`: what is on the bus ends.
    std::thread::sleep(quirks.before_reset);
    // `Quirks::reset_by_ports`
    if !ports.is_some_and(|ports| reset_by_ports(bar, ports)) {
        bar.update(CTRL, |ctrl| ctrl.with_rst(true));
        // The device must not be touched while it resets.
        std::thread::sleep(SETTLE);
    }
    if !poll_until(RESET_BOUND, || !bar.get(CTRL).rst()) {
        return Err(Error::Timeout {
            device: device.to_owned(),
            what: "the end of the device's reset (CTRL.RST)",
            bound: RESET_BOUND,
            remedy: "power the machine (or the VM) off and on; the device is stuck",
        });
    }
    // `Quirks::reload`
    match quirks.reload {
        Reload::Asked(through) => {
            bar.update(CTRL_EXT, |ext| ext.with_ee_rst(true));
            flush(bar);
            std::thread::sleep(through);
        }
        Reload::ByItself(through) | Reload::Told(through) => std::thread::sleep(through),
    }
    quiet(bar);
    Ok(())
}

/// Resets the device by its I/O ports, §13.2.2: a register's offset into IOADDR, its value into IODATA.
/// `false` where that reset nothing: QEMU's model has the ports and ignores them.
fn reset_by_ports<M: Mmio>(bar: &M, ports: &M) -> bool {
    const IOADDR: usize = 0;
    const IODATA: usize = 4;
    // A reset makes it 0 (§13.4.38), and while the transmitter is off it does nothing.
    bar.set(TDLEN, 128);
    let ctrl = bar.get(CTRL).with_rst(true);
    ports.write32(IOADDR, CTRL.offset() as u32);
    ports.write32(IODATA, ctrl.into());
    std::thread::sleep(SETTLE);
    bar.get(TDLEN) == 0
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

/// §14.3: link up by auto-negotiation, no flow control.
fn configure<M: Mmio>(bar: &M, device: &str, config: &NicConfig) {
    // In fibre mode there is no PHY.
    if !bar.get(STATUS).tbimode() && !phy::power_up(bar) {
        tracing::debug!("{device}: its PHY does not answer");
    }
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

/// `Quirks::cold`: as what the link comes up is not known before, and it may come up otherwise again.
fn follow_link<M: Mmio>(bar: &M, quirks: &Quirks) {
    let status = bar.get(STATUS);
    let cold = quirks.cold_for(status.fd() || !status.lu());
    if bar.get(TCTL).cold() != cold {
        bar.update(TCTL, |tctl| tctl.with_cold(cold));
    }
}

/// From the EEPROM; else what the device loaded into receive address 0 at power-on.
fn read_mac<M: Mmio>(bar: &M, quirks: &Quirks) -> Option<Mac> {
    eeprom::mac(bar, quirks.eeprom).or_else(|| {
        let high = bar.get(RAH.index(0));
        filter::joined(bar.get(RAL.index(0)), high.rah()).filter(|_| high.av())
    })
}

impl<B: Backend> Inspect for E1000<B> {
    fn register_table(&self) -> &'static [RegInfo] {
        TABLE
    }

    fn register_at(&self, place: Place) -> Option<(&'static RegInfo, usize)> {
        RegInfo::find(TABLE, place.offset).filter(|_| place.bar == 0)
    }

    fn registers(&self) -> Vec<RegisterView> {
        read_registers(&self.bar, TABLE)
    }

    fn rings(&self) -> Vec<RingView> {
        vec![self.pair.tx.view(), self.pair.rx.view()]
    }
}

impl<B: Backend> Nic for E1000<B> {
    fn name(&self) -> &str {
        self.backend.name()
    }

    fn model(&self) -> &'static str {
        self.name
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
        let all = OffloadFlags::all().difference(OffloadFlags::USO);
        match self.config.vlan_offload {
            true => all,
            false => all.difference(OffloadFlags::VLAN),
        }
    }

    fn dma(&self) -> &Arc<dyn DmaSpace> {
        self.backend.dma()
    }

    fn queues(&self) -> usize {
        1
    }

    fn pair(&self, index: usize) -> &dyn QueuePair {
        assert_eq!(index, 0, "the card has one queue pair");
        &self.pair
    }

    fn pair_mut(&mut self, index: usize) -> &mut dyn QueuePair {
        assert_eq!(index, 0, "the card has one queue pair");
        &mut self.pair
    }

    fn split(&mut self) -> Vec<&mut dyn QueuePair> {
        vec![&mut self.pair]
    }

    /// TDLEN is 0 after a reset, and never where the card is running.
    fn check(&self) -> Result<()> {
        self.backend.check_present()?;
        if self.running && self.bar.get(TDLEN) == 0 {
            return Err(Error::WasReset {
                device: self.name().to_owned(),
            });
        }
        Ok(())
    }

    fn check_leaving(&self) -> Result<()> {
        self.backend.check_leaving()
    }

    fn stats(&mut self) -> Stats {
        self.counters.read(&self.bar, &STATISTICS)
    }

    fn set_promiscuous(&mut self, on: bool) -> Result<()> {
        self.state.check()?;
        self.bar.update(RCTL, |rctl| rctl.with_upe(on).with_mpe(on));
        flush(&self.bar);
        Ok(())
    }

    /// §13.5.1
    fn set_multicast(&mut self, groups: &[Mac]) -> Result<()> {
        self.state.check()?;
        filter::write(&self.bar, &MTA, filter::multicast(groups));
        flush(&self.bar);
        Ok(())
    }

    /// §13.5.4
    fn set_vlans(&mut self, vlans: Option<&[u16]>) -> Result<()> {
        let table = filter::vlans(vlans.unwrap_or_default())?;
        self.state.check()?;
        filter::write(&self.bar, &VFTA, table);
        self.bar.update(RCTL, |rctl| rctl.with_vfe(vlans.is_some()));
        flush(&self.bar);
        Ok(())
    }

    fn limit(&mut self, len: usize, batch: usize, frames: u64) -> Result<Duration> {
        let what = (len, batch, frames);
        let measured = intel::limit(&mut self.pair.tx, self.backend.dma(), self.mac, what);
        let (frame, error) = match measured {
            Ok(took) => return Ok(took),
            Err(failed) => failed,
        };
        if !matches!(error, Error::Timeout { .. }) {
            return Err(error);
        }
        // The device must not be reading the buffer when it is freed; where it does not stop, it
        // never is.
        if let Err(error) = self.stop() {
            frame.into_iter().for_each(Frame::quarantine);
            return Err(error);
        }
        Err(error)
    }

    fn stop(&mut self) -> Result<()> {
        match self.is_reset {
            true => self.backend.check_leaving(),
            false => self.halt(),
        }
    }

    fn restart(&mut self) -> Result<Vec<Frame>> {
        self.halt()?;
        self.is_reset = false;
        configure(&self.bar, self.backend.name(), &self.config);
        let in_flight = self.pair.tx.restart();
        self.pair.rx.restart();
        if let Err(error) = self.run() {
            self.stop()?;
            return Err(error);
        }
        Ok(in_flight)
    }
}

impl<B: Backend> Drop for E1000<B> {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!("{error}");
        }
        // One that was only wanted back has stopped like any other. One that is not there only says so, by
        // ones in config space: its own memory, all that it could write, is nobody else's again. What others
        // lent it to read comes home.
        if !self.is_reset {
            if self.backend.is_absent() {
                self.pair.tx.release();
            }
            self.pair.tx.quarantine();
            self.pair.rx.quarantine();
        }
    }
}

//! Intel 82574: a PCIe card with two queue pairs (QEMU's e1000e).
//!
//! The order of [`E1000e::start`] is that of the datasheet's §4.6 (82574 GbE Controller Family, rev.
//! 3.4): reset, general configuration, receive, transmit. [`regs`] and [`desc`] read beside its §10.2
//! and §7.1. What it shares with the 8254x is in `nic::intel`; the rest has the same names and differs:
//! receive descriptors, EERD, interrupts by queue, and that the bus must be quiet before a reset. The
//! card owns its rings, the rings own what the device can reach, and the card is stopped before they
//! go.

pub mod desc;
mod eeprom;
mod owner;
mod pair;
pub mod regs;
mod rx;
mod split;

use std::sync::Arc;
use std::time::Duration;

pub use crate::nic::intel::tx::{MIN_FRAME, PushError, TxRing};
pub use rx::BUFFER;
pub use split::HEADER;

use self::desc::RxStatus;
use self::pair::{Causes, Pair, Ring};
use self::regs::*;
use self::rx::Rx;
use self::split::SplitRing;
use crate::backend::Backend;
use crate::dma::{DmaSpace, Iova};
use crate::error::{Error, Result};
use crate::inspect::{RegisterView, RingView, read_registers};
use crate::irq::{Irq, IrqKind};
use crate::mmio::{Mmio, Place, ReadWrite, Reg, RegInfo};
use crate::nic::intel::join::{Join, checksum};
use crate::nic::intel::quirks::{I82574L, Quirks, Reload};
use crate::nic::intel::stats::{Counters, OctetRegs, StatRegs};
use crate::nic::intel::tx::{Tx, TxRegs, TxSetup};
use crate::nic::intel::{self, VENDOR, filter, flush, phy};
use crate::nic::longest::Longest;
use crate::nic::{
    DeviceId, Frame, Inspect, Link, Mac, Nic, NicConfig, OffloadFlags, QueuePair, RSS_KEY,
    Received, Stats, Waiting, await_link,
};
use crate::pci::config::Command;
use crate::ring_state::RingState;
use crate::wait::poll_until;

/// Longest packet, in bytes: 9 KiB, so that several fit into the 20 KB of either packet buffer.
pub const MAX_FRAME: usize = 9216;
/// Longest payload that is cut into segments, in bytes: an IP packet's.
const MAX_PAYLOAD: usize = 65_535;
/// Queue pairs of the card.
pub const QUEUES: usize = 2;
/// How long a reset may take.
const RESET_BOUND: Duration = Duration::from_millis(200);
/// The device must not be touched for so long after RST, §10.2.2.
const SETTLE: Duration = Duration::from_millis(1);
/// How long requests on the bus may still be under way, §10.2.2 (GIO master disable).
const BUS_BOUND: Duration = Duration::from_millis(100);

/// The chips that this driver knows, and what each needs besides what the datasheet says.
const MODELS: &[(DeviceId, &Quirks)] = &[
    (DeviceId::new(VENDOR, 0x10d3, "Intel 82574L"), &I82574L),
    (DeviceId::new(VENDOR, 0x10f6, "Intel 82574LA"), &I82574L),
];

/// The cards that this driver knows.
pub fn devices() -> impl Iterator<Item = DeviceId> {
    MODELS.iter().map(|(known, _)| *known)
}

/// §10.2.7. Not RNBC: those frames waited in the FIFO, or are in MPC, too.
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
    errors: &[CRCERRS, ALGNERRC, RXERRC, CEXTERR, RLEC, RUC, RFC, ROC, RJC],
};

/// The registers of transmit queue `pair`, §10.2.6.
fn tx_regs(pair: usize) -> TxRegs {
    TxRegs {
        tdbal: TDBAL.index(pair),
        tdbah: TDBAH.index(pair),
        tdlen: TDLEN.index(pair),
        tdh: TDH.index(pair),
        tdt: TDT.index(pair),
    }
}

/// What differs from one receive queue to another.
#[derive(Debug, Clone, Copy)]
struct RxSetup {
    pair: usize,
    /// Descriptors: a power of two, 8 to 4096.
    len: usize,
    /// Are tags taken out?
    vlan: bool,
    rdh: Reg<u32, ReadWrite>,
    rdt: Reg<u32, ReadWrite>,
}

impl RxSetup {
    fn new(pair: usize, config: &NicConfig) -> Self {
        Self {
            pair,
            len: config.rx_ring,
            vlan: config.vlan_offload,
            rdh: RDH.index(pair),
            rdt: RDT.index(pair),
        }
    }

    /// Tells the device where the ring is; the receiver must be off.
    fn tell<M: Mmio>(&self, bar: &M, base: Iova, bytes: usize) {
        bar.set(RDBAL.index(self.pair), base.0 as u32);
        bar.set(RDBAH.index(self.pair), (base.0 >> 32) as u32);
        bar.set(RDLEN.index(self.pair), bytes as u32);
        bar.set(self.rdh, 0);
        bar.set(self.rdt, 0);
    }

    /// What `status` makes of the buffers that came before: a frame, where it is whole and good.
    #[inline]
    fn end(&self, join: &mut Join, status: RxStatus) -> Option<Received> {
        if !status.eop() {
            return None;
        }
        let bad = status.ce() || status.se() || status.seq() || status.cxe() || status.rxe();
        let looked = !status.ixsm();
        Some(Received {
            frame: join.end(!bad)?,
            vlan: (self.vlan && status.vp()).then_some(status.vlan()),
            ip_checksum: checksum(looked && status.ipcs(), status.ipe()),
            l4_checksum: checksum(looked && status.l4cs(), status.tcpe()),
        })
    }
}

/// How the card interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    /// Not at all.
    Never,
    /// By a message or a line for everything.
    One,
    /// By a message for each queue pair.
    PerQueue,
}

/// A started card. Dropping it stops the device, then frees the memory that the device could reach.
pub struct E1000e<B: Backend> {
    // Dropped in this order, after `Drop::drop` has stopped the device.
    pairs: Vec<Pair<B::Bar>>,
    bar: B::Bar,
    backend: B,
    config: NicConfig,
    model: &'static str,
    quirks: &'static Quirks,
    signal: Signal,
    mac: Mac,
    counters: Counters,
    /// That of all its rings.
    state: RingState,
    /// Was it started, and not stopped since?
    running: bool,
    /// Was it reset, and not touched since?
    is_reset: bool,
}

impl<B: Backend> E1000e<B> {
    /// Resets the card and starts it.
    ///
    /// # Errors
    /// A card of another kind, one that does not reset or has no link within
    /// [`NicConfig::link_wait`], no memory for its rings, or two queues that shall interrupt where
    /// there is no MSI-X.
    pub fn start(backend: B, config: &NicConfig) -> Result<Self> {
        backend.check_present()?;
        let (model, quirks) = intel::model_of(&backend, MODELS)?;
        intel::check_config(config, MAX_FRAME)?;
        if !(1..=QUEUES).contains(&config.queues) {
            return Err(Error::Usage(format!(
                "{} queue pairs: the card has 1 or {QUEUES}",
                config.queues
            )));
        }
        let bar = backend.map_bar(0, RegInfo::size_of(TABLE))?;
        backend.command(Command::MEMORY, Command::BUS_MASTER)?;
        if quirks.no_aspm {
            forbid_aspm(&backend)?;
        }
        reset(&bar, backend.name(), quirks, config)?;
        let mac =
            owner::with_mdio(&bar, quirks, || read_mac(&bar)).ok_or_else(|| Error::NotOffered {
                device: backend.name().to_owned(),
                what: "no Ethernet address: neither its EEPROM nor its receive address 0 holds one"
                    .to_owned(),
            })?;
        configure(&bar, backend.name(), quirks, config);

        let (signal, irqs) = interrupts(&backend, config)?;
        // The receiver and the transmitter are everybody's: both pairs stop together.
        let halted = bar.clone();
        let state = RingState::new(backend.name(), move || quiet(&halted));
        let mut pairs = Vec::with_capacity(config.queues);
        for (index, (irq, causes)) in irqs.into_iter().enumerate() {
            pairs.push(Pair {
                tx: transmit_ring(&backend, &bar, &state, config, quirks, index)?,
                rx: receive_ring(&backend, &bar, &state, config, index)?,
                irq,
                causes,
                waiting: config.waiting,
                longest: Longest::new(config),
                bar: bar.clone(),
                state: state.clone(),
            });
        }
        // From here on dropping the card stops it, whatever fails.
        let mut card = Self {
            pairs,
            bar,
            backend,
            config: config.clone(),
            model,
            quirks,
            signal,
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
        self.route_interrupts();
        self.state.start();
        self.start_receive();
        self.start_transmit();
        self.running = true;
        await_link(self, self.config.link_wait)
    }

    /// §7.4: with MSI-X, vector n for what happens to pair n, and vector 0 for the rest, too.
    fn route_interrupts(&self) {
        let per_queue = self.signal == Signal::PerQueue;
        let queues = Interrupts::new()
            .with_rxq0(true)
            .with_rxq1(true)
            .with_txq0(true)
            .with_txq1(true)
            .with_other(true);
        // An interrupt masks and clears its own causes, so that the next comes only once it was asked
        // for. IAM would do so on access to ICR: not wanted, because two pairs share that register.
        self.bar.set(IAM, Interrupts::new());
        self.bar.set(
            EIAC,
            match per_queue {
                true => queues,
                false => Interrupts::new(),
            },
        );
        self.bar.update(CTRL_EXT, |ext| {
            ext.with_pba_support(per_queue)
                .with_eiame(false)
                .with_iame(false)
        });
        let second = Ivar::to((self.pairs.len() as u8).saturating_sub(1));
        let routes = Ivar::new()
            .with_rxq0(Ivar::to(0))
            .with_txq0(Ivar::to(0))
            .with_other(Ivar::to(0))
            .with_rxq1(second)
            .with_txq1(second);
        self.bar
            .set(IVAR, if per_queue { routes } else { Ivar::new() });
        let ticks = intel::throttle_ticks(self.config.interrupt_interval);
        self.bar.set(ITR, ticks);
        for vector in 0..EITR.count() {
            self.bar.set(EITR.index(vector), ticks);
        }
    }

    /// §4.6.5
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
        self.bar.set(
            RFCTL,
            Rfctl::new()
                .with_exsten(true)
                .with_ackdis(true)
                .with_iscsi_dis(true)
                .with_nfsw_dis(true)
                .with_nfsr_dis(true),
        );
        self.spread();
        self.bar.set(RDTR, Rdtr::new());
        self.bar.set(RADV, 0);
        self.bar.set(RSRPD, 0);
        for queue in 0..QUEUES {
            self.bar.set(
                RXDCTL.index(queue),
                Rxdctl::new().with_gran(true).with_wthresh(1),
            );
        }
        let split = self.config.split_headers;
        if split {
            self.bar.set(PSRCTL, split::sizes(self.config.max_frame));
        }
        let rctl = Rctl::new()
            .with_en(true)
            .with_bam(true)
            .with_secrc(true)
            .with_dtyp(u8::from(split))
            .with_upe(self.config.promiscuous)
            .with_mpe(self.config.promiscuous)
            .with_lpe(self.config.max_frame > 1518);
        // BSIZE 0 is BUFFER; packet split has its own sizes.
        const _: () = assert!(BUFFER == 2048);
        self.bar.set(RCTL, rctl);
        for pair in &mut self.pairs {
            pair.rx.lend();
        }
    }

    /// §7.1.9 (receive side scaling): with two queues, the hash of a packet's addresses picks one of 128
    /// entries, and every other entry says queue 1. What is no IP packet goes to queue 0.
    fn spread(&self) {
        let two = self.pairs.len() == QUEUES;
        let checks = Rxcsum::new().with_ipofld(true).with_tuofld(true);
        self.bar.set(RXCSUM, checks.with_pcsd(two));
        if !two {
            self.bar.set(MRQC, Mrqc::new());
            return;
        }
        for (index, bytes) in RSS_KEY.as_chunks().0.iter().enumerate() {
            self.bar.set(RSSRK.index(index), u32::from_le_bytes(*bytes));
        }
        let entries = Reta::new().with_entry1(1 << 7).with_entry3(1 << 7);
        for index in 0..RETA.count() {
            self.bar.set(RETA.index(index), entries);
        }
        let mrqc = Mrqc::new()
            .with_mrqe(1)
            .with_tcp_ipv4(true)
            .with_ipv4(true)
            .with_tcp_ipv6(true)
            .with_ipv6(true);
        self.bar.set(MRQC, mrqc);
    }

    /// §4.6.6
    fn start_transmit(&self) {
        for queue in 0..QUEUES {
            self.bar.set(
                TXDCTL.index(queue),
                Txdctl::new()
                    .with_gran(true)
                    .with_wthresh(1)
                    .with_count_desc(true),
            );
        }
        // With a threshold for write-back the timers must not be 0, §10.2.6.
        self.bar.set(TIDV, 8);
        self.bar.set(TADV, 32);
        self.bar.update(TARC.index(0), |tarc| {
            tarc.with_count(3)
                .with_enable(true)
                .with_bit26(true)
                .with_bits30_27(0)
        });
        let two = self.pairs.len() == QUEUES;
        self.bar
            .update(TARC.index(1), |tarc| tarc.with_count(3).with_enable(two));
        self.bar
            .set(TIPG, Tipg::new().with_ipgt(8).with_ipgr1(8).with_ipgr2(6));
        let tctl = Tctl::new()
            .with_psp(true)
            .with_ct(0x0f)
            .with_cold(self.quirks.cold_for(true))
            .with_mulr(true);
        self.bar.set(TCTL, tctl.with_en(true));
        flush(&self.bar);
    }

    /// Transmit ring `pair`, for programs that want no batch between themselves and it.
    ///
    /// # Panics
    /// Where there is none.
    pub fn tx(&mut self, pair: usize) -> TxRing<'_, B::Bar> {
        TxRing::new(&mut self.pairs[pair].tx)
    }

    /// Stops the rings, then resets the device.
    fn halt(&mut self) -> Result<()> {
        self.running = false;
        self.state.stop();
        // A reset clears them.
        self.counters.read(&self.bar, &STATISTICS);
        let name = self.backend.name();
        let quieted = reset(&self.bar, name, self.quirks, &self.config);
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

/// A vector for each pair; where there is no MSI-X, a message or a line for the one that there is then.
fn interrupts(backend: &impl Backend, config: &NicConfig) -> Result<(Signal, Vec<(Irq, Causes)>)> {
    if config.waiting == Waiting::Poll {
        let never = |index| Ok((Irq::never()?, Causes::of_queue(index)));
        let all = (0..config.queues).map(never).collect::<Result<_>>()?;
        return Ok((Signal::Never, all));
    }
    let refused = match backend.interrupts(IrqKind::MsiX, config.queues) {
        Ok(irqs) => {
            let irqs = irqs.into_iter().enumerate();
            let all = irqs.map(|(index, irq)| (irq, Causes::of_queue(index)));
            return Ok((Signal::PerQueue, all.collect()));
        }
        Err(refused) => refused,
    };
    tracing::debug!("{}: no MSI-X: {refused}", backend.name());
    if config.queues > 1 {
        return Err(Error::NotOffered {
            device: backend.name().to_owned(),
            what: format!(
                "{} interrupts, one a queue pair: there is no MSI-X; \
                 start it with one queue pair, or poll (Waiting::Poll)",
                config.queues
            ),
        });
    }
    let irq = backend
        .interrupts(IrqKind::Msi, 1)
        .or_else(|_| backend.interrupts(IrqKind::Intx, 1))?
        .remove(0);
    Ok((Signal::One, vec![(irq, Causes::of_all())]))
}

fn transmit_ring<B: Backend>(
    backend: &B,
    bar: &B::Bar,
    state: &RingState,
    config: &NicConfig,
    quirks: &Quirks,
    pair: usize,
) -> Result<Tx<B::Bar>> {
    let setup = TxSetup {
        regs: tx_regs(pair),
        pair,
        len: config.tx_ring,
        min_frame: MIN_FRAME,
        max_frame: MAX_FRAME,
        max_payload: MAX_PAYLOAD,
        // The device could not tell, since the bus cuts its requests there anyway. But QEMU's model
        // maps a descriptor's buffer in one piece, and loses the frame where the pages behind it do not
        // lie side by side in the machine's memory.
        within_page: true,
        // It remembers the last context only, whichever queue that came by (§7.2.6).
        keeps_context: false,
        vlan: config.vlan_offload,
        cuts_ipv6: true,
        space: backend.dma().id(),
        quirks: quirks.transmit(false),
    };
    let within = quirks.writes_within;
    Tx::new(bar, backend.name(), backend.dma(), state, setup, within)
}

fn receive_ring<B: Backend>(
    backend: &B,
    bar: &B::Bar,
    state: &RingState,
    config: &NicConfig,
    pair: usize,
) -> Result<Ring<B::Bar>> {
    let dma = backend.dma();
    let setup = RxSetup::new(pair, config);
    Ok(match config.split_headers {
        true => Ring::Split(SplitRing::new(bar, state, dma, setup, config.max_frame)?),
        false => Ring::Extended(Rx::new(bar, state, dma, setup)?),
    })
}

/// `Quirks::no_aspm`: the link shall not sleep. Where it cannot be told so, people are.
fn forbid_aspm(backend: &impl Backend) -> Result<()> {
    let on = backend.disable_aspm()?;
    if !on.is_empty() {
        let name = backend.name();
        tracing::warn!(
            "{name}: ASPM {on} of its link is on, with which an 82574 loses completions and hangs\n  \
             try: as root, echo 0 | tee /sys/bus/pci/devices/{name}/link/l?_aspm; \
             or start the kernel with pcie_aspm=off"
        );
    }
    Ok(())
}

/// Quiets the device and resets it, §4.6.3 and §10.2.2 (RST). A request that is on the bus when it is
/// reset would never be answered, so none may be; a device that does not say so is reset all the
/// same.
fn reset<M: Mmio>(bar: &M, device: &str, quirks: &Quirks, config: &NicConfig) -> Result<()> {
    quiet(bar);
    bar.update(CTRL, |ctrl| ctrl.with_gio_master_disable(true));
    if !poll_until(BUS_BOUND, || !bar.get(STATUS).gio_master_en()) {
        tracing::debug!("{device}: requests on the bus are still under way");
    }
    // `Quirks::receive_kb`: it counts from the reset on.
    let receive_kb = quirks.receive_kb_for(config.max_frame);
    bar.set(PBA, Pba::new().with_rxa(receive_kb.into()));
    flush(bar);
    // `Quirks::before_reset`: what is on the bus ends.
    std::thread::sleep(quirks.before_reset);
    // `Quirks::mdio_owner`
    owner::with_mdio(bar, quirks, || {
        bar.update(CTRL, |ctrl| ctrl.with_rst(true));
        // The device must not be touched while it resets.
        std::thread::sleep(SETTLE);
    });
    if !poll_until(RESET_BOUND, || !bar.get(CTRL).rst()) {
        return Err(Error::Timeout {
            device: device.to_owned(),
            what: "the end of the device's reset (CTRL.RST)",
            bound: RESET_BOUND,
            remedy: "power the machine (or the VM) off and on; the device is stuck",
        });
    }
    if !eeprom::await_auto_read(bar) {
        tracing::debug!("{device}: it has not read its EEPROM");
    }
    // `Quirks::reload`: the PHY is configured from it now.
    let (Reload::Told(through) | Reload::ByItself(through) | Reload::Asked(through)) =
        quirks.reload;
    std::thread::sleep(through);
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
    bar.set(ICR_CLEAR, Interrupts::from(u32::MAX));
}

/// §4.6.4: link up by auto-negotiation, no flow control; and what Intel's own drivers set in every
/// 82574.
fn configure<M: Mmio>(bar: &M, device: &str, quirks: &Quirks, config: &NicConfig) {
    if !owner::with_mdio(bar, quirks, || phy::power_up(bar)) {
        tracing::debug!("{device}: its PHY does not answer");
    }
    bar.update(CTRL, |ctrl| {
        ctrl.with_gio_master_disable(false)
            .with_bit29(false)
            .with_slu(true)
            .with_asde(true)
            .with_frcspd(false)
            .with_frcdplx(false)
            .with_phy_rst(false)
            .with_rfce(false)
            .with_tfce(false)
            .with_vme(config.vlan_offload)
    });
    bar.update(CTRL_EXT, |ext| {
        ext.with_tx_ls_flow(true)
            .with_tx_ls(false)
            .with_drv_load(true)
    });
    bar.update(GCR, |gcr| {
        gcr.with_bit22(true).with_l1_act_without_l0s_rx(true)
    });
    bar.update(GCR2, |gcr2| gcr2.with_bit0(true));
    bar.set(VET, 0x8100);
    bar.set(FCAL, 0);
    bar.set(FCAH, 0);
    bar.set(FCT, 0);
    bar.set(FCTTV, 0);
}

/// From the EEPROM; else what the device loaded into receive address 0 at power-on.
fn read_mac<M: Mmio>(bar: &M) -> Option<Mac> {
    eeprom::mac(bar).or_else(|| {
        let high = bar.get(RAH.index(0));
        filter::joined(bar.get(RAL.index(0)), high.rah()).filter(|_| high.av())
    })
}

impl<B: Backend> Inspect for E1000e<B> {
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
        let each = self.pairs.iter();
        each.flat_map(|pair| [pair.tx.view(), pair.rx.view()])
            .collect()
    }
}

impl<B: Backend> Nic for E1000e<B> {
    fn name(&self) -> &str {
        self.backend.name()
    }

    fn model(&self) -> &'static str {
        self.model
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
        self.pairs.len()
    }

    fn pair(&self, index: usize) -> &dyn QueuePair {
        &self.pairs[index]
    }

    fn pair_mut(&mut self, index: usize) -> &mut dyn QueuePair {
        &mut self.pairs[index]
    }

    fn split(&mut self) -> Vec<&mut dyn QueuePair> {
        let each = self.pairs.iter_mut();
        each.map(|pair| pair as &mut dyn QueuePair).collect()
    }

    /// TDLEN is 0 after a reset, and never where the card is running.
    fn check(&self) -> Result<()> {
        self.backend.check_present()?;
        if self.running && self.bar.get(TDLEN.index(0)) == 0 {
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

    fn set_multicast(&mut self, groups: &[Mac]) -> Result<()> {
        self.state.check()?;
        filter::write(&self.bar, &MTA, filter::multicast(groups));
        flush(&self.bar);
        Ok(())
    }

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
        let measured = intel::limit(&mut self.pairs[0].tx, self.backend.dma(), self.mac, what);
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
        let name = self.backend.name();
        configure(&self.bar, name, self.quirks, &self.config);
        let mut in_flight = Vec::new();
        for pair in &mut self.pairs {
            in_flight.extend(pair.tx.restart());
            pair.rx.restart();
        }
        if let Err(error) = self.run() {
            self.stop()?;
            return Err(error);
        }
        Ok(in_flight)
    }
}

impl<B: Backend> Drop for E1000e<B> {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!("{error}");
        }
        // One that was only wanted back has stopped like any other. One that is not there only says so, by
        // ones in config space: its own memory, all that it could write, is nobody else's again. What others
        // lent it to read comes home.
        if !self.is_reset {
            let is_absent = self.backend.is_absent();
            for pair in &mut self.pairs {
                if is_absent {
                    pair.tx.release();
                }
                pair.tx.quarantine();
                pair.rx.quarantine();
            }
        }
    }
}

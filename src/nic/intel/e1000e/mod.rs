//! Intel 82574: a PCIe card with two queue pairs (QEMU's e1000e).
//!
//! The order of `E1000e::start` is that of the datasheet's §4.6 (82574 GbE Controller Family, rev.
//! 3.4): reset, general configuration, receive, transmit. [`regs`] and [`desc`] read beside its §10.2
//! and §7.1. What it shares with the 8254x is in `nic::intel`; the rest has the same names and differs:
//! receive descriptors, EERD, interrupts by queue, and that the bus must be quiet before a reset. The
//! card owns its rings, the rings own what the device can reach, and the card is stopped before they
//! go.

pub mod desc;
mod eeprom;
mod owner;
pub mod regs;
mod settings;

use std::time::Duration;

pub use crate::nic::intel::rx::BUFFER;
pub use crate::nic::intel::rx_split::HEADER;
pub use crate::nic::intel::tx::{MIN_FRAME, SubmitError, TxRing};
pub use settings::E1000eConfig;

use self::desc::{ExtendedRx, SplitRx};
use self::regs::*;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::irq::{Irq, IrqKind};
use crate::mmio::{Mmio, RegInfo};
use crate::nic::intel::card::{Card, Chip, Registers};
use crate::nic::intel::pair::{Causes, Pair};
use crate::nic::intel::quirks::{I82574L, Quirks, Reload};
use crate::nic::intel::rx::{OneBuffer, Rx, RxQueue, RxRegs, RxSetup};
use crate::nic::intel::rx_split::{HeaderAndRest, shape};
use crate::nic::intel::stats::{OctetRegs, StatRegs};
use crate::nic::intel::tx::{Tx, TxRegs, TxSetup};
use crate::nic::intel::{self, VENDOR, filter, flush, phy};
use crate::nic::{DeviceId, Link, Mac, NicConfig, RSS_KEY, Waiting};
use crate::pci::config::Command;
use crate::ring_state::RingState;
use crate::wait::poll_until;

/// Longest packet, in bytes: 9 KiB, so that several fit into the 20 KB of either packet buffer.
pub const MAX_FRAME: usize = 9216;
/// Longest payload that is cut into segments, in bytes: an IP packet's.
const MAX_PAYLOAD: usize = 65_535;
/// Queue pairs of the card.
pub const QUEUES: usize = 2;
/// Bound of a reset.
const RESET_BOUND: Duration = Duration::from_millis(200);
/// The device must not be touched for so long after RST, §10.2.2.
const SETTLE: Duration = Duration::from_millis(1);
/// Bound of requests on the bus that are still under way, §10.2.2 (GIO master disable).
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

/// The registers of receive queue `pair`, §10.2.5.
fn rx_regs(pair: usize) -> RxRegs {
    RxRegs {
        rdbal: RDBAL.index(pair),
        rdbah: RDBAH.index(pair),
        rdlen: RDLEN.index(pair),
        rdh: RDH.index(pair),
        rdt: RDT.index(pair),
    }
}

/// Interrupt mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    /// None.
    Never,
    /// By a message or a line for everything.
    One,
    /// By a message for each queue pair.
    PerQueue,
}

/// An 82574, and how it interrupts.
pub struct I82574 {
    quirks: &'static Quirks,
    signal: Signal,
}

/// A started card. Dropping it stops the device, then frees the memory that the device could reach.
pub type E1000e<B> = Card<B, I82574>;

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
        let signal = Signal::Never;
        let chip = I82574 { quirks, signal };
        Self::bring_up(
            backend,
            bar,
            (model, chip),
            config,
            |chip, backend, bar, state| {
                let (signal, irqs) = interrupts(backend, config)?;
                chip.signal = signal;
                let irqs = irqs.into_iter().enumerate();
                irqs.map(|(index, irq)| pair(backend, bar, state, config, quirks, (index, irq)))
                    .collect()
            },
        )
    }

    /// Transmit ring `pair`, for programs that want no batch between themselves and it.
    ///
    /// # Panics
    /// If there is none.
    pub fn tx(&mut self, pair: usize) -> TxRing<'_, B::Bar> {
        TxRing::new(&mut self.pairs[pair].tx)
    }
}

/// Queue pair `index`, which has this interrupt.
fn pair<B: Backend>(
    backend: &B,
    bar: &B::Bar,
    state: &RingState,
    config: &NicConfig,
    quirks: &Quirks,
    (
        index,
        (
            irq,
            PairCauses {
                receive,
                transmit,
                besides,
            },
        ),
    ): (usize, (Irq, PairCauses)),
) -> Result<Pair<B::Bar>> {
    let causes = Causes {
        ims: IMS.offset(),
        receive: receive.into_bits(),
        transmit: transmit.into_bits(),
    };
    let all = causes.receive | causes.transmit | besides.into_bits();
    let interrupted = bar.clone();
    Ok(Pair {
        tx: transmit_ring(backend, bar, state, config, quirks, index)?,
        rx: receive_ring(backend, bar, state, config, quirks, index)?,
        irq,
        waiting: config.waiting,
        causes,
        acknowledge: Box::new(move || acknowledge(&interrupted, Interrupts::from(all))),
        bar: bar.clone(),
        state: state.clone(),
    })
}

/// Asks for no more of these interrupts, and forgets those that came.
fn acknowledge<M: Mmio>(bar: &M, causes: Interrupts) {
    bar.set(IMC, causes);
    // Not by reading ICR, which would clear the other pair's causes, too.
    bar.set(ICR_CLEAR, causes);
    // It has arrived before the next look at the ring: else it may clear the cause of a frame
    // that came after the look, and nobody is woken. And a line is down only then, to be
    // unmasked.
    flush(bar);
}

/// The causes of a pair's interrupt. With MSI-X each pair has a vector and causes of its own, and an interrupt
/// masks its causes by itself (EIAC). Otherwise the one pair has the causes that all of Intel's cards have,
/// and the line must be unmasked.
#[derive(Debug, Clone, Copy)]
struct PairCauses {
    /// A frame came in, or what else may happen.
    receive: Interrupts,
    /// A frame left.
    transmit: Interrupts,
    /// Those that come with others: cleared, but not asked for.
    besides: Interrupts,
}

impl PairCauses {
    /// With MSI-X, pair `index`; the first looks after the link, too.
    fn of_queue(index: usize) -> Self {
        let none = Interrupts::new();
        let besides = none
            .with_rxo(true)
            .with_mdac(true)
            .with_srpd(true)
            .with_ack(true)
            .with_mng(true);
        let (receive, transmit) = match index {
            0 => (
                none.with_rxq0(true).with_other(true).with_lsc(true),
                none.with_txq0(true),
            ),
            _ => (none.with_rxq1(true), none.with_txq1(true)),
        };
        Self {
            receive,
            transmit,
            besides: if index == 0 { besides } else { none },
        }
    }

    /// The one pair's, with a message or a line.
    fn of_all() -> Self {
        let none = Interrupts::new();
        Self {
            receive: none
                .with_rxt0(true)
                .with_rxdmt0(true)
                .with_rxo(true)
                .with_lsc(true),
            transmit: none.with_txdw(true),
            besides: Interrupts::from(u32::MAX),
        }
    }
}

/// §7.1.9 (receive side scaling): with two queues, the hash of a packet's addresses picks one of 128
/// entries, and every other entry says queue 1. What is no IP packet goes to queue 0.
fn configure_rss<M: Mmio>(bar: &M, config: &NicConfig) {
    let two = config.queues == QUEUES;
    let checks = Rxcsum::new().with_ipofld(true).with_tuofld(true);
    bar.set(RXCSUM, checks.with_pcsd(two));
    if !two {
        bar.set(MRQC, Mrqc::new());
        return;
    }
    for (index, bytes) in RSS_KEY.as_chunks().0.iter().enumerate() {
        bar.set(RSSRK.index(index), u32::from_le_bytes(*bytes));
    }
    let entries = Reta::new().with_entry1(1 << 7).with_entry3(1 << 7);
    for index in 0..RETA.count() {
        bar.set(RETA.index(index), entries);
    }
    let mrqc = Mrqc::new()
        .with_mrqe(1)
        .with_tcp_ipv4(true)
        .with_ipv4(true)
        .with_tcp_ipv6(true)
        .with_ipv6(true);
    bar.set(MRQC, mrqc);
}

/// Returns the sizes of the buffers for packet split, as PSRCTL takes them, to be set before the receiver is on.
fn split_sizes(max_frame: usize) -> Psrctl {
    let (count, bytes) = shape(max_frame);
    let size = |nth: usize| if nth <= count { bytes / 1024 } else { 0 } as u8;
    Psrctl::new()
        .with_bsize0((HEADER / 128) as u8)
        .with_bsize1(size(1))
        .with_bsize2(size(2))
        .with_bsize3(size(3))
}

/// A vector for each pair; where there is no MSI-X, a message or a line for the one that there is then.
fn interrupts(
    backend: &impl Backend,
    config: &NicConfig,
) -> Result<(Signal, Vec<(Irq, PairCauses)>)> {
    if config.waiting == Waiting::Poll {
        let never = |index| Ok((Irq::never()?, PairCauses::of_queue(index)));
        let all = (0..config.queues).map(never).collect::<Result<_>>()?;
        return Ok((Signal::Never, all));
    }
    let refused = match backend.interrupts(IrqKind::MsiX, config.queues) {
        Ok(irqs) => {
            let irqs = irqs.into_iter().enumerate();
            let all = irqs.map(|(index, irq)| (irq, PairCauses::of_queue(index)));
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
    Ok((Signal::One, vec![(irq, PairCauses::of_all())]))
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
    quirks: &Quirks,
    pair: usize,
) -> Result<Box<dyn RxQueue>> {
    let (dma, within) = (backend.dma(), quirks.writes_within);
    let setup = RxSetup {
        regs: rx_regs(pair),
        pair,
        len: config.rx_ring,
        writes_within: within,
    };
    Ok(match config.of::<E1000eConfig>().split_headers {
        true => {
            let buffers = HeaderAndRest::new(dma, config)?;
            Box::new(Rx::<_, SplitRx>::new(bar, state, dma, setup, buffers)?)
        }
        false => {
            let buffers = OneBuffer::new(dma, config, within)?;
            Box::new(Rx::<_, ExtendedRx>::new(bar, state, dma, setup, buffers)?)
        }
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

impl<M: Mmio> Chip<M> for I82574 {
    #[allow(private_interfaces)]
    const REGISTERS: Registers = Registers {
        table: TABLE,
        statistics: STATISTICS,
        tdlen: TDLEN.index(0),
        mta: MTA,
        vfta: VFTA,
    };
    const FRAMES: (usize, usize) = (MIN_FRAME, MAX_FRAME);

    fn reset(&self, bar: &M, device: &str, config: &NicConfig) -> Result<()> {
        reset(bar, device, self.quirks, config)
    }

    fn read_mac(&self, bar: &M) -> Option<Mac> {
        owner::with_mdio(bar, self.quirks, || read_mac(bar))
    }

    fn configure(&self, bar: &M, device: &str, config: &NicConfig) {
        configure(bar, device, self.quirks, config);
    }

    /// §7.4: with MSI-X, vector n for what happens to pair n, and vector 0 for the rest, too.
    fn route_interrupts(&self, bar: &M, config: &NicConfig) {
        let per_queue = self.signal == Signal::PerQueue;
        let queues = Interrupts::new()
            .with_rxq0(true)
            .with_rxq1(true)
            .with_txq0(true)
            .with_txq1(true)
            .with_other(true);
        // An interrupt masks and clears its own causes, so that the next comes only once it was asked
        // for. IAM would do so on access to ICR: not wanted, because two pairs share that register.
        bar.set(IAM, Interrupts::new());
        bar.set(
            EIAC,
            match per_queue {
                true => queues,
                false => Interrupts::new(),
            },
        );
        bar.update(CTRL_EXT, |ext| {
            ext.with_pba_support(per_queue)
                .with_eiame(false)
                .with_iame(false)
        });
        let second = Ivar::to((config.queues as u8).saturating_sub(1));
        let routes = Ivar::new()
            .with_rxq0(Ivar::to(0))
            .with_txq0(Ivar::to(0))
            .with_other(Ivar::to(0))
            .with_rxq1(second)
            .with_txq1(second);
        bar.set(IVAR, if per_queue { routes } else { Ivar::new() });
        let ticks = intel::throttle_ticks(config.interrupt_interval);
        bar.set(ITR, ticks);
        for vector in 0..EITR.count() {
            bar.set(EITR.index(vector), ticks);
        }
    }

    /// §4.6.5
    fn start_receive(&self, bar: &M, mac: Mac, config: &NicConfig) {
        let (low, high) = filter::halves(mac);
        bar.set(RAL.index(0), low);
        bar.set(RAH.index(0), Rah::new().with_rah(high).with_av(true));
        for index in 1..RAL.count() {
            bar.set(RAH.index(index), Rah::new());
            bar.set(RAL.index(index), 0);
        }
        filter::write(bar, &MTA, [0; 128]);
        bar.set(
            RFCTL,
            Rfctl::new()
                .with_exsten(true)
                .with_ackdis(true)
                .with_iscsi_dis(true)
                .with_nfsw_dis(true)
                .with_nfsr_dis(true),
        );
        configure_rss(bar, config);
        bar.set(RDTR, Rdtr::new());
        bar.set(RADV, 0);
        bar.set(RSRPD, 0);
        for queue in 0..QUEUES {
            bar.set(
                RXDCTL.index(queue),
                Rxdctl::new().with_gran(true).with_wthresh(1),
            );
        }
        let split = config.of::<E1000eConfig>().split_headers;
        if split {
            bar.set(PSRCTL, split_sizes(config.max_frame));
        }
        let rctl = Rctl::new()
            .with_en(true)
            .with_bam(true)
            .with_secrc(true)
            .with_dtyp(u8::from(split))
            .with_upe(config.promiscuous)
            .with_mpe(config.promiscuous)
            .with_lpe(config.max_frame > 1518);
        // BSIZE 0 is BUFFER; packet split has its own sizes.
        const _: () = assert!(BUFFER == 2048);
        bar.set(RCTL, rctl);
    }

    /// §4.6.6
    fn start_transmit(&self, bar: &M, config: &NicConfig) {
        for queue in 0..QUEUES {
            bar.set(
                TXDCTL.index(queue),
                Txdctl::new()
                    .with_gran(true)
                    .with_wthresh(1)
                    .with_count_desc(true),
            );
        }
        // With a threshold for write-back the timers must not be 0, §10.2.6.
        bar.set(TIDV, 8);
        bar.set(TADV, 32);
        bar.update(TARC.index(0), |tarc| {
            tarc.with_count(3)
                .with_enable(true)
                .with_bit26(true)
                .with_bits30_27(0)
        });
        let two = config.queues == QUEUES;
        bar.update(TARC.index(1), |tarc| tarc.with_count(3).with_enable(two));
        bar.set(TIPG, Tipg::new().with_ipgt(8).with_ipgr1(8).with_ipgr2(6));
        let tctl = Tctl::new()
            .with_psp(true)
            .with_ct(0x0f)
            .with_cold(self.quirks.cold_for(true))
            .with_mulr(true);
        bar.set(TCTL, tctl.with_en(true));
        flush(bar);
    }

    /// The datasheet asks for nothing.
    fn follow_link(&self, _: &M) {}

    /// Stops both directions. DMA under way ends within [`SETTLE`].
    fn quiet(bar: &M) {
        quiet(bar);
    }

    fn link(bar: &M) -> Link {
        let status = bar.get(STATUS);
        Link {
            // All ones is a device that is gone, not one that is up.
            up: status.lu() && status.into_bits() != u32::MAX,
            mbps: [10, 100, 1000, 1000][usize::from(status.speed())],
            full_duplex: status.fd(),
        }
    }

    fn set_promiscuous(bar: &M, on: bool) {
        bar.update(RCTL, |rctl| rctl.with_upe(on).with_mpe(on));
    }

    fn filter_vlans(bar: &M, on: bool) {
        bar.update(RCTL, |rctl| rctl.with_vfe(on));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_told_of_the_buffers_that_a_split_descriptor_has() {
        for (max_frame, psrctl) in [
            (1518, 0x0000_0202),
            (1522, 0x0000_0202),
            (1523, 0x0404_0402),
            (9216, 0x0404_0402),
        ] {
            assert_eq!(split_sizes(max_frame).into_bits(), psrctl, "{max_frame}");
        }
    }
}

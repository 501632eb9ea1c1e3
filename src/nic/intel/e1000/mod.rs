//! Intel 8254x: 82540EM, 82544GC and 82545EM.
//!
//! The order of `E1000::start` is that of the manual's chapter 14 (317453, rev. 4.0): reset,
//! general configuration, receive, transmit. [`regs`] and [`desc`] read beside chapters 13 and 3. The
//! card owns its rings, the rings own what the device can reach, and the card is stopped before they
//! go.

pub mod desc;
mod eeprom;
pub mod regs;

use std::time::Duration;

pub use crate::nic::intel::VENDOR;
pub use crate::nic::intel::rx::{BUFFER, RxRing};
pub use crate::nic::intel::tx::{SubmitError, TxRing};

use self::desc::RxDesc;
use self::regs::*;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::irq::{Irq, IrqKind};
use crate::mmio::{Mmio, RegInfo};
use crate::nic::intel::card::{Card, Chip, Registers};
use crate::nic::intel::pair::{Causes, Pair};
use crate::nic::intel::quirks::{I82540EM, I82544GC, I82545EM, Quirks, Reload};
use crate::nic::intel::rx::{OneBuffer, Rx, RxRegs, RxSetup};
use crate::nic::intel::stats::{OctetRegs, StatRegs};
use crate::nic::intel::tx::{MAX_BUFFER, MAX_PAYLEN, Tx, TxRegs, TxSetup};
use crate::nic::intel::{self, filter, flush, phy};
use crate::nic::{DeviceId, Link, Mac, NicConfig, Waiting};
use crate::pci::config::Command;
use crate::ring_state::RingState;
use crate::wait::poll_until;

/// Shortest frame, in bytes: a header of Ethernet's. The ring itself pads what is short of 60 bytes.
pub const MIN_FRAME: usize = 14;
/// Longest packet that the device takes, in bytes, §3.3.3.
pub const MAX_FRAME: usize = MAX_BUFFER;
/// Bound of a reset.
const RESET_BOUND: Duration = Duration::from_millis(200);
/// The device must not be touched for so long after RST, §13.4.1.
const SETTLE: Duration = Duration::from_millis(1);
/// Bytes of the I/O ports: IOADDR and IODATA, §13.2.2.
const PORTS: usize = 8;

/// The chips that this driver knows.
#[derive(Debug, Clone, Copy)]
struct Model {
    /// Features by which it differs.
    features: Features,
    /// Quirks: what its errata ask for.
    quirks: &'static Quirks,
}

/// Differences between the chips that the manual itself names.
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

/// The registers of the receive queue, §13.4.25 to §13.4.29.
const RX: RxRegs = RxRegs {
    rdbal: RDBAL,
    rdbah: RDBAH,
    rdlen: RDLEN,
    rdh: RDH,
    rdt: RDT,
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

/// Intel 8254x: a chip of the family, and the other way to its registers, where it needs that and the
/// backend reaches it.
pub struct I8254x<M> {
    features: Features,
    quirks: &'static Quirks,
    ports: Option<M>,
}

/// A started card. Dropping it stops the device, then frees the memory that the device could reach.
pub type E1000<B> = Card<B, I8254x<<B as Backend>::Bar>>;

impl<B: Backend> E1000<B> {
    /// Resets the card and starts it.
    ///
    /// # Errors
    /// A card of another kind, one that does not reset or has no link within
    /// [`NicConfig::link_wait`], or no memory for its rings.
    pub fn start(backend: B, config: &NicConfig) -> Result<Self> {
        backend.check_present()?;
        let (model, Model { features, quirks }) = intel::model_of(&backend, MODELS)?;
        intel::check_config(config, MAX_FRAME)?;
        let bar = backend.map_bar(0, RegInfo::size_of(TABLE))?;
        backend.command(Command::MEMORY, Command::BUS_MASTER)?;
        let chip = I8254x {
            features,
            quirks,
            ports: ports(&backend, quirks),
        };
        Self::bring_up(
            backend,
            bar,
            (model, chip),
            config,
            |_, backend, bar, state| Ok(vec![pair(backend, bar, state, config, quirks)?]),
        )
    }

    /// The transmit ring, for programs that want no batch between themselves and it.
    pub fn tx(&mut self) -> TxRing<'_, B::Bar> {
        TxRing::new(&mut self.pairs[0].tx)
    }

    /// The receive ring, likewise.
    pub fn rx(&mut self) -> RxRing<'_> {
        RxRing::new(&mut *self.pairs[0].rx)
    }
}

/// The card's only queue pair.
fn pair<B: Backend>(
    backend: &B,
    bar: &B::Bar,
    state: &RingState,
    config: &NicConfig,
    quirks: &'static Quirks,
) -> Result<Pair<B::Bar>> {
    let irq = match config.waiting {
        Waiting::Poll => Irq::never()?,
        _ => backend.interrupts(IrqKind::Intx, 1)?.remove(0),
    };
    let (name, dma, within) = (backend.name(), backend.dma(), quirks.writes_within);
    let rx_setup = RxSetup {
        regs: RX,
        pair: 0,
        len: config.rx_ring,
        writes_within: within,
    };
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
    let buffers = OneBuffer::new(dma, config, within)?;
    let none = Interrupts::new();
    let receive = none
        .with_rxt0(true)
        .with_rxdmt0(true)
        .with_rxo(true)
        .with_lsc(true);
    let interrupted = bar.clone();
    Ok(Pair {
        rx: Box::new(Rx::<_, RxDesc>::new(bar, state, dma, rx_setup, buffers)?),
        tx: Tx::new(bar, name, dma, state, tx_setup, within)?,
        irq,
        waiting: config.waiting,
        causes: Causes {
            ims: IMS.offset(),
            receive: receive.into_bits(),
            transmit: none.with_txdw(true).into_bits(),
        },
        acknowledge: Box::new(move || acknowledge(&interrupted, quirks)),
        bar: bar.clone(),
        state: state.clone(),
    })
}

/// Asks for no more interrupts, and forgets those that came.
fn acknowledge<M: Mmio>(bar: &M, quirks: &Quirks) {
    bar.set(IMC, Interrupts::from(u32::MAX));
    // Reading ICR clears the causes, which lowers the line; only then may it be unmasked.
    if bar.get(ICR).lsc() {
        follow_link(bar, quirks);
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

impl<M: Mmio + 'static> Chip<M> for I8254x<M> {
    #[allow(private_interfaces)]
    const REGISTERS: Registers = Registers {
        table: TABLE,
        statistics: STATISTICS,
        tdlen: TDLEN,
        mta: MTA,
        vfta: VFTA,
    };
    const FRAMES: (usize, usize) = (MIN_FRAME, MAX_FRAME);

    fn reset(&self, bar: &M, device: &str, config: &NicConfig) -> Result<()> {
        reset(bar, self.ports.as_ref(), device, self.quirks, config)
    }

    fn read_mac(&self, bar: &M) -> Option<Mac> {
        read_mac(bar, self.quirks)
    }

    fn configure(&self, bar: &M, device: &str, config: &NicConfig) {
        configure(bar, device, config);
    }

    /// All are on one line.
    fn route_interrupts(&self, _: &M, _: &NicConfig) {}

    /// §14.4, and RCTL once only: each write of it makes QEMU's model wait a second before it
    /// receives.
    fn start_receive(&self, bar: &M, mac: Mac, config: &NicConfig) {
        let (low, high) = filter::halves(mac);
        bar.set(RAL.index(0), low);
        bar.set(RAH.index(0), Rah::new().with_rah(high).with_av(true));
        for index in 1..RAL.count() {
            bar.set(RAH.index(index), Rah::new());
            bar.set(RAL.index(index), 0);
        }
        filter::write(bar, &MTA, [0; 128]);
        bar.set(RXCSUM, Rxcsum::new().with_ipofld(true).with_tuofld(true));
        bar.set(RDTR, Rdtr::new());
        if self.features.timers {
            bar.set(RADV, 0);
        }
        let rctl = Rctl::new()
            .with_en(true)
            .with_bam(true)
            .with_secrc(true)
            .with_upe(config.promiscuous)
            .with_mpe(config.promiscuous)
            .with_lpe(config.max_frame > 1518);
        bar.set(
            RCTL,
            rctl.with_buffer(BUFFER).expect("a size that BSIZE has"),
        );
    }

    /// §14.5
    fn start_transmit(&self, bar: &M, config: &NicConfig) {
        let gap = Tipg::new().with_ipgt(self.features.ipgt);
        bar.set(TIPG, gap.with_ipgr1(8).with_ipgr2(6));
        bar.set(TIDV, 1);
        let cold = self.quirks.cold_for(true);
        let tctl = Tctl::new().with_psp(true).with_ct(0x0f).with_cold(cold);
        bar.set(TCTL, tctl.with_en(true));
        flush(bar);
        // §13.4.18: ITR counts 256 ns.
        if self.features.timers {
            bar.set(ITR, intel::throttle_ticks(config.interrupt_interval));
        }
    }

    fn follow_link(&self, bar: &M) {
        follow_link(bar, self.quirks);
    }

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

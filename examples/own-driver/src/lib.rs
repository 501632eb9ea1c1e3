//! A driver for the Realtek RTL8139C+ in its C+ mode, QEMU's `rtl8139`: a crate of its own that uses pinwire.
//!
//! [`regs`] and [`desc`] read beside the datasheet, [`rings`] moves frames, and here the card is started and stopped.

mod desc;
mod regs;
mod rings;

use pinwire::nic::prelude::*;

use crate::desc::Desc;
use crate::regs::*;
use crate::rings::{BUFFER, MOST, RING};

/// Shortest frame: a header, since the chip pads what is too short for the wire (but not where it makes checksums, which
/// it is not asked for here). And the longest, with a tag and without the check sequence.
const FRAMES: (usize, usize) = (14, 1518);
/// How long a reset may take.
const RESET_BOUND: Duration = Duration::from_millis(200);
/// Revisions below are older chips with the same ids, which have no C+ mode.
const FIRST_REVISION: u8 = 0x20;

/// The driver, for a list of drivers.
pub struct Driver;

/// A started card. Dropping it stops the chip, then frees the memory that the chip could reach.
struct Rtl8139<B: Backend> {
    tx: OwnRing<Desc, Frame>,
    rx: OwnRing<Desc, DmaBuf>,
    pool: Pool,
    frames: FrameAssembler,
    limits: TxLimits,
    /// Counted here: the chip counts what it missed, and no bytes.
    stats: Stats,
    irq: Irq,
    state: RingState,
    bar: B::Bar,
    config: NicConfig,
    mac: Mac,
    /// The groups that are let in, by their hashes.
    hashes: u64,
    promiscuous: bool,
    /// It was reset, and not touched since.
    is_reset: bool,
    backend: B,
}

impl NicDriver for Driver {
    fn devices() -> Vec<DeviceId> {
        vec![DeviceId::new(0x10ec, 0x8139, "Realtek RTL8139C+")]
    }

    fn start<B: Backend + 'static>(backend: B, config: &NicConfig) -> Result<Box<dyn Nic>> {
        let device = backend.name().to_owned();
        config.check(&device, 1, FRAMES.1)?;
        if backend.revision()? < FIRST_REVISION {
            let what = "C+ mode: it is an older RTL8139".to_owned();
            return Err(Error::NotOffered { device, what });
        }
        let bar = backend.map_bar(1, RegInfo::size_of(TABLE))?;
        backend.command(Command::MEMORY, Command::BUS_MASTER)?;
        reset(&bar, &device)?;
        let (dma, halted) = (backend.dma(), bar.clone());
        let [tx, rx] = [config.tx_ring, config.rx_ring].map(|len| len.clamp(2, RING));
        // From here on dropping the card stops it, whatever fails.
        let mut card = Rtl8139 {
            tx: OwnRing::new(dma, tx)?,
            rx: OwnRing::new(dma, rx)?,
            // As many again as the ring holds, so that the caller may keep some.
            pool: Pool::new(dma, 2 * rx, BUFFER)?,
            frames: FrameAssembler::new(config, MOST * BUFFER, MOST),
            limits: TxLimits::plain(&device, dma.id(), FRAMES, tx),
            stats: Stats::default(),
            irq: one_interrupt(&backend, IrqKind::Intx, config.waiting)?,
            state: RingState::new(&device, backend.removal(), move || quiet(&halted)),
            // As the chip loaded it from its EEPROM.
            mac: Mac::from_words(bar.get(IDR.index(0)), bar.get(IDR.index(1))),
            bar,
            config: config.clone(),
            hashes: 0,
            promiscuous: config.promiscuous,
            is_reset: true,
            backend,
        };
        card.run()?;
        Ok(Box::new(card))
    }
}

impl<B: Backend> Rtl8139<B> {
    /// The chip was reset: lets it work on its rings.
    fn run(&mut self) -> Result<()> {
        self.is_reset = false;
        self.backend
            .command(Command::BUS_MASTER, Command::empty())?;
        // C+ mode first: its registers are others' in the old mode, and are lost as the mode begins (§6.33).
        self.bar.set(CPCR, CPCR_CPRX_CPTX_DAC);
        self.bar.set_halves(TNPDS, self.tx.iova().0);
        self.bar.set_halves(THPDS, 0);
        self.bar.set_halves(RDSAR, self.rx.iova().0);
        // On before they are configured: TCR and RCR do not take bursts before.
        self.bar.set(CR, CR_RE | CR_TE);
        self.bar.set(TCR, TCR_IFG_1024);
        self.bar.set(MPC, 0);
        self.state.start();
        self.filter()?;
        // After the filter: until then the chip would take in whatever the one before let in.
        self.refill();
        await_link(self, self.config.link_wait)
    }

    /// Stops the rings, then resets the chip.
    fn halt(&mut self) -> Result<()> {
        self.stats();
        self.state.stop();
        let reset = reset(&self.bar, self.backend.name());
        let stopped = reset.and(self.backend.command(Command::empty(), Command::BUS_MASTER));
        self.is_reset = stopped.is_ok();
        // A chip that is gone reads as one that never ends its reset.
        self.backend.check_present()?;
        stopped
    }

    /// Programs which frames come in, and waits until it is so.
    fn filter(&mut self) -> Result<()> {
        self.state.check()?;
        let (hashes, all) = match self.promiscuous {
            true => (u64::MAX, RCR_AAP),
            false => (self.hashes, 0),
        };
        self.bar.set_halves(MAR, hashes);
        self.bar.set(RCR, RCR_BASE | all);
        // Writes are posted; the read is answered after them.
        self.bar.get(RCR);
        Ok(())
    }
}

/// No interrupt, no new DMA.
fn quiet(bar: &impl Mmio) {
    bar.set(IMR, 0);
    bar.set(CR, 0);
}

/// Quiets the chip and resets it.
fn reset(bar: &impl Mmio, device: &str) -> Result<()> {
    quiet(bar);
    bar.set(CR, CR_RST);
    let done = || bar.get(CR) & CR_RST == 0;
    wait_until(device, "the end of its reset", RESET_BOUND, done)
}

impl<B: Backend> Inspect for Rtl8139<B> {
    fn register_table(&self) -> &'static [RegInfo] {
        TABLE
    }

    fn register_at(&self, place: Place) -> Option<(&'static RegInfo, usize)> {
        RegInfo::find(TABLE, place.offset).filter(|_| place.bar == 1)
    }

    fn registers(&self) -> Vec<RegisterView> {
        read_registers(&self.bar, TABLE)
    }

    fn rings(&self) -> Vec<RingView> {
        vec![self.tx.view("transmit", 0), self.rx.view("receive", 0)]
    }
}

impl<B: Backend> Nic for Rtl8139<B> {
    fn name(&self) -> &str {
        self.backend.name()
    }

    fn model(&self) -> &'static str {
        "Realtek RTL8139C+"
    }

    fn mac(&self) -> Mac {
        self.mac
    }

    fn link(&self) -> Link {
        let up = self.bar.get(MSR) & MSR_LINKB == 0;
        Link::negotiated(up, self.bar.get(ANAR), self.bar.get(ANLPAR))
    }

    fn min_tx_frame(&self) -> usize {
        FRAMES.0
    }

    fn max_tx_frame(&self) -> usize {
        FRAMES.1
    }

    /// None stays empty: OWN says how far the chip is.
    fn tx_capacity(&self, ring: usize) -> usize {
        ring.clamp(2, RING)
    }

    fn dma(&self) -> &Arc<dyn DmaSpace> {
        self.backend.dma()
    }

    fn pair(&self, index: usize) -> &dyn QueuePair {
        assert_eq!(index, 0, "it has one");
        self
    }

    fn pair_mut(&mut self, index: usize) -> &mut dyn QueuePair {
        assert_eq!(index, 0, "it has one");
        self
    }

    fn check(&self) -> Result<()> {
        self.backend.check_present()?;
        let device = self.name().to_owned();
        match self.bar.get(CR) & CR_TE {
            0 if !self.is_reset => Err(Error::WasReset { device }),
            _ => Ok(()),
        }
    }

    fn stats(&mut self) -> Stats {
        if self.state.is_running() {
            let missed = u64::from(self.bar.get(MPC) & 0xff_ffff);
            *self.stats.rx_missed.get_or_insert(0) += missed;
            self.bar.set(MPC, 0);
        }
        self.stats.rx_errors = self.frames.errors();
        self.stats
    }

    fn set_promiscuous(&mut self, on: bool) -> Result<()> {
        self.promiscuous = on;
        self.filter()
    }

    fn set_multicast(&mut self, groups: &[Mac]) -> Result<()> {
        let bits = groups.iter().map(|group| 1 << (group.crc() >> 26));
        self.hashes = bits.fold(0, |all, bit: u64| all | bit);
        self.filter()
    }

    fn stop(&mut self) -> Result<()> {
        match self.is_reset {
            true => self.backend.removal().check(),
            false => self.halt(),
        }
    }

    fn restart(&mut self) -> Result<Vec<Frame>> {
        self.halt()?;
        (self.hashes, self.promiscuous) = (0, self.config.promiscuous);
        self.rx.restart().for_each(drop);
        self.frames.discard();
        let in_flight = self.tx.restart().collect();
        self.run().inspect_err(|_| drop(self.stop()))?;
        Ok(in_flight)
    }
}

impl<B: Backend> Drop for Rtl8139<B> {
    fn drop(&mut self) {
        // Where it does not stop, its memory is cut off from it, or never freed.
        if self.stop().is_err() && !self.is_reset {
            self.pool.quarantine();
            self.rx.quarantine();
            self.tx.quarantine();
        }
    }
}

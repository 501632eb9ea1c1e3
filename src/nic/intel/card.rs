//! A started card: what is the same for all of Intel's gigabit cards, from the 8254x to the 82574.
//!
//! A [`Chip`] has what differs: its registers, and the order of its datasheet's chapter on initialisation.
//! The card owns its rings, the rings own what the device can reach, and the card is stopped before they go.

use std::sync::Arc;
use std::time::Duration;

use super::filter;
use super::flush;
use super::pair::Pair;
use super::stats::{Counters, StatRegs};
use crate::backend::Backend;
use crate::dma::DmaSpace;
use crate::error::{Error, Result};
use crate::inspect::{RegisterView, RingView, read_registers};
use crate::mmio::{Mmio, Place, ReadWrite, Reg, RegArray, RegInfo};
use crate::nic::{
    Frame, Inspect, Link, Mac, Nic, NicConfig, OffloadFlags, QueuePair, Stats, await_link,
};
use crate::pci::config::Command;
use crate::ring_state::RingState;

/// The registers that the part for all cards needs, where a chip has them.
pub(in crate::nic) struct Registers {
    /// All, to be shown.
    pub table: &'static [RegInfo],
    pub statistics: StatRegs,
    /// Length of the first transmit ring: 0 after a reset, and never where the card is running.
    pub tdlen: Reg<u32, ReadWrite>,
    /// Multicast table array.
    pub mta: RegArray<u32, ReadWrite>,
    /// VLAN filter table array.
    pub vfta: RegArray<u32, ReadWrite>,
}

/// Differences between families of chips. The methods are called in this order, and again from [`Chip::reset`] on
/// when the card is restarted.
pub trait Chip<M: Mmio>: Send + 'static {
    /// Registers that the code for all chips uses.
    #[allow(private_interfaces)]
    const REGISTERS: Registers;
    /// Shortest and longest frame that it sends, in bytes.
    const FRAMES: (usize, usize);

    /// Quiets the device and resets it.
    ///
    /// # Errors
    /// [`Error::Timeout`] where it did not reset.
    fn reset(&self, bar: &M, device: &str, config: &NicConfig) -> Result<()>;

    /// Its Ethernet address, from the EEPROM; else what it loaded at power-on.
    fn read_mac(&self, bar: &M) -> Option<Mac>;

    /// General configuration.
    fn configure(&self, bar: &M, device: &str, config: &NicConfig);

    /// Routes interrupt causes to their vectors, before the rings run.
    fn route_interrupts(&self, bar: &M, config: &NicConfig);

    /// Sets the receiver up and starts it: no ring has a buffer yet.
    fn start_receive(&self, bar: &M, mac: Mac, config: &NicConfig);

    /// Likewise the transmitter.
    fn start_transmit(&self, bar: &M, config: &NicConfig);

    /// The link is up, or may have changed.
    fn follow_link(&self, bar: &M);

    /// No interrupt, no new DMA.
    fn quiet(bar: &M);

    /// The link, as the card sees it now.
    fn link(bar: &M) -> Link;

    /// Receives what is addressed to others, too, or not.
    fn set_promiscuous(bar: &M, on: bool);

    /// Looks at the VLAN filter table, or not.
    fn filter_vlans(bar: &M, on: bool);
}

/// A started card of Intel's: [`E1000`](super::e1000::E1000) and [`E1000e`](super::e1000e::E1000e) are names for two of
/// its kinds, and what each has of its own is here, too.
///
/// Dropping it stops the device, then frees the memory that the device could reach.
pub struct Card<B: Backend, C: Chip<B::Bar>> {
    // Dropped in this order, after `Drop::drop` has stopped the device.
    pub(in crate::nic) pairs: Vec<Pair<B::Bar>>,
    bar: B::Bar,
    chip: C,
    backend: B,
    config: NicConfig,
    model: &'static str,
    mac: Mac,
    counters: Counters,
    /// That of all its rings.
    state: RingState,
    /// True from its start until it is stopped.
    running: bool,
    /// True from a reset until the card is touched again.
    is_reset: bool,
}

impl<B: Backend, C: Chip<B::Bar>> Card<B, C> {
    /// Resets the card and starts it with the pairs that `pairs` makes.
    pub(in crate::nic) fn bring_up(
        backend: B,
        bar: B::Bar,
        (model, mut chip): (&'static str, C),
        config: &NicConfig,
        pairs: impl FnOnce(&mut C, &B, &B::Bar, &RingState) -> Result<Vec<Pair<B::Bar>>>,
    ) -> Result<Self> {
        let name = backend.name();
        chip.reset(&bar, name, config)?;
        let mac = chip.read_mac(&bar).ok_or_else(|| Error::NotOffered {
            device: name.to_owned(),
            what: "no Ethernet address: neither its EEPROM nor its receive address 0 holds one"
                .to_owned(),
        })?;
        chip.configure(&bar, name, config);
        // The receiver and the transmitter are everybody's: all pairs stop together.
        let halted = bar.clone();
        let state = RingState::new(name, backend.removal(), move || C::quiet(&halted));
        let pairs = pairs(&mut chip, &backend, &bar, &state)?;
        // From here on dropping the card stops it, whatever fails.
        let mut card = Self {
            pairs,
            bar,
            chip,
            backend,
            config: config.clone(),
            model,
            mac,
            counters: Counters::default(),
            state,
            running: false,
            is_reset: false,
        };
        card.run()?;
        card.stats();
        card.counters = Counters::default();
        Ok(card)
    }

    /// The rings are set up: lets the device work on them.
    fn run(&mut self) -> Result<()> {
        self.backend
            .command(Command::BUS_MASTER, Command::empty())?;
        self.chip.route_interrupts(&self.bar, &self.config);
        self.state.start();
        self.chip.start_receive(&self.bar, self.mac, &self.config);
        for pair in &mut self.pairs {
            pair.rx.refill();
        }
        self.chip.start_transmit(&self.bar, &self.config);
        self.running = true;
        await_link(self, self.config.link_wait)?;
        self.chip.follow_link(&self.bar);
        Ok(())
    }

    /// Stops the rings, then resets the device.
    fn halt(&mut self) -> Result<()> {
        self.running = false;
        self.state.stop();
        // A reset clears them.
        self.stats();
        let name = self.backend.name();
        let quieted = self.chip.reset(&self.bar, name, &self.config);
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

impl<B: Backend, C: Chip<B::Bar>> Inspect for Card<B, C> {
    fn register_table(&self) -> &'static [RegInfo] {
        C::REGISTERS.table
    }

    fn register_at(&self, place: Place) -> Option<(&'static RegInfo, usize)> {
        RegInfo::find(C::REGISTERS.table, place.offset).filter(|_| place.bar == 0)
    }

    fn registers(&self) -> Vec<RegisterView> {
        read_registers(&self.bar, C::REGISTERS.table)
    }

    fn rings(&self) -> Vec<RingView> {
        self.pairs.iter().flat_map(Pair::views).collect()
    }
}

impl<B: Backend, C: Chip<B::Bar>> Nic for Card<B, C> {
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
        C::link(&self.bar)
    }

    fn min_tx_frame(&self) -> usize {
        C::FRAMES.0
    }

    fn max_tx_frame(&self) -> usize {
        C::FRAMES.1
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

    fn check(&self) -> Result<()> {
        self.backend.check_present()?;
        if self.running && self.bar.get(C::REGISTERS.tdlen) == 0 {
            return Err(Error::WasReset {
                device: self.name().to_owned(),
            });
        }
        Ok(())
    }

    fn stats(&mut self) -> Stats {
        self.counters.read(&self.bar, &C::REGISTERS.statistics)
    }

    fn set_promiscuous(&mut self, on: bool) -> Result<()> {
        self.state.check()?;
        C::set_promiscuous(&self.bar, on);
        flush(&self.bar);
        Ok(())
    }

    /// §13.5.1 of the 8254x manual
    fn set_multicast(&mut self, groups: &[Mac]) -> Result<()> {
        self.state.check()?;
        filter::write(&self.bar, &C::REGISTERS.mta, filter::multicast(groups));
        flush(&self.bar);
        Ok(())
    }

    /// §13.5.4 of the 8254x manual
    fn set_vlans(&mut self, vlans: Option<&[u16]>) -> Result<()> {
        let table = filter::vlans(vlans.unwrap_or_default())?;
        self.state.check()?;
        filter::write(&self.bar, &C::REGISTERS.vfta, table);
        C::filter_vlans(&self.bar, vlans.is_some());
        flush(&self.bar);
        Ok(())
    }

    fn limit(&mut self, len: usize, batch: usize, frames: u64) -> Result<Duration> {
        let what = (len, batch, frames);
        let measured = super::limit(&mut self.pairs[0].tx, self.backend.dma(), self.mac, what);
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
            true => self.backend.removal().check(),
            false => self.halt(),
        }
    }

    fn restart(&mut self) -> Result<Vec<Frame>> {
        self.halt()?;
        self.is_reset = false;
        let name = self.backend.name();
        self.chip.configure(&self.bar, name, &self.config);
        let in_flight = self.pairs.iter_mut().flat_map(Pair::restart).collect();
        if let Err(error) = self.run() {
            self.stop()?;
            return Err(error);
        }
        Ok(in_flight)
    }
}

impl<B: Backend, C: Chip<B::Bar>> Drop for Card<B, C> {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!("{error}");
        }
        // One that was only wanted back has stopped like any other. One that is not there only says so, by
        // ones in config space: its own memory, all that it could write, is nobody else's again. What others
        // gave it to read returns.
        if !self.is_reset {
            let is_absent = self.backend.is_absent();
            for pair in &mut self.pairs {
                pair.quarantine(is_absent);
            }
        }
    }
}

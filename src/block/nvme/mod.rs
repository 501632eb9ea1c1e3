//! NVMe controllers: base specification 1.4 and later, the NVM command set.
//!
//! The order of [`Nvme::start`] is that of §7.6.1: disable, admin queue, enable, identify, queues. The controller owns its
//! queues, a queue owns the requests in flight and their memory, and the controller is disabled before they go. What is
//! read beside the specification: [`regs`] §3.1, [`command`] §4.2 to §6, [`identify`] §5.15, [`queue`](self) §4.1,
//! [`prp`](self) §4.3, [`status`](self) §4.6.1.

mod admin;
pub mod command;
pub mod identify;
mod io;
mod prp;
mod queue;
pub mod regs;
mod status;

use std::sync::Arc;
use std::time::Duration;

pub use io::IoQueue;
pub use prp::PAGE;
pub use status::Status;

use self::admin::Admin;
use self::command::Command;
use self::identify::{Controller, Oncs};
use self::io::Facts;
use self::prp::Lists;
use self::queue::Queues;
use self::regs::*;
use crate::backend::Backend;
use crate::block::{Disk, DiskConfig, DiskQueue, Health, Limits, Namespace, Request};
use crate::dma::DmaSpace;
use crate::error::{Error, Result};
use crate::inspect::{Inspect, RegisterView, RingView, read_registers};
use crate::irq::{Irq, IrqKind};
use crate::mmio::{Mmio, Place, RegInfo};
use crate::pci::config;
use crate::ring_state::RingState;
use crate::wait::{Waiting, poll_until};

/// Class, subclass and programming interface of an NVMe controller in config space: its register 8, shifted by 8.
pub const CLASS: u32 = 0x01_08_02;
/// Longest wait for a shutdown, where the controller says none (RTD3E is not looked at).
const SHUTDOWN: Duration = Duration::from_secs(10);

/// A started NVMe controller.
pub struct Nvme<B: Backend> {
    // Dropped in this order, after `Drop::drop` has stopped the controller.
    queues: Vec<IoQueue<B::Bar>>,
    admin: Admin<B::Bar>,
    bar: B::Bar,
    backend: B,
    cap: Cap,
    model: String,
    facts: Arc<Facts>,
    state: RingState,
    /// True from a reset until the controller is touched again.
    is_reset: bool,
}

impl<B: Backend> Nvme<B> {
    /// Resets the controller behind `backend` and starts it.
    ///
    /// # Errors
    /// [`Error::NotOffered`] for what it or this driver cannot do; [`Error::Timeout`]; [`Error::ProtocolViolation`]. It
    /// is disabled then, and no memory is left mapped for it.
    pub fn start(backend: B, config: &DiskConfig) -> Result<Self> {
        let name = backend.name().to_owned();
        let bar = backend.map_bar(0, doorbell(0, true, 0) + 4)?;
        // It answers to its BARs, and does nothing by itself: an earlier owner's queues may still be in its registers.
        backend.command(config::Command::MEMORY, config::Command::BUS_MASTER)?;
        let cap = bar.get(CAP);
        check_capabilities(&name, cap)?;
        let halted = bar.clone();
        let state = RingState::new(&name, backend.removal(), move || {
            halted.set(CC, Cc::new());
        });
        disable(&bar, &backend, cap)?;
        let admin = Admin::new(backend.dma(), bar.clone(), cap.dstrd(), &name, &state)?;
        let facts = Facts {
            name,
            namespaces: Vec::new(),
            limits: NO_LIMITS,
            optional: Oncs::empty(),
        };
        // From here on dropping it stops the controller, whatever fails.
        let mut disk = Self {
            queues: Vec::new(),
            admin,
            bar,
            backend,
            cap,
            model: String::new(),
            facts: Arc::new(facts),
            state,
            is_reset: false,
        };
        disk.enable()?;
        disk.identify()?;
        disk.create_queues(config)?;
        Ok(disk)
    }

    /// Gives the controller the admin queue, and waits until it is ready, §7.6.1.
    fn enable(&mut self) -> Result<()> {
        self.admin.reset();
        let (sq, cq) = self.admin.queues().iovas();
        let last = admin::ENTRIES - 1;
        self.bar
            .set(AQA, Aqa::new().with_asqs(last).with_acqs(last));
        self.bar.set(ASQ, sq.0);
        self.bar.set(ACQ, cq.0);
        self.backend
            .command(config::Command::BUS_MASTER, config::Command::empty())?;
        self.state.start();
        self.is_reset = false;
        // Entries of 64 and 16 bytes, pages of 4 KiB, round robin.
        let on = Cc::new().with_en(true).with_iosqes(6).with_iocqes(4);
        self.bar.set(CC, on);
        let bound = ready_bound(self.cap);
        let bar = &self.bar;
        let came = poll_until(bound, || {
            let status = bar.get(CSTS);
            status.rdy() || status.cfs()
        });
        self.backend.check_present()?;
        match (came, self.bar.get(CSTS).cfs()) {
            (_, true) => Err(self.state.mark_broken(FATAL)),
            (true, false) => Ok(()),
            (false, false) => Err(self.timeout("getting ready (CSTS.RDY)", bound)),
        }
    }

    fn timeout(&self, what: &'static str, bound: Duration) -> Error {
        Error::Timeout {
            device: self.backend.name().to_owned(),
            what,
            bound,
            remedy: "the controller may need a reset of its slot, or newer firmware",
        }
    }

    /// Asks what it is, and which namespaces it has.
    fn identify(&mut self) -> Result<()> {
        let name = self.backend.name().to_owned();
        let page = PAGE << self.cap.mpsmin();
        let controller = Controller::read(&self.admin.identify(identify::CONTROLLER, 0)?, page);
        let numbers: Vec<u32> =
            identify::numbers(&self.admin.identify(identify::NAMESPACES, 0)?).collect();
        let (mut namespaces, mut copy) = (Vec::new(), u32::MAX);
        for number in numbers {
            if number > controller.highest
                || namespaces.iter().any(|one: &Namespace| one.id == number)
            {
                let what = format!(
                    "lists a namespace {number}, of {} that it can have",
                    controller.highest
                );
                return Err(self.state.mark_broken(what));
            }
            let bytes = self.admin.identify(identify::NAMESPACE, number)?;
            match identify::namespace(number, &bytes) {
                Ok(Some(namespace)) => {
                    namespaces.push(namespace);
                    copy = copy.min(identify::copy_limit(&bytes));
                }
                Ok(None) => {}
                // The others can be used.
                Err(why) => tracing::warn!("{name}: {why}"),
            }
        }
        let can = |command| controller.optional.contains(command);
        let longest = Lists::longest();
        let limits = Limits {
            max_transfer: controller.max_transfer.unwrap_or(longest).min(longest),
            page: PAGE,
            align: 4,
            max_segments: longest / PAGE,
            has_cache: controller.has_cache,
            write_zeroes: can(Oncs::WRITE_ZEROES),
            discard: can(Oncs::DATASET_MANAGEMENT),
            compare: can(Oncs::COMPARE),
            verify: can(Oncs::VERIFY),
            copy: match can(Oncs::COPY) && !namespaces.is_empty() {
                true => copy,
                false => 0,
            },
        };
        self.model = [&controller.model, &controller.serial, &controller.firmware]
            .into_iter()
            .filter(|text| !text.is_empty())
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        self.facts = Arc::new(Facts {
            name,
            namespaces,
            limits,
            optional: controller.optional,
        });
        Ok(())
    }

    /// Creates the I/O queues, §7.6.1 steps 7 to 9.
    fn create_queues(&mut self, config: &DiskConfig) -> Result<()> {
        let name = self.backend.name().to_owned();
        let wanted = config.queues.clamp(1, 0xfffe) as u16;
        let granted = self
            .admin
            .run("give queues", Command::number_of_queues(wanted))?;
        let granted = (granted & 0xffff).min(granted >> 16) + 1;
        let count = granted.min(wanted.into()) as u16;
        if usize::from(count) < config.queues {
            return Err(Error::NotOffered {
                device: name,
                what: format!("{} queues: it has {granted}", config.queues),
            });
        }
        let end = doorbell(count, true, self.cap.dstrd()) + 4;
        if self.bar.size() < end {
            return Err(Error::UnusableBar {
                device: name,
                bar: 0,
                size: self.bar.size() as u64,
                needed: end as u64,
                why: "it is too short",
            });
        }
        // One entry stays empty.
        let len = config
            .depth
            .saturating_add(1)
            .clamp(2, usize::from(self.cap.mqes()) + 1);
        let len = len.min(u16::MAX.into()) as u16;
        let irqs = self.interrupts(config.waiting, count)?;
        for (index, (irq, vector)) in irqs.into_iter().enumerate() {
            let id = index as u16 + 1;
            let dma = self.backend.dma();
            let queues = Queues::new(dma, self.bar.clone(), (id, self.cap.dstrd()), len)?;
            let lists = Lists::new(dma, usize::from(len) - 1, self.facts.limits.max_transfer)?;
            let iovas = queues.iovas();
            let waiting = ((irq, vector), config.waiting);
            let queue = IoQueue::new(queues, lists, &self.facts, &self.state, waiting);
            // Kept before the controller is told of it, so that its memory stays where the controller may have it.
            self.queues.push(queue);
            self.admin.create(id, len, iovas, vector)?;
        }
        Ok(())
    }

    /// An interrupt for each queue, and its vector; one that never comes where the disk is polled.
    fn interrupts(&self, waiting: Waiting, count: u16) -> Result<Vec<(Irq, Option<u16>)>> {
        if waiting == Waiting::Poll {
            return (0..count).map(|_| Ok((Irq::never()?, None))).collect();
        }
        // Vector 0 is the admin queue's.
        if let Ok(irqs) = self
            .backend
            .interrupts(IrqKind::MsiX, usize::from(count) + 1)
        {
            let each = irqs.into_iter().enumerate().skip(1);
            return Ok(each
                .map(|(vector, irq)| (irq, Some(vector as u16)))
                .collect());
        }
        if count == 1 {
            let irq = self.backend.interrupts(IrqKind::Intx, 1)?.remove(0);
            return Ok(vec![(irq, Some(0))]);
        }
        Err(Error::NotOffered {
            device: self.backend.name().to_owned(),
            what: format!("an interrupt for each of {count} queues: take one queue, or poll"),
        })
    }

    /// Tells the controller to shut down (§7.6.2), then disables it.
    fn halt(&mut self) -> Result<()> {
        let was_running = self.state.is_running();
        self.state.stop();
        if was_running {
            self.shut_down();
        }
        let disabled = disable(&self.bar, &self.backend, self.cap);
        let off = self
            .backend
            .command(config::Command::empty(), config::Command::BUS_MASTER);
        let stopped = disabled.and(off);
        self.is_reset = stopped.is_ok();
        self.backend.check_present()?;
        stopped
    }

    /// Normal shutdown, so that its caches are on the medium; one that does not end is told.
    fn shut_down(&self) {
        self.bar.update(CC, |cc| cc.with_shn(1));
        let bar = &self.bar;
        let ended = poll_until(SHUTDOWN, || {
            let status = bar.get(CSTS);
            status.shst() == 2 || status.cfs()
        });
        if !ended {
            tracing::warn!("{}: its shutdown did not end", self.backend.name());
        }
    }
}

const FATAL: &str = "says that it has failed (CSTS.CFS)";

const NO_LIMITS: Limits = Limits {
    max_transfer: 0,
    page: PAGE,
    align: 4,
    max_segments: 0,
    has_cache: false,
    write_zeroes: false,
    discard: false,
    compare: false,
    verify: false,
    copy: 0,
};

/// Longest wait for RDY to follow EN: CAP.TO, and a second at least.
fn ready_bound(cap: Cap) -> Duration {
    Duration::from_millis(500 * u64::from(cap.to()).max(2))
}

/// Checks that the driver and the controller have a way of working in common.
fn check_capabilities(name: &str, cap: Cap) -> Result<()> {
    let refused = |what: &str| {
        Err(Error::NotOffered {
            device: name.to_owned(),
            what: what.to_owned(),
        })
    };
    if u64::from(cap) == u64::MAX {
        return Err(Error::DeviceGone(name.to_owned()));
    }
    if cap.css() & 1 == 0 {
        return refused("the NVM command set");
    }
    if cap.mpsmin() > 0 {
        return refused("pages of 4 KiB: its least are longer");
    }
    if cap.mqes() == 0 {
        return refused("queues of two entries");
    }
    Ok(())
}

/// Disables the controller and waits until it has stopped: what it had is forgotten, and it does no DMA, §7.3.2.
fn disable<B: Backend>(bar: &B::Bar, backend: &B, cap: Cap) -> Result<()> {
    let bound = ready_bound(cap);
    let timeout = |what| Error::Timeout {
        device: backend.name().to_owned(),
        what,
        bound,
        remedy: "the controller may need a reset of its slot, or newer firmware",
    };
    let cc = bar.get(CC);
    // One that is on its way up must not be turned off before it is there, §3.1.5.
    if cc.en()
        && !poll_until(bound, || {
            let status = bar.get(CSTS);
            status.rdy() || status.cfs()
        })
    {
        backend.check_present()?;
        return Err(timeout("getting ready before it is reset (CSTS.RDY)"));
    }
    bar.set(CC, cc.with_en(false).with_shn(0));
    if !poll_until(bound, || !bar.get(CSTS).rdy()) {
        backend.check_present()?;
        return Err(timeout("stopping (CSTS.RDY)"));
    }
    Ok(())
}

impl<B: Backend> Inspect for Nvme<B> {
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
        let admin = self.admin.queues().views(|words| {
            let name = Admin::<B::Bar>::name_of(words[0] as u8);
            (format!("{name}: {}", Command::describe(words)), None)
        });
        let each = self.queues.iter().flat_map(IoQueue::views);
        admin.into_iter().chain(each).collect()
    }
}

impl<B: Backend> Disk for Nvme<B> {
    fn name(&self) -> &str {
        self.backend.name()
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn dma(&self) -> &Arc<dyn DmaSpace> {
        self.backend.dma()
    }

    fn namespaces(&self) -> &[Namespace] {
        &self.facts.namespaces
    }

    fn limits(&self) -> &Limits {
        &self.facts.limits
    }

    fn queues(&self) -> usize {
        self.queues.len()
    }

    fn queue(&self, index: usize) -> &dyn DiskQueue {
        &self.queues[index]
    }

    fn queue_mut(&mut self, index: usize) -> &mut dyn DiskQueue {
        &mut self.queues[index]
    }

    fn split(&mut self) -> Vec<&mut dyn DiskQueue> {
        let each = self.queues.iter_mut();
        each.map(|queue| queue as &mut dyn DiskQueue).collect()
    }

    fn check(&self) -> Result<()> {
        self.backend.check_present()?;
        self.state.check()?;
        let status = self.bar.get(CSTS);
        match (status.cfs(), status.rdy()) {
            (true, _) => Err(self.state.mark_broken(FATAL)),
            (false, true) => Ok(()),
            (false, false) => Err(Error::WasReset {
                device: self.backend.name().to_owned(),
            }),
        }
    }

    fn health(&mut self) -> Result<Option<Health>> {
        // SMART / health, §5.14.1.2
        let log = self.admin.log_page(2)?;
        Ok(Some(Health::read(&log)))
    }

    fn stop(&mut self) -> Result<()> {
        match self.is_reset {
            true => self.backend.removal().check(),
            false => self.halt(),
        }
    }

    fn restart(&mut self) -> Result<Vec<Request>> {
        self.halt()?;
        let lost = self.queues.iter_mut().flat_map(IoQueue::reset).collect();
        let again = self.enable().and_then(|()| self.create_again());
        if let Err(error) = again {
            self.stop()?;
            return Err(error);
        }
        Ok(lost)
    }
}

impl<B: Backend> Nvme<B> {
    /// Tells the controller, which was reset, of the queues that there are.
    fn create_again(&mut self) -> Result<()> {
        let count = self.queues.len() as u16;
        self.admin
            .run("give queues", Command::number_of_queues(count))?;
        for queue in &self.queues {
            let queues = queue.queues();
            let vector = queue.vector();
            self.admin
                .create(queues.id(), queues.len(), queues.iovas(), vector)?;
        }
        Ok(())
    }
}

impl<B: Backend> Drop for Nvme<B> {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!("{error}");
        }
        // What a controller that did not stop may still reach is nobody else's again.
        if !self.is_reset {
            self.admin.quarantine();
            self.queues.iter_mut().for_each(IoQueue::quarantine);
        }
    }
}

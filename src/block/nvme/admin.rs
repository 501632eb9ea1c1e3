//! The admin queue (§5): one command at a time, with a bound.

use std::sync::Arc;
use std::time::Duration;

use super::command::{Command, admin};
use super::identify::LEN;
use super::queue::Queues;
use crate::dma::{DmaRegion, DmaSpace, Iova};
use crate::error::{Error, Result};
use crate::mmio::Mmio;
use crate::ring_state::RingState;
use crate::wait::poll_until;

/// Entries of the admin queues.
pub const ENTRIES: u16 = 32;
/// Longest wait for an admin command: those that are used here read or write a few words.
const BOUND: Duration = Duration::from_secs(10);

/// The admin queue, and a page for what its commands read.
pub struct Admin<M> {
    queues: Queues<M>,
    page: DmaRegion,
    name: String,
    state: RingState,
    /// The identifier of the last command.
    cid: u16,
}

impl<M: Mmio> Admin<M> {
    /// The queue of `name`, whose doorbells are `stride` apart.
    pub fn new(
        dma: &Arc<dyn DmaSpace>,
        bar: M,
        stride: u8,
        name: &str,
        state: &RingState,
    ) -> Result<Self> {
        Ok(Self {
            queues: Queues::new(dma, bar, (0, stride), ENTRIES)?,
            page: DmaRegion::alloc(dma, LEN)?,
            name: name.to_owned(),
            state: state.clone(),
            cid: 0,
        })
    }

    /// Its queues.
    pub fn queues(&self) -> &Queues<M> {
        &self.queues
    }

    /// Empties it: the controller was reset.
    pub fn reset(&mut self) {
        self.queues.reset();
    }

    /// The controller did not stop.
    pub fn quarantine(&mut self) {
        self.queues.quarantine();
        self.page.quarantine();
    }

    /// Has the controller do `command`, and gives dword 0 of its completion.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::NotOffered`] where it fails, `what` being what was wanted; as
    /// [`RingState::check`].
    pub fn run(&mut self, what: &'static str, command: Command) -> Result<u32> {
        self.state.check()?;
        self.cid = self.cid.wrapping_add(1);
        let cid = self.cid;
        self.queues.write(0, &command.with_cid(cid));
        self.queues.advance(1);
        self.queues.ring();
        let (queues, state) = (&self.queues, &self.state);
        if !poll_until(BOUND, || queues.is_ready() || !state.is_well()) {
            self.state.stop();
            return Err(Error::Timeout {
                device: self.name.clone(),
                what,
                bound: BOUND,
                remedy: "the controller does not answer: reset it, or look for its firmware's errata",
            });
        }
        self.state.check()?;
        let done = match self.queues.poll() {
            Ok(Some(done)) if done.cid() == cid => done,
            Ok(_) => {
                let what =
                    format!("completed an admin command that is not in flight while it had {cid}");
                return Err(self.state.mark_broken(what));
            }
            Err(what) => return Err(self.state.mark_broken(what)),
        };
        self.queues.release();
        match done.status().result() {
            Ok(()) => Ok(done.result),
            Err(failure) => Err(Error::NotOffered {
                device: self.name.clone(),
                what: format!("{what}: {failure}"),
            }),
        }
    }

    /// Reads the Identify structure `cns`.
    ///
    /// # Errors
    /// As [`Admin::run`].
    pub fn identify(&mut self, cns: u8, namespace: u32) -> Result<[u8; LEN]> {
        let command = Command::identify(cns, namespace, self.page.iova());
        self.run("say what it is (Identify)", command)?;
        Ok(self.take_page())
    }

    /// Reads the first 512 bytes of log `id`.
    ///
    /// # Errors
    /// As [`Admin::run`].
    pub fn log_page(&mut self, id: u8) -> Result<[u8; 512]> {
        self.run(
            "read a log page",
            Command::log_page(id, 512, self.page.iova()),
        )?;
        let page = self.take_page();
        Ok(page[..512].try_into().expect("512 bytes"))
    }

    /// Copies the page out, once: what is looked at is not the controller's any more.
    fn take_page(&mut self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        self.page.read(0, &mut bytes);
        self.page.write(0, &[0; LEN]);
        bytes
    }

    /// Creates a completion and a submission queue of number `id`.
    ///
    /// # Errors
    /// As [`Admin::run`].
    pub fn create(
        &mut self,
        id: u16,
        len: u16,
        iovas: (Iova, Iova),
        vector: Option<u16>,
    ) -> Result<()> {
        let (sq, cq) = iovas;
        // The completion queue first: a submission queue names the one that it answers to.
        self.run(
            "create a completion queue",
            Command::create_cq(id, len, cq, vector),
        )?;
        self.run("create a submission queue", Command::create_sq(id, len, sq))?;
        Ok(())
    }

    /// An admin command's opcode by name, to be shown.
    pub fn name_of(opcode: u8) -> &'static str {
        match opcode {
            admin::DELETE_SQ => "delete sq",
            admin::CREATE_SQ => "create sq",
            admin::GET_LOG_PAGE => "get log page",
            admin::DELETE_CQ => "delete cq",
            admin::CREATE_CQ => "create cq",
            admin::IDENTIFY => "identify",
            admin::ABORT => "abort",
            admin::SET_FEATURES => "set features",
            _ => "command",
        }
    }
}

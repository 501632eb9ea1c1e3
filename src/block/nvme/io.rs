//! An I/O queue: requests go out as commands and come back with their completions.
//!
//! A command's identifier (CID) is the place of its request in the queue's memory of what is in flight, which the
//! controller cannot reach. A completion that names a place where nothing is, or one that was emptied before, is no
//! answer to anything: the controller has broken the protocol, and nothing that it says is believed any more.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::command::{Command, nvm};
use super::identify::Oncs;
use super::prp::{self, Lists};
use super::queue::Queues;
use crate::block::{Completed, DiskQueue, Limits, Namespace, Operation, Request};
use crate::dma::{Chain, Iova};
use crate::error::{Error, Result};
use crate::inspect::RingView;
use crate::irq::Irq;
use crate::mmio::Mmio;
use crate::ring_state::RingState;
use crate::wait::{Wait, Waiting, no_interrupt};

/// Most blocks of one command: NLB has 16 bits, and counts from 0.
const MOST_BLOCKS: u64 = 1 << 16;
/// Deallocate: what a discard sets in dword 11 of Dataset Management.
const DEALLOCATE: u32 = 1 << 2;

/// What all queues of a disk know of it.
pub struct Facts {
    pub name: String,
    pub namespaces: Vec<Namespace>,
    pub limits: Limits,
    pub optional: Oncs,
}

/// An I/O queue of an NVMe controller.
pub struct IoQueue<M> {
    queues: Queues<M>,
    lists: Lists,
    /// Requests in flight, by CID.
    slots: Vec<Option<Request>>,
    /// CIDs that are free.
    free: Vec<u16>,
    facts: Arc<Facts>,
    state: RingState,
    irq: Irq,
    /// The interrupt's vector.
    vector: Option<u16>,
    waiting: Waiting,
}

impl<M: Mmio> IoQueue<M> {
    /// A queue over `queues`, with nothing in flight.
    pub fn new(
        queues: Queues<M>,
        lists: Lists,
        facts: &Arc<Facts>,
        state: &RingState,
        ((irq, vector), waiting): ((Irq, Option<u16>), Waiting),
    ) -> Self {
        let depth = queues.len() - 1;
        Self {
            queues,
            lists,
            slots: (0..depth).map(|_| None).collect(),
            // The lowest first: what is used stays in the cache.
            free: (0..depth).rev().collect(),
            facts: Arc::clone(facts),
            state: state.clone(),
            irq,
            vector,
            waiting,
        }
    }

    /// The vector of its interrupt; none where it is polled.
    pub fn vector(&self) -> Option<u16> {
        self.vector
    }

    /// Its queues.
    pub fn queues(&self) -> &Queues<M> {
        &self.queues
    }

    /// Returns the requests in flight, and empties it: the controller was reset.
    pub fn reset(&mut self) -> Vec<Request> {
        self.queues.reset();
        let lost = self.slots.iter_mut().filter_map(Option::take).collect();
        self.free.clear();
        self.free.extend((0..self.slots.len() as u16).rev());
        lost
    }

    /// The controller did not stop: it may go on reaching all that it was given.
    pub fn quarantine(&mut self) {
        self.queues.quarantine();
        self.lists.quarantine();
        let data = self.slots.iter_mut().filter_map(Option::take);
        data.filter_map(Request::into_data)
            .for_each(|data| data.quarantine());
    }

    /// Both of its queues, to be shown.
    pub fn views(&self) -> [RingView; 2] {
        self.queues.views(|words| {
            let cid = (words[0] >> 16) as u16;
            let request = self.slots.get(usize::from(cid)).and_then(Option::as_ref);
            let first = request.and_then(Request::data).map(|data| {
                let first = data.first();
                (first.iova(), first.address(), data.len())
            });
            (Command::describe(words), first)
        })
    }

    /// The command for `request`; its memory is described in list `cid`.
    ///
    /// # Errors
    /// In words, where the disk cannot do it.
    #[inline]
    fn command(&self, request: &Request, cid: u16) -> Result<Command, String> {
        let namespace = self.namespace(request.namespace)?;
        let data = match (request.operation.has_data(), request.data()) {
            (true, Some(data)) => Some(data),
            (false, None) => None,
            _ => return Err("its memory does not go with it".to_owned()),
        };
        let (opcode, blocks) = match request.operation {
            Operation::Flush => return Ok(Command::new(nvm::FLUSH, namespace.id).with_cid(cid)),
            Operation::Read => (nvm::READ, self.blocks_of(data, namespace)?),
            Operation::Write => (nvm::WRITE, self.blocks_of(data, namespace)?),
            Operation::Compare => (nvm::COMPARE, self.blocks_of(data, namespace)?),
            Operation::WriteZeroes => (nvm::WRITE_ZEROES, request.blocks.into()),
            Operation::Verify => (nvm::VERIFY, request.blocks.into()),
            Operation::Discard => (nvm::DATASET_MANAGEMENT, request.blocks.into()),
            Operation::Copy => (nvm::COPY, request.blocks.into()),
        };
        self.check(request, namespace, blocks)?;
        let command = Command::new(opcode, namespace.id).with_cid(cid);
        let nlb = blocks as u32 - 1;
        Ok(match request.operation {
            // One range, which lies where a list of pages would.
            Operation::Discard => {
                self.lists.put(cid, &[blocks << 32, request.lba]);
                let command = command.with_prp([self.lists.iova(cid), Iova(0)]);
                command.with_dw10(0, DEALLOCATE)
            }
            Operation::Copy => {
                self.lists.put(cid, &[0, request.lba, nlb.into(), 0]);
                let command = command.with_prp([self.lists.iova(cid), Iova(0)]);
                command.with_lba(request.target).with_dw12(0)
            }
            _ => {
                let command = command.with_lba(request.lba).with_dw12(nlb);
                match data {
                    Some(data) => command.with_prp(self.lists.describe(cid, data)),
                    None => command,
                }
            }
        })
    }

    #[inline]
    fn namespace(&self, id: u32) -> Result<&Namespace, String> {
        let found = self.facts.namespaces.iter().find(|one| one.id == id);
        found.ok_or_else(|| format!("there is no namespace {id}"))
    }

    /// Blocks that `data` fills.
    #[inline]
    fn blocks_of(&self, data: Option<&Chain>, namespace: &Namespace) -> Result<u64, String> {
        let data = data.ok_or("it has no memory")?;
        if data.plain(self.lists.space()).is_none() && !data.is_within(self.lists.space()) {
            return Err("its memory is of another address space than the disk's".to_owned());
        }
        prp::is_paged(data)?;
        let len = data.len();
        if len > self.facts.limits.max_transfer {
            let most = self.facts.limits.max_transfer;
            return Err(format!("{len} bytes at once: it takes up to {most}"));
        }
        let size = namespace.block_size as usize;
        // A power of two.
        match len & (size - 1) {
            0 => Ok(len as u64 / u64::from(namespace.block_size)),
            _ => Err(format!("{len} bytes are no whole blocks of {size}")),
        }
    }

    #[inline]
    fn check(&self, request: &Request, namespace: &Namespace, blocks: u64) -> Result<(), String> {
        let operation = request.operation;
        if blocks == 0 || blocks > MOST_BLOCKS {
            return Err(format!(
                "{blocks} blocks at once: from 1 to {MOST_BLOCKS} can be"
            ));
        }
        let fits = |lba: u64| {
            lba.checked_add(blocks)
                .is_some_and(|past| past <= namespace.blocks)
        };
        if !fits(request.lba) || (operation == Operation::Copy && !fits(request.target)) {
            return Err(format!("it has blocks 0 to {}", namespace.blocks - 1));
        }
        let needs = match operation {
            Operation::Read | Operation::Write | Operation::Flush => Oncs::empty(),
            Operation::Compare => Oncs::COMPARE,
            Operation::WriteZeroes => Oncs::WRITE_ZEROES,
            Operation::Discard => Oncs::DATASET_MANAGEMENT,
            Operation::Verify => Oncs::VERIFY,
            Operation::Copy => Oncs::COPY,
        };
        if !self.facts.optional.contains(needs) {
            return Err(format!("it cannot {operation}"));
        }
        if operation == Operation::Copy && blocks > self.facts.limits.copy.into() {
            let most = self.facts.limits.copy;
            return Err(format!("{blocks} blocks at once: it copies up to {most}"));
        }
        // What is only mapped for reading, such as a file's pages, is no place to read into.
        let mut segments = request.data().into_iter().flat_map(|data| data.segments());
        if operation == Operation::Read && !segments.all(|one| one.is_buffer()) {
            return Err("it would write into memory that is only there to be read".to_owned());
        }
        Ok(())
    }

    #[cold]
    fn refuse(&self, request: &Request, why: String) -> Error {
        Error::BadRequest {
            device: self.facts.name.clone(),
            what: format!("{} at block {}", request.operation, request.lba),
            why,
        }
    }

    #[inline]
    fn take_completed(&mut self, into: &mut Vec<Completed>, most: usize) -> Result<(), String> {
        for _ in 0..most {
            let Some(done) = self.queues.poll()? else {
                break;
            };
            let cid = done.cid();
            let slot = self.slots.get_mut(usize::from(cid));
            let Some(request) = slot.and_then(Option::take) else {
                return Err(format!("completed command {cid}, which is not in flight"));
            };
            self.free.push(cid);
            into.push(Completed {
                request,
                status: done.status().result(),
            });
        }
        Ok(())
    }
}

impl<M: Mmio> DiskQueue for IoQueue<M> {
    fn submit(&mut self, requests: &mut Vec<Request>) -> Result<usize> {
        self.state.check()?;
        let room = self.free.len().min(self.queues.room());
        let (mut count, mut refused) = (0, None);
        for (request, cid) in requests.iter().take(room).zip(self.free.iter().rev()) {
            match self.command(request, *cid) {
                Ok(command) => self.queues.write(count, &command),
                Err(why) => {
                    refused = Some(self.refuse(request, why));
                    break;
                }
            }
            count += 1;
        }
        for request in requests.drain(..usize::from(count)) {
            let cid = self.free.pop().expect("as many as were written");
            self.slots[usize::from(cid)] = Some(request);
        }
        // The queue owns their memory now, and only now are they submitted.
        self.queues.advance(count);
        match refused {
            Some(error) => Err(error),
            None => Ok(count.into()),
        }
    }

    fn doorbell(&mut self) -> Result<()> {
        self.state.check()?;
        self.queues.ring();
        Ok(())
    }

    fn completed(&mut self, into: &mut Vec<Completed>, most: usize) -> Result<usize> {
        self.state.check()?;
        let before = into.len();
        let taken = self.take_completed(into, most);
        if let Err(what) = taken {
            return Err(self.state.mark_broken(what));
        }
        self.queues.release();
        Ok(into.len() - before)
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn depth(&self) -> usize {
        self.slots.len()
    }
}

impl<M: Mmio> AsFd for IoQueue<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.irq.as_fd()
    }
}

impl<M: Mmio> Wait for IoQueue<M> {
    fn check_running(&self) -> Result<()> {
        self.state.check()
    }

    fn is_ready(&self) -> bool {
        !self.state.is_well() || self.queues.is_ready()
    }

    /// A controller interrupts for each completion, whether or not anybody waits: what came before is forgotten, and
    /// then looked for.
    fn arm(&mut self) -> Result<bool> {
        self.state.check()?;
        if self.irq().is_none() {
            return Err(no_interrupt(&self.facts.name));
        }
        self.irq.clear();
        self.irq.unmask()?;
        Ok(self.is_ready())
    }

    fn disarm(&mut self) -> Result<()> {
        self.irq.clear();
        Ok(())
    }

    fn irq(&self) -> Option<&Irq> {
        (self.waiting != Waiting::Poll).then_some(&self.irq)
    }

    fn waiting(&self) -> Waiting {
        self.waiting
    }
}

//! A submission queue and its completion queue (§4.1): where each side is, and nothing of what the commands mean.
//!
//! The driver writes commands at the tail of the one and rings its doorbell; the controller writes completions into the
//! other, from its first entry to its last and round again, with a phase tag that is the other way in each round. So
//! one load says whether an entry is new, and no register is read. Each completion says how far the controller is with
//! the commands (SQHD), which is when their entries may be written again.

use std::sync::Arc;

use super::command::{Command, Completion, Cqe, Sqe};
use super::regs::doorbell;
use crate::barrier::dma_wmb;
use crate::dma::{DmaArray, DmaSpace, Iova};
use crate::error::Result;
use crate::inspect::{Owner, RingIndices, RingView, SlotView};
use crate::mmio::Mmio;

/// A pair of queues of the same length and number.
pub struct Queues<M> {
    id: u16,
    submissions: DmaArray<Sqe>,
    completions: DmaArray<Cqe>,
    /// The entry that is written next.
    tail: u16,
    /// The tail that the controller was told.
    rung: u16,
    /// The controller has taken what is before this entry, as far as it has said.
    sq_head: u16,
    /// The entry that is looked at next, and the phase tag that makes it a new one.
    cq_head: u16,
    phase: bool,
    /// The head that the controller was told.
    cq_rung: u16,
    bar: M,
    /// Offsets of the doorbells.
    sq_doorbell: usize,
    cq_doorbell: usize,
}

impl<M: Mmio> Queues<M> {
    /// Empty queues of `len` entries (2 at least) each, with the doorbells of number `id`.
    pub fn new(dma: &Arc<dyn DmaSpace>, bar: M, (id, stride): (u16, u8), len: u16) -> Result<Self> {
        Ok(Self {
            id,
            submissions: DmaArray::alloc(dma, len.into())?,
            completions: DmaArray::alloc(dma, len.into())?,
            tail: 0,
            rung: 0,
            sq_head: 0,
            cq_head: 0,
            phase: true,
            cq_rung: 0,
            bar,
            sq_doorbell: doorbell(id, false, stride),
            cq_doorbell: doorbell(id, true, stride),
        })
    }

    /// Their number.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// Entries of each.
    #[inline]
    pub fn len(&self) -> u16 {
        self.submissions.len() as u16
    }

    /// IOVAs of the submission and of the completion queue.
    pub fn iovas(&self) -> (Iova, Iova) {
        (self.submissions.iova(0), self.completions.iova(0))
    }

    /// Entries from `from` on to `to`, round the end.
    #[inline]
    fn distance(&self, from: u16, to: u16) -> u16 {
        match to >= from {
            true => to - from,
            false => self.len() - from + to,
        }
    }

    #[inline]
    fn after(&self, index: u16) -> u16 {
        match index + 1 == self.len() {
            true => 0,
            false => index + 1,
        }
    }

    /// Commands that can be written: one entry stays empty, since a tail at the head means an empty queue.
    #[inline]
    pub fn room(&self) -> usize {
        usize::from(self.len() - 1 - self.distance(self.sq_head, self.tail))
    }

    /// Writes a command into the entry `nth` after the tail. It is not submitted before [`Queues::advance`], so that
    /// who writes a batch and gives up half-way has submitted none of it.
    ///
    /// There must be room.
    #[inline]
    pub fn write(&self, nth: u16, command: &Command) {
        let index = usize::from(self.tail) + usize::from(nth);
        let len = self.submissions.len();
        let index = if index >= len { index - len } else { index };
        self.submissions[index].write(command);
    }

    /// Submits `count` commands that were written. The controller does not look before [`Queues::ring`].
    #[inline]
    pub fn advance(&mut self, count: u16) {
        let tail = u32::from(self.tail) + u32::from(count);
        let len = u32::from(self.len());
        self.tail = if tail >= len { tail - len } else { tail } as u16;
    }

    /// Hands all that was written to the controller: one register write, or none where nothing was.
    #[inline]
    pub fn ring(&mut self) {
        if self.tail != self.rung {
            // Commands and their data before the doorbell: else the controller fetches what is not yet written.
            dma_wmb();
            self.bar.write32(self.sq_doorbell, self.tail.into());
            self.rung = self.tail;
        }
    }

    /// Returns whether there is a completion.
    #[inline]
    pub fn is_ready(&self) -> bool {
        let next = &self.completions[usize::from(self.cq_head)];
        next.poll(self.phase).is_some()
    }

    /// Takes the next completion, if there is one; [`Queues::release`] gives its entry back.
    ///
    /// # Errors
    /// In words, where it cannot be one of this queue.
    #[inline]
    pub fn poll(&mut self) -> Result<Option<Completion>, String> {
        let Some(done) = self.completions[usize::from(self.cq_head)].poll(self.phase) else {
            return Ok(None);
        };
        let sq_head = done.sq_head();
        // The controller cannot have taken more than it was told of, nor less than it said before.
        let is_taken = sq_head < self.len()
            && self.distance(self.sq_head, sq_head) <= self.distance(self.sq_head, self.rung);
        if done.sq_id() != self.id || !is_taken {
            return Err(self.complain(done));
        }
        self.sq_head = sq_head;
        self.cq_head = self.after(self.cq_head);
        self.phase ^= self.cq_head == 0;
        Ok(Some(done))
    }

    #[cold]
    #[inline(never)]
    fn complain(&self, done: Completion) -> String {
        let Self {
            id, sq_head, rung, ..
        } = self;
        match done.sq_id() == *id {
            false => format!(
                "completed a command of queue {} on queue {id}",
                done.sq_id()
            ),
            true => format!(
                "queue {id}: is at command {} of {}, after {sq_head} and with none from {rung} on",
                done.sq_head(),
                self.len()
            ),
        }
    }

    /// Gives the entries of all completions that were taken back to the controller: one register write, or none.
    #[inline]
    pub fn release(&mut self) {
        if self.cq_head != self.cq_rung {
            // No barrier: each entry was read by an Acquire load, which this write cannot pass.
            self.bar.write32(self.cq_doorbell, self.cq_head.into());
            self.cq_rung = self.cq_head;
        }
    }

    /// Empties both after a reset of the controller, which has forgotten them.
    pub fn reset(&mut self) {
        (self.tail, self.rung, self.sq_head) = (0, 0, 0);
        (self.cq_head, self.cq_rung, self.phase) = (0, 0, true);
        for entry in self.completions.iter() {
            entry.clear();
        }
    }

    /// The controller did not stop: it may go on using their memory.
    pub fn quarantine(&mut self) {
        self.submissions.quarantine();
        self.completions.quarantine();
    }

    /// Both queues, to be shown; `describe` puts a command in words.
    pub fn views(
        &self,
        describe: impl Fn(&[u64; 8]) -> (String, Option<(Iova, usize, usize)>),
    ) -> [RingView; 2] {
        let pair = usize::from(self.id);
        let waiting = self.distance(self.sq_head, self.rung);
        let submissions = (0..self.len()).map(|index| {
            let words = self.submissions[usize::from(index)].words();
            let (text, buffer) = describe(&words);
            let is_with_device = self.distance(self.sq_head, index) < waiting;
            SlotView {
                iova: self.submissions.iova(index.into()),
                words: words.to_vec(),
                text,
                owner: match is_with_device {
                    true => Owner::Device,
                    false => Owner::Driver,
                },
                buffer: buffer.filter(|_| is_with_device),
            }
        });
        let completions = (0..self.len()).map(|index| {
            let entry = &self.completions[usize::from(index)];
            let phase = self.phase ^ (index < self.cq_head);
            SlotView {
                iova: self.completions.iova(index.into()),
                words: entry.words().to_vec(),
                text: entry.describe(),
                owner: match entry.poll(phase) {
                    Some(_) if index >= self.cq_head => Owner::Done,
                    _ => Owner::Device,
                },
                buffer: None,
            }
        });
        let ring = |name, address: usize, indices, slots| RingView {
            name,
            pair,
            address,
            indices,
            slots,
        };
        let sq = RingIndices::Registers {
            head: self.sq_head.into(),
            tail: self.tail.into(),
        };
        let cq = RingIndices::Phase {
            head: self.cq_head.into(),
            phase: self.phase,
        };
        let address = |first: *const u8| first as usize;
        let sq_address = address(std::ptr::from_ref(&self.submissions[0]).cast());
        let cq_address = address(std::ptr::from_ref(&self.completions[0]).cast());
        [
            ring("submission", sq_address, sq, submissions.collect()),
            ring("completion", cq_address, cq, completions.collect()),
        ]
    }
}

//! Commands and completions as they lie in the queues (§4.2, §4.6): aligned words for the device, builders for us.
//!
//! A command is 64 bytes, eight words; a completion 16 bytes, two words, of which the second is written last and has
//! the phase tag: one load of it says whether the rest is there.

use std::sync::atomic::{AtomicU64, Ordering};

use super::status::Status;
use crate::dma::Iova;

crate::descriptor! {
    /// A submission queue entry, §4.2.
    #[repr(C, align(64))]
    pub struct Sqe([AtomicU64; 8]);
}

crate::descriptor! {
    /// A completion queue entry, §4.6.
    #[repr(C, align(16))]
    pub struct Cqe([AtomicU64; 2]);
}

const _: () = assert!(size_of::<Sqe>() == 64 && size_of::<Cqe>() == 16);

impl Sqe {
    /// Writes all words. A barrier must come before the doorbell.
    #[inline]
    pub fn write(&self, command: &Command) {
        for (to, word) in self.0.iter().zip(command.words) {
            to.store(word.to_le(), Ordering::Relaxed);
        }
    }

    /// All words, to be shown.
    pub fn words(&self) -> [u64; 8] {
        self.0
            .each_ref()
            .map(|word| u64::from_le(word.load(Ordering::Relaxed)))
    }
}

impl Cqe {
    /// The completion, where its phase tag is `phase`.
    #[inline]
    pub fn poll(&self, phase: bool) -> Option<Completion> {
        // Acquire: the other word, and the data, are there once the tag is.
        let word = u64::from_le(self.0[1].load(Ordering::Acquire));
        (word >> 48 & 1 == u64::from(phase)).then(|| Completion {
            word,
            result: u64::from_le(self.0[0].load(Ordering::Relaxed)) as u32,
        })
    }

    /// Makes it none, of either phase tag's round: zero, as fresh memory is.
    pub fn clear(&self) {
        self.0
            .iter()
            .for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Both words, to be shown.
    pub fn words(&self) -> [u64; 2] {
        self.0
            .each_ref()
            .map(|word| u64::from_le(word.load(Ordering::Relaxed)))
    }

    /// Its fields, to be shown.
    pub fn describe(&self) -> String {
        let [low, word] = self.words();
        let done = Completion {
            word,
            result: low as u32,
        };
        format!(
            "sqid={} sqhd={} cid={} p={} status={:#x} result={:#x}",
            done.sq_id(),
            done.sq_head(),
            done.cid(),
            word >> 48 & 1,
            done.status().0,
            done.result
        )
    }
}

/// What a completion queue entry says; nothing of it is checked.
#[derive(Debug, Clone, Copy)]
pub struct Completion {
    word: u64,
    /// Dword 0: the command's own.
    pub result: u32,
}

impl Completion {
    /// The head of the submission queue, SQHD.
    #[inline]
    pub fn sq_head(self) -> u16 {
        self.word as u16
    }

    /// The submission queue, SQID.
    #[inline]
    pub fn sq_id(self) -> u16 {
        (self.word >> 16) as u16
    }

    /// The command, CID.
    #[inline]
    pub fn cid(self) -> u16 {
        (self.word >> 32) as u16
    }

    /// The status field.
    #[inline]
    pub fn status(self) -> Status {
        Status((self.word >> 49) as u16)
    }
}

/// Opcodes of admin commands, §5.
pub mod admin {
    #![allow(missing_docs)]
    pub const DELETE_SQ: u8 = 0x00;
    pub const CREATE_SQ: u8 = 0x01;
    pub const GET_LOG_PAGE: u8 = 0x02;
    pub const DELETE_CQ: u8 = 0x04;
    pub const CREATE_CQ: u8 = 0x05;
    pub const IDENTIFY: u8 = 0x06;
    pub const ABORT: u8 = 0x08;
    pub const SET_FEATURES: u8 = 0x09;
}

/// Opcodes of the NVM command set, §6.
pub mod nvm {
    #![allow(missing_docs)]
    pub const FLUSH: u8 = 0x00;
    pub const WRITE: u8 = 0x01;
    pub const READ: u8 = 0x02;
    pub const COMPARE: u8 = 0x05;
    pub const WRITE_ZEROES: u8 = 0x08;
    pub const DATASET_MANAGEMENT: u8 = 0x09;
    pub const VERIFY: u8 = 0x0c;
    pub const COPY: u8 = 0x19;
}

/// A command, in the words of its queue entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    words: [u64; 8],
}

impl Command {
    /// A command for `namespace`; 0 where it is about none.
    #[inline]
    pub fn new(opcode: u8, namespace: u32) -> Self {
        let mut words = [0; 8];
        words[0] = u64::from(opcode) | u64::from(namespace) << 32;
        Self { words }
    }

    /// The same with its identifier.
    #[inline]
    #[must_use]
    pub fn with_cid(mut self, cid: u16) -> Self {
        self.words[0] = self.words[0] & !0xffff_0000 | u64::from(cid) << 16;
        self
    }

    /// The same with its data pointer: PRP entries 1 and 2, §4.3.
    #[inline]
    #[must_use]
    pub fn with_prp(mut self, prp: [Iova; 2]) -> Self {
        (self.words[3], self.words[4]) = (prp[0].0, prp[1].0);
        self
    }

    /// The same with command dwords 10 and 11.
    #[inline]
    #[must_use]
    pub fn with_dw10(mut self, dw10: u32, dw11: u32) -> Self {
        self.words[5] = u64::from(dw10) | u64::from(dw11) << 32;
        self
    }

    /// The same with the first block, in dwords 10 and 11.
    #[inline]
    #[must_use]
    pub fn with_lba(mut self, lba: u64) -> Self {
        self.words[5] = lba;
        self
    }

    /// The same with command dword 12.
    #[inline]
    #[must_use]
    pub fn with_dw12(mut self, dw12: u32) -> Self {
        self.words[6] = u64::from(dw12);
        self
    }

    /// Creates a completion queue, §5.3: `vector` is the interrupt's, where it has one.
    pub fn create_cq(id: u16, len: u16, iova: Iova, vector: Option<u16>) -> Self {
        let contiguous = 1;
        let interrupt = vector.map_or(0, |vector| 1 << 1 | u32::from(vector) << 16);
        Self::new(admin::CREATE_CQ, 0)
            .with_prp([iova, Iova(0)])
            .with_dw10(
                u32::from(id) | u32::from(len - 1) << 16,
                contiguous | interrupt,
            )
    }

    /// Creates the submission queue of the same number, §5.4.
    pub fn create_sq(id: u16, len: u16, iova: Iova) -> Self {
        let contiguous = 1;
        Self::new(admin::CREATE_SQ, 0)
            .with_prp([iova, Iova(0)])
            .with_dw10(
                u32::from(id) | u32::from(len - 1) << 16,
                contiguous | u32::from(id) << 16,
            )
    }

    /// Identify, §5.15: the structure `cns` into 4096 bytes at `iova`.
    pub fn identify(cns: u8, namespace: u32, iova: Iova) -> Self {
        Self::new(admin::IDENTIFY, namespace)
            .with_prp([iova, Iova(0)])
            .with_dw10(cns.into(), 0)
    }

    /// Get Log Page, §5.14: the first `bytes` bytes (a multiple of 4) of log `id` to `iova`.
    pub fn log_page(id: u8, bytes: u32, iova: Iova) -> Self {
        let dwords = bytes / 4 - 1;
        Self::new(admin::GET_LOG_PAGE, u32::MAX)
            .with_prp([iova, Iova(0)])
            .with_dw10(u32::from(id) | dwords << 16, dwords >> 16)
    }

    /// Set Features, §5.21: the number of queues of each kind, §5.21.1.7.
    pub fn number_of_queues(queues: u16) -> Self {
        let wanted = u32::from(queues - 1);
        Self::new(admin::SET_FEATURES, 0).with_dw10(0x07, wanted | wanted << 16)
    }

    /// Abort, §5.1.
    pub fn abort(queue: u16, cid: u16) -> Self {
        Self::new(admin::ABORT, 0).with_dw10(u32::from(queue) | u32::from(cid) << 16, 0)
    }

    /// A command that lies in a queue, in words.
    pub fn describe(words: &[u64; 8]) -> String {
        let opcode = words[0] as u8;
        let mut text = format!(
            "opc={opcode:#04x} cid={} nsid={}",
            words[0] >> 16 & 0xffff,
            words[0] >> 32
        );
        for (name, word) in [("prp1", words[3]), ("prp2", words[4])] {
            if word != 0 {
                text += &format!(" {name}={word:#x}");
            }
        }
        text += &format!(" dw10={:#x} dw12={:#x}", words[5], words[6]);
        text
    }

    /// Its words.
    pub fn words(&self) -> &[u64; 8] {
        &self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(word: u64) -> Completion {
        let cqe = Cqe([AtomicU64::new(7), AtomicU64::new(word)]);
        cqe.poll(word >> 48 & 1 == 1).expect("its own phase")
    }

    #[test]
    fn a_completions_fields_are_where_the_specification_has_them() {
        let done = completion(0x8006_5678_0003_0010 | 1 << 48);
        assert_eq!((done.sq_head(), done.sq_id()), (0x10, 3));
        assert_eq!((done.cid(), done.result), (0x5678, 7));
        // Do not retry, and status code 3 of type 0.
        assert_eq!(done.status().0, 0x4003);
    }

    #[test]
    fn the_other_phase_is_no_completion() {
        let cqe = Cqe([AtomicU64::new(0), AtomicU64::new(0)]);
        assert!(cqe.poll(true).is_none() && cqe.poll(false).is_some());
    }

    #[test]
    fn queues_are_created_with_lengths_less_one() {
        let command = Command::create_cq(2, 1024, Iova(0x7000), Some(3)).with_cid(9);
        let words = command.words();
        assert_eq!(words[0], 0x0009_0005);
        assert_eq!(words[3], 0x7000);
        assert_eq!(words[5], 0x0003_0003_03ff_0002);
        let command = Command::create_sq(2, 1024, Iova(0x8000));
        assert_eq!(command.words()[5], 0x0002_0001_03ff_0002);
    }
}

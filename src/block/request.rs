//! Requests: work for a disk, the memory that goes with it, and the answer.

use std::fmt;

use crate::dma::Chain;
use crate::error::{Error, Result};

/// Work of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Blocks into memory.
    Read,
    /// Memory into blocks.
    Write,
    /// What was written before is made durable.
    Flush,
    /// Blocks become zero, with no memory read.
    WriteZeroes,
    /// Blocks are not needed any more; what they hold then is the disk's choice.
    Discard,
    /// Blocks are compared with memory.
    Compare,
    /// Blocks are read by the disk, which says whether it could.
    Verify,
    /// Blocks are copied to other blocks of the same disk, by the disk.
    Copy,
}

impl Operation {
    /// Name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::WriteZeroes => "write zeroes",
            Self::Discard => "discard",
            Self::Compare => "compare",
            Self::Verify => "verify",
            Self::Copy => "copy",
        }
    }

    /// Returns whether memory goes with it: the length of that says how many blocks are meant.
    pub const fn has_data(self) -> bool {
        matches!(self, Self::Read | Self::Write | Self::Compare)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Work for a disk, and the memory that goes with it: owned by the request, the queue, and the completion in turn.
#[derive(Debug)]
pub struct Request {
    /// The work.
    pub operation: Operation,
    /// The namespace that it is about, by its number: 1 unless [`Request::on`] says another.
    pub namespace: u32,
    /// Its first block.
    pub lba: u64,
    /// Number of blocks; 0 where the memory's length says it, and for a flush.
    pub blocks: u32,
    /// Of a copy: the first block that is written.
    pub target: u64,
    /// The program's own word, which comes back with the completion.
    pub tag: u64,
    data: Option<Chain>,
}

impl Request {
    fn new(operation: Operation, lba: u64, blocks: u32, data: Option<Chain>) -> Self {
        Self {
            operation,
            namespace: 1,
            lba,
            blocks,
            target: 0,
            tag: 0,
            data,
        }
    }

    /// Reads the blocks from `lba` on into `data`, as many as fill its length.
    pub fn read(lba: u64, data: impl Into<Chain>) -> Self {
        Self::new(Operation::Read, lba, 0, Some(data.into()))
    }

    /// Writes `data`, whose length is one of whole blocks, to the blocks from `lba` on.
    pub fn write(lba: u64, data: impl Into<Chain>) -> Self {
        Self::new(Operation::Write, lba, 0, Some(data.into()))
    }

    /// Compares the blocks from `lba` on with `data`.
    pub fn compare(lba: u64, data: impl Into<Chain>) -> Self {
        Self::new(Operation::Compare, lba, 0, Some(data.into()))
    }

    /// Makes durable what was completed before it was submitted.
    pub fn flush() -> Self {
        Self::new(Operation::Flush, 0, 0, None)
    }

    /// Makes `blocks` blocks from `lba` on zero.
    pub fn write_zeroes(lba: u64, blocks: u32) -> Self {
        Self::new(Operation::WriteZeroes, lba, blocks, None)
    }

    /// Says that `blocks` blocks from `lba` on are not needed any more.
    pub fn discard(lba: u64, blocks: u32) -> Self {
        Self::new(Operation::Discard, lba, blocks, None)
    }

    /// Has the disk read `blocks` blocks from `lba` on, to see whether it can.
    pub fn verify(lba: u64, blocks: u32) -> Self {
        Self::new(Operation::Verify, lba, blocks, None)
    }

    /// Has the disk copy `blocks` blocks from `lba` on to those from `target` on.
    pub fn copy(lba: u64, blocks: u32, target: u64) -> Self {
        let mut request = Self::new(Operation::Copy, lba, blocks, None);
        request.target = target;
        request
    }

    /// The same, about namespace `namespace`.
    #[must_use]
    pub fn on(mut self, namespace: u32) -> Self {
        self.namespace = namespace;
        self
    }

    /// The same, with the program's own word.
    #[must_use]
    pub fn tagged(mut self, tag: u64) -> Self {
        self.tag = tag;
        self
    }

    /// Its memory.
    pub fn data(&self) -> Option<&Chain> {
        self.data.as_ref()
    }

    /// Its memory, taken back.
    pub fn into_data(self) -> Option<Chain> {
        self.data
    }
}

/// A request that the disk is through with, and its answer.
#[derive(Debug)]
pub struct Completed {
    /// The request, with its memory.
    pub request: Request,
    /// The answer.
    pub status: std::result::Result<(), Failure>,
}

impl Completed {
    /// The request, where the disk did it.
    ///
    /// # Errors
    /// [`Error::RequestFailed`].
    pub fn succeeded(self) -> Result<Request> {
        match self.status {
            Ok(()) => Ok(self.request),
            Err(failure) => Err(Error::RequestFailed {
                what: format!("{} of block {}", self.request.operation, self.request.lba),
                failure: failure.to_string(),
            }),
        }
    }
}

/// Reason for which a disk did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub reason: Reason,
    /// The device's own number: of NVMe the type and code of the status field, §4.6.1.
    pub code: u16,
    /// The specification's name for it.
    pub name: &'static str,
    /// The disk says that it would fail in the same way if it were tried again.
    pub is_final: bool,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Blocks beyond the end.
    OutOfRange,
    /// The blocks compared are not what memory holds.
    Differs,
    /// Blocks that cannot be read or written: the medium.
    Medium,
    /// Nothing may be written.
    ReadOnly,
    /// It was aborted, or given up by a reset.
    Aborted,
    /// The disk does not do this.
    Unsupported,
    /// The namespace is not there, or not ready.
    Namespace,
    /// Anything else.
    Other,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, name, .. } = self;
        write!(f, "{name} (status {code:#x})")
    }
}

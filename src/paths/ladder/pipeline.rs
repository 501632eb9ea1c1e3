//! A file's blocks on their way through io_uring: several are read at once, and sent in their order.
//!
//! Sends are a chain of links, so that none overtakes another: where one is done in part only, the kernel
//! cancels those behind it, and the next chain begins with its rest. A block is free again when it was
//! sent, and, where the card reads it, when the kernel has given notice that it did.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{SeekFrom, seek};

use super::uring::no_ring;
use super::{Sink, Stopped, Why, unsupported};
use crate::paths::uring::{Done, Uring, is_transient};

/// Blocks at once.
const BLOCKS: usize = 16;
/// Bytes of one, at most: the kernel pins all of them, and not everybody may have much pinned.
const LONGEST: usize = 256 << 10;

/// The way in which a block is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The kernel copies it.
    Write,
    /// The card reads it, or the kernel copies it and says so.
    ZeroCopy,
}

/// A block, and what is in it.
#[derive(Default)]
struct Block {
    /// Its offset in the file, and the bytes to be read of it.
    offset: u64,
    len: usize,
    /// Bytes that were read, and that went.
    filled: usize,
    gone: usize,
    /// True if an operation on it is under way.
    busy: bool,
    /// True if the file ended in it.
    last: bool,
    /// Bytes of each send whose notice has not come.
    unnoticed: VecDeque<usize>,
}

impl Block {
    fn is_sent(&self) -> bool {
        !self.busy && self.gone == self.len && !self.last
    }
}

/// The blocks of one file, and where each is.
pub(super) struct Pipeline<'a> {
    uring: Uring,
    file: &'a File,
    way: Way,
    /// Bytes of a block.
    block: usize,
    /// Offset in the file of the first byte, and bytes asked for so far.
    begin: u64,
    asked: u64,
    blocks: [Block; BLOCKS],
    /// Those with something yet to be sent, in the file's order.
    queue: VecDeque<usize>,
    free: Vec<usize>,
    /// Sends of the chain that is under way.
    sending: usize,
    /// True if sends ask for a notice of whether the kernel copied, which it cannot say before Linux 6.2.
    report: bool,
}

impl<'a> Pipeline<'a> {
    pub fn new(file: &'a File, sink: &Sink<'_>, way: Way) -> Result<Self, Stopped> {
        let begin =
            seek(file, SeekFrom::Current(0)).map_err(|errno| sink.failed("lseek", errno))?;
        let block = sink.most().min(LONGEST);
        let uring = Uring::new(BLOCKS, block).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOMEM) => sink.stopped(Why::Missing(format!(
                "it locks {} KiB of memory, and you may not lock as much: raise ulimit -l, or run it as root",
                (BLOCKS * block) >> 10
            ))),
            _ => sink.stopped(no_ring(error)),
        })?;
        Ok(Self {
            uring,
            file,
            way,
            block,
            begin,
            asked: 0,
            blocks: Default::default(),
            queue: VecDeque::new(),
            free: (0..BLOCKS).collect(),
            sending: 0,
            report: true,
        })
    }

    /// Returns whether nothing is under way, and nothing at hand.
    pub fn is_empty(&self) -> bool {
        self.free.len() == BLOCKS
    }

    /// Asks for what comes next in the file, as far as there are blocks, and the far end has room.
    pub fn read_ahead(&mut self, sink: &mut Sink<'_>) -> Result<(), Stopped> {
        while self.asked < sink.len() {
            let left = sink.len() - self.asked;
            let len = usize::try_from(left).map_or(self.block, |left| left.min(self.block));
            if !sink.has_room(self.asked - sink.sent() + len as u64)? {
                break;
            }
            let Some(index) = self.free.pop() else { break };
            self.blocks[index] = Block {
                offset: self.begin + self.asked,
                len,
                ..Block::default()
            };
            self.asked += len as u64;
            self.queue.push_back(index);
            self.read(index, sink)?;
        }
        Ok(())
    }

    /// Asks for the rest of a block.
    fn read(&mut self, index: usize, sink: &Sink<'_>) -> Result<(), Stopped> {
        let block = &mut self.blocks[index];
        block.busy = true;
        let (rest, at) = (block.filled..block.len, block.offset + block.filled as u64);
        let asked = self.uring.read(
            token(index, false),
            (index, rest),
            (self.file.as_fd(), at),
            false,
        );
        asked.map_err(|error| sink.failed("io_uring_enter", error))
    }

    /// Sends what was read, where no chain is under way.
    pub fn send(&mut self, sink: &Sink<'_>) -> Result<(), Stopped> {
        if self.sending > 0 {
            return Ok(());
        }
        let mut chain = Vec::with_capacity(BLOCKS);
        for index in &self.queue {
            let block = &self.blocks[*index];
            if block.busy || block.filled < block.len || block.len == 0 {
                break;
            }
            chain.push(*index);
            if block.last {
                break;
            }
        }
        self.sending = chain.len();
        for (place, index) in chain.iter().enumerate() {
            let block = &mut self.blocks[*index];
            block.busy = true;
            let what = (*index, block.gone..block.filled);
            let (token, linked) = (token(*index, true), place + 1 < chain.len());
            let socket = sink.socket()?;
            let asked = match self.way {
                Way::Write => self.uring.write(token, what, socket, linked),
                Way::ZeroCopy => self.uring.send_zc(token, what, socket, linked, self.report),
            };
            asked.map_err(|error| sink.failed("io_uring_enter", error))?;
        }
        Ok(())
    }

    /// Hands over what was asked for; what is done, after a tenth of a second at most.
    pub fn go(&mut self, sink: &Sink<'_>) -> Result<Vec<Done>, Stopped> {
        self.uring
            .go()
            .map_err(|error| sink.failed("io_uring_enter", error))
    }

    /// Takes back what is under way, and takes note of what of it has gone.
    pub fn take_back(&mut self, sink: &mut Sink<'_>) {
        for done in self.uring.take_back() {
            // That one was taken back is no news: who asks has said why.
            let _ = self.note(done, sink);
        }
    }

    /// Takes note of what is done.
    pub fn note(&mut self, done: Done, sink: &mut Sink<'_>) -> Result<(), Stopped> {
        let (index, was_sent) = ((done.token >> 1) as usize, done.token & 1 == 1);
        match (done.notice, was_sent) {
            (Some(copied), _) => {
                let bytes = self.blocks[index].unnoticed.pop_front().unwrap_or(0);
                sink.copies(if copied { bytes } else { 0 });
            }
            (None, false) => self.was_read(index, done.result, sink)?,
            (None, true) => self.was_sent(index, done, sink)?,
        }
        self.let_go(index);
        Ok(())
    }

    fn was_read(
        &mut self,
        index: usize,
        read: io::Result<usize>,
        sink: &mut Sink<'_>,
    ) -> Result<(), Stopped> {
        let block = &mut self.blocks[index];
        block.busy = false;
        match read {
            // The file ended; what was read of it is sent, nothing behind it, and then it is told.
            Ok(0) => {
                block.last = true;
                block.len = block.filled;
            }
            Ok(read) => {
                block.filled += read;
                sink.copies(read);
            }
            Err(error) if is_transient(&error) => {}
            Err(error) => {
                let failed = sink.failed("READ_FIXED", error);
                return Err(failed.or_missing(&unsupported::URING_OPERATION));
            }
        }
        if block.filled < block.len {
            self.read(index, sink)?;
        }
        self.check_end(sink)
    }

    fn was_sent(&mut self, index: usize, done: Done, sink: &mut Sink<'_>) -> Result<(), Stopped> {
        self.sending -= 1;
        let asks_for_report = self.way == Way::ZeroCopy && self.report;
        let sent = match done.result {
            Ok(sent) => sent,
            // Or the one before it was done in part.
            Err(error) if is_transient(&error) => 0,
            // Before Linux 6.2 it cannot say whether it copied.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && asks_for_report => {
                self.report = false;
                0
            }
            Err(error) => {
                let failed = sink.failed("sending by io_uring", error);
                return Err(failed.or_missing(&unsupported::URING_OPERATION));
            }
        };
        let block = &mut self.blocks[index];
        block.busy = false;
        block.gone += sent;
        sink.moved(sent);
        if done.more {
            block.unnoticed.push_back(sent);
        }
        if self.way == Way::Write {
            sink.copies(sent);
        }
        // They go in their order: what is sent in full is at the front.
        while let Some(&front) = self.queue.front()
            && self.blocks[front].is_sent()
        {
            self.queue.pop_front();
            self.let_go(front);
        }
        self.check_end(sink)
    }

    /// Checks that not all has gone of a file that ended too early; [`Why::Shrunk`] where it has.
    fn check_end(&self, sink: &Sink<'_>) -> Result<(), Stopped> {
        let front = self.queue.front().map(|index| &self.blocks[*index]);
        match front.is_some_and(|block| block.last && !block.busy && block.gone == block.len) {
            true => Err(sink.stopped(Why::Shrunk)),
            false => Ok(()),
        }
    }

    /// A block that nobody needs any more is free.
    fn let_go(&mut self, index: usize) {
        let block = &self.blocks[index];
        let needed = block.busy || !block.unnoticed.is_empty() || self.queue.contains(&index);
        if !needed && !self.free.contains(&index) {
            self.free.push(index);
        }
    }
}

fn token(index: usize, sends: bool) -> u64 {
    (index as u64) << 1 | u64::from(sends)
}

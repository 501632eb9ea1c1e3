//! The one chain that the server uses io_uring for.
//!
//! The kernel uses the blocks from when a chain is handed in until its last completion is taken, and
//! all of that happens within one call here: nothing is under way when it returns. Where the kernel does
//! not go on with a chain for a second, that ring is given up, and there is a fresh one.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::paths::uring::Uring;

/// Bytes of a block.
pub const BLOCK: usize = 64 << 10;
/// Blocks of a chain at most.
pub const BLOCKS: usize = 8;

/// The ring and its blocks.
pub struct Ring(Uring);

/// Outcome of one block of a chain.
pub struct Block {
    /// Bytes it has.
    pub len: usize,
    /// Bytes read.
    pub read: rustix::io::Result<usize>,
    /// Bytes that the socket took.
    pub sent: rustix::io::Result<usize>,
}

impl Ring {
    /// A ring, and its blocks registered.
    ///
    /// # Errors
    /// The kernel has none, forbids it, or may not lock that much memory.
    pub fn new() -> io::Result<Self> {
        Uring::new(BLOCKS, BLOCK).map(Self)
    }

    /// Reads `len` bytes of `file` from `at`, block by block, and sends each block; stops at the first
    /// that came short.
    ///
    /// # Errors
    /// The ring itself failed, or the kernel took nothing for a second: some of the chain may have gone.
    pub fn read_and_send(
        &mut self,
        file: BorrowedFd<'_>,
        at: u64,
        len: usize,
        socket: BorrowedFd<'_>,
        more: bool,
    ) -> io::Result<Vec<Block>> {
        let len = len.min(BLOCK * BLOCKS);
        let blocks = len.div_ceil(BLOCK);
        let mut out: Vec<_> = (0..blocks)
            .map(|index| Block {
                len: BLOCK.min(len - index * BLOCK),
                read: Ok(0),
                sent: Ok(0),
            })
            .collect();
        let asked = out.iter().enumerate().try_for_each(|(index, block)| {
            let last = index + 1 == blocks;
            let place = || (index, 0..block.len);
            let offset = at + (index * BLOCK) as u64;
            // WAITALL: a send that comes short counts as failed, and breaks the chain.
            let mut flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL;
            if more || !last {
                flags |= libc::MSG_MORE;
            }
            let token = 2 * index as u64;
            self.0.read(token, place(), (file, offset), true)?;
            self.0.send(token + 1, place(), (socket, flags), !last)
        });
        let done = match asked.and_then(|()| self.0.finish()) {
            Ok(done) => done,
            Err(error) => {
                self.give_up(&error);
                return Err(error);
            }
        };
        for done in done {
            let index = done.token as usize;
            let result = done
                .result
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
            let block = &mut out[index / 2];
            match index % 2 {
                0 => block.read = result,
                _ => block.sent = result,
            }
        }
        Ok(out)
    }

    /// The kernel takes no more of a chain, of which some may be under way still: it ends with its ring.
    #[cold]
    fn give_up(&mut self, error: &io::Error) {
        match Self::new() {
            Ok(fresh) => *self = fresh,
            Err(_) => panic!("io_uring_enter: {error}"),
        }
    }
}

//! An io_uring with registered buffers, and the one chain it is used for.
//!
//! The kernel uses the buffers from when a chain is handed in until its last completion is taken, and
//! all of that happens within one call here: nothing is under way when it returns. Where the kernel does
//! not go on with a chain for a second, that ring is given up, and there is a fresh one.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{IoUring, opcode, squeue, types};
use memmap2::MmapMut;
use rustix::io::Errno;

use crate::paths::insist::{BOUND, insist};

/// Bytes of a buffer.
pub const BLOCK: usize = 64 << 10;
/// Buffers: blocks of a chain at most.
pub const BLOCKS: usize = 8;

/// The ring and its buffers.
pub struct Ring {
    // Dropped before the buffers: closing it lets go of them.
    ring: IoUring,
    buffers: MmapMut,
}

/// What became of one block of a chain.
pub struct Block {
    /// Bytes it has.
    pub len: usize,
    /// Bytes read.
    pub read: rustix::io::Result<usize>,
    /// Bytes that the socket took.
    pub sent: rustix::io::Result<usize>,
}

impl Ring {
    /// A ring, and its buffers registered.
    ///
    /// # Errors
    /// The kernel has none, forbids it, or may not lock that much memory.
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::new(2 * BLOCKS as u32)?;
        let mut buffers = MmapMut::map_anon(BLOCK * BLOCKS)?;
        let vectors: Vec<_> = buffers
            .chunks_exact_mut(BLOCK)
            .map(|buffer| libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: BLOCK,
            })
            .collect();
        // SAFETY: the buffers are a mapping that stays where it is and outlives the ring (order of the
        // fields); nobody looks at them but the kernel.
        unsafe { ring.submitter().register_buffers(&vectors)? };
        Ok(Self { ring, buffers })
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
        let (file, socket) = (types::Fd(file.as_raw_fd()), types::Fd(socket.as_raw_fd()));
        let mut out: Vec<_> = (0..blocks)
            .map(|index| Block {
                len: BLOCK.min(len - index * BLOCK),
                read: Ok(0),
                sent: Ok(0),
            })
            .collect();
        let mut queue = self.ring.submission();
        for (index, block) in out.iter().enumerate() {
            let last = index + 1 == blocks;
            let buffer = self.buffers[index * BLOCK..].as_mut_ptr();
            let read = opcode::ReadFixed::new(file, buffer, block.len as u32, index as u16)
                .offset(at + (index * BLOCK) as u64)
                .build()
                .flags(squeue::Flags::IO_LINK)
                .user_data(2 * index as u64);
            // WAITALL: a send that comes short counts as failed, and breaks the chain.
            let mut flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL;
            if more || !last {
                flags |= libc::MSG_MORE;
            }
            let mut send = opcode::Send::new(socket, buffer, block.len as u32)
                .flags(flags)
                .build()
                .user_data(2 * index as u64 + 1);
            if !last {
                send = send.flags(squeue::Flags::IO_LINK);
            }
            // SAFETY: both descriptors are borrowed and the buffers are ours until this function
            // returns, and it returns only when all entries are completed.
            unsafe { queue.push_multiple(&[read, send]) }.expect("as many entries as two a block");
        }
        drop(queue);
        let mut left = 2 * blocks;
        while left > 0 {
            if let Err(error) = insist(BOUND, || self.ring.submit_and_wait(left)) {
                self.give_up(&error);
                return Err(error);
            }
            for entry in self.ring.completion() {
                left -= 1;
                let index = entry.user_data() as usize;
                let result = usize::try_from(entry.result())
                    .map_err(|_| Errno::from_raw_os_error(-entry.result()));
                let block = &mut out[index / 2];
                match index % 2 {
                    0 => block.read = result,
                    _ => block.sent = result,
                }
            }
        }
        Ok(out)
    }

    /// The kernel takes no more of a chain, of which some may be under way still: its end will be that of
    /// the ring, and its buffers are nobody's any more.
    #[cold]
    fn give_up(&mut self, error: &io::Error) {
        let Ok(fresh) = Self::new() else {
            panic!("io_uring_enter: {error}");
        };
        let Self { ring, buffers } = std::mem::replace(self, fresh);
        drop(ring);
        std::mem::forget(buffers);
    }
}

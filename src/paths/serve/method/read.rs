//! `read` and `send`: the classic, through a buffer of ours.
//!
//! The processor copies each byte twice, page cache -> buffer -> socket; a block enters the kernel
//! twice. What a full socket did not take is read once more later, so that a worker needs one buffer
//! and a slow peer none.

use std::io;
use std::os::fd::BorrowedFd;

use super::{Method, Piece, flags, of_the_file};
use crate::Result;

/// Bytes of a block: stays in the second-level cache, so that the second copy finds it there.
const BLOCK: usize = 128 << 10;

/// See the module.
pub struct Read {
    block: Box<[u8]>,
}

impl Method for Read {
    type Kept = ();

    fn new() -> Result<Self> {
        Ok(Self {
            block: vec![0; BLOCK].into(),
        })
    }

    fn move_some(
        &mut self,
        (): &mut (),
        piece: &Piece<'_>,
        socket: BorrowedFd<'_>,
    ) -> io::Result<usize> {
        let len = piece.len.min(BLOCK as u64);
        let block = &mut self.block[..len as usize];
        let got = rustix::io::pread(piece.file, block, piece.at).map_err(of_the_file)?;
        if got == 0 {
            return Ok(0);
        }
        let more = piece.more || len < piece.len;
        Ok(rustix::net::send(socket, &self.block[..got], flags(more))?)
    }
}

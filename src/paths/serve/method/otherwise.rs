//! A file that a method cannot have: a filesystem need not know `mmap`, or how to give pages away.
//!
//! It is read then, as [`Read`] does, so that no file is sent by one method and refused by another.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::{Method, Piece, Read};

/// Reads what a method cannot have. There is no buffer until that happens.
#[derive(Default)]
pub struct Otherwise(Option<Read>);

impl Otherwise {
    /// Moves `piece`, of which `call` said `why` it cannot be had.
    pub fn move_some(
        &mut self,
        call: &str,
        why: &io::Error,
        piece: &Piece<'_>,
        socket: BorrowedFd<'_>,
    ) -> io::Result<usize> {
        let read = match &mut self.0 {
            Some(read) => read,
            none => {
                tracing::warn!("{call} of a file: {why}: such a file is read instead");
                none.insert(Read::new().map_err(io::Error::other)?)
            }
        };
        read.move_some(&mut (), piece, socket)
    }
}

/// Returns whether a call that moves pages, or reads in the kernel, says by `error` that the file has no such thing.
pub fn is_unknown(error: Errno) -> bool {
    matches!(
        error,
        Errno::INVAL | Errno::OPNOTSUPP | Errno::NODEV | Errno::SPIPE | Errno::OVERFLOW
    )
}

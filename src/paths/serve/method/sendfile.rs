//! `sendfile`: the kernel moves pages of the page cache into the socket.
//!
//! The processor copies nothing: the socket's packets refer to the pages, and a card reads them from
//! there. (A loopback has no card: there the receiver's `recv` makes the one copy.) A call moves as
//! much as the socket takes, up to all of the piece.

use std::io;
use std::os::fd::BorrowedFd;

use super::otherwise::{Otherwise, is_unknown};
use super::{Method, Piece};
use crate::Result;

/// See the module.
pub struct Sendfile {
    otherwise: Otherwise,
}

impl Method for Sendfile {
    type Kept = ();

    fn new() -> Result<Self> {
        Ok(Self {
            otherwise: Otherwise::default(),
        })
    }

    fn move_some(
        &mut self,
        (): &mut (),
        piece: &Piece<'_>,
        socket: BorrowedFd<'_>,
    ) -> io::Result<usize> {
        let mut at = piece.at;
        let len = usize::try_from(piece.len).unwrap_or(usize::MAX);
        match rustix::fs::sendfile(socket, piece.file, Some(&mut at), len) {
            Err(why) if is_unknown(why) => {
                let why = why.into();
                self.otherwise.move_some("sendfile", &why, piece, socket)
            }
            sent => Ok(sent?),
        }
    }
}

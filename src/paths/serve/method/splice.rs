//! `splice`: page cache -> pipe -> socket, where the pipe holds pages, not bytes.
//!
//! The processor copies nothing, as with `sendfile`, which is these two steps in one call with a pipe
//! of the kernel's. A pipeful enters the kernel twice. What a full socket did not take is thrown out of
//! the pipe (into /dev/null: pages are let go, nothing is copied) and put in again later, so that a
//! worker needs one pipe and a slow peer none.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};

use super::otherwise::{Otherwise, is_unknown};
use super::{Method, Piece, of_the_file};
use crate::{Error, Result};

/// Bytes that the pipe should hold: what anybody may ask for by default (/proc/sys/fs/pipe-max-size).
const PIPE: usize = 1 << 20;

/// See the module.
pub struct Splice {
    /// Empty. Not there where it could not be emptied: what it holds would go to the next peer.
    pipe: Option<Pipe>,
    nowhere: File,
    otherwise: Otherwise,
}

struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    capacity: u64,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user with many large pipes is refused: then it stays as it is.
        let _ = fcntl_setpipe_size(&into, PIPE);
        let capacity = fcntl_getpipe_size(&into)? as u64;
        Ok(Self {
            out,
            into,
            capacity,
        })
    }

    /// Throws out the bytes that it still holds.
    fn empty(&self, mut left: usize, nowhere: &File) -> io::Result<()> {
        let none = SpliceFlags::empty();
        while left > 0 {
            match splice(&self.out, None, nowhere, None, left, none) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(gone) => left -= gone,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Method for Splice {
    type Kept = ();

    fn new() -> Result<Self> {
        let pipe = Pipe::new().map_err(|source| Error::io("making a pipe", source))?;
        let nowhere = File::options().write(true).open("/dev/null");
        let nowhere = nowhere.map_err(|source| Error::io("opening /dev/null", source))?;
        Ok(Self {
            pipe: Some(pipe),
            nowhere,
            otherwise: Otherwise::default(),
        })
    }

    fn move_some(
        &mut self,
        (): &mut (),
        piece: &Piece<'_>,
        socket: BorrowedFd<'_>,
    ) -> io::Result<usize> {
        // Put back once it is empty.
        let pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => Pipe::new()?,
        };
        let mut at = piece.at;
        let len = piece.len.min(pipe.capacity) as usize;
        let nonblock = SpliceFlags::NONBLOCK;
        let filled = match splice(piece.file, Some(&mut at), &pipe.into, None, len, nonblock) {
            Ok(filled) => filled,
            // The pipe is empty still.
            Err(why) if is_unknown(why) => {
                self.pipe = Some(pipe);
                let why = why.into();
                return self.otherwise.move_some("splice", &why, piece, socket);
            }
            Err(error) => return Err(of_the_file(error)),
        };
        let mut flags = nonblock;
        flags.set(SpliceFlags::MORE, piece.more || (filled as u64) < piece.len);
        let mut sent = 0;
        let mut ended = Ok(());
        while sent < filled && ended.is_ok() {
            match splice(&pipe.out, None, socket, None, filled - sent, flags) {
                Ok(some) => sent += some,
                Err(Errno::INTR) => {}
                Err(error) => ended = Err(error),
            }
        }
        if pipe.empty(filled - sent, &self.nowhere).is_ok() {
            self.pipe = Some(pipe);
        }
        match (sent, ended) {
            (0, Err(error)) => Err(error.into()),
            // What stopped it will stop it again, if it still holds.
            (sent, _) => Ok(sent),
        }
    }
}

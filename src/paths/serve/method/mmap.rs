//! `mmap` and `send`: the page cache itself is our buffer.
//!
//! The processor copies each byte once, page cache -> socket. A window enters the kernel three times
//! (map, send, unmap) and has its page tables filled and thrown away, which is what this way costs.
//!
//! A file may shrink while it is mapped. Who touches a page behind its end is killed by SIGBUS; here
//! only the kernel's `send` touches them, and it answers EFAULT. One thing is left: the rest of the
//! file's new last page reads as zeros. So the last byte is not taken from the map but read: where the
//! file does not reach that far any more, `read` finds nothing, and the answer stays unfinished.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use memmap2::MmapOptions;
use rustix::io::Errno;

use super::otherwise::Otherwise;
use super::send_mapped::send_mapped;
use super::{Method, Piece, flags, of_the_file};
use crate::Result;

/// Bytes mapped at once.
const WINDOW: u64 = 1 << 20;

/// See the module.
pub struct Mmap {
    otherwise: Otherwise,
}

impl Method for Mmap {
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
        if piece.len == 1 {
            let mut last = [0];
            return match rustix::io::pread(piece.file, &mut last, piece.at).map_err(of_the_file)? {
                0 => Ok(0),
                _ => Ok(rustix::net::send(socket, &last, flags(piece.more))?),
            };
        }
        let window = MmapOptions::new()
            .offset(piece.at)
            .len((piece.len - 1).min(WINDOW) as usize)
            .populate() // one fault for all its pages, not one each
            .map_raw_read_only(piece.file.as_raw_fd());
        let window = match window {
            Ok(window) => window,
            Err(why) => return self.otherwise.move_some("mmap", &why, piece, socket),
        };
        match send_mapped(socket, &window, flags(true)) {
            Err(error) if error.raw_os_error() == Some(Errno::FAULT.raw_os_error()) => Ok(0),
            sent => sent,
        }
    }
}

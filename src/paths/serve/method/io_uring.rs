//! io_uring: reads into registered buffers and sends from them, as one chain that the kernel works
//! through by itself.
//!
//! The processor copies each byte twice, as with `read`; but a chain of blocks enters the kernel once,
//! and the buffers are pinned once, when they are registered, not for each read. A read or a send that
//! moves less than it should breaks the chain, so that nothing after it is sent out of order.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::otherwise::{Otherwise, is_unknown};
use super::ring::{BLOCK, BLOCKS, Ring};
use super::{Method, Piece, of_the_file};
use crate::{Error, Result};

/// See the module.
pub struct IoUring {
    ring: Ring,
    otherwise: Otherwise,
}

impl Method for IoUring {
    type Kept = ();

    fn new() -> Result<Self> {
        let ring = Ring::new().map_err(|error| match error.raw_os_error() {
            // No fault of the kernel's.
            Some(libc::EMFILE | libc::ENFILE) => Error::io("making an io_uring", error),
            _ => Error::KernelLacks {
                what: format!("this kernel gives us no io_uring: {error}"),
                remedy: match error.raw_os_error() {
                    Some(libc::ENOSYS) => {
                        "take another way (io_uring came with Linux 5.1)".to_owned()
                    }
                    Some(libc::EPERM) => {
                        "sudo sysctl kernel.io_uring_disabled=0, or another way (a container may \
                                      forbid it, too)"
                            .to_owned()
                    }
                    Some(libc::ENOMEM) => {
                        "ulimit -l 2048 (its buffers are locked memory), or another way".to_owned()
                    }
                    _ => "take another way".to_owned(),
                },
            },
        })?;
        Ok(Self {
            ring,
            otherwise: Otherwise::default(),
        })
    }

    fn move_some(
        &mut self,
        (): &mut (),
        piece: &Piece<'_>,
        socket: BorrowedFd<'_>,
    ) -> io::Result<usize> {
        let wanted = piece.len.min((BLOCK * BLOCKS) as u64) as usize;
        let more = piece.more || (wanted as u64) < piece.len;
        let chain = self
            .ring
            .read_and_send(piece.file, piece.at, wanted, socket, more)?;
        let mut moved = 0;
        let mut broken = None;
        for block in chain {
            match (broken.is_some(), block.read, block.sent) {
                (false, Ok(_), Ok(sent)) => {
                    moved += sent;
                    broken = (sent < block.len).then_some(Ok(()));
                }
                // A read that came short has cut its send off: the file ends in this block. What there
                // is of it could go, but the answer cannot be finished.
                (false, Ok(read), Err(_)) if read < block.len => broken = Some(Ok(())),
                // It takes a file opened without blocking by its word, where a filesystem would have to wait
                // for its disk; a plain read waits.
                (false, Err(why), _) if moved == 0 && (is_unknown(why) || why == Errno::AGAIN) => {
                    let why = why.into();
                    return self.otherwise.move_some("io_uring", &why, piece, socket);
                }
                (false, Err(error), _) => broken = Some(Err(of_the_file(error))),
                (false, _, Err(error)) => broken = Some(Err(error.into())),
                // Where the kernel took the chain in two parts (out of memory), the second did not know.
                (true, _, Ok(1..)) => return Err(io::Error::other("a chain of io_uring was torn")),
                (true, ..) => {}
            }
        }
        match broken {
            Some(Err(error)) if moved == 0 => Err(error),
            _ => Ok(moved),
        }
    }
}

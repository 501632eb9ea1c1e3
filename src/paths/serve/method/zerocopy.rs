//! `MSG_ZEROCOPY`: `read` into a buffer, then a send that refers to the buffer and does not copy it.
//!
//! The processor copies each byte once, page cache -> buffer; a card reads the buffer. So the buffer
//! is not ours until the kernel says so on the socket's error queue, and a block enters the kernel
//! about three times: read, send, and the queue read. Its pages are pinned for each send. A loopback
//! has no card, and the kernel copies after all, and says so: it is counted.
//!
//! A worker has so many buffers and no more. With none left, or where the kernel is out of memory for
//! its notes, a block is sent the plain way. The pages of a connection that has ended are beside them:
//! the kernel holds them, with the rest of what it has to send, until the peer has taken it or is given
//! up.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use memmap2::MmapMut;
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::{Method, Piece, Read, ZeroCopyCounts, flags, of_the_file};
use crate::paths::errqueue::{self, Report};
use crate::{Error, Result};

/// Bytes of a buffer.
const BLOCK: usize = 128 << 10;
/// Buffers of a worker, together 16 MiB.
const BUFFERS: usize = 128;
/// The flag that such a send has.
const ZEROCOPY: u32 = libc::MSG_ZEROCOPY as u32;

/// See the module.
pub struct ZeroCopy {
    /// Buffers that nobody uses.
    free: Vec<MmapMut>,
    /// Buffers that may still be made.
    to_make: usize,
    plain: Read,
    space: Vec<u8>,
    counts: ZeroCopyCounts,
}

/// The sends of one connection that the kernel has not reported as done.
#[derive(Default)]
pub struct Flying {
    /// The kernel numbers the sends of a socket from 0.
    next: u32,
    sends: VecDeque<(u32, MmapMut)>,
}

impl ZeroCopy {
    fn buffer(&mut self) -> Option<MmapMut> {
        self.free.pop().or_else(|| {
            let left = self.to_make.checked_sub(1)?;
            let buffer = MmapMut::map_anon(BLOCK).ok()?;
            self.to_make = left;
            Some(buffer)
        })
    }

    /// Sends the plain way.
    fn copy(&mut self, piece: &Piece<'_>, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let sent = self.plain.move_some(&mut (), piece, socket)?;
        self.counts.plain += 1;
        Ok(sent)
    }

    /// The buffers of these sends are ours again.
    fn done(&mut self, flying: &mut Flying, report: &Report) {
        let range = report.last.wrapping_sub(report.first);
        let is_done = |(send, _): &(u32, MmapMut)| send.wrapping_sub(report.first) <= range;
        while let Some(at) = flying.sends.iter().position(is_done) {
            let done = flying.sends.remove(at);
            self.free.extend(done.map(|(_, buffer)| buffer));
        }
    }
}

impl Method for ZeroCopy {
    type Kept = Flying;

    fn new() -> Result<Self> {
        Ok(Self {
            free: Vec::new(),
            to_make: BUFFERS,
            plain: Read::new()?,
            space: errqueue::space(),
            counts: ZeroCopyCounts::default(),
        })
    }

    fn listening(&self, listener: BorrowedFd<'_>) -> Result<()> {
        errqueue::ask(listener).map_err(|error| Error::KernelLacks {
            what: format!("this kernel sends nothing without a copy (SO_ZEROCOPY): {error}"),
            remedy: "take another way (SO_ZEROCOPY came with Linux 4.14)".to_owned(),
        })
    }

    fn move_some(
        &mut self,
        flying: &mut Flying,
        piece: &Piece<'_>,
        socket: BorrowedFd<'_>,
    ) -> io::Result<usize> {
        let Some(mut buffer) = self.buffer() else {
            return self.copy(piece, socket);
        };
        let len = piece.len.min(BLOCK as u64);
        let got = match rustix::io::pread(piece.file, &mut buffer[..len as usize], piece.at) {
            Ok(got) if got > 0 => got,
            ended => {
                self.free.push(buffer);
                return ended.map_err(of_the_file);
            }
        };
        let flags = flags(piece.more || len < piece.len) | SendFlags::from_bits_retain(ZEROCOPY);
        match rustix::net::send(socket, &buffer[..got], flags) {
            Ok(sent) => {
                flying.sends.push_back((flying.next, buffer));
                flying.next = flying.next.wrapping_add(1);
                self.counts.sends += 1;
                Ok(sent)
            }
            Err(error) => {
                self.free.push(buffer);
                match error {
                    Errno::NOBUFS => self.copy(piece, socket),
                    error => Err(error.into()),
                }
            }
        }
    }

    fn reported(&mut self, flying: &mut Flying, socket: BorrowedFd<'_>) -> io::Result<()> {
        while let Some(report) = errqueue::next(socket, &mut self.space)? {
            let sends = u64::from(report.last.wrapping_sub(report.first)) + 1;
            self.counts.completed += sends;
            self.counts.copied_by_kernel += if report.copied { sends } else { 0 };
            self.done(flying, &report);
        }
        Ok(())
    }

    fn forget(&mut self, flying: Flying) {
        // The kernel may still read these for what it has to send: they are unmapped, never used again.
        self.to_make += flying.sends.len();
    }

    fn counts(&self) -> ZeroCopyCounts {
        self.counts
    }
}

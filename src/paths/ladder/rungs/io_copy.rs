//! Rung 3, what Rust users get without asking: `std::io::copy`.
//!
//! Not `sendfile`, though std has that on Linux: since 2023 (rust-lang/rust#108283) it keeps it from a
//! file to a socket, since what is written into the file later would still arrive. So it is rung 1 in
//! blocks of 8 KiB: 2 copies by the processor, 2 calls, 4 mode switches a block.

use std::io::{self, ErrorKind, Read, Write};

use super::super::Carrier::{Cpu, Dma};
use super::super::Place::{Card, PageCache, Socket, User};
use super::super::{Job, Kind, Protocol, Rung, Sink, Stopped, Why};

pub const RUNG: Rung = Rung {
    number: 3,
    name: "std::io::copy",
    kind: Kind::Send,
    // Its blocks are larger than a datagram.
    over: &[Protocol::Tcp],
    hops: &[
        Dma.to(PageCache),
        Cpu.to(User),
        Cpu.to(Socket),
        Dma.to(Card),
    ],
    run,
    missing: super::always,
};

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let len = job.sink.len();
    let mut to = Counted(&mut job.sink, None);
    let copied = io::copy(&mut job.file.take(len), &mut to);
    let stopped = to.1.take();
    match (stopped, copied) {
        (Some(stopped), _) => Err(stopped),
        (None, Err(error)) => Err(job.sink.failed("read", error)),
        (None, Ok(copied)) if copied < len => Err(job.sink.stopped(Why::Shrunk)),
        (None, Ok(_)) => Ok(()),
    }
}

/// `copy` does not say how much went where it fails. This does, at no cost: std treats it as it treats a
/// `TcpStream` that a file goes to.
struct Counted<'a, 'b>(&'a mut Sink<'b>, Option<Stopped>);

impl Write for Counted<'_, '_> {
    fn write(&mut self, block: &[u8]) -> io::Result<usize> {
        let sink = &mut *self.0;
        let most = sink.room().map(|most| most.unwrap_or(0).min(block.len()));
        let written = most.and_then(|most| {
            sink.call("write", |socket| rustix::io::write(socket, &block[..most]))
        });
        match written {
            Ok(written) => {
                sink.copies(2 * written);
                sink.moved(written);
                Ok(written)
            }
            Err(stopped) => {
                self.1 = Some(stopped);
                Err(ErrorKind::Other.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

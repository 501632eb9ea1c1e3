//! Rung 6, beside it: a stream goes to a socket and into a log by `read`, `write` and `write`.
//!
//! A block: 3 copies by the processor (one socket to us, us to the log, us to the other), 3 calls, 6 mode
//! switches. The log gets a block first: it has at least what was sent.

use super::super::Carrier::{Cpu, Dma, Reference};
use super::super::Place::{Card, OtherFile, Socket, User};
use super::super::{Job, Kind, Protocol, Rung, Stopped};

pub const RUNG: Rung = Rung {
    number: 6,
    name: "log: read + 2 writes",
    kind: Kind::Log,
    over: &[Protocol::Tcp],
    hops: &[
        Reference.to(Socket),
        Cpu.to(User),
        Cpu.to(OtherFile),
        Cpu.to(Socket),
        Dma.to(Card),
    ],
    run,
    missing: super::always,
};

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let sink = &mut job.sink;
    let from = super::stream(&job.from, sink)?;
    let log = super::file(job.into, sink)?;
    let mut block = vec![0; sink.most()];
    while let Some(most) = sink.room()? {
        let read = sink.take("read", from, |from| {
            rustix::io::read(from, &mut block[..most])
        })?;
        sink.copies(read);
        let mut unlogged = &block[..read];
        while !unlogged.is_empty() {
            unlogged = &unlogged[super::write(sink, log, unlogged)?..];
        }
        sink.copies(read);
        sink.write_all(&block[..read])?;
        sink.copies(read);
    }
    Ok(())
}

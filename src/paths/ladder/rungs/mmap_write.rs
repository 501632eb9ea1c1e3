//! Rung 2: the file is mapped, and `write` reads it from there.
//!
//! A block: 1 copy by the processor (page cache to the socket), 1 call, 2 mode switches; and page faults,
//! a batch of pages each, that `read` does without.

use super::super::Carrier::{Cpu, Dma, Reference};
use super::super::Place::{Card, PageCache, Socket, User};
use super::super::mapping::{Mapping, shrunk};
use super::super::{Job, Kind, Rung, Stopped};

pub const RUNG: Rung = Rung {
    number: 2,
    name: "mmap + write",
    kind: Kind::Send,
    over: super::BOTH,
    hops: &[
        Dma.to(PageCache),
        Reference.to(User),
        Cpu.to(Socket),
        Dma.to(Card),
    ],
    run,
    missing: super::always,
};

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let sink = &mut job.sink;
    let mapping = Mapping::of(job.file, sink)?;
    while let Some(most) = mapping.room(sink)? {
        let gone = sink.sent();
        let written = sink.call("write", |socket| mapping.write(socket, gone, most));
        let written = written.map_err(shrunk)?;
        sink.copies(written);
        sink.moved(written);
    }
    Ok(())
}

//! Rung 7, beside it: a file is copied by `read` and `write`.
//!
//! A block: 2 copies by the processor (page cache to us, us to the other's), 2 calls, 4 mode switches.

use super::super::Carrier::{Cpu, Dma};
use super::super::Place::{OtherFile, PageCache, User};
use super::super::{Job, Kind, Protocol, Rung, Stopped};

pub const RUNG: Rung = Rung {
    number: 7,
    name: "copy: read + write",
    kind: Kind::Copy,
    over: &[Protocol::Disk],
    hops: &[Dma.to(PageCache), Cpu.to(User), Cpu.to(OtherFile)],
    run,
    missing: super::always,
};

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let sink = &mut job.sink;
    let into = super::file(job.into, sink)?;
    let mut block = vec![0; sink.most()];
    while let Some(most) = sink.room()? {
        let read = super::read(sink, job.file, &mut block[..most])?;
        sink.copies(read);
        let mut left = &block[..read];
        while !left.is_empty() {
            let written = super::write(sink, into, left)?;
            sink.copies(written);
            sink.moved(written);
            left = &left[written..];
        }
    }
    Ok(())
}

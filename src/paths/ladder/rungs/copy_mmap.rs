//! Rung 7, beside it: a file is mapped, and `write` copies it into another from there.
//!
//! A block: 1 copy by the processor (from one file's page cache into the other's), 1 call, 2 mode switches,
//! and page faults. The other file is not mapped: a full disk would be SIGBUS there, and is an error here.

use std::os::fd::AsFd;

use super::super::Carrier::{Cpu, Dma, Reference};
use super::super::Place::{OtherFile, PageCache, User};
use super::super::mapping::{Mapping, shrunk};
use super::super::{Job, Kind, Protocol, Rung, Stopped, retry};

pub const RUNG: Rung = Rung {
    number: 7,
    name: "copy: mmap + write",
    kind: Kind::Copy,
    over: &[Protocol::Disk],
    hops: &[Dma.to(PageCache), Reference.to(User), Cpu.to(OtherFile)],
    run,
    missing: super::always,
};

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let sink = &mut job.sink;
    let into = super::file(job.into, sink)?;
    let mapping = Mapping::of(job.file, sink)?;
    while let Some(most) = mapping.room(sink)? {
        let written = retry(|| mapping.write(into.as_fd(), sink.sent(), most));
        let written = written.map_err(|errno| shrunk(sink.failed("write", errno)))?;
        sink.copies(written);
        sink.moved(written);
    }
    Ok(())
}

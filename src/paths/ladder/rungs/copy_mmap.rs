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
    let out = &mut job.out;
    let into = super::file(job.into, out)?;
    let mapping = Mapping::of(job.file, out)?;
    while let Some(most) = mapping.room(out)? {
        let written = retry(|| mapping.write(into.as_fd(), out.sent(), most));
        let written = written.map_err(|errno| shrunk(out.failed("write", errno)))?;
        out.copies(written);
        out.moved(written);
    }
    Ok(())
}

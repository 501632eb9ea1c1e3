//! Rung 7: `copy_file_range`, from a file into another, inside the kernel.
//!
//! A block: 1 copy by the processor (from one file's page cache into the other's), 1 call, 2 mode switches.
//! No copy where the file system shares the blocks instead, as btrfs and XFS do where they can.

use rustix::fs::copy_file_range;

use super::super::Carrier::{Cpu, Dma};
use super::super::Place::{OtherFile, PageCache};
use super::super::extents::are_shared;
use super::super::{Job, Kind, Protocol, Rung, Stopped, Why, retry, unsupported};

pub const RUNG: Rung = Rung {
    number: 7,
    name: "copy_file_range",
    kind: Kind::Copy,
    over: &[Protocol::Disk],
    hops: &[Dma.to(PageCache), Cpu.to(OtherFile)],
    run,
    missing: super::always,
};

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let sink = &mut job.sink;
    let into = super::file(job.into, sink)?;
    let begin = rustix::fs::tell(into).map_err(|errno| sink.failed("lseek", errno))?;
    while let Some(most) = sink.room()? {
        match retry(|| copy_file_range(job.file, None, into, None, most)) {
            Ok(0) => return Err(sink.stopped(Why::Shrunk)),
            Ok(copied) => sink.moved(copied),
            Err(errno) => {
                let failed = sink.failed("copy_file_range", errno);
                return Err(failed.or_missing(&unsupported::COPY_FILE_RANGE));
            }
        }
    }
    // The call does not say which of both it did; the file's extents do.
    if !are_shared(into, begin, sink.len()) {
        sink.copies(sink.len() as usize);
    }
    Ok(())
}

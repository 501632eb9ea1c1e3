//! Rung 7: reflink (FICLONE). The other file is given the blocks of the first; who writes into either gets
//! blocks of its own then.
//!
//! A whole file: no copy by anybody, 1 call, 2 mode switches. btrfs can, XFS as it is made since 2019 too.

use rustix::fs::{ftruncate, ioctl_ficlone, tell};
use rustix::io::Errno;

use super::super::Carrier::Reference;
use super::super::Place::OtherFile;
use super::super::{Job, Kind, Protocol, Rung, Stopped, Why, retry};

pub const RUNG: Rung = Rung {
    number: 7,
    name: "reflink",
    kind: Kind::Copy,
    over: &[Protocol::Disk],
    hops: &[Reference.to(OtherFile)],
    run,
    missing: super::always,
};

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let sink = &mut job.sink;
    let into = super::file(job.into, sink)?;
    if sink.room()?.is_none() {
        return Ok(());
    }
    if tell(job.file) != Ok(0) {
        let why = "it clones whole files, and this one is to be sent from its middle on".to_owned();
        return Err(sink.stopped(Why::Missing(why)));
    }
    match retry(|| ioctl_ficlone(into, job.file)) {
        Ok(()) => {}
        Err(Errno::XDEV) => {
            let why = "the files are on different file systems, which share no blocks".to_owned();
            return Err(sink.stopped(Why::Missing(why)));
        }
        Err(errno @ (Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::NOSYS)) => {
            let why = format!(
                "files of this file system share no blocks (FICLONE: {errno})\n  btrfs can, and XFS"
            );
            return Err(sink.stopped(Why::Missing(why)));
        }
        Err(errno) => return Err(sink.failed("FICLONE", errno)),
    }
    let there = into
        .metadata()
        .map_err(|error| sink.failed("fstat", error))?
        .len();
    // Somebody has made the file longer meanwhile: that is not part of the job.
    retry(|| ftruncate(into, there.min(sink.len())))
        .map_err(|errno| sink.failed("ftruncate", errno))?;
    sink.moved(there.min(sink.len()) as usize);
    if there < sink.len() {
        return Err(sink.stopped(Why::Shrunk));
    }
    Ok(())
}

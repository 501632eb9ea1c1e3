//! Rung 5: `splice`, from the file into a pipe, and from the pipe into the socket.
//!
//! A block (at most a pipe, 64 KiB): no copy by the processor, 2 calls, 4 mode switches. It is `sendfile`
//! in its two halves (in datagrams, too: some kernels copy there); in between, the pages could go elsewhere.

use rustix::pipe::{SpliceFlags, splice};

use super::super::Carrier::{Dma, Reference};
use super::super::Place::{Card, PageCache, Pipe, Socket};
use super::super::by_reference::{DATAGRAMS, tried};
use super::super::{Job, Kind, Rung, Stopped, Why, retry, unsupported};

pub const RUNG: Rung = Rung {
    number: 5,
    name: "splice",
    kind: Kind::Send,
    over: super::BOTH,
    hops: &[
        Dma.to(PageCache),
        Reference.to(Pipe),
        Reference.to(Socket),
        Dma.to(Card),
    ],
    run,
    missing: tried,
};

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let sink = &mut job.sink;
    let (pipe, fill) = super::pipe(sink)?;
    let none = SpliceFlags::empty();
    let copies = sink.is_datagrams() && !*DATAGRAMS;
    while let Some(most) = sink.room()? {
        let filled = retry(|| splice(job.file, None, &fill, None, most, none));
        let mut inside = match filled {
            Ok(0) => return Err(sink.stopped(Why::Shrunk)),
            filled => filled.map_err(|errno| {
                let failed = sink.failed("splice from the file", errno);
                failed.or_missing(&unsupported::SPLICE_FROM_FILE)
            })?,
        };
        while inside > 0 {
            let went = super::splice_out(sink, &pipe, inside)?;
            sink.copies(if copies { went } else { 0 });
            inside -= went;
        }
    }
    Ok(())
}

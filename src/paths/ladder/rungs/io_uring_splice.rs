//! Rung 9: `splice` through io_uring, from the file into a pipe and from there into the socket, in one chain.
//!
//! A block (at most a pipe, 64 KiB): no copy by the processor, 1 call, 2 mode switches; but the kernel does
//! each splice on a thread of its own, since it may have to wait, so there are two context switches more.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use io_uring::opcode::Splice;
use rustix::fs::{SeekFrom, seek};

use super::super::Carrier::{Dma, Reference};
use super::super::Place::{Card, PageCache, Pipe, Socket};
use super::super::by_reference::{DATAGRAMS, tried};
use super::super::uring::{missing, no_ring};
use super::super::{BLOCK, Job, Kind, Rung, Sink, Stopped, Why, unsupported};
use crate::paths::uring::{Uring, is_transient};

pub const RUNG: Rung = Rung {
    number: 9,
    name: "io_uring splice",
    kind: Kind::Send,
    over: super::BOTH,
    hops: &[
        Dma.to(PageCache),
        Reference.to(Pipe),
        Reference.to(Socket),
        Dma.to(Card),
    ],
    run,
    missing: || tried().or_else(|| missing(&[(Splice::CODE, "SPLICE")])),
};

const IN: u64 = 0;
const OUT: u64 = 1;

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let sink = &mut job.sink;
    let begin =
        seek(job.file, SeekFrom::Current(0)).map_err(|errno| sink.failed("lseek", errno))?;
    // Before the ring, so that it is there until that has taken back what it does with it.
    let (pipe, fill) = super::pipe(sink)?;
    let uring = Uring::new(0, 0);
    let mut uring = uring.map_err(|error| sink.stopped(no_ring(error)))?;
    let copies = sink.is_datagrams() && !*DATAGRAMS;
    let mut since = Instant::now();
    while let Some(most) = sink.room()? {
        // What does not fit into the pipe would break the chain.
        let most = most.min(BLOCK);
        let file: (BorrowedFd<'_>, _) = (job.file.as_fd(), Some(begin + sink.sent()));
        let socket = sink.socket()?;
        uring
            .splice(IN, file, fill.as_fd(), most, true)
            .and_then(|()| uring.splice(OUT, (pipe.as_fd(), None), socket, most, false))
            .map_err(|error| sink.failed("io_uring_enter", error))?;
        let [filled, gone] = both(&mut uring, sink)?;
        if filled.as_ref().is_err_and(is_transient) {
            sink.go_on(&since)?;
            continue;
        }
        since = Instant::now();
        let filled = filled.map_err(|error| {
            let failed = sink.failed("splice from the file", error);
            failed.or_missing(&unsupported::SPLICE_FROM_FILE)
        })?;
        if filled == 0 {
            return Err(sink.stopped(Why::Shrunk));
        }
        // Canceled, where there was less in the file than was asked for.
        let mut gone = gone.unwrap_or(0);
        sink.moved(gone);
        while gone < filled {
            gone += super::splice_out(sink, &pipe, filled - gone)?;
        }
        sink.copies(if copies { gone } else { 0 });
    }
    Ok(())
}

/// Waits until both operations of a chain are done; returns their results in the chain's order.
fn both(uring: &mut Uring, sink: &mut Sink<'_>) -> Result<[std::io::Result<usize>; 2], Stopped> {
    let (mut filled, mut gone, since) = (None, None, Instant::now());
    loop {
        let done = uring
            .go()
            .map_err(|error| sink.failed("io_uring_enter", error))?;
        for done in done {
            match done.token {
                IN => filled = Some(done.result),
                _ => gone = Some(done.result),
            }
        }
        match (filled.take(), gone.take()) {
            (Some(filled), Some(gone)) => return Ok([filled, gone]),
            (one, other) => (filled, gone) = (one, other),
        }
        if let Err(stopped) = sink.go_on(&since) {
            // What went by then has gone.
            let mut done = uring.take_back().into_iter();
            let went = done.find(|done| done.token == OUT);
            sink.moved(went.map_or(0, |done| done.result.unwrap_or(0)));
            return Err(sink.stopped(stopped.why));
        }
    }
}

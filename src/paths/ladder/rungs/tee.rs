//! Rung 6: `tee`. A stream goes to a socket, and into a log as well, without being consumed in between.
//!
//! A block: 1 copy by the processor (into the log's page cache), 4 calls (socket to pipe, `tee` to another,
//! that into the log, the first to the socket), 8 mode switches. The log gets a block first: it has at least
//! what was sent. It must not be open for appending (O_APPEND), which `splice` refuses.

use rustix::pipe::{SpliceFlags, splice, tee};

use super::super::Carrier::{Cpu, Dma, Reference};
use super::super::Place::{Card, OtherFile, Pipe, Socket};
use super::super::{Job, Kind, Protocol, Rung, Stopped, retry, unsupported};
use super::some;

pub const RUNG: Rung = Rung {
    number: 6,
    name: "log: tee + splice",
    kind: Kind::Log,
    over: &[Protocol::Tcp],
    hops: &[
        Reference.to(Socket),
        Reference.to(Pipe),
        Reference.to(Pipe),
        Cpu.to(OtherFile),
        Reference.to(Socket),
        Dma.to(Card),
    ],
    run,
    missing: super::always,
};

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let sink = &mut job.sink;
    let from = super::stream(&job.from, sink)?;
    let log = super::file(job.into, sink)?;
    let ((pipe, fill), (twin, fill_twin)) = (super::pipe(sink)?, super::pipe(sink)?);
    let none = SpliceFlags::empty();
    while let Some(most) = sink.room()? {
        let mut inside = super::splice_in(sink, from, &fill, most)?;
        while inside > 0 {
            // As much as the other pipe has room for: it is empty.
            let twice = retry(|| tee(&pipe, &fill_twin, inside, none));
            let mut twice = twice.map_err(|errno| {
                let failed = sink.failed("tee", errno);
                failed.or_missing(&unsupported::SPLICE_SOCKET)
            })?;
            let mut unlogged = twice;
            while unlogged > 0 {
                let logged = retry(|| some(splice(&twin, None, log, None, unlogged, none)));
                let logged = logged.map_err(|errno| {
                    let failed = sink.failed("splice into the file", errno);
                    failed.or_missing(&unsupported::SPLICE_INTO_FILE)
                })?;
                sink.copies(logged);
                unlogged -= logged;
            }
            while twice > 0 {
                let went = super::splice_out(sink, &pipe, twice)?;
                twice -= went;
                inside -= went;
            }
        }
    }
    Ok(())
}

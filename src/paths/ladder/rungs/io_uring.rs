//! Rung 9: io_uring with registered blocks, read by READ_FIXED, and sent by WRITE_FIXED or by SEND_ZC.
//!
//! A block: 2 copies by the processor (page cache to a block, that to the socket), or 1 with SEND_ZC, whose
//! second one the card does (where it cannot, the kernel copies, and says so since 6.2). Calls: one for
//! all blocks that are at hand, 2 mode switches each, instead of 2 calls a block.

use std::time::Instant;

use io_uring::opcode::{ReadFixed, SendZc, WriteFixed};

use super::super::Carrier::{Cpu, Dma, Reference};
use super::super::Place::{Card, PageCache, Socket, User};
use super::super::pipeline::{Pipeline, Way};
use super::super::uring::missing;
use super::super::{Job, Kind, Rung, Sink, Stopped};

pub const FIXED: Rung = Rung {
    number: 9,
    name: "io_uring, registered",
    kind: Kind::Send,
    over: super::BOTH,
    hops: &[
        Dma.to(PageCache),
        Cpu.to(User),
        Cpu.to(Socket),
        Dma.to(Card),
    ],
    run: |job| run(job, Way::Write),
    missing: || {
        let operations = [
            (ReadFixed::CODE, "READ_FIXED"),
            (WriteFixed::CODE, "WRITE_FIXED"),
        ];
        missing(&operations)
    },
};

pub const ZEROCOPY: Rung = Rung {
    number: 9,
    name: "io_uring SEND_ZC",
    kind: Kind::Send,
    over: super::BOTH,
    hops: &[
        Dma.to(PageCache),
        Cpu.to(User),
        Reference.to(Socket),
        Dma.to(Card),
    ],
    run: |job| run(job, Way::ZeroCopy),
    missing: || missing(&[(ReadFixed::CODE, "READ_FIXED"), (SendZc::CODE, "SEND_ZC")]),
};

fn run(job: &mut Job<'_>, way: Way) -> Result<(), Stopped> {
    let sink = &mut job.sink;
    let mut line = Pipeline::new(job.file, sink, way)?;
    climb(&mut line, sink).map_err(|stopped| {
        line.take_back(sink);
        sink.stopped(stopped.why)
    })
}

fn climb(line: &mut Pipeline<'_>, sink: &mut Sink<'_>) -> Result<(), Stopped> {
    let mut since = Instant::now();
    loop {
        // Whatever can be asked for is; then one call hands it over, and waits for some of it.
        line.read_ahead(sink)?;
        line.send(sink)?;
        if line.is_empty() {
            // All went, or the far end has no room, which is waited for here.
            match sink.room()? {
                Some(_) => continue,
                None => return Ok(()),
            }
        }
        let mut noted = Ok(());
        for done in line.go(sink)? {
            if done.is_progress() {
                since = Instant::now();
            }
            noted = noted.and(line.note(done, sink));
        }
        noted?;
        // Also where all goes well: else nobody would be heard before the end.
        sink.go_on(&since)?;
    }
}

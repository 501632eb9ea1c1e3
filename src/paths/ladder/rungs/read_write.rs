//! Rung 1, the classic: `read` into a block of ours, `write` from there.
//!
//! A block: 2 copies by the processor (page cache to us, us to the socket), 2 calls, 4 mode switches.

use super::super::Carrier::{Cpu, Dma};
use super::super::Place::{Card, PageCache, Socket, User};
use super::super::{Job, Kind, Rung, Stopped};

pub const RUNG: Rung = Rung {
    number: 1,
    name: "read + write",
    kind: Kind::Send,
    over: super::BOTH,
    hops: &[
        Dma.to(PageCache),
        Cpu.to(User),
        Cpu.to(Socket),
        Dma.to(Card),
    ],
    run,
    missing: super::always,
};

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let sink = &mut job.sink;
    let mut block = vec![0; sink.most()];
    while let Some(most) = sink.room()? {
        let read = super::read(sink, job.file, &mut block[..most])?;
        sink.copies(read);
        sink.write_all(&block[..read])?;
        sink.copies(read);
    }
    Ok(())
}

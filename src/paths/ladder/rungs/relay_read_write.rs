//! Rung 5, beside it: a relay by `read` and `write`.
//!
//! A block: 2 copies by the processor (one socket to us, us to the other), 2 calls, 4 mode switches.

use super::super::Carrier::{Cpu, Dma, Reference};
use super::super::Place::{Card, Socket, User};
use super::super::{Job, Kind, Protocol, Rung, Stopped};

pub const RUNG: Rung = Rung {
    number: 5,
    name: "relay: read + write",
    kind: Kind::Relay,
    over: &[Protocol::Tcp],
    hops: &[
        Reference.to(Socket),
        Cpu.to(User),
        Cpu.to(Socket),
        Dma.to(Card),
    ],
    run,
    missing: super::always,
};

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let sink = &mut job.sink;
    let from = super::stream(&job.from, sink)?;
    let mut block = vec![0; sink.most()];
    while let Some(most) = sink.room()? {
        let read = sink.take("read", from, |from| {
            rustix::io::read(from, &mut block[..most])
        })?;
        sink.copies(read);
        sink.write_all(&block[..read])?;
        sink.copies(read);
    }
    Ok(())
}

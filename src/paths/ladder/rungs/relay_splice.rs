//! Rung 5, as a relay: `splice` from one socket into a pipe, and from the pipe into another.
//!
//! A block: no copy by the processor where the card's driver received into pages (else the kernel copies
//! what it received elsewhere), 2 calls, 4 mode switches. `examples/splice_relay.rs` is a server of it.

use super::super::Carrier::{Dma, Reference};
use super::super::Place::{Card, Pipe, Socket};
use super::super::{Job, Kind, Protocol, Rung, Stopped};

pub const RUNG: Rung = Rung {
    number: 5,
    name: "relay: splice",
    kind: Kind::Relay,
    over: &[Protocol::Tcp],
    hops: &[
        Reference.to(Socket),
        Reference.to(Pipe),
        Reference.to(Socket),
        Dma.to(Card),
    ],
    run,
    missing: super::always,
};

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let sink = &mut job.sink;
    let from = super::stream(&job.from, sink)?;
    let (pipe, fill) = super::pipe(sink)?;
    while let Some(most) = sink.room()? {
        let mut inside = super::splice_in(sink, from, &fill, most)?;
        while inside > 0 {
            inside -= super::splice_out(sink, &pipe, inside)?;
        }
    }
    Ok(())
}

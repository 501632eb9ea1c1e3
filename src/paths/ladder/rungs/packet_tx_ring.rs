//! Rung 10, AF_PACKET with a ring: frames of ours, in memory that the kernel's packets refer to.
//!
//! A datagram: 1 copy by the processor (page cache to the ring, by `pread`), 1 call; and a call per 32 that
//! sends them. The kernel copies 14 bytes of Ethernet header of each. Where the packet does not leave by a
//! card (lo, veth) the kernel copies it once more for who takes it.

use rustix::net::AddressFamily;

use super::super::Carrier::{Cpu, Dma, Reference};
use super::super::Place::{Card, PageCache, Ring, Socket};
use super::super::frames::{self, interface};
use super::super::tx_ring::TxRing;
use super::super::{Job, Kind, Protocol, Rung, Stopped};

pub const RUNG: Rung = Rung {
    number: 10,
    name: "AF_PACKET TX_RING",
    kind: Kind::Send,
    over: &[Protocol::Udp],
    hops: &[
        Dma.to(PageCache),
        Cpu.to(Ring),
        Reference.to(Socket),
        Dma.to(Card),
    ],
    run,
    missing: || frames::missing(AddressFamily::PACKET, "AF_PACKET"),
};

/// More than the window of the far ends in this house has datagrams: so a slot is written again only when
/// its frame has arrived. On lo the kernel calls a slot free before it has read it.
const SLOTS: usize = 1024;

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let ring = TxRing::new(interface(job)?.index, SLOTS);
    let mut ring = ring.map_err(|why| job.sink.stopped(why))?;
    frames::send_file(job, &mut ring, 0)
}

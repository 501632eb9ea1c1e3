//! Rung 10, AF_XDP in copy mode, which is what emulated cards give: frames of ours, past the kernel's
//! protocols and queues, but not past its packets.
//!
//! A datagram: 2 copies by the processor (page cache to our frame by `pread`, our frame to a packet of the
//! kernel's), 1 call; and a call per 32 that sends them. virtio-net's packets refer to our frame instead:
//! there it is 1 copy.

use std::fs::read_link;

use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use super::super::Carrier::{Cpu, Dma};
use super::super::Place::{Card, PageCache, Ring, Socket};
use super::super::frames::{self, interface};
use super::super::xsk::Xsk;
use super::super::{Job, Kind, Protocol, Rung, Stopped};

pub const RUNG: Rung = Rung {
    number: 10,
    name: "AF_XDP, copy mode",
    kind: Kind::Send,
    over: &[Protocol::Udp],
    hops: &[
        Dma.to(PageCache),
        Cpu.to(Ring),
        Cpu.to(Socket),
        Dma.to(Card),
    ],
    run,
    missing: || frames::missing(AddressFamily::XDP, "AF_XDP"),
};

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let index = interface(job)?.index;
    let mut socket = Xsk::new(index).map_err(|why| job.sink.stopped(why))?;
    let by_kernel = if refers(index) { 0 } else { 1 };
    frames::send_file(job, &mut socket, by_kernel)
}

/// Returns whether the interface's driver takes packets that have no bytes of their own (IFF_TX_SKB_NO_LINEAR). The
/// kernel does not say; of the drivers in it, virtio-net does.
fn refers(index: u32) -> bool {
    // AF_XDP's own sockets do not know names.
    let name = socket(AddressFamily::INET, SocketType::DGRAM, None)
        .and_then(|socket| netdevice::index_to_name(socket, index));
    let driver = name.map(|name| read_link(format!("/sys/class/net/{name}/device/driver")));
    driver.is_ok_and(|driver| driver.is_ok_and(|driver| driver.ends_with("virtio_net")))
}

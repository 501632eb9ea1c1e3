//! The zero-copy ladder: every way to move a file to the network, each in a small file of its own.
//!
//! A rung moves a [`Job`]'s file into its [`Out`], and says on the way what the processor copied. What
//! else it costs (calls, switches, faults, time) is counted by who runs it. The rungs' order is that of
//! the textbook: each leaves out something that the one before still did.

mod by_reference;
mod completions;
mod extents;
mod far;
mod frames;
mod lack;
mod link;
mod mapping;
mod out;
mod packet;
mod pipeline;
mod receive;
mod rungs;
mod stopped;
mod tx_ring;
mod uring;
mod xsk;

use std::fmt;
use std::fs::File;
use std::net::TcpStream;

use crate::net::UdpFlow;
use crate::nic::Nic;

pub use far::{Delivered, FarEnd};
pub use frames::FrameRing;
pub use out::{Out, Terms, retry};
pub use packet::packet_socket;
pub use receive::receive;
pub use rungs::RUNGS;
pub use stopped::{Arrived, Stopped, Why};
pub use tx_ring::TxRing;

/// Bytes that a call moves at most, where nothing else limits it.
pub const BLOCK: usize = 64 * 1024;

/// One way of moving bytes.
#[derive(Debug)]
pub struct Rung {
    /// Its place on the ladder.
    pub number: u8,
    /// What it is called, by its calls: `read + write`.
    pub name: &'static str,
    /// What it moves from where to where.
    pub kind: Kind,
    /// What it can send by.
    pub over: &'static [Protocol],
    /// The way of a payload byte, for the picture.
    pub hops: &'static [Hop],
    /// Does it, from the file's position on.
    pub run: fn(&mut Job<'_>) -> Result<(), Stopped>,
    /// Why it cannot be had here, where that is known before it is tried.
    pub missing: fn() -> Option<String>,
}

impl Rung {
    /// Does it drive the card by itself, past the kernel? Then nothing of the kernel's is on the way.
    pub fn drives_card(&self) -> bool {
        let of_kernel = [Place::Socket, Place::Pipe, Place::Ring];
        let reaches = |place| self.hops.iter().any(|hop| hop.to == place);
        reaches(Place::Card) && !of_kernel.into_iter().any(reaches)
    }
}

/// What a rung moves from where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file to the network.
    Send,
    /// What comes in by one stream goes out by another.
    Relay,
    /// A stream to the network, and into a file as well.
    Log,
    /// A file into another.
    Copy,
}

/// What carries the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A stream, which the kernel cuts into segments and sends again where they are lost.
    Tcp,
    /// Datagrams, within a window that the far end opens as it takes them.
    Udp,
    /// None: it stays on the machine.
    Disk,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Disk => "-",
        })
    }
}

/// A stretch of the payload's way: who carries it, and where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Who reads and writes it.
    pub by: Carrier,
    /// Where it is afterwards.
    pub to: Place,
}

/// Who carries a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// A device, by itself.
    Dma,
    /// The processor.
    Cpu,
    /// Nobody: it stays where it is, and a reference to it goes on.
    Reference,
}

impl Carrier {
    /// Carries it there.
    pub const fn to(self, to: Place) -> Hop {
        Hop { by: self, to }
    }
}

/// Where a byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The kernel's pages of the file.
    PageCache,
    /// Memory of the program.
    User,
    /// A pipe in the kernel.
    Pipe,
    /// A socket's buffer in the kernel.
    Socket,
    /// A ring that the program shares with the kernel.
    Ring,
    /// Memory that the card was given.
    Pinned,
    /// The card.
    Card,
    /// Another file's pages.
    OtherFile,
}

/// What a rung works on. It takes of it what its [`Kind`] has.
pub struct Job<'a> {
    /// What is to be moved, at its beginning.
    pub file: &'a File,
    /// Where it goes, and how much of it.
    pub out: Out<'a>,
    /// Where it comes from, to be relayed.
    pub from: Option<TcpStream>,
    /// The file that it goes into.
    pub into: Option<&'a File>,
    /// The kernel's interface below, for who makes its frames.
    pub interface: Option<Interface>,
    /// The card, for who drives it.
    pub card: Option<Card<'a>>,
}

/// An interface of the kernel's, and what the datagrams on it are headed with.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// From whom to whom.
    pub flow: UdpFlow,
}

/// A card that we drive, and what the datagrams on it are headed with.
pub struct Card<'a> {
    /// The card.
    pub nic: &'a mut dyn Nic,
    /// From whom to whom.
    pub flow: UdpFlow,
    /// Take the processor's access to the payload away, so that a copy would end the program.
    pub prove: bool,
}

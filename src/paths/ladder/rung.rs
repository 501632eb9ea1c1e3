//! A rung, and the way of a byte on it.

use std::fmt;

use super::{Job, Stopped};

/// One way of moving bytes.
#[derive(Debug)]
pub struct Rung {
    /// Its place on the ladder.
    pub number: u8,
    /// Its name, by its calls: `read + write`.
    pub name: &'static str,
    /// Its source and destination.
    pub kind: Kind,
    /// The protocols that it can send by.
    pub over: &'static [Protocol],
    /// The way of a payload byte, for the picture.
    pub hops: &'static [Hop],
    /// Moves the bytes, from the file's position on.
    pub run: fn(&mut Job<'_>) -> Result<(), Stopped>,
    /// Returns why it cannot be had here, where that is known before it is tried.
    pub missing: fn() -> Option<String>,
}

impl Rung {
    /// Returns whether it drives the card by itself, past the kernel. Then nothing of the kernel's is on the way.
    pub fn drives_card(&self) -> bool {
        let of_kernel = [Place::Socket, Place::Pipe, Place::Ring];
        let reaches = |place| self.hops.iter().any(|hop| hop.to == place);
        reaches(Place::Card) && !of_kernel.into_iter().any(reaches)
    }
}

/// Source and destination of a rung's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file to the network.
    Send,
    /// A stream into another stream.
    Relay,
    /// A stream to the network, and into a file as well.
    Log,
    /// A file into another.
    Copy,
}

/// The protocol that carries the payload.
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
    /// The carrier, which reads and writes the payload.
    pub by: Carrier,
    /// The payload's place afterwards.
    pub to: Place,
}

/// The carrier of a byte.
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

/// The place of a byte.
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

//! The work of a rung.

use std::fs::File;
use std::net::TcpStream;

use super::Sink;
use crate::net::UdpFlow;
use crate::nic::Nic;

/// The work of a rung, which takes those parts of it that its [`Kind`](super::Kind) has.
pub struct Job<'a> {
    /// The file to move, at its beginning.
    pub file: &'a File,
    /// Its destination, and the number of bytes.
    pub sink: Sink<'a>,
    /// The stream that is to be relayed.
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
    /// Source and destination of the datagrams.
    pub flow: UdpFlow,
}

/// A card that we drive, and what the datagrams on it are headed with.
pub struct Card<'a> {
    /// The card.
    pub nic: &'a mut dyn Nic,
    /// Source and destination of the datagrams.
    pub flow: UdpFlow,
    /// Take the processor's access to the payload away, so that a copy would end the program.
    pub prove: bool,
}

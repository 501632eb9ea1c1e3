//! Says who has our address, to those who ask by ARP: else nobody could send to it.

use std::net::Ipv4Addr;

use crate::dma::Pool;
use crate::error::Result;
use crate::net::packet::{Arp, Packet};
use crate::nic::{Frame, Nic};

/// Answers that may be under way at once.
const ANSWERS: usize = 16;

/// Answers ARP for one address.
pub struct Responder {
    address: Ipv4Addr,
    pool: Pool,
    going: Vec<Frame>,
}

impl Responder {
    /// One that answers for `address`, through `nic`.
    ///
    /// # Errors
    /// As [`Pool::new`].
    pub fn new(nic: &dyn Nic, address: Ipv4Addr) -> Result<Self> {
        Ok(Self {
            address,
            pool: Pool::new(nic.dma(), ANSWERS, Arp::FRAME)?,
            going: Vec::with_capacity(1),
        })
    }

    /// Answers `packet` where it asks for our address: `true` where it did.
    ///
    /// # Errors
    /// Errors of the card.
    pub fn answer(&mut self, nic: &mut dyn Nic, packet: &Packet<'_>) -> Result<bool> {
        let asked = packet.arp();
        let Some(question) = asked.filter(|arp| arp.request && arp.target.1 == self.address) else {
            return Ok(false);
        };
        // Where all buffers are under way, or the ring is full, the one who asks will ask again.
        let Some(mut buf) = self.pool.alloc() else {
            return Ok(false);
        };
        buf.fill(&question.answer(nic.mac()).frame());
        self.going.push(buf.into());
        nic.send(&mut self.going)?;
        let sent = self.going.is_empty();
        self.going.clear();
        Ok(sent)
    }
}

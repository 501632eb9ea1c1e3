//! The destination of the bytes: over loopback to a helper of ours, or by a card to a far end outside.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::card::CardSite;
use crate::Result;
use crate::lab::ladder::helper::Helper;
use crate::net::UdpFlow;
use crate::nic::{Mac, Nic};
use crate::paths::ladder::{Card, Interface, Rung};

/// The destination of the bytes.
pub enum Site {
    /// To a helper on this machine.
    Loopback(Helper),
    /// By a card.
    Card(Box<CardSite>),
}

/// The addresses of a far end for one run, and the link to it.
pub struct Reach<'a> {
    /// The address at which it is told of transfers.
    pub control: SocketAddr,
    /// Its address for the payload, where that is another.
    pub data: Option<IpAddr>,
    /// Our own address.
    pub from: Ipv4Addr,
    /// The link in between.
    pub link: Link<'a>,
}

/// The link between us and the far end.
pub enum Link<'a> {
    /// Nothing.
    Loopback,
    /// A card that the kernel drives; the ports are those of no run.
    Kernel(&'a Interface),
    /// A card that we drive, and their Ethernet address.
    Ours(&'a mut (dyn Nic + 'static), Mac),
}

impl Site {
    /// The far end as `rung` reaches it: whoever has to drive the card for that does afterwards.
    ///
    /// # Errors
    /// If the card does not go to its other driver.
    pub fn reach(&mut self, rung: &Rung) -> Result<Reach<'_>> {
        match self {
            Self::Loopback(helper) => Ok(Reach {
                control: helper.address,
                data: None,
                from: Ipv4Addr::LOCALHOST,
                link: Link::Loopback,
            }),
            Self::Card(card) => card.reach(rung.drives_card()),
        }
    }

    /// Returns in words what the bytes go by.
    ///
    /// # Errors
    /// If the card is gone.
    pub fn describe(&self) -> Result<String> {
        match self {
            Self::Loopback(_) => Ok("over loopback".to_owned()),
            Self::Card(card) => card.describe(),
        }
    }

    /// Puts all back as it was found.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn give_back(&mut self) -> Result<()> {
        match self {
            Self::Loopback(_) => Ok(()),
            Self::Card(card) => card.give_back(),
        }
    }
}

impl Reach<'_> {
    /// Returns whether it is the rung that drives the card.
    pub fn drives_card(&self) -> bool {
        matches!(self.link, Link::Ours(..))
    }

    /// Returns, for who makes its own frames, the interface or the card, and what they are headed with.
    pub fn headed(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        prove: bool,
    ) -> (Option<Interface>, Option<Card<'_>>) {
        let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (source, destination) else {
            return (None, None);
        };
        match &mut self.link {
            Link::Loopback => (None, None),
            Link::Kernel(interface) => {
                let flow = UdpFlow {
                    source,
                    destination,
                    ..interface.flow
                };
                let index = interface.index;
                (Some(Interface { index, flow }), None)
            }
            Link::Ours(nic, theirs) => {
                let flow = UdpFlow {
                    source_mac: nic.mac(),
                    destination_mac: *theirs,
                    source,
                    destination,
                };
                (
                    None,
                    Some(Card {
                        nic: &mut **nic,
                        flow,
                        prove,
                    }),
                )
            }
        }
    }
}

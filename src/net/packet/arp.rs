//! Resolving an IPv4 address (ARP) through our own card.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::dma::Pool;
use crate::error::{Error, Result};
use crate::net::packet::{Arp, Packet};
use crate::nic::{Mac, Nic};

/// Questions asked, one each [`PATIENCE`]. QEMU's e1000 receives nothing in its first second.
const TRIES: u32 = 8;
/// Longest wait for each answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// The Ethernet address behind `address`: worked out for broadcast and multicast, else asked for by
/// ARP as `ours`. Other frames that come in meanwhile are dropped.
///
/// # Errors
/// [`Error::NoAnswer`] after 4 seconds; [`Error::Interrupted`] at `stop`; what the card says.
pub fn resolve(
    nic: &mut dyn Nic,
    ours: Ipv4Addr,
    address: Ipv4Addr,
    stop: &AtomicBool,
) -> Result<Mac> {
    if address.is_broadcast() {
        return Ok(Mac::BROADCAST);
    }
    if address.is_multicast() {
        // RFC 1112, 6.4: its low 23 bits.
        let [_, b, c, d] = address.octets();
        return Ok(Mac([0x01, 0x00, 0x5e, b & 0x7f, c, d]));
    }
    let question = Arp::ask((nic.mac(), ours), address).frame();
    let pool = Pool::new(nic.dma(), 1, question.len())?;
    let (mut asked, mut done, mut heard) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TRIES {
        if let Some(mut buf) = pool.alloc() {
            buf.fill(&question);
            asked.push(buf.into());
            nic.send(&mut asked)?;
        }
        let until = Instant::now() + PATIENCE;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            nic.completed(&mut done)?;
            done.clear();
            if nic.recv(&mut heard, 64)? == 0 {
                nic.wait(left.min(Duration::from_millis(100)))?;
            }
            for received in heard.drain(..) {
                let bytes = received.frame.to_vec();
                let arp = Packet::parse(&bytes).and_then(|packet| packet.arp());
                if let Some(arp) = arp.filter(|arp| !arp.request && arp.sender.1 == address) {
                    // The question has left: whoever sends next must not take it for a frame of his.
                    while nic.in_flight() > 0 && Instant::now() < until {
                        nic.completed(&mut done)?;
                        done.clear();
                    }
                    return Ok(arp.sender.0);
                }
            }
        }
    }
    nic.check()?;
    Err(Error::NoAnswer {
        address,
        bound: PATIENCE * TRIES,
    })
}

//! Settings of a network card.

use std::time::Duration;

use super::{Waiting, not_offered};
use crate::error::Result;

/// Settings with which a card is started.
#[derive(Debug, Clone)]
pub struct NicConfig {
    /// Descriptors of the transmit ring; a card may have fewer ([`Nic::tx_capacity`](super::Nic::tx_capacity)).
    pub tx_ring: usize,
    /// Descriptors of the receive ring; a card may have fewer.
    pub rx_ring: usize,
    /// Longest frame to receive, in bytes with its VLAN tags and without the frame check sequence; longer
    /// ones are dropped and counted ([`Nic::dropped_longer`](super::Nic::dropped_longer)). Above 1518, jumbo frames
    /// are on. No limit with `rx_offload`, where frames are not cut yet.
    pub max_frame: usize,
    /// Take frames that are addressed to others, too.
    pub promiscuous: bool,
    /// virtio: take the device's filter for VLANs, without which it lets all in. Each of 4096 is let in at
    /// the start, one command each. Other cards have theirs anyway.
    pub vlan_filter: bool,
    /// Let the card insert VLAN tags, and take them out of what comes in; else frames are as on the wire.
    pub vlan_offload: bool,
    /// Least time between two interrupts; zero for no throttling. Nothing on a card that cannot throttle.
    pub interrupt_interval: Duration,
    /// Longest wait for the link; zero not to wait.
    pub link_wait: Duration,
    /// Queue pairs.
    pub queues: usize,
    /// Way of waiting for work.
    pub waiting: Waiting,
    /// Let the card hand over frames as the sender gave them to it: checksums still to be made,
    /// TCP not cut to what the wire takes. What is left to do is in the frame's
    /// [`Offload`](super::Offload). Only cards that are not real can do this (virtio).
    pub rx_offload: bool,
    /// virtio: features that are not taken although offered, one bit each.
    pub refuse_features: u64,
    /// Put the headers of received TCP and UDP packets into a buffer of their own, and the payload into the next of
    /// the frame's. Only if the card can (e1000e); else frames come in as ever.
    pub split_headers: bool,
}

impl NicConfig {
    /// Checks that a card of `queues` queue pairs that takes in frames of up to `longest` bytes can be started so: what
    /// a driver asks first. Shorter rings than those wanted are for the driver to take, and what
    /// [`Nic::offloads`](super::Nic::offloads) leaves out is simply not done.
    ///
    /// # Errors
    /// [`Error::NotOffered`](crate::Error::NotOffered).
    pub fn check(&self, device: &str, queues: usize, longest: usize) -> Result<()> {
        if !(1..=queues).contains(&self.queues) {
            let what = format!("{} queue pairs: it has {queues}", self.queues);
            return Err(not_offered(device, &what));
        }
        if self.max_frame > longest {
            let what = format!(
                "receive frames of {} bytes: it takes in up to {longest}",
                self.max_frame
            );
            return Err(not_offered(device, &what));
        }
        Ok(())
    }
}

impl Default for NicConfig {
    fn default() -> Self {
        Self {
            tx_ring: 256,
            rx_ring: 256,
            max_frame: 1518,
            promiscuous: false,
            vlan_filter: false,
            vlan_offload: false,
            interrupt_interval: Duration::from_micros(50),
            link_wait: Duration::from_secs(5),
            queues: 1,
            waiting: Waiting::default(),
            rx_offload: false,
            refuse_features: 0,
            split_headers: false,
        }
    }
}

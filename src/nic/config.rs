//! Settings of a network card.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Waiting, not_offered};
use crate::error::Result;
use crate::settings::setters;

/// Settings with which a card is started: those that every driver is told, and what only one of them knows
/// ([`NicConfig::driver`]).
///
/// ```
/// use pinwire::nic::e1000e::E1000eConfig;
/// use pinwire::nic::{NicConfig, Waiting};
///
/// let config = NicConfig::default().rx_ring(1024).waiting(Waiting::Interrupt);
/// // The payload in buffers of its own, where the card is an 82574: others leave it at that.
/// let config = config.driver(E1000eConfig::default().split_headers(true));
/// assert_eq!((config.rx_ring, config.tx_ring), (1024, 256));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
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
    /// Prepare for [`Nic::set_vlans`](super::Nic::set_vlans). Only virtio needs to be told at the start: it negotiates
    /// the device's filter then, which drops all tagged frames until each of the 4096 VLANs is let in by a command.
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
    drivers: Vec<Arc<dyn DriverConfig>>,
}

/// Settings that only one driver knows. [`NicConfig::driver`] hands them on.
pub trait DriverConfig: Any + fmt::Debug + Send + Sync {}

impl NicConfig {
    setters! {
        /// Sets [`tx_ring`](NicConfig#structfield.tx_ring).
        tx_ring: usize,
        /// Sets [`rx_ring`](NicConfig#structfield.rx_ring).
        rx_ring: usize,
        /// Sets [`max_frame`](NicConfig#structfield.max_frame).
        max_frame: usize,
        /// Sets [`promiscuous`](NicConfig#structfield.promiscuous).
        promiscuous: bool,
        /// Sets [`vlan_filter`](NicConfig#structfield.vlan_filter).
        vlan_filter: bool,
        /// Sets [`vlan_offload`](NicConfig#structfield.vlan_offload).
        vlan_offload: bool,
        /// Sets [`interrupt_interval`](NicConfig#structfield.interrupt_interval).
        interrupt_interval: Duration,
        /// Sets [`link_wait`](NicConfig#structfield.link_wait).
        link_wait: Duration,
        /// Sets [`queues`](NicConfig#structfield.queues).
        queues: usize,
        /// Sets [`waiting`](NicConfig#structfield.waiting).
        waiting: Waiting,
        /// Sets [`rx_offload`](NicConfig#structfield.rx_offload).
        rx_offload: bool,
    }

    /// Adds the settings of one driver, in place of any of that type. The other drivers do not look at them.
    #[must_use]
    pub fn driver<T: DriverConfig>(mut self, settings: T) -> Self {
        self.drivers.retain(|one| !is::<T>(&**one));
        self.drivers.push(Arc::new(settings));
        self
    }

    /// The settings of the driver whose type is `T`, or its default: for the driver.
    pub fn of<T: DriverConfig + Default + Clone>(&self) -> T {
        let own = self.drivers.iter().find_map(|one| {
            let any: &dyn Any = &**one;
            any.downcast_ref::<T>()
        });
        own.cloned().unwrap_or_default()
    }

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
            drivers: Vec::new(),
        }
    }
}

fn is<T: DriverConfig>(settings: &dyn DriverConfig) -> bool {
    let any: &dyn Any = settings;
    any.is::<T>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Default, PartialEq)]
    struct One(u32);
    impl DriverConfig for One {}

    #[derive(Debug, Clone, Default, PartialEq)]
    struct Other(u32);
    impl DriverConfig for Other {}

    #[test]
    fn each_driver_has_the_last_of_its_own_settings() {
        let config = NicConfig::default()
            .driver(One(1))
            .driver(Other(2))
            .driver(One(3));
        assert_eq!(
            (config.of::<One>(), config.of::<Other>()),
            (One(3), Other(2))
        );
        assert_eq!(NicConfig::default().of::<One>(), One(0));
        assert_eq!(config.drivers.len(), 2);
    }
}

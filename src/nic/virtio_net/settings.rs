//! Settings that only virtio-net knows.

use crate::nic::DriverConfig;
use crate::settings::setters;

/// Settings of virtio-net, for [`NicConfig::driver`](crate::nic::NicConfig::driver).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct VirtioNetConfig {
    /// Features that are not negotiated although the device offers them, one bit each ([`features`](super::features)).
    pub refuse_features: u64,
}

impl DriverConfig for VirtioNetConfig {}

impl VirtioNetConfig {
    setters! {
        /// Sets [`refuse_features`](VirtioNetConfig#structfield.refuse_features).
        refuse_features: u64,
    }
}

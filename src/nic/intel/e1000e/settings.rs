//! Settings that only e1000e knows.

use crate::nic::DriverConfig;
use crate::settings::setters;

/// Settings of the 82574 family, for [`NicConfig::driver`](crate::nic::NicConfig::driver).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct E1000eConfig {
    /// Put the headers of received TCP and UDP packets into a buffer of their own, and the payload into the next of
    /// the frame's (packet split, §7.1.5).
    pub split_headers: bool,
}

impl DriverConfig for E1000eConfig {}

impl E1000eConfig {
    setters! {
        /// Sets [`split_headers`](E1000eConfig#structfield.split_headers).
        split_headers: bool,
    }
}

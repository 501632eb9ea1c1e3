//! The address of a PCI function: domain, bus, device, function, as in `0000:00:03.0`.

use std::fmt;

/// `domain:bus:device.function`, hexadecimal; the domain may be left out (`00:03.0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// PCI domain (segment).
    pub domain: u16,
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        // `pad` keeps a column's width when printed in a table.
        f.pad(&format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"))
    }
}

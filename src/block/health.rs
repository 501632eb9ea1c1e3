//! The health of a disk, as the disk says.

/// What a disk says of its health: NVMe's SMART / health log, §5.14.1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Critical warnings, a bit each: spare, temperature, reliability, read-only, backup, persistent memory region.
    pub warnings: u8,
    /// Temperature in kelvin.
    pub kelvin: u16,
    /// Spare that is left, in percent.
    pub spare: u8,
    /// Spare below which it warns, in percent.
    pub spare_threshold: u8,
    /// Part of its life that is used up, in percent; may be more than 100.
    pub used: u8,
    /// Data read, in units of 1000 times 512 bytes.
    pub units_read: u128,
    /// Data written, likewise.
    pub units_written: u128,
    /// Times that it was turned on.
    pub power_cycles: u128,
    /// Hours that it was on.
    pub power_on_hours: u128,
    /// Times that it lost power without a shutdown.
    pub unsafe_shutdowns: u128,
    /// Errors of the medium that could not be corrected.
    pub media_errors: u128,
    /// Entries of its error log, over its life.
    pub error_entries: u128,
}

impl Health {
    /// Reads the log page.
    pub fn read(log: &[u8; 512]) -> Self {
        let long = |at: usize| {
            let bytes = log[at..at + 16].try_into().expect("16 bytes");
            u128::from_le_bytes(bytes)
        };
        Self {
            warnings: log[0],
            kelvin: u16::from_le_bytes([log[1], log[2]]),
            spare: log[3],
            spare_threshold: log[4],
            used: log[5],
            units_read: long(32),
            units_written: long(48),
            power_cycles: long(112),
            power_on_hours: long(128),
            unsafe_shutdowns: long(144),
            media_errors: long(160),
            error_entries: long(176),
        }
    }
}

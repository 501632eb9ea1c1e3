//! Config space: the standard header and the capability list (PCI 3.0, §6.1 and §6.7).
//!
//! What a device says of itself is not trusted: the list is walked a bounded number of steps, inside
//! the 256 bytes, and never twice through one place.

#![warn(clippy::arithmetic_side_effects)] // numbers of a device: checked, or wrapped on purpose

use crate::error::Result;

/// Vendor and device id, 0x00.
pub const VENDOR_ID: u16 = 0x00;
/// Command register, 0x04.
pub const COMMAND: u16 = 0x04;
/// Status register, 0x06.
pub const STATUS: u16 = 0x06;
/// Revision id, 0x08.
pub const REVISION: u16 = 0x08;
/// First base address register, 0x10; six of them, 4 bytes each.
pub const BAR0: u16 = 0x10;
/// Offset of base address register `index` (0 to 5).
pub const fn bar(index: u8) -> u16 {
    BAR0.saturating_add((index as u16) << 2)
}

/// Subsystem vendor and id, 0x2c.
pub const SUBSYSTEM: u16 = 0x2c;
/// Offset of the pointer to the capability list, 0x34.
pub const CAPABILITIES: u16 = 0x34;
/// Interrupt pin, 0x3d: 0 where the function has none.
pub const INTERRUPT_PIN: u16 = 0x3d;

bitflags::bitflags! {
    /// The command register's bits that a driver may change (PCI 3.0, §6.2.2).
    ///
    /// Bit 10, which turns INTx off, is not among them: it belongs to the
    /// [`Backend`](crate::backend::Backend), which knows whether anybody listens to the line.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Command: u16 {
        /// Answers to its I/O BARs.
        const IO = 1 << 0;
        /// Answers to its memory BARs.
        const MEMORY = 1 << 1;
        /// Lets it read and write memory by itself (DMA).
        const BUS_MASTER = 1 << 2;
    }
}

/// One entry of the capability list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Its id (PCI Code and ID Assignment specification).
    pub id: u8,
    /// Offset of its first byte.
    pub offset: u16,
}

impl Capability {
    /// Its name, or "unknown".
    pub fn name(&self) -> &'static str {
        match self.id {
            0x01 => "power management",
            0x03 => "vital product data",
            0x05 => "MSI",
            0x07 => "PCI-X",
            0x09 => "vendor specific",
            0x10 => "PCI Express",
            0x11 => "MSI-X",
            0x12 => "SATA",
            0x13 => "advanced features",
            _ => "unknown",
        }
    }
}

/// The config space of one function.
pub trait Config {
    /// Reads `into.len()` bytes at `offset`.
    ///
    /// # Errors
    /// If the access fails or lies outside config space.
    fn read(&self, offset: u16, into: &mut [u8]) -> Result<()>;

    /// Writes `from` at `offset`.
    ///
    /// # Errors
    /// As [`Config::read`].
    fn write(&self, offset: u16, from: &[u8]) -> Result<()>;

    /// Reads a byte.
    ///
    /// # Errors
    /// As [`Config::read`].
    fn read8(&self, offset: u16) -> Result<u8> {
        let mut bytes = [0; 1];
        self.read(offset, &mut bytes)?;
        Ok(bytes[0])
    }

    /// Reads 2 bytes, little-endian.
    ///
    /// # Errors
    /// As [`Config::read`].
    fn read16(&self, offset: u16) -> Result<u16> {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// Reads 4 bytes, little-endian.
    ///
    /// # Errors
    /// As [`Config::read`].
    fn read32(&self, offset: u16) -> Result<u32> {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Revision of the function.
    ///
    /// # Errors
    /// As [`Config::read`].
    fn revision(&self) -> Result<u8> {
        self.read8(REVISION)
    }

    /// Vendor and device id; all ones where the function is gone.
    ///
    /// # Errors
    /// As [`Config::read`].
    fn ids(&self) -> Result<(u16, u16)> {
        Ok((self.read16(VENDOR_ID)?, self.read16(VENDOR_ID + 2)?))
    }

    /// Turns on `on` and off `off` in the command register. All other bits stay as they are, whatever
    /// bits the two were made from.
    ///
    /// # Errors
    /// As [`Config::read`].
    fn command(&self, on: Command, off: Command) -> Result<()> {
        let [on, off] = [on, off].map(|bits| (bits & Command::all()).bits());
        let now = self.read16(COMMAND)?;
        self.write(COMMAND, &(now & !off | on).to_le_bytes())
    }

    /// The first base address register that is for I/O ports.
    ///
    /// # Errors
    /// As [`Config::read`].
    fn io_bar(&self) -> Result<Option<u8>> {
        let mut index = 0;
        while index < 6 {
            let base = self.read32(bar(index))?;
            // Bit 0: I/O ports. Else bits 2:1 are 10 where it takes the next one, too (§6.2.5.1).
            if base & 1 != 0 {
                return Ok(Some(index));
            }
            let takes: u8 = if base & 0b110 == 0b100 { 2 } else { 1 };
            index = takes.saturating_add(index);
        }
        Ok(None)
    }

    /// The capability list, in its order.
    ///
    /// # Errors
    /// As [`Config::read`].
    fn capabilities(&self) -> Result<Vec<Capability>> {
        const HAS_LIST: u16 = 1 << 4;
        // 256 bytes less the 64 of the header, 4 bytes an entry: a longer list is a loop.
        const MOST: usize = 48;
        let mut found = Vec::new();
        if self.read16(STATUS)? & HAS_LIST == 0 {
            return Ok(found);
        }
        let mut offset = u16::from(self.read8(CAPABILITIES)? & !3);
        while offset >= 0x40 && found.len() < MOST {
            if found.iter().any(|cap: &Capability| cap.offset == offset) {
                break;
            }
            let [id, next] = self.read16(offset)?.to_le_bytes();
            if id == 0xff {
                break;
            }
            found.push(Capability { id, offset });
            offset = u16::from(next & !3);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    struct Bytes(RefCell<[u8; 256]>);

    impl Config for Bytes {
        fn read(&self, offset: u16, into: &mut [u8]) -> Result<()> {
            let offset = usize::from(offset);
            into.copy_from_slice(&self.0.borrow()[offset..][..into.len()]);
            Ok(())
        }

        fn write(&self, offset: u16, from: &[u8]) -> Result<()> {
            let offset = usize::from(offset);
            self.0.borrow_mut()[offset..][..from.len()].copy_from_slice(from);
            Ok(())
        }
    }

    fn config(list: &[(u8, u8, u8)]) -> Bytes {
        let mut bytes = [0; 256];
        bytes[6] = 1 << 4;
        bytes[0x34] = list[0].0;
        for &(at, id, next) in list {
            bytes[usize::from(at)] = id;
            bytes[usize::from(at) + 1] = next;
        }
        Bytes(RefCell::new(bytes))
    }

    #[test]
    fn the_capability_list_is_walked_in_order() {
        let list = config(&[(0x40, 0x01, 0x60), (0x60, 0x11, 0)]).capabilities();
        let names: Vec<_> = list.unwrap().iter().map(Capability::name).collect();
        assert_eq!(names, ["power management", "MSI-X"]);
    }

    #[test]
    fn a_capability_list_that_loops_ends() {
        let list = config(&[(0x40, 0x01, 0x60), (0x60, 0x05, 0x40)]).capabilities();
        assert_eq!(list.unwrap().len(), 2);
    }

    #[test]
    fn a_capability_list_into_the_header_ends() {
        let list = config(&[(0x40, 0x01, 0x10)]).capabilities();
        assert_eq!(list.unwrap().len(), 1);
    }

    #[test]
    fn command_changes_only_what_is_asked() {
        let config = Bytes(RefCell::new([0; 256]));
        config.write(COMMAND, &[0x45, 0x01]).unwrap();
        config
            .command(Command::MEMORY, Command::BUS_MASTER)
            .unwrap();
        assert_eq!(config.read16(COMMAND).unwrap(), 0x0143);
    }

    #[test]
    fn command_leaves_the_bit_that_turns_off_intx_to_the_backend() {
        const INTX_DISABLE: u16 = 1 << 10;
        let config = Bytes(RefCell::new([0; 256]));
        let bit = Command::from_bits_retain(INTX_DISABLE);
        config.command(bit, Command::empty()).unwrap();
        assert_eq!(config.read16(COMMAND).unwrap(), 0);
        config.write(COMMAND, &INTX_DISABLE.to_le_bytes()).unwrap();
        config.command(Command::IO, bit).unwrap();
        assert_eq!(config.read16(COMMAND).unwrap(), INTX_DISABLE | 1);
    }
}

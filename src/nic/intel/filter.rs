//! The tables of the receive filter, as the device wants them.

use crate::error::Result;
use crate::mmio::{Mmio, ReadWrite, RegArray};
use crate::nic::{Mac, check_vlans};

/// The multicast table: a hash of bits 47:36 of the address picks one of 4096 bits, with RCTL.MO = 0.
pub(in crate::nic) fn multicast(groups: &[Mac]) -> [u32; 128] {
    let mut table = [0u32; 128];
    for Mac(bytes) in groups {
        let hash = u16::from(bytes[4]) >> 4 | u16::from(bytes[5]) << 4;
        table[usize::from(hash >> 5)] |= 1 << (hash & 31);
    }
    table
}

/// The VLAN table: one bit for each of 4096 VLANs.
pub(in crate::nic) fn vlans(vlans: &[u16]) -> Result<[u32; 128]> {
    check_vlans(vlans)?;
    let mut table = [0u32; 128];
    for vlan in vlans {
        table[usize::from(vlan >> 5)] |= 1 << (vlan & 31);
    }
    Ok(table)
}

/// The two parts of an address, as the receive address registers hold it: bytes 0 to 3, 4 and 5.
pub(in crate::nic) fn halves(Mac([a, b, c, d, e, f]): Mac) -> (u32, u16) {
    (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([e, f]))
}

/// The address of these two parts; `None` where it is none.
pub(in crate::nic) fn joined(low: u32, high: u16) -> Option<Mac> {
    let ([a, b, c, d], [e, f]) = (low.to_le_bytes(), high.to_le_bytes());
    let mac = [a, b, c, d, e, f];
    (mac != [0; 6] && mac != [0xff; 6]).then_some(Mac(mac))
}

/// Writes a whole table.
pub(in crate::nic) fn write<M: Mmio, const N: usize>(
    bar: &M,
    registers: &RegArray<u32, ReadWrite>,
    table: [u32; N],
) {
    for (index, value) in table.into_iter().enumerate() {
        bar.set(registers.index(index), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manuals_example_sets_bit_9_of_row_94() {
        // xx:xx:xx:xx:9x:bc, §13.5.1
        let table = multicast(&[Mac([0x01, 0x00, 0x5e, 0x00, 0x90, 0xbc])]);
        assert_eq!(table[94], 1 << 9);
        assert_eq!(table.iter().filter(|row| **row != 0).count(), 1);
    }

    #[test]
    fn a_vlan_is_one_bit_and_what_is_none_is_refused() {
        assert_eq!(vlans(&[100]).unwrap()[3], 1 << 4);
        assert_eq!(vlans(&[4095, 0]).unwrap()[127], 1 << 31);
        assert_eq!(vlans(&[]).unwrap(), [0; 128]);
        let error = vlans(&[1, 4096]).unwrap_err().to_string();
        assert!(error.contains("4096 is not a VLAN id"), "{error}");
    }

    #[test]
    fn an_address_goes_into_registers_and_back() {
        let mac = Mac([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);
        assert_eq!(halves(mac), (0x1200_5452, 0x5634));
        assert_eq!(joined(0x1200_5452, 0x5634), Some(mac));
        assert_eq!((joined(0, 0), joined(u32::MAX, 0xffff)), (None, None));
    }
}

//! The EEPROM's content: words 0 to 2 are the Ethernet address, and the first 64 words add up to 0xbaba. The way to
//! read a word differs from card to card.

use crate::nic::{Mac, intel::filter};

/// Sum of the words 0x00 to 0x3f: 8254x manual, §5.6.35.
const CHECKSUM: u16 = 0xbaba;

/// The Ethernet address, the words coming from `read`; `None` where the EEPROM does not answer or its
/// checksum is wrong.
pub(in crate::nic) fn mac(read: impl FnMut(u8) -> Option<u16>) -> Option<Mac> {
    let words: Vec<u16> = (0..0x40).map_while(read).collect();
    let sum = words.iter().fold(0u16, |sum, word| sum.wrapping_add(*word));
    if words.len() < 0x40 || sum != CHECKSUM {
        return None;
    }
    filter::joined(u32::from(words[1]) << 16 | u32::from(words[0]), words[2])
}

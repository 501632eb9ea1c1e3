//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// To everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// From two words as many chips have it in registers: the first byte lowest, the last two in `high`.
    pub fn from_words(low: u32, high: u32) -> Self {
        let ([a, b, c, d], [e, f, ..]) = (low.to_le_bytes(), high.to_le_bytes());
        Self([a, b, c, d, e, f])
    }

    /// Ethernet's CRC over the address, the bit that comes first on the wire first (IEEE 802.3, 3.2.9): many chips
    /// filter groups by its upper bits.
    ///
    /// ```
    /// use pinwire::nic::Mac;
    /// // Which of 64 bits an RTL8139, a tulip or a DesignWare MAC has for all hosts, 224.0.0.1.
    /// assert_eq!(Mac([0x01, 0x00, 0x5e, 0x00, 0x00, 0x01]).crc() >> 26, 31);
    /// ```
    pub fn crc(self) -> u32 {
        const POLYNOMIAL: u32 = 0x04c1_1db7;
        self.0.into_iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc, |crc, bit| {
                match crc >> 31 ^ u32::from(byte >> bit & 1) {
                    0 => crc << 1,
                    _ => crc << 1 ^ POLYNOMIAL,
                }
            })
        })
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes: Option<Vec<u8>> = text
            .split(':')
            .map(|part| {
                u8::from_str_radix(part, 16)
                    .ok()
                    .filter(|_| part.len() == 2)
            })
            .collect();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| {
                Error::Usage(format!(
                    "{text:?} is not an Ethernet address; write 52:54:00:12:34:56"
                ))
            })
    }
}

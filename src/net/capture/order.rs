//! Numbers in the byte order of who wrote the capture.

/// The byte order of a file, or of a section of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The most significant byte first.
    Big,
    /// The least significant byte first.
    Little,
}

impl Order {
    /// The two bytes at `at`.
    ///
    /// # Panics
    /// If they are not there.
    pub fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let word = bytes[at..at + 2].try_into().expect("two bytes");
        match self {
            Self::Big => u16::from_be_bytes(word),
            Self::Little => u16::from_le_bytes(word),
        }
    }

    /// The four bytes at `at`.
    ///
    /// # Panics
    /// If they are not there.
    pub fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let word = bytes[at..at + 4].try_into().expect("four bytes");
        match self {
            Self::Big => u32::from_be_bytes(word),
            Self::Little => u32::from_le_bytes(word),
        }
    }

    /// The first eight bytes, where they are there.
    pub fn i64(self, bytes: &[u8]) -> Option<i64> {
        let word = bytes.get(..8)?.try_into().ok()?;
        Some(match self {
            Self::Big => i64::from_be_bytes(word),
            Self::Little => i64::from_le_bytes(word),
        })
    }
}

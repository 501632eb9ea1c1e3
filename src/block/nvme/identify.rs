//! What a controller says of itself and of its namespaces (Identify, §5.15): bytes of 4096, read once and checked.

use crate::block::Namespace;

/// Bytes of an Identify structure.
pub const LEN: usize = 4096;
/// Identify: a namespace, §5.15.2.1.
pub const NAMESPACE: u8 = 0;
/// Identify: the controller, §5.15.2.2.
pub const CONTROLLER: u8 = 1;
/// Identify: the numbers of the namespaces that are there, §5.15.2.3.
pub const NAMESPACES: u8 = 2;

bitflags::bitflags! {
    /// Optional commands of the NVM command set: ONCS, bytes 521:520.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Oncs: u16 {
        /// Compare
        const COMPARE = 1 << 0;
        /// Dataset Management
        const DATASET_MANAGEMENT = 1 << 2;
        /// Write Zeroes
        const WRITE_ZEROES = 1 << 3;
        /// Verify
        const VERIFY = 1 << 7;
        /// Copy
        const COPY = 1 << 8;
    }
}

/// What the driver uses of the controller's structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// MN, bytes 63:24
    pub model: String,
    /// SN, bytes 23:4
    pub serial: String,
    /// FR, bytes 71:64
    pub firmware: String,
    /// MDTS, byte 77: most bytes of a transfer; none where there is no limit.
    pub max_transfer: Option<usize>,
    /// NN, bytes 519:516: the highest number of a namespace.
    pub highest: u32,
    /// ONCS
    pub optional: Oncs,
    /// VWC, byte 525: there is a volatile write cache.
    pub has_cache: bool,
}

impl Controller {
    /// Reads the structure of a controller whose least page is `page` bytes.
    pub fn read(bytes: &[u8; LEN], page: usize) -> Self {
        Self {
            model: text(&bytes[24..64]),
            serial: text(&bytes[4..24]),
            firmware: text(&bytes[64..72]),
            max_transfer: match bytes[77] {
                0 => None,
                // What has more than there are addresses is no limit either.
                shift => 1usize
                    .checked_shl(shift.into())
                    .and_then(|pages| pages.checked_mul(page)),
            },
            highest: u32_at(bytes, 516),
            optional: Oncs::from_bits_retain(u16_at(bytes, 520)),
            has_cache: bytes[525] & 1 != 0,
        }
    }
}

/// What the driver uses of a namespace's structure.
///
/// # Errors
/// In words, where it has a format that the driver does not do, or one that cannot be.
pub fn namespace(id: u32, bytes: &[u8; LEN]) -> Result<Option<Namespace>, String> {
    let blocks = u64_at(bytes, 0);
    if blocks == 0 {
        return Ok(None); // not active
    }
    // FLBAS, byte 26: which of the formats, from byte 128 on.
    let format = usize::from(bytes[26] & 0xf);
    let format = u32_at(bytes, 128 + 4 * format);
    let (metadata, shift) = (format & 0xffff, format >> 16 & 0xff);
    if metadata != 0 {
        return Err(format!(
            "namespace {id} has {metadata} bytes of metadata beside each block, which this driver does not do\n  \
             format it without, as by nvme-cli (all that is on it is lost)"
        ));
    }
    if !(9..=16).contains(&shift) {
        return Err(format!(
            "namespace {id} has blocks of 2 to the power of {shift} bytes"
        ));
    }
    if blocks
        .checked_shl(shift)
        .is_none_or(|bytes| bytes >> shift != blocks)
    {
        return Err(format!(
            "namespace {id} has {blocks} blocks of {} bytes",
            1u32 << shift
        ));
    }
    Ok(Some(Namespace {
        id,
        block_size: 1 << shift,
        blocks,
        // NSATTR, byte 99: write protected.
        is_read_only: bytes[99] & 1 != 0,
    }))
}

/// The numbers in a list of namespaces, which ends with the first 0.
pub fn numbers(bytes: &[u8; LEN]) -> impl Iterator<Item = u32> {
    let each = (0..LEN).step_by(4).map(|at| u32_at(bytes, at));
    each.take_while(|number| *number != 0)
}

/// Copy's limits, bytes 76 to 79 (MSSRL is at 74): most blocks of a range.
pub fn copy_limit(bytes: &[u8; LEN]) -> u32 {
    u32_at(bytes, 76).min(u16_at(bytes, 74).into())
}

/// ASCII, padded with spaces; what cannot be printed is left out.
fn text(bytes: &[u8]) -> String {
    let printable = bytes.iter().filter(|byte| (b' '..=b'~').contains(byte));
    let text: String = printable.map(|byte| char::from(*byte)).collect();
    text.trim().to_owned()
}

fn array<const N: usize>(bytes: &[u8; LEN], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes")
}

fn u16_at(bytes: &[u8; LEN], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn u32_at(bytes: &[u8; LEN], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8; LEN], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn namespace_of(blocks: u64, format: u32) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&blocks.to_le_bytes());
        bytes[26] = 2;
        bytes[136..140].copy_from_slice(&format.to_le_bytes());
        bytes
    }

    #[test]
    fn a_namespace_has_the_format_that_it_says() {
        let read = namespace(3, &namespace_of(1000, 12 << 16))
            .unwrap()
            .unwrap();
        assert_eq!((read.id, read.block_size, read.blocks), (3, 4096, 1000));
        assert_eq!(read.bytes(), 4_096_000);
        assert_eq!(namespace(3, &namespace_of(0, 12 << 16)), Ok(None));
    }

    #[test]
    fn formats_that_cannot_be_are_refused() {
        for (blocks, format, words) in [
            (1000, 9 << 16 | 8, "8 bytes of metadata"),
            (1000, 8 << 16, "power of 8"),
            (1000, 255 << 16, "power of 255"),
            (u64::MAX, 9 << 16, "18446744073709551615 blocks"),
        ] {
            let why = namespace(1, &namespace_of(blocks, format)).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn a_list_ends_with_the_first_zero() {
        let mut bytes = [0; LEN];
        (bytes[0], bytes[4], bytes[12]) = (1, 7, 9);
        assert_eq!(numbers(&bytes).collect::<Vec<_>>(), [1, 7]);
        assert_eq!(numbers(&[1; LEN]).count(), LEN / 4);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), LEN)) {
            let bytes: [u8; LEN] = bytes.try_into().unwrap();
            let controller = Controller::read(&bytes, 4096);
            prop_assert!(controller.model.len() <= 40);
            let _ = namespace(1, &bytes);
            let _ = copy_limit(&bytes);
        }
    }
}

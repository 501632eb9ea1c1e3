//! Frames that say nothing: for looking at rings and for measuring.

use pinwire::nic::Mac;

/// A local, administered address that no card has, so that no card takes the frames up.
pub const NOBODY: Mac = Mac([0x02, b'n', b'o', b'b', b'o', b'd']);

/// The EtherType for experiments (IEEE 802, local experimental 1).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// `length` bytes from `from` to `to` that count up.
///
/// # Panics
/// Where it has no room for its header of 14 bytes.
pub fn frame(from: Mac, to: Mac, length: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..length).map(|index| index as u8).collect();
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&from.0);
    frame[12..14].copy_from_slice(&ETHERTYPE);
    frame
}

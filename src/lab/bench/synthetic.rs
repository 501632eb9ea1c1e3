//! A frame that says nothing: for looking at rings and for measuring.

use crate::net::EXPERIMENTAL;
use crate::nic::Mac;

/// `length` bytes from `from` to `to` that count up.
///
/// # Panics
/// If it has no room for its header of 14 bytes.
pub fn frame(from: Mac, to: Mac, length: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..length).map(|index| index as u8).collect();
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&from.0);
    frame[12..14].copy_from_slice(&EXPERIMENTAL.to_be_bytes());
    frame
}

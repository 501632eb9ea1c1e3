//! Checksums that a driver begins or makes, in the headers of a frame that a card shall work on.

#![warn(clippy::arithmetic_side_effects)]

use crate::dma::Segment;
use crate::nic::{Offload, OffloadFlags};

/// Offset of the checksum in an IPv4 header.
pub(in crate::nic) const IPV4_CSUM: u8 = 10;
/// Offset of the checksum in a TCP header.
pub(in crate::nic) const TCP_CSUM: u16 = 16;
/// Offset of the checksum in a UDP header.
pub(in crate::nic) const UDP_CSUM: u16 = 6;

/// Bytes that the IP header of a frame to be worked on has at least, and its TCP or UDP header. A frame
/// with less has no place for the checksums that are begun in it.
pub(in crate::nic) fn least_headers(flags: OffloadFlags) -> (u8, u8) {
    let l3 = if flags.contains(OffloadFlags::IPV6) {
        40
    } else {
        20
    };
    let tcp = flags.intersects(OffloadFlags::TSO | OffloadFlags::TCP_CHECKSUM);
    (l3, if tcp { 20 } else { 8 })
}

/// Adds up big-endian words, one's complement (RFC 1071).
fn sum(words: &[u8]) -> u32 {
    words
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)])))
        .sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        // The carry comes round.
        sum = (sum & 0xffff).wrapping_add(sum >> 16);
    }
    sum as u16
}

/// Makes the IPv4 header's checksum in `first`, for cards that do not. `false` where the header is not
/// whole in it, or is of a file that the CPU does not read.
pub(in crate::nic) fn sum_ipv4(first: &mut Segment, l2_len: u8, l3_len: u8) -> bool {
    let at = usize::from(l2_len);
    let mut total = 0u32;
    for word in (0..usize::from(l3_len)).step_by(2) {
        // The checksum's own field counts as zero.
        if word != usize::from(IPV4_CSUM) {
            let Some(bytes) = first.array::<2>(at.saturating_add(word)) else {
                return false;
            };
            // 127 words of 16 bits at most.
            total = sum(&bytes).saturating_add(total);
        }
    }
    l3_len >= 20
        && first.put(
            at.saturating_add(IPV4_CSUM.into()),
            &(!fold(total)).to_be_bytes(),
        )
}

/// The sum over the pseudo-header goes into the checksum field of a frame to be cut: `l4` bytes of
/// header and payload in all. `false` as for [`sum_ipv4`].
pub(in crate::nic) fn sum_pseudo(first: &mut Segment, offload: Offload, l4: usize) -> bool {
    let at = usize::from(offload.l2_len);
    let ipv6 = offload.flags.contains(OffloadFlags::IPV6);
    let addresses = match ipv6 {
        true => first
            .array::<32>(at.saturating_add(8))
            .map(|bytes| sum(&bytes)),
        false => first
            .array::<8>(at.saturating_add(12))
            .map(|bytes| sum(&bytes)),
    };
    let (protocol, field) = match offload.flags.contains(OffloadFlags::TSO) {
        true => (6, TCP_CSUM),
        false => (17, UDP_CSUM),
    };
    let Some(addresses) = addresses else {
        return false;
    };
    // 17 words of 16 bits, and a length that is below 2 to the power of 20.
    let total = fold(addresses.saturating_add(protocol).saturating_add(l4 as u32));
    let place = at.saturating_add(offload.l3_len.into());
    first.put(place.saturating_add(field.into()), &total.to_be_bytes())
}

/// The checksum field of the IPv4 header in `first` is zero, for a card that sums over it. `false` as
/// for [`sum_ipv4`].
pub(in crate::nic) fn clear_ipv4(first: &mut Segment, l2_len: u8) -> bool {
    let at = usize::from(l2_len);
    first.put(at.saturating_add(IPV4_CSUM.into()), &[0; 2])
}

//! The header before each frame, §5.1.6: `struct virtio_net_hdr`, 12 bytes.
//!
//! A sender says in it what is still to be done to the frame, and so does the device. The header lies
//! in a buffer's headroom, right before the frame, so that both are one stretch of memory.

use super::features as f;
use crate::dma::{DmaBuf, Segment};
use crate::nic::checksum::{TCP_CSUM, UDP_CSUM};
use crate::nic::{Frame, Offload, OffloadFlags};

/// Bytes of it.
pub const HEADER: usize = 12;

/// flags: the checksum from csum_start on is to be put at csum_offset.
const NEEDS_CSUM: u8 = 1;
/// flags: the checksum was looked at and is right.
pub(super) const DATA_VALID: u8 = 2;
/// gso_type: TCP over IPv4.
const GSO_TCPV4: u8 = 1;
/// gso_type: TCP over IPv6.
const GSO_TCPV6: u8 = 4;
/// gso_type: UDP, cut into datagrams.
const GSO_UDP_L4: u8 = 5;
/// gso_type: a flag, with explicit congestion notification.
const GSO_ECN: u8 = 0x80;

/// The header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Flags of what is to be done, and of what was.
    pub flags: u8,
    /// The segmentation that the frame needs.
    pub gso_type: u8,
    /// Bytes of all headers: a hint.
    pub hdr_len: u16,
    /// Payload bytes of a piece.
    pub gso_size: u16,
    /// Offset of the first byte that is summed.
    pub csum_start: u16,
    /// Offset of the checksum from `csum_start`.
    pub csum_offset: u16,
    /// Buffers that the frame lies in, with MRG_RXBUF.
    pub num_buffers: u16,
}

impl Header {
    /// Encodes the header as it lies in memory.
    #[inline]
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        let words = [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.num_buffers,
        ];
        for (to, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Decodes the header from memory.
    #[inline]
    pub fn from_bytes(bytes: [u8; HEADER]) -> Self {
        let [flags, gso_type, a, b, c, d, e, g, h, i, j, k] = bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([a, b]),
            gso_size: u16::from_le_bytes([c, d]),
            csum_start: u16::from_le_bytes([e, g]),
            csum_offset: u16::from_le_bytes([h, i]),
            num_buffers: u16::from_le_bytes([j, k]),
        }
    }

    /// Returns whether the header right before `buf` asks for nothing, as that of nearly all frames: nothing is to
    /// be done to the frame, and it lies in one buffer, which a device has to say without MRG_RXBUF, too
    /// (§5.1.6.4.1).
    #[inline]
    pub fn asks_nothing(buf: &DmaBuf) -> bool {
        // One word for both: any gso_type, or the one flag.
        let asked = u16::from_le_bytes(buf.headroom_at(HEADER));
        let mask = u16::from_le_bytes([NEEDS_CSUM, 0xff]);
        asked & mask == 0 && u16::from_le_bytes(buf.headroom()) == 1
    }

    /// Makes the header for a frame that the device shall work on.
    pub fn of(offload: Offload) -> Self {
        let flags = offload.flags;
        // Three bytes at most: nothing is cut off.
        let l4 = u16::from(offload.l2_len).saturating_add(offload.l3_len.into());
        let mut header = Self::default();
        if flags.intersects(OffloadFlags::TCP_CHECKSUM | OffloadFlags::UDP_CHECKSUM) {
            header.flags = NEEDS_CSUM;
            header.csum_start = l4;
            header.csum_offset = match flags.contains(OffloadFlags::TCP_CHECKSUM) {
                true => TCP_CSUM,
                false => UDP_CSUM,
            };
        }
        if flags.intersects(OffloadFlags::TSO | OffloadFlags::USO) {
            header.hdr_len = l4.saturating_add(offload.l4_len.into());
            header.gso_size = offload.mss;
            header.gso_type = match flags {
                _ if flags.contains(OffloadFlags::USO) => GSO_UDP_L4,
                _ if flags.contains(OffloadFlags::IPV6) => GSO_TCPV6,
                _ => GSO_TCPV4,
            };
        }
        header
    }

    /// Returns whether the TCP or UDP checksum was found right, or is the device's own and yet to be made.
    #[inline]
    pub fn is_valid(&self) -> bool {
        self.flags & (DATA_VALID | NEEDS_CSUM) != 0
    }

    /// Returns whether it asks for nothing.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.flags & NEEDS_CSUM == 0 && self.gso_type == 0
    }

    /// Returns the work still to be done to `frame`, which came in with this header; `None` where the header does not
    /// go with the frame, or asks for what is not among the features `negotiated`.
    pub fn offload(&self, frame: &Frame, negotiated: u64) -> Option<Offload> {
        let first = frame.first();
        if self.flags & NEEDS_CSUM == 0 || negotiated & f::GUEST_CSUM == 0 {
            return None;
        }
        let (l2_len, ethertype) = link(first)?;
        let l3_len = u8::try_from(self.csum_start.checked_sub(l2_len.into())?).ok()?;
        let past = usize::from(self.csum_start)
            .checked_add(self.csum_offset.into())?
            .checked_add(2)?;
        if l3_len < 20 || past > frame.len() {
            return None;
        }
        let tcp = self.csum_offset == TCP_CSUM;
        let mut flags = match self.csum_offset {
            TCP_CSUM => OffloadFlags::TCP_CHECKSUM,
            UDP_CSUM => OffloadFlags::UDP_CHECKSUM,
            _ => return None,
        };
        match ethertype {
            0x0800 => {}
            0x86dd => flags |= OffloadFlags::IPV6,
            _ => return None,
        }
        let ipv6 = flags.contains(OffloadFlags::IPV6);
        let (cut, feature) = match (self.gso_type & !GSO_ECN, tcp, ipv6) {
            (0, ..) => (OffloadFlags::empty(), f::GUEST_CSUM),
            (GSO_TCPV4, true, false) => (OffloadFlags::TSO, f::GUEST_TSO4),
            (GSO_TCPV6, true, true) => (OffloadFlags::TSO, f::GUEST_TSO6),
            (GSO_UDP_L4, false, false) => (OffloadFlags::USO, f::GUEST_USO4),
            (GSO_UDP_L4, false, true) => (OffloadFlags::USO, f::GUEST_USO6),
            _ => return None,
        };
        flags |= cut;
        let cut = !cut.is_empty();
        if negotiated & feature == 0 || (cut && self.gso_size == 0) {
            return None;
        }
        let l4_len = match tcp {
            true => {
                let [offset] = first.array(usize::from(self.csum_start).checked_add(12)?)?;
                // Words of 4 bytes, in the upper half.
                offset >> 2 & 0x3c
            }
            false => 8,
        };
        Some(Offload {
            flags,
            l2_len,
            l3_len,
            l4_len,
            mss: if cut { self.gso_size } else { 0 },
            vlan: 0,
        })
    }
}

/// Bytes of the link header with its VLAN tags, and the EtherType after it.
fn link(first: &Segment) -> Option<(u8, u16)> {
    for (at, past) in [(12, 14), (16, 18), (20, 22)] {
        let ethertype = u16::from_be_bytes(first.array(at)?);
        if !matches!(ethertype, 0x8100 | 0x88a8) {
            return Some((past, ethertype));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_the_same_after_a_trip_through_memory() {
        let header = Header {
            flags: 1,
            gso_type: 4,
            hdr_len: 0x1234,
            gso_size: 1460,
            csum_start: 34,
            csum_offset: 16,
            num_buffers: 3,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes[2..4], [0x34, 0x12]);
        assert_eq!(Header::from_bytes(bytes), header);
    }

    #[test]
    fn udp_over_ipv4_is_summed_from_its_header_on() {
        let header = Header::of(Offload::UDP4);
        assert_eq!((header.flags, header.gso_type), (NEEDS_CSUM, 0));
        assert_eq!((header.csum_start, header.csum_offset), (34, 6));
    }
}

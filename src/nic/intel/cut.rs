//! A frame cut into what one transmit descriptor takes: by length, by place, and by what the chip's
//! errata ask for ([`TxQuirks`](super::quirks::TxQuirks)).

use std::sync::atomic::AtomicU8;

use super::quirks::SHORTEST_ON_THE_WIRE;
use super::tx::{TxSetup, last_byte};
use crate::dma::Segment;
use crate::nic::{Frame, Offload, OffloadFlags};

/// Bytes a descriptor takes when a longer segment is cut; a power of two below
/// [`MAX_BUFFER`](super::tx::MAX_BUFFER).
const DESC_BYTES: usize = 8192;

/// Bytes of a descriptor of its own at a frame's end ([`TxQuirks::early_report`](super::quirks::TxQuirks::early_report)).
const SENTINEL: usize = 4;

/// Padding of frames.
pub(super) type Zeros = [AtomicU8; 64];
const _: () = assert!(size_of::<Zeros>() >= SHORTEST_ON_THE_WIRE + 4);

/// Memory for the headers of one frame, if those of the frame cannot be used in place
/// ([`TxQuirks::ends_high`](super::quirks::TxQuirks::ends_high)): 255 bytes at most, 4 before them.
pub(super) type HeaderSlot = [AtomicU8; 264];

/// A frame cut into descriptors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    within_page: bool,
    /// Most bytes of a descriptor, and of the first.
    most: usize,
    first: usize,
    /// The last bytes have a descriptor of their own.
    sentinel: bool,
    ends_high: bool,
    /// Zeros that follow the frame.
    pub pad: usize,
    /// Bytes of headers that must be in one descriptor, and are not where they lie.
    pub moved: usize,
}

impl Cut {
    /// For `frame`, the first after one that the card cut into segments, or not.
    pub fn of(frame: &Frame, setup: &TxSetup, after_tso: bool) -> Self {
        let (offload, quirks) = (frame.offload(), setup.quirks);
        let tso = offload.flags.contains(OffloadFlags::TSO);
        let length = frame.len();
        let mut cut = Self {
            within_page: setup.within_page,
            // `TxQuirks::four_segments`: a longer buffer overruns the FIFO. Of a frame that is refused
            // yet, for an mss of 0, the pieces must end, too.
            most: match tso && quirks.four_segments {
                true => DESC_BYTES.min(usize::from(offload.mss.max(1)).saturating_mul(4)),
                false => DESC_BYTES,
            },
            // `Quirks::pcix_first`: a longer first descriptor hangs the card.
            first: quirks.first,
            // `TxQuirks::early_report`, `early_report_after`: else DD comes before the data is read.
            sentinel: match tso {
                true => quirks.early_report,
                false => quirks.early_report_after && after_tso,
            },
            ends_high: quirks.ends_high,
            // `TxQuirks::pads_badly`: the zeros are the ring's own. What lies behind the frame in its
            // buffer is nobody else's business, and a file's page has no room.
            pad: match quirks.pads_badly && !tso {
                true => SHORTEST_ON_THE_WIRE.saturating_sub(length),
                false => 0,
            },
            moved: 0,
        };
        // Headers in parts are not supported, §3.5.6; here `TxQuirks::ends_high` would cut them.
        if tso && cut.ends_high {
            let headers = headers_of(offload);
            let whole = cut.pieces(frame, 0, 0).next();
            cut.moved = match whole.is_some_and(|(_, len)| len >= headers) {
                true => 0,
                false => headers,
            };
        }
        cut
    }

    /// Address and length for each descriptor; `headers` and `zeros` are where the moved headers and the
    /// padding are.
    pub fn pieces<'a>(
        self,
        frame: &'a Frame,
        headers: u64,
        zeros: u64,
    ) -> impl Iterator<Item = (u64, usize)> + use<'a> {
        let total = frame.len();
        let (mut moved, mut skip) = (self.moved, self.moved);
        let mut pad = self.pad;
        let mut segments = frame.segments();
        let (mut iova, mut left, mut boundary) = (0, 0, 1);
        let mut taken = 0;
        std::iter::from_fn(move || {
            if moved > 0 {
                taken = std::mem::take(&mut moved);
                return Some((headers, taken));
            }
            while left == 0 {
                let Some(segment) = segments.next() else {
                    let pad = std::mem::take(&mut pad);
                    return (pad > 0).then(|| (zeros.wrapping_add(high_end(pad) as u64), pad));
                };
                let past = skip.min(segment.len());
                // `past` is no more than either.
                skip = skip.wrapping_sub(past);
                iova = segment.iova().0.wrapping_add(past as u64);
                left = segment.len().wrapping_sub(past);
                boundary = 1u64 << page_shift(segment, self.within_page);
            }
            // To the next multiple of the boundary, which is a power of two.
            let room = boundary.wrapping_sub(iova & u64::wrapping_sub(boundary, 1));
            let mut len = left.min(self.most).min(room as usize);
            if taken == 0 {
                len = len.min(self.first);
            }
            if self.sentinel && usize::wrapping_add(taken, len) == total && len > 2 * SENTINEL {
                len = len.wrapping_sub(SENTINEL);
            }
            // `Quirks::pcix_end`: 4 bytes less end in the upper half of 8 aligned ones.
            if self.ends_high && len > 4 && last_byte(iova, len) & 4 == 0 {
                len = len.wrapping_sub(4);
            }
            let piece = (iova, len);
            iova = iova.wrapping_add(len as u64);
            (left, taken) = (left.wrapping_sub(len), taken.wrapping_add(len));
            Some(piece)
        })
    }
}

/// Bytes of all headers.
pub(super) fn headers_of(offload: Offload) -> usize {
    let all = [offload.l2_len, offload.l3_len, offload.l4_len];
    all.map(usize::from).into_iter().sum()
}

/// A descriptor's buffer does not go across a multiple of 2 to the power of this.
#[inline]
fn page_shift(segment: &Segment, within_page: bool) -> u32 {
    match within_page {
        true => segment.page_shift(),
        false => u64::BITS - 1,
    }
}

/// Returns the offset of `len` bytes in a slot, aligned to 8, at which the last byte lies in the upper half of 8
/// aligned bytes (`Quirks::pcix_end`): at most 4.
pub(super) fn high_end(len: usize) -> usize {
    if len.wrapping_sub(1) & 4 == 0 { 4 } else { 0 }
}

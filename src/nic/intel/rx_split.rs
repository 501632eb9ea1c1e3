//! Packet split, §7.1.5 of the 82574's datasheet: headers in a buffer of their own.
//!
//! Each descriptor has a small buffer for headers and one to three for the rest. Of a TCP or UDP packet the
//! device puts the headers into the first and the payload into the others; any other packet it puts into
//! them one after the other.

use std::marker::PhantomData;
use std::sync::Arc;

use super::assemble::{Completion, FrameAssembler, LONGEST, Violation};
use super::rx::BufferSource;
use crate::dma::{DmaBuf, DmaSpace, Pool};
use crate::error::Result;
use crate::nic::{Frame, NicConfig, Received, RxInfo};

/// Bytes of a buffer for headers.
pub const HEADER: usize = 256;
/// Longest frame without CRC for which one buffer of [`SHORT`] bytes is enough.
const ONE_BUFFER: usize = 1522;
/// Bytes of the one buffer for what is not headers.
const SHORT: usize = 2048;
/// Bytes of each of three such buffers, which together hold any frame (9 KiB).
const LONG: usize = 4096;
/// Buffers of a descriptor for what is not headers, at most.
pub const MOST: usize = 3;

/// Returns the number of buffers for payload, and the bytes of each, for frames of up to `max_frame` bytes.
pub(in crate::nic) fn shape(max_frame: usize) -> (usize, usize) {
    match max_frame {
        ..=ONE_BUFFER => (1, SHORT),
        _ => (MOST, LONG),
    }
}

/// The buffers of a descriptor.
pub struct SplitBuffers {
    header: DmaBuf,
    rest: [Option<DmaBuf>; MOST],
}

impl SplitBuffers {
    /// Returns their IOVAs: for headers, then for the rest; 0 is none.
    #[inline]
    pub fn iovas(&self) -> [u64; MOST + 1] {
        let iova = |buf: &Option<DmaBuf>| buf.as_ref().map_or(0, |buf| buf.iova().0);
        let [one, two, three] = &self.rest;
        [self.header.iova().0, iova(one), iova(two), iova(three)]
    }
}

/// A buffer for headers and some for the rest a descriptor.
pub struct HeaderAndRest<C> {
    headers: Pool,
    pool: Pool,
    /// Buffers of a descriptor besides that for headers.
    count: usize,
    of: PhantomData<C>,
}

impl<C: Completion> HeaderAndRest<C> {
    /// For a ring of `len` descriptors and frames as `config` says: as many buffers again as it holds, so that
    /// the caller may keep some. And what makes frames of them.
    pub(in crate::nic) fn new(
        dma: &Arc<dyn DmaSpace>,
        config: &NicConfig,
    ) -> Result<(Self, FrameAssembler)> {
        let twice = config.rx_ring.saturating_mul(2);
        let (count, bytes) = shape(config.max_frame);
        // Descriptors of the longest frame, and buffers of each.
        let holds = count.saturating_mul(bytes).saturating_add(HEADER);
        let most = (LONGEST.checked_div(holds).unwrap_or(0)).saturating_add(1);
        let most = most.saturating_mul(count.saturating_add(1));
        let source = Self {
            headers: Pool::new(dma, twice, HEADER)?,
            pool: Pool::new(dma, twice.saturating_mul(count), bytes)?,
            count,
            of: PhantomData,
        };
        let frames = FrameAssembler::new(config, C::FORM, (most, HEADER));
        Ok((source, frames))
    }
}

impl<C: Completion + Send> BufferSource for HeaderAndRest<C> {
    type Buffers = SplitBuffers;
    /// The report on the buffer for headers, and the lengths of the others.
    type Completion = (C, [u16; MOST]);

    #[inline]
    fn alloc(&self) -> impl Iterator<Item = SplitBuffers> {
        let (mut headers, mut others) = (self.headers.alloc_each(), self.pool.alloc_each());
        std::iter::from_fn(move || {
            let header = headers.next()?;
            let mut rest = [const { None }; MOST];
            for buf in &mut rest[..self.count] {
                *buf = Some(others.next()?);
            }
            Some(SplitBuffers { header, rest })
        })
    }

    #[inline]
    fn is_done((completion, _): Self::Completion) -> bool {
        completion.is_done()
    }

    /// None is: headers and payload are two buffers.
    #[inline]
    fn accept(
        _: &FrameAssembler,
        _: &mut Option<SplitBuffers>,
        _: Self::Completion,
    ) -> Option<RxInfo> {
        None
    }

    fn whole(buffers: SplitBuffers) -> Frame {
        buffers.header.into()
    }

    fn add(
        frames: &mut FrameAssembler,
        SplitBuffers { header, rest }: SplitBuffers,
        (completion, lengths): Self::Completion,
        into: &mut Vec<Received>,
    ) -> Result<(), Violation> {
        frames.add(header, completion.length())?;
        for (buf, length) in rest.into_iter().zip(lengths) {
            if let Some(buf) = buf {
                frames.add(buf, length)?;
            }
        }
        frames.end(completion, into);
        Ok(())
    }

    fn first(buffers: &SplitBuffers) -> &DmaBuf {
        &buffers.header
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn quarantine(&self) {
        self.headers.quarantine();
        self.pool.quarantine();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_fits_behind_its_headers_in_one_descriptor() {
        for max_frame in [1518, 1522, 1523, 9216] {
            let (count, bytes) = shape(max_frame);
            assert!(count * bytes > max_frame + 4, "{max_frame}");
        }
    }
}

//! The receive ring with packet split descriptors, §7.1.5: headers in a buffer of their own.
//!
//! Each descriptor lends a small buffer for headers and one to three for the rest. Of a TCP or UDP
//! packet the device puts the headers into the first and the payload into the others; any other
//! packet it puts into them one after the other. Head (RDH) and tail (RDT) count 16 bytes, and a
//! descriptor has 32. What the device says of a buffer is checked before it is believed.

use std::sync::Arc;

use super::RxSetup;
use super::desc::{SplitRx, describe_split};
use super::regs::Psrctl;
use crate::barrier::dma_wmb;
use crate::dma::{DmaArray, DmaBuf, DmaSpace, Pool};
use crate::error::Result;
use crate::inspect::{Marks, Owner, RingView, SlotView};
use crate::mmio::Mmio;
use crate::nic::Received;
use crate::nic::intel::join::{Join, LONGEST};
use crate::ring_state::RingState;

/// Bytes of a buffer for headers.
pub const HEADER: usize = 256;
/// Longest frame without CRC for which one buffer of [`SHORT`] bytes is enough.
const ONE_BUFFER: usize = 1522;
/// Bytes of the one buffer for what is not headers.
const SHORT: usize = 2048;
/// Bytes of each of three such buffers, which together hold any frame (9 KiB).
const LONG: usize = 4096;
/// Buffers of a descriptor for what is not headers, at most.
const MOST: usize = 3;

/// The receive ring; it owns every buffer that the device may write.
pub(super) struct SplitRing<M> {
    bar: M,
    state: RingState,
    setup: RxSetup,
    descs: DmaArray<SplitRx>,
    lent: Box<[Option<Lent>]>,
    mask: usize,
    /// The descriptor that the device fills next.
    head: usize,
    /// The next to lend.
    tail: usize,
    headers: Pool,
    pool: Pool,
    /// Buffers of a descriptor besides that for headers.
    count: usize,
    join: Join,
}

/// The buffers of a descriptor.
struct Lent {
    header: DmaBuf,
    rest: [Option<DmaBuf>; MOST],
}

/// How many buffers for payload, and of how many bytes, for frames of up to `max_frame`.
fn shape(max_frame: usize) -> (usize, usize) {
    match max_frame {
        ..=ONE_BUFFER => (1, SHORT),
        _ => (MOST, LONG),
    }
}

/// What the device must know of the buffers, before its receiver is on.
pub(super) fn sizes(max_frame: usize) -> Psrctl {
    let (count, bytes) = shape(max_frame);
    let size = |nth: usize| if nth <= count { bytes / 1024 } else { 0 } as u8;
    Psrctl::new()
        .with_bsize0((HEADER / 128) as u8)
        .with_bsize1(size(1))
        .with_bsize2(size(2))
        .with_bsize3(size(3))
}

impl<M: Mmio> SplitRing<M> {
    /// A ring with fresh buffers for frames of up to `max_frame` bytes, and the device told of it. The
    /// receiver must be off; [`SplitRing::lend`] is for when it is on.
    pub(super) fn new(
        bar: &M,
        state: &RingState,
        dma: &Arc<dyn DmaSpace>,
        setup: RxSetup,
        max_frame: usize,
    ) -> Result<Self> {
        let len = setup.len;
        let (count, bytes) = shape(max_frame);
        // Descriptors of the longest frame, and buffers of each.
        let holds = count.saturating_mul(bytes).saturating_add(HEADER);
        let most = (LONGEST.checked_div(holds).unwrap_or(0)).saturating_add(1);
        let buffers = count.saturating_add(1);
        let most = most.saturating_mul(buffers);
        let ring = Self {
            bar: bar.clone(),
            state: state.clone(),
            setup,
            descs: DmaArray::alloc(dma, len)?,
            lent: (0..len).map(|_| None).collect(),
            // `len` is a power of two.
            mask: len.wrapping_sub(1),
            head: 0,
            tail: 0,
            // As many again as the ring holds, so that the caller may keep some.
            headers: Pool::new(dma, len.saturating_mul(2), HEADER)?,
            pool: Pool::new(dma, len.saturating_mul(count).saturating_mul(2), bytes)?,
            count,
            join: Join::new(state, most),
        };
        ring.tell_device();
        Ok(ring)
    }

    fn tell_device(&self) {
        let bytes = size_of_val(&*self.descs);
        self.setup.tell(&self.bar, self.descs.iova(0), bytes);
    }

    /// The device was reset: begins anew, with no buffer lent.
    pub(super) fn restart(&mut self) {
        self.lent.fill_with(|| None);
        self.join.restart();
        (self.head, self.tail) = (0, 0);
        self.tell_device();
    }

    /// A descriptor's worth of buffers; `None` where the pools have not that many.
    #[inline]
    fn buffers(&self) -> Option<Lent> {
        let header = self.headers.take()?;
        let mut rest = [const { None }; MOST];
        for buf in &mut rest[..self.count] {
            *buf = Some(self.pool.take()?);
        }
        Some(Lent { header, rest })
    }

    /// Lends the device every buffer that the pools have, up to a full ring that runs: one register write.
    #[inline]
    pub(super) fn lend(&mut self) {
        if !self.state.is_running() {
            return;
        }
        let before = self.tail;
        loop {
            let next = self.after(self.tail);
            if next == self.head {
                break;
            }
            let Some(lent) = self.buffers() else { break };
            let iova = |buf: &Option<DmaBuf>| buf.as_ref().map_or(0, |buf| buf.iova().0);
            let [one, two, three] = &lent.rest;
            let iovas = [lent.header.iova().0, iova(one), iova(two), iova(three)];
            self.descs[self.tail].post(iovas);
            self.lent[self.tail] = Some(lent);
            self.tail = next;
        }
        if self.tail != before {
            // Descriptors before the tail: else the device fills buffers it was not lent.
            dma_wmb();
            self.bar
                .set(self.setup.rdt, (self.tail as u32).wrapping_mul(2));
        }
    }

    /// The descriptor after `index`: round the ring, whose size is a power of two.
    #[inline]
    fn after(&self, index: usize) -> usize {
        index.wrapping_add(1) & self.mask
    }

    /// Has the device filled a descriptor's buffers?
    pub(super) fn is_ready(&self) -> bool {
        self.head != self.tail && self.descs[self.head].take().is_some()
    }

    /// Appends to `into` the frames that are whole, at most `most`; gives how many. Lends nothing.
    ///
    /// # Errors
    /// [`DeviceLied`](crate::Error::DeviceLied) for a length beyond its buffer or a frame that does not
    /// end: the ring is broken then, and those that share its state. [`Stopped`](crate::Error::Stopped).
    #[inline]
    pub(super) fn take(&mut self, into: &mut Vec<Received>, most: usize) -> Result<usize> {
        self.state.check()?;
        let mut count = 0;
        while count < most && self.head != self.tail {
            let index = self.head;
            let Some((status, lengths)) = self.descs[index].take() else {
                break;
            };
            let Some(lent) = self.lent[index].take() else {
                break;
            };
            self.head = self.after(index);
            self.join.add(lent.header, status.length(), index)?;
            let each = [lengths.length1(), lengths.length2(), lengths.length3()];
            for (buf, length) in lent.rest.into_iter().zip(each) {
                if let Some(buf) = buf {
                    self.join.add(buf, length, index)?;
                }
            }
            if let Some(received) = self.setup.end(&mut self.join, status) {
                into.push(received);
                // At most `most`.
                count = count.wrapping_add(1);
            }
        }
        Ok(count)
    }

    /// The pool that the buffers for payload come from.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The device did not stop: what it may go on reaching is undone by [`DmaSpace::quarantine`].
    pub(super) fn quarantine(&mut self) {
        self.headers.quarantine();
        self.pool.quarantine();
        self.descs.quarantine();
    }

    /// The ring, to be shown.
    pub(super) fn view(&self) -> RingView {
        let slots = (0..self.descs.len()).map(|index| {
            let words = self.descs[index].words();
            let lent = self.lent[index].as_ref();
            let header = lent.map(|lent| &lent.header);
            SlotView {
                iova: self.descs.iova(index),
                words: [words[0], words[1]],
                text: describe_split(words),
                owner: match (lent, self.descs[index].take()) {
                    (None, _) => Owner::Driver,
                    (Some(_), None) => Owner::Device,
                    (Some(_), Some(_)) => Owner::Done,
                },
                buffer: header.map(|buf| (buf.iova(), buf.address(), buf.capacity())),
            }
        });
        RingView {
            name: "receive",
            pair: self.setup.pair,
            address: (&raw const self.descs[0]).addr(),
            marks: Marks::Registers {
                head: self.bar.get(self.setup.rdh) / 2,
                tail: self.bar.get(self.setup.rdt) / 2,
            },
            slots: slots.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_fits_behind_its_headers_in_one_descriptor() {
        for (max_frame, psrctl) in [
            (1518, 0x0000_0202),
            (1522, 0x0000_0202),
            (1523, 0x0404_0402),
            (9216, 0x0404_0402),
        ] {
            assert_eq!(sizes(max_frame).into_bits(), psrctl, "{max_frame}");
            let (count, bytes) = shape(max_frame);
            assert!(count * bytes > max_frame + 4);
        }
    }
}

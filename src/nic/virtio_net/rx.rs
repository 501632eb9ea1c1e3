//! The receive queue, §5.1.6.3 and §5.1.6.4.
//!
//! The driver posts buffers with the last 12 bytes of their headroom, where the device
//! puts its header, so that the frame begins where the buffer does. With MRG_RXBUF a long frame lies
//! in several, and the header in the first says in how many; the others have no header, so the frame
//! goes on in their headroom. What the device says is checked before it is believed.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::features as f;
use super::header::{DATA_VALID, HEADER, Header};
use crate::dma::{DmaBuf, DmaSpace, Iova, Pool};
use crate::error::{Error, Result};
use crate::inspect::RingView;
use crate::nic::longest::Longest;
use crate::nic::{Checksum, Frame, Received, RxInfo};
use crate::virtio::{Doorbell, Ring, Sink, Used};

/// Bytes of a receive buffer, where the device may use several for a frame.
pub const BUFFER: usize = 2048;

/// Bytes that the device writes for the shortest frame.
const SHORTEST: u32 = HEADER as u32 + 1;
/// The device found the TCP or UDP checksum right.
const VALID: RxInfo = RxInfo::NONE.with_l4_checksum(Checksum::Good);

/// The receive queue; it owns every buffer that the device may write.
pub(super) struct Rx<R, D> {
    ring: R,
    doorbell: D,
    pool: Pool,
    /// Features.
    negotiated: u64,
    frames: u64,
    bytes: u64,
    errors: u64,
}

impl<R: Ring<DmaBuf>, D: Doorbell> Rx<R, D> {
    /// Makes the queue, with buffers of `capacity` bytes; none is posted yet.
    pub(super) fn new(
        ring: R,
        doorbell: D,
        dma: &Arc<dyn DmaSpace>,
        capacity: usize,
        negotiated: u64,
    ) -> Result<Self> {
        Ok(Self {
            // As many again as the ring holds, so that the caller may keep some.
            pool: Pool::new(dma, ring.size().saturating_mul(2), capacity)?,
            ring,
            doorbell,
            negotiated,
            frames: 0,
            bytes: 0,
            errors: 0,
        })
    }

    /// Lends the device every buffer that the pool has, up to a full ring that runs.
    #[inline]
    pub(super) fn refill(&mut self) {
        if !self.ring.state().is_running() {
            return;
        }
        let len = self.pool.capacity().saturating_add(HEADER) as u32;
        self.ring.refill(len, self.pool.alloc_each(), |buf| {
            Iova(buf.iova().0.wrapping_sub(HEADER as u64))
        });
        if let Some(value) = self.ring.publish() {
            self.doorbell.ring(value);
        }
    }

    /// Appends to `into` the frames that came in, at most `most`; gives how many. Lends nothing.
    #[inline]
    pub(super) fn poll(
        &mut self,
        into: &mut Vec<Received>,
        most: usize,
        longest: &mut Longest,
    ) -> Result<usize> {
        let before = into.len();
        let merge = self.negotiated & f::MRG_RXBUF != 0;
        loop {
            let wanted = most.saturating_sub(into.len().saturating_sub(before));
            let mut coming = Coming {
                size: if merge { self.ring.size() } else { 1 },
                merge,
                negotiated: self.negotiated,
                // The feature as the header's flag.
                valid: if self.negotiated & f::GUEST_CSUM != 0 {
                    DATA_VALID
                } else {
                    0
                },
                untagged: longest.untagged(),
                longest,
                into,
                partial: None,
                violation: None,
                is_plain: true,
                bytes: 0,
                frames: 0,
                errors: 0,
            };
            let mut popped = self.ring.poll_into(wanted, &mut coming);
            // The device makes the buffers of a frame used together (§5.1.6.4), so they are there.
            while popped.is_ok()
                && let Some(partial) = &coming.partial
            {
                let (came, of) = (partial.came, partial.of);
                match self.ring.poll() {
                    Ok(Some(used)) => coming.take(used),
                    Ok(None) => {
                        let what = format!("a frame in {of} buffers, of which {came} came");
                        popped = Err(self.mark_broken(what));
                    }
                    Err(error) => popped = Err(error),
                }
            }
            for (count, more) in [
                (&mut self.bytes, coming.bytes),
                (&mut self.frames, coming.frames),
                (&mut self.errors, coming.errors),
            ] {
                *count = count.wrapping_add(more);
            }
            if let Some(violation) = coming.violation {
                return Err(self.mark_broken(violation));
            }
            // Frames of several buffers, or that were dropped, leave room for more.
            let came = into.len().saturating_sub(before);
            if popped? == 0 || came == most {
                return Ok(came);
            }
        }
    }

    #[cold]
    fn mark_broken(&mut self, what: String) -> Error {
        let error = self.ring.state().mark_broken(what);
        self.ring.stop();
        error
    }

    /// The device is stopped: nothing goes in or comes out until [`Rx::reset`].
    pub(super) fn stop(&mut self) {
        self.ring.stop();
    }

    /// Returns whether something has come in.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        self.ring.is_ready()
    }

    pub(super) fn arm(&mut self) -> bool {
        self.ring.arm()
    }

    pub(super) fn disarm(&mut self) {
        self.ring.disarm();
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Frames, bytes and errors.
    pub(super) fn counted(&self) -> (u64, u64, u64) {
        (self.frames, self.bytes, self.errors)
    }

    /// The device was reset: the buffers go back to the pool.
    pub(super) fn reset(&mut self) {
        drop(self.ring.reset());
    }

    pub(super) fn ring(&self) -> &R {
        &self.ring
    }

    pub(super) fn set_doorbell(&mut self, doorbell: D) {
        self.doorbell = doorbell;
    }

    /// The device did not stop: see [`Ring::quarantine`].
    pub(super) fn quarantine(&mut self) {
        self.pool.quarantine();
        self.ring.quarantine(drop);
    }

    /// The ring, to be shown.
    pub(super) fn view(&self, pair: usize) -> RingView {
        RingView {
            name: "receive",
            pair,
            address: self.ring.address(),
            indices: self.ring.indices(),
            slots: self.ring.slots(|buf, iova| {
                let address = buf.address().wrapping_sub(HEADER);
                Some((iova, address, buf.capacity().saturating_add(HEADER)))
            }),
        }
    }
}

/// Frames on their way from the ring to the caller.
struct Coming<'a> {
    /// Buffers that a frame can have.
    size: usize,
    merge: bool,
    negotiated: u64,
    /// The header's flag that says of a checksum that it is right, where the device may say so.
    valid: u8,
    /// Frames up to here are admitted without a question to `longest`.
    untagged: usize,
    longest: &'a mut Longest,
    into: &'a mut Vec<Received>,
    partial: Option<Partial>,
    violation: Option<String>,
    /// Neither of the two is there.
    is_plain: bool,
    bytes: u64,
    frames: u64,
    errors: u64,
}

/// A frame that goes on in the next buffer.
struct Partial {
    received: Received,
    /// The header as it was when its first buffer came: the device may write it still.
    header: Header,
    /// Number of its buffers that came, and of all of them.
    came: u16,
    of: u16,
}

impl Sink<DmaBuf> for Coming<'_> {
    #[inline(never)] // not the rule
    fn take(&mut self, used: Used<DmaBuf>) {
        self.add(used.token, used.written as usize);
    }

    /// Frames that are not empty and not longer than any that is taken; none while one goes on in the next
    /// buffer.
    #[inline(always)] // the ring's loop
    fn lengths(&self) -> RangeInclusive<u32> {
        let longest = u32::try_from(self.untagged.saturating_add(HEADER)).unwrap_or(u32::MAX);
        match self.is_plain {
            true => SHORTEST..=longest,
            false => RangeInclusive::new(1, 0),
        }
    }

    /// In one buffer, with nothing to be done to it.
    #[inline(always)] // the ring's loop
    fn accept(&mut self, buf: &mut DmaBuf, written: u32) -> bool {
        if !Header::asks_nothing(buf) {
            return false;
        }
        // More than a header.
        let len = written.wrapping_sub(HEADER as u32);
        buf.set_len(len as usize);
        self.bytes = self.bytes.wrapping_add(len.into());
        true
    }

    #[inline(always)] // the ring's loop
    fn take_all(&mut self, bufs: impl Iterator<Item = DmaBuf>) {
        let (before, valid) = (self.into.len(), self.valid);
        match valid {
            0 => self.into.extend(bufs.map(|buf| Received {
                frame: Frame::from(buf),
                info: RxInfo::NONE,
            })),
            _ => self.into.extend(bufs.map(|buf| {
                // Read once more, for what it says of the checksum alone.
                let [flags, ..] = buf.headroom::<HEADER>();
                Received {
                    frame: Frame::from(buf),
                    info: if flags & valid == 0 {
                        RxInfo::NONE
                    } else {
                        VALID
                    },
                }
            })),
        }
        let frames = self.into.len().saturating_sub(before);
        self.frames = self.frames.wrapping_add(frames as u64);
    }
}

impl Coming<'_> {
    /// One more buffer, whatever it brings.
    #[inline(never)] // not the rule
    fn add(&mut self, mut buf: DmaBuf, written: usize) {
        if self.partial.is_some() {
            return self.join(buf, written);
        }
        let header = Header::from_bytes(buf.headroom());
        let Some(len @ 1..) = written.checked_sub(HEADER) else {
            return self.refuse(format!(
                "a frame of {written} bytes with its header of {HEADER}"
            ));
        };
        buf.set_len(len);
        let received = Received {
            frame: Frame::from(buf),
            info: RxInfo::NONE,
        };
        if self.merge && header.num_buffers != 1 {
            return self.begin(received, header);
        }
        self.bytes = self.bytes.wrapping_add(len as u64);
        self.finish(received, header);
    }

    /// A frame of several buffers, of which this is the first.
    #[cold]
    fn begin(&mut self, received: Received, header: Header) {
        let buffers = header.num_buffers;
        if buffers == 0 || usize::from(buffers) > self.size {
            let size = self.size;
            return self.refuse(format!(
                "a frame in {buffers} buffers, of a queue of {size}"
            ));
        }
        if self.violation.is_none() {
            self.is_plain = false;
            self.partial = Some(Partial {
                received,
                header,
                came: 1,
                of: buffers,
            });
        }
    }

    /// The next buffer of a frame: it has no header, so the frame goes on in its headroom.
    #[cold]
    fn join(&mut self, mut buf: DmaBuf, written: usize) {
        let Some(mut partial) = self.partial.take() else {
            return;
        };
        if written == 0 {
            let Partial { came, of, .. } = partial;
            return self.refuse(format!("an empty buffer, {came} of {of} of a frame"));
        }
        buf.prepend(HEADER);
        buf.set_len(written);
        partial.received.frame.append(buf);
        partial.came = partial.came.saturating_add(1);
        if partial.came < partial.of {
            self.partial = Some(partial);
            return;
        }
        let Partial {
            received, header, ..
        } = partial;
        self.is_plain = self.violation.is_none();
        self.bytes = self.bytes.wrapping_add(received.frame.len() as u64);
        self.finish(received, header);
    }

    /// The frame is whole: what its header says of it.
    fn finish(&mut self, mut received: Received, header: Header) {
        self.frames = self.frames.wrapping_add(1);
        if !header.is_plain() {
            let Some(offload) = header.offload(&received.frame, self.negotiated) else {
                // What is to be done to it cannot be, so nobody could use it.
                self.errors = self.errors.wrapping_add(1);
                return;
            };
            received.frame.set_offload(offload);
        }
        if header.is_valid() && self.negotiated & f::GUEST_CSUM != 0 {
            received.info = received.info.with_l4_checksum(Checksum::Good);
        }
        if self.violation.is_none() && self.longest.admits(received.frame.len(), None) {
            self.into.push(received);
        }
    }

    /// Keeps the device's first violation of the protocol; nothing more is believed.
    #[cold]
    fn refuse(&mut self, what: String) {
        self.is_plain = false;
        self.violation.get_or_insert(what);
    }
}

//! The transmit queue, §5.1.6.2.
//!
//! A frame goes out with its header right before it, in the headroom of its first buffer: a plain
//! frame is one descriptor. A frame whose first segment has no headroom left (a slice of a file, a buffer
//! that begins early) gets a header in a buffer of the queue's own, as its first segment: so what the ring
//! keeps of a frame is one word. From submission to completion a frame belongs to the ring.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "of lengths of our own, which are bounded before; the device wrote none of them"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::features as f;
use super::header::{HEADER, Header};
use crate::dma::{DmaBuf, DmaSpace, Pool, Segment, SpaceId};
use crate::error::{Error, Result};
use crate::inspect::RingView;
use crate::nic::checksum::{least_headers, sum_ipv4, sum_pseudo};
use crate::nic::front::Front;
use crate::nic::{Frame, Mac, NO_IPV6_CHECKSUM, Offload, OffloadFlags, foreign_memory};
use crate::virtio::{Doorbell, Piece, Ring, Sink, Used};

/// Shortest frame that is sent, in bytes: an Ethernet header.
pub const MIN_FRAME: usize = 14;
/// Longest frame where the device does not say ([`MTU`](super::features::MTU)): the specification
/// names no bound, and links with longer frames are not made.
pub const MAX_FRAME: usize = 16_384;
/// Longest frame to be cut by the device: the lengths in IP headers have 16 bits.
const MAX_GSO: usize = 65_535;
/// Bytes of a VLAN tag, which do not count for the MTU.
pub(super) const TAG: usize = 4;
/// Looks that found nothing, between two looks at the clock.
const LOOKS: u32 = 64;
/// A device that does nothing for so long may be asleep.
const ASLEEP: Duration = Duration::from_millis(100);

/// Bytes of the frame that tells the network where the card is: Ethernet and reverse ARP.
const ANNOUNCEMENT: usize = 14 + 28;

/// The transmit queue; it owns every frame that was submitted and not yet returned.
pub(super) struct Tx<R, D> {
    ring: R,
    doorbell: D,
    device: String,
    /// Buffers of its own: for headers, and for announcements. None of them ever leaves the queue.
    headers: Pool,
    /// Those of them in flight. While there are none, a frame comes back as it went in.
    headers_out: usize,
    /// The space that the device's IOVAs belong to.
    space: SpaceId,
    /// Features.
    negotiated: u64,
    /// Longest frame without a VLAN tag, in bytes.
    max_frame: usize,
    /// Used again for each frame of several segments.
    pieces: Vec<Piece>,
    frames: u64,
    bytes: u64,
    /// Looks that found nothing while frames were in flight, and since when.
    looks: u32,
    since: Option<Instant>,
}

impl<R: Ring<Frame>, D: Doorbell> Tx<R, D> {
    pub(super) fn new(
        ring: R,
        doorbell: D,
        device: &str,
        dma: &Arc<dyn DmaSpace>,
        negotiated: u64,
        max_frame: usize,
    ) -> Result<Self> {
        Ok(Self {
            headers: Pool::new(dma, ring.size(), HEADER + ANNOUNCEMENT)?,
            headers_out: 0,
            space: dma.id(),
            pieces: Vec::with_capacity(ring.size()),
            ring,
            doorbell,
            device: device.to_owned(),
            negotiated,
            max_frame,
            frames: 0,
            bytes: 0,
            looks: 0,
            since: None,
        })
    }

    /// Moves frames from the front of `frames` into the ring, as many as there is room for. All that can
    /// go wrong with a frame does so while it is in the batch still: what moves it into the ring cannot
    /// fail.
    pub(super) fn submit(&mut self, frames: &mut Vec<Frame>) -> Result<usize> {
        self.ring.state().check()?;
        let mut posted = self.submit_plain(frames);
        if frames.is_empty() || self.ring.room() == 0 {
            return Ok(posted);
        }
        let mut front = Front::of(frames);
        while let Some(frame) = front.first()
            && let Some(header) = self.lay_out(frame)?
        {
            let Some(frame) = front.take() else { break };
            let frame = match header {
                Some(header) => {
                    self.headers_out += 1;
                    frame.prepend(header)
                }
                None => frame,
            };
            let pushed = self.ring.submit(&self.pieces, self.pieces.len(), frame);
            debug_assert!(pushed.is_ok(), "there was room");
            posted += 1;
        }
        Ok(posted)
    }

    /// Posts all [`plain`] frames at the front, as [`Tx::submit`] does.
    #[inline]
    fn submit_plain(&mut self, frames: &mut Vec<Frame>) -> usize {
        let (space, max) = (self.space, self.max_frame);
        self.ring.submit_front(frames, |frame| {
            if !plain(frame, space, max) {
                return None;
            }
            // A frame that begins in its headroom has no room for a header, and is not plain.
            let first = frame.first_mut();
            let len = (first.len() + HEADER) as u32;
            let iova = first.put_header([0; HEADER])?;
            Some(Piece { iova, len })
        })
    }

    /// Writes the header of any frame and puts its chain into `self.pieces`; gives the buffer that the
    /// header lies in, where the frame has no room for it. `None`: the ring has no room now.
    ///
    /// # Errors
    /// A frame that the device cannot send.
    fn lay_out(&mut self, frame: &mut Frame) -> Result<Option<Option<DmaBuf>>> {
        if self.ring.room() == 0 {
            return Ok(None);
        }
        self.check(frame)?;
        let needs = self.ring.needs(pieces_of(frame));
        if needs > self.ring.size() {
            return Err(self.not_offered(format!(
                "send a frame of {needs} descriptors: the ring has {}",
                self.ring.size()
            )));
        }
        if needs > self.ring.room() {
            return Ok(None);
        }
        self.finish(frame);
        let bytes = Header::of(frame.offload()).to_bytes();
        let first = frame.first_mut();
        let (iova, len) = (first.iova(), first.len() as u32);
        self.pieces.clear();
        let mut header = None;
        if let Some(iova) = first.put_header(bytes) {
            let len = len + HEADER as u32;
            self.pieces.push(Piece { iova, len });
        } else {
            // One for each descriptor, so there is one at hand.
            let Some(mut buf) = self.headers.alloc() else {
                return Ok(None);
            };
            buf.fill(&bytes);
            self.pieces.push(Piece {
                iova: buf.iova(),
                len: HEADER as u32,
            });
            if len > 0 {
                self.pieces.push(Piece { iova, len });
            }
            header = Some(buf);
        }
        self.pieces.extend(rest_of(frame).map(|segment| Piece {
            iova: segment.iova(),
            len: segment.len() as u32,
        }));
        Ok(Some(header))
    }

    /// Tells the network where the card is; `false` where there is no room now. A reverse ARP request
    /// (RFC 903) for our own address: switches learn from its source, and it needs no IP address.
    pub(super) fn announce(&mut self, Mac(mac): Mac) -> bool {
        let Some(mut buf) = self.headers.alloc().filter(|_| self.ring.room() > 0) else {
            return false;
        };
        let mut bytes = [0; HEADER + ANNOUNCEMENT];
        let frame = &mut bytes[HEADER..];
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&mac);
        // EtherType; Ethernet and IPv4, their addresses of 6 and 4 bytes, request reverse.
        frame[12..22].copy_from_slice(&[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        frame[22..28].copy_from_slice(&mac);
        frame[32..38].copy_from_slice(&mac);
        buf.fill(&bytes);
        let piece = Piece {
            iova: buf.iova(),
            len: buf.len() as u32,
        };
        let is_pushed = self.ring.submit(&[piece], 1, Frame::from(buf)).is_ok();
        self.headers_out += usize::from(is_pushed);
        is_pushed && self.doorbell().is_ok()
    }

    /// Makes the checksums that the device wants in the headers of a frame that it shall work on; [`Tx::check`] saw
    /// that it can be done.
    fn finish(&self, frame: &mut Frame) {
        let offload = frame.offload();
        let length = frame.len();
        if offload.flags.contains(OffloadFlags::IP_CHECKSUM) {
            sum_ipv4(frame.first_mut(), offload.l2_len, offload.l3_len);
        }
        if is_cut(offload) {
            let before = usize::from(offload.l2_len) + usize::from(offload.l3_len);
            sum_pseudo(frame.first_mut(), offload, length - before);
        }
    }

    /// Checks that the device can send this at all.
    fn check(&self, frame: &Frame) -> Result<()> {
        if !frame.is_within(self.space) {
            return Err(foreign_memory(&self.device));
        }
        let (offload, length) = (frame.offload(), frame.len());
        let flags = offload.flags;
        let offers = self.offers(flags.contains(OffloadFlags::IPV6));
        let missing = flags - offers - OffloadFlags::IPV6;
        if !missing.is_empty() {
            return Err(self.not_offered(format!(
                "do {missing:?} to such a frame: it offers {offers:?}\n  QEMU offers checksums and \
                 segmentation where the other end takes them: a tap, vhost-user"
            )));
        }
        if flags.contains(OffloadFlags::IPV6 | OffloadFlags::IP_CHECKSUM) {
            return Err(self.not_offered(NO_IPV6_CHECKSUM.into()));
        }
        let before = usize::from(offload.l2_len) + usize::from(offload.l3_len);
        let headers = before + usize::from(offload.l4_len);
        let first_has = |bytes: usize| bytes > 0 && frame.first().array::<1>(bytes - 1).is_some();
        if !flags.is_empty() && (offload.l2_len == 0 || headers > length || !first_has(before)) {
            return Err(self.not_offered(format!(
                "work on {headers} bytes of headers of a frame of {length}, of which its first buffer has {}",
                frame.first().len()
            )));
        }
        if flags.contains(OffloadFlags::IP_CHECKSUM)
            && (offload.l3_len < 20 || !offload.l3_len.is_multiple_of(4))
        {
            return Err(self.not_offered(format!("checksum an IPv4 header of {}", offload.l3_len)));
        }
        if is_cut(offload) {
            return self.check_cut(frame, offload, headers);
        }
        let longest = self.longest(frame);
        if !(MIN_FRAME..=longest).contains(&length) {
            return Err(self.bad_length(length, MIN_FRAME, longest));
        }
        Ok(())
    }

    /// Returns the offloads that the device does to a frame over IPv6, or else over IPv4: TCP is cut by a feature for
    /// each.
    fn offers(&self, ipv6: bool) -> OffloadFlags {
        let other = if ipv6 { f::HOST_TSO4 } else { f::HOST_TSO6 };
        f::offloads(self.negotiated & !other)
    }

    /// The longest that `frame` may be.
    fn longest(&self, frame: &Frame) -> usize {
        let ethertype = frame.first().array(12).map(u16::from_be_bytes);
        let is_tagged = matches!(ethertype, Some(0x8100 | 0x88a8));
        self.max_frame + if is_tagged { TAG } else { 0 }
    }

    /// Checks that the device can cut this.
    fn check_cut(&self, frame: &Frame, offload: Offload, headers: usize) -> Result<()> {
        let flags = offload.flags;
        let (length, l4_len) = (frame.len(), offload.l4_len);
        let sum = match flags.contains(OffloadFlags::TSO) {
            true => OffloadFlags::TCP_CHECKSUM,
            false => OffloadFlags::UDP_CHECKSUM,
        };
        let fits = headers > 0 && frame.first().array::<1>(headers - 1).is_some();
        let (least_l3, least_l4) = least_headers(flags);
        let whole = offload.l3_len >= least_l3 && l4_len >= least_l4;
        if offload.mss == 0 || !flags.contains(sum) || !whole || !fits {
            return Err(self.not_offered(format!(
                "cut a frame with an mss of {}, {} bytes of IP header, {l4_len} of TCP or UDP header and \
                 {flags:?}: it takes at least 1, {least_l3} and {least_l4}, all headers in the first buffer, and \
                 {sum:?}",
                offload.mss, offload.l3_len
            )));
        }
        if length <= headers || length > MAX_GSO {
            return Err(self.bad_length(length, headers + 1, MAX_GSO));
        }
        let (piece, longest) = (headers + usize::from(offload.mss), self.longest(frame));
        if piece > longest {
            return Err(self.bad_length(piece, headers + 1, longest));
        }
        Ok(())
    }

    #[cold]
    fn bad_length(&self, length: usize, min: usize, max: usize) -> Error {
        Error::FrameLength {
            device: self.device.clone(),
            length,
            min,
            max,
            remedy: "cut it into shorter packets, or pad it",
        }
    }

    #[cold]
    fn not_offered(&self, what: String) -> Error {
        Error::NotOffered {
            device: self.device.clone(),
            what,
        }
    }

    /// Shows the device everything that was pushed, and tells it where it wants to be told.
    #[inline]
    pub(super) fn doorbell(&mut self) -> Result<()> {
        self.ring.state().check()?;
        if let Some(value) = self.ring.publish() {
            self.doorbell.ring(value);
        }
        Ok(())
    }

    /// The device is stopped: nothing goes in or comes out until [`Tx::reset`].
    pub(super) fn stop(&mut self) {
        self.ring.stop();
    }

    /// Appends to `done` the frames that the device is through with; gives how many.
    #[inline]
    pub(super) fn completed(&mut self, done: &mut Vec<Frame>) -> Result<usize> {
        let before = done.len();
        let mut completed = Completed {
            bytes: 0,
            done,
            headers: &self.headers,
            headers_out: &mut self.headers_out,
        };
        let polled = self.ring.poll_into(usize::MAX, &mut completed);
        self.bytes += completed.bytes as u64;
        let count = done.len() - before;
        self.frames += count as u64;
        match polled? {
            0 if self.in_flight() > 0 => self.found_nothing(),
            _ => (self.looks, self.since) = (0, None),
        }
        Ok(count)
    }

    /// Tells a device that has done nothing for long once more of what it has, whether it wants to be told
    /// or not: QEMU (7.2) spoils a packed queue as it drops what is in it, which it does while its link is
    /// down, and sleeps on; told, it finds that out and says so (DEVICE_NEEDS_RESET). The clock is looked
    /// at rarely, since in a VM that may be a system call.
    #[inline]
    fn found_nothing(&mut self) {
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(LOOKS)
            && self.since.get_or_insert_with(Instant::now).elapsed() > ASLEEP
        {
            self.since = None;
            self.doorbell.ring(self.ring.reminder());
        }
    }

    #[inline]
    pub(super) fn in_flight(&self) -> usize {
        self.ring.in_flight()
    }

    /// Returns whether the device is through with a frame that was not taken back.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        self.ring.is_ready()
    }

    /// Wants an interrupt where frames are in flight; `true`: one is back already.
    pub(super) fn arm(&mut self) -> bool {
        self.ring.in_flight() > 0 && self.ring.arm()
    }

    pub(super) fn disarm(&mut self) {
        self.ring.disarm();
    }

    /// Frames and bytes that were sent.
    pub(super) fn counted(&self) -> (u64, u64) {
        (self.frames, self.bytes)
    }

    /// The device was reset, and has the queue again as `doorbell`: gives back what was in flight.
    pub(super) fn reset(&mut self) -> Vec<Frame> {
        self.headers_out = 0;
        let sent = self.ring.reset().into_iter();
        sent.filter_map(|frame| without_header(frame, &self.headers))
            .collect()
    }

    pub(super) fn ring(&self) -> &R {
        &self.ring
    }

    pub(super) fn set_doorbell(&mut self, doorbell: D) {
        self.doorbell = doorbell;
    }

    /// The device did not stop: see [`Ring::quarantine`].
    pub(super) fn quarantine(&mut self) {
        self.headers.quarantine();
        self.ring.quarantine(Frame::quarantine);
    }

    /// The device's own speed, see [`Ring::limit`].
    pub(super) fn limit(
        &mut self,
        frame: &mut Frame,
        batch: usize,
        frames: u64,
        stuck: Duration,
    ) -> Result<()> {
        self.ring.state().check()?;
        let size = self.ring.size();
        if self.in_flight() > 0 || !batch.is_power_of_two() || batch > size / 2 {
            return Err(Error::Usage(format!(
                "a batch of {batch} does not go with a ring of {size}: \
                 it must be a power of two, at most half of the ring, which must be empty"
            )));
        }
        let first = frame.first_mut();
        let len = (first.len() + HEADER) as u32;
        let iova = first.put_header([0; HEADER]).expect("a buffer of a pool");
        let doorbell = &self.doorbell;
        let piece = Piece { iova, len };
        let done = self
            .ring
            .limit(piece, batch as u16, frames, stuck, |value| {
                doorbell.ring(value)
            });
        if done {
            return Ok(());
        }
        Err(Error::Timeout {
            device: self.device.clone(),
            what: "the device's use of a buffer",
            bound: stuck,
            remedy: "is its link up, and does its peer take frames?",
        })
    }

    /// The ring, to be shown.
    pub(super) fn view(&self, pair: usize) -> RingView {
        RingView {
            name: "transmit",
            pair,
            address: self.ring.address(),
            indices: self.ring.indices(),
            slots: self.ring.slots(|frame, iova| {
                frame.segments().find_map(|part| {
                    let before = (part.iova().0).checked_sub(iova.0)? as usize;
                    // With its header before it, or without.
                    let found = before == 0 || before == HEADER;
                    found.then(|| (iova, part.address() - before, part.len() + before))
                })
            }),
        }
    }
}

/// Frames on their way from the ring to the caller.
struct Completed<'a> {
    bytes: usize,
    done: &'a mut Vec<Frame>,
    headers: &'a Pool,
    /// [`Tx::headers_out`].
    headers_out: &'a mut usize,
}

impl Sink<Frame> for Completed<'_> {
    #[inline(never)] // not the rule
    fn take(&mut self, used: Used<Frame>) {
        if is_of(used.token.first(), self.headers) {
            *self.headers_out -= 1;
        }
        if let Some(frame) = without_header(used.token, self.headers) {
            self.bytes += frame.len();
            self.done.push(frame);
        }
    }

    #[inline(always)] // the ring's loop
    fn take_all(&mut self, frames: impl Iterator<Item = Frame>) {
        if *self.headers_out > 0 {
            let used = frames.map(|token| Used { token, written: 0 });
            return used.for_each(|used| self.take(used));
        }
        let bytes = &mut self.bytes;
        #[allow(
            clippy::manual_inspect,
            reason = "a map says how many there are, an inspection does not"
        )]
        self.done.extend(frames.map(|frame| {
            *bytes += frame.len();
            frame
        }));
    }
}

/// Returns whether the device is to cut the frame.
fn is_cut(offload: Offload) -> bool {
    let cut = OffloadFlags::TSO | OffloadFlags::USO;
    offload.flags.intersects(cut)
}

/// One buffer of a pool in the queue's space, of a length that the device takes, with nothing to do to it.
#[inline]
fn plain(frame: &Frame, space: SpaceId, max: usize) -> bool {
    let Some(segment) = frame.plain(space) else {
        return false;
    };
    // One comparison for both bounds: what is shorter wraps round.
    segment.is_buffer() && segment.len().wrapping_sub(MIN_FRAME) <= max.saturating_sub(MIN_FRAME)
}

/// The frame as its sender gave it: without the header that [`Tx::submit`] put before it in a buffer of
/// `headers`. `None` for an announcement, which nobody gave.
fn without_header(frame: Frame, headers: &Pool) -> Option<Frame> {
    if !is_of(frame.first(), headers) {
        return Some(frame);
    }
    frame.split_first().1
}

/// Returns whether a segment is a buffer of `pool`.
fn is_of(segment: &Segment, pool: &Pool) -> bool {
    let memory = pool.mapping();
    segment.space() == pool.space()
        && (segment.iova().0)
            .checked_sub(memory.iova.0)
            .is_some_and(|past| past < memory.len as u64)
}

/// Returns the segments after the first; no descriptor is of length 0.
fn rest_of(frame: &Frame) -> impl Iterator<Item = &Segment> {
    frame.segments().skip(1).filter(|segment| segment.len() > 0)
}

/// Returns the number of pieces that the frame is in, with its header.
fn pieces_of(frame: &Frame) -> usize {
    let first = frame.first();
    let apart = first.headroom::<HEADER>().is_none() && first.len() > 0;
    1 + usize::from(apart) + rest_of(frame).count()
}

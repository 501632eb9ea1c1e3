//! The transmit ring, the same on all of Intel's cards here: §3.3 and §3.4 of the 8254x manual.
//!
//! The driver fills descriptors at `tail` and rings the doorbell (TDT) once a batch; the device
//! works from its head (TDH) to the tail. From submission to completion a frame belongs to the ring, which is
//! what keeps everybody's hands off memory that the device reads. RS is set on the last descriptor
//! of a batch only, so one write-back by the device tells of all of them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::cut::{Cut, HeaderSlot, Zeros, high_end};
use super::desc::{ContextOffsets, ContextTx, DataTx, LegacyTx, TxDesc, describe_tx};
use super::quirks::{SHORTEST_ON_THE_WIRE, TxQuirks};
use crate::barrier::dma_wmb;
use crate::dma::{DmaArray, DmaSpace, Segment, SpaceId};
use crate::error::{Error, Result};
use crate::inspect::{Owner, RingIndices, RingView, SlotView};
use crate::mmio::{Mmio, ReadWrite, Reg};
use crate::nic::checksum::{IPV4_CSUM, TCP_CSUM, UDP_CSUM, clear_ipv4, least_headers, sum_pseudo};
use crate::nic::front::Front;
use crate::nic::{Frame, NO_IPV6_CHECKSUM, Offload, OffloadFlags, foreign_memory};
use crate::ring_state::RingState;
use crate::wait::poll_until;

/// Shortest packet that the device takes and pads, in bytes, §3.3.3.
pub const MIN_FRAME: usize = 17;
/// Longest buffer that a legacy descriptor takes, in bytes, §3.3.3.
pub(in crate::nic) const MAX_BUFFER: usize = 16_288;
/// Longest payload of one segmentation that a descriptor can say: PAYLEN has 20 bits, §3.3.6.
pub(in crate::nic) const MAX_PAYLEN: usize = (1 << 20) - 1;

/// Bound of a descriptor while nothing holds the device up.
const STUCK: Duration = Duration::from_secs(2);

/// Registers of one transmit queue.
#[derive(Debug, Clone, Copy)]
pub(in crate::nic) struct TxRegs {
    pub tdbal: Reg<u32, ReadWrite>,
    pub tdbah: Reg<u32, ReadWrite>,
    pub tdlen: Reg<u32, ReadWrite>,
    pub tdh: Reg<u32, ReadWrite>,
    pub tdt: Reg<u32, ReadWrite>,
}

/// Differences between cards and between queues.
#[derive(Debug, Clone, Copy)]
pub(in crate::nic) struct TxSetup {
    pub regs: TxRegs,
    /// Queue pair that it is a part of, from 0.
    pub pair: usize,
    /// Descriptors: a power of two, 8 to 4096.
    pub len: usize,
    /// Shortest frame, in bytes.
    pub min_frame: usize,
    /// Longest frame, in bytes; at most [`MAX_BUFFER`].
    pub max_frame: usize,
    /// Longest payload that is cut into segments, in bytes; at most [`MAX_PAYLEN`].
    pub max_payload: usize,
    /// A descriptor's buffer stays within one page of memory.
    pub within_page: bool,
    /// True if the queue remembers the context (the places of the checksums) from one frame to the next.
    pub keeps_context: bool,
    /// True if tags may be inserted.
    pub vlan: bool,
    /// True if it cuts TCP over IPv6, too.
    pub cuts_ipv6: bool,
    /// The space that the device's IOVAs belong to.
    pub space: SpaceId,
    /// Quirks of the chip's descriptors.
    pub quirks: TxQuirks,
}

impl TxSetup {
    /// Longest frame that may go as it lies, in one legacy descriptor; 0 where none may.
    fn longest_plain(&self) -> usize {
        match self.quirks.ends_high {
            // `Quirks::pcix_end`: where each ends must be looked at.
            true => 0,
            // `Quirks::pcix_first`
            false => self.max_frame.min(self.quirks.first),
        }
    }
}

/// A frame that was not taken, with the reason; it is given back.
#[derive(Debug)]
pub enum SubmitError {
    /// The ring has no room: ring the doorbell, take what is completed, try again.
    Full(Frame),
    /// The device cannot send such a frame, or is stopped.
    Refused(Frame, Error),
}

/// A card's transmit ring, for programs that want no batch between themselves and it.
///
/// It is borrowed, and cannot be reached but through this: so it stays with the card that works on it,
/// and goes when that is stopped. Swapping two of these swaps who is spoken to, and no ring.
pub struct TxRing<'a, M>(&'a mut Tx<M>);

impl<'a, M: Mmio> TxRing<'a, M> {
    pub(in crate::nic) fn new(ring: &'a mut Tx<M>) -> Self {
        Self(ring)
    }

    /// Moves `frame` into the ring. The device does not look before [`TxRing::doorbell`].
    ///
    /// # Errors
    /// The frame again, where the ring is full or stopped, or the device cannot send it.
    #[inline]
    pub fn submit(&mut self, frame: Frame) -> Result<(), SubmitError> {
        if let Err(error) = self.0.state.check() {
            return Err(SubmitError::Refused(frame, error));
        }
        self.0.push(frame)
    }

    /// Hands everything that was pushed to the device: one register write.
    ///
    /// # Errors
    /// If the ring is stopped, or the device broke the protocol.
    #[inline]
    pub fn doorbell(&mut self) -> Result<()> {
        self.0.doorbell()
    }

    /// Appends to `done` the frames that the device is through with; gives how many.
    ///
    /// # Errors
    /// As [`TxRing::doorbell`].
    #[inline]
    pub fn completed(&mut self, done: &mut Vec<Frame>) -> Result<usize> {
        self.0.completed(done)
    }

    /// Descriptors that can be filled: one stays empty, since head == tail means an empty ring.
    #[inline]
    pub fn room(&self) -> usize {
        self.0.room()
    }

    /// Frames submitted and not yet returned as completed.
    #[inline]
    pub fn in_flight(&self) -> usize {
        self.0.in_flight()
    }
}

/// The transmit ring; it owns every frame that was submitted and not yet returned.
pub(in crate::nic) struct Tx<M> {
    bar: M,
    device: String,
    state: RingState,
    descs: DmaArray<TxDesc>,
    /// A frame sits at its last descriptor.
    frames: Box<[Option<Frame>]>,
    mask: usize,
    /// Oldest descriptor not taken back.
    head: usize,
    /// Next to fill.
    tail: usize,
    /// The tail that the device knows.
    rung: usize,
    /// Descriptors with RS that the device has not been seen to write back, oldest first.
    reports: VecDeque<usize>,
    /// The context that the device holds for frames without segmentation.
    context: Offload,
    in_flight: usize,
    /// Longest frame that goes as it lies, now: [`TxSetup::longest_plain`], or 0 after a frame that the card
    /// cuts ([`TxQuirks::early_report_after`]). So the one comparison of the fast path does for
    /// every erratum.
    plain_max: usize,
    /// The last frame was one that the card cuts.
    after_tso: bool,
    /// Padding of short frames ([`TxQuirks::pads_badly`]); nobody ever writes it.
    zeros: Option<DmaArray<Zeros>>,
    /// For the headers that start at each descriptor ([`TxQuirks::ends_high`]).
    headers: Option<DmaArray<HeaderSlot>>,
    setup: TxSetup,
}

impl<M: Mmio> Tx<M> {
    /// A ring, and the device told of it: §14.5. The transmitter must be off. Descriptors are written back,
    /// so they lie as `writes_within` ([`Quirks`](super::quirks::Quirks)) says.
    pub(in crate::nic) fn new(
        bar: &M,
        device: &str,
        dma: &Arc<dyn DmaSpace>,
        state: &RingState,
        setup: TxSetup,
        writes_within: Option<usize>,
    ) -> Result<Self> {
        assert!(setup.max_frame <= MAX_BUFFER && setup.max_payload <= MAX_PAYLEN);
        let len = setup.len;
        let ring = Self {
            bar: bar.clone(),
            device: device.to_owned(),
            state: state.clone(),
            // `Quirks::writes_within` (82545EM, erratum 23): DD is written back.
            descs: DmaArray::alloc_within(dma, len, writes_within)?,
            frames: (0..len).map(|_| None).collect(),
            // `len` is a power of two.
            mask: len.wrapping_sub(1),
            head: 0,
            tail: 0,
            rung: 0,
            reports: VecDeque::with_capacity(len),
            context: Offload::NONE,
            in_flight: 0,
            plain_max: setup.longest_plain(),
            after_tso: false,
            zeros: match setup.quirks.pads_badly {
                true => Some(DmaArray::alloc(dma, 1)?),
                false => None,
            },
            headers: match setup.quirks.ends_high {
                true => Some(DmaArray::alloc(dma, len)?),
                false => None,
            },
            setup,
        };
        ring.tell_device();
        Ok(ring)
    }

    fn tell_device(&self) {
        let regs = self.setup.regs;
        let base = self.descs.iova(0).0;
        let bytes = size_of_val(&*self.descs);
        self.bar.set(regs.tdbal, base as u32);
        self.bar.set(regs.tdbah, (base >> 32) as u32);
        self.bar.set(regs.tdlen, bytes as u32);
        self.bar.set(regs.tdh, 0);
        self.bar.set(regs.tdt, 0);
    }

    /// The device was reset: begins anew with an empty ring. Gives back the frames in flight.
    pub(in crate::nic) fn restart(&mut self) -> Vec<Frame> {
        self.frames.rotate_left(self.head);
        let in_flight = self.frames.iter_mut().filter_map(Option::take).collect();
        for desc in self.descs.iter() {
            desc.write(0, 0);
        }
        (self.head, self.tail, self.rung, self.in_flight) = (0, 0, 0, 0);
        self.reports.clear();
        self.context = Offload::NONE;
        self.followed_by_any();
        self.tell_device();
        in_flight
    }

    /// Returns whether the device is through with a frame that was not returned.
    #[inline]
    pub(in crate::nic) fn is_ready(&self) -> bool {
        let oldest = self.reports.front();
        oldest.is_some_and(|&last| self.descs[last].done())
    }

    /// As [`TxRing::room`].
    #[inline]
    pub(in crate::nic) fn room(&self) -> usize {
        (self.head.wrapping_sub(self.tail).wrapping_sub(1)) & self.mask
    }

    /// Frames submitted and not yet returned as completed.
    #[inline]
    pub(in crate::nic) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// As [`TxRing::submit`], into a ring that runs.
    #[inline]
    fn push(&mut self, mut frame: Frame) -> Result<(), SubmitError> {
        match self.lay_out(&mut frame) {
            Ok(Some(count)) => {
                self.keep(frame, count);
                Ok(())
            }
            Ok(None) => Err(SubmitError::Full(frame)),
            Err(error) => Err(SubmitError::Refused(frame, error)),
        }
    }

    /// Writes the descriptors of `frame` behind the tail, which the device does not see before
    /// [`Tx::keep`] has moved it; gives how many. `None`: there is no room now. What goes wrong in between
    /// leaves the ring as it was.
    #[inline]
    fn lay_out(&mut self, frame: &mut Frame) -> Result<Option<usize>> {
        match plain(frame, &self.setup, self.plain_max) {
            Some(_) if self.room() == 0 => Ok(None),
            Some((iova, word)) => {
                self.descs[self.tail].write(iova, word);
                Ok(Some(1))
            }
            None => self.lay_out_in_pieces(frame),
        }
    }

    /// As [`Tx::submit`] for all [`plain`] frames at the front of `frames` that there is room for; gives
    /// how many.
    #[inline]
    fn submit_plain(&mut self, frames: &mut Vec<Frame>) -> usize {
        let mut pushed = 0usize;
        loop {
            let count = self.submit_stretch(frames);
            // No more than the ring holds: what is counted here has a place.
            pushed = pushed.wrapping_add(count);
            // A stretch that ended where the ring does is followed by one at its beginning.
            if count == 0 || self.tail != 0 {
                return pushed;
            }
        }
    }

    /// As [`Tx::submit_plain`], up to the ring's end. Descriptors first and frames after, each in one go:
    /// nothing is counted, checked or dropped in between.
    #[inline]
    fn submit_stretch(&mut self, frames: &mut Vec<Frame>) -> usize {
        let most = self.room().min(self.descs.len().wrapping_sub(self.tail));
        let most = most.min(frames.len());
        let (setup, longest) = (self.setup, self.plain_max);
        let free = &self.descs[self.tail..][..most];
        let posted = frames[..most].iter().zip(free).take_while(|(frame, desc)| {
            let plain = plain(frame, &setup, longest);
            if let Some((iova, word)) = plain {
                desc.write(iova, word);
            }
            plain.is_some()
        });
        let count = posted.count();
        let slots = &mut self.frames[self.tail..][..count];
        for (slot, frame) in slots.iter_mut().zip(frames.drain(..count)) {
            // Nothing was there: `forget` says so to the compiler.
            std::mem::forget(slot.replace(frame));
        }
        self.tail = self.tail.wrapping_add(count) & self.mask;
        self.in_flight = self.in_flight.wrapping_add(count);
        count
    }

    /// Posts a batch: see [`QueuePair::submit`](crate::nic::QueuePair::submit).
    pub(in crate::nic) fn submit(&mut self, frames: &mut Vec<Frame>) -> Result<usize> {
        self.state.check()?;
        let mut sent = self.submit_plain(frames);
        if frames.is_empty() || self.room() == 0 {
            return Ok(sent);
        }
        let mut front = Front::of(frames);
        while let Some(frame) = front.first()
            && let Some(count) = self.lay_out(frame)?
            && let Some(frame) = front.take()
        {
            self.keep(frame, count);
            sent = sent.wrapping_add(1);
        }
        Ok(sent)
    }

    /// The next `count` descriptors, and the frame that they are of, belong to the ring.
    #[inline]
    fn keep(&mut self, frame: Frame, count: usize) {
        let past = self.tail.wrapping_add(count);
        self.frames[past.wrapping_sub(1) & self.mask] = Some(frame);
        self.tail = past & self.mask;
        self.in_flight = self.in_flight.wrapping_add(1);
    }

    /// [`Tx::lay_out`] of a frame of several segments, or one that the device shall work on.
    fn lay_out_in_pieces(&mut self, frame: &mut Frame) -> Result<Option<usize>> {
        let offload = frame.offload();
        let length = frame.len();
        self.check(frame)?;
        let tso = offload.flags.contains(OffloadFlags::TSO);
        let checksums = offload.flags.intersects(
            OffloadFlags::IP_CHECKSUM | OffloadFlags::TCP_CHECKSUM | OffloadFlags::UDP_CHECKSUM,
        );
        // Only a segmentation's context says how long the frame is; the other may serve many frames.
        let without_vlan = Offload {
            vlan: 0,
            flags: offload.flags.difference(OffloadFlags::VLAN),
            ..offload
        };
        let known = self.setup.keeps_context && without_vlan == self.context;
        let fresh_context = tso || (checksums && !known);

        let cut = Cut::of(frame, &self.setup, self.after_tso);
        let pieces = cut.pieces(frame, 0, 0).count();
        let needed = pieces.saturating_add(fresh_context.into());
        if needed > self.mask {
            return Err(self.not_offered(format!(
                "a frame of {needed} descriptors: the ring has {}",
                self.mask
            )));
        }
        if needed > self.room() {
            return Ok(None);
        }
        if tso {
            prepare_cut(frame.first_mut(), offload);
        }
        let mut at = self.tail;
        if fresh_context {
            self.write_context(at, offload, length);
            at = self.after(at);
        }
        let word = DataTx::new()
            .with_ifcs(true)
            .with_tse(tso)
            // Pieces have IPv4 headers of their own.
            .with_ixsm(is_cut_ipv4(offload) || offload.flags.contains(OffloadFlags::IP_CHECKSUM))
            .with_txsm(
                offload
                    .flags
                    .intersects(OffloadFlags::TCP_CHECKSUM | OffloadFlags::UDP_CHECKSUM),
            )
            .with_vle(offload.flags.contains(OffloadFlags::VLAN))
            .with_special(offload.vlan);
        let headers = self.move_headers(at, frame, cut.moved);
        let zeros = self.zeros.as_ref().map_or(0, |zeros| zeros.iova(0).0);
        for ((iova, len), nth) in cut.pieces(frame, headers, zeros).zip(1..) {
            let last = nth == pieces;
            let word = word.with_dtalen(len as u32).with_eop(last);
            self.descs[at].write(iova, word.into());
            at = self.after(at);
        }
        if fresh_context && !tso {
            self.context = without_vlan;
        }
        match tso && self.setup.quirks.early_report_after {
            true => (self.after_tso, self.plain_max) = (true, 0),
            false => self.followed_by_any(),
        }
        Ok(Some(needed))
    }

    /// The next frame may go as it lies.
    fn followed_by_any(&mut self) {
        (self.after_tso, self.plain_max) = (false, self.setup.longest_plain());
    }

    /// Copies the first `len` bytes of `frame` to where they may lie, beside descriptor `at`; gives the
    /// IOVA.
    fn move_headers(&self, at: usize, frame: &Frame, len: usize) -> u64 {
        let Some(slots) = self.headers.as_ref().filter(|_| len > 0) else {
            return 0;
        };
        let start = high_end(len);
        for (offset, byte) in slots[at][start..][..len].iter().enumerate() {
            // `check` saw that they are in a buffer.
            let [value] = frame.first().array(offset).unwrap_or_default();
            byte.store(value, Ordering::Relaxed);
        }
        slots.iova(at).0.wrapping_add(start as u64)
    }

    /// Checks that the device can do this at all.
    fn check(&self, frame: &Frame) -> Result<()> {
        if !frame.is_within(self.setup.space) {
            return Err(foreign_memory(&self.device));
        }
        let (offload, length) = (frame.offload(), frame.len());
        let flags = offload.flags;
        if flags.contains(OffloadFlags::VLAN) && !self.setup.vlan {
            return Err(
                self.not_offered("insert VLAN tags: it was started without vlan_offload".into())
            );
        }
        if flags.contains(OffloadFlags::USO) {
            return Err(self.not_offered("cut UDP into datagrams".into()));
        }
        if flags.contains(OffloadFlags::IPV6 | OffloadFlags::IP_CHECKSUM) {
            return Err(self.not_offered(NO_IPV6_CHECKSUM.into()));
        }
        if flags.contains(OffloadFlags::IPV6 | OffloadFlags::TSO) && !self.setup.cuts_ipv6 {
            return Err(self.not_offered("cut TCP over IPv6 right: cut it into packets".into()));
        }
        if flags.intersects(WORKED_ON) {
            let places = Places::of(offload).map_err(|why| self.not_offered(why))?;
            if flags.contains(OffloadFlags::TSO) {
                return self.check_cut(frame, usize::from(places.payload));
            }
            if usize::from(places.end) > length {
                return Err(self.not_offered(format!(
                    "checksum {} bytes of headers in a frame of {length}",
                    places.end
                )));
            }
        }
        let (min_frame, max_frame) = (self.setup.min_frame, self.setup.max_frame);
        if !(min_frame..=max_frame).contains(&length) {
            return Err(self.bad_length(length, min_frame, max_frame));
        }
        Ok(())
    }

    /// Checks that the device can cut this, whose payload begins `headers` bytes from its start.
    fn check_cut(&self, frame: &Frame, headers: usize) -> Result<()> {
        let (offload, length) = (frame.offload(), frame.len());
        let at_hand = frame
            .first()
            .array::<1>(headers.saturating_sub(1))
            .is_some();
        if offload.mss == 0 || !at_hand {
            return Err(self.not_offered(format!(
                "segment with {headers} bytes of headers and an mss of {}: \
                 it takes all headers in the first buffer, and at least 1",
                offload.mss
            )));
        }
        // `TxQuirks::four_segments`: one descriptor holds the headers, and no more than that.
        let least = headers.div_ceil(4);
        if self.setup.quirks.four_segments && usize::from(offload.mss) < least {
            return Err(self.not_offered(format!(
                "segment with {headers} bytes of headers and an mss of {}: it takes at least {least}",
                offload.mss
            )));
        }
        let shortest = headers.saturating_add(1);
        let piece = headers.saturating_add(offload.mss.into());
        if piece > self.setup.max_frame {
            return Err(self.bad_length(piece, shortest, self.setup.max_frame));
        }
        let longest = headers.saturating_add(self.setup.max_payload);
        if !(shortest..=longest).contains(&length) {
            return Err(self.bad_length(length, shortest, longest));
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

    /// Tells the device where the headers are, §3.3.6, by descriptor `at`; [`Tx::check`] saw that they
    /// have places.
    fn write_context(&self, at: usize, offload: Offload, length: usize) {
        let Ok(places) = Places::of(offload) else {
            debug_assert!(false, "a context for a frame that was not checked");
            return;
        };
        let tso = offload.flags.contains(OffloadFlags::TSO);
        let offsets = ContextOffsets::new()
            .with_ipcss(places.ip)
            .with_ipcso(places.ip_sum)
            .with_ipcse(places.ip_end.into())
            .with_tucss(places.l4)
            .with_tucso(places.l4_sum);
        let mut word = ContextTx::new()
            .with_tcp(offload.flags.contains(OffloadFlags::TCP_CHECKSUM))
            .with_ip(!offload.flags.contains(OffloadFlags::IPV6))
            .with_tse(tso);
        if tso {
            let payload = length.saturating_sub(places.payload.into());
            word = word
                .with_paylen(payload as u32)
                .with_hdrlen(places.payload)
                .with_mss(offload.mss);
        }
        self.descs[at].write(offsets.into(), word.into());
    }

    /// As [`TxRing::doorbell`].
    #[inline]
    pub(in crate::nic) fn doorbell(&mut self) -> Result<()> {
        self.state.check()?;
        if self.tail == self.rung {
            return Ok(());
        }
        let last = self.tail.wrapping_sub(1) & self.mask;
        self.descs[last].report();
        self.reports.push_back(last);
        self.rung = self.tail;
        // Descriptors before the tail: else the device fetches what is not yet written.
        dma_wmb();
        self.bar.set(self.setup.regs.tdt, self.tail as u32);
        Ok(())
    }

    /// As [`TxRing::completed`].
    #[inline]
    pub(in crate::nic) fn completed(&mut self, done: &mut Vec<Frame>) -> Result<usize> {
        self.state.check()?;
        let before = self.in_flight;
        // A frame a descriptor, all along: no slot is empty.
        let plain = before == self.distance(self.tail);
        while let Some(&last) = self.reports.front() {
            if !self.descs[last].done() {
                break;
            }
            self.reports.pop_front();
            let until = last.wrapping_add(1);
            if until <= self.head {
                self.take_back(self.head..self.descs.len(), plain, done);
                self.head = 0;
            }
            self.take_back(self.head..until, plain, done);
            self.head = until & self.mask;
        }
        Ok(before.wrapping_sub(self.in_flight))
    }

    /// The frames of these slots go to `done`; `plain` promises that each has one, so that `done`
    /// need not grow one by one.
    #[inline]
    fn take_back(&mut self, slots: Range<usize>, plain: bool, done: &mut Vec<Frame>) {
        let before = done.len();
        let slots = self.frames[slots].iter_mut();
        if plain {
            done.extend(slots.map(|slot| slot.take().expect("a frame a descriptor")));
        } else {
            done.extend(slots.filter_map(Option::take));
        }
        // Each of them was counted as it came.
        let taken = done.len().wrapping_sub(before);
        self.in_flight = self.in_flight.wrapping_sub(taken);
    }

    /// The device's own speed: `frames` times the same frame, from a ring that is filled once; per
    /// batch one descriptor is armed again and the tail moved, nothing else.
    ///
    /// # Errors
    /// [`Error::Usage`] where frames are in flight or `batch` is not a power of two up to half the
    /// ring; [`Error::NotOffered`] where the frame needs more than one descriptor; [`Error::Timeout`]
    /// where the device does not report.
    pub(in crate::nic) fn limit(
        &mut self,
        segment: &Segment,
        batch: usize,
        frames: u64,
    ) -> Result<()> {
        self.state.check()?;
        if self.in_flight > 0 || !batch.is_power_of_two() || batch > self.descs.len() / 2 {
            return Err(Error::Usage(format!(
                "a batch of {batch} does not go with a ring of {}: \
                 it must be a power of two, at most half of the ring",
                self.descs.len()
            )));
        }
        let longest = self.setup.longest_plain();
        if segment.len() > longest {
            return Err(self.not_offered(format!(
                "be measured with {} bytes in one descriptor: on its bus it takes up to {longest}",
                segment.len()
            )));
        }
        let word = LegacyTx::new()
            .with_length(segment.len() as u16)
            .with_eop(true)
            .with_ifcs(true);
        // Start at a multiple of the batch, so that the same descriptors report every time.
        while !self.tail.is_multiple_of(batch) {
            self.descs[self.tail].write(segment.iova().0, word.into());
            self.tail = self.after(self.tail);
        }
        self.doorbell()?;
        let mut none = Vec::new();
        if !poll_until(STUCK, || {
            self.completed(&mut none).is_err() || self.reports.is_empty()
        }) {
            return Err(self.stuck());
        }
        for index in 0..self.descs.len() {
            let rs = index.wrapping_add(1).is_multiple_of(batch);
            self.descs[index].write(segment.iova().0, word.with_rs(rs).into());
        }
        dma_wmb();
        for _ in 0..frames.div_ceil(batch as u64) {
            self.tail = self.tail.wrapping_add(batch) & self.mask;
            let last = self.tail.wrapping_sub(1) & self.mask;
            self.descs[last].write(segment.iova().0, word.with_rs(true).into());
            dma_wmb();
            self.bar.set(self.setup.regs.tdt, self.tail as u32);
            self.rung = self.tail;
            if !poll_until(STUCK, || self.descs[last].done()) {
                return Err(self.stuck());
            }
            self.head = self.tail;
        }
        Ok(())
    }

    fn stuck(&self) -> Error {
        Error::Timeout {
            device: self.device.clone(),
            what: "the write-back of a transmit descriptor",
            bound: STUCK,
            remedy: "is the link up, and bus mastering on? try: pinwire show",
        }
    }

    /// Gives the frames in flight back to their pools.
    pub(in crate::nic) fn release(&mut self) {
        self.frames.fill_with(|| None);
    }

    /// The device did not stop: what it may go on reaching is undone by [`DmaSpace::quarantine`].
    pub(in crate::nic) fn quarantine(&mut self) {
        let in_flight = self.frames.iter_mut().filter_map(Option::take);
        in_flight.for_each(Frame::quarantine);
        self.descs.quarantine();
        self.zeros.iter_mut().for_each(DmaArray::quarantine);
        self.headers.iter_mut().for_each(DmaArray::quarantine);
    }

    /// Shortest frame that can be sent as it lies: what is shorter is padded by software, or by the device.
    pub(in crate::nic) fn shortest(&self) -> usize {
        match self.setup.quirks.pads_badly {
            true => SHORTEST_ON_THE_WIRE,
            false => MIN_FRAME,
        }
    }

    /// The ring, to be shown.
    pub(in crate::nic) fn view(&self) -> RingView {
        let reported = self
            .reports
            .iter()
            .take_while(|&&last| self.descs[last].done());
        let done = reported
            .last()
            .map_or(0, |last| self.distance(*last).wrapping_add(1));
        let (rung, filled) = (self.distance(self.rung), self.distance(self.tail));
        let slots = (0..self.descs.len()).map(|index| {
            let words = self.descs[index].words();
            let place = self.distance(index);
            let frame = (place < filled).then(|| self.frame_at(index)).flatten();
            SlotView {
                iova: self.descs.iova(index),
                words: words.to_vec(),
                text: describe_tx(words),
                owner: match place {
                    _ if place < done => Owner::Done,
                    _ if place < rung => Owner::Device,
                    _ => Owner::Driver,
                },
                buffer: frame.and_then(|frame| buffer_at(frame, words[0])),
            }
        });
        RingView {
            name: "transmit",
            pair: self.setup.pair,
            address: (&raw const self.descs[0]).addr(),
            indices: RingIndices::Registers {
                head: self.bar.get(self.setup.regs.tdh),
                tail: self.bar.get(self.setup.regs.tdt),
            },
            slots: slots.collect(),
        }
    }

    /// The descriptor after `index`: round the ring, whose size is a power of two.
    #[inline]
    fn after(&self, index: usize) -> usize {
        index.wrapping_add(1) & self.mask
    }

    /// Returns the number of descriptors from the head to `index`.
    fn distance(&self, index: usize) -> usize {
        index.wrapping_sub(self.head) & self.mask
    }

    /// The frame that descriptor `index` is a part of.
    fn frame_at(&self, index: usize) -> Option<&Frame> {
        let mut from = (0..self.frames.len()).map(|past| index.wrapping_add(past) & self.mask);
        from.find_map(|at| self.frames[at].as_ref())
    }
}

/// Offloads that need a context descriptor, which holds the places of the checksums.
const WORKED_ON: OffloadFlags = OffloadFlags::IP_CHECKSUM
    .union(OffloadFlags::TCP_CHECKSUM)
    .union(OffloadFlags::UDP_CHECKSUM)
    .union(OffloadFlags::TSO);
/// Bytes of an Ethernet header.
const ETHERNET: u8 = 14;

/// Places of a frame's headers and checksums, in bytes from its start: a byte each, as a context holds them. The
/// lengths may come from a device or from a peer, through a header that says what is still to be done to a frame;
/// they are added here and nowhere else, and what has no place is refused.
struct Places {
    ip: u8,
    ip_sum: u8,
    /// The IP header's last byte.
    ip_end: u8,
    l4: u8,
    /// The TCP or UDP checksum, for which a place is named also where none is asked for.
    l4_sum: u8,
    /// Bytes that must be in the frame: up to the last header that is worked on.
    end: u16,
    /// With TSO: the end of all headers.
    payload: u8,
}

impl Places {
    /// Those of a frame with `offload`; else what is wrong with that.
    fn of(offload: Offload) -> Result<Self, String> {
        let Offload {
            flags,
            l2_len: l2,
            l3_len: l3,
            l4_len,
            ..
        } = offload;
        let (tso, tcp, udp) = (
            flags.contains(OffloadFlags::TSO),
            flags.contains(OffloadFlags::TCP_CHECKSUM),
            flags.contains(OffloadFlags::UDP_CHECKSUM),
        );
        let (least_l3, least_l4) = least_headers(flags);
        let l4_sum = if tcp { TCP_CSUM } else { UDP_CSUM } as u8;
        let summed = if tcp || udp { least_l4.into() } else { 0 };
        let places = || {
            let l4 = l2.checked_add(l3)?;
            Some(Self {
                ip: l2,
                ip_sum: l2.checked_add(IPV4_CSUM)?,
                ip_end: l4.checked_sub(1)?,
                l4,
                l4_sum: l4.checked_add(l4_sum)?,
                end: u16::from(l4).checked_add(summed)?,
                payload: if tso { l4.checked_add(l4_len)? } else { 0 },
            })
        };
        if l2 < ETHERNET || l3 < least_l3 {
            return Err(format!(
                "find the checksums of a frame with {l2} bytes of link header and {l3} of IP header: \
                 it takes at least {ETHERNET} and {least_l3}"
            ));
        }
        if (tcp && udp) || (tso && (!tcp || l4_len < least_l4)) {
            return Err(format!(
                "do {flags:?} to a frame with a TCP or UDP header of {l4_len} bytes: it makes one checksum of \
                 the two, and cuts with TCP_CHECKSUM and at least {least_l4}"
            ));
        }
        places().ok_or_else(|| {
            format!(
                "find the checksums behind {l2} bytes of link header, {l3} of IP header and {l4_len} of TCP or \
                 UDP header: their places must be within the first 255"
            )
        })
    }
}

fn is_cut_ipv4(offload: Offload) -> bool {
    offload.flags.contains(OffloadFlags::TSO) && !offload.flags.contains(OffloadFlags::IPV6)
}

/// The device adds to what it finds in the checksums' fields, for each piece: to nothing in the IPv4 header,
/// and to the pseudo-header's sum without a length in the TCP header, §3.5. [`Tx::check`] saw that they
/// can be written.
fn prepare_cut(first: &mut Segment, offload: Offload) {
    if is_cut_ipv4(offload) {
        clear_ipv4(first, offload.l2_len);
    }
    sum_pseudo(first, offload, 0);
}

/// Both words of the descriptor of a plain frame: one segment of the ring's space and of a length that
/// needs no padding and is at most `longest`, with nothing to do to it. Shorter ones go the slow way on every
/// chip, so that the least is a constant.
#[inline]
fn plain(frame: &Frame, setup: &TxSetup, longest: usize) -> Option<(u64, u64)> {
    const WHOLE: u64 = LegacyTx::new().with_eop(true).with_ifcs(true).into_bits();
    let segment = frame.plain(setup.space)?;
    let (iova, len) = (segment.iova().0, segment.len());
    let is_within = || (iova ^ last_byte(iova, len)) >> segment.page_shift() == 0;
    let fits = (SHORTEST_ON_THE_WIRE..=longest).contains(&len);
    (fits && (!setup.within_page || is_within())).then_some((iova, WHOLE | len as u64))
}

/// Returns the IOVA of the last of `len` bytes at `iova`. A mapping ends before the addresses do.
#[inline]
pub(in crate::nic) fn last_byte(iova: u64, len: usize) -> u64 {
    iova.wrapping_add(len as u64).wrapping_sub(1)
}

/// The segment that holds `iova`, as both sides see it.
fn buffer_at(frame: &Frame, iova: u64) -> Option<(crate::dma::Iova, usize, usize)> {
    frame.segments().find_map(|segment| {
        let past = usize::try_from(iova.checked_sub(segment.iova().0)?).ok()?;
        (past < segment.len()).then(|| (segment.iova(), segment.address(), segment.len()))
    })
}

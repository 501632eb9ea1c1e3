//! The transmit ring, §3.3 and §3.4.
//!
//! The driver fills descriptors at `tail` and rings the doorbell (TDT) once a batch; the device
//! works from its head (TDH) to the tail. Between push and reap a frame belongs to the ring, which is
//! what keeps everybody's hands off memory that the device reads. RS is set on the last descriptor
//! of a batch only, so one write-back by the device tells of all of them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::desc::{ContextOffsets, ContextTx, DataTx, LegacyTx, TxDesc, describe_tx};
use super::regs::{TDBAH, TDBAL, TDH, TDLEN, TDT};
use crate::barrier::dma_wmb;
use crate::dma::{DmaArray, DmaSpace, Frame, Offload, OffloadFlags, Segment};
use crate::error::{Error, Result};
use crate::mmio::Mmio;
use crate::nic::{Owner, RingView, SlotView, poll_until};

/// Shortest packet that the device takes, in bytes before padding, §3.3.3.
pub const MIN_FRAME: usize = 17;
/// Longest packet that the device takes, in bytes, §3.3.3.
pub const MAX_FRAME: usize = 16_288;
/// Bytes a descriptor takes when a longer segment is cut; a power of two below [`MAX_FRAME`].
const DESC_BYTES: usize = 8192;
/// Longest payload of one segmentation: PAYLEN has 20 bits, §3.3.6.
const MAX_TSO_PAYLOAD: usize = (1 << 20) - 1;

/// How long a descriptor may take while nothing holds the device up.
const STUCK: Duration = Duration::from_secs(2);

/// Why a frame was not taken; it is given back.
#[derive(Debug)]
pub enum PushError {
    /// The ring has no room: ring the doorbell, reap, try again.
    Full(Frame),
    /// The device cannot send such a frame.
    Refused(Frame, Error),
}

/// The transmit ring; it owns every frame that was pushed and not yet reaped.
pub struct Tx<M> {
    bar: M,
    device: String,
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
    vlan: bool,
}

impl<M: Mmio> Tx<M> {
    /// A ring of `len` descriptors (a power of two, 8 to 4096), and the device told of it: §14.5.
    /// The transmitter must be off.
    pub(super) fn new(
        bar: &M,
        device: &str,
        dma: &Arc<dyn DmaSpace>,
        len: usize,
        vlan: bool,
    ) -> Result<Self> {
        let descs = DmaArray::alloc(dma, len)?;
        let base = descs.iova(0).0;
        bar.set(TDBAL, base as u32);
        bar.set(TDBAH, (base >> 32) as u32);
        bar.set(TDLEN, (len * size_of::<TxDesc>()) as u32);
        bar.set(TDH, 0);
        bar.set(TDT, 0);
        Ok(Self {
            bar: bar.clone(),
            device: device.to_owned(),
            descs,
            frames: (0..len).map(|_| None).collect(),
            mask: len - 1,
            head: 0,
            tail: 0,
            rung: 0,
            reports: VecDeque::with_capacity(len),
            context: Offload::NONE,
            in_flight: 0,
            vlan,
        })
    }

    /// Descriptors that can be filled: one stays empty, since head == tail means an empty ring.
    #[inline]
    pub fn room(&self) -> usize {
        (self.head.wrapping_sub(self.tail).wrapping_sub(1)) & self.mask
    }

    /// Frames pushed and not yet reaped.
    #[inline]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Moves `frame` into the ring. The device does not look before [`Tx::doorbell`].
    ///
    /// # Errors
    /// The frame again, where the ring is full or the device cannot send it.
    #[inline]
    pub fn push(&mut self, frame: Frame) -> Result<(), PushError> {
        match plain(&frame) {
            Some(_) if self.room() == 0 => Err(PushError::Full(frame)),
            Some((iova, word)) => {
                self.descs[self.tail].post(iova, word);
                self.keep(frame);
                Ok(())
            }
            None => self.push_in_pieces(frame),
        }
    }

    /// As [`Tx::push`] for all [`plain`] frames at the front of `frames` that there is room for; gives
    /// how many.
    #[inline]
    pub(super) fn push_plain(&mut self, frames: &mut Vec<Frame>) -> usize {
        let mut pushed = 0;
        loop {
            let count = self.push_stretch(frames);
            pushed += count;
            // A stretch that ended where the ring does is followed by one at its beginning.
            if count == 0 || self.tail != 0 {
                return pushed;
            }
        }
    }

    /// As [`Tx::push_plain`], up to the ring's end. Descriptors first and frames after, each in one go:
    /// nothing is counted, checked or dropped in between.
    #[inline]
    fn push_stretch(&mut self, frames: &mut Vec<Frame>) -> usize {
        let most = self.room().min(self.descs.len() - self.tail);
        let most = most.min(frames.len());
        let free = &self.descs[self.tail..][..most];
        let posted = frames[..most].iter().zip(free).take_while(|(frame, desc)| {
            let plain = plain(frame);
            if let Some((iova, word)) = plain {
                desc.post(iova, word);
            }
            plain.is_some()
        });
        let count = posted.count();
        let slots = &mut self.frames[self.tail..self.tail + count];
        for (slot, frame) in slots.iter_mut().zip(frames.drain(..count)) {
            // Nothing was there: `forget` says so to the compiler.
            std::mem::forget(slot.replace(frame));
        }
        self.tail = (self.tail + count) & self.mask;
        self.in_flight += count;
        count
    }

    /// The frame that ends at the tail's descriptor belongs to the ring.
    #[inline]
    fn keep(&mut self, frame: Frame) {
        self.frames[self.tail] = Some(frame);
        self.tail = (self.tail + 1) & self.mask;
        self.in_flight += 1;
    }

    /// A frame of several segments, or one that the device shall work on.
    fn push_in_pieces(&mut self, frame: Frame) -> Result<(), PushError> {
        let offload = frame.offload();
        let length = frame.len();
        if let Err(error) = self.check(offload, length) {
            return Err(PushError::Refused(frame, error));
        }
        let tso = offload.flags.contains(OffloadFlags::TSO);
        let checksums = offload.flags.intersects(
            OffloadFlags::IP_CHECKSUM | OffloadFlags::TCP_CHECKSUM | OffloadFlags::UDP_CHECKSUM,
        );
        // Only a segmentation's context says how long the frame is; the other may serve many frames.
        let without_vlan = Offload {
            vlan: 0,
            flags: offload.flags - OffloadFlags::VLAN,
            ..offload
        };
        let fresh_context = tso || (checksums && without_vlan != self.context);

        let pieces: usize = frame.segments().map(|s| s.len().div_ceil(DESC_BYTES)).sum();
        let needed = pieces + usize::from(fresh_context);
        if needed > self.mask {
            let error = self.not_offered(format!(
                "a frame of {needed} descriptors: the ring has {}",
                self.mask
            ));
            return Err(PushError::Refused(frame, error));
        }
        if needed > self.room() {
            return Err(PushError::Full(frame));
        }
        if fresh_context {
            self.post_context(offload, length);
            if !tso {
                self.context = without_vlan;
            }
        }
        let word = DataTx::new()
            .with_ifcs(true)
            .with_tse(tso)
            .with_ixsm(offload.flags.contains(OffloadFlags::IP_CHECKSUM))
            .with_txsm(
                offload
                    .flags
                    .intersects(OffloadFlags::TCP_CHECKSUM | OffloadFlags::UDP_CHECKSUM),
            )
            .with_vle(offload.flags.contains(OffloadFlags::VLAN))
            .with_special(offload.vlan);
        for (nth, (iova, len)) in frame.segments().flat_map(pieces_of).enumerate() {
            let last = nth + 1 == pieces;
            let word = word.with_dtalen(len as u32).with_eop(last);
            self.descs[self.tail].post(iova, word.into());
            if !last {
                self.tail = (self.tail + 1) & self.mask;
            }
        }
        self.keep(frame);
        Ok(())
    }

    /// Can the device do this at all?
    fn check(&self, offload: Offload, length: usize) -> Result<()> {
        let flags = offload.flags;
        let headers =
            usize::from(offload.l2_len) + usize::from(offload.l3_len) + usize::from(offload.l4_len);
        if flags.contains(OffloadFlags::VLAN) && !self.vlan {
            return Err(
                self.not_offered("insert VLAN tags: it was started without vlan_offload".into())
            );
        }
        if flags.contains(OffloadFlags::TSO) {
            if headers > 0xff || offload.mss == 0 || !flags.contains(OffloadFlags::TCP_CHECKSUM) {
                return Err(self.not_offered(format!(
                    "segment with {headers} bytes of headers, an mss of {} and {flags:?}: \
                     it takes up to 255, at least 1, and TCP_CHECKSUM",
                    offload.mss
                )));
            }
            if headers + usize::from(offload.mss) > MAX_FRAME
                || length <= headers
                || length - headers > MAX_TSO_PAYLOAD
            {
                return Err(self.bad_length(length, headers + 1, headers + MAX_TSO_PAYLOAD));
            }
            return Ok(());
        }
        if headers > length {
            return Err(self.not_offered(format!(
                "checksum {headers} bytes of headers in a frame of {length}"
            )));
        }
        if !(MIN_FRAME..=MAX_FRAME).contains(&length) {
            return Err(self.bad_length(length, MIN_FRAME, MAX_FRAME));
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

    /// Tells the device where the headers are, §3.3.6.
    fn post_context(&mut self, offload: Offload, length: usize) {
        let (l2, l3) = (offload.l2_len, offload.l3_len);
        let tcp = offload.flags.contains(OffloadFlags::TCP_CHECKSUM);
        let tso = offload.flags.contains(OffloadFlags::TSO);
        let l4 = l2 + l3;
        // Where the checksums are, in bytes from their headers: IPv4 10, TCP 16, UDP 6. An end of 0
        // is the frame's.
        let offsets = ContextOffsets::new()
            .with_ipcss(l2)
            .with_ipcso(l2 + 10)
            .with_ipcse(u16::from(l4) - 1)
            .with_tucss(l4)
            .with_tucso(l4 + if tcp { 16 } else { 6 });
        let headers = l4 + offload.l4_len;
        let mut word = ContextTx::new()
            .with_tcp(tcp)
            .with_ip(!offload.flags.contains(OffloadFlags::IPV6))
            .with_tse(tso);
        if tso {
            word = word
                .with_paylen((length - usize::from(headers)) as u32)
                .with_hdrlen(headers)
                .with_mss(offload.mss);
        }
        self.descs[self.tail].post(offsets.into(), word.into());
        self.tail = (self.tail + 1) & self.mask;
    }

    /// Hands everything that was pushed to the device: one register write.
    #[inline]
    pub fn doorbell(&mut self) {
        if self.tail == self.rung {
            return;
        }
        let last = self.tail.wrapping_sub(1) & self.mask;
        self.descs[last].report();
        self.reports.push_back(last);
        self.rung = self.tail;
        // Descriptors before the tail: else the device fetches what is not yet written.
        dma_wmb();
        self.bar.set(TDT, self.tail as u32);
    }

    /// Appends to `done` the frames that the device is through with; gives how many.
    #[inline]
    pub fn reap(&mut self, done: &mut Vec<Frame>) -> usize {
        let before = self.in_flight;
        // A frame a descriptor, all along: no slot is empty.
        let plain = before == self.distance(self.tail);
        while let Some(&last) = self.reports.front() {
            if !self.descs[last].done() {
                break;
            }
            self.reports.pop_front();
            let until = last + 1;
            if until <= self.head {
                self.take_back(self.head..self.descs.len(), plain, done);
                self.head = 0;
            }
            self.take_back(self.head..until, plain, done);
            self.head = until & self.mask;
        }
        before - self.in_flight
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
        self.in_flight -= done.len() - before;
    }

    /// How many of `frames`, from the front, the ring has room for.
    #[inline]
    pub(super) fn fitting(&self, frames: &[Frame]) -> usize {
        let room = self.room();
        // The plain case first: one descriptor a frame.
        let plain = frames.len().min(room);
        if frames[..plain]
            .iter()
            .all(|frame| frame.single().is_some() && frame.offload().is_none())
        {
            return plain;
        }
        let mut left = room;
        frames
            .iter()
            .take_while(|frame| {
                let pieces: usize = frame.segments().map(|s| s.len().div_ceil(DESC_BYTES)).sum();
                let needed = pieces + usize::from(!frame.offload().is_none());
                let fits = needed <= left;
                left = left.saturating_sub(needed);
                // A frame that never fits goes to `push`, which says so.
                fits || needed > self.mask
            })
            .count()
    }

    /// The device's own speed: `frames` times the same frame, from a ring that is filled once; per
    /// batch one descriptor is armed again and the tail moved, nothing else.
    ///
    /// # Errors
    /// [`Error::Usage`] where frames are in flight or `batch` is not a power of two up to half the
    /// ring; [`Error::Timeout`] where the device does not report.
    pub(super) fn limit(&mut self, segment: &Segment, batch: usize, frames: u64) -> Result<()> {
        if self.in_flight > 0 || !batch.is_power_of_two() || batch > self.descs.len() / 2 {
            return Err(Error::Usage(format!(
                "a batch of {batch} does not go with a ring of {}: \
                 it must be a power of two, at most half of the ring",
                self.descs.len()
            )));
        }
        let word = LegacyTx::new()
            .with_length(segment.len() as u16)
            .with_eop(true)
            .with_ifcs(true);
        // Start at a multiple of the batch, so that the same descriptors report every time.
        while !self.tail.is_multiple_of(batch) {
            self.descs[self.tail].post(segment.iova().0, word.into());
            self.tail = (self.tail + 1) & self.mask;
        }
        self.doorbell();
        let mut none = Vec::new();
        if !poll_until(STUCK, || {
            self.reap(&mut none);
            self.reports.is_empty()
        }) {
            return Err(self.stuck());
        }
        for index in 0..self.descs.len() {
            let rs = (index + 1).is_multiple_of(batch);
            self.descs[index].post(segment.iova().0, word.with_rs(rs).into());
        }
        dma_wmb();
        for _ in 0..frames.div_ceil(batch as u64) {
            self.tail = (self.tail + batch) & self.mask;
            let last = self.tail.wrapping_sub(1) & self.mask;
            self.descs[last].post(segment.iova().0, word.with_rs(true).into());
            dma_wmb();
            self.bar.set(TDT, self.tail as u32);
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

    /// Never frees what the device might still reach.
    pub(super) fn leak(&mut self) {
        for frame in &mut self.frames {
            std::mem::forget(frame.take());
        }
        self.descs.leak();
    }

    /// The ring, to be shown.
    pub(super) fn view(&self) -> RingView {
        let reported = self
            .reports
            .iter()
            .take_while(|&&last| self.descs[last].done());
        let done = reported.last().map_or(0, |last| self.distance(*last) + 1);
        let (rung, filled) = (self.distance(self.rung), self.distance(self.tail));
        let slots = (0..self.descs.len()).map(|index| {
            let words = self.descs[index].words();
            let place = self.distance(index);
            let frame = (place < filled).then(|| self.frame_at(index)).flatten();
            SlotView {
                iova: self.descs.iova(index),
                words,
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
            address: (&raw const self.descs[0]).addr(),
            head: self.bar.get(TDH),
            tail: self.bar.get(TDT),
            slots: slots.collect(),
        }
    }

    /// How far `index` is past the head.
    fn distance(&self, index: usize) -> usize {
        index.wrapping_sub(self.head) & self.mask
    }

    /// The frame that descriptor `index` is a part of.
    fn frame_at(&self, index: usize) -> Option<&Frame> {
        (0..self.frames.len()).find_map(|past| self.frames[(index + past) & self.mask].as_ref())
    }
}

/// Both words of the descriptor of a plain frame: one segment of a length that the device takes, with
/// nothing to do to it.
#[inline]
fn plain(frame: &Frame) -> Option<(u64, u64)> {
    const WHOLE: u64 = LegacyTx::new().with_eop(true).with_ifcs(true).into_bits();
    let segment = frame.single()?;
    let fits = (MIN_FRAME..=MAX_FRAME).contains(&segment.len());
    (fits && frame.offload().is_none()).then(|| (segment.iova().0, WHOLE | segment.len() as u64))
}

/// A segment cut into what one descriptor takes: address and length.
fn pieces_of(segment: &Segment) -> impl Iterator<Item = (u64, usize)> + use<> {
    let (iova, len) = (segment.iova().0, segment.len());
    (0..len)
        .step_by(DESC_BYTES)
        .map(move |at| (iova + at as u64, DESC_BYTES.min(len - at)))
}

/// The segment that holds `iova`, as both sides see it.
fn buffer_at(frame: &Frame, iova: u64) -> Option<(crate::dma::Iova, usize, usize)> {
    frame.segments().find_map(|segment| {
        let past = usize::try_from(iova.checked_sub(segment.iova().0)?).ok()?;
        (past < segment.len()).then(|| (segment.iova(), segment.address(), segment.len()))
    })
}

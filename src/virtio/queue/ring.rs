//! The face of split and packed virtqueues: chains of buffers go out with a token, and the token comes back once the
//! device has used them.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::dma::{DmaSpace, Iova};
use crate::error::Result;
use crate::inspect::{RingIndices, SlotView};
use crate::ring_state::RingState;

/// One stretch of memory of a chain: two numbers, from which a ring cannot tell whose memory they mean. A
/// driver makes it of memory in the ring's own space, and asks [`Segment::space`](crate::dma::Segment::space)
/// of what others gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Address for the device.
    pub iova: Iova,
    /// Length in bytes.
    pub len: u32,
}

/// Configuration of a queue.
#[derive(Debug, Clone)]
pub struct RingConfig {
    /// The device's name, for errors.
    pub device: String,
    /// Index of the queue in the device.
    pub index: u16,
    /// Descriptors; a split ring's is a power of two.
    pub size: u16,
    /// VIRTIO_F_EVENT_IDX: both sides say exactly when they want to be told.
    pub event_idx: bool,
    /// VIRTIO_F_INDIRECT_DESC: a chain may lie in a table of its own and take one descriptor.
    pub indirect: bool,
    /// VIRTIO_F_IN_ORDER: the device uses chains in the order in which they were made available.
    pub in_order: bool,
    /// VIRTIO_F_NOTIFICATION_DATA: a notification says where the driver is.
    pub notification_data: bool,
}

/// IOVAs of the three parts of a queue (§4.1.4.3): descriptor, driver and device area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Areas {
    /// Descriptor table, or the packed ring.
    pub descriptors: Iova,
    /// Available ring, or the driver's event suppression.
    pub driver: Iova,
    /// Used ring, or the device's event suppression.
    pub device: Iova,
}

/// A chain that the device has used.
#[derive(Debug)]
pub struct Used<T> {
    /// The token that was submitted with it.
    pub token: T,
    /// Bytes that the device says it wrote into it, at most as many as it may write.
    pub written: u32,
}

/// A taker of used chains ([`Ring::poll_into`]).
pub trait Sink<T> {
    /// Takes one.
    fn take(&mut self, used: Used<T>);

    /// Returns the bytes that a device may have written into a chain that comes with others, in
    /// [`Sink::take_all`]; else it comes by itself. Asked once a stretch of the ring.
    #[inline(always)]
    fn lengths(&self) -> RangeInclusive<u32> {
        0..=u32::MAX
    }

    /// Returns whether a chain, into which the device wrote `written` bytes, may come with others, too. Asked
    /// of each before the first is taken.
    #[inline(always)]
    fn accept(&mut self, _token: &mut T, _written: u32) -> bool {
        true
    }

    /// Takes the tokens of many chains that were accepted, at once; `tokens` knows how many
    /// ([`size_hint`](Iterator::size_hint)), so that a `Vec` is extended by it without a look at its
    /// capacity for each. What is not taken from it stays in the ring.
    fn take_all(&mut self, tokens: impl Iterator<Item = T>);
}

/// Keeps the tokens alone.
impl<T> Sink<T> for Vec<T> {
    fn take(&mut self, used: Used<T>) {
        self.push(used.token);
    }

    #[inline(always)]
    fn take_all(&mut self, tokens: impl Iterator<Item = T>) {
        self.extend(tokens);
    }
}

/// A virtqueue, seen from the driver.
///
/// A token of type `T` stands for whatever must not be touched while the device has the chain: the
/// ring owns it in between.
pub trait Ring<T>: Send + Sized {
    /// An empty queue in memory of `dma`, which wants no interrupts ([`Ring::arm`]). It runs, and shares
    /// its state with no other.
    ///
    /// # Errors
    /// No memory, or a size that cannot be.
    fn new(dma: &Arc<dyn DmaSpace>, config: &RingConfig) -> Result<Self>;

    /// Returns the addresses of its three areas.
    fn areas(&self) -> Areas;

    /// Returns the first descriptor's address in this process, to be shown.
    fn address(&self) -> usize;

    /// Returns the number of descriptors.
    fn size(&self) -> usize;

    /// Descriptors that are free.
    fn room(&self) -> usize;

    /// Chains submitted and not yet taken back.
    fn in_flight(&self) -> usize;

    /// Descriptors that a chain of `pieces` would take: one where it goes indirect. A chain that needs
    /// more than [`Ring::size`] never fits.
    fn needs(&self, pieces: usize) -> usize;

    /// Makes a chain available: the first `readable` of `pieces` are for the device to read, the
    /// others to write; those of length 0 are left out. The device does not look before
    /// [`Ring::publish`].
    ///
    /// # Errors
    /// The token again where there is no room: a ring that is stopped or broken has none.
    ///
    /// # Panics
    /// If there is no piece, or none that is not empty.
    fn submit(&mut self, pieces: &[Piece], readable: usize, token: T) -> Result<(), T>;

    /// As [`Ring::submit`] for the tokens that `tokens` gives, each with a piece of `len` bytes at `iova` for the
    /// device to write; as many as there is room for, or are there. Gives how many. It keeps a receive queue
    /// full.
    ///
    /// Where `tokens` panics, what it gave before is in the ring and goes with the next [`Ring::publish`],
    /// or is dropped.
    ///
    /// # Panics
    /// If `len` is 0.
    fn refill(
        &mut self,
        len: u32,
        tokens: impl Iterator<Item = T>,
        iova: impl Fn(&T) -> Iova,
    ) -> usize;

    /// As [`Ring::submit`] for the tokens at the front of `tokens`, each with one piece for the device to read, as
    /// long as `piece` says where it is; it may be asked twice. Gives how many: the others are still in `tokens`, also
    /// where `piece` panics.
    fn submit_front(
        &mut self,
        tokens: &mut Vec<T>,
        piece: impl FnMut(&mut T) -> Option<Piece>,
    ) -> usize;

    /// Shows the device all that was pushed. What to write to its notification register, where it
    /// wants to be told (§2.9, §4.1.5.2); `None`: do not, or nothing was pushed, or the ring is stopped
    /// or broken.
    fn publish(&mut self) -> Option<u32>;

    /// Returns the value for the notification register that tells the device once more of all that was published,
    /// whether it wants to be told or not.
    fn reminder(&self) -> u32;

    /// The oldest chain that the device has used and the driver has not taken back.
    ///
    /// # Errors
    /// [`Error::ProtocolViolation`](crate::Error::ProtocolViolation): the ring is broken, and those that share its
    /// state. Nothing more comes back from it then, but by [`Ring::reset`].
    /// [`Error::Stopped`](crate::Error::Stopped).
    fn poll(&mut self) -> Result<Option<Used<T>>>;

    /// As [`Ring::poll`], up to `most` times. Gives how many went to `sink`. Where it panics, what it has
    /// not got yet comes back later.
    ///
    /// # Errors
    /// As [`Ring::poll`]; what came before the device broke the protocol went to `sink`.
    fn poll_into(&mut self, most: usize, sink: &mut impl Sink<T>) -> Result<usize>;

    /// Returns whether there is a used chain, or an error to be told. Reads memory only.
    fn is_ready(&self) -> bool;

    /// Wants an interrupt for the next chain that is used. `true`: one has been already, and may have
    /// come before the device was asked.
    fn arm(&mut self) -> bool;

    /// Wants no interrupts (the device may still send some).
    fn disarm(&mut self);

    /// The state that it shares with the rings that stop with it.
    fn state(&self) -> &RingState;

    /// Shares `state` with other rings from here on.
    fn share(&mut self, state: &RingState);

    /// The device is stopped: nothing goes in or comes out until [`Ring::reset`].
    fn stop(&mut self);

    /// The device does not know the queue any more: gives back all tokens, in the order of their
    /// pushing, and is empty and runs, as at first.
    fn reset(&mut self) -> Vec<T>;

    /// The device did not stop: the ring's own memory is undone by [`DmaSpace::quarantine`] when the ring
    /// is dropped, and `abandon` gets every token, to do the same with what it stands for.
    fn quarantine(&mut self, abandon: impl FnMut(T));

    /// The device's own speed, measured with no software in the way: fills the empty ring once with
    /// chains of one `piece` for the device to read, and makes `batch` of them (a power of two, at
    /// most half the ring) available again, as they are, whenever so many have been used, until
    /// `count` have. Of what the device says only how far it is is looked at, and `ring` rings its
    /// doorbell where it wants to be told. `false` where it stood still for `stuck`: the device must
    /// be reset then, and the ring ([`Ring::reset`]).
    ///
    /// # Panics
    /// If a chain is in flight, or `batch` is none of the above.
    fn limit(
        &mut self,
        piece: Piece,
        batch: u16,
        count: u64,
        stuck: Duration,
        ring: impl FnMut(u32),
    ) -> bool;

    /// Returns the indices of both sides, to be shown.
    fn indices(&self) -> RingIndices;

    /// The descriptors, to be shown; `buffer` finds the memory behind an address in a token.
    fn slots(&self, buffer: impl Fn(&T, Iova) -> Option<(Iova, usize, usize)>) -> Vec<SlotView>;
}

/// Returns the value for the notification register of queue `index`: with VIRTIO_F_NOTIFICATION_DATA, the place where
/// the next chain goes, too (§2.9, §4.1.5.2).
#[inline]
pub(super) fn notification(index: u16, with_data: bool, next: u16) -> u32 {
    let data = if with_data { u32::from(next) << 16 } else { 0 };
    data | u32::from(index)
}

/// [`Ring::refill`] by [`Ring::submit`].
#[inline(never)] // so that the loop that is the rule is small
pub(super) fn refill_one_by_one<T, R: Ring<T>>(
    ring: &mut R,
    len: u32,
    tokens: impl Iterator<Item = T>,
    iova: impl Fn(&T) -> Iova,
) -> usize {
    let mut count = 0;
    for token in tokens.take(ring.room()) {
        let iova = iova(&token);
        let pushed = ring.submit(&[Piece { iova, len }], 0, token);
        debug_assert!(pushed.is_ok(), "there was room");
        count = usize::saturating_add(count, 1);
    }
    count
}

/// [`Ring::submit_front`] by [`Ring::submit`].
#[inline(never)] // so that the loop that is the rule is small
pub(super) fn submit_front_one_by_one<T, R: Ring<T>>(
    ring: &mut R,
    tokens: &mut Vec<T>,
    mut piece: impl FnMut(&mut T) -> Option<Piece>,
) -> usize {
    let mut full = |token: &mut T| piece(token).filter(|piece| piece.len > 0);
    let count = tokens.iter_mut().take(ring.room());
    let count = count.map_while(&mut full).count();
    let mut pushed = 0;
    for mut token in tokens.drain(..count) {
        let Some(piece) = full(&mut token) else { break };
        let went = ring.submit(&[piece], 1, token);
        debug_assert!(went.is_ok(), "there was room");
        pushed = usize::saturating_add(pushed, 1);
    }
    pushed
}

/// [`Ring::poll_into`] by [`Ring::poll`].
#[inline(never)] // so that the loop that is the rule is small
pub(super) fn poll_one_by_one<T, R: Ring<T>>(
    ring: &mut R,
    most: usize,
    sink: &mut impl Sink<T>,
) -> Result<usize> {
    let mut count = 0;
    while count < most
        && let Some(used) = ring.poll()?
    {
        sink.take(used);
        count = count.saturating_add(1);
    }
    Ok(count)
}

/// Complaint about a chain that no caller may submit: a device that meets a descriptor of length 0 may do anything
/// (§2.7.4.2: QEMU gives the device up). Empty pieces of a chain are left out; a chain of nothing else is none.
pub(super) const EMPTY: &str = "a chain has at least one piece that is not empty";

/// The chain without its empty pieces, and how many of those left are readable.
///
/// # Panics
/// If none is left.
#[cold]
pub(super) fn without_empty(pieces: &[Piece], readable: usize) -> (Vec<Piece>, usize) {
    let is_full = |piece: &&Piece| piece.len > 0;
    let readable = pieces.iter().take(readable).filter(is_full).count();
    let full: Vec<_> = pieces.iter().filter(is_full).copied().collect();
    assert!(!full.is_empty(), "{EMPTY}");
    (full, readable)
}

/// Bytes that the device may write into a chain.
#[inline]
pub(super) fn writable(pieces: &[Piece], readable: usize) -> u32 {
    let written = pieces.iter().skip(readable);
    written.fold(0, |sum, piece| sum.saturating_add(piece.len))
}

//! A queue pair: one transmit and one receive ring, with an interrupt of their own.
//!
//! A card has one pair or several, and each may be worked by a thread of its own
//! ([`Nic::split`](super::Nic::split)): a pair shares no ring, no buffer and no lock with another.
//! Who has nothing to do waits, in one of three ways ([`Waiting`]).

use super::Received;
use crate::dma::Pool;
use crate::error::Result;
use crate::nic::Frame;
use crate::wait::Wait;

/// One transmit and one receive ring. Its file descriptor becomes readable once the card has
/// interrupted after [`Wait::arm`], so that any event loop can hold it.
///
/// # Contract
/// For the author of a driver; [`testing`](crate::testing) checks what can be checked.
///
/// **The state first.** Every method but [`Wait::disarm`] looks at the pair's
/// [`RingState`](crate::ring_state::RingState) before anything else, once a batch, and touches no register where it
/// gives an error. What a device wrote that cannot be true ends in
/// [`RingState::mark_broken`](crate::ring_state::RingState::mark_broken), never in a panic: lengths are checked against
/// the buffer, ids against the ring, and what a descriptor says is read once.
///
/// **A frame that does not go stays.** [`QueuePair::submit`] checks a frame before it writes a descriptor
/// ([`TxLimits`](super::parts::TxLimits): its space, its work, its length, its buffers), and takes it out of the batch
/// after ([`Front`](super::parts::Front)).
///
/// **Rings with an OWN bit** have no tail to move: a card may look before the doorbell, so a frame's first descriptor gets
/// its OWN last, behind a Release ([`OwnRing`](super::parts::OwnRing)). The doorbell only ends a card's sleep.
/// Whatever hands over, a [`dma_wmb`](crate::barrier::dma_wmb) stands between descriptors and the register.
///
/// **Pools.** A receive pool has twice the buffers of its ring: one set is posted, the other may be with the caller. Its
/// buffers begin at multiples of 64 bytes, for the device too, and hold at least what was asked for; pools and rings
/// begin on a page. With the pool empty [`QueuePair::recv`] still gives what came in, posts what there is, and
/// is no error: the card then drops what comes, and counts it ([`Stats::rx_missed`](super::Stats::rx_missed)).
/// [`QueuePair::recv`] and [`Wait::arm`] both post what was returned since, or nobody ever would.
///
/// **Sleep.** [`Wait::is_ready`] reads memory only. It is `true` whenever [`QueuePair::recv`] or
/// [`QueuePair::completed`] has something to give, or an error is to be told; a `true` with nothing behind it must not
/// last, since who waits then spins. [`Wait::arm`] unmasks first and looks after: what came before is either
/// seen, or still in the card's cause register, which interrupts as soon as it is unmasked. [`Wait::disarm`] masks,
/// clears the causes, reads a register so that both have reached the card, and only then unmasks the line.
///
/// **No allocation, no lock, no system call** per packet, in any of them but [`Wait::wait`].
pub trait QueuePair: Wait {
    /// Moves frames from the front of `frames` into the ring, as many as it has room for; the card
    /// does not look before [`QueuePair::doorbell`]. Gives how many went; the others stay.
    ///
    /// # Errors
    /// A frame that cannot be sent ([`Error::FrameLength`](crate::Error::FrameLength), [`Error::NotOffered`](crate::Error::NotOffered)): it stays at the
    /// front, those before it went. As [`Wait::check_running`].
    fn submit(&mut self, frames: &mut Vec<Frame>) -> Result<usize>;

    /// Hands everything that was submitted to the card: one register write, or none where the card
    /// does not want to be told.
    ///
    /// # Errors
    /// As [`Wait::check_running`].
    fn doorbell(&mut self) -> Result<()>;

    /// [`QueuePair::submit`], then [`QueuePair::doorbell`].
    ///
    /// # Errors
    /// As [`QueuePair::submit`].
    fn send(&mut self, frames: &mut Vec<Frame>) -> Result<usize> {
        let posted = self.submit(frames);
        self.doorbell()?;
        posted
    }

    /// Appends to `done` the frames that the card is through with. Gives how many.
    ///
    /// # Errors
    /// As [`Wait::check_running`].
    fn completed(&mut self, done: &mut Vec<Frame>) -> Result<usize>;

    /// Frames submitted and not yet given back by [`QueuePair::completed`].
    fn in_flight(&self) -> usize;

    /// Appends to `into` the frames that came in, at most `most`, and gives the card fresh buffers, as far as
    /// [`QueuePair::rx_pool`] has any. Gives how many; 0, too, where all that came were longer than
    /// [`NicConfig::max_frame`](super::NicConfig::max_frame).
    ///
    /// # Errors
    /// As [`Wait::check_running`].
    fn recv(&mut self, into: &mut Vec<Received>, most: usize) -> Result<usize>;

    /// Frames dropped since they were longer than
    /// [`NicConfig::max_frame`](super::NicConfig::max_frame).
    fn dropped_longer(&self) -> u64 {
        0
    }

    /// The pool that received frames come from.
    fn rx_pool(&self) -> &Pool;
}

//! A queue pair: one transmit and one receive ring, with an interrupt of their own.
//!
//! A card has one pair or several, and each may be worked by a thread of its own
//! ([`Nic::split`](super::Nic::split)): a pair shares no ring, no buffer and no lock with another.
//! Who has nothing to do waits, in one of three ways ([`Waiting`]).

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::Received;
use crate::dma::Pool;
use crate::error::{Error, Result};
use crate::irq::Irq;
use crate::nic::Frame;

/// Way in which a pair waits for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Waiting {
    /// Looks at the rings without a pause: a processor is busy, and nothing is faster. Needs no
    /// interrupt.
    Poll,
    /// Sleeps until the card interrupts.
    Interrupt,
    /// Looks for about as long as falling asleep and waking up would take, then sleeps.
    #[default]
    Adaptive,
}

impl Waiting {
    /// For how long of `timeout` it looks before it sleeps.
    fn spin(self, timeout: Duration) -> Duration {
        match self {
            Self::Poll => timeout,
            Self::Interrupt => Duration::ZERO,
            Self::Adaptive => SPIN.min(timeout),
        }
    }
}

/// Time for which [`Waiting::Adaptive`] polls before it sleeps: at worst the wait costs twice what the better of the
/// two would have.
const SPIN: Duration = Duration::from_micros(50);
/// Looks at the rings between two looks at the clock, which in a VM may be a system call.
const LOOKS: u32 = 64;

/// One transmit and one receive ring. Its file descriptor becomes readable once the card has
/// interrupted after [`QueuePair::arm`], so that any event loop can hold it.
///
/// # Contract
/// For the author of a driver; [`testing`](crate::testing) checks what can be checked.
///
/// **The state first.** Every method but [`QueuePair::disarm`] looks at the pair's
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
/// [`QueuePair::recv`] and [`QueuePair::arm`] both post what was returned since, or nobody ever would.
///
/// **Sleep.** [`QueuePair::is_ready`] reads memory only. It is `true` whenever [`QueuePair::recv`] or
/// [`QueuePair::completed`] has something to give, or an error is to be told; a `true` with nothing behind it must not
/// last, since who waits then spins. [`QueuePair::arm`] unmasks first and looks after: what came before is either
/// seen, or still in the card's cause register, which interrupts as soon as it is unmasked. [`QueuePair::disarm`] masks,
/// clears the causes, reads a register so that both have reached the card, and only then unmasks the line.
///
/// **No allocation, no lock, no system call** per packet, in any of them but [`QueuePair::wait`].
pub trait QueuePair: Send + AsFd {
    /// Moves frames from the front of `frames` into the ring, as many as it has room for; the card
    /// does not look before [`QueuePair::doorbell`]. Gives how many went; the others stay.
    ///
    /// # Errors
    /// A frame that cannot be sent ([`Error::FrameLength`], [`Error::NotOffered`]): it stays at the
    /// front, those before it went. As [`QueuePair::check_running`].
    fn submit(&mut self, frames: &mut Vec<Frame>) -> Result<usize>;

    /// Hands everything that was submitted to the card: one register write, or none where the card
    /// does not want to be told.
    ///
    /// # Errors
    /// As [`QueuePair::check_running`].
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
    /// As [`QueuePair::check_running`].
    fn completed(&mut self, done: &mut Vec<Frame>) -> Result<usize>;

    /// Frames submitted and not yet given back by [`QueuePair::completed`].
    fn in_flight(&self) -> usize;

    /// Appends to `into` the frames that came in, at most `most`, and gives the card fresh buffers, as far as
    /// [`QueuePair::rx_pool`] has any. Gives how many; 0, too, where all that came were longer than
    /// [`NicConfig::max_frame`](super::NicConfig::max_frame).
    ///
    /// # Errors
    /// As [`QueuePair::check_running`].
    fn recv(&mut self, into: &mut Vec<Received>, most: usize) -> Result<usize>;

    /// Frames dropped since they were longer than
    /// [`NicConfig::max_frame`](super::NicConfig::max_frame).
    fn dropped_longer(&self) -> u64 {
        0
    }

    /// Checks that its rings run, as every other method does first but [`QueuePair::disarm`]. If they do not, all
    /// give this error, no frame goes in or comes out, and no register of the card is touched, until
    /// [`Nic::restart`](super::Nic::restart). A card that broke the protocol on a pair is stopped on that pair, or as
    /// a whole if it cannot be.
    ///
    /// # Errors
    /// [`Error::ProtocolViolation`] where the card broke the protocol; [`Error::Stopped`] where it was stopped;
    /// [`Error::DeviceGone`] and [`Error::BusError`] as soon as either is announced.
    fn check_running(&self) -> Result<()>;

    /// Returns whether there is something to receive, something completed, or an error to be told. Reads memory only. May be true
    /// for what turns out to be none (a frame that is dropped), but not for long.
    fn is_ready(&self) -> bool;

    /// Asks for an interrupt when there is something to do. `true`: there is already, which may have
    /// come before the card was asked, so do not sleep on it.
    ///
    /// # Errors
    /// [`Error::NotOffered`] where the card has no interrupt; as [`QueuePair::check_running`].
    fn arm(&mut self) -> Result<bool>;

    /// Asks for no more interrupts, and forgets those that came.
    ///
    /// # Errors
    /// If the system refuses.
    fn disarm(&mut self) -> Result<()>;

    /// The interrupt; none where the card was started with [`Waiting::Poll`].
    fn irq(&self) -> Option<&Irq>;

    /// Its way of waiting: [`NicConfig::waiting`](super::NicConfig::waiting).
    fn waiting(&self) -> Waiting;

    /// The pool that received frames come from.
    fn rx_pool(&self) -> &Pool;

    /// Waits until something came in, was sent, or the link changed, or until `timeout`; `true` where
    /// it did, which may be for something already seen.
    ///
    /// # Errors
    /// As [`QueuePair::arm`]; [`Error::DeviceGone`] as soon as the card is being taken away; to who polls and has no
    /// interrupt to be told by, at the next call.
    fn wait(&mut self, timeout: Duration) -> Result<bool> {
        self.check_running()?;
        let begin = Instant::now();
        if look(begin, self.waiting().spin(timeout), || self.is_ready()) {
            return Ok(true);
        }
        if self.waiting() == Waiting::Poll {
            return Ok(false);
        }
        let came = if self.arm()? {
            Ok(true)
        } else {
            let irq = self.irq().ok_or_else(|| no_interrupt("this card"))?;
            irq.wait(timeout.saturating_sub(begin.elapsed()))
        };
        self.disarm()?;
        // It may have been stopped from another pair meanwhile.
        self.check_running()?;
        came
    }
}

/// Waits until one of `pairs`, of one card or of several, has something to do: as [`QueuePair::wait`]
/// of each, with one sleep for all. One that polls keeps all from sleeping.
///
/// # Errors
/// As [`QueuePair::wait`].
pub fn wait_any(pairs: &mut [&mut dyn QueuePair], timeout: Duration) -> Result<bool> {
    pairs.iter().try_for_each(|pair| pair.check_running())?;
    let begin = Instant::now();
    let spins = pairs.iter().map(|pair| pair.waiting().spin(timeout));
    let spin = spins.max().unwrap_or(Duration::ZERO);
    if look(begin, spin, || pairs.iter().any(|pair| pair.is_ready())) {
        return Ok(true);
    }
    if pairs.iter().any(|pair| pair.waiting() == Waiting::Poll) {
        return Ok(false);
    }
    // All are armed before the sleep, and each says whether something came before it was: so nothing
    // comes between the last look and the sleep.
    let armed = arm_all(pairs);
    let came = match armed {
        Ok(false) => {
            let irqs = pairs.iter().filter_map(|pair| pair.irq());
            Irq::wait_any(irqs, timeout.saturating_sub(begin.elapsed()))
        }
        other => other,
    };
    for pair in pairs.iter_mut() {
        pair.disarm()?;
    }
    pairs.iter().try_for_each(|pair| pair.check_running())?;
    came
}

/// `true` where one has something to do already.
fn arm_all(pairs: &mut [&mut dyn QueuePair]) -> Result<bool> {
    let mut ready = false;
    for pair in pairs {
        ready |= pair.arm()?;
    }
    Ok(ready)
}

/// Looks at the rings for `spin` from `begin` on, at least once: `true` as soon as one is ready.
fn look(begin: Instant, spin: Duration, ready: impl Fn() -> bool) -> bool {
    loop {
        for _ in 0..LOOKS {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if begin.elapsed() >= spin {
            return false;
        }
    }
}

/// The error of [`QueuePair::arm`] without an interrupt.
pub fn no_interrupt(device: &str) -> Error {
    Error::NotOffered {
        device: device.to_owned(),
        what: "an interrupt: it has none, or was started without; poll instead (Waiting::Poll)"
            .to_owned(),
    }
}

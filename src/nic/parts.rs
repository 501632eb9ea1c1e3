//! Parts for authors of drivers, which the drivers here are made of, too.
//!
//! | for | part |
//! |---|---|
//! | waits with a bound | [`poll_until`], [`wait_until`], [`await_link`] |
//! | what a ring may be asked, and when | [`RingState`](crate::ring_state::RingState) |
//! | a batch that is posted, and what of it can be sent | [`Front`], [`TxLimits`] |
//! | a ring whose descriptors have an OWN bit | [`OwnRing`], [`OwnDescriptor`] |
//! | frames of several buffers | [`FrameAssembler`], or [`Longest`] alone |
//! | the interrupt of a pair | [`one_interrupt`], [`no_interrupt`] |
//! | memory of a device that did not stop | [`OwnRing::quarantine`], [`Pool::quarantine`](crate::dma::Pool::quarantine), [`DmaArray::quarantine`](crate::dma::DmaArray::quarantine) |
//! | views for people | [`read_registers`], [`OwnRing::view`] |
//!
//! Beside them: [`registers!`](crate::registers) and [`descriptor!`](crate::descriptor); the barriers of
//! [`barrier`](crate::barrier). [`prelude`](super::prelude) has all of it for one `use`.

use std::time::Duration;

pub use super::assembler::{Filled, FrameAssembler};
pub use super::await_link;
pub use super::front::Front;
pub use super::limits::TxLimits;
pub use super::longest::Longest;
pub use super::own_ring::{OwnDescriptor, OwnRing, Piece, Posted};
pub use crate::inspect::read_registers;
pub use crate::wait::no_interrupt;
pub use crate::wait::poll_until;

use super::Waiting;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::irq::{Irq, IrqKind};

/// Waits until `done`, at most `bound` long.
///
/// # Errors
/// [`Error::Timeout`] of `device`: `what` did not happen.
pub fn wait_until(
    device: &str,
    what: &'static str,
    bound: Duration,
    done: impl FnMut() -> bool,
) -> Result<()> {
    match poll_until(bound, done) {
        true => Ok(()),
        false => Err(Error::Timeout {
            device: device.to_owned(),
            what,
            bound,
            remedy: "the device is stuck: power the machine (or the VM) off and on",
        }),
    }
}

/// The interrupt of a card's only pair, of this kind; one that never comes where the card is polled.
///
/// # Errors
/// As [`Backend::interrupts`].
pub fn one_interrupt(backend: &impl Backend, kind: IrqKind, waiting: Waiting) -> Result<Irq> {
    match waiting {
        Waiting::Poll => Irq::never(),
        _ => Ok(backend.interrupts(kind, 1)?.remove(0)),
    }
}

//! Parts for authors of drivers, which the drivers here are made of, too.
//!
//! Beside them: [`RingState`](crate::ring_state::RingState), which every ring looks at; [`registers!`](crate::registers)
//! and [`descriptor!`](crate::descriptor); the barriers of [`barrier`](crate::barrier).

pub use super::await_link;
pub use super::front::Front;
pub use super::longest::Longest;
pub use super::pair::no_interrupt;
pub use crate::inspect::read_registers;
pub use crate::wait::poll_until;

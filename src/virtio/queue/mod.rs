//! Virtqueues, split (§2.7) and packed (§2.8): rings in memory that the device reads and writes.

mod chains;
mod desc;
mod event;
mod packed;
mod ring;
mod split;

pub use desc::{DescFlags, describe_packed, describe_split};
pub use event::{need_event, need_event_packed};
pub use packed::Packed;
pub use ring::{Areas, Piece, Ring, RingConfig, Sink, Used};
pub use split::Split;

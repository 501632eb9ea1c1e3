//! Views for people: registers, rings and features as plain values, taken from a device at one moment.

mod registers;
mod view;

pub use registers::read_registers;
pub use view::{
    FeatureView, Owner, PackedIndices, RegisterView, RingIndices, RingView, SlotView, SplitIndices,
};

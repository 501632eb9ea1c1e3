//! Views for people: registers, rings and features as plain values, taken from a device at one moment.

mod registers;
mod view;

pub use registers::read_registers;
pub use view::{
    FeatureView, Owner, PackedIndices, RegisterView, RingIndices, RingView, SlotView, SplitIndices,
};

use crate::mmio::{Place, RegInfo};

/// A card's registers and rings, for people to look at. A driver that shows nothing implements it with an empty block.
pub trait Inspect {
    /// The features that driver and device negotiated, if the card has such a thing.
    fn features(&self) -> Vec<FeatureView> {
        Vec::new()
    }

    /// The declarations of its registers.
    fn register_table(&self) -> &'static [RegInfo] {
        &[]
    }

    /// The register at `place`, and its index in an array.
    fn register_at(&self, place: Place) -> Option<(&'static RegInfo, usize)> {
        let _ = place;
        None
    }

    /// All registers that can be read without changing them, now.
    fn registers(&self) -> Vec<RegisterView> {
        Vec::new()
    }

    /// Its rings, now.
    fn rings(&self) -> Vec<RingView> {
        Vec::new()
    }
}

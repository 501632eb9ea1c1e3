//! A run, recorded and told: step by step, and as what a card looks like at one moment.

pub mod explain;
pub mod json;
pub mod text;

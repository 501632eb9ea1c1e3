//! Network cards: one folder a driver.
pub mod e1000;

//! Rates, round by round.

use super::measure::Run;
use crate::lab::spread::Spread;

/// The row that the others are a share of.
pub const LIMIT: &str = "limit";

/// All rounds of one contender with one size.
#[derive(Debug)]
pub struct Line {
    /// Bytes of the frame.
    pub size: usize,
    /// Name of the contender.
    pub what: &'static str,
    /// Its rounds.
    pub runs: Vec<Run>,
}

/// Rates of all contenders.
#[derive(Debug, Default)]
pub struct Rates {
    /// Each contender with each size.
    pub lines: Vec<Line>,
    /// Rounds that were finished, of all sizes.
    pub finished: u64,
}

impl Line {
    /// Frames a second.
    pub fn rate(&self) -> Spread {
        let none = Spread {
            median: 0.0,
            min: 0.0,
            max: 0.0,
        };
        Spread::of(self.runs.iter().map(Run::rate)).unwrap_or(none)
    }

    /// Frames a second, the middle of the rounds.
    pub fn median(&self) -> f64 {
        self.rate().median
    }

    /// Frames that went all the way, of all rounds.
    pub fn frames(&self) -> u64 {
        self.runs.iter().map(|run| run.frames).sum()
    }

    /// Frames that did not.
    pub fn lost(&self) -> u64 {
        self.runs.iter().map(|run| run.lost).sum()
    }
}

//! Times of round trips.

use std::time::Duration;

/// All round trips of one contender with one size.
#[derive(Debug)]
pub struct Trips {
    /// Bytes of the frame.
    pub size: usize,
    /// Name of the contender.
    pub what: &'static str,
    /// Each trip that came to its end.
    pub took: Vec<Duration>,
    /// Those that did not.
    pub lost: u64,
}

/// All round trips.
#[derive(Debug, Default)]
pub struct RoundTrips {
    /// Each contender with each size.
    pub rows: Vec<Trips>,
    /// Rounds that were finished, of all sizes.
    pub finished: u64,
}

/// Figures of round trips, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// The shortest.
    pub min: f64,
    /// The middle one.
    pub median: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Trips {
    /// Its figures; `None` where no trip came to its end.
    pub fn figures(&self) -> Option<Figures> {
        let mut micros: Vec<f64> = self
            .took
            .iter()
            .map(|trip| trip.as_secs_f64() * 1e6)
            .collect();
        micros.sort_by(f64::total_cmp);
        let last = micros.len().checked_sub(1)?;
        let at = |share: f64| micros[(last as f64 * share).round() as usize];
        Some(Figures {
            min: at(0.0),
            median: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        })
    }
}

//! How a rate is taken: in chunks long enough that reading the clock costs nothing, round after
//! round, all contenders in turn, so that what disturbs the machine disturbs them alike.

use std::time::{Duration, Instant};

use pinwire::{Error, Result};

use crate::cli::interrupted;

/// Long enough to time, short enough to be interrupted between two.
const CHUNK: Duration = Duration::from_millis(20);

/// Frames of the first chunk; doubled until one takes [`CHUNK`].
const FIRST: u64 = 256;

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Run {
    /// Frames that went all the way.
    pub frames: u64,
    /// Frames that did not.
    pub lost: u64,
    /// How long it took.
    pub took: Duration,
}

/// Runs about so many frames.
pub type Runner<'a> = Box<dyn FnMut(u64) -> Result<Run> + 'a>;

/// Something that is measured.
pub struct Contender<'a> {
    /// What the table calls it.
    pub name: &'static str,
    run: Runner<'a>,
    chunk: u64,
}

impl<'a> Contender<'a> {
    /// `run` under the name `name`.
    pub fn new(name: &'static str, run: impl FnMut(u64) -> Result<Run> + 'a) -> Self {
        Self {
            name,
            run: Box::new(run),
            chunk: FIRST,
        }
    }

    /// One round of at least `at_least`. The chunks that find out how long a chunk is do not count:
    /// they warm up.
    ///
    /// # Errors
    /// What the runs give; [`Error::Interrupted`].
    pub fn round(&mut self, at_least: Duration) -> Result<Run> {
        let mut total = Run::default();
        let deadline = Instant::now() + at_least * 20 + Duration::from_secs(10);
        while total.took < at_least {
            if interrupted() {
                return Err(Error::Interrupted);
            }
            let run = (self.run)(self.chunk)?;
            if run.took < CHUNK.min(at_least) {
                self.chunk *= 2;
            } else {
                total.frames += run.frames;
                total.lost += run.lost;
                total.took += run.took;
            }
            if Instant::now() > deadline {
                break;
            }
        }
        Ok(total)
    }
}

/// The middle of some rates, and how far they went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of the runs' frames per second; zero where there are none.
    pub fn of(runs: &[Run]) -> Self {
        let rate = |run: &Run| match run.took.is_zero() {
            true => 0.0,
            false => run.frames as f64 / run.took.as_secs_f64(),
        };
        let mut rates: Vec<f64> = runs.iter().map(rate).collect();
        rates.sort_by(f64::total_cmp);
        let at = |index: usize| rates.get(index).copied().unwrap_or(0.0);
        let (half, last) = (rates.len() / 2, rates.len().saturating_sub(1));
        Self {
            median: match rates.len() % 2 {
                0 => (at(half.saturating_sub(1)) + at(half)) / 2.0,
                _ => at(half),
            },
            min: at(0),
            max: at(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(frames: u64, millis: u64) -> Run {
        Run {
            frames,
            lost: 0,
            took: Duration::from_millis(millis),
        }
    }

    #[test]
    fn the_median_of_few() {
        let spread = |runs: &[Run]| {
            let Spread { median, min, max } = Spread::of(runs);
            (median, min, max)
        };
        assert_eq!(spread(&[]), (0.0, 0.0, 0.0));
        assert_eq!(spread(&[run(5, 1000)]), (5.0, 5.0, 5.0));
        assert_eq!(spread(&[run(9, 1000), run(5, 1000)]), (7.0, 5.0, 9.0));
        let three = [run(9, 1000), run(1, 1000), run(2, 500)];
        assert_eq!(spread(&three), (4.0, 1.0, 9.0));
    }

    #[test]
    fn a_round_counts_no_chunk_that_is_too_short_to_time() {
        let mut sizes = Vec::new();
        // A million frames a second.
        let mut contender = Contender::new("fast", |frames| {
            sizes.push(frames);
            Ok(Run {
                frames,
                lost: 1,
                took: Duration::from_micros(frames),
            })
        });
        let total = contender.round(Duration::from_millis(50)).unwrap();
        assert_eq!((total.frames, total.lost), (2 * 32768, 2));
        contender.round(Duration::from_millis(50)).unwrap();
        drop(contender);
        assert_eq!(
            sizes,
            [
                256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 32768, 32768, 32768
            ]
        );
    }
}

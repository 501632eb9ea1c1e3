//! Measurement of rates, in chunks long enough that reading the clock costs nothing. In a round all contenders take
//! turns chunk by chunk, so that what disturbs the machine disturbs them alike.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::{Error, Result};

/// Long enough to time, short enough that nothing disturbs one contender for long.
const CHUNK: Duration = Duration::from_millis(20);

/// This part of a chunk is run before it and does not count.
const WARM_UP: u64 = 8;

/// Frames of the first chunk; doubled until one takes [`CHUNK`].
const FIRST: u64 = 256;

/// Counts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Run {
    /// Frames that went all the way.
    pub frames: u64,
    /// Frames that did not.
    pub lost: u64,
    /// Time that it took.
    pub took: Duration,
}

/// Runs about so many frames.
pub type Runner<'a> = Box<dyn FnMut(u64) -> Result<Run> + 'a>;

/// Something that is measured.
pub struct Contender<'a> {
    /// Its name in the table.
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

    fn one_chunk(&mut self, stop: &AtomicBool) -> Result<Run> {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        (self.run)(self.chunk)
    }

    /// Finds out how many frames a chunk is, which also warms up. Ends where `stop` is set.
    ///
    /// # Errors
    /// Errors of the runs; [`Error::Interrupted`].
    pub fn calibrate(&mut self, stop: &AtomicBool) -> Result<()> {
        while self.one_chunk(stop)?.took < CHUNK {
            self.chunk *= 2;
        }
        Ok(())
    }
}

/// A round: each contender runs for at least `at_least`, in turn with the others, until `stop` is set.
///
/// # Errors
/// As [`Contender::calibrate`].
pub fn round(
    contenders: &mut [Contender<'_>],
    at_least: Duration,
    stop: &AtomicBool,
) -> Result<Vec<Run>> {
    let mut totals = vec![Run::default(); contenders.len()];
    while totals.iter().any(|total| total.took < at_least) {
        for (contender, total) in contenders.iter_mut().zip(&mut totals) {
            // What the one before has left to do, and caches that hold its data, shall not count.
            (contender.run)(contender.chunk / WARM_UP)?;
            let run = contender.one_chunk(stop)?;
            total.frames += run.frames;
            total.lost += run.lost;
            total.took += run.took;
        }
    }
    Ok(totals)
}

impl Run {
    /// Frames a second.
    pub fn rate(&self) -> f64 {
        match self.took.is_zero() {
            true => 0.0,
            false => self.frames as f64 / self.took.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_take_turns_and_each_gets_its_time() {
        let turns = std::cell::RefCell::new(String::new());
        let contender = |name: &'static str, frames_a_second: f64| {
            // Each turn is warmed up.
            let turns = &turns;
            Contender::new(name, move |frames| {
                turns.borrow_mut().push_str(name);
                Ok(Run {
                    frames,
                    lost: 1,
                    took: Duration::from_secs_f64(frames as f64 / frames_a_second),
                })
            })
        };
        // Chunks of 256 frames that take 25.6 and 51.2 ms.
        let mut contenders = [contender("f", 1e4), contender("s", 5e3)];
        let runs = round(
            &mut contenders,
            Duration::from_millis(60),
            &AtomicBool::new(false),
        )
        .unwrap();
        let frames: Vec<_> = runs.iter().map(|run| (run.frames, run.lost)).collect();
        assert_eq!(frames, [(768, 3), (768, 3)]);
        assert_eq!(*turns.borrow(), "ffssffssffss");
    }

    #[test]
    fn a_chunk_is_long_enough_to_be_timed() {
        let mut fast = Contender::new("a million a second", |frames| {
            Ok(Run {
                frames,
                lost: 0,
                took: Duration::from_micros(frames),
            })
        });
        fast.calibrate(&AtomicBool::new(false)).unwrap();
        assert_eq!(fast.chunk, 32768);
    }
}

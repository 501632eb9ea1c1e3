//! Forwarding: one card of ours sends, two forward, a fourth receives, all worked by one thread.
//!
//! As fast as it goes, a batch is sent when the one before has arrived. At a part of that rate the
//! clock says when the next batch is due, however far the forwarding is; what does not arrive was
//! lost on the way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::measure::Run;
use super::rx::{CardSender, LOST, Sender};
use crate::net::Forward;
use crate::nic::{Nic, Received};
use crate::{Error, Result};

/// Rounds between two looks at the clock.
const LOOKS: u32 = 1024;

/// The four cards.
pub struct Relay<'a> {
    pub sender: CardSender<'a>,
    pub forward: Forward<'a>,
    pub sink: &'a mut dyn Nic,
    pub came: Vec<Received>,
    /// Ends every wait.
    pub stop: &'a AtomicBool,
}

impl Relay<'_> {
    /// One round of the forwarding; gives how many frames have arrived.
    fn step(&mut self) -> Result<u64> {
        self.forward.round(u64::MAX, None)?;
        let came = self.sink.recv(&mut self.came, 256)?;
        self.came.clear();
        Ok(came as u64)
    }

    /// Waits for `most` frames, or until nothing has come for [`LOST`].
    fn arrive(&mut self, most: u64) -> Result<u64> {
        let (mut came, mut rounds, mut since) = (0, 0u32, Instant::now());
        while came < most {
            let more = self.step()?;
            came += more;
            rounds = rounds.wrapping_add(1);
            if more > 0 {
                rounds = 0;
            } else if rounds == 1 {
                since = Instant::now();
            } else if rounds.is_multiple_of(LOOKS) && since.elapsed() > LOST {
                break;
            }
        }
        Ok(came)
    }

    /// Sends until something arrives: links come up.
    ///
    /// # Errors
    /// [`Error::Usage`] where nothing does within `bound`.
    pub fn warm_up(&mut self, bound: Duration) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < bound {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            self.sender.batch()?;
            if self.arrive(1)? > 0 {
                while self.arrive(u64::MAX)? > 0 {}
                return Ok(());
            }
        }
        Err(Error::Usage(
            "nothing arrived: is the sender on the wire of the first card, and the receiver on that of the second?"
                .to_owned(),
        ))
    }

    /// `frames` frames as fast as they go.
    ///
    /// # Errors
    /// Errors of a card.
    pub fn run(&mut self, frames: u64) -> Result<Run> {
        let start = Instant::now();
        let mut run = Run::default();
        while run.frames + run.lost < frames {
            let sent = self.sender.batch()?;
            let came = self.arrive(sent)?;
            run.frames += came;
            run.lost += sent.saturating_sub(came);
        }
        run.took = start.elapsed();
        Ok(run)
    }

    /// `rate` frames a second for `bound`, whether they arrive or not.
    ///
    /// # Errors
    /// Errors of a card; [`Error::Interrupted`].
    pub fn run_paced(&mut self, rate: f64, bound: Duration) -> Result<Run> {
        let (start, mut sent, mut came) = (Instant::now(), 0, 0);
        loop {
            let now = start.elapsed();
            if now >= bound {
                break;
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if sent as f64 <= now.as_secs_f64() * rate {
                sent += self.sender.batch()?;
            }
            came += self.step()?;
        }
        came += self.arrive(sent.saturating_sub(came))?;
        Ok(Run {
            frames: came,
            lost: sent.saturating_sub(came),
            took: start.elapsed(),
        })
    }
}

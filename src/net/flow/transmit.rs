//! The loop that sends: frames from a source, through a card, at a pace.
//!
//! It fills a batch, hands it over with one doorbell, takes back what the card is through with, and
//! gives those frames to the source for their buffers. Unpaced, it neither looks at the clock nor
//! calls the system while the card keeps up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::nic::{Frame, Nic};

/// Longest time for which the card may do nothing with the frames that it was given.
const STUCK: Duration = Duration::from_secs(2);
/// Idle rounds between two looks at the clock.
const LOOK: u32 = 4096;
/// Idle rounds after which the processor is let go in between.
const PATIENCE: u32 = 16 * LOOK;

/// Longest sleep, so that a request to stop is heard.
const NAP: Duration = Duration::from_millis(50);
/// A wait for the next packet of a recording that people are told of.
const LONG: Duration = Duration::from_secs(10);

/// Source of frames.
pub trait Source {
    /// The next frame. `spent` is one that the card is through with, for its buffers.
    ///
    /// # Errors
    /// Ends the sending, once what came before has left.
    fn next(&mut self, spent: Option<Frame>) -> Result<Next>;

    /// Time at which the frame that [`Source::next`] gave last is due, counted from the first.
    fn due(&self) -> Duration {
        Duration::ZERO
    }

    /// Waits until there may be more, after [`Next::NotYet`]: at most `bound` long, or until a signal.
    ///
    /// # Errors
    /// If the system cannot wait.
    fn wait(&mut self, bound: Duration) -> Result<()> {
        std::thread::sleep(bound);
        Ok(())
    }

    /// Bytes that the processor has written into frames so far.
    fn by_cpu(&self) -> CpuBytes;
}

/// The next thing of a [`Source`].
#[derive(Debug)]
pub enum Next {
    /// A frame.
    Frame(Frame),
    /// No buffer is free: come again when the card is through with some.
    Wait,
    /// Nothing yet, but more may come from elsewhere: send what there is, then [`Source::wait`].
    NotYet,
    /// Nothing any more.
    End,
}

/// Bytes that the processor wrote into frames; all others were read by the card where they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuBytes {
    /// Headers that it made.
    pub headers: u64,
    /// Payload that it copied.
    pub payload: u64,
}

/// Pace of sending.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As the card takes them.
    Max,
    /// Each frame when it is due.
    AsDue,
    /// So many frames a second.
    PerSecond(f64),
}

/// Manner of sending.
#[derive(Debug, Clone, Copy)]
pub struct Manner<'a> {
    /// Its pace.
    pub pace: Pace,
    /// Frames a doorbell, at most.
    pub batch: usize,
    /// Ends the sending when it becomes true.
    pub stop: &'a AtomicBool,
    /// Told of a long wait as it begins, which could be taken for a hang: which packet is waited for, and how
    /// long.
    pub announce: fn(u64, &str),
}

/// Progress; another thread may read it while one counts.
#[derive(Debug, Default)]
pub struct Progress {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    /// Counts on; one thread does.
    pub fn add(&self, frames: usize, bytes: usize) {
        // No need of an atomic addition, which would cost more.
        let add = |counter: &AtomicU64, count: usize| {
            let sum = counter.load(Ordering::Relaxed) + count as u64;
            counter.store(sum, Ordering::Relaxed);
        };
        add(&self.frames, frames);
        add(&self.bytes, bytes);
    }

    /// Frames that are done.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Bytes of them, without padding and frame check sequence.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Sends all that `source` has. Whatever ends it, what the card was given has left before.
///
/// # Errors
/// Errors of the source and of the card; [`Error::Interrupted`] at `stop`; [`Error::DeviceGone`]
/// or [`Error::Timeout`] where the card does nothing for 2 seconds.
pub fn transmit(
    nic: &mut dyn Nic,
    source: &mut (impl Source + ?Sized),
    manner: Manner<'_>,
    progress: &Progress,
) -> Result<()> {
    let mut feed = Feed {
        batch: Vec::with_capacity(manner.batch),
        // As many as a ring may give back at once.
        spent: Vec::with_capacity(4096),
        held: None,
        clock: None,
        taken: 0,
        dry: false,
        announced: 0,
        manner,
    };
    let mut idle = Idle::default();
    let mut end = None;
    loop {
        let completed = feed.take_completed(nic, progress)?;
        if end.is_none() {
            end = if manner.stop.load(Ordering::Relaxed) {
                feed.batch.clear();
                Some(Err(Error::Interrupted))
            } else {
                feed.fill(source).transpose()
            };
        }
        let sent = nic.send(&mut feed.batch).unwrap_or_else(|error| {
            // Before what the source may have said of frames that come after.
            feed.batch.clear();
            end = Some(Err(error));
            0
        });
        if feed.batch.is_empty() && nic.in_flight() == 0 && end.is_some() {
            return end.unwrap_or(Ok(()));
        }
        let waits = feed.waits_for_clock();
        let dry = feed.dry && feed.batch.is_empty() && end.is_none();
        let nothing_owed = nic.in_flight() == 0 && (sent > 0 || waits.is_some() || dry);
        if completed > 0 || nothing_owed {
            idle = Idle::default();
        }
        match waits {
            Some(due) => {
                rest(due);
                idle.look(nic)?;
            }
            // Where somebody else takes his time, nobody needs the processor.
            None if dry && nothing_owed => {
                source.wait(NAP)?;
                nic.pair(0).check_running()?;
            }
            None if completed == 0 && sent == 0 => idle.round(nic)?,
            None => {}
        }
    }
}

struct Feed<'a> {
    batch: Vec<Frame>,
    spent: Vec<Frame>,
    /// A frame that is not due yet, and when it is.
    held: Option<(Frame, Duration)>,
    /// Time at which the first frame was due, if there is a pace.
    clock: Option<Instant>,
    /// Frames taken from the source.
    taken: u64,
    /// The source has nothing yet.
    dry: bool,
    /// The frame whose wait was told of last.
    announced: u64,
    manner: Manner<'a>,
}

impl Feed<'_> {
    fn take_completed(&mut self, nic: &mut dyn Nic, progress: &Progress) -> Result<usize> {
        let before = self.spent.len();
        let completed = nic.completed(&mut self.spent)?;
        if completed > 0 {
            let bytes = self.spent[before..].iter().map(Frame::len).sum();
            progress.add(completed, bytes);
        }
        Ok(completed)
    }

    /// Fills the batch; `Some` at the source's end.
    fn fill(&mut self, source: &mut (impl Source + ?Sized)) -> Result<Option<()>> {
        self.dry = false;
        while self.batch.len() < self.manner.batch {
            let (frame, due) = match self.held.take() {
                Some(held) => held,
                None => match source.next(self.spent.pop())? {
                    Next::Frame(frame) => {
                        let due = self.due(source);
                        self.taken += 1;
                        (frame, due)
                    }
                    Next::Wait => {
                        // Frames that nobody asked for may hold the buffers that are missing.
                        self.spent.clear();
                        break;
                    }
                    Next::NotYet => {
                        self.dry = true;
                        break;
                    }
                    Next::End => return Ok(Some(())),
                },
            };
            if self.manner.pace != Pace::Max {
                let now = self.clock.get_or_insert_with(Instant::now).elapsed();
                if now < due {
                    self.announce(due - now);
                    self.held = Some((frame, due));
                    break;
                }
            }
            self.batch.push(frame);
        }
        Ok(None)
    }

    /// Tells of a wait that could be taken for a hang, as it begins.
    fn announce(&mut self, wait: Duration) {
        if self.manner.pace == Pace::AsDue && wait >= LONG && self.announced != self.taken {
            self.announced = self.taken;
            (self.manner.announce)(self.taken, &told(wait));
        }
    }

    fn due(&self, source: &(impl Source + ?Sized)) -> Duration {
        match self.manner.pace {
            Pace::Max => Duration::ZERO,
            Pace::AsDue => source.due(),
            Pace::PerSecond(rate) => {
                let seconds = self.taken as f64 / rate;
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            }
        }
    }

    /// Time until the frame that is held may go; `None` if no clock holds us up.
    fn waits_for_clock(&self) -> Option<Duration> {
        let (_, due) = self.held.as_ref()?;
        Some(due.saturating_sub(self.clock?.elapsed()))
    }
}

/// A stretch of time for people: `3 h 12 min`.
fn told(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// Waits, for `due` at most: a long wait sleeps, and the last stretch spins, since sleep oversleeps.
fn rest(due: Duration) {
    const SLACK: Duration = Duration::from_millis(1);
    match due.checked_sub(SLACK) {
        Some(nap) if nap > SLACK => std::thread::sleep(nap.min(NAP)),
        _ => std::hint::spin_loop(),
    }
}

/// Rounds in which nothing happened.
#[derive(Default)]
struct Idle {
    rounds: u32,
    since: Option<Instant>,
}

impl Idle {
    /// Counts a round, and looks at the clock every [`LOOK`].
    fn round(&mut self, nic: &dyn Nic) -> Result<()> {
        std::hint::spin_loop();
        self.rounds = self.rounds.wrapping_add(1);
        if !self.rounds.is_multiple_of(LOOK) {
            return Ok(());
        }
        if self.rounds > PATIENCE {
            std::thread::sleep(Duration::from_micros(50));
        }
        self.look(nic)
    }

    fn look(&mut self, nic: &dyn Nic) -> Result<()> {
        if self.since.get_or_insert_with(Instant::now).elapsed() <= STUCK {
            return Ok(());
        }
        nic.check()?;
        Err(Error::Timeout {
            device: nic.name().to_owned(),
            what: "the sending of what the card was given",
            bound: STUCK,
            remedy: "is the link up? look at the ring: pinwire show",
        })
    }
}

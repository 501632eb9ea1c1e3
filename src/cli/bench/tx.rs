//! The transmit loop as a program would write it: send a batch, take back what is done, go on.

use std::time::{Duration, Instant};

use pinwire::dma::{Frame, Pool};
use pinwire::nic::Nic;
use pinwire::{Error, Result};

use super::measure::Run;

/// Times that we look for frames that are done before asking whether the card still lives.
const PATIENCE: u32 = 1 << 16;

/// How long a card may take for one batch.
const BOUND: Duration = Duration::from_secs(5);

/// Frames that go round and round.
pub struct Tx {
    /// The batch that is sent next.
    ready: Vec<Frame>,
    /// Frames taken back.
    done: Vec<Frame>,
    batch: usize,
    all: usize,
}

impl Tx {
    /// As many batches of `batch` frames like `frame` as fit into a ring of `ring` descriptors at
    /// once, so that the card has one to send while we fill the next.
    ///
    /// # Errors
    /// No memory.
    pub fn new(nic: &dyn Nic, frame: &[u8], batch: usize, ring: usize) -> Result<Self> {
        // One descriptor of a ring stays empty.
        let all = ((ring - 1) / batch).max(1) * batch;
        let pool = Pool::new(nic.dma(), all, frame.len())?;
        let mut done = Vec::with_capacity(all);
        while let Some(mut buf) = pool.take() {
            buf.fill(frame);
            done.push(Frame::from(buf));
        }
        let ready = done.drain(all - batch..).collect();
        Ok(Self {
            ready,
            done,
            batch,
            all,
        })
    }

    /// Sends at least `frames` frames, in whole batches, and waits until the last is out.
    ///
    /// # Errors
    /// What the card gives; [`Error::Timeout`].
    pub fn run(&mut self, nic: &mut dyn Nic, frames: u64) -> Result<Run> {
        let batches = frames.div_ceil(self.batch as u64);
        let start = Instant::now();
        for _ in 0..batches {
            // There is room: no more frames exist than the ring holds.
            nic.send(&mut self.ready)?;
            self.reap(nic, self.batch)?;
            if self.done.len() == self.batch {
                std::mem::swap(&mut self.ready, &mut self.done);
            } else {
                let newest = self.done.len() - self.batch;
                self.ready.extend(self.done.drain(newest..));
            }
        }
        self.reap(nic, self.all - self.batch)?;
        Ok(Run {
            frames: batches * self.batch as u64,
            lost: 0,
            took: start.elapsed(),
        })
    }

    /// Takes frames back until there are at least `least`.
    fn reap(&mut self, nic: &mut dyn Nic, least: usize) -> Result<()> {
        let mut looks = 0;
        let mut since = None;
        nic.reap(&mut self.done)?;
        while self.done.len() < least {
            nic.reap(&mut self.done)?;
            looks += 1;
            if looks == PATIENCE {
                looks = 0;
                nic.check()?;
                if since.get_or_insert_with(Instant::now).elapsed() > BOUND {
                    return Err(Error::Timeout {
                        device: nic.name().to_owned(),
                        what: "sending a batch",
                        bound: BOUND,
                        remedy: "is its link up? try: pinwire show DEVICE --registers",
                    });
                }
            }
            std::hint::spin_loop();
        }
        Ok(())
    }
}

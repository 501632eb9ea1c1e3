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
    /// The batch taken back last.
    done: Vec<Frame>,
    /// More batches, for a card that takes its time.
    stock: Vec<Frame>,
    batch: usize,
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
        let mut stock = Vec::with_capacity(all);
        while let Some(mut buf) = pool.take() {
            buf.fill(frame);
            stock.push(Frame::from(buf));
        }
        Ok(Self {
            ready: stock.drain(all - batch..).collect(),
            done: Vec::with_capacity(all),
            stock,
            batch,
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
            nic.reap(&mut self.done)?;
            if self.done.len() == self.batch {
                // A card that keeps up.
                std::mem::swap(&mut self.ready, &mut self.done);
            } else {
                self.refill(nic)?;
            }
        }
        while nic.in_flight() > 0 {
            self.reap(nic)?;
        }
        Ok(Run {
            frames: batches * self.batch as u64,
            lost: 0,
            took: start.elapsed(),
        })
    }

    /// The next batch comes from the stock, and what was taken back goes there.
    #[cold]
    fn refill(&mut self, nic: &mut dyn Nic) -> Result<()> {
        self.stock.append(&mut self.done);
        while self.stock.len() < self.batch {
            self.reap(nic)?;
        }
        let newest = self.stock.len() - self.batch;
        self.ready.extend(self.stock.drain(newest..));
        Ok(())
    }

    /// Takes frames back into the stock: at least one.
    fn reap(&mut self, nic: &mut dyn Nic) -> Result<()> {
        let mut looks = 0;
        let mut since = None;
        while nic.reap(&mut self.stock)? == 0 {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use pinwire::nic::{NicConfig, e1000::E1000};

    use super::*;
    use crate::cli::bench::model;

    const LENGTH: usize = 60;

    /// Runs 100 batches of 8 on a card that takes `most` descriptors at a time, by itself; 0 is one
    /// that works as the tail moves.
    fn run(most: usize) {
        let (fake, card) = model::Model::fake();
        model::lock(&card).eager = most == 0;
        let memory = Arc::clone(fake.memory());
        let mut nic = E1000::start(fake, &NicConfig::default()).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while most > 0 && !over.load(Ordering::Relaxed) {
                    model::lock(&card).step_tx(&memory, most);
                    std::thread::yield_now();
                }
            });
            let mut tx = Tx::new(&nic, &[1; LENGTH], 8, 64).unwrap();
            for _ in 0..2 {
                let run = tx.run(&mut nic, 795).unwrap();
                assert_eq!((run.frames, run.lost), (800, 0));
                assert_eq!(nic.in_flight(), 0);
            }
            over.store(true, Ordering::Relaxed);
        });
        let sent = &model::lock(&card).sent;
        assert_eq!(sent.len(), 1600);
        assert!(sent.iter().all(|frame| *frame == [1; LENGTH]));
    }

    #[test]
    fn a_card_that_keeps_up_gets_every_batch() {
        run(0);
    }

    #[test]
    fn a_card_that_is_slow_gets_every_batch() {
        for most in [1, 3, 8, 13] {
            run(most);
        }
    }
}

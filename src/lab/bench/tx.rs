//! The transmit loop as a program would write it: send a batch, take back what is done, go on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::measure::Run;
use crate::dma::{DmaSpace, Pool};
use crate::nic::{Frame, Nic, QueuePair};
use crate::{Error, Result};

/// Times that we look for frames that are done before looking at the clock.
const PATIENCE: u32 = 1 << 16;

/// Longest time for a card to send one batch.
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
    /// Makes as many batches of `batch` frames like `frame` as fit into a ring of `ring` descriptors at once, so that
    /// the card has one to send while we fill the next.
    ///
    /// # Errors
    /// No memory; [`Error::Usage`] for a batch that does not fit into the ring.
    pub fn new(nic: &dyn Nic, frame: &[u8], batch: usize, ring: usize) -> Result<Self> {
        let capacity = nic.tx_capacity(ring);
        if batch > capacity {
            return Err(Error::Usage(format!(
                "{} has room for {capacity} frames in its ring: not for a batch of {batch}",
                nic.name()
            )));
        }
        let all = capacity / batch * batch;
        Self::within(nic.dma(), frame, batch, all)
    }

    /// The same with `all` frames.
    fn within(dma: &Arc<dyn DmaSpace>, frame: &[u8], batch: usize, all: usize) -> Result<Self> {
        let pool = Pool::new(dma, all, frame.len())?;
        let mut stock = Vec::with_capacity(all);
        while let Some(mut buf) = pool.alloc() {
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
    /// Errors of the card; [`Error::Timeout`].
    pub fn run(&mut self, pair: &mut dyn QueuePair, frames: u64) -> Result<Run> {
        let batches = frames.div_ceil(self.batch as u64);
        let start = Instant::now();
        for _ in 0..batches {
            // There is room: no more frames exist than the ring holds.
            pair.send(&mut self.ready)?;
            pair.completed(&mut self.done)?;
            if self.done.len() == self.batch {
                // A card that keeps up.
                std::mem::swap(&mut self.ready, &mut self.done);
            } else {
                self.refill(pair)?;
            }
        }
        while pair.in_flight() > 0 {
            self.take_completed(pair)?;
        }
        Ok(Run {
            frames: batches * self.batch as u64,
            lost: 0,
            took: start.elapsed(),
        })
    }

    /// The next batch comes from the stock, and what was taken back goes there.
    #[cold]
    fn refill(&mut self, pair: &mut dyn QueuePair) -> Result<()> {
        self.stock.append(&mut self.done);
        while self.stock.len() < self.batch {
            self.take_completed(pair)?;
        }
        let newest = self.stock.len() - self.batch;
        self.ready.extend(self.stock.drain(newest..));
        Ok(())
    }

    /// Takes frames back into the stock: at least one.
    fn take_completed(&mut self, pair: &mut dyn QueuePair) -> Result<()> {
        let mut looks = 0;
        let mut since = None;
        // Without a hint to the processor that we spin: a VM without KVM takes it as a reason to wait for
        // the device model's lock, and the next batch is late.
        while pair.completed(&mut self.stock)? == 0 {
            looks += 1;
            if looks == PATIENCE {
                looks = 0;
                if since.get_or_insert_with(Instant::now).elapsed() > BOUND {
                    return Err(Error::Timeout {
                        device: "the card".to_owned(),
                        what: "sending a batch",
                        bound: BOUND,
                        remedy: "is it still there, and its link up?",
                    });
                }
            }
        }
        Ok(())
    }
}

/// A [`Tx`] for each queue pair of a card.
pub struct Threads(Vec<Tx>);

impl Threads {
    /// Makes one for each queue pair, as [`Tx::new`].
    ///
    /// # Errors
    /// As there.
    pub fn new(nic: &dyn Nic, frame: &[u8], batch: usize, ring: usize) -> Result<Self> {
        let one = |_| Tx::new(nic, frame, batch, ring);
        Ok(Self((0..nic.queues()).map(one).collect::<Result<_>>()?))
    }

    /// Sends at least `frames` frames by the first `queues` pairs, each on a thread of its own.
    ///
    /// # Errors
    /// As [`Tx::run`].
    pub fn run(&mut self, nic: &mut dyn Nic, queues: usize, frames: u64) -> Result<Run> {
        if queues == 1 {
            return self.0[0].run(nic.pair_mut(0), frames);
        }
        let each = frames.div_ceil(queues as u64);
        let pairs = nic.split().into_iter().take(queues);
        let start = Instant::now();
        let sent: Result<Vec<Run>> = std::thread::scope(|scope| {
            let threads: Vec<_> = pairs
                .zip(&mut self.0)
                .map(|(pair, tx)| scope.spawn(move || tx.run(pair, each)))
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined
                .map(|run| run.expect("a thread that does not panic"))
                .collect()
        });
        Ok(Run {
            frames: sent?.iter().map(|run| run.frames).sum(),
            lost: 0,
            took: start.elapsed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, BorrowedFd};

    use crate::backend::{Backend, Fake};
    use crate::irq::Irq;
    use crate::nic::{Received, Wait, Waiting};

    use super::*;

    const LENGTH: usize = 60;
    const BATCH: usize = 8;
    const RING: usize = 64;

    /// A pair whose card finishes at most `most` frames between two looks.
    struct Slow {
        most: usize,
        posted: Vec<Frame>,
        /// Number of those that the card was told of.
        told: usize,
        sent: usize,
    }

    impl QueuePair for Slow {
        fn submit(&mut self, frames: &mut Vec<Frame>) -> Result<usize> {
            let count = frames.len().min(RING - self.posted.len());
            self.posted.extend(frames.drain(..count));
            Ok(count)
        }

        fn doorbell(&mut self) -> Result<()> {
            self.told = self.posted.len();
            Ok(())
        }

        fn completed(&mut self, done: &mut Vec<Frame>) -> Result<usize> {
            let count = self.told.min(self.most);
            let mut sent = self.posted[..count].iter();
            assert!(sent.all(|frame| frame.to_vec() == [1; LENGTH]));
            self.told -= count;
            self.sent += count;
            done.extend(self.posted.drain(..count));
            Ok(count)
        }

        fn in_flight(&self) -> usize {
            self.posted.len()
        }

        fn recv(&mut self, _: &mut Vec<Received>, _: usize) -> Result<usize> {
            unimplemented!("it sends")
        }

        fn rx_pool(&self) -> &Pool {
            unimplemented!("it sends")
        }
    }

    impl Wait for Slow {
        fn check_running(&self) -> Result<()> {
            Ok(())
        }

        fn is_ready(&self) -> bool {
            self.told > 0
        }

        fn arm(&mut self) -> Result<bool> {
            unimplemented!("it is polled")
        }

        fn disarm(&mut self) -> Result<()> {
            unimplemented!("it is polled")
        }

        fn irq(&self) -> Option<&Irq> {
            None
        }

        fn waiting(&self) -> Waiting {
            Waiting::Poll
        }
    }

    impl AsFd for Slow {
        fn as_fd(&self) -> BorrowedFd<'_> {
            unimplemented!("it is polled")
        }
    }

    /// Sends twice, 800 frames each time, by a card that finishes `most` frames between two looks.
    fn run(most: usize) {
        let fake = Fake::idle();
        let mut tx = Tx::within(fake.dma(), &[1; LENGTH], BATCH, RING).unwrap();
        let mut slow = Slow {
            most,
            posted: Vec::new(),
            told: 0,
            sent: 0,
        };
        for _ in 0..2 {
            let run = tx.run(&mut slow, 795).unwrap();
            assert_eq!((run.frames, run.lost), (800, 0));
            assert_eq!(slow.in_flight(), 0);
        }
        assert_eq!(slow.sent, 1600);
    }

    #[test]
    fn a_card_that_keeps_up_gets_every_batch() {
        run(usize::MAX);
    }

    #[test]
    fn a_card_that_is_slow_gets_every_batch() {
        for most in [1, 3, BATCH, 13] {
            run(most);
        }
    }
}

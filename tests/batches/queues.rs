//! Batches that go through a virtqueue. Nothing is inlined into a benchmark, where it would be another thing for a chain
//! of one piece.

use std::sync::{Arc, Mutex};

use pinwire::backend::{Backend, Fake, FakeMemory};
use pinwire::dma::Pool;
use pinwire::nic::Frame;
use pinwire::virtio::{Piece, Ring, RingConfig};

use super::{BATCH, device_at_work};
use crate::fakes::virtio::NoDevice;
use crate::fakes::virtio::queue::{Agreed, Queue};

const SIZE: u16 = 256;

/// The device: it uses all there is at once.
struct Device {
    queue: Queue,
    memory: Arc<FakeMemory>,
    in_order: bool,
}

impl Device {
    fn work(&mut self) {
        device_at_work(|| {
            let mut chains = Vec::new();
            while let Some(chain) = self.queue.take(&self.memory) {
                chains.push(chain);
            }
            if self.in_order {
                self.queue.give_up_to(&self.memory, &chains, 0);
            } else {
                for chain in &chains {
                    self.queue.give(&self.memory, chain, 0);
                }
            }
            self.queue.must_interrupt(&self.memory);
            self.queue.ask(&self.memory);
        });
    }
}

/// A virtqueue, its device, and a batch of frames.
pub struct Passing<R> {
    ring: R,
    device: Device,
    frames: Vec<Frame>,
    // The frames' memory.
    _pool: Pool,
}

impl<R: Ring<Frame>> Passing<R> {
    /// A queue that is set up as the driver of a network card would.
    pub fn new(packed: bool, in_order: bool) -> Self {
        let fake = Fake::new(Arc::new(Mutex::new(NoDevice([0; 256]))), 4096);
        let config = RingConfig {
            device: "fake".to_owned(),
            index: 0,
            size: SIZE,
            event_idx: true,
            indirect: true,
            in_order,
            notification_data: false,
        };
        let ring = R::new(fake.dma(), &config).expect("memory");
        let areas = ring.areas();
        let agreed = Agreed {
            packed,
            event_idx: true,
            indirect: true,
            in_order,
        };
        let (desc, driver, device) = (areas.descriptors.0, areas.driver.0, areas.device.0);
        let pool = Pool::new(fake.dma(), BATCH, 2048).expect("memory");
        let frames = (0..BATCH).map(|_| super::cards::buffer(&pool, 64));
        Self {
            ring,
            device: Device {
                queue: Queue::new(SIZE, desc, driver, device, agreed),
                memory: Arc::clone(fake.memory()),
                in_order,
            },
            frames: frames.collect(),
            _pool: pool,
        }
    }

    /// Sends all frames there and back, `batches` times, all at once.
    #[inline(never)]
    pub fn all_at_once(&mut self, batches: usize) {
        for _ in 0..batches {
            let first = |frame: &mut Frame| Some(piece(frame));
            assert_eq!(self.ring.submit_front(&mut self.frames, first), BATCH);
            assert!(self.ring.publish().is_some(), "the device asked");
            self.device.work();
            let popped = self.ring.poll_into(BATCH, &mut self.frames);
            assert_eq!(popped.expect("a device that tells the truth"), BATCH);
        }
    }

    /// Sends all frames there and back, `batches` times, each as a chain of `pieces`.
    #[inline(never)]
    pub fn one_by_one(&mut self, pieces: usize, batches: usize) {
        for _ in 0..batches {
            for frame in self.frames.drain(..) {
                let piece = piece(&frame);
                let pushed = match pieces {
                    1 => self.ring.submit(&[piece], 1, frame),
                    _ => self.ring.submit(&[piece; 8][..pieces], 1, frame),
                };
                pushed.expect("room");
            }
            assert!(self.ring.publish().is_some(), "the device asked");
            self.device.work();
            while let Some(used) = self.ring.poll().expect("a device that tells the truth") {
                self.frames.push(used.token);
            }
            assert_eq!(self.frames.len(), BATCH);
        }
    }
}

/// The first segment of `frame`, for a descriptor.
fn piece(frame: &Frame) -> Piece {
    let segment = frame.first();
    Piece {
        iova: segment.iova(),
        len: segment.len() as u32,
    }
}

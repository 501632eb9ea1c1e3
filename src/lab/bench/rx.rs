//! The receive loop as a program would write it, and who sends: another card of ours on the same
//! wire, or a socket of this host that QEMU's card is plugged into.
//!
//! Sender and receiver take turns on one thread, a batch at a time, so that what is lost was lost on
//! the way and not for want of a processor.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::measure::Run;
use super::tx::Tx;
use crate::lab::bench::af_packet::Recvmmsg;
use crate::nic::{Nic, Received};
use crate::{Error, Result};

/// Looks at the ring between two looks at the clock.
const LOOKS: u32 = 4096;

/// Time after which a frame that has not come is lost.
pub const LOST: Duration = Duration::from_millis(20);

/// Longest wait for the first frame: a link that comes up, a switch that learns.
const FIRST: Duration = Duration::from_secs(10);

/// Silence after which nothing more comes.
const QUIET: Duration = Duration::from_millis(50);

/// A sender of one batch at a time.
pub trait Sender {
    /// Sends one batch; gives how many frames.
    ///
    /// # Errors
    /// Errors of the card and of the system.
    fn batch(&mut self) -> Result<u64>;
}

/// Another card of ours.
pub struct CardSender<'a> {
    pub nic: &'a mut dyn Nic,
    pub tx: Tx,
    pub batch: u64,
}

impl Sender for CardSender<'_> {
    fn batch(&mut self) -> Result<u64> {
        Ok(self.tx.run(self.nic.pair_mut(0), self.batch)?.frames)
    }
}

/// A UDP socket, one frame a datagram, as QEMU's dgram netdev takes them.
pub struct UdpSender {
    socket: UdpSocket,
    frame: Vec<u8>,
    batch: u64,
}

impl UdpSender {
    /// Sends `frame` to `to` by batches of `batch`.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn new(to: SocketAddr, frame: Vec<u8>, batch: u64) -> Result<Self> {
        let os = |error| Error::io(format!("opening a socket to {to}"), error);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(os)?;
        socket.connect(to).map_err(os)?;
        Ok(Self {
            socket,
            frame,
            batch,
        })
    }
}

impl Sender for UdpSender {
    fn batch(&mut self) -> Result<u64> {
        for _ in 0..self.batch {
            let os = |error| Error::io("sending a datagram to QEMU (does it listen there?)", error);
            self.socket.send(&self.frame).map_err(os)?;
        }
        Ok(self.batch)
    }
}

/// The part that the clock runs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timed {
    /// Sending and receiving.
    All,
    /// Sending: where QEMU's cards are on one hub, all that the cards do.
    Sender,
}

/// Frames on their way in.
pub struct Rx {
    got: Vec<Received>,
    batch: usize,
}

impl Rx {
    /// Takes `batch` frames at a time.
    pub fn new(batch: usize) -> Self {
        Self {
            got: Vec::with_capacity(batch),
            batch,
        }
    }

    /// Sends until something comes in.
    ///
    /// # Errors
    /// [`Error::Usage`] where nothing does.
    pub fn warm_up(&mut self, nic: &mut dyn Nic, sender: &mut dyn Sender) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < FIRST {
            sender.batch()?;
            if self.drain(nic)? > 0 {
                return Ok(());
            }
        }
        Err(Error::Usage(format!(
            "{}: nothing came in: are sender and receiver on the same wire?",
            nic.name()
        )))
    }

    /// Takes what comes until nothing does; gives how many frames.
    ///
    /// # Errors
    /// Errors of the card.
    pub fn drain(&mut self, nic: &mut dyn Nic) -> Result<u64> {
        let (mut count, mut last) = (0, Instant::now());
        while last.elapsed() < QUIET {
            let came = nic.recv(&mut self.got, self.batch)?;
            self.got.clear();
            if came > 0 {
                count += came as u64;
                last = Instant::now();
            }
        }
        Ok(count)
    }

    /// Lets `sender` send at least `frames` frames and receives them. What is timed is all of it, or the sender's
    /// part.
    ///
    /// # Errors
    /// Errors of the cards.
    pub fn run(
        &mut self,
        nic: &mut dyn Nic,
        sender: &mut dyn Sender,
        frames: u64,
        timed: Timed,
    ) -> Result<Run> {
        let start = Instant::now();
        let mut run = Run::default();
        while run.frames + run.lost < frames {
            let batch = match timed {
                Timed::All => sender.batch()?,
                Timed::Sender => {
                    let start = Instant::now();
                    let batch = sender.batch()?;
                    run.took += start.elapsed();
                    batch
                }
            };
            let came = self.receive(nic, batch)?;
            run.frames += came;
            run.lost += batch.saturating_sub(came);
        }
        if timed == Timed::All {
            run.took = start.elapsed();
        }
        Ok(run)
    }

    /// The same through the kernel's socket, which sleeps where nothing has come.
    ///
    /// # Errors
    /// Errors of the card and of the kernel.
    pub fn run_kernel(socket: &mut Recvmmsg, sender: &mut dyn Sender, frames: u64) -> Result<Run> {
        let start = Instant::now();
        let mut run = Run::default();
        while run.frames + run.lost < frames {
            let batch = sender.batch()?;
            let mut came = 0;
            while came < batch {
                match socket.take()? {
                    0 => break,
                    more => came += more,
                }
            }
            run.frames += came;
            run.lost += batch.saturating_sub(came);
        }
        run.took = start.elapsed();
        Ok(run)
    }

    /// Receives `most` frames, or those that come before nothing does for [`LOST`].
    fn receive(&mut self, nic: &mut dyn Nic, most: u64) -> Result<u64> {
        let (mut count, mut looks, mut since) = (0, 0, None);
        while count < most {
            let came = nic.recv(&mut self.got, self.batch)? as u64;
            // Dropping the frames gives the buffers back.
            self.got.clear();
            count += came;
            looks += 1;
            if came > 0 {
                (looks, since) = (0, None);
            } else if looks == LOOKS {
                looks = 0;
                if since.get_or_insert_with(Instant::now).elapsed() > LOST {
                    break;
                }
            }
        }
        Ok(count)
    }
}

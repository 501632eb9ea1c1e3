//! One frame there and back, again and again: what a round trip takes while nothing else is under
//! way.
//!
//! The other end is a second card of ours, which is polled, and sends each frame back out of the
//! buffer that it came in. Both ends are worked by one thread, so that no scheduler has a say; what
//! differs between the contenders is how the first end learns that the frame is back: from the ring
//! in memory, or from an interrupt that it asked for and slept on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::SendFlags;

use super::trips::Trips;
use crate::dma::Pool;
use crate::lab::bench::af_packet::Recvmmsg;
use crate::net::EXPERIMENTAL;
use crate::nic::{Frame, Nic, QueuePair, Received};
use crate::{Error, Result};

/// Time after which a frame that has not come back is lost.
const LOST: Duration = Duration::from_secs(2);
/// Looks at a ring between two looks at the clock.
const LOOKS: u32 = 1 << 12;

/// Sends a frame and learns that it is back.
pub trait Caller {
    /// Sends it.
    ///
    /// # Errors
    /// Errors of the card and of the kernel.
    fn call(&mut self) -> Result<()>;

    /// Waits until it is back, [`LOST`] at most; returns whether it was.
    ///
    /// # Errors
    /// As [`Caller::call`].
    fn wait(&mut self) -> Result<bool>;
}

/// The manner in which our own end waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Looks at the ring.
    Poll,
    /// Sleeps until the interrupt.
    Interrupt,
}

/// A card of ours.
pub struct Ours<'a> {
    nic: &'a mut dyn Nic,
    frame: Vec<u8>,
    pool: Pool,
    out: Vec<Frame>,
    came: Vec<Received>,
    manner: Manner,
    /// An interrupt was asked for, and nothing was there yet.
    armed: bool,
}

impl<'a> Ours<'a> {
    /// Sends `frame`, and waits in `manner`.
    ///
    /// # Errors
    /// No memory.
    pub fn new(nic: &'a mut dyn Nic, frame: Vec<u8>, manner: Manner) -> Result<Self> {
        Ok(Self {
            pool: Pool::new(nic.dma(), 4, frame.len())?,
            nic,
            frame,
            out: Vec::with_capacity(4),
            came: Vec::with_capacity(64),
            manner,
            armed: false,
        })
    }

    /// Asks for an interrupt, for what comes and not for what has left.
    fn arm(&mut self) -> Result<()> {
        let pair = self.nic.pair_mut(0);
        pair.completed(&mut self.out)?;
        self.out.clear();
        self.armed = !pair.arm()?;
        Ok(())
    }

    fn is_back(&mut self) -> Result<bool> {
        let pair = self.nic.pair_mut(0);
        pair.recv(&mut self.came, 64)?;
        let back = self.came.iter().any(is_ours);
        self.came.clear();
        Ok(back)
    }
}

impl Caller for Ours<'_> {
    fn call(&mut self) -> Result<()> {
        let pair = self.nic.pair_mut(0);
        pair.completed(&mut self.out)?;
        self.out.clear();
        let mut buf = self.pool.alloc().ok_or_else(|| {
            Error::Usage("the card does not give back the frames that it has sent".to_owned())
        })?;
        buf.fill(&self.frame);
        self.out.push(buf.into());
        pair.send(&mut self.out)?;
        match self.manner {
            Manner::Poll => Ok(()),
            Manner::Interrupt => self.arm(),
        }
    }

    fn wait(&mut self) -> Result<bool> {
        let begin = Instant::now();
        while begin.elapsed() <= LOST {
            if self.manner == Manner::Interrupt {
                let pair = self.nic.pair_mut(0);
                if let Some(irq) = pair.irq().filter(|_| self.armed) {
                    irq.wait(LOST)?;
                }
                pair.disarm()?;
            }
            for _ in 0..LOOKS {
                if self.is_back()? {
                    return Ok(true);
                }
                if self.manner == Manner::Interrupt {
                    // It was for the frame that left.
                    self.arm()?;
                    break;
                }
            }
        }
        Ok(false)
    }
}

/// The kernel's interface, with an AF_PACKET socket.
pub struct Kernel {
    socket: Recvmmsg,
    frame: Vec<u8>,
}

impl Kernel {
    /// Opens a socket on the interface `index`.
    ///
    /// # Errors
    /// As [`Recvmmsg::new`].
    pub fn new(index: u32, frame: Vec<u8>) -> Result<Self> {
        Ok(Self {
            socket: Recvmmsg::new(index, LOST)?,
            frame,
        })
    }
}

impl Caller for Kernel {
    fn call(&mut self) -> Result<()> {
        let sent = rustix::net::send(self.socket.socket(), &self.frame, SendFlags::empty());
        sent.map(drop)
            .map_err(|errno| Error::io("sending on the AF_PACKET socket", errno.into()))
    }

    fn wait(&mut self) -> Result<bool> {
        Ok(self.socket.take()? > 0)
    }
}

/// The other end.
pub struct Mirror<'a> {
    nic: &'a mut dyn Nic,
    came: Vec<Received>,
    out: Vec<Frame>,
}

impl<'a> Mirror<'a> {
    /// `nic` sends back what comes in of our frames.
    pub fn new(nic: &'a mut dyn Nic) -> Self {
        Self {
            nic,
            came: Vec::with_capacity(64),
            out: Vec::with_capacity(64),
        }
    }

    /// Waits for a frame and sends it back; returns whether there was one.
    fn reflect(&mut self) -> Result<bool> {
        let begin = Instant::now();
        let pair: &mut dyn QueuePair = self.nic.pair_mut(0);
        loop {
            for _ in 0..LOOKS {
                pair.recv(&mut self.came, 64)?;
                for received in self.came.drain(..) {
                    if is_ours(&received)
                        && let Ok(mut buf) = received.frame.into_buf()
                        && let (Some(to), Some(from)) = (buf.array::<6>(0), buf.array::<6>(6))
                    {
                        buf.put(0, &from);
                        buf.put(6, &to);
                        self.out.push(buf.into());
                    }
                }
                if !self.out.is_empty() {
                    pair.send(&mut self.out)?;
                    // The frames before this one: their buffers are needed again.
                    pair.completed(&mut self.out)?;
                    self.out.clear();
                    return Ok(true);
                }
            }
            if begin.elapsed() > LOST {
                return Ok(false);
            }
        }
    }
}

/// Returns whether it is one of the frames that go round. What else is on the wire is not counted.
fn is_ours(received: &Received) -> bool {
    received.frame.ethertype() == Some(EXPERIMENTAL)
}

/// Round trips for `at_least` so long, added to `trips`: what each took, and how many were lost.
///
/// # Errors
/// Errors of the ends; [`Error::Interrupted`].
pub fn run(
    caller: &mut dyn Caller,
    mirror: &mut Mirror<'_>,
    at_least: Duration,
    trips: &mut Trips,
    stop: &AtomicBool,
) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < at_least {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let start = Instant::now();
        caller.call()?;
        if mirror.reflect()? && caller.wait()? {
            trips.took.push(start.elapsed());
        } else {
            trips.lost += 1;
        }
    }
    Ok(())
}

/// Checks that there is a way from the caller to the mirror and back. Tries for `bound`.
///
/// # Errors
/// [`Error::Usage`] where nothing comes back.
pub fn warm_up(
    caller: &mut dyn Caller,
    mirror: &mut Mirror<'_>,
    bound: Duration,
    stop: &AtomicBool,
) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < bound {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        caller.call()?;
        if mirror.reflect()? && caller.wait()? {
            return Ok(());
        }
    }
    Err(Error::Usage(
        "nothing came back: are both cards on the same wire?".to_owned(),
    ))
}

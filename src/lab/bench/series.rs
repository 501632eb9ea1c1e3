//! Whole measurements: each size and each contender, round by round. Each round that is finished is in the
//! result, whatever becomes of the next.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::af_packet::{Interface, Recvmmsg, Sendmmsg, Sendto, TxRing};
use super::forward::Relay;
use super::measure::{self, Contender, Run};
use super::rates::{LIMIT, Line, Rates};
use super::rtt::{self, Caller, Manner, Mirror, Ours};
use super::rx::{self, CardSender, Rx, Timed, UdpSender};
use super::synthetic;
use super::trips::{RoundTrips, Trips};
use super::tx::{Threads, Tx};
use crate::net::{Forward, NOBODY};
use crate::nic::Nic;
use crate::{Error, Result};

/// The row of what two cards forward.
pub const FORWARD: &str = "forward";

/// Part of the fastest rate at which nothing may be lost.
const PART: f64 = 0.8;

/// Longest time that a link may take until the first frame is back.
const LINK: Duration = Duration::from_secs(10);

/// Listener to the progress of a measurement.
pub trait Audience {
    /// Frames of so many bytes are next.
    fn size(&self, bytes: usize);

    /// A round is finished.
    fn round(&self);
}

/// Settings that all measurements have in common.
pub struct Series<'a> {
    /// Bytes of the frames.
    pub sizes: &'a [usize],
    /// Least time of a round.
    pub at_least: Duration,
    /// Rounds of each size.
    pub rounds: u16,
    /// Frames a doorbell.
    pub batch: usize,
    /// Descriptors of each ring.
    pub ring: usize,
    /// Ends it.
    pub stop: &'a AtomicBool,
    /// Told of the progress.
    pub audience: &'a dyn Audience,
}

impl Series<'_> {
    /// The device's own speed, where its driver measures that, beside it what the driver sends by 1 to `queues`
    /// pairs, and what the kernel sends by `interface`.
    ///
    /// # Errors
    /// Errors of a card and of the kernel; [`Error::Interrupted`].
    pub fn transmit(
        &self,
        nic: &mut dyn Nic,
        queues: usize,
        interface: Option<&Interface>,
        rates: &mut Rates,
    ) -> Result<()> {
        for size in self.sizes.iter().copied() {
            let frame = synthetic::frame(nic.mac(), NOBODY, size);
            let threads = RefCell::new(Threads::new(nic, &frame, self.batch, self.ring)?);
            let has_limit = has_limit(nic, size, self.batch)?;
            let nic = RefCell::new(&mut *nic);
            let mut contenders = Vec::new();
            if has_limit {
                contenders.push(Contender::new(LIMIT, |frames| {
                    limit(*nic.borrow_mut(), size, self.batch, frames)
                }));
            }
            for queues in 1..=queues {
                let (nic, threads) = (&nic, &threads);
                contenders.push(Contender::new(tx_name(queues), move |frames| {
                    threads.borrow_mut().run(*nic.borrow_mut(), queues, frames)
                }));
            }
            if let Some(Interface { index, .. }) = interface {
                let mut sendto = Sendto::new(*index, &frame)?;
                let mut sendmmsg = Sendmmsg::new(*index, &frame)?;
                let mut ring = TxRing::new(*index, &frame)?;
                contenders.extend([
                    Contender::new("AF_PACKET sendto", move |frames| sendto.run(frames)),
                    Contender::new("AF_PACKET sendmmsg x64", move |frames| sendmmsg.run(frames)),
                    Contender::new("AF_PACKET TX_RING", move |frames| ring.run(frames)),
                ]);
            }
            self.measure(size, &mut contenders, rates)?;
        }
        Ok(())
    }

    /// Measures the frames that the driver receives of a socket, which QEMU's card is plugged into.
    ///
    /// # Errors
    /// As [`Series::transmit`].
    pub fn receive_datagrams(
        &self,
        nic: &mut dyn Nic,
        address: SocketAddr,
        rates: &mut Rates,
    ) -> Result<()> {
        for size in self.sizes.iter().copied() {
            let frame = synthetic::frame(NOBODY, nic.mac(), size);
            let mut sender = UdpSender::new(address, frame, self.batch as u64)?;
            let mut rx = Rx::new(self.batch);
            rx.warm_up(nic, &mut sender)?;
            let mut contenders = [Contender::new("rx", |frames| {
                rx.run(nic, &mut sender, frames, Timed::All)
            })];
            self.measure(size, &mut contenders, rates)?;
        }
        Ok(())
    }

    /// Measures the frames that the driver receives of another card of ours, beside those that the cards alone move
    /// and those that the kernel receives by `interface`.
    ///
    /// # Errors
    /// As [`Series::transmit`].
    pub fn receive(
        &self,
        nic: &mut dyn Nic,
        card: &mut dyn Nic,
        interface: Option<&Interface>,
        rates: &mut Rates,
    ) -> Result<()> {
        for size in self.sizes.iter().copied() {
            let frame = synthetic::frame(card.mac(), nic.mac(), size);
            let tx = Tx::new(card, &frame, self.batch, self.ring)?;
            let kernel = self.kernel_receiver(interface, card, size)?;
            let mut sender = CardSender {
                nic: &mut *card,
                tx,
                batch: self.batch as u64,
            };
            let mut rx = Rx::new(self.batch);
            rx.warm_up(nic, &mut sender)?;
            let wire = RefCell::new((&mut *nic, rx, sender));
            let contender = |name, timed| {
                let wire = &wire;
                Contender::new(name, move |frames| {
                    let (nic, rx, sender) = &mut *wire.borrow_mut();
                    rx.run(*nic, sender, frames, timed)
                })
            };
            let mut contenders = vec![contender(LIMIT, Timed::Sender), contender("rx", Timed::All)];
            if let Some((mut socket, mut tx)) = kernel {
                let wire = &wire;
                contenders.push(Contender::new("AF_PACKET recvmmsg x64", move |frames| {
                    let (_, _, sender) = &mut *wire.borrow_mut();
                    // The same card, sending to the other address.
                    std::mem::swap(&mut sender.tx, &mut tx);
                    let run = Rx::run_kernel(&mut socket, sender, frames);
                    std::mem::swap(&mut sender.tx, &mut tx);
                    run
                }));
            }
            self.measure(size, &mut contenders, rates)?;
        }
        Ok(())
    }

    /// The kernel's end of the wire, and frames for it.
    fn kernel_receiver(
        &self,
        interface: Option<&Interface>,
        card: &dyn Nic,
        size: usize,
    ) -> Result<Option<(Recvmmsg, Tx)>> {
        let Some(interface) = interface else {
            return Ok(None);
        };
        let frame = synthetic::frame(card.mac(), interface.mac()?, size);
        let tx = Tx::new(card, &frame, self.batch, self.ring)?;
        Ok(Some((Recvmmsg::new(interface.index, rx::LOST)?, tx)))
    }

    /// Round trips through `other`, which sends each frame back: polled, by interrupt, and the kernel's by
    /// `interface`.
    ///
    /// # Errors
    /// As [`Series::transmit`].
    pub fn round_trips(
        &self,
        nic: &mut dyn Nic,
        other: &mut dyn Nic,
        interface: Option<&Interface>,
        trips: &mut RoundTrips,
    ) -> Result<()> {
        for size in self.sizes.iter().copied() {
            self.audience.size(size);
            let to = other.mac();
            let frame = synthetic::frame(nic.mac(), to, size);
            let mut mirror = Mirror::new(&mut *other);
            let mut names = vec!["poll", "interrupt"];
            let mut kernel = match interface {
                Some(interface) => {
                    names.push("AF_PACKET");
                    let frame = synthetic::frame(interface.mac()?, to, size);
                    Some(rtt::Kernel::new(interface.index, frame)?)
                }
                None => None,
            };
            let first = trips.rows.len();
            trips.rows.extend(names.into_iter().map(|what| Trips {
                size,
                what,
                took: Vec::new(),
                lost: 0,
            }));
            for round in 0..self.rounds {
                for row in &mut trips.rows[first..] {
                    let mut ours;
                    let caller: &mut dyn Caller = match row.what {
                        "AF_PACKET" => kernel.as_mut().expect("its row is there"),
                        "poll" => {
                            ours = Ours::new(nic, frame.clone(), Manner::Poll)?;
                            &mut ours
                        }
                        _ => {
                            ours = Ours::new(nic, frame.clone(), Manner::Interrupt)?;
                            &mut ours
                        }
                    };
                    if round == 0 {
                        rtt::warm_up(caller, &mut mirror, LINK, self.stop)?;
                    }
                    rtt::run(caller, &mut mirror, self.at_least, row, self.stop)?;
                }
                trips.finished += 1;
                tracing::info!("{size} bytes: {} rounds are finished", trips.finished);
                self.audience.round();
            }
        }
        Ok(())
    }

    /// Measures the frames that two cards forward, from `sender` to `sink`: as fast as it goes, then at 0.8 of that.
    ///
    /// # Errors
    /// As [`Series::transmit`].
    pub fn forward(
        &self,
        (a, b): (&mut dyn Nic, &mut dyn Nic),
        sender: &mut dyn Nic,
        sink: &mut dyn Nic,
        rates: &mut Rates,
    ) -> Result<()> {
        for size in self.sizes.iter().copied() {
            let frame = synthetic::frame(sender.mac(), sink.mac(), size);
            let mut relay = Relay {
                sender: CardSender {
                    tx: Tx::new(sender, &frame, self.batch, self.ring)?,
                    nic: &mut *sender,
                    batch: self.batch as u64,
                },
                forward: Forward::new(&mut *a, &mut *b, self.batch)?,
                sink: &mut *sink,
                came: Vec::with_capacity(256),
                stop: self.stop,
            };
            relay.warm_up(LINK)?;
            let fastest = rates.lines.len();
            {
                let mut contenders = [Contender::new(FORWARD, |frames| relay.run(frames))];
                self.measure(size, &mut contenders, rates)?;
            }
            let rate = rates.lines[fastest].median() * PART;
            rates.lines.push(Line {
                size,
                what: "forward at 0.8",
                runs: Vec::new(),
            });
            for _ in 0..self.rounds {
                let run = relay.run_paced(rate, self.at_least)?;
                rates.lines[fastest + 1].runs.push(run);
                rates.finished += 1;
                self.audience.round();
            }
        }
        Ok(())
    }

    /// All rounds of one size.
    fn measure(
        &self,
        size: usize,
        contenders: &mut [Contender<'_>],
        rates: &mut Rates,
    ) -> Result<()> {
        self.audience.size(size);
        let line = |contender: &Contender<'_>| Line {
            size,
            what: contender.name,
            runs: Vec::new(),
        };
        let first = rates.lines.len();
        rates.lines.extend(contenders.iter().map(line));
        for contender in contenders.iter_mut() {
            contender.calibrate(self.stop)?;
        }
        for _ in 0..self.rounds {
            let runs = measure::round(contenders, self.at_least, self.stop)?;
            for (line, run) in rates.lines[first..].iter_mut().zip(runs) {
                line.runs.push(run);
            }
            rates.finished += 1;
            tracing::info!("{size} bytes: {} rounds are finished", rates.finished);
            self.audience.round();
        }
        Ok(())
    }
}

/// Name of the row in the table.
fn tx_name(queues: usize) -> &'static str {
    match queues {
        1 => "tx",
        queues => format!("tx, {queues} queues").leak(),
    }
}

/// Returns whether the driver measures the device's own speed: one that does not is measured beside nothing.
fn has_limit(nic: &mut dyn Nic, size: usize, batch: usize) -> Result<bool> {
    match limit(nic, size, batch, batch as u64) {
        Ok(_) => Ok(true),
        Err(Error::NotOffered { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The device's own speed.
fn limit(nic: &mut dyn Nic, size: usize, batch: usize, frames: u64) -> Result<Run> {
    let frames = frames.next_multiple_of(batch as u64);
    Ok(Run {
        frames,
        lost: 0,
        took: nic.limit(size, batch, frames)?,
    })
}

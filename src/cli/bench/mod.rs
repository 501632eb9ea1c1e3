//! `pinwire bench`: packets per second, beside what the device itself can do.

mod kernel;
mod measure;
#[cfg(test)]
#[path = "../../../tests/model/mod.rs"]
mod model;
mod report;
mod rx;
mod tx;

use std::cell::RefCell;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use pinwire::net::NOBODY;
use pinwire::nic::{Nic, NicConfig};
use pinwire::{DeviceSpec, Error, Result};
use serde_json::json;

use self::kernel::{Interface, Sendmmsg, Sendto, TxRing};
use self::measure::{Contender, Run};
use self::report::{LIMIT, Line, Report};
use self::rx::{CardSender, Rx, Timed, UdpSender};
use self::tx::Tx;
use super::{Outcome, output, synthetic};

const NOTES: &str = "\
What is measured:
  limit  the device's own speed: a ring filled once, only its tail moves
  tx     frames sent by the driver and taken back, beside `limit`
  rx     frames received; --from says who sends them. Where a card does, `limit`
         is the same without the time that receiving takes

In a round all take turns, some milliseconds each, so that what disturbs the machine disturbs them \
alike. A rate is the median of the rounds, and so is a share, which compares within a round.

A size counts the bytes in memory, without the 4 of the frame check sequence that the card adds: 60 \
is the shortest frame on the wire, 1514 the longest without jumbo frames. Mbit/s count the same bytes.

Examples:
  pinwire bench qtest:e1000 tx
  pinwire bench 0000:00:03.0 tx --size 64 --kernel eth0
  pinwire bench 0000:00:03.0 rx --from 0000:00:04.0";

/// Measures packets per second
#[derive(clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// The card: a PCI address, or qtest:MODEL
    device: DeviceSpec,

    /// What to measure
    what: What,

    /// Bytes of the frames
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "64,128,256,512,1024,1514",
          value_parser = clap::value_parser!(u16).range(60..=1514))]
    size: Vec<u16>,

    /// Seconds of a round
    #[arg(long, value_name = "S", default_value_t = 0.5, value_parser = seconds)]
    seconds: f64,

    /// Rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,

    /// Frames a doorbell: a power of two, at most half of the ring
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,

    /// Descriptors of each ring: a power of two, 8 to 4096
    #[arg(long, value_name = "N", default_value_t = 256)]
    ring: usize,

    /// tx: measure AF_PACKET on this interface of the kernel, too: a card of the same kind. It is
    /// brought up for that and put back as it was
    #[arg(long, value_name = "IFACE")]
    kernel: Option<String>,

    /// Measure on an interface that has an address, too
    #[arg(long, requires = "kernel")]
    force: bool,

    /// rx: who sends: another card that pinwire may use, or udp:ADDRESS:PORT where QEMU listens
    #[arg(long, value_name = "DEVICE2", required_if_eq("what", "rx"))]
    from: Option<From>,

    /// For programs: one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// What the driver sends
    Tx,
    /// What the driver receives
    Rx,
    /// What the device can send
    Limit,
}

/// Who sends what `rx` receives.
#[derive(Clone)]
enum From {
    Card(DeviceSpec),
    Udp(SocketAddr),
}

impl FromStr for From {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix("udp:") {
            None => Ok(Self::Card(text.parse()?)),
            Some(address) => address.parse().map(Self::Udp).map_err(|_| {
                Error::Usage(format!(
                    "{address:?} is not ADDRESS:PORT; write udp:127.0.0.1:7000"
                ))
            }),
        }
    }
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number from 0.01 to 3600".to_owned()),
    }
}

impl Args {
    /// Runs it.
    pub fn run(self) -> Outcome {
        let config = NicConfig {
            tx_ring: self.ring,
            rx_ring: self.ring,
            ..NicConfig::default()
        };
        self.check()?;
        let mut nic = self.device.open(&config, None)?;
        let report = match self.what {
            What::Tx | What::Limit => self.transmit(nic.as_mut())?,
            What::Rx => self.receive(nic.as_mut(), &config)?,
        };
        let text = match self.json {
            true => {
                let report = json!({
                    "device": nic.name(),
                    "model": nic.model(),
                    "ring": self.ring,
                    "batch": self.batch,
                    "rounds": self.rounds,
                    "seconds": self.seconds,
                    "results": report.json(),
                });
                report.to_string()
            }
            false => format!(
                "{}, {}: ring {}, batch {}, medians of {} rounds of {} s\n{}",
                nic.name(),
                nic.model(),
                self.ring,
                self.batch,
                self.rounds,
                self.seconds,
                report.table()
            ),
        };
        nic.stop()?;
        output::line(text)
    }

    fn check(&self) -> Result<()> {
        let wrong = if !self.batch.is_power_of_two() || self.batch > self.ring / 2 {
            format!(
                "--batch {}: it must be a power of two, at most half of the ring ({})",
                self.batch, self.ring
            )
        } else if self.kernel.is_some() && self.what != What::Tx {
            "--kernel goes with tx: what it measures is sending".to_owned()
        } else if self.from.is_some() && self.what != What::Rx {
            "--from goes with rx: it says who sends".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::Usage(wrong))
    }

    fn sizes(&self) -> impl Iterator<Item = usize> {
        self.size.iter().map(|size| usize::from(*size))
    }

    /// `limit`, and `tx` and the kernel beside it.
    fn transmit(&self, nic: &mut dyn Nic) -> Result<Report> {
        let up = |name: &String| Interface::up(name, self.force);
        let interface = self.kernel.as_ref().map(up).transpose()?;
        let mut report = Report {
            ours: "tx",
            ..Report::default()
        };
        let progress = self.progress();
        for size in self.sizes() {
            let frame = synthetic::frame(nic.mac(), NOBODY, size);
            let mut tx = Tx::new(nic, &frame, self.batch, self.ring)?;
            let nic = RefCell::new(&mut *nic);
            let mut contenders = vec![Contender::new(LIMIT, |frames| {
                limit(*nic.borrow_mut(), size, self.batch, frames)
            })];
            if self.what == What::Tx {
                contenders.push(Contender::new("tx", |frames| {
                    tx.run(*nic.borrow_mut(), frames)
                }));
            }
            if let Some(Interface { index, .. }) = interface {
                let mut sendto = Sendto::new(index, &frame)?;
                let mut sendmmsg = Sendmmsg::new(index, &frame)?;
                let mut ring = TxRing::new(index, &frame)?;
                contenders.extend([
                    Contender::new("AF_PACKET sendto", move |frames| sendto.run(frames)),
                    Contender::new("AF_PACKET sendmmsg x64", move |frames| sendmmsg.run(frames)),
                    Contender::new("AF_PACKET TX_RING", move |frames| ring.run(frames)),
                ]);
            }
            report
                .lines
                .extend(self.measure(size, &mut contenders, &progress)?);
        }
        Ok(report)
    }

    /// `rx`; where a card sends, beside what the cards alone do.
    fn receive(&self, nic: &mut dyn Nic, config: &NicConfig) -> Result<Report> {
        let mut report = Report {
            ours: "rx",
            ..Report::default()
        };
        let batch = self.batch as u64;
        match self.from.as_ref().expect("required by the arguments") {
            From::Udp(address) => {
                let progress = self.progress();
                for size in self.sizes() {
                    let frame = synthetic::frame(NOBODY, nic.mac(), size);
                    let mut sender = UdpSender::new(*address, frame, batch)?;
                    let mut rx = Rx::new(self.batch);
                    rx.warm_up(nic, &mut sender)?;
                    let mut contenders = [Contender::new("rx", |frames| {
                        rx.run(nic, &mut sender, frames, Timed::All)
                    })];
                    report
                        .lines
                        .extend(self.measure(size, &mut contenders, &progress)?);
                }
            }
            From::Card(spec) => {
                let mut card = spec.open(config, None)?;
                let progress = self.progress();
                for size in self.sizes() {
                    let frame = synthetic::frame(card.mac(), nic.mac(), size);
                    let tx = Tx::new(card.as_ref(), &frame, self.batch, self.ring)?;
                    let mut sender = CardSender {
                        nic: card.as_mut(),
                        tx,
                        batch,
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
                    let mut contenders =
                        [contender(LIMIT, Timed::Sender), contender("rx", Timed::All)];
                    report
                        .lines
                        .extend(self.measure(size, &mut contenders, &progress)?);
                }
                card.stop()?;
            }
        }
        Ok(report)
    }

    /// All rounds.
    fn measure(
        &self,
        size: usize,
        contenders: &mut [Contender<'_>],
        progress: &ProgressBar,
    ) -> Result<Vec<Line>> {
        progress.set_message(format!("{size} bytes"));
        let line = |contender: &Contender<'_>| Line {
            size,
            what: contender.name,
            runs: Vec::new(),
        };
        let mut lines: Vec<Line> = contenders.iter().map(line).collect();
        for contender in contenders.iter_mut() {
            contender.calibrate()?;
        }
        for _ in 0..self.rounds {
            let runs = measure::round(contenders, Duration::from_secs_f64(self.seconds))?;
            for (line, run) in lines.iter_mut().zip(runs) {
                line.runs.push(run);
            }
            progress.inc(1);
        }
        Ok(lines)
    }

    /// A bar on a terminal; it is drawn between rounds only, so that it does not disturb them.
    fn progress(&self) -> ProgressBar {
        if !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let rounds = self.size.len() * usize::from(self.rounds);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}");
        ProgressBar::new(rounds as u64)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_finish(indicatif::ProgressFinish::AndClear)
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

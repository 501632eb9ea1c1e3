//! `pinwire bench`: packets per second, beside what the device itself can do.

mod report;
mod trips;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use self::report::Report;
use self::trips::TripReport;
use super::output::{self, Outcome};
use super::signals::INTERRUPTED;
use crate::lab::bench::af_packet::Interface;
use crate::lab::bench::rates::Rates;
use crate::lab::bench::series::{Audience, FORWARD, Series};
use crate::lab::bench::trips::RoundTrips;
use crate::nic::{Nic, NicConfig, Waiting};
use crate::open::Drivers;
use crate::{DeviceSpec, Error, Result};

pub use self::report::LINES;

const NOTES: &str = "\
What is measured:
  limit  the device's own speed: a ring filled once, only its tail moves. Left out
         where the driver does not measure it
  tx     frames sent by the driver and taken back, beside `limit`
  rx     frames received; --from says who sends them. Where a card does, `limit`
         is the same without the time that receiving takes
  rtt    one frame there and back, with nothing else under way: through the card
         that --through names, which sends it back
  forward  frames from the card --from, in by DEVICE, out by the card --to, and into
         the card --sink: as fast as it goes, and at 0.8 of that by the clock

In a round all take turns, some milliseconds each, so that what disturbs the machine disturbs them \
alike. A rate is the median of the rounds; \"of limit\", \"ours is\" and \"times polling\" are quotients of two \
medians in the same column. Ctrl-C ends it, and shows what was measured until then.

A size counts the bytes in memory, without the 4 of the frame check sequence that the card adds: 60 \
is the shortest frame on the wire, 1514 the longest without jumbo frames. Mbit/s count the same bytes.

Examples:
  pinwire bench qtest:e1000 tx
  pinwire bench 0000:00:03.0 tx --size 64 --kernel eth0
  pinwire bench 0000:00:03.0 tx --queues 4
  pinwire bench 0000:00:03.0 rx --from 0000:00:04.0 --kernel eth2
  pinwire bench 0000:00:03.0 rtt --through 0000:00:04.0 --kernel eth2 --size 64
  pinwire bench 0000:00:04.0 forward --to 0000:00:05.0 --from 0000:00:03.0 --sink 0000:00:06.0";

/// Measures packets per second
#[derive(clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// The card: a PCI address, or qtest:MODEL
    device: DeviceSpec,

    /// Measurement to run
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
    descriptors: usize,

    /// tx: measure with 1, 2, ... up to N queue pairs of the card, each with a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    queues: u16,

    /// Measure AF_PACKET on this interface of the kernel, too: a card of the same kind; for rx and rtt
    /// on the same wire. It is brought up for that and put back as it was
    #[arg(long, value_name = "IFACE")]
    kernel: Option<String>,

    /// Measure on an interface that has an address, too
    #[arg(long, requires = "kernel")]
    force: bool,

    /// rx, forward: who sends: another card that pinwire may use, or (rx) udp:ADDRESS:PORT where QEMU
    /// listens
    #[arg(long, value_name = "DEVICE2", required_if_eq_any([("what", "rx"), ("what", "forward")]))]
    from: Option<From>,

    /// rtt: the card that sends back what comes
    #[arg(long, value_name = "DEVICE2", required_if_eq("what", "rtt"))]
    through: Option<DeviceSpec>,

    /// forward: the card that the frames leave by
    #[arg(long, value_name = "DEVICE3", required_if_eq("what", "forward"))]
    to: Option<DeviceSpec>,

    /// forward: the card that the frames are for
    #[arg(long, value_name = "DEVICE4", required_if_eq("what", "forward"))]
    sink: Option<DeviceSpec>,

    /// For programs: one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Rate at which the driver sends
    Tx,
    /// Rate at which the driver receives
    Rx,
    /// Rate at which the device can send
    Limit,
    /// Round trip time of a frame
    Rtt,
    /// Rate at which two cards forward
    Forward,
}

/// The sender of the frames that `rx` receives.
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
    pub fn run(self, drivers: &Drivers) -> Outcome {
        self.check()?;
        let config = NicConfig::default()
            .tx_ring(self.descriptors)
            .rx_ring(self.descriptors)
            .queues(self.queues.into());
        let config = match self.what {
            What::Rtt => config
                .waiting(Waiting::Interrupt)
                .interrupt_interval(Duration::ZERO),
            _ => config,
        };
        let config = config.promiscuous(self.what == What::Forward);
        let together = std::iter::once(&self.device).chain(&self.to);
        let together: Vec<DeviceSpec> = together.cloned().collect();
        let mut cards = drivers.open_all(&together, &config, None)?;
        let (nic, to) = cards.split_first_mut().expect("one card at least");
        let nic = nic.as_mut();
        let measured = match self.what {
            What::Tx | What::Limit => {
                let mut rates = Rates::default();
                let ended = self.transmit(nic, &mut rates);
                Measured::rates("tx", ended, rates)
            }
            What::Rx => {
                let mut rates = Rates::default();
                let ended = self.receive(nic, &config, drivers, &mut rates);
                Measured::rates("rx", ended, rates)
            }
            What::Forward => {
                let mut rates = Rates::default();
                let ended = self.forward((nic, to[0].as_mut()), &config, drivers, &mut rates);
                Measured::rates(FORWARD, ended, rates)
            }
            What::Rtt => {
                let mut trips = RoundTrips::default();
                let ended = self.round_trips(nic, &config, drivers, &mut trips);
                let report = TripReport::of(trips);
                Measured {
                    ended,
                    finished: report.finished,
                    is_empty: report.is_empty(),
                    table: report.table(),
                    results: report.json(),
                }
            }
        };
        let text = self.text(nic, &measured);
        let stopped = nic.stop();
        if let Some(text) = text {
            output::line(text)?;
        }
        measured.ended?;
        Ok(stopped?)
    }

    /// Returns the text of a measurement, as a table or as JSON: whatever ended it, no finished round is thrown away.
    /// `None` where it failed before anything was measured.
    fn text(&self, nic: &dyn Nic, measured: &Measured) -> Option<String> {
        let interrupted = matches!(measured.ended, Err(Error::Interrupted));
        if measured.ended.is_err() && !interrupted && measured.is_empty {
            return None;
        }
        let planned = self.planned();
        if self.json {
            let report = json!({
                "device": nic.name(),
                "model": nic.model(),
                "ring": self.descriptors,
                "batch": self.batch,
                "rounds": self.rounds,
                "rounds_finished": measured.finished,
                "rounds_planned": planned,
                "interrupted": interrupted,
                "seconds": self.seconds,
                "results": measured.results,
            });
            return Some(report.to_string());
        }
        let rounds = match measured.ended {
            Ok(()) => output::count(self.rounds.into(), "round"),
            Err(_) => format!(
                "{} of {planned} rounds, which were finished,",
                measured.finished
            ),
        };
        let (name, model) = (nic.name(), nic.model());
        let (ring, batch, seconds) = (self.descriptors, self.batch, self.seconds);
        let head = format!(
            "{name}, {model}: ring {ring}, batch {batch}, medians of {rounds} of {seconds} s"
        );
        Some(match measured.is_empty {
            true => head,
            false => format!("{head}\n{}", measured.table),
        })
    }

    /// Rounds of all sizes; forwarding is measured twice.
    fn planned(&self) -> u64 {
        let each = match self.what {
            What::Forward => 2,
            _ => 1,
        };
        self.size.len() as u64 * u64::from(self.rounds) * each
    }

    fn check(&self) -> Result<()> {
        let wrong = if !self.batch.is_power_of_two() || self.batch > self.descriptors / 2 {
            format!(
                "--batch {}: it must be a power of two, at most half of the ring ({})",
                self.batch, self.descriptors
            )
        } else if self.kernel.is_some() && matches!(self.what, What::Limit | What::Forward) {
            "--kernel goes with tx, rx and rtt".to_owned()
        } else if self.kernel.is_some() && matches!(self.from, Some(From::Udp(_))) {
            "--kernel goes with --from a card: the kernel's interface is not at that socket"
                .to_owned()
        } else if self.queues > 1 && self.what != What::Tx {
            "--queues goes with tx".to_owned()
        } else if self.through.is_some() && self.what != What::Rtt {
            "--through goes with rtt: it says who sends the frames back".to_owned()
        } else if self.from.is_some() && !matches!(self.what, What::Rx | What::Forward) {
            "--from goes with rx and forward: it says who sends".to_owned()
        } else if (self.to.is_some() || self.sink.is_some()) && self.what != What::Forward {
            "--to and --sink go with forward".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::Usage(wrong))
    }

    /// The kernel's interface beside it, up.
    fn interface(&self) -> Result<Option<Interface>> {
        let up = |name: &String| Interface::up(name, self.force);
        self.kernel.as_ref().map(up).transpose()
    }

    /// Measures all sizes by `how`.
    fn series(&self, how: impl FnOnce(&Series<'_>) -> Result<()>) -> Result<()> {
        let sizes: Vec<_> = self.size.iter().map(|size| usize::from(*size)).collect();
        how(&Series {
            sizes: &sizes,
            at_least: Duration::from_secs_f64(self.seconds),
            rounds: self.rounds,
            batch: self.batch,
            ring: self.descriptors,
            stop: &INTERRUPTED,
            audience: &Bar(self.progress()),
        })
    }

    fn transmit(&self, nic: &mut dyn Nic, rates: &mut Rates) -> Result<()> {
        let interface = self.interface()?;
        let queues = match self.what {
            What::Tx => self.queues.into(),
            _ => 0,
        };
        self.series(|series| series.transmit(nic, queues, interface.as_ref(), rates))
    }

    fn receive(
        &self,
        nic: &mut dyn Nic,
        config: &NicConfig,
        drivers: &Drivers,
        rates: &mut Rates,
    ) -> Result<()> {
        match self.from.as_ref().expect("required by the arguments") {
            From::Udp(address) => {
                self.series(|series| series.receive_datagrams(nic, *address, rates))
            }
            From::Card(spec) => {
                let interface = self.interface()?;
                let mut card = drivers.open(spec, config, None)?;
                let interface = interface.as_ref();
                self.series(|series| series.receive(nic, card.as_mut(), interface, rates))?;
                card.stop()
            }
        }
    }

    fn round_trips(
        &self,
        nic: &mut dyn Nic,
        config: &NicConfig,
        drivers: &Drivers,
        trips: &mut RoundTrips,
    ) -> Result<()> {
        let through = self.through.as_ref().expect("required by the arguments");
        let interface = self.interface()?;
        let mut other = drivers.open(through, config, None)?;
        let interface = interface.as_ref();
        self.series(|series| series.round_trips(nic, other.as_mut(), interface, trips))?;
        other.stop()
    }

    fn forward(
        &self,
        pair: (&mut dyn Nic, &mut dyn Nic),
        config: &NicConfig,
        drivers: &Drivers,
        rates: &mut Rates,
    ) -> Result<()> {
        let From::Card(from) = self.from.as_ref().expect("required by the arguments") else {
            let why = "forward: --from must be a card, on the wire of the first one";
            return Err(Error::Usage(why.to_owned()));
        };
        let sink = self.sink.as_ref().expect("required by the arguments");
        let config = config.clone().promiscuous(false);
        let mut sender = drivers.open(from, &config, None)?;
        let mut sink = drivers.open(sink, &config, None)?;
        self.series(|series| series.forward(pair, sender.as_mut(), sink.as_mut(), rates))?;
        sender.stop()?;
        sink.stop()
    }

    /// A bar on a terminal; it is drawn between rounds only, so that it does not disturb them.
    fn progress(&self) -> ProgressBar {
        if !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}");
        ProgressBar::new(self.planned())
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_finish(indicatif::ProgressFinish::AndClear)
    }
}

/// Shows how far it is.
struct Bar(ProgressBar);

impl Audience for Bar {
    fn size(&self, bytes: usize) {
        self.0.set_message(format!("{bytes} bytes"));
    }

    fn round(&self) {
        self.0.inc(1);
    }
}

/// A measurement's outcome, and the results there are of it.
struct Measured {
    ended: Result<()>,
    /// Rounds.
    finished: u64,
    is_empty: bool,
    table: String,
    results: serde_json::Value,
}

impl Measured {
    fn rates(ours: &'static str, ended: Result<()>, rates: Rates) -> Self {
        let report = Report::of(ours, rates, ended.is_err());
        Self {
            finished: report.finished,
            is_empty: report.is_empty(),
            table: report.table(),
            results: report.json(),
            ended,
        }
    }
}

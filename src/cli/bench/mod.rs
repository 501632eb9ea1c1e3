//! `pinwire bench`: packets per second, beside what the device itself can do.

mod forward;
mod kernel;
mod measure;
mod report;
mod rtt;
mod rx;
mod trips;
mod tx;

use std::cell::RefCell;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use pinwire::net::NOBODY;
use pinwire::nic::{Nic, NicConfig, Waiting};
use pinwire::{DeviceSpec, Error, Result};
use serde_json::json;

use self::forward::Relay;
use self::kernel::{Interface, Recvmmsg, Sendmmsg, Sendto, TxRing};
use self::measure::{Contender, Run};
pub use self::report::LINES;
use self::report::{LIMIT, Line, Report};
use self::rtt::{Caller, Manner, Mirror, Ours};
use self::rx::{CardSender, Rx, Timed, UdpSender};
use self::trips::{TripReport, Trips};
use self::tx::{Threads, Tx};
use super::{Outcome, output, synthetic};

/// The row of what two cards forward.
const FORWARD: &str = "forward";

/// At this part of the fastest rate nothing may be lost.
const PART: f64 = 0.8;

/// How long a link may take until the first frame is back.
const LINK: Duration = Duration::from_secs(10);

const NOTES: &str = "\
What is measured:
  limit  the device's own speed: a ring filled once, only its tail moves
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
    /// What the driver sends
    Tx,
    /// What the driver receives
    Rx,
    /// What the device can send
    Limit,
    /// How long a frame takes there and back
    Rtt,
    /// What two cards forward
    Forward,
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
        self.check()?;
        let config = NicConfig {
            tx_ring: self.ring,
            rx_ring: self.ring,
            queues: self.queues.into(),
            ..NicConfig::default()
        };
        let config = match self.what {
            What::Rtt => NicConfig {
                waiting: Waiting::Interrupt,
                interrupt_interval: Duration::ZERO,
                ..config
            },
            _ => config,
        };
        let config = NicConfig {
            promiscuous: self.what == What::Forward,
            ..config
        };
        let together = std::iter::once(&self.device).chain(&self.to);
        let together: Vec<DeviceSpec> = together.cloned().collect();
        let mut cards = DeviceSpec::open_all(&together, &config, None)?;
        let (nic, to) = cards.split_first_mut().expect("one card at least");
        let nic = nic.as_mut();
        let measured = match self.what {
            What::Tx | What::Limit => {
                let mut report = Report::of("tx");
                let ended = self.transmit(nic, &mut report);
                Measured::rates(ended, report)
            }
            What::Rx => {
                let mut report = Report::of("rx");
                let ended = self.receive(nic, &config, &mut report);
                Measured::rates(ended, report)
            }
            What::Forward => {
                let mut report = Report::of(FORWARD);
                let ended = self.forward(nic, to[0].as_mut(), &config, &mut report);
                Measured::rates(ended, report)
            }
            What::Rtt => {
                let mut report = TripReport::default();
                let ended = self.round_trips(nic, &config, &mut report);
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

    /// What is shown of what was measured: whatever ended it, no finished round is thrown away.
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
                "ring": self.ring,
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
        let (ring, batch, seconds) = (self.ring, self.batch, self.seconds);
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
        let wrong = if !self.batch.is_power_of_two() || self.batch > self.ring / 2 {
            format!(
                "--batch {}: it must be a power of two, at most half of the ring ({})",
                self.batch, self.ring
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

    fn sizes(&self) -> impl Iterator<Item = usize> {
        self.size.iter().map(|size| usize::from(*size))
    }

    /// `limit`, and `tx` and the kernel beside it.
    fn transmit(&self, nic: &mut dyn Nic, report: &mut Report) -> Result<()> {
        let up = |name: &String| Interface::up(name, self.force);
        let interface = self.kernel.as_ref().map(up).transpose()?;
        let progress = self.progress();
        for size in self.sizes() {
            let frame = synthetic::frame(nic.mac(), NOBODY, size);
            let threads = RefCell::new(Threads::new(nic, &frame, self.batch, self.ring)?);
            let nic = RefCell::new(&mut *nic);
            let mut contenders = vec![Contender::new(LIMIT, |frames| {
                limit(*nic.borrow_mut(), size, self.batch, frames)
            })];
            if self.what == What::Tx {
                for queues in 1..=usize::from(self.queues) {
                    let (nic, threads) = (&nic, &threads);
                    contenders.push(Contender::new(tx_name(queues), move |frames| {
                        threads.borrow_mut().run(*nic.borrow_mut(), queues, frames)
                    }));
                }
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
            self.measure(size, &mut contenders, report, &progress)?;
        }
        Ok(())
    }

    /// `rx`; where a card sends, beside what the cards alone do.
    fn receive(&self, nic: &mut dyn Nic, config: &NicConfig, report: &mut Report) -> Result<()> {
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
                    self.measure(size, &mut contenders, report, &progress)?;
                }
            }
            From::Card(spec) => {
                let up = |name: &String| Interface::up(name, self.force);
                let interface = self.kernel.as_ref().map(up).transpose()?;
                let mut card = spec.open(config, None)?;
                let progress = self.progress();
                for size in self.sizes() {
                    let frame = synthetic::frame(card.mac(), nic.mac(), size);
                    let tx = Tx::new(card.as_ref(), &frame, self.batch, self.ring)?;
                    let kernel = self.kernel_receiver(interface.as_ref(), card.as_ref(), size)?;
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
                        vec![contender(LIMIT, Timed::Sender), contender("rx", Timed::All)];
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
                    self.measure(size, &mut contenders, report, &progress)?;
                }
                card.stop()?;
            }
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

    /// `rtt`: polled, by interrupt, and the kernel's.
    fn round_trips(
        &self,
        nic: &mut dyn Nic,
        config: &NicConfig,
        report: &mut TripReport,
    ) -> Result<()> {
        let through = self.through.as_ref().expect("required by the arguments");
        let up = |name: &String| Interface::up(name, self.force);
        let interface = self.kernel.as_ref().map(up).transpose()?;
        let mut other = through.open(config, None)?;
        let progress = self.progress();
        for size in self.sizes() {
            progress.set_message(format!("{size} bytes"));
            let to = other.mac();
            let frame = synthetic::frame(nic.mac(), to, size);
            let mut mirror = Mirror::new(other.as_mut());
            let mut names = vec!["poll", "interrupt"];
            let mut kernel = match &interface {
                Some(interface) => {
                    names.push("AF_PACKET");
                    let frame = synthetic::frame(interface.mac()?, to, size);
                    Some(rtt::Kernel::new(interface.index, frame)?)
                }
                None => None,
            };
            let first = report.rows.len();
            report.rows.extend(names.into_iter().map(|what| Trips {
                size,
                what,
                took: Vec::new(),
                lost: 0,
            }));
            for round in 0..self.rounds {
                for row in &mut report.rows[first..] {
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
                        rtt::warm_up(caller, &mut mirror, LINK)?;
                    }
                    let at_least = Duration::from_secs_f64(self.seconds);
                    rtt::run(caller, &mut mirror, at_least, row)?;
                }
                report.finished += 1;
                tracing::info!("{size} bytes: {} rounds are finished", report.finished);
                progress.inc(1);
            }
        }
        other.stop()
    }

    /// `forward`: as fast as it goes, then at [`PART`] of that.
    fn forward(
        &self,
        a: &mut dyn Nic,
        b: &mut dyn Nic,
        config: &NicConfig,
        report: &mut Report,
    ) -> Result<()> {
        let From::Card(from) = self.from.as_ref().expect("required by the arguments") else {
            let why = "forward: --from must be a card, on the wire of the first one";
            return Err(Error::Usage(why.to_owned()));
        };
        let sink = self.sink.as_ref().expect("required by the arguments");
        let config = NicConfig {
            promiscuous: false,
            ..config.clone()
        };
        let mut sender = from.open(&config, None)?;
        let mut sink = sink.open(&config, None)?;
        let progress = self.progress();
        for size in self.sizes() {
            let frame = synthetic::frame(sender.mac(), sink.mac(), size);
            let mut relay = Relay {
                sender: CardSender {
                    tx: Tx::new(sender.as_ref(), &frame, self.batch, self.ring)?,
                    nic: sender.as_mut(),
                    batch: self.batch as u64,
                },
                forward: pinwire::net::Forward::new(a, b, self.batch)?,
                sink: sink.as_mut(),
                came: Vec::with_capacity(256),
            };
            relay.warm_up(LINK)?;
            let fastest = report.lines.len();
            {
                let mut contenders = [Contender::new(FORWARD, |frames| relay.run(frames))];
                self.measure(size, &mut contenders, report, &progress)?;
            }
            let rate = report.lines[fastest].median() * PART;
            let bound = Duration::from_secs_f64(self.seconds);
            report.lines.push(Line {
                size,
                what: "forward at 0.8",
                runs: Vec::new(),
            });
            for _ in 0..self.rounds {
                let run = relay.run_paced(rate, bound)?;
                report.lines[fastest + 1].runs.push(run);
                report.finished += 1;
                progress.inc(1);
            }
        }
        sender.stop()?;
        sink.stop()
    }

    /// All rounds; each that is finished is in the report, whatever becomes of the next.
    fn measure(
        &self,
        size: usize,
        contenders: &mut [Contender<'_>],
        report: &mut Report,
        progress: &ProgressBar,
    ) -> Result<()> {
        progress.set_message(format!("{size} bytes"));
        let line = |contender: &Contender<'_>| Line {
            size,
            what: contender.name,
            runs: Vec::new(),
        };
        let first = report.lines.len();
        report.lines.extend(contenders.iter().map(line));
        for contender in contenders.iter_mut() {
            contender.calibrate()?;
        }
        for _ in 0..self.rounds {
            let runs = measure::round(contenders, Duration::from_secs_f64(self.seconds))?;
            for (line, run) in report.lines[first..].iter_mut().zip(runs) {
                line.runs.push(run);
            }
            report.finished += 1;
            tracing::info!("{size} bytes: {} rounds are finished", report.finished);
            progress.inc(1);
        }
        Ok(())
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

/// How a measurement ended, and what there is of it.
struct Measured {
    ended: Result<()>,
    /// Rounds.
    finished: u64,
    is_empty: bool,
    table: String,
    results: serde_json::Value,
}

impl Measured {
    fn rates(ended: Result<()>, report: Report) -> Self {
        let report = Report {
            cut_short: ended.is_err(),
            ..report
        };
        Self {
            finished: report.finished,
            is_empty: report.is_empty(),
            table: report.table(),
            results: report.json(),
            ended,
        }
    }
}

/// What the table calls it.
fn tx_name(queues: usize) -> &'static str {
    match queues {
        1 => "tx",
        queues => format!("tx, {queues} queues").leak(),
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

//! `pinwire forward`.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::args::{self, Wait};
use super::figure::six;
use super::output::{self, Outcome, grouped};
use super::signals::INTERRUPTED;
use crate::net::{Forward, Passed, Rewrite, Side, TapWriter, Until};
use crate::nic::{Mac, NicConfig, Received, Stats};
use crate::open::Drivers;
use crate::{DeviceSpec, Error, user_file};

/// Joins two cards: each sends what the other receives, from the buffer that it came in
///
/// Frames are handed over with no copy, both ways; the cards may be of different kinds. All frames
/// pass, whomever they are for. It ends at --count, after --seconds, or with Ctrl-C.
///
/// Examples:
///
///   Join two cables:
///     pinwire forward 0000:00:03.0 0000:00:04.0
///   ... and look at what passes, by the card that it came in by:
///     pinwire forward 0000:00:03.0 0000:00:04.0 --write all.pcapng --seconds 10
///   As a router would: frames come from the card that they leave by, and go to a given next hop
///     pinwire forward 0000:00:03.0 0000:00:04.0 --rewrite-mac \
///       --next-hop-a 52:54:00:00:00:01 --next-hop-b 52:54:00:00:00:02
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// One card: a PCI address (0000:00:03.0) or QEMU's model on this host (qtest:e1000)
    a: DeviceSpec,

    /// The other, of any kind
    b: DeviceSpec,

    /// Frames get the Ethernet address of the card that they leave by as their source
    #[arg(long)]
    rewrite_mac: bool,

    /// Destination of the frames that leave by A, but for those to a group
    #[arg(long, value_name = "MAC")]
    next_hop_a: Option<Mac>,

    /// Destination of the frames that leave by B, but for those to a group
    #[arg(long, value_name = "MAC")]
    next_hop_b: Option<Mac>,

    /// Let virtio cards hand over frames with checksums yet to be made and TCP yet to be cut; the
    /// other card does that, and what it cannot do is dropped and counted
    #[arg(long)]
    offload: bool,

    /// Write what comes in to a pcapng file, with the card that it came in by; this copies
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,

    /// Stop after this many frames, both ways together
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,

    /// Stop after this many seconds
    #[arg(short, long, value_name = "S", value_parser = args::seconds)]
    seconds: Option<Duration>,

    /// Frames handed to a card with one doorbell, at most
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(1..=255))]
    batch: u16,

    /// Longest frame to take, in bytes with VLAN tags and without frame check sequence; above 1518 is
    /// jumbo. Longer ones are dropped; with --offload there is no limit
    #[arg(long, value_name = "BYTES", default_value_t = 1518)]
    max_frame: usize,

    /// Way to wait for frames
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    wait: Wait,

    /// Print the summary as JSON, for programs
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs it.
    pub fn run(self, drivers: &Drivers) -> Outcome {
        let config = NicConfig::default()
            .promiscuous(true)
            .max_frame(self.max_frame)
            .rx_offload(self.offload)
            .waiting(self.wait.into());
        let specs = [self.a.clone(), self.b.clone()];
        let mut cards = drivers.open_all(&specs, &config, None)?;
        let [a, b] = &mut cards[..] else {
            unreachable!("a card for each spec");
        };
        let mut forward = Forward::new(&mut **a, &mut **b, self.batch.into())?;
        let next_hops = [(Side::A, self.next_hop_a), (Side::B, self.next_hop_b)];
        for (side, destination) in next_hops {
            let source = self.rewrite_mac;
            forward.rewrite(
                side,
                Rewrite {
                    source,
                    destination,
                },
            );
        }
        let cards = Side::BOTH.map(|side| {
            let card = forward.card(side);
            (card.name().to_owned(), card.model(), card.mac())
        });
        let capture = self.write.as_ref().map(|path| Capture::new(path, &cards));
        let mut capture = capture.transpose()?;
        if io::stderr().is_terminal() {
            let [(a, _, _), (b, _, _)] = &cards;
            output::aside(format_args!(
                "forwarding between {a} and {b}; Ctrl-C ends it"
            ));
        }
        let before = Side::BOTH.map(|side| forward.card(side).stats());
        let begin = Instant::now();
        let until = Until {
            frames: self.count.unwrap_or(u64::MAX),
            time: self.seconds.map(|seconds| begin + seconds),
            stop: &INTERRUPTED,
        };
        let ended = match &mut capture {
            None => forward.run(until, None),
            Some(capture) => {
                let mut tap = |side, received: &Received| capture.put(side, received);
                forward.run(until, Some(&mut tap))
            }
        };
        let took = begin.elapsed();
        if let Some(capture) = &mut capture {
            capture
                .writer
                .flush()
                .map_err(|error| capture.failed(error))?;
        }
        let ways = Side::BOTH.map(|side| {
            let (name, model, mac) = &cards[side as usize];
            let stats = forward.card(side).stats();
            Way {
                name,
                model,
                mac: *mac,
                passed: forward.passed(side),
                counted: stats.since(before[side as usize]),
            }
        });
        self.report(&ways, took)?;
        Ok(ended?)
    }

    fn report(&self, ways: &[Way<'_>; 2], took: Duration) -> Outcome {
        let seconds = took.as_secs_f64();
        let frames: u64 = ways.iter().map(|way| way.passed.frames).sum();
        let rate = if seconds > 0.0 {
            frames as f64 / seconds
        } else {
            0.0
        };
        let [a, b] = ways;
        if self.json {
            return output::line(json!({
                "a": a.json(),
                "b": b.json(),
                "frames": frames,
                "seconds": six(seconds),
                "packets_per_second": six(rate),
            }));
        }
        let mut rows = vec![
            ("A", format!("{}, {}, {}", a.name, a.model, a.mac)),
            ("B", format!("{}, {}, {}", b.name, b.model, b.mac)),
            ("seconds", output::seconds(seconds)),
            ("packets/s", grouped(rate.round() as u64)),
        ];
        let names = [
            ["A to B", "dropped", "A missed, for want of a buffer"],
            ["B to A", "dropped", "B missed, for want of a buffer"],
        ];
        for (way, [passed, dropped, missed]) in ways.iter().zip(names) {
            rows.push((passed, way.passed()));
            rows.push((dropped, way.dropped()));
            let none = || output::NOT_COUNTED.to_owned();
            rows.push((missed, way.counted.rx_missed.map_or_else(none, grouped)));
        }
        output::line(output::summary(&rows))
    }
}

/// The frames that came in by one card, for the summary.
struct Way<'a> {
    name: &'a str,
    model: &'a str,
    mac: Mac,
    passed: Passed,
    /// Beside that: what the card counted, or the driver where the card does not.
    counted: Stats,
}

impl Way<'_> {
    fn passed(&self) -> String {
        let (frames, bytes) = (self.passed.frames, self.passed.bytes);
        format!(
            "{}, {} bytes",
            output::count(frames, "frame"),
            grouped(bytes)
        )
    }

    fn dropped(&self) -> String {
        let Passed {
            no_room,
            bad_length,
            not_offered,
            ..
        } = self.passed;
        match self.passed.dropped() {
            0 => "0".to_owned(),
            all => format!(
                "{}: {} the other card took nothing, {} of a length it does not send, {} with work \
                 left that it cannot do",
                grouped(all),
                grouped(no_room),
                grouped(bad_length),
                grouped(not_offered)
            ),
        }
    }

    fn json(&self) -> Value {
        let by_card = self.counted.by_card();
        json!({
            "device": self.name,
            "model": self.model,
            "mac": self.mac.to_string(),
            "frames": self.passed.frames,
            "bytes": self.passed.bytes,
            "dropped": {
                "no_room": self.passed.no_room,
                "bad_length": self.passed.bad_length,
                "not_offered": self.passed.not_offered,
            },
            "counted_by": self.counted.counted_by.to_string(),
            "missed_by_device": self.counted.rx_missed,
            "received_by_device": by_card.map(|card| card.rx_frames),
            "sent_by_device": by_card.map(|card| card.tx_frames),
        })
    }
}

/// `--write`.
struct Capture {
    path: PathBuf,
    writer: TapWriter<BufWriter<File>>,
    bytes: Vec<u8>,
}

impl Capture {
    fn new(path: &std::path::Path, cards: &[(String, &str, Mac); 2]) -> Result<Self, Error> {
        let interfaces = cards.iter().map(|(name, _, mac)| (name.as_str(), *mac));
        let writer = user_file::create(path)
            .and_then(|file| TapWriter::new(BufWriter::new(file), interfaces))
            .map_err(|error| Error::io(format!("cannot write {}", path.display()), error))?;
        Ok(Self {
            path: path.to_owned(),
            writer,
            bytes: Vec::with_capacity(2048),
        })
    }

    fn put(&mut self, side: Side, received: &Received) -> Result<(), Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        received.frame.copy_to(&mut self.bytes);
        self.writer
            .write(side as u32, now.unwrap_or_default(), &self.bytes)
            .map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::io(format!("cannot write {}", self.path.display()), source)
    }
}

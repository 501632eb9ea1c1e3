//! `pinwire stats`.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::args;
use super::figure::{decimals, six};
use super::output::{self, Outcome, grouped};
use super::signals::interrupted;
use crate::nic::{Counter, Link, Nic, NicConfig, Stats};
use crate::open::Drivers;
use crate::{DeviceSpec, Error};

/// Frames taken from the card at once.
const BATCH: usize = 64;
/// Longest sleep, so that Ctrl-C is heard and a link that changes is seen.
const NAP: Duration = Duration::from_millis(100);

/// Shows a card's counts and their rates: frames, bytes, errors, misses, and the link's changes
///
/// A card without counters (virtio-net) is counted for by the driver; who counted is said. Bytes are those
/// on the wire, with the 4 of the frame check sequence.
///
/// The card is started and takes what comes in, but keeps none of it. Without --watch it counts for
/// one second. With it a table is drawn again and again on a terminal; elsewhere each tick is a line.
///
/// Examples:
///
///   One second of what comes in, whomever it is for:
///     pinwire stats 0000:00:03.0 --promiscuous
///   Look on, every second or every 5:
///     pinwire stats 0000:00:03.0 --watch
///     pinwire stats 0000:00:03.0 --watch 5
///   For programs: an object a tick, ten of them
///     pinwire stats 0000:00:03.0 --watch 0.5 --count 10 --json
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The card: a PCI address (0000:00:03.0) or QEMU's model on this host (qtest:e1000)
    device: DeviceSpec,

    /// Again and again, every so many seconds [default: 1]
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = args::seconds)]
    watch: Option<Duration>,

    /// Stop after this many ticks
    #[arg(short, long, value_name = "N", requires = "watch",
          value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Count frames that are addressed to others, too
    #[arg(short, long)]
    promiscuous: bool,

    /// Print a JSON object for each tick, for programs
    #[arg(long)]
    json: bool,
}

/// A moment: what the card had counted by then.
#[derive(Clone, Copy)]
struct Tick {
    at: Instant,
    stats: Stats,
    link: Link,
    /// Times that the link went up or down since the start.
    link_changes: u64,
}

impl Args {
    /// Runs it.
    pub fn run(self, drivers: &Drivers) -> Outcome {
        // A card whose link is down is a card to look at, too.
        let config = NicConfig::default()
            .promiscuous(self.promiscuous)
            .link_wait(Duration::ZERO);
        let mut nic = drivers.open(&self.device, &config, None)?;
        let every = self.watch.unwrap_or(Duration::from_secs(1));
        let most = match self.watch {
            Some(_) => self.count.unwrap_or(u64::MAX),
            None => 1,
        };
        let redraws = self.watch.is_some() && !self.json && io::stdout().is_terminal();
        let mut last = Tick {
            at: Instant::now(),
            stats: nic.stats(),
            link: nic.link(),
            link_changes: 0,
        };
        for number in 0..most {
            let now = tick(&mut *nic, last, every)?;
            if self.json {
                output::line(now.json(&*nic, last))?;
            } else if self.watch.is_none() || redraws {
                if redraws && number > 0 {
                    // Back to the table's first line, then all from there on is blank.
                    print(format_args!("\x1b[{}A\x1b[J", ROWS))?;
                }
                output::line(now.table(&*nic, last))?;
            } else {
                output::line(now.line(last))?;
            }
            last = now;
        }
        Ok(())
    }
}

fn print(text: std::fmt::Arguments<'_>) -> Outcome {
    let mut stdout = io::stdout().lock();
    write!(stdout, "{text}").map_err(output::stdout_failed)
}

/// Takes what comes in until `every` has passed since `last`; then looks at the counters.
fn tick(nic: &mut dyn Nic, last: Tick, every: Duration) -> Result<Tick, Error> {
    let (mut came, mut link_changes, mut link) = (Vec::new(), last.link_changes, last.link);
    loop {
        if interrupted() {
            return Err(Error::Interrupted);
        }
        let now_link = nic.link();
        link_changes += u64::from(now_link.up != link.up);
        link = now_link;
        let left = every.saturating_sub(last.at.elapsed());
        if left.is_zero() {
            break;
        }
        // In between the clock and the link are looked at, however much comes.
        let busy = Instant::now();
        while nic.recv(&mut came, BATCH)? > 0 && busy.elapsed() < left.min(NAP) {
            came.clear();
        }
        came.clear();
        if !nic.wait(left.min(NAP))? {
            nic.check()?;
        }
    }
    Ok(Tick {
        at: Instant::now(),
        stats: nic.stats(),
        link,
        link_changes,
    })
}

/// Lines of [`Tick::table`].
const ROWS: usize = 11;

/// Returns who counted, in words.
fn counted_by(counter: Counter) -> &'static str {
    match counter {
        Counter::Card => "the card, in its registers",
        Counter::Driver => "the driver: this device has no counters",
    }
}

impl Tick {
    /// Per second since `last`: frames and bits received, frames and bits sent.
    fn rates(&self, last: Self) -> [f64; 4] {
        let seconds = (self.at - last.at).as_secs_f64();
        let tick = self.stats.since(last.stats);
        [
            tick.rx_frames,
            8 * tick.rx_bytes,
            tick.tx_frames,
            8 * tick.tx_bytes,
        ]
        .map(|count| count as f64 / seconds)
    }

    fn table(&self, nic: &dyn Nic, last: Self) -> String {
        let [rx_pps, rx_bps, tx_pps, tx_bps] = self.rates(last);
        let frames = |frames, bytes, pps: f64, bps: f64| {
            format!(
                "{}, {} bytes; {}/s, {:.1} Mbit/s",
                output::count(frames, "frame"),
                grouped(bytes),
                grouped(pps.round() as u64),
                bps / 1e6
            )
        };
        let stats = self.stats;
        let tick = stats.since(last.stats);
        let missed =
            |missed: Option<u64>| missed.map_or_else(|| output::NOT_COUNTED.to_owned(), grouped);
        let rows = [
            ("device", format!("{}, {}", nic.name(), nic.model())),
            ("Ethernet address", nic.mac().to_string()),
            ("link", self.link.to_string()),
            ("link changes", grouped(self.link_changes)),
            (
                "received",
                frames(stats.rx_frames, stats.rx_bytes, rx_pps, rx_bps),
            ),
            (
                "sent",
                frames(stats.tx_frames, stats.tx_bytes, tx_pps, tx_bps),
            ),
            ("with errors", grouped(stats.rx_errors)),
            ("missed for want of a buffer", missed(stats.rx_missed)),
            ("errors in this tick", grouped(tick.rx_errors)),
            ("missed in this tick", missed(tick.rx_missed)),
            ("counted by", counted_by(stats.counted_by).to_owned()),
        ];
        const { assert!(ROWS == 11) };
        output::summary(&rows)
    }

    fn line(&self, last: Self) -> String {
        let [rx_pps, rx_bps, tx_pps, tx_bps] = self.rates(last);
        format!(
            "received {} ({:.0}/s, {:.1} Mbit/s)  sent {} ({:.0}/s, {:.1} Mbit/s)  errors {}  missed {}  \
             link {} ({} changes)  counted by the {}",
            self.stats.rx_frames,
            rx_pps,
            rx_bps / 1e6,
            self.stats.tx_frames,
            tx_pps,
            tx_bps / 1e6,
            self.stats.rx_errors,
            self.stats
                .rx_missed
                .map_or("not known".to_owned(), |missed| missed.to_string()),
            if self.link.up { "up" } else { "down" },
            self.link_changes,
            self.stats.counted_by,
        )
    }

    fn json(&self, nic: &dyn Nic, last: Self) -> Value {
        let [rx_pps, rx_bps, tx_pps, tx_bps] = self.rates(last);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        json!({
            "device": nic.name(),
            "model": nic.model(),
            "time": decimals(now.unwrap_or_default().as_secs_f64(), 6),
            "link": { "up": self.link.up, "mbps": self.link.mbps, "full_duplex": self.link.full_duplex,
                      "changes": self.link_changes },
            "counted_by": self.stats.counted_by.to_string(),
            "rx_frames": self.stats.rx_frames,
            "rx_bytes": self.stats.rx_bytes,
            "rx_errors": self.stats.rx_errors,
            "rx_missed": self.stats.rx_missed,
            "tx_frames": self.stats.tx_frames,
            "tx_bytes": self.stats.tx_bytes,
            "rx_frames_per_second": six(rx_pps),
            "rx_bits_per_second": six(rx_bps),
            "tx_frames_per_second": six(tx_pps),
            "tx_bits_per_second": six(tx_bps),
        })
    }
}

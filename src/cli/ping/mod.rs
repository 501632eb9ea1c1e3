//! `pinwire ping`.

mod histogram;
mod plot;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use self::histogram::Histogram;
use super::args::{self, Wait};
use super::output::{self, Failure, Outcome, grouped};
use super::picture;
use super::signals::{INTERRUPTED, interrupted};
use crate::net::{Answer, LARGEST, Ping, Verdict, resolve};
use crate::nic::{Mac, Nic, NicConfig};
use crate::open::Drivers;
use crate::{DeviceSpec, Error};

/// Time between two requests of a flood that is not answered.
const FLOOD: Duration = Duration::from_millis(10);
/// Longest sleep, so that Ctrl-C is heard.
const NAP: Duration = Duration::from_millis(100);

/// Pings a host from our own driver: ARP, ICMP echo, and how long each answer took
///
/// The clock of a request starts right before its doorbell, and stops when its answer has been taken
/// from the card: no kernel is in between. What is longer than a frame goes out in fragments, and what
/// comes back is compared byte for byte. The exit code is 1 where nothing came back.
///
/// Examples:
///
///   Five pings; a thousand, as fast as they are answered; one of the longest:
///     pinwire ping 0000:00:03.0 10.0.0.1
///     pinwire ping 0000:00:03.0 10.0.0.1 --flood -c 1000
///     pinwire ping 0000:00:03.0 10.0.0.1 -c 1 -s 65507
///   What sleeping costs:
///     pinwire ping 0000:00:03.0 10.0.0.1 --flood -c 1000 --wait poll
///     pinwire ping 0000:00:03.0 10.0.0.1 --flood -c 1000 --wait interrupt --plot asleep.svg
///   On this host: QEMU's own network answers for 10.0.2.2
///     pinwire ping qtest:e1000,net=user 10.0.2.2
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The card: a PCI address (0000:00:03.0) or QEMU's model on this host (qtest:e1000)
    device: DeviceSpec,

    /// Address to ping
    to: Ipv4Addr,

    /// Our own address [default: the one after it]
    #[arg(long, value_name = "IP")]
    from: Option<Ipv4Addr>,

    /// Ethernet address to send to: the host's, or the gateway's [default: asked for by ARP]
    #[arg(long, value_name = "MAC")]
    via: Option<Mac>,

    /// Number of requests
    #[arg(short, long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,

    /// Seconds between two
    #[arg(short, long, value_name = "S", default_value = "1", value_parser = args::seconds)]
    interval: Duration,

    /// Bytes in each, up to 65507
    #[arg(short, long, value_name = "BYTES", default_value_t = 56,
          value_parser = clap::value_parser!(u32).range(0..=LARGEST as i64))]
    size: u32,

    /// The next one as soon as one is answered
    #[arg(short, long, conflicts_with = "interval")]
    flood: bool,

    /// Seconds after which an answer is late, and its request lost
    #[arg(short = 'W', long, value_name = "S", default_value = "1", value_parser = args::seconds)]
    timeout: Duration,

    /// Way to wait for an answer
    #[arg(long, value_enum, default_value_t = Wait::Poll, value_name = "HOW")]
    wait: Wait,

    /// Draw the times into this picture (.svg or .png)
    #[arg(long, value_name = "FILE", value_parser = picture::path)]
    plot: Option<PathBuf>,

    /// Print the summary only
    #[arg(short, long)]
    quiet: bool,

    /// Print the summary as JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Counts of requests and their answers.
#[derive(Default)]
struct Tally {
    sent: u64,
    /// RTTs of the answers that came in time.
    times: Vec<Duration>,
    late: u64,
    duplicate: u64,
    damaged: u64,
    /// Neither answered nor late when it was ended.
    pending: u64,
}

impl Args {
    /// Runs it.
    pub fn run(self, drivers: &Drivers) -> Outcome {
        let config = NicConfig::default().waiting(self.wait.into());
        let mut nic = drivers.open(&self.device, &config, None)?;
        let nic = &mut *nic;
        let from = self.from.unwrap_or_else(|| neighbour(self.to));
        let via = match self.via {
            Some(mac) => mac,
            None => resolve(nic, from, self.to, &INTERRUPTED)?,
        };
        let size = self.size as usize;
        let mut ping = Ping::new(nic, from, (via, self.to), size, self.timeout)?;
        if !self.json {
            output::line(format_args!(
                "{} ({via}) from {from} by {}: {size} bytes, {}",
                self.to,
                nic.name(),
                output::count(ping.frames(nic) as u64, "frame")
            ))?;
        }
        let mut tally = Tally::default();
        let ended = self.go(nic, &mut ping, &mut tally);
        if let Err(Failure::ReaderGone) = ended {
            return ended;
        }
        tally.times.sort_unstable();
        tally.pending = match ended {
            // All were waited for.
            Ok(()) => 0,
            Err(_) => ping.pending() as u64,
        };
        self.report(nic, &tally)?;
        if let Some(path) = &self.plot {
            let (title, times) = (&self.title(nic), &tally.times);
            picture::save(path, &plot::RoundTrips { title, times })?;
        }
        match ended {
            Ok(()) if tally.times.is_empty() && tally.late == 0 => Err(Failure::Told),
            ended => ended,
        }
    }

    fn title(&self, nic: &dyn Nic) -> String {
        let wait = match self.wait {
            Wait::Poll => "polling",
            Wait::Interrupt => "sleeping",
            Wait::Adaptive => "polling, then sleeping",
        };
        format!("{}, {} bytes, {wait}", nic.model(), self.size)
    }

    fn go(&self, nic: &mut dyn Nic, ping: &mut Ping, tally: &mut Tally) -> Outcome {
        let mut next = Instant::now();
        for _ in 0..self.count {
            let number = ping.send(nic)?;
            tally.sent += 1;
            let sent = Instant::now();
            next = match self.flood {
                true => sent + FLOOD,
                false => (next + self.interval).max(sent),
            };
            let last = tally.sent == self.count;
            let late = sent + self.timeout;
            loop {
                let answered = self.hear(nic, ping, tally, number)?;
                let now = Instant::now();
                // A flood goes on with an answer; else the next one's time must have come. The last one
                // is waited for until it is late.
                let over = match (self.flood || last, answered) {
                    (true, Some(true)) => true,
                    _ if last => now >= late,
                    _ => now >= next,
                };
                if over {
                    break;
                }
                let until = if last { late } else { next };
                if answered.is_none() && !nic.wait(until.saturating_duration_since(now).min(NAP))? {
                    nic.check()?;
                }
            }
        }
        Ok(())
    }

    /// Takes what came: `None` where nothing did; else whether request `number` is answered by it.
    fn hear(
        &self,
        nic: &mut dyn Nic,
        ping: &mut Ping,
        tally: &mut Tally,
        number: u64,
    ) -> Result<Option<bool>, Failure> {
        if interrupted() {
            return Err(Error::Interrupted.into());
        }
        let (mut answered, mut told) = (false, Ok(()));
        let came = ping.hear(nic, |answer| {
            answered |= answer.number == number && answer.verdict != Verdict::Damaged;
            tally.count(answer);
            if !self.quiet && !self.json && !self.flood {
                let line = output::line(line(&answer, self.size));
                if told.is_ok() {
                    told = line;
                }
            }
        })?;
        told?;
        Ok((came > 0).then_some(answered))
    }

    fn report(&self, nic: &dyn Nic, tally: &Tally) -> Outcome {
        let times = &tally.times;
        let known = times.len() as u64 + tally.late + tally.pending;
        let lost = tally.sent.saturating_sub(known);
        let micros = |time: Option<Duration>| time.map(|time| time.as_nanos() as f64 / 1e3);
        let [min, median, p99, max] = [0.0, 0.5, 0.99, 1.0].map(|share| quantile(times, share));
        if self.json {
            return output::line(json!({
                "device": nic.name(),
                "model": nic.model(),
                "to": self.to.to_string(),
                "bytes": self.size,
                "sent": tally.sent,
                "received": times.len(),
                "lost": lost,
                "pending": tally.pending,
                "late": tally.late,
                "duplicates": tally.duplicate,
                "damaged": tally.damaged,
                "rtt_us": {
                    "min": micros(min), "median": micros(median), "p99": micros(p99), "max": micros(max),
                },
            }));
        }
        let told = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), histogram::time);
        let mut rows = vec![
            ("sent", grouped(tally.sent)),
            ("received", grouped(times.len() as u64)),
            ("lost", grouped(lost)),
            ("late", grouped(tally.late)),
            ("duplicates", grouped(tally.duplicate)),
            ("damaged", grouped(tally.damaged)),
            ("round trip, least", told(min)),
            ("median", told(median)),
            ("99 of 100 within", told(p99)),
            ("most", told(max)),
        ];
        if tally.pending > 0 {
            rows.insert(3, ("not answered yet", grouped(tally.pending)));
        }
        output::line(output::summary(&rows))?;
        if times.len() > 1 {
            output::line("")?;
            output::line(Histogram::of(times).to_string().trim_end())?;
        }
        Ok(())
    }
}

impl Tally {
    fn count(&mut self, answer: Answer) {
        match answer.verdict {
            Verdict::Good => self.times.push(answer.time),
            Verdict::Late => self.late += 1,
            Verdict::Duplicate => self.duplicate += 1,
            Verdict::Damaged => self.damaged += 1,
        }
    }
}

fn line(answer: &Answer, size: u32) -> String {
    let verdict = match answer.verdict {
        Verdict::Good => "",
        Verdict::Late => "  late",
        Verdict::Duplicate => "  once more",
        Verdict::Damaged => "  NOT what was sent",
    };
    format!(
        "{}: {size} bytes, ttl {}, {}{verdict}",
        answer.number + 1,
        answer.ttl,
        histogram::time(answer.time)
    )
}

/// The time within which this share of them (sorted) came; the nearest that was measured.
fn quantile(times: &[Duration], share: f64) -> Option<Duration> {
    let last = times.len().checked_sub(1)?;
    times.get((last as f64 * share).ceil() as usize).copied()
}

/// The address after `of`, or before it where that is no host's: most likely in the same subnet.
fn neighbour(of: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, d] = of.octets();
    let d = if d < 254 { d + 1 } else { d - 1 };
    [a, b, c, d].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let times: Vec<_> = (1..=101).map(Duration::from_micros).collect();
        let of = |share| quantile(&times, share).unwrap().as_micros();
        assert_eq!([of(0.0), of(0.5), of(0.99), of(1.0)], [1, 51, 100, 101]);
        assert_eq!(quantile(&times[..1], 0.99), Some(Duration::from_micros(1)));
        assert_eq!(quantile(&[], 0.5), None);
    }
}

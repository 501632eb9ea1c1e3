//! `pinwire recv`.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::args::{self, Wait};
use super::figure::{decimals, six};
use super::output::{self, Failure, Outcome, Ticker, grouped};
use super::signals::{INTERRUPTED, interrupted};
use crate::net::{CaptureWriter, Packet, Progress, Responder};
use crate::nic::{Checksum, Nic, NicConfig, Received, Stats};
use crate::open::Drivers;
use crate::scope::explain::{self, Explainer};
use crate::{DeviceSpec, Error, user_file};

/// Frames taken from the card at once.
const BATCH: usize = 64;
/// Longest sleep, so that Ctrl-C is heard.
const NAP: Duration = Duration::from_millis(100);

/// Receives packets into pinned memory, past the kernel: prints them, or writes a capture
///
/// Without --write it prints a line for each frame, with what the card says of its checksums. It
/// polls as long as frames keep coming, and then sleeps until the card interrupts (or see --wait). It
/// ends at --count, after --seconds, or with Ctrl-C.
///
/// Examples:
///
///   Look at what comes in, whomever it is for; ten frames of it; only DNS:
///     pinwire recv 0000:00:03.0 --promiscuous
///     pinwire recv 0000:00:03.0 --count 10
///     pinwire recv 0000:00:03.0 --udp-port 53
///   Write a capture for ten seconds, or give it to tcpdump as it comes:
///     pinwire recv 0000:00:03.0 --write in.pcap --seconds 10
///     pinwire recv 0000:00:03.0 -w - | tcpdump -n -r -
///   Be reachable at an address: answer ARP for it
///     pinwire recv 0000:00:03.0 --address 10.0.0.3
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The card: a PCI address (0000:00:03.0) or QEMU's model on this host (qtest:e1000)
    device: DeviceSpec,

    /// Write a pcap file; "-" is standard output
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,

    /// Stop after this many frames
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,

    /// Stop after this many seconds
    #[arg(short, long, value_name = "S", value_parser = args::seconds)]
    seconds: Option<Duration>,

    /// Only frames that carry this, past VLAN tags: 0x0800 (IPv4), 0x0806 (ARP), 0x86dd (IPv6)
    #[arg(long, value_name = "TYPE", value_parser = ethertype)]
    ethertype: Option<u16>,

    /// Only UDP datagrams from or to this port
    #[arg(long, value_name = "PORT")]
    udp_port: Option<u16>,

    /// Take frames that are addressed to others, too
    #[arg(short, long)]
    promiscuous: bool,

    /// Longest frame to take, in bytes with VLAN tags and without frame check sequence; above 1518 is
    /// jumbo. Longer ones are dropped and counted
    #[arg(long, value_name = "BYTES", default_value_t = 1518)]
    max_frame: usize,

    /// Answer ARP questions for this address, so that others can send to it
    #[arg(long, value_name = "IP")]
    address: Option<Ipv4Addr>,

    /// Way to wait for frames
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    wait: Wait,

    /// Tell each step as it happens: registers and their fields, descriptors before and after; for
    /// the first few frames
    #[arg(long)]
    explain: bool,

    /// Print a JSON object for each frame and one for the summary, for programs
    #[arg(long)]
    json: bool,
}

fn ethertype(text: &str) -> Result<u16, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "write an EtherType as 0x0800 or 2048".to_owned())
}

/// Destination of the frames.
enum Sink {
    Lines,
    Json,
    File(CaptureWriter<BufWriter<File>>, PathBuf),
    Stdout(CaptureWriter<BufWriter<io::Stdout>>),
}

impl Sink {
    fn new(args: &Args) -> Result<Self, Failure> {
        match &args.write {
            None if args.json => Ok(Self::Json),
            None => Ok(Self::Lines),
            Some(path) if path == Path::new("-") => {
                if args.json {
                    let why =
                        "standard output cannot hold both a capture and JSON: use --write FILE";
                    return Err(Error::Usage(why.to_owned()).into());
                }
                let writer = CaptureWriter::new(BufWriter::new(io::stdout()));
                Ok(Self::Stdout(writer.map_err(output::stdout_failed)?))
            }
            Some(path) => {
                let writer = user_file::create(path)
                    .and_then(|file| CaptureWriter::new(BufWriter::new(file)))
                    .map_err(|error| write_failed(path, error))?;
                Ok(Self::File(writer, path.clone()))
            }
        }
    }

    /// Returns whether standard output is taken, so that people must be told elsewhere.
    fn takes_stdout(&self) -> bool {
        matches!(self, Self::Json | Self::Stdout(_))
    }

    fn put(&mut self, frame: &Seen<'_>) -> Outcome {
        match self {
            Self::Lines => output::line(frame.line()),
            Self::Json => output::line(frame.json()),
            Self::File(writer, path) => Ok(writer
                .write(frame.time, frame.bytes)
                .map_err(|error| write_failed(path, error))?),
            Self::Stdout(writer) => writer
                .write(frame.time, frame.bytes)
                .map_err(output::stdout_failed),
        }
    }

    /// Passes on what is held back, when nothing else is to be done.
    fn flush(&mut self) -> Outcome {
        match self {
            Self::Lines | Self::Json => Ok(()),
            Self::File(writer, path) => {
                Ok(writer.flush().map_err(|error| write_failed(path, error))?)
            }
            Self::Stdout(writer) => writer.flush().map_err(output::stdout_failed),
        }
    }
}

fn write_failed(path: &Path, source: io::Error) -> Error {
    Error::io(format!("cannot write {}", path.display()), source)
}

/// A frame that came in, to be shown.
struct Seen<'a> {
    time: Duration,
    bytes: &'a [u8],
    packet: &'a Packet<'a>,
    vlan: Option<u16>,
    ip_checksum: Checksum,
    l4_checksum: Checksum,
}

impl Seen<'_> {
    fn line(&self) -> String {
        let (source, destination) = self.packet.macs();
        let seconds = self.time.as_secs() % 86_400;
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let mut line = format!(
            "{hours:02}:{minutes:02}:{seconds:02}.{:06}  {source} > {destination} {:5}  {}",
            self.time.subsec_micros(),
            self.bytes.len(),
            self.packet
        );
        if let Some(tag) = self.vlan {
            line += &format!("  VLAN {}", tag & 0xfff);
        }
        let checksums = [("IP", self.ip_checksum), ("TCP/UDP", self.l4_checksum)];
        for (which, checksum) in checksums {
            match checksum {
                Checksum::Unchecked => {}
                Checksum::Good => line += &format!("  {which} checksum good"),
                Checksum::Bad => line += &format!("  {which} checksum BAD"),
            }
        }
        line
    }

    fn json(&self) -> serde_json::Value {
        let (source, destination) = self.packet.macs();
        serde_json::json!({
            "time": decimals(self.time.as_secs_f64(), 6),
            "bytes": self.bytes.len(),
            "source": source.to_string(),
            "destination": destination.to_string(),
            "ethertype": self.packet.ethertype(),
            "vlan": self.vlan.map(|tag| tag & 0xfff),
            "packet": self.packet.to_string(),
            "ip_checksum": checksum_name(self.ip_checksum),
            "l4_checksum": checksum_name(self.l4_checksum),
        })
    }
}

fn checksum_name(checksum: Checksum) -> &'static str {
    match checksum {
        Checksum::Unchecked => "unchecked",
        Checksum::Good => "good",
        Checksum::Bad => "bad",
    }
}

/// Counts of frames by checksum status.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Tally {
    good: u64,
    bad: u64,
    unchecked: u64,
}

impl Tally {
    fn count(&mut self, checksum: Checksum) {
        match checksum {
            Checksum::Good => self.good += 1,
            Checksum::Bad => self.bad += 1,
            Checksum::Unchecked => self.unchecked += 1,
        }
    }

    fn told(&self) -> String {
        let [good, bad, unchecked] = [self.good, self.bad, self.unchecked].map(grouped);
        format!("{good} good, {bad} bad, {unchecked} not looked at by the card")
    }
}

impl Args {
    /// Runs it.
    pub fn run(self, drivers: &Drivers) -> Outcome {
        let mut sink = Sink::new(&self)?;
        // The header goes first, so that a reader at the other end of a pipe can begin.
        sink.flush()?;
        let mut explainer = self
            .explain
            .then(|| Explainer::new(sink.takes_stdout(), &INTERRUPTED));
        let config = NicConfig::default()
            .promiscuous(self.promiscuous)
            .max_frame(self.max_frame)
            .waiting(self.wait.into());
        let watch = explainer.as_ref().map(Explainer::watch);
        let mut nic = drivers.open(&self.device, &config, watch)?;
        if let Some(explainer) = &mut explainer {
            explainer.started(&*nic);
        }
        if io::stderr().is_terminal() {
            let (name, mac) = (nic.name(), nic.mac());
            output::aside(format_args!("receiving on {name} ({mac}); Ctrl-C ends it"));
        }
        let responder = self
            .address
            .map(|address| Responder::new(&*nic, address))
            .transpose()?;
        let progress = Arc::<Progress>::default();
        let writes_file = matches!(sink, Sink::File(..));
        let ticker = writes_file.then(|| Ticker::new(&progress, self.count));
        let mut run = Run {
            before: nic.stats(),
            nic: &mut *nic,
            args: &self,
            sink,
            explainer,
            responder,
            progress,
            begin: Instant::now(),
            other: 0,
            ip: Tally::default(),
            l4: Tally::default(),
        };
        let ended = run.go();
        drop(ticker);
        run.report(ended)
    }
}

/// One receiving, counted.
struct Run<'a> {
    nic: &'a mut dyn Nic,
    args: &'a Args,
    sink: Sink,
    explainer: Option<Explainer>,
    responder: Option<Responder>,
    progress: Arc<Progress>,
    begin: Instant,
    before: Stats,
    /// Frames that the filter kept away.
    other: u64,
    ip: Tally,
    l4: Tally,
}

impl Run<'_> {
    fn go(&mut self) -> Outcome {
        let mut batch = Vec::with_capacity(BATCH);
        let mut bytes = Vec::with_capacity(2048);
        let mut explained = 0;
        while !self.is_enough() {
            if interrupted() {
                return Err(Error::Interrupted.into());
            }
            let mut left = NAP;
            if let Some(bound) = self.args.seconds {
                let Some(more) = bound.checked_sub(self.begin.elapsed()) else {
                    return Ok(());
                };
                left = left.min(more);
            }
            let most = match self.explainer {
                Some(_) => 1,
                None => BATCH,
            };
            let came = self.take(&mut batch, most, &mut explained)?;
            if came == 0 {
                self.sink.flush()?;
                // Answers that have left: else the wait would end for them.
                self.nic.completed(&mut Vec::new())?;
                // What an earlier wait did in vain is no part of the story.
                if let Some(explainer) = &self.explainer {
                    explainer.forget();
                }
                if !self.nic.wait(left)? {
                    self.nic.check()?;
                }
                continue;
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.unwrap_or_default();
            for received in batch.drain(..) {
                if self.is_enough() {
                    break;
                }
                received.frame.copy_to(&mut bytes);
                self.one(&received, &bytes, now)?;
            }
        }
        Ok(())
    }

    /// Takes frames from the card; explains the first few.
    fn take(
        &mut self,
        batch: &mut Vec<Received>,
        most: usize,
        explained: &mut usize,
    ) -> Result<usize, Error> {
        let Some(explainer) = &mut self.explainer else {
            return self.nic.recv(batch, most);
        };
        if *explained == explain::FRAMES {
            explainer.enough();
            self.explainer = None;
            return self.nic.recv(batch, most);
        }
        if !explainer.has_arrived(self.nic) {
            return Ok(0);
        }
        *explained += 1;
        explainer.came_in(self.nic, *explained);
        let came = self.nic.recv(batch, most)?;
        explainer.taken(self.nic);
        Ok(came)
    }

    fn is_enough(&self) -> bool {
        let count = self.args.count;
        count.is_some_and(|count| self.progress.frames() >= count)
    }

    fn one(&mut self, received: &Received, bytes: &[u8], time: Duration) -> Outcome {
        let Some(packet) = Packet::parse(bytes) else {
            self.other += 1;
            return Ok(());
        };
        if let Some(responder) = &mut self.responder {
            responder.answer(self.nic, &packet)?;
        }
        let (ethertype, udp_port) = (self.args.ethertype, self.args.udp_port);
        let wanted = ethertype.is_none_or(|ethertype| packet.ethertype() == ethertype)
            && udp_port.is_none_or(|port| {
                let ports = packet.udp_ports();
                ports.is_some_and(|(from, to)| from == port || to == port)
            });
        if !wanted {
            self.other += 1;
            return Ok(());
        }
        self.ip.count(received.ip_checksum());
        self.l4.count(received.l4_checksum());
        self.sink.put(&Seen {
            time,
            bytes,
            packet: &packet,
            vlan: received.vlan().or_else(|| packet.vlan()),
            ip_checksum: received.ip_checksum(),
            l4_checksum: received.l4_checksum(),
        })?;
        self.progress.add(1, bytes.len());
        Ok(())
    }

    /// The summary, then what went wrong.
    fn report(mut self, ended: Outcome) -> Outcome {
        if let Err(Failure::ReaderGone) = ended {
            return ended;
        }
        self.sink.flush()?;
        let counted = self.nic.stats().since(self.before);
        let by_card = counted.by_card();
        let summary = Summary {
            device: self.nic.name(),
            model: self.nic.model(),
            frames: self.progress.frames(),
            bytes: self.progress.bytes(),
            seconds: six(self.begin.elapsed().as_secs_f64()),
            filtered_out: self.other,
            longer: self.nic.dropped_longer(),
            ip_checksums: self.ip,
            l4_checksums: self.l4,
            counted_by: counted.counted_by.to_string(),
            frames_counted_by_device: by_card.map(|card| card.rx_frames),
            missed_by_device: counted.rx_missed,
            errors_counted_by_device: by_card.map(|card| card.rx_errors),
            broken: match by_card {
                Some(_) => 0,
                None => counted.rx_errors,
            },
        };
        match &self.sink {
            Sink::Json => output::line(serde_json::json!({ "summary": summary }))?,
            _ if self.args.json => output::line(serde_json::json!({ "summary": summary }))?,
            Sink::File(..) => output::line(output::summary(&summary.rows()))?,
            Sink::Lines | Sink::Stdout(_) => output::aside(output::summary(&summary.rows())),
        }
        ended
    }
}

/// The object that `--json` prints last.
#[derive(Serialize)]
struct Summary<'a> {
    device: &'a str,
    model: &'a str,
    frames: u64,
    bytes: u64,
    seconds: f64,
    filtered_out: u64,
    /// Frames longer than `--max-frame`.
    longer: u64,
    ip_checksums: Tally,
    l4_checksums: Tally,
    /// `driver` where the device counts nothing; then the three below are null.
    counted_by: String,
    frames_counted_by_device: Option<u64>,
    missed_by_device: Option<u64>,
    errors_counted_by_device: Option<u64>,
    /// Handed over by the device, and no frame by the driver's check; a device with counters has them in
    /// its own errors.
    broken: u64,
}

impl Summary<'_> {
    fn device_counted(&self) -> String {
        let (Some(frames), Some(errors)) =
            (self.frames_counted_by_device, self.errors_counted_by_device)
        else {
            return match self.broken {
                0 => output::NO_COUNTERS.to_owned(),
                broken => format!(
                    "{}\nthe driver dropped {} as broken",
                    output::NO_COUNTERS,
                    output::count(broken, "frame")
                ),
            };
        };
        let missed = self
            .missed_by_device
            .map_or("an unknown number".to_owned(), grouped);
        format!(
            "{}, {missed} missed for want of a buffer, {} with errors",
            output::count(frames, "frame"),
            grouped(errors)
        )
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("device", format!("{}, {}", self.device, self.model)),
            ("frames received", grouped(self.frames)),
            ("bytes", grouped(self.bytes)),
            ("seconds", output::seconds(self.seconds)),
            ("kept away by the filter", grouped(self.filtered_out)),
            ("IP header checksums", self.ip_checksums.told()),
            ("TCP and UDP checksums", self.l4_checksums.told()),
            ("the device counted", self.device_counted()),
        ];
        if self.longer > 0 {
            let dropped = output::count(self.longer, "frame");
            rows.push(("longer than --max-frame", format!("{dropped} dropped")));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethertypes_are_hexadecimal_or_decimal() {
        assert_eq!(ethertype("0x0800"), Ok(0x0800));
        assert_eq!(ethertype("2054"), Ok(0x0806));
        for bad in ["", "0x", "ip", "0x10000", "65536", "-1"] {
            assert!(ethertype(bad).is_err(), "{bad}");
        }
    }
}

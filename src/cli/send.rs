//! `pinwire send`.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args;
use super::figure::six;
use super::output::{self, Failure, Outcome, Ticker, grouped};
use super::signals::INTERRUPTED;
use crate::lab::count::syscalls::SyscallCounter;
use crate::net::{
    CaptureReader, CaptureSource, FileSource, Limit, Manner, NOBODY, Pace, Progress, Source,
    SyntheticSource, UdpFlow, resolve, transmit,
};
use crate::nic::{Mac, Nic, NicConfig, Stats};
use crate::open::Drivers;
use crate::scope::explain::Explainer;
use crate::{DeviceSpec, Error, user_file};

/// Sends a capture, a file as UDP datagrams, or made-up frames, from pinned memory, past the kernel
///
/// A capture is sent as recorded, with the gaps between its packets. A file is not copied: each
/// datagram's header comes from a packet buffer, its payload is read by the card straight from the
/// file's page cache, and the card puts the checksums in. --prove takes the processor's access to
/// the payload away first, so that a copy would crash.
///
/// Examples:
///
///   Replay a capture on the card at 0000:00:03.0, then ten times at 50 000 packets/s:
///     pinwire send 0000:00:03.0 --pcap web.pcapng
///     pinwire send 0000:00:03.0 --pcap web.pcapng --loop 10 --rate 50000
///   Send on what comes in elsewhere, as it comes; a capture that is compressed in another way than by gzip:
///     tcpdump -i eth0 -U -w - | pinwire send 0000:00:03.0 --pcap -
///     zstdcat web.pcapng.zst | pinwire send 0000:00:03.0 --pcap -
///   Send a file to a UDP receiver, with no copy by the processor, and prove it:
///     pinwire send 0000:00:03.0 --file film.mkv --to 10.0.0.2:7000 --prove
///   See how one packet leaves, on any machine (QEMU's e1000), and look at it:
///     pinwire send qtest:e1000,pcap=out.pcap --synthetic 64 --count 1 --explain
///     tcpdump -r out.pcap -e
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["pcap", "file", "synthetic"]))]
pub struct Args {
    /// The card: a PCI address (0000:00:03.0) or QEMU's model on this host (qtest:e1000)
    device: DeviceSpec,

    /// Send the packets of this capture (pcap or pcapng, also through gzip) as they were recorded; "-" is
    /// standard input
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,

    /// Send this file as UDP datagrams, straight from its page cache
    #[arg(long, value_name = "FILE", requires = "to")]
    file: Option<PathBuf>,

    /// Send made-up frames of this many bytes (without frame check sequence)
    #[arg(long, value_name = "BYTES")]
    synthetic: Option<usize>,

    /// Stop after this many frames
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Send the capture N times; 0 is until Ctrl-C
    #[arg(long = "loop", value_name = "N", default_value_t = 1,
          conflicts_with_all = ["file", "synthetic"])]
    rounds: u64,

    /// Wait no longer than this between two packets of a capture, whatever was recorded
    #[arg(long, value_name = "SECONDS", value_parser = args::seconds,
          conflicts_with_all = ["file", "synthetic", "rate"])]
    max_gap: Option<Duration>,

    /// Packets per second, or "max" for as fast as the card takes them [default: a capture as
    /// recorded, all else max]
    #[arg(long, value_name = "PPS|max")]
    rate: Option<Rate>,

    /// Destination of the file's datagrams
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["pcap", "synthetic"])]
    to: Option<SocketAddrV4>,

    /// Their source [default: the address after the receiver's, same port; to a group or to all, the card's
    /// link-local address, 169.254.x.y]
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["pcap", "synthetic"])]
    from: Option<SocketAddrV4>,

    /// Ethernet address to send to: the receiver's, or the gateway's [default: a file's receiver is
    /// asked by ARP; made-up frames go to nobody]
    #[arg(long, value_name = "MAC", conflicts_with = "pcap")]
    via: Option<Mac>,

    /// Bytes of the file in each datagram
    #[arg(long, value_name = "BYTES", default_value_t = 1472,
          conflicts_with_all = ["pcap", "synthetic"],
          value_parser = clap::value_parser!(u32).range(1..=UdpFlow::LONGEST as i64))]
    payload: u32,

    /// Take the processor's access to the file's mapping away before sending (mprotect PROT_NONE)
    #[arg(long, conflicts_with_all = ["pcap", "synthetic"])]
    prove: bool,

    /// Frames handed to the card with one doorbell, at most
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(1..=255))]
    batch: u16,

    /// Tell each step as it happens: registers and their fields, descriptors before and after; for
    /// the first few frames
    #[arg(long)]
    explain: bool,

    /// For programs: the summary as JSON, in place of the table; or into FILE, beside it
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    json: Option<PathBuf>,
}

/// `--rate`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate(Pace);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self(Pace::Max));
        }
        text.parse()
            .ok()
            .filter(|rate: &f64| rate.is_finite() && *rate > 0.0)
            .map(|rate| Self(Pace::PerSecond(rate)))
            .ok_or_else(|| "write a number of packets per second above 0, or max".to_owned())
    }
}

/// The frames' source, opened before the card is touched.
enum What {
    Capture(Box<CaptureReader>),
    /// A file and its length.
    File(PathBuf, File, u64),
    Synthetic(usize),
}

impl Args {
    /// Runs it.
    pub fn run(self, drivers: &Drivers) -> Outcome {
        let what = self.open()?;
        if let What::File(path, _, 0) = &what {
            let device = self.device.to_string();
            let json =
                serde_json::json!({ "device": device, "frames": 0, "bytes": 0, "error": null });
            let text = format!("{} is empty: nothing to send", path.display());
            if self.json.is_none() {
                output::aside(text);
                return Ok(());
            }
            return output::report(self.json.as_deref(), json, text);
        }
        let mut explainer = self
            .explain
            .then(|| Explainer::new(self.json.as_deref() == Some(Path::new("-")), &INTERRUPTED));
        let config = NicConfig::default();
        let watch = explainer.as_ref().map(Explainer::watch);
        let mut nic = drivers.open(&self.device, &config, watch)?;
        if let Some(explainer) = &mut explainer {
            explainer.started(&*nic);
        }
        self.send(&mut *nic, what, config.tx_ring, explainer)
    }

    fn open(&self) -> Result<What, Error> {
        if let Some(to) = self.to {
            check_flow(self.from, to)?;
        }
        match (&self.pcap, &self.file) {
            (Some(path), _) => {
                let mut capture = match path == Path::new("-") {
                    true => CaptureReader::stdin()?,
                    false => CaptureReader::open(path)?,
                };
                // Through a pipe it may not come before long, and the card is not needed until then.
                capture.wait_for_head(&INTERRUPTED)?;
                Ok(What::Capture(Box::new(capture)))
            }
            (_, Some(path)) => {
                let (file, len) = user_file::regular(path, "have a page cache to send from")?;
                Ok(What::File(path.clone(), file, len))
            }
            _ => Ok(What::Synthetic(self.synthetic.unwrap_or_default())),
        }
    }

    fn send(
        &self,
        nic: &mut dyn Nic,
        what: What,
        ring: usize,
        explainer: Option<Explainer>,
    ) -> Outcome {
        let buffers = ring + usize::from(self.batch);
        let pace = match (self.rate, &what) {
            (Some(Rate(pace)), _) => pace,
            (None, What::Capture(_)) => Pace::AsDue,
            (None, _) => Pace::Max,
        };
        match what {
            What::Capture(capture) => {
                let rounds = (self.rounds > 0).then_some(self.rounds);
                let can_be_had = rounds == Some(1) || capture.rewinds();
                let source = CaptureSource::new(nic, *capture, rounds, buffers);
                let mut source = source.map_err(|error| match can_be_had {
                    true => Failure::Error(error),
                    false => Failure::Hinted(error, "or leave --loop away"),
                })?;
                source.set_longest_gap(self.max_gap.unwrap_or(Duration::MAX));
                let mut run = Run::new(nic, self, pace, source, None);
                let sent = run.go(explainer);
                remarks(&run.source.inner);
                run.report(sent)
            }
            What::File(path, file, len) => {
                let flow = self.flow(nic)?;
                let payload = self.payload as usize;
                let bytes = 0..len;
                let source = FileSource::new(nic, (&file, &path), bytes, flow, payload, buffers);
                let mut source = source.map_err(|error| match error {
                    Error::FrameLength { .. } => {
                        Failure::Hinted(error, "it is given with --payload BYTES")
                    }
                    error => Failure::Error(error),
                })?;
                if self.prove {
                    source.deny_cpu()?;
                }
                let frames = len.div_ceil(payload as u64);
                let mut run = Run::new(nic, self, pace, source, Some(frames));
                let sent = run.go(explainer);
                let whole = run.source.inner.check_length();
                run.report(sent.and(whole))
            }
            What::Synthetic(size) => {
                let destination = self.via.unwrap_or(NOBODY);
                let source = SyntheticSource::new(nic, destination, size, buffers)?;
                let mut run = Run::new(nic, self, pace, source, None);
                let sent = run.go(explainer);
                run.report(sent)
            }
        }
    }

    fn flow(&self, nic: &mut dyn Nic) -> Result<UdpFlow, Error> {
        let destination = self
            .to
            .ok_or_else(|| Error::Usage("--file needs --to".to_owned()))?;
        let source = self
            .from
            .unwrap_or_else(|| likely_source(destination, nic.mac()));
        let destination_mac = match self.via {
            Some(mac) => mac,
            None => resolve(nic, *source.ip(), *destination.ip(), &INTERRUPTED)?,
        };
        Ok(UdpFlow {
            source_mac: nic.mac(),
            destination_mac,
            source,
            destination,
        })
    }
}

/// Tells in what the frames that left are not the packets of the capture.
fn remarks(source: &CaptureSource) {
    let packets = |count| output::count(count, "packet");
    if source.cut_short() > 0 {
        tracing::warn!(
            "{} of the capture were cut short by it; sent as captured",
            packets(source.cut_short())
        );
    }
    if source.padded() > 0 {
        tracing::warn!(
            "{} shorter than Ethernet's least of {} bytes: padded with zeros",
            packets(source.padded()),
            CaptureSource::LEAST
        );
    }
    if let Some(left_out) = source.capture().left_out() {
        let (number, why) = &left_out.first;
        tracing::warn!(
            "{} left out; packet {number}: {why}",
            packets(left_out.packets)
        );
    }
}

/// Refuses addresses that nobody takes a datagram to, or from (RFC 1122, §3.2.1.3).
fn check_flow(from: Option<SocketAddrV4>, to: SocketAddrV4) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::Usage(what));
    let nobody = |ip: &Ipv4Addr| ip.is_loopback() || ip.octets()[0] == 0;
    if nobody(to.ip()) || to.port() == 0 {
        return refuse(format!(
            "--to {to}: nobody can be reached there by a wire: 127.x.x.x is inside of every host, 0.x.x.x and \
             port 0 are nobody's; name an address of the receiver and the port that it listens on"
        ));
    }
    let Some(from) = from else {
        return Ok(());
    };
    if nobody(from.ip()) || from.ip().is_multicast() || from.ip().is_broadcast() {
        return refuse(format!(
            "--from {from}: no host takes a datagram that comes from there; name an address of one host, in the \
             receiver's subnet"
        ));
    }
    match from.ip() == to.ip() {
        true => refuse(format!(
            "--from {from} is the receiver's own address, and a host drops what says that it comes from itself; \
             name another one in its subnet"
        )),
        false => Ok(()),
    }
}

/// Returns the source of a datagram to `to`, if nobody says: a host next to the receiver. A group and a broadcast
/// have none, and no subnet that is known, so then it is this card's link-local address (RFC 3927).
fn likely_source(to: SocketAddrV4, mac: Mac) -> SocketAddrV4 {
    if to.ip().is_multicast() || to.ip().is_broadcast() {
        let [.., a, b] = mac.0;
        // The first and the last 256 of them are reserved (§2.1).
        let ip = Ipv4Addr::new(169, 254, 1 + a % 254, b);
        tracing::warn!(
            "the datagrams to {} say that they come from {ip}, the card's link-local address; a receiver that \
             checks whether there is a way back drops them: then name one in its subnet, --from IP:PORT",
            to.ip()
        );
        return SocketAddrV4::new(ip, to.port());
    }
    neighbour(to)
}

/// The address after `of`, or before it where that is no host's: most likely in the same subnet.
fn neighbour(of: SocketAddrV4) -> SocketAddrV4 {
    let [a, b, c, d] = of.ip().octets();
    let d = if d < 254 { d + 1 } else { d - 1 };
    SocketAddrV4::new([a, b, c, d].into(), of.port())
}

/// One sending, measured.
struct Run<'a, S> {
    nic: &'a mut dyn Nic,
    args: &'a Args,
    pace: Pace,
    source: Limit<S>,
    /// Number of frames, where that is known.
    frames: Option<u64>,
    progress: Arc<Progress>,
    took: Duration,
    system_calls: Result<u64, String>,
    before: Stats,
}

impl<'a, S: Source> Run<'a, S> {
    fn new(
        nic: &'a mut dyn Nic,
        args: &'a Args,
        pace: Pace,
        source: S,
        frames: Option<u64>,
    ) -> Self {
        let before = nic.stats();
        let left = args.count.unwrap_or(u64::MAX);
        Self {
            nic,
            args,
            pace,
            source: Limit {
                inner: source,
                left,
            },
            frames: [frames, args.count].into_iter().flatten().min(),
            progress: Arc::default(),
            took: Duration::ZERO,
            system_calls: Err("nothing was sent".to_owned()),
            before,
        }
    }

    fn go(&mut self, explainer: Option<Explainer>) -> Result<(), Error> {
        if let Some(explainer) = explainer {
            explainer.send(self.nic, &mut self.source, &self.progress)?;
        }
        let manner = Manner {
            pace: self.pace,
            batch: self.args.batch.into(),
            stop: &INTERRUPTED,
            announce: |packet, wait| {
                tracing::warn!(
                    "packet {packet} is due in {wait}, as it was recorded; --max-gap SECONDS shortens such \
                     waits, --rate max leaves none"
                );
            },
        };
        let ticker = Ticker::new(&self.progress, self.frames);
        let counter = SyscallCounter::new();
        let begin = Instant::now();
        let counter = counter.and_then(|mut counter| counter.start().map(|()| counter));
        let sent = transmit(self.nic, &mut self.source, manner, &self.progress);
        self.system_calls = counter.and_then(|mut counter| counter.stop());
        self.took = begin.elapsed();
        drop(ticker);
        sent
    }

    /// The summary, then what went wrong.
    fn report(self, sent: Result<(), Error>) -> Outcome {
        let counted = self.nic.stats().since(self.before);
        let by_card = counted.by_card();
        let seconds = self.took.as_secs_f64();
        let (frames, bytes) = (self.progress.frames(), self.progress.bytes());
        let by_cpu = self.source.by_cpu();
        let per_second = |count: u64| {
            if seconds > 0.0 {
                count as f64 / seconds
            } else {
                0.0
            }
        };
        let summary = Summary {
            device: self.nic.name(),
            model: self.nic.model(),
            frames,
            bytes,
            seconds: six(seconds),
            packets_per_second: six(per_second(frames)),
            megabits_per_second: six(per_second(bytes * 8) / 1e6),
            header_bytes_by_cpu: by_cpu.headers,
            payload_bytes_copied_by_cpu: by_cpu.payload,
            payload_denied_to_cpu: self.args.prove,
            counted_by: counted.counted_by.to_string(),
            frames_counted_by_device: by_card.map(|card| card.tx_frames),
            bytes_counted_by_device: by_card.map(|card| card.tx_bytes),
            system_calls: self.system_calls.as_ref().ok().copied(),
            system_calls_not_counted: self.system_calls.as_ref().err().map(String::as_str),
            error: sent.as_ref().err().map(Error::to_string),
        };
        let json = serde_json::to_string(&summary).expect("plain values");
        let text = output::summary(&summary.rows());
        output::report(self.args.json.as_deref(), json, text)?;
        Ok(sent?)
    }
}

/// The object that `--json` prints.
#[derive(Serialize)]
struct Summary<'a> {
    device: &'a str,
    model: &'a str,
    frames: u64,
    bytes: u64,
    seconds: f64,
    packets_per_second: f64,
    megabits_per_second: f64,
    header_bytes_by_cpu: u64,
    payload_bytes_copied_by_cpu: u64,
    payload_denied_to_cpu: bool,
    /// `driver` where the device counts nothing; then the two below are null.
    counted_by: String,
    frames_counted_by_device: Option<u64>,
    bytes_counted_by_device: Option<u64>,
    system_calls: Option<u64>,
    system_calls_not_counted: Option<&'a str>,
    error: Option<String>,
}

impl Summary<'_> {
    /// The device's own count beside ours, where it has one: what the driver counted is no second opinion.
    fn device_counted(&self) -> String {
        let (Some(frames), Some(bytes)) =
            (self.frames_counted_by_device, self.bytes_counted_by_device)
        else {
            return output::NO_COUNTERS.to_owned();
        };
        if frames != self.frames {
            return format!("{}: NOT what we counted", output::count(frames, "frame"));
        }
        match bytes.checked_sub(self.bytes) {
            Some(0) => "the same frames and bytes: none for check sequences".to_owned(),
            Some(more) => format!(
                "the same frames, {} bytes: {} more, for check sequences and padding",
                grouped(bytes),
                grouped(more)
            ),
            None => format!(
                "the same frames, but {} bytes: FEWER than we counted",
                grouped(bytes)
            ),
        }
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let copied = match (self.payload_bytes_copied_by_cpu, self.payload_denied_to_cpu) {
            (0, true) => "0, and it could not have: its access was taken away".to_owned(),
            (copied, _) => grouped(copied),
        };
        let calls = match (self.system_calls, self.system_calls_not_counted) {
            (Some(calls), _) => grouped(calls),
            (None, why) => format!("not counted: {}", why.unwrap_or_default()),
        };
        vec![
            ("device", format!("{}, {}", self.device, self.model)),
            ("frames sent", grouped(self.frames)),
            ("bytes", grouped(self.bytes)),
            ("seconds", output::seconds(self.seconds)),
            ("packets/s", grouped(self.packets_per_second.round() as u64)),
            ("Mbit/s", format!("{:.1}", self.megabits_per_second)),
            ("the device counted", self.device_counted()),
            (
                "header bytes made by the CPU",
                grouped(self.header_bytes_by_cpu),
            ),
            ("payload bytes copied by the CPU", copied),
            ("system calls on the data path", calls),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_above_zero_or_max() {
        assert_eq!("max".parse(), Ok(Rate(Pace::Max)));
        assert_eq!("2.5".parse(), Ok(Rate(Pace::PerSecond(2.5))));
        for bad in ["", "0", "-1", "inf", "NaN", "fast", "1k"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_group_hears_of_a_host_and_no_datagram_comes_from_where_none_can() {
        let at = |text: &str| text.parse::<SocketAddrV4>().unwrap();
        for to in ["224.0.0.1:9", "239.255.255.254:9", "255.255.255.255:9"] {
            for mac in [Mac([0; 6]), Mac([0xff; 6]), Mac([2, 0, 0, 0, 253, 9])] {
                let from = likely_source(at(to), mac);
                assert!(from.ip().is_link_local(), "{from}");
                assert!((1..=254).contains(&from.ip().octets()[2]), "{from}");
                assert!(check_flow(Some(from), at(to)).is_ok());
            }
        }
        for to in ["127.0.0.1:9", "0.0.0.0:9", "0.1.2.3:9", "10.0.0.2:0"] {
            assert!(check_flow(None, at(to)).is_err(), "{to}");
        }
        for from in [
            "224.0.0.1:9",
            "255.255.255.255:9",
            "127.0.0.1:9",
            "0.0.0.0:9",
            "10.0.0.2:8",
        ] {
            assert!(
                check_flow(Some(at(from)), at("10.0.0.2:9")).is_err(),
                "{from}"
            );
        }
        assert!(check_flow(Some(at("10.0.0.3:0")), at("10.0.0.2:9")).is_ok());
    }

    #[test]
    fn the_neighbour_is_another_host() {
        let of = |text: &str| neighbour(text.parse().unwrap()).to_string();
        assert_eq!(of("10.0.0.2:9"), "10.0.0.3:9");
        assert_eq!(of("10.0.0.254:9"), "10.0.0.253:9");
        assert_eq!(of("10.0.0.255:9"), "10.0.0.254:9");
    }
}

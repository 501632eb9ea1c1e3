//! Capture files: pcap and pcapng in and out, one packet at a time.
//!
//! A capture is never read whole, and nothing in it is trusted: a record that says what cannot be is
//! an [`Error::BadCapture`] that names the packet. Of what a capture says beside its packets only what a
//! replay needs is read ([`pcapng`] has the rule): when a packet came, of which link it is, and how long
//! its check sequence is, which no card is given to send.

mod compressed;
mod input;
mod order;
mod pcap;
mod pcapng;
#[cfg(test)]
mod tests;
mod write;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use pcap_file::DataLink;

use crate::error::{Error, Result};
use crate::user_file::{Kind, UserFile};
use input::Window;
use pcap::Pcap;
use pcapng::PcapNg;

pub use write::{CaptureWriter, TapWriter};

/// Longest packet that libpcap takes (its `MAXIMUM_SNAPLEN`), in bytes.
const LONGEST: usize = 262_144;

/// The complaint about a record of which the capture has the beginning only.
const CUT: &str = "the file ends in the middle of it: the capture is truncated";

/// A packet of a capture.
#[derive(Debug, Clone, Copy)]
pub struct Captured<'a> {
    /// Its number in the capture, from 1.
    pub number: u64,
    /// Time of capture, in nanoseconds since 1970; none if the capture does not say.
    pub time: Option<i128>,
    /// Its bytes, from the Ethernet header on, without the frame check sequence.
    pub data: &'a [u8],
    /// Length on the wire, without that: more than `data` if the capture cut it short.
    pub wire_len: usize,
}

/// Packets of a capture that are not of Ethernet, so that they are not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Number of packets.
    pub packets: u64,
    /// The number of the first, and why it was.
    pub first: (u64, String),
}

/// Reads the Ethernet frames of a pcap or pcapng file, which may come through a pipe or be compressed by
/// gzip.
pub struct CaptureReader {
    path: PathBuf,
    window: Window,
    format: Format,
    /// The file and where the capture begins in it, where it can be read once more.
    rewinds: Option<(File, u64)>,
    /// Bytes of the record that was given last.
    used: u64,
    /// Packets read.
    count: u64,
    left_out: Option<LeftOut>,
}

enum Format {
    /// Its header has not come yet.
    Unknown,
    Pcap(Pcap),
    PcapNg(PcapNg),
}

impl CaptureReader {
    /// Opens the capture at `path`. Of a regular file, the header is checked at once; what may have to be
    /// waited for is not read yet.
    ///
    /// # Errors
    /// If it cannot be read, is no capture ([`Error::BadCapture`]), or is not one of Ethernet.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(UserFile::open(path)?, path.to_owned())
    }

    /// Reads a capture from standard input.
    ///
    /// # Errors
    /// As [`CaptureReader::open`]; where that is a terminal.
    pub fn stdin() -> Result<Self> {
        if io::IsTerminal::is_terminal(&io::stdin()) {
            return Err(Error::Usage(
                "standard input is a terminal, and no capture: pipe one in, as from: tcpdump -w -"
                    .to_owned(),
            ));
        }
        Self::of(UserFile::stdin()?, "standard input".into())
    }

    /// Reads a capture, called `name`, from what takes its time to read.
    pub fn from_reader(reader: impl Read + Send + 'static, name: &str) -> Self {
        Self::new(name.into(), Window::of_reader(reader), None)
    }

    fn of(opened: UserFile, path: PathBuf) -> Result<Self> {
        let unreadable = |source| {
            Error::io(
                format!("cannot read the capture {}", path.display()),
                source,
            )
        };
        let UserFile { mut file, kind } = opened;
        if let Kind::Regular | Kind::Disk = kind {
            let begin = file.stream_position().map_err(unreadable)?;
            let again = file.try_clone().map_err(unreadable)?;
            let mut this = Self::new(path, Window::still(file), Some((again, begin)));
            let _ = this.poll_head()?;
            return Ok(this);
        }
        Ok(Self::new(path, Window::stream(file.into()), None))
    }

    fn new(path: PathBuf, window: Window, rewinds: Option<(File, u64)>) -> Self {
        Self {
            path,
            window,
            format: Format::Unknown,
            rewinds,
            used: 0,
            count: 0,
            left_out: None,
        }
    }

    /// Path of the capture.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether it can be read more than once.
    pub fn rewinds(&self) -> bool {
        self.rewinds.is_some()
    }

    /// Begins again with the first packet.
    ///
    /// # Errors
    /// [`Error::Usage`] for a pipe; as [`CaptureReader::open`].
    pub fn rewind(&mut self) -> Result<()> {
        let Some((file, begin)) = &mut self.rewinds else {
            return Err(Error::Usage(format!(
                "{} is no file that can be read more than once",
                self.path.display()
            )));
        };
        let rewound = file.seek(SeekFrom::Start(*begin));
        let file = rewound.and_then(|_| file.try_clone());
        self.window = Window::still(file.map_err(|source| self.unreadable(source))?);
        self.format = Format::Unknown;
        (self.used, self.count, self.left_out) = (0, 0, None);
        self.poll_head().map(drop)
    }

    /// Waits for the header of the capture, and checks it.
    ///
    /// # Errors
    /// [`Error::Interrupted`] at `stop`; as [`CaptureReader::open`].
    pub fn wait_for_head(&mut self, stop: &AtomicBool) -> Result<()> {
        while self.poll_head()?.is_pending() {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            self.wait(Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// Waits until more of the capture may have come: at most `bound` long, or until a signal. Returns at
    /// once where reading waits for nobody.
    ///
    /// # Errors
    /// If the system cannot wait.
    pub fn wait(&self, bound: Duration) -> Result<()> {
        let waited = self.window.wait(bound);
        waited.map_err(|source| self.unreadable(source))
    }

    /// The next packet, `None` after the last; pending where it has not come yet.
    ///
    /// # Errors
    /// [`Error::BadCapture`], or where the file cannot be read.
    pub fn poll_next(&mut self) -> Result<Poll<Option<Captured<'_>>>> {
        if self.poll_head()?.is_pending() {
            return Ok(Poll::Pending);
        }
        let record = match self.poll_record() {
            Ok(Poll::Ready(Some(record))) => record,
            Ok(Poll::Ready(None)) => return Ok(Poll::Ready(None)),
            Ok(Poll::Pending) => return Ok(Poll::Pending),
            Err(bad) => return Err(self.error(bad)),
        };
        Ok(Poll::Ready(Some(Captured {
            number: self.count,
            time: record.time,
            data: self.window.get(record.data),
            wire_len: record.wire_len,
        })))
    }

    /// Packets that are not given, since no Ethernet card could send them.
    pub fn left_out(&self) -> Option<&LeftOut> {
        self.left_out.as_ref()
    }

    fn poll_record(&mut self) -> Result<Poll<Option<Record>>, Bad> {
        loop {
            self.window.advance(std::mem::take(&mut self.used));
            let next = match &mut self.format {
                Format::Unknown => return Ok(Poll::Pending),
                Format::Pcap(pcap) => pcap.next(&mut self.window)?,
                Format::PcapNg(pcapng) => pcapng.next(&mut self.window)?,
            };
            let Poll::Ready(next) = next else {
                return Ok(Poll::Pending);
            };
            let Some(record) = next else {
                return match &self.left_out {
                    Some(left_out) if left_out.packets == self.count => {
                        self.count = 0; // the first is to blame
                        Err(Bad::Record(left_out.first.1.clone()))
                    }
                    _ => Ok(Poll::Ready(None)),
                };
            };
            self.used = record.total;
            self.count += 1;
            match &record.unfit {
                None => return Ok(Poll::Ready(Some(record))),
                Some(why) => {
                    let left_out = self.left_out.get_or_insert_with(|| LeftOut {
                        packets: 0,
                        first: (self.count, why.to_string()),
                    });
                    left_out.packets += 1;
                }
            }
        }
    }

    /// Finds out what the capture is, once its header has come.
    fn poll_head(&mut self) -> Result<Poll<()>> {
        while let Format::Unknown = self.format {
            let compressed = self.window.is_compressed();
            let head = match self.window.want(pcap::HEADER) {
                Ok(Poll::Ready(head)) => head,
                Ok(Poll::Pending) => return Ok(Poll::Pending),
                Err(source) => return Err(self.error(Bad::Io(source))),
            };
            let Some(magic) = head.first_chunk::<4>().copied() else {
                return Err(self.bad("it has fewer bytes than the header of a capture"));
            };
            if magic == pcapng::MAGIC {
                self.format = Format::PcapNg(PcapNg::default());
            } else if let Some(magic) = Pcap::magic(magic) {
                if head.len() < pcap::HEADER {
                    return Err(self.bad(&format!("its header: {CUT}")));
                }
                let pcap = Pcap::new(head, magic);
                if let Some(why) = pcap.link.unfit() {
                    return Err(self.bad(&why.to_string()));
                }
                self.format = Format::Pcap(pcap);
                self.window.advance(pcap::HEADER as u64);
            } else if compressed::is_gzip(head) && !compressed {
                self.window.gunzip();
            } else if let Some(why) = compressed::named(head, &self.path) {
                return Err(self.bad(&why));
            } else {
                return Err(self.bad(
                    "it begins as neither a pcap nor a pcapng file does\n  if Wireshark reads it: editcap -F \
                     pcap IN OUT",
                ));
            }
        }
        Ok(Poll::Ready(()))
    }

    fn bad(&self, why: &str) -> Error {
        Error::BadCapture {
            path: self.path.clone(),
            why: why.to_owned(),
        }
    }

    fn unreadable(&self, source: io::Error) -> Error {
        let what = format!("cannot read the capture {}", self.path.display());
        Error::io(what, source)
    }

    fn error(&self, bad: Bad) -> Error {
        let number = self.count + 1;
        match bad {
            Bad::Record(why) => self.bad(&format!("packet {number}: {why}")),
            Bad::Io(error) if self.window.is_compressed() => match error.kind() {
                ErrorKind::UnexpectedEof => self.bad(&format!("packet {number}: {CUT}")),
                ErrorKind::InvalidInput | ErrorKind::InvalidData => self.bad(&format!(
                    "packet {number}: its compression is damaged: {error}"
                )),
                _ => self.unreadable(error),
            },
            Bad::Io(error) => self.unreadable(error),
        }
    }
}

/// Reason for which a packet cannot be read.
enum Bad {
    Io(io::Error),
    Record(String),
}

impl Bad {
    fn too_long(claimed: usize) -> Self {
        Self::Record(format!(
            "malformed: it claims {claimed} bytes, and no packet is longer than {LONGEST}"
        ))
    }
}

impl From<io::Error> for Bad {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<&str> for Bad {
    fn from(why: &str) -> Self {
        Self::Record(why.to_owned())
    }
}

/// The link that packets come from.
#[derive(Debug, Clone, Copy)]
struct Link {
    /// Its `LINKTYPE_`.
    kind: u16,
    /// Bytes of check sequence at the end of its packets, where the capture has them.
    fcs: usize,
}

impl Link {
    /// Reason for which its packets cannot be sent.
    fn unfit(self) -> Option<Unfit> {
        match DataLink::from(u32::from(self.kind)) {
            DataLink::ETHERNET => None,
            other => Some(Unfit::Link(other)),
        }
    }
}

/// Reason for which a packet is not given.
enum Unfit {
    Link(DataLink),
    /// It is from an interface that is not described.
    Unknown(u32),
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Link(link) => write!(
                f,
                "its link type is {link:?}, not ETHERNET: capture on one Ethernet interface (not on \"any\")"
            ),
            Self::Unknown(id) => write!(
                f,
                "it is from interface {id}, which the capture does not describe: it may be no Ethernet"
            ),
        }
    }
}

/// A packet in the window.
struct Record {
    /// Bytes that it takes up, with all around it.
    total: u64,
    /// Place of its bytes, without its check sequence.
    data: Range<usize>,
    time: Option<i128>,
    wire_len: usize,
    unfit: Option<Unfit>,
}

impl Record {
    /// A record of `lens` bytes captured and on the wire, with `fcs` bytes of check sequence; it begins at `begin`.
    fn new(
        total: u64,
        begin: usize,
        (captured, wire): (usize, usize),
        fcs: usize,
        time: Option<i128>,
    ) -> Self {
        // More captured than was on the wire: the lengths were written by somebody careless.
        let wire_len = wire.max(captured);
        // What was cut short has lost its check sequence, or a part of it.
        let wire_len = wire_len.saturating_sub(fcs);
        Self {
            total,
            data: begin..begin + captured.min(wire_len),
            time,
            wire_len,
            unfit: None,
        }
    }

    /// From interface `id`, which may not be described.
    fn of(mut self, link: Option<Link>, id: u32) -> Self {
        self.unfit = link.map_or(Some(Unfit::Unknown(id)), Link::unfit);
        self
    }
}

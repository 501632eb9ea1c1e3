//! Sources of frames to send: a capture, a file's page cache, frames made up.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::transmit::{CpuBytes, Next, Source};
use crate::dma::{DmaBuf, DmaFile, DmaSpace, Pool};
use crate::error::{Error, Result};
use crate::net::capture::CaptureReader;
use crate::net::packet::{ETHERNET_HEADER, UdpFlow};
use crate::nic::{Frame, Mac, Nic, Offload, OffloadFlags};

/// An address that no card has (locally administered), for frames that nobody shall take up.
pub const NOBODY: Mac = Mac([0x02, b'n', b'o', b'b', b'o', b'd']);

/// EtherType of frames made up: IEEE 802's number for local experiments.
pub const EXPERIMENTAL: u16 = 0x88b5;

/// The frames that a card can send, in bytes.
#[derive(Debug, Clone)]
struct Limits {
    device: String,
    min: usize,
    max: usize,
}

impl Limits {
    fn of(nic: &dyn Nic) -> Self {
        Self {
            device: nic.name().to_owned(),
            min: nic.min_tx_frame(),
            max: nic.max_tx_frame(),
        }
    }

    fn check(&self, length: usize, remedy: &'static str) -> Result<()> {
        if (self.min..=self.max).contains(&length) {
            return Ok(());
        }
        Err(Error::FrameLength {
            device: self.device.clone(),
            length,
            min: self.min,
            max: self.max,
            remedy,
        })
    }
}

/// A buffer to write a frame into: that of `spent`, or a fresh one.
fn buffer(spent: Option<Frame>, pool: &Pool) -> Option<DmaBuf> {
    match spent.map(Frame::into_buf) {
        Some(Ok(buf)) => Some(buf),
        _ => pool.alloc(),
    }
}

/// The packets of a capture, copied into packet buffers one by one.
pub struct CaptureSource {
    reader: CaptureReader,
    pool: Pool,
    limits: Limits,
    /// Rounds still to go, with this one; `None` for no end.
    rounds: Option<u64>,
    round: Round,
    due: Duration,
    /// Longest wait between two packets.
    longest_gap: Duration,
    cut_short: u64,
    padded: u64,
    copied: u64,
}

/// One pass over a capture.
#[derive(Default)]
struct Round {
    packets: u64,
    /// Latest time of its packets, in nanoseconds since 1970.
    latest: Option<i128>,
}

impl Round {
    /// Time between the latest of the packets before and one captured at `time`. A capture of several interfaces may
    /// go back in time; frames do not.
    fn gap(&mut self, time: i128) -> Duration {
        let latest = *self.latest.get_or_insert(time);
        self.latest = Some(latest.max(time));
        // Both are of 96 bits at most; what is left is 0 where it went back.
        let gap = u64::try_from((time - latest).max(0));
        Duration::from_nanos(gap.unwrap_or(u64::MAX))
    }
}

impl CaptureSource {
    /// Bytes of the shortest frame on Ethernet, without its check sequence: what is shorter is padded with
    /// zeros, on every card.
    pub const LEAST: usize = 60;

    /// The capture, `rounds` times (`None`: without end), with `buffers` buffers.
    ///
    /// # Errors
    /// [`Error::Usage`] for several rounds of what can be read once only; as [`Pool::new`].
    pub fn new(
        nic: &dyn Nic,
        capture: CaptureReader,
        rounds: Option<u64>,
        buffers: usize,
    ) -> Result<Self> {
        if rounds != Some(1) && !capture.rewinds() {
            return Err(Error::Usage(format!(
                "{} can be read once only, so it cannot be sent several times: write it to a file first",
                capture.path().display()
            )));
        }
        Ok(Self {
            reader: capture,
            pool: Pool::new(nic.dma(), buffers, nic.max_tx_frame())?,
            limits: Limits::of(nic),
            rounds,
            round: Round::default(),
            due: Duration::ZERO,
            longest_gap: Duration::MAX,
            cut_short: 0,
            padded: 0,
            copied: 0,
        })
    }

    /// Waits no longer than this between two packets, whatever the capture says.
    pub fn set_longest_gap(&mut self, longest: Duration) {
        self.longest_gap = longest;
    }

    /// The capture.
    pub fn capture(&self) -> &CaptureReader {
        &self.reader
    }

    /// Packets shorter than [`CaptureSource::LEAST`], which were padded with zeros.
    pub fn padded(&self) -> u64 {
        self.padded
    }

    /// Packets that the capture holds only the beginning of.
    pub fn cut_short(&self) -> u64 {
        self.cut_short
    }

    /// Begins again, where there is another round to go.
    fn again(&mut self) -> Result<bool> {
        if let Some(rounds) = &mut self.rounds {
            *rounds -= 1;
        }
        if self.rounds == Some(0) || self.round.packets == 0 {
            return Ok(false);
        }
        self.reader.rewind()?;
        self.round = Round::default();
        Ok(true)
    }
}

impl Source for CaptureSource {
    fn next(&mut self, spent: Option<Frame>) -> Result<Next> {
        let Some(mut buf) = buffer(spent, &self.pool) else {
            return Ok(Next::Wait);
        };
        loop {
            let Poll::Ready(packet) = self.reader.poll_next()? else {
                return Ok(Next::NotYet);
            };
            let Some(packet) = packet else {
                if self.again()? {
                    continue;
                }
                return Ok(Next::End);
            };
            // Only what is too long is refused: what is too short is padded.
            let len = packet
                .data
                .len()
                .max(CaptureSource::LEAST)
                .max(self.limits.min);
            let remedy = "cut long packets (editcap -s BYTES IN OUT), or leave this one out (editcap IN OUT NUMBER)";
            self.limits
                .check(len, remedy)
                .map_err(|error| Error::Packet {
                    number: packet.number,
                    source: Box::new(error),
                })?;
            buf.fill(packet.data);
            if packet.data.len() < len {
                buf.set_len(len);
                (packet.data.len()..len).for_each(|at| buf.put(at, &[0]));
                self.padded += 1;
            }
            if let Some(time) = packet.time {
                let gap = self.round.gap(time).min(self.longest_gap);
                self.due = self.due.saturating_add(gap);
            }
            self.round.packets += 1;
            self.cut_short += u64::from(packet.wire_len > packet.data.len());
            self.copied += packet.data.len() as u64;
            return Ok(Next::Frame(buf.into()));
        }
    }

    fn wait(&mut self, bound: Duration) -> Result<()> {
        self.reader.wait(bound)
    }

    fn due(&self) -> Duration {
        self.due
    }

    fn by_cpu(&self) -> CpuBytes {
        CpuBytes {
            headers: 0,
            payload: self.copied,
        }
    }
}

/// A file as UDP datagrams: headers from a pool, payload read by the card from the page cache.
///
/// A part of the file is pinned at a time, and what is still in flight of the one before, so the file may
/// be longer than memory.
pub struct FileSource {
    space: Arc<dyn DmaSpace>,
    part: DmaFile,
    /// Offset in the file behind it.
    past: u64,
    in_flight: usize,
    denied: bool,
    headers: Pool,
    datagrams: Datagrams,
}

/// Bytes of a file that are pinned at a time: many, since the system is called for each part.
const PART: u64 = 64 << 20;

impl FileSource {
    /// These bytes of `file`, called `path`, `payload` bytes a datagram, with `in_flight` datagrams under
    /// way at once.
    ///
    /// # Errors
    /// If the file cannot be mapped, or the datagrams are not of a length that the card sends.
    pub fn new(
        nic: &dyn Nic,
        (file, path): (&File, &Path),
        bytes: Range<u64>,
        flow: UdpFlow,
        payload: usize,
        in_flight: usize,
    ) -> Result<Self> {
        let datagrams = Datagrams::new(nic, (file, path), bytes, flow, payload)?;
        let (begin, past) = datagrams.part();
        Ok(Self {
            space: Arc::clone(nic.dma()),
            part: DmaFile::map_part(nic.dma(), &datagrams.file, (begin, past - begin), in_flight)?,
            past,
            in_flight,
            denied: false,
            headers: Pool::new(nic.dma(), in_flight, UdpFlow::HEADER)?,
            datagrams,
        })
    }

    /// Takes this process's access to the payload away, now and for the parts that come
    /// ([`DmaFile::deny_cpu`]).
    ///
    /// # Errors
    /// If the system refuses.
    pub fn deny_cpu(&mut self) -> Result<()> {
        self.denied = true;
        self.part.deny_cpu()
    }

    /// Checks that the file is still as long as it has to be.
    ///
    /// # Errors
    /// [`Error::File`] where it is shorter.
    pub fn check_length(&self) -> Result<()> {
        self.datagrams.check_length()
    }

    /// Pins the next part of the file.
    #[cold]
    fn turn(&mut self) -> Result<()> {
        self.check_length()?;
        let (begin, past) = self.datagrams.part();
        let part = (begin, past - begin);
        self.part = DmaFile::map_part(&self.space, &self.datagrams.file, part, self.in_flight)?;
        self.past = past;
        if self.denied {
            self.part.deny_cpu()?;
        }
        Ok(())
    }
}

/// Cut of a file into datagrams, and the place of the next one.
struct Datagrams {
    path: PathBuf,
    file: File,
    flow: UdpFlow,
    /// The card's part in each.
    offload: Offload,
    /// The header of a full one, and how much payload that has.
    header: [u8; UdpFlow::HEADER],
    payload: usize,
    begin: u64,
    offset: u64,
    end: u64,
    count: u64,
}

impl Datagrams {
    fn new(
        nic: &dyn Nic,
        (file, path): (&File, &Path),
        bytes: Range<u64>,
        flow: UdpFlow,
        payload: usize,
    ) -> Result<Self> {
        Limits::of(nic).check(UdpFlow::HEADER + payload, "choose another payload size")?;
        let flags = Offload::UDP4.flags & nic.offloads();
        let offload = Offload {
            flags,
            ..Offload::UDP4
        };
        let file = file.try_clone();
        Ok(Self {
            path: path.to_owned(),
            file: file.map_err(|error| cannot_read(path, error))?,
            header: header(&flow, payload, offload),
            flow,
            offload,
            payload,
            begin: bytes.start,
            offset: bytes.start,
            end: bytes.end,
            count: 0,
        })
    }

    /// Bytes of the next one; none at the end.
    fn next(&self) -> usize {
        let left = self.end.saturating_sub(self.offset);
        usize::try_from(left).map_or(self.payload, |left| left.min(self.payload))
    }

    /// The part of the file that the next one lies in: where it begins and ends.
    fn part(&self) -> (u64, u64) {
        let begin = self.offset - self.offset % DmaFile::ALIGN;
        (begin, self.end.min(begin + PART).max(begin))
    }

    fn check_length(&self) -> Result<()> {
        let metadata = self.file.metadata();
        let now = metadata.map_err(|error| cannot_read(&self.path, error))?;
        if now.len() >= self.end {
            return Ok(());
        }
        Err(Error::File {
            path: self.path.clone(),
            what: format!(
                "it was truncated from {} to {} bytes while it was being sent; what was sent are \
                 {} bytes as they were when they were mapped or copied\n  send it again for what it is now",
                self.end,
                now.len(),
                self.offset - self.begin
            ),
        })
    }

    /// It is as long as it has to be, but there is nothing at `offset`.
    #[cold]
    fn nothing_at(&self, offset: u64) -> Error {
        Error::File {
            path: self.path.clone(),
            what: format!(
                "nothing is to be read at byte {offset}, although it is said to have {} bytes: it changes \
                 meanwhile, or its length is made up, as in /sys\n  send a copy of it: cp",
                self.end
            ),
        }
    }

    fn header(&self, payload: usize) -> [u8; UdpFlow::HEADER] {
        match payload == self.payload {
            true => self.header,
            false => header(&self.flow, payload, self.offload),
        }
    }

    /// Counts one, of so many bytes.
    fn made(&mut self, frame: &mut Frame, payload: usize) {
        frame.set_offload(self.offload);
        self.offset += payload as u64;
        self.count += 1;
    }
}

fn cannot_read(path: &Path, source: io::Error) -> Error {
    Error::io(format!("cannot read {}", path.display()), source)
}

/// The headers of a datagram of `payload` bytes, for a card that does `offload`. One that cannot sum the
/// payload sends it without a checksum (zero, RFC 768), since nobody but the card reads it.
fn header(flow: &UdpFlow, payload: usize, offload: Offload) -> [u8; UdpFlow::HEADER] {
    let mut header = flow.header(payload);
    if !offload.flags.contains(OffloadFlags::UDP_CHECKSUM) {
        header[UdpFlow::HEADER - 2..].fill(0);
    }
    header
}

impl Source for FileSource {
    fn next(&mut self, spent: Option<Frame>) -> Result<Next> {
        // Its header goes back to the pool and its slice to the file.
        drop(spent);
        let (offset, len) = (self.datagrams.offset, self.datagrams.next());
        if len == 0 {
            return Ok(Next::End);
        }
        if offset + len as u64 > self.past {
            self.turn()?;
        }
        let slice = self.part.slice(offset, len);
        let (Some(slice), Some(mut header)) = (slice, self.headers.alloc()) else {
            return Ok(Next::Wait);
        };
        header.fill(&self.datagrams.header(len));
        let mut frame = Frame::from(header);
        frame.append(slice);
        self.datagrams.made(&mut frame, len);
        Ok(Next::Frame(frame))
    }

    fn by_cpu(&self) -> CpuBytes {
        CpuBytes {
            headers: self.datagrams.count * UdpFlow::HEADER as u64,
            payload: 0,
        }
    }
}

/// A file as UDP datagrams that are copied: header and payload in one buffer, into which the kernel reads
/// the payload.
pub struct CopySource {
    pool: Pool,
    datagrams: Datagrams,
}

impl CopySource {
    /// As [`FileSource::new`].
    ///
    /// # Errors
    /// As [`Pool::new`], and where the datagrams are not of a length that the card sends.
    pub fn new(
        nic: &dyn Nic,
        file: (&File, &Path),
        bytes: Range<u64>,
        flow: UdpFlow,
        payload: usize,
        in_flight: usize,
    ) -> Result<Self> {
        Ok(Self {
            datagrams: Datagrams::new(nic, file, bytes, flow, payload)?,
            pool: Pool::new(nic.dma(), in_flight, UdpFlow::HEADER + payload)?,
        })
    }
}

impl Source for CopySource {
    fn next(&mut self, spent: Option<Frame>) -> Result<Next> {
        let datagrams = &mut self.datagrams;
        let (offset, len) = (datagrams.offset, datagrams.next());
        if len == 0 {
            return Ok(Next::End);
        }
        let Some(mut buf) = buffer(spent, &self.pool) else {
            return Ok(Next::Wait);
        };
        buf.set_len(UdpFlow::HEADER + len);
        buf.put(0, &datagrams.header(len));
        let mut done = 0;
        while done < len {
            let place = (UdpFlow::HEADER + done, offset + done as u64);
            match buf.read_at(place.0, len - done, &datagrams.file, place.1) {
                Ok(0) => {
                    datagrams.check_length()?;
                    return Err(datagrams.nothing_at(place.1));
                }
                Ok(read) => done += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(cannot_read(&datagrams.path, error)),
            }
        }
        let mut frame = Frame::from(buf);
        datagrams.made(&mut frame, len);
        Ok(Next::Frame(frame))
    }

    fn by_cpu(&self) -> CpuBytes {
        let datagrams = &self.datagrams;
        CpuBytes {
            headers: datagrams.count * UdpFlow::HEADER as u64,
            payload: datagrams.offset - datagrams.begin,
        }
    }
}

/// Frames made up: an Ethernet header, a number that counts them, then bytes that count up.
pub struct SyntheticSource {
    template: Vec<u8>,
    pool: Pool,
    made: u64,
    copied: u64,
}

impl SyntheticSource {
    /// Offset of the frame's number (8 bytes, big endian).
    pub const NUMBER: usize = ETHERNET_HEADER;

    /// Frames without end, of `size` bytes, to `destination`, with `buffers` buffers.
    ///
    /// # Errors
    /// A size that the card does not send, and as [`Pool::new`].
    pub fn new(nic: &dyn Nic, destination: Mac, size: usize, buffers: usize) -> Result<Self> {
        Limits::of(nic).check(size, "choose another size")?;
        let mut template = [destination.0, nic.mac().0].concat();
        template.extend(EXPERIMENTAL.to_be_bytes());
        template.extend(
            (0..)
                .take(size.saturating_sub(template.len()))
                .map(|at: usize| at as u8),
        );
        Ok(Self {
            pool: Pool::new(nic.dma(), buffers, template.len())?,
            template,
            made: 0,
            copied: 0,
        })
    }
}

impl Source for SyntheticSource {
    fn next(&mut self, spent: Option<Frame>) -> Result<Next> {
        let mut buf = match spent.map(Frame::into_buf) {
            // It holds all but the number already.
            Some(Ok(buf)) => buf,
            _ => {
                let Some(mut buf) = self.pool.alloc() else {
                    return Ok(Next::Wait);
                };
                buf.fill(&self.template);
                self.copied += self.template.len() as u64;
                buf
            }
        };
        let number = self.made.to_be_bytes();
        if let Some(room) = buf.len().checked_sub(Self::NUMBER) {
            buf.put(Self::NUMBER, &number[..room.min(8)]);
        }
        self.made += 1;
        Ok(Next::Frame(buf.into()))
    }

    fn by_cpu(&self) -> CpuBytes {
        CpuBytes {
            headers: 0,
            payload: self.copied,
        }
    }
}

/// The first frames of another source.
pub struct Limit<S> {
    /// The other source.
    pub inner: S,
    /// Frames yet to come.
    pub left: u64,
}

impl<S: Source> Source for Limit<S> {
    fn next(&mut self, spent: Option<Frame>) -> Result<Next> {
        if self.left == 0 {
            return Ok(Next::End);
        }
        let next = self.inner.next(spent)?;
        self.left -= u64::from(matches!(next, Next::Frame(_)));
        Ok(next)
    }

    fn due(&self) -> Duration {
        self.inner.due()
    }

    fn wait(&mut self, bound: Duration) -> Result<()> {
        self.inner.wait(bound)
    }

    fn by_cpu(&self) -> CpuBytes {
        self.inner.by_cpu()
    }
}

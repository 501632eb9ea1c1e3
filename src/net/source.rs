//! What can be sent: a capture, a file's page cache, frames made up.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::capture::CaptureReader;
use super::packet::{ETHERNET_HEADER, UdpFlow};
use super::transmit::{CpuBytes, Next, Source};
use crate::dma::{DmaBuf, DmaFile, Frame, Offload, Pool};
use crate::error::{Error, Result};
use crate::nic::{Mac, Nic};

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
        _ => pool.take(),
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
    cut_short: u64,
    copied: u64,
}

/// One pass over a capture.
#[derive(Default)]
struct Round {
    packets: u64,
    /// When it began, counted from the first packet of all.
    start: Duration,
    /// Time of its first packet.
    first: Option<Duration>,
}

impl CaptureSource {
    /// The capture, `rounds` times (`None`: without end), with `buffers` buffers.
    ///
    /// # Errors
    /// As [`Pool::new`].
    pub fn new(
        nic: &dyn Nic,
        capture: CaptureReader,
        rounds: Option<u64>,
        buffers: usize,
    ) -> Result<Self> {
        Ok(Self {
            reader: capture,
            pool: Pool::new(nic.dma(), buffers, nic.max_tx_frame())?,
            limits: Limits::of(nic),
            rounds,
            round: Round::default(),
            due: Duration::ZERO,
            cut_short: 0,
            copied: 0,
        })
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
        self.reader = CaptureReader::open(self.reader.path())?;
        self.round = Round {
            start: self.due,
            ..Round::default()
        };
        Ok(true)
    }
}

impl Source for CaptureSource {
    fn next(&mut self, spent: Option<Frame>) -> Result<Next> {
        let Some(mut buf) = buffer(spent, &self.pool) else {
            return Ok(Next::Wait);
        };
        loop {
            let limits = &self.limits;
            let taken = self.reader.next(|packet| {
                let remedy =
                    "cut long packets (editcap -s BYTES IN OUT), or leave this one out (editcap IN OUT NUMBER)";
                limits
                    .check(packet.data.len(), remedy)
                    .map_err(|error| Error::Packet {
                        number: packet.number,
                        source: Box::new(error),
                    })?;
                buf.fill(packet.data);
                Ok((packet.time, packet.wire_len))
            })?;
            let Some(taken) = taken else {
                if self.again()? {
                    continue;
                }
                return Ok(Next::End);
            };
            let (time, wire_len): (Option<Duration>, usize) = taken?;
            if let Some(time) = time {
                let first = *self.round.first.get_or_insert(time);
                // A capture of several interfaces may go back in time; frames do not.
                let due = self.round.start + time.saturating_sub(first);
                self.due = self.due.max(due);
            }
            self.round.packets += 1;
            self.cut_short += u64::from(wire_len > buf.len());
            self.copied += buf.len() as u64;
            return Ok(Next::Frame(buf.into()));
        }
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
pub struct FileSource {
    path: PathBuf,
    file: DmaFile,
    headers: Pool,
    flow: UdpFlow,
    /// The header of a full datagram, and how much payload that has.
    header: [u8; UdpFlow::HEADER],
    payload: usize,
    offset: u64,
    frames: u64,
}

impl FileSource {
    /// `file`, called `path`, `payload` bytes a datagram, with `in_flight` datagrams under way at once.
    ///
    /// # Errors
    /// Where the file cannot be mapped, or the datagrams are not of a length that the card sends.
    pub fn new(
        nic: &dyn Nic,
        file: &File,
        path: &Path,
        flow: UdpFlow,
        payload: usize,
        in_flight: usize,
    ) -> Result<Self> {
        Limits::of(nic).check(UdpFlow::HEADER + payload, "choose another --payload")?;
        Ok(Self {
            path: path.to_owned(),
            file: DmaFile::map(nic.dma(), file, in_flight)?,
            headers: Pool::new(nic.dma(), in_flight, UdpFlow::HEADER)?,
            header: flow.header(payload),
            flow,
            payload,
            offset: 0,
            frames: 0,
        })
    }

    /// The file's mapping: its length, where it is, and how to take it from the processor.
    pub fn file(&self) -> &DmaFile {
        &self.file
    }

    /// Is the file still as long as it was?
    ///
    /// # Errors
    /// [`Error::File`] where it is shorter.
    pub fn check_length(&self) -> Result<()> {
        let (len, now) = (self.file.len(), self.file.len_now()?);
        if now >= len {
            return Ok(());
        }
        Err(Error::File {
            path: self.path.clone(),
            what: format!(
                "it was truncated from {len} to {now} bytes while it was being sent; what was sent are \
                 {} bytes as they were when it was mapped (pages that are pinned stay)\n  \
                 send it again for what it is now",
                self.offset
            ),
        })
    }
}

impl Source for FileSource {
    fn next(&mut self, spent: Option<Frame>) -> Result<Next> {
        // Its header goes back to the pool and its slice to the file.
        drop(spent);
        let left = self.file.len() - self.offset;
        if left == 0 {
            return Ok(Next::End);
        }
        let len = usize::try_from(left).map_or(self.payload, |left| left.min(self.payload));
        let slice = self.file.slice(self.offset, len);
        let (Some(slice), Some(mut header)) = (slice, self.headers.take()) else {
            return Ok(Next::Wait);
        };
        if len == self.payload {
            header.fill(&self.header);
        } else {
            header.fill(&self.flow.header(len));
        }
        let mut frame = Frame::from(header);
        frame.append(slice);
        frame.set_offload(Offload::UDP4);
        self.offset += len as u64;
        self.frames += 1;
        Ok(Next::Frame(frame))
    }

    fn by_cpu(&self) -> CpuBytes {
        CpuBytes {
            headers: self.frames * UdpFlow::HEADER as u64,
            payload: 0,
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
    /// Where the frame's number is (8 bytes, big endian).
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
                let Some(mut buf) = self.pool.take() else {
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

    fn by_cpu(&self) -> CpuBytes {
        self.inner.by_cpu()
    }
}

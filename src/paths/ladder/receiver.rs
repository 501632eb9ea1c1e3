//! The far end, as the sender knows it: it takes the bytes, hashes them, and says what it got.
//!
//! A control connection goes with each transfer, in lines: `tcp BYTES` or `udp BYTES PAYLOAD`, which
//! is answered by `port PORT WINDOW`; then the payload flows to that port, and for datagrams `got
//! BYTES` comes back now and then: no more than WINDOW bytes may be under way. At last: `done BYTES
//! SHA256`. `qemu/far-end` is one that is not our code; [`receive`](super::receive) is one that is.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::bounds::{NAP, STUCK};
use super::{Protocol, Why};

/// Bytes of a line, at most.
const LINE: u64 = 256;

/// Longest wait for a far end's count of a transfer that was broken off: those in this house wait for more datagrams
/// for 5 s.
const GIVES_UP: Duration = Duration::from_secs(10);

/// The receiver of one transfer, reached by its control connection.
pub struct Receiver {
    control: BufReader<TcpStream>,
    /// The line that is being received, as far as it has come.
    line: Vec<u8>,
    /// Destination of the payload.
    data: SocketAddr,
    /// Bytes that may be under way: any number of a stream's, which waits by itself.
    window: u64,
    /// Bytes that arrived, as far as it has said.
    got: u64,
    delivered: Option<Delivered>,
}

/// The far end's count and hash of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 of them, in hexadecimal.
    pub sha256: String,
}

impl Receiver {
    /// Announces `len` bytes to the far end that listens at `control`, whose address for the payload is
    /// `data` where that is another.
    ///
    /// # Errors
    /// If it is not there, or says what cannot be understood.
    pub fn announce(
        control: SocketAddr,
        data: Option<IpAddr>,
        protocol: Protocol,
        (len, payload): (u64, usize),
    ) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&control, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(NAP))?;
        let line = match protocol {
            Protocol::Udp => format!("udp {len} {payload}\n"),
            _ => format!("tcp {len}\n"),
        };
        stream.write_all(line.as_bytes())?;
        let mut far = Self {
            control: BufReader::new(stream),
            line: Vec::new(),
            data: SocketAddr::new(data.unwrap_or(control.ip()), 0),
            window: 0,
            got: 0,
            delivered: None,
        };
        let begin = Instant::now();
        while far.window == 0 {
            far.hear().map_err(|why| match why {
                Why::Call { source, .. } => source,
                why => io::Error::other(why.to_string()),
            })?;
            if begin.elapsed() > Duration::from_secs(10) {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        Ok(far)
    }

    /// Returns the destination of the payload.
    pub fn data(&self) -> SocketAddr {
        self.data
    }

    /// Returns whether the far end has room for the bytes before `past`, as far as it has said by now.
    pub(super) fn has_room(&mut self, past: u64) -> Result<bool, Why> {
        while self.lacks_room(past)? {
            let mut control = [PollFd::new(self.control.get_ref(), PollFlags::IN)];
            let said = !self.control.buffer().is_empty()
                || poll(&mut control, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
            let before = self.got;
            if said {
                self.hear()?;
            }
            if self.got == before && self.delivered.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until there is.
    #[inline]
    pub(super) fn wait_for_room(&mut self, past: u64, stop: &AtomicBool) -> Result<(), Why> {
        let mut since = None;
        while self.lacks_room(past)? {
            if stop.load(Ordering::Relaxed) {
                return Err(Why::Interrupted);
            }
            let before = self.got;
            self.hear()?;
            if self.got > before {
                since = None;
            } else if since.get_or_insert_with(Instant::now).elapsed() > STUCK {
                return Err(Why::Stuck {
                    seconds: STUCK.as_secs(),
                });
            }
        }
        Ok(())
    }

    /// Returns whether the bytes before `past` exceed the window; [`Why::Lost`] where they do and the far end has
    /// given up.
    #[inline]
    fn lacks_room(&self, past: u64) -> Result<bool, Why> {
        let lacks = past > self.got.saturating_add(self.window);
        match &self.delivered {
            Some(Delivered { bytes, .. }) if lacks => Err(Why::Lost { got: *bytes }),
            _ => Ok(lacks),
        }
    }

    /// Waits until the far end has all, or has waited for the rest long enough; returns what arrived.
    ///
    /// # Errors
    /// [`Why::Interrupted`]; [`Why::Stuck`] where it says nothing; what the connection says.
    pub fn delivered(&mut self, stop: &AtomicBool) -> Result<Delivered, Why> {
        let (mut since, mut got) = (Instant::now(), self.got);
        loop {
            if let Some(delivered) = self.delivered.take() {
                return Ok(delivered);
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Why::Interrupted);
            }
            if self.got > got {
                (since, got) = (Instant::now(), self.got);
            } else if since.elapsed() > STUCK {
                return Err(Why::Stuck {
                    seconds: STUCK.as_secs(),
                });
            }
            self.hear()?;
        }
    }

    /// Bytes that arrived of a transfer that was broken off, once the far end has given up on the rest;
    /// `None` where it does not say.
    pub(super) fn arrived(&mut self, stop: &AtomicBool) -> Option<u64> {
        let begin = Instant::now();
        while self.delivered.is_none() {
            let is_over = begin.elapsed() > GIVES_UP || stop.load(Ordering::Relaxed);
            if is_over || self.hear().is_err() {
                return None;
            }
        }
        self.delivered.as_ref().map(|delivered| delivered.bytes)
    }

    /// Bytes of which it has said by now that they arrived.
    pub fn got(&self) -> u64 {
        self.got
    }

    /// Takes one line, waiting for it for [`NAP`] at most.
    fn hear(&mut self) -> Result<(), Why> {
        let failed = |source| Why::Call {
            call: "hearing what the far end got",
            source,
        };
        let rest = LINE - self.line.len() as u64;
        let mut control = (&mut self.control).take(rest);
        match control.read_until(b'\n', &mut self.line) {
            Ok(_) if self.line.last() == Some(&b'\n') => {
                let line = std::mem::take(&mut self.line);
                let line = String::from_utf8_lossy(&line);
                let what = || format!("it says {line:?}, which no far end of ours does");
                self.understand(line.trim())
                    .ok_or_else(|| failed(io::Error::other(what())))
            }
            Ok(_) if self.line.len() as u64 == LINE => {
                Err(failed(io::Error::other("it says a line without an end")))
            }
            Ok(_) => Err(failed(ErrorKind::UnexpectedEof.into())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    fn understand(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["port", port, window] => {
                self.data.set_port(port.parse().ok()?);
                self.window = window.parse().ok().filter(|window| *window > 0)?;
            }
            ["got", bytes] => self.got = self.got.max(bytes.parse().ok()?),
            ["done", bytes, sha256] => {
                let bytes = bytes.parse().ok()?;
                self.delivered = Some(Delivered {
                    bytes,
                    sha256: sha256.to_owned(),
                });
            }
            _ => return None,
        }
        Some(())
    }
}

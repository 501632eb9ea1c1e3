//! The bytes of a capture: from a file, a pipe, a compressed one of either.
//!
//! The rule: to read never waits. What may wait is asked first whether it has something
//! ([`Waits::is_ready`]), and where it has not, reading gives [`Poll::Pending`]; whoever has nothing else
//! to do calls [`Window::wait`], which a signal ends.

use std::fs::File;
use std::io::{self, BufReader, Cursor, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;

/// A file of which reading may wait for another program: a pipe, a terminal, a socket.
struct Waits(Arc<OwnedFd>);

impl Waits {
    /// Waits until there is something to read, or the end; at most `bound` long, or until a signal.
    fn is_ready(&self, bound: Duration) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let bound = Timespec::try_from(bound).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&bound)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Read for Waits {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.is_ready(Duration::ZERO)? {
            true => Ok(rustix::io::read(&self.0, into)?),
            false => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

/// The bytes of a capture that have come and are not used up yet.
pub struct Window {
    source: Box<dyn Read + Send>,
    waits: Option<Waits>,
    /// `from..to` of them have come.
    bytes: Vec<u8>,
    from: usize,
    to: usize,
    /// Bytes to come that nobody wants.
    skip: u64,
    ended: bool,
    compressed: bool,
}

impl Window {
    /// The bytes of `file`, which waits for nobody.
    pub fn still(file: File) -> Self {
        Self::of(Box::new(file), None)
    }

    /// The bytes of `file`, which may have to wait for another program.
    pub fn stream(file: OwnedFd) -> Self {
        let file = Arc::new(file);
        let source = Waits(Arc::clone(&file));
        Self::of(Box::new(source), Some(Waits(file)))
    }

    /// The bytes that `source` has; to read it may take what time it takes.
    pub fn of_reader(source: impl Read + Send + 'static) -> Self {
        Self::of(Box::new(source), None)
    }

    fn of(source: Box<dyn Read + Send>, waits: Option<Waits>) -> Self {
        Self {
            source,
            waits,
            bytes: Vec::new(),
            from: 0,
            to: 0,
            skip: 0,
            ended: false,
            compressed: false,
        }
    }

    /// All that comes, and has come, is compressed by gzip.
    pub fn gunzip(&mut self) {
        let come = Cursor::new(self.bytes[self.from..self.to].to_vec());
        let rest = std::mem::replace(&mut self.source, Box::new(io::empty()));
        self.source = Box::new(MultiGzDecoder::new(BufReader::new(come.chain(rest))));
        (self.from, self.to, self.ended) = (0, 0, false);
        self.compressed = true;
    }

    /// Returns whether it is compressed.
    pub fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// Makes the next `len` bytes ready; fewer only if the capture ends before.
    ///
    /// # Errors
    /// Those of reading.
    #[inline]
    pub fn want(&mut self, len: usize) -> io::Result<Poll<&[u8]>> {
        if self.skip > 0 || self.to - self.from < len {
            return self.want_more(len);
        }
        Ok(Poll::Ready(&self.bytes[self.from..self.to]))
    }

    #[cold]
    fn want_more(&mut self, len: usize) -> io::Result<Poll<&[u8]>> {
        loop {
            let skipped = self
                .skip
                .min(u64::try_from(self.to - self.from).unwrap_or(u64::MAX));
            self.skip -= skipped;
            self.from += skipped as usize; // no more than there are
            if self.ended || (self.skip == 0 && self.to - self.from >= len) {
                return Ok(Poll::Ready(&self.bytes[self.from..self.to]));
            }
            if self.fill()?.is_pending() {
                return Ok(Poll::Pending);
            }
        }
    }

    /// Reads once. The room grows with what comes, not with what a header says.
    fn fill(&mut self) -> io::Result<Poll<()>> {
        if self.from > 0 {
            self.bytes.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        if self.bytes.len() < self.to + CHUNK / 2 {
            self.bytes.resize(self.to.max(CHUNK / 2) * 2, 0);
        }
        match self.source.read(&mut self.bytes[self.to..]) {
            Ok(read) => {
                self.ended = read == 0;
                self.to += read;
                Ok(Poll::Ready(()))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Poll::Pending),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Poll::Ready(())),
            Err(error) => Err(error),
        }
    }

    /// These bytes of those that are ready.
    #[inline]
    pub fn get(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.bytes[self.from..self.to][range]
    }

    /// Goes on behind the next `len` bytes, which need not have come.
    #[inline]
    pub fn advance(&mut self, len: u64) {
        let ready = (self.to - self.from) as u64;
        if len <= ready {
            self.from += len as usize; // no more than there are
        } else {
            self.from = self.to;
            self.skip += len - ready;
        }
    }

    /// Returns whether the capture ends in the middle of what was advanced behind.
    pub fn is_cut(&self) -> bool {
        self.ended && self.skip > 0
    }

    /// Waits until more may have come: at most `bound` long, or until a signal.
    ///
    /// # Errors
    /// Those of poll(2).
    pub fn wait(&self, bound: Duration) -> io::Result<()> {
        match &self.waits {
            Some(waits) => waits.is_ready(bound).map(drop),
            None => Ok(()),
        }
    }
}

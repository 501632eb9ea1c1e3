//! The qtest protocol: one line a request, one line an answer, in order.
//!
//! A write to a register is posted, as on the PCI bus: we go on while it is on its way, with a bound
//! on how many. A read waits for its answer. One thread reads the socket: it counts the answers and
//! passes on the interrupt lines, which come in between. Once the socket is closed, or an answer did
//! not come in time, QEMU counts as dead for good: reads give all ones and writes go nowhere, as
//! with a device that was pulled out.

use std::fmt::Arguments;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Largest number of writes without an answer yet: few enough to fit into the socket's buffer.
const MOST_POSTED: u64 = 256;

/// Locks, also after another thread's panic: every state between two statements is a valid one.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Our end of the qtest socket.
pub(super) struct Wire {
    stream: UnixStream,
    /// Longest time for one answer.
    bound: Duration,
    /// Number of requests sent. Whoever waits for an answer holds the lock meanwhile.
    sent: Mutex<u64>,
    progress: Mutex<Progress>,
    answered: Condvar,
}

#[derive(Default)]
struct Progress {
    /// Number of answers received.
    answers: u64,
    /// Value in the latest one.
    value: u64,
    /// The answer that somebody sleeps for.
    wanted: u64,
    dead: bool,
}

/// An interrupt line of the IOAPIC has changed.
pub(super) struct Edge {
    pub line: u32,
    pub high: bool,
}

impl Wire {
    pub fn new(stream: UnixStream, bound: Duration) -> Result<Self> {
        // A QEMU that hangs reads nothing: do not hang with it.
        stream
            .set_write_timeout(Some(bound))
            .map_err(|error| Error::io("limiting the time of a write to QEMU", error))?;
        Ok(Self {
            stream,
            bound,
            sent: Mutex::default(),
            progress: Mutex::default(),
            answered: Condvar::new(),
        })
    }

    /// Sends a request whose answer says nothing.
    pub fn post(&self, request: Arguments) {
        let mut sent = lock(&self.sent);
        if self.wait((*sent + 1).saturating_sub(MOST_POSTED)).is_some() {
            self.send(&mut sent, request);
        }
    }

    /// Sends a request and waits for its answer; `None` where QEMU is dead.
    pub fn ask(&self, request: Arguments) -> Option<u64> {
        let mut sent = lock(&self.sent);
        self.send(&mut sent, request);
        self.wait(*sent)
    }

    /// Waits until everything that was posted has been done.
    pub fn flush(&self) {
        let sent = lock(&self.sent);
        self.wait(*sent);
    }

    /// Gives QEMU up.
    pub fn close(&self) {
        // Fails only where it is closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
        lock(&self.progress).dead = true;
        self.answered.notify_all();
    }

    fn send(&self, sent: &mut u64, request: Arguments) {
        let mut line = [0; 80];
        let mut rest = &mut line[..];
        writeln!(rest, "{request}").expect("a request of less than 80 bytes");
        let length = 80 - rest.len();
        let mut stream = &self.stream;
        match stream.write_all(&line[..length]) {
            Ok(()) => *sent += 1,
            Err(_) => self.close(),
        }
    }

    /// Waits for answer number `number`; gives the latest one's value. The caller holds `sent`, so
    /// one waits at a time, and the latest answer is the one to the latest request.
    fn wait(&self, number: u64) -> Option<u64> {
        let mut progress = lock(&self.progress);
        if progress.answers < number {
            let deadline = Instant::now() + self.bound;
            progress.wanted = number;
            while progress.answers < number && !progress.dead {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    drop(progress);
                    tracing::warn!("QEMU gave no answer within {:?}: given up", self.bound);
                    self.close();
                    return None;
                }
                let waited = self.answered.wait_timeout(progress, left);
                progress = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        (!progress.dead).then_some(progress.value)
    }

    /// Reads answers until the socket is closed: the body of the reading thread.
    pub fn read(&self, mut on_edge: impl FnMut(Edge)) {
        let mut reader = BufReader::new(&self.stream);
        let mut line = String::new();
        loop {
            line.clear();
            match reader.read_line(&mut line) {
                Ok(1..) => {}
                Ok(0) => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            }
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("IRQ") => {
                    let high = words.next() == Some("raise");
                    if let Some(line) = words.next().and_then(|line| line.parse().ok()) {
                        on_edge(Edge { line, high });
                    }
                }
                Some("OK") => {
                    let hex = words.next().and_then(|word| word.strip_prefix("0x"));
                    self.answer(hex.and_then(|hex| u64::from_str_radix(hex, 16).ok()));
                }
                _ => {
                    tracing::warn!("QEMU refused a request: {}", line.trim_end());
                    self.answer(None);
                }
            }
        }
        self.close();
    }

    fn answer(&self, value: Option<u64>) {
        let mut progress = lock(&self.progress);
        progress.answers += 1;
        progress.value = value.unwrap_or(u64::MAX);
        // Nobody sleeps for most answers: those of posted writes.
        if progress.answers == progress.wanted {
            self.answered.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::sync::Arc;

    type Edges = std::thread::JoinHandle<Vec<(u32, bool)>>;

    fn wire(bound: Duration) -> (Arc<Wire>, UnixStream, Edges) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let wire = Arc::new(Wire::new(ours, bound).unwrap());
        let reader = Arc::clone(&wire);
        let thread = std::thread::spawn(move || {
            let mut edges = Vec::new();
            reader.read(|edge| edges.push((edge.line, edge.high)));
            edges
        });
        (wire, theirs, thread)
    }

    #[test]
    fn interrupts_between_answers_go_their_own_way() {
        let (wire, mut qemu, thread) = wire(Duration::from_secs(10));
        qemu.write_all(b"OK\nIRQ raise 20\nOK 0x0000002a\nIRQ lower 20\n")
            .unwrap();
        wire.post(format_args!("writel 0x0 0x0"));
        assert_eq!(wire.ask(format_args!("readl 0x0")), Some(0x2a));
        drop(qemu);
        assert_eq!(thread.join().unwrap(), [(20, true), (20, false)]);
        assert_eq!(wire.ask(format_args!("readl 0x0")), None);
    }

    #[test]
    fn a_qemu_that_never_answers_is_given_up_in_time() {
        const BOUND: Duration = Duration::from_secs(1);
        let (wire, qemu, thread) = wire(BOUND);
        let start = Instant::now();
        assert_eq!(wire.ask(format_args!("readl 0x0")), None);
        assert!(start.elapsed() >= BOUND);
        let start = Instant::now();
        assert_eq!(wire.ask(format_args!("readl 0x4")), None);
        wire.post(format_args!("writel 0x4 0x0"));
        wire.flush();
        assert!(start.elapsed() < BOUND, "waited once more");
        thread.join().unwrap();
        drop(qemu);
    }

    #[test]
    fn writes_without_answers_are_bounded() {
        let (wire, mut qemu, thread) = wire(Duration::from_millis(100));
        for value in 0..2 * MOST_POSTED {
            wire.post(format_args!("writel 0x0 {value:#x}"));
        }
        thread.join().unwrap();
        let mut requests = String::new();
        qemu.read_to_string(&mut requests).unwrap();
        assert_eq!(requests.lines().count() as u64, MOST_POSTED);
    }

    #[test]
    fn a_refused_request_reads_all_ones() {
        let (wire, mut qemu, _thread) = wire(Duration::from_secs(10));
        qemu.write_all(b"FAIL Unknown command 'x'\n").unwrap();
        assert_eq!(wire.ask(format_args!("x")), Some(u64::MAX));
        wire.close();
    }
}

//! One connection: requests come in, one after the other they are answered.
//!
//! A connection that waits for a request owns no memory but itself. Its socket does not block and is
//! watched for edges: it is read until a read comes short, and written until it is full.

use std::borrow::Cow;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, socket_error};
use rustix::net::{RecvFlags, Shutdown, shutdown};

use super::answer::{Answer, Answering, Sent};
use super::method::Method;
use super::request::{self, Parsed};
use super::root::Root;
use super::status::Status;
use super::unsent::unsent;
use super::{Counts, Patience};

/// Bytes that one connection may move before the others come.
const SHARE: u64 = 2 << 20;
/// Cost of an answer in bytes of the share, beside its own, so that many small ones come to an end, too.
const COST: u64 = 16 << 10;
/// Longest silence of a peer that leaves its side open once we have closed ours.
const ENDING: Duration = Duration::from_secs(2);
/// Longest such time in all, whatever the peer says.
const LONGEST_ENDING: Duration = Duration::from_secs(30);

/// See the module.
pub struct Connection<K> {
    /// The connected socket.
    pub socket: OwnedFd,
    /// The method's state for it.
    pub kept: K,
    peer: SocketAddr,
    state: State,
    /// Bytes that came and are not answered yet.
    input: Vec<u8>,
    /// True if there may be something to read.
    readable: bool,
    /// True if the peer has closed its side. Then a short read is not the end.
    half_closed: bool,
    /// Time at which its present step began.
    since: Instant,
    /// True if `input` begins with what may be a whole request.
    untried: bool,
    /// Bytes handed to the socket so far.
    sent: u64,
    /// Bytes of `sent` that the peer had taken at `since`, where somebody looked.
    taken: Option<u64>,
}

enum State {
    /// Waits for a request, or the rest of one.
    Waiting,
    /// Sends this answer; the line of the request is for the log.
    Answering(Box<Answer>, Option<String>),
    /// Our side is closed; the peer's is read until it is, too. A socket closed with unread bytes would
    /// be reset, and the peer lose our last answer. Since when.
    Ending(Instant),
}

/// The worker's parts that its connections use.
pub struct Means<'a, M> {
    /// The way in which files are sent.
    pub method: &'a mut M,
    /// The folder that is served.
    pub root: &'a Root,
    /// Buffer that requests are read into.
    pub buffer: &'a mut [u8],
    /// The worker's counters.
    pub counts: &'a mut Counts,
    /// The present time.
    pub now: Instant,
    /// True if the server is about to end.
    pub stopping: bool,
}

/// Reasons for which a connection's time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// Nothing is asked for.
    Idle,
    /// A request does not come to its end.
    Head,
    /// An answer is not taken.
    Slow,
}

/// The next step of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing until its socket can do more.
    Wait,
    /// It could go on; others come first.
    Again,
    /// It is over.
    Over,
}

impl<K> Connection<K> {
    /// A connection just made.
    pub fn new(socket: OwnedFd, peer: SocketAddr, kept: K, now: Instant) -> Self {
        Self {
            socket,
            kept,
            peer,
            state: State::Waiting,
            input: Vec::new(),
            readable: false,
            half_closed: false,
            since: now,
            untried: false,
            sent: 0,
            taken: None,
        }
    }

    /// Something happened to its socket.
    pub fn happened<M: Method<Kept = K>>(
        &mut self,
        events: EventFlags,
        means: &mut Means<'_, M>,
    ) -> Next {
        if events.contains(EventFlags::ERR) {
            let read = means.method.reported(&mut self.kept, self.socket.as_fd());
            let error = socket_error(&self.socket);
            match error {
                Ok(Ok(())) if read.is_ok() => {}
                Ok(Err(error)) => return self.cut(error, means),
                _ => return self.cut("a socket that does not tell", means),
            }
        }
        if events.contains(EventFlags::HUP) {
            return self.cut("the peer is gone", means);
        }
        self.half_closed |= events.contains(EventFlags::RDHUP);
        self.readable |= events.intersects(EventFlags::IN | EventFlags::RDHUP);
        self.advance(means)
    }

    /// Goes on as far as it can.
    pub fn advance<M: Method<Kept = K>>(&mut self, means: &mut Means<'_, M>) -> Next {
        let mut share = SHARE;
        loop {
            let next = match self.state {
                State::Waiting => self.hear(means),
                State::Answering(..) => self.answer(means, &mut share),
                State::Ending(_) => self.end(means),
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    /// Returns why its time is up; `None` where it is not. `crowded` where others wait for its place.
    pub fn is_late(&mut self, patience: &Patience, crowded: bool, now: Instant) -> Option<Late> {
        let waited = now.duration_since(self.since);
        match self.state {
            State::Waiting if self.input.is_empty() => {
                let bound = match crowded {
                    true => patience.idle.min(patience.head),
                    false => patience.idle,
                };
                (waited >= bound).then_some(Late::Idle)
            }
            State::Waiting => (waited >= patience.head).then_some(Late::Head),
            State::Answering(..) => {
                if self.taken.is_some() && waited < patience.window {
                    return None;
                }
                // What the socket took is not what the peer took: megabytes may wait in between.
                let taken = self.sent.saturating_sub(unsent(self.socket.as_fd()));
                let before = self.taken.replace(taken)?;
                self.since = now;
                let enough = patience.min_rate as f64 * waited.as_secs_f64();
                let moved = taken.saturating_sub(before) as f64;
                (moved < enough.max(1.0)).then_some(Late::Slow)
            }
            State::Ending(begin) => {
                let is_over = waited >= ENDING || now.duration_since(begin) >= LONGEST_ENDING;
                is_over.then_some(Late::Idle)
            }
        }
    }

    /// Gives up on a peer that is too slow, or tells it so where that is of use.
    pub fn give_up<M: Method<Kept = K>>(&mut self, late: Late, means: &mut Means<'_, M>) -> Next {
        match late {
            Late::Idle => Next::Over,
            Late::Head => {
                means.counts.slow += 1;
                self.input = Vec::new();
                let answer = Answering::new(means.root).status(Status(408), None);
                self.begin(answer, "-", means);
                self.advance(means)
            }
            Late::Slow => {
                means.counts.slow += 1;
                // What it did not take need not be kept for it.
                let _ = set_socket_linger(&self.socket, Some(Duration::ZERO));
                self.cut("too slow", means)
            }
        }
    }

    /// Returns whether there is an answer to be finished.
    pub fn is_answering(&self) -> bool {
        matches!(self.state, State::Answering(..))
    }

    /// Reads, and begins an answer if there is a whole request.
    fn hear<M: Method<Kept = K>>(&mut self, means: &mut Means<'_, M>) -> Option<Next> {
        if self.untried {
            self.untried = false;
            let held = std::mem::take(&mut self.input);
            self.understand(held.into(), means);
            return None;
        }
        if means.stopping && self.input.is_empty() {
            return Some(Next::Over);
        }
        if !self.readable {
            return Some(Next::Wait);
        }
        let buffer = std::mem::take(&mut means.buffer);
        let next = match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((0, _)) => Some(Next::Over),
            Ok((got, _)) => {
                self.received(&buffer[..got], got == buffer.len(), means);
                None
            }
            Err(Errno::INTR) => None,
            Err(Errno::AGAIN) => {
                self.readable = false;
                Some(Next::Wait)
            }
            Err(_) => Some(Next::Over),
        };
        means.buffer = buffer;
        next
    }

    fn received<M: Method<Kept = K>>(
        &mut self,
        bytes: &[u8],
        full: bool,
        means: &mut Means<'_, M>,
    ) {
        // A short read has emptied the socket: whatever comes later is an edge again.
        self.readable = full || self.half_closed;
        if self.input.is_empty() {
            self.since = means.now;
            self.understand(bytes.into(), means);
            return;
        }
        self.input.extend(bytes);
        // No line has ended: not worth another look, up to the bound.
        if bytes.contains(&b'\n') || self.input.len() >= request::LONGEST {
            let held = std::mem::take(&mut self.input);
            self.understand(held.into(), means);
        }
    }

    /// Begins the answer to the request at the beginning of `bytes`, and keeps the rest.
    fn understand<M: Method<Kept = K>>(&mut self, bytes: Cow<'_, [u8]>, means: &mut Means<'_, M>) {
        let answering = Answering::new(means.root);
        let mut fields = request::no_fields();
        match request::parse(&bytes, &mut fields) {
            Parsed::Begun => {
                self.input = match request::begin(&bytes) {
                    0 => bytes.into_owned(),
                    begin => bytes[begin..].to_vec(),
                };
            }
            Parsed::Bad(status) => self.begin(answering.status(status, None), "-", means),
            Parsed::Whole(request, length) => {
                let answer = answering.to(&request);
                // Bytes after the last request are nobody's.
                if answer.keep_alive {
                    let rest = &bytes[length..];
                    self.input = rest[request::begin(rest)..].to_vec();
                    self.untried = !self.input.is_empty();
                }
                means.counts.requests += 1;
                let line = format_args!("{} {}", request.method, request.target);
                self.begin(answer, line, means);
            }
        }
    }

    fn begin<M>(&mut self, answer: Answer, line: impl Display, means: &mut Means<'_, M>) {
        if answer.status.0 >= 400 {
            means.counts.refused += 1;
        }
        let wanted = tracing::enabled!(tracing::Level::INFO);
        let line = wanted.then(|| format!("{} \"{}\"", self.peer, line.to_string().escape_debug()));
        self.taken = None;
        self.change(State::Answering(Box::new(answer), line), means.now);
    }

    fn answer<M: Method<Kept = K>>(
        &mut self,
        means: &mut Means<'_, M>,
        share: &mut u64,
    ) -> Option<Next> {
        let State::Answering(answer, line) = &mut self.state else {
            return None;
        };
        let before = answer.sent;
        let sent = answer.send(means.method, &mut self.kept, self.socket.as_fd(), share);
        let moved = answer.sent - before;
        self.sent += moved;
        means.counts.bytes += moved;
        match sent {
            Ok(Sent::Full) => Some(Next::Wait),
            Ok(Sent::Share) => Some(Next::Again),
            Ok(Sent::All) => {
                if let Some(line) = line {
                    tracing::info!("{line} {} {}", answer.status.0, answer.sent);
                }
                *share = share.saturating_sub(COST);
                if answer.keep_alive && !means.stopping {
                    self.change(State::Waiting, means.now);
                    return None;
                }
                self.change(State::Ending(means.now), means.now);
                self.input = Vec::new();
                match shutdown(&self.socket, Shutdown::Write) {
                    Ok(()) => None,
                    Err(_) => Some(Next::Over),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Some(self.cut("the file has shrunk", means))
            }
            Err(error) => Some(self.cut(error, means)),
        }
    }

    /// Reads what the peer still says, and forgets it.
    fn end<M>(&mut self, means: &mut Means<'_, M>) -> Option<Next> {
        if !self.readable {
            return Some(Next::Wait);
        }
        match rustix::net::recv(&self.socket, &mut *means.buffer, RecvFlags::empty()) {
            Ok((0, _)) => Some(Next::Over),
            Ok(_) => {
                self.since = means.now;
                Some(Next::Again)
            }
            Err(Errno::INTR) => None,
            Err(Errno::AGAIN) => {
                self.readable = false;
                Some(Next::Wait)
            }
            Err(_) => Some(Next::Over),
        }
    }

    /// Ends an answer where it is, or the silence.
    fn cut<M>(&mut self, why: impl Display, means: &mut Means<'_, M>) -> Next {
        if let State::Answering(answer, line) = &self.state {
            means.counts.cut += 1;
            if let Some(line) = line {
                let (status, sent) = (answer.status.0, answer.sent);
                tracing::info!("{line} {status} {sent}, not finished: {why}");
            }
        }
        Next::Over
    }

    fn change(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
    }
}

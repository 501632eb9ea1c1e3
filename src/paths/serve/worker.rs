//! A worker: one thread, one epoll, its share of the connections.
//!
//! All workers accept from one socket, each as long as it has room; so a connection is never given to
//! one that is full while another is not. Where all are full, connections wait in the socket's queue.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use slab::Slab;

use super::connection::{Connection, Means, Next};
use super::method::Method;
use super::root::Root;
use super::{Counts, Patience};
use crate::{Error, Result};

/// RingIndices in events that are no connection's.
const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;
/// Events taken at once.
const EVENTS: usize = 256;
/// Bytes read at once: requests are small.
const BUFFER: usize = 16 << 10;
/// Time without accepting after the system had no file left.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest time for answers to end once the server is to stop.
const GRACE: Duration = Duration::from_secs(5);

/// The server's parts that all workers share.
pub struct Shared<'a> {
    /// The socket that connections come from.
    pub listener: BorrowedFd<'a>,
    /// Readable once the server is to stop.
    pub stop: BorrowedFd<'a>,
    /// The folder that is served.
    pub root: &'a Root,
    /// Bounds of the waits for a peer.
    pub patience: &'a Patience,
    /// Number of connections that each worker may have.
    pub room: usize,
}

/// See the module.
pub struct Worker<'a, M: Method> {
    shared: &'a Shared<'a>,
    epoll: OwnedFd,
    method: M,
    connections: Slab<Entry<M>>,
    /// Distinguishes connections that had the same place one after the other.
    next: u32,
    /// Those that could go on, but have had their share.
    again: VecDeque<u64>,
    buffer: Box<[u8]>,
    counts: Counts,
    now: Instant,
    /// True if connections are accepted.
    open: bool,
    /// Time before which none are accepted.
    paused: Option<Instant>,
    swept: Instant,
    /// Time at which the server was told to stop.
    stopping: Option<Instant>,
}

struct Entry<M: Method> {
    mark: u64,
    /// True if it is among those that go on again.
    queued: bool,
    connection: Connection<M::Kept>,
}

impl<'a, M: Method> Worker<'a, M> {
    /// A worker that accepts connections from when it runs.
    ///
    /// # Errors
    /// The kernel lacks something.
    pub fn new(shared: &'a Shared<'a>, method: M) -> Result<Self> {
        let failed = |error: Errno| Error::io("making an epoll", error.into());
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let mark = epoll::EventData::new_u64(STOP);
        epoll::add(&epoll, shared.stop, mark, epoll::EventFlags::IN).map_err(failed)?;
        let now = Instant::now();
        let mut worker = Self {
            shared,
            epoll,
            method,
            connections: Slab::new(),
            next: 0,
            again: VecDeque::new(),
            buffer: vec![0; BUFFER].into(),
            counts: Counts::default(),
            now,
            open: false,
            paused: None,
            swept: now,
            stopping: None,
        };
        worker.open().map_err(failed)?;
        Ok(worker)
    }

    /// Serves until the server is to stop and all answers are finished; gives what was counted.
    ///
    /// # Errors
    /// The epoll failed.
    pub fn run(mut self) -> Result<Counts> {
        let mut events = [MaybeUninit::uninit(); EVENTS];
        loop {
            let timeout = self.timeout();
            let timeout = timeout.map(|time| Timespec::try_from(time).expect("some seconds"));
            let came = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
                Ok((came, _)) => &*came,
                Err(Errno::INTR) => &[],
                Err(error) => return Err(Error::io("waiting for events", error.into())),
            };
            self.now = Instant::now();
            for event in came {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    STOP => self.stop(),
                    mark => self.happened(mark, event.flags),
                }
            }
            for _ in 0..self.again.len() {
                if let Some(mark) = self.again.pop_front() {
                    self.go_on(mark);
                }
            }
            if self.now.duration_since(self.swept) >= self.shared.patience.tick() {
                self.sweep();
            }
            if let Some(since) = self.stopping
                && (self.connections.is_empty() || self.now.duration_since(since) >= GRACE)
            {
                let entries = self.connections.iter();
                let cut = entries.filter(|(_, entry)| entry.connection.is_answering());
                self.counts.cut += cut.count() as u64;
                self.counts.zero_copy = self.method.counts();
                return Ok(self.counts);
            }
        }
    }

    /// Returns the longest wait for events.
    fn timeout(&self) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        // Nobody is waited for: nothing is to be looked at, either.
        let idle = self.connections.is_empty() && self.paused.is_none();
        let left =
            || (self.swept + self.shared.patience.tick()).saturating_duration_since(self.now);
        (!idle).then(left)
    }

    /// Accepts connections, if there is room.
    fn open(&mut self) -> rustix::io::Result<()> {
        let has_room = self.connections.len() < self.shared.room;
        if self.open || !has_room || self.stopping.is_some() || self.paused.is_some() {
            return Ok(());
        }
        // Exclusive: one connection wakes one worker.
        let how = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        let mark = epoll::EventData::new_u64(LISTENER);
        epoll::add(&self.epoll, self.shared.listener, mark, how)?;
        self.open = true;
        Ok(())
    }

    /// Leaves connections where they are.
    fn close(&mut self) {
        if self.open {
            let _ = epoll::delete(&self.epoll, self.shared.listener);
            self.open = false;
        }
    }

    /// Accepts one: if there are more, another worker may be free for them.
    fn accept(&mut self) {
        if !self.open {
            return;
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, peer) = match acceptfrom_with(self.shared.listener, flags) {
            Ok((socket, peer)) => (
                socket,
                peer.and_then(|peer| SocketAddr::try_from(peer).ok()),
            ),
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                tracing::warn!(
                    "no more connections for now: no file or memory is left for them; raise the limit of \
                     open files: ulimit -n"
                );
                self.paused = Some(self.now + PAUSE);
                return self.close();
            }
            // Another worker had it, or the peer was gone already.
            Err(_) => return,
        };
        let place = self.connections.vacant_entry();
        let mark = u64::from(self.next) << 32 | place.key() as u64;
        self.next = self.next.wrapping_add(1) & 0x7fff_ffff;
        let events = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        if let Err(error) = epoll::add(
            &self.epoll,
            &socket,
            epoll::EventData::new_u64(mark),
            events,
        ) {
            tracing::warn!("a connection was dropped: {error}; raise fs.epoll.max_user_watches");
            return;
        }
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        let connection =
            Connection::new(socket, peer.unwrap_or(nobody), M::Kept::default(), self.now);
        place.insert(Entry {
            mark,
            queued: false,
            connection,
        });
        self.counts.connections += 1;
        self.counts.most_at_once = self.counts.most_at_once.max(self.connections.len() as u64);
        if self.connections.len() >= self.shared.room {
            tracing::debug!("{} connections: full, others wait", self.connections.len());
            self.close();
        }
    }

    fn go_on(&mut self, mark: u64) {
        if let Some(entry) = self.connections.get_mut(mark as u32 as usize) {
            entry.queued = false;
        }
        self.with(mark, |connection, means| connection.advance(means));
    }

    fn happened(&mut self, mark: u64, events: epoll::EventFlags) {
        self.with(mark, |connection, means| connection.happened(events, means));
    }

    /// Lets a connection do something, if it is still there.
    fn with(
        &mut self,
        mark: u64,
        act: impl FnOnce(&mut Connection<M::Kept>, &mut Means<'_, M>) -> Next,
    ) {
        let key = mark as u32 as usize;
        let Some(entry) = self
            .connections
            .get_mut(key)
            .filter(|entry| entry.mark == mark)
        else {
            return;
        };
        let mut means = Means {
            method: &mut self.method,
            root: self.shared.root,
            buffer: &mut self.buffer,
            counts: &mut self.counts,
            now: self.now,
            stopping: self.stopping.is_some(),
        };
        match act(&mut entry.connection, &mut means) {
            Next::Wait => {}
            Next::Again if entry.queued => {}
            Next::Again => {
                entry.queued = true;
                self.again.push_back(mark);
            }
            Next::Over => {
                let entry = self.connections.remove(key);
                self.method.forget(entry.connection.kept);
                drop(entry.connection.socket);
                self.reopen();
            }
        }
    }

    fn reopen(&mut self) {
        if let Err(error) = self.open() {
            tracing::warn!("connections cannot be accepted for now: {error}");
            self.paused = Some(self.now + PAUSE);
        }
    }

    /// Looks whose time is up.
    fn sweep(&mut self) {
        self.swept = self.now;
        if self.paused.is_some_and(|until| self.now >= until) {
            self.paused = None;
            self.reopen();
        }
        let crowded = self.connections.len() >= self.shared.room;
        let mut late = Vec::new();
        for (_, entry) in &mut self.connections {
            let why = entry
                .connection
                .is_late(self.shared.patience, crowded, self.now);
            late.extend(why.map(|why| (entry.mark, why)));
        }
        for (mark, why) in late {
            self.with(mark, |connection, means| connection.give_up(why, means));
        }
    }

    /// The server is to stop: no more connections, and none without an answer under way.
    fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(self.now);
        self.close();
        let _ = epoll::delete(&self.epoll, self.shared.stop);
        let indices: Vec<_> = self
            .connections
            .iter()
            .map(|(_, entry)| entry.mark)
            .collect();
        for mark in indices {
            self.with(mark, |connection, means| match connection.is_answering() {
                true => connection.advance(means),
                false => Next::Over,
            });
        }
    }
}

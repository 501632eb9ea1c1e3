//! A server of files over HTTP/1.1, in which one thing can be chosen: how the bytes of a file get into
//! the socket.
//!
//! Each worker is a thread with an epoll of its own; files are looked up beneath one folder by the
//! kernel; what peers may use of time, memory and open files is bounded. All of that is the same with
//! each [`Way`], so that what differs between two runs is the way and nothing else.

mod answer;
mod budget;
mod condition;
mod connection;
mod content;
mod limits;
mod listing;
mod method;
mod path;
mod range;
mod request;
mod root;
mod status;
mod unsent;
mod untrusted;
mod worker;

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_reuseaddr, set_tcp_nodelay};
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, bind, getsockname, listen, shutdown,
    socket_with,
};

use crate::{Error, Result};
use method::{IoUring, Method, Mmap, Read, Sendfile, Splice, ZeroCopy};
use root::Root;

pub use untrusted::parse_untrusted;
use worker::{Shared, Worker};

pub use limits::WANTED;
pub use method::ZeroCopyCounts;

/// Interval at which somebody looks whether the server is to stop.
const NAP: Duration = Duration::from_millis(100);
/// Connections that may wait to be accepted; the system may allow fewer (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// The ways to move a file's bytes into a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Through a buffer of ours.
    Read,
    /// From a mapping of the file.
    Mmap,
    /// By one call of the kernel.
    Sendfile,
    /// Through a pipe that holds pages.
    Splice,
    /// By chains of an io_uring, through registered buffers.
    IoUring,
    /// From buffers that the kernel does not copy.
    ZeroCopy,
}

/// Bounds of the waits for a peer.
#[derive(Debug, Clone, PartialEq)]
pub struct Patience {
    /// Longest wait for the next request. Where there are more connections than places: no longer than for a head.
    pub idle: Duration,
    /// Longest wait for the rest of a request that has begun.
    pub head: Duration,
    /// Time within which a peer must take its bytes of an answer.
    pub window: Duration,
    /// Bytes a second that it must take, at least; one byte a window in any case.
    pub min_rate: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            head: Duration::from_secs(10),
            window: Duration::from_secs(20),
            min_rate: 100,
        }
    }
}

impl Patience {
    /// Returns the interval at which somebody looks whose time is up.
    fn tick(&self) -> Duration {
        let shortest = self.idle.min(self.head).min(self.window);
        (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}

/// A server's folder, address, method and bounds.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder.
    pub root: PathBuf,
    /// Address to listen on; port 0 is one that is free.
    pub address: SocketAddr,
    /// The way in which files are sent.
    pub way: Way,
    /// Threads; 0 is one for each processor.
    pub workers: usize,
    /// Connections at once; without it [`WANTED`], or as many as there may be files open.
    pub connections: Option<usize>,
    /// Bounds of the waits for a peer.
    pub patience: Patience,
}

/// Counts of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// The most of them that were there at the same time, summed over the workers.
    pub most_at_once: u64,
    /// Requests understood.
    pub requests: u64,
    /// Answers with a status of 400 and above.
    pub refused: u64,
    /// Bytes handed to sockets, heads included.
    pub bytes: u64,
    /// Connections given up since the peer was too slow.
    pub slow: u64,
    /// Answers not brought to their end.
    pub cut: u64,
    /// Counts of sends without a copy.
    pub zero_copy: ZeroCopyCounts,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.most_at_once += other.most_at_once;
        self.requests += other.requests;
        self.refused += other.refused;
        self.bytes += other.bytes;
        self.slow += other.slow;
        self.cut += other.cut;
        self.zero_copy += other.zero_copy;
    }
}

/// A server that listens; it answers from when it runs.
pub struct Server {
    root: Root,
    listener: OwnedFd,
    address: SocketAddr,
    way: Way,
    workers: usize,
    connections: usize,
    patience: Patience,
}

impl Server {
    /// Listens. Raises this process's limit of open files to its hard limit.
    ///
    /// # Errors
    /// No such folder, an address that cannot be had, more connections than open files allow, or a
    /// [`Way`] that this kernel lacks.
    pub fn new(config: &Config) -> Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = match config.workers {
            0 => processors,
            workers => workers,
        };
        let places = limits::places(config.connections, workers)?;
        let root = Root::new(&config.root, places.files)?;
        let listener = listen_at(config.address).map_err(|error| {
            Error::io(format!("cannot listen at {}", config.address), error.into())
        })?;
        let address = getsockname(&listener).map_err(std::io::Error::from);
        let address = address.and_then(|address| Ok(SocketAddr::try_from(address)?));
        let address = address.map_err(|error| Error::io("where do we listen", error))?;
        let server = Self {
            root,
            listener,
            address,
            way: config.way,
            workers: workers.min(places.connections),
            connections: places.connections,
            patience: config.patience.clone(),
        };
        match server.way {
            Way::Read => server.check::<Read>(),
            Way::Mmap => server.check::<Mmap>(),
            Way::Sendfile => server.check::<Sendfile>(),
            Way::Splice => server.check::<Splice>(),
            Way::IoUring => server.check::<IoUring>(),
            Way::ZeroCopy => server.check::<ZeroCopy>(),
        }?;
        Ok(server)
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its number of threads.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Returns the number of connections that it takes at once.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Serves until `stop`; then it listens no more, and finishes the answers that are under way, within
    /// some seconds.
    ///
    /// # Errors
    /// The system does not give what a worker needs.
    pub fn run(&self, stop: &AtomicBool) -> Result<Counts> {
        match self.way {
            Way::Read => self.run_with::<Read>(stop),
            Way::Mmap => self.run_with::<Mmap>(stop),
            Way::Sendfile => self.run_with::<Sendfile>(stop),
            Way::Splice => self.run_with::<Splice>(stop),
            Way::IoUring => self.run_with::<IoUring>(stop),
            Way::ZeroCopy => self.run_with::<ZeroCopy>(stop),
        }
    }

    /// Checks that this kernel does `M`.
    fn check<M: Method>(&self) -> Result<()> {
        M::new()?.listening(self.listener.as_fd())
    }

    fn run_with<M: Method>(&self, stop: &AtomicBool) -> Result<Counts> {
        let failed = |error: Errno| Error::io("making an eventfd", error.into());
        let bell = eventfd(0, EventfdFlags::CLOEXEC).map_err(failed)?;
        let shared = Shared {
            listener: self.listener.as_fd(),
            stop: bell.as_fd(),
            root: &self.root,
            patience: &self.patience,
            room: self.connections / self.workers,
        };
        std::thread::scope(|scope| {
            let work = || Worker::new(&shared, M::new()?)?.run();
            let mut workers = Vec::new();
            let mut outcome = Ok(Counts::default());
            for number in 0..self.workers {
                let builder = std::thread::Builder::new().name(format!("serve-{number}"));
                match builder.spawn_scoped(scope, work) {
                    Ok(worker) => workers.push(worker),
                    Err(error) => outcome = Err(Error::io("starting a worker", error)),
                }
            }
            while !stop.load(Ordering::Relaxed)
                && outcome.is_ok()
                && !workers.iter().any(|worker| worker.is_finished())
            {
                std::thread::sleep(NAP);
            }
            // Who comes now is refused at once, and not kept waiting for workers that take nobody.
            let _ = shutdown(&self.listener, Shutdown::Both);
            // Nobody reads it: it stays readable for all of them.
            rustix::io::write(&bell, &1u64.to_ne_bytes()).map_err(failed)?;
            for worker in workers {
                let counts = worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                match (&mut outcome, counts) {
                    (Ok(sum), Ok(counts)) => *sum += counts,
                    (Ok(_), Err(error)) => outcome = Err(error),
                    (Err(_), _) => {}
                }
            }
            outcome
        })
    }
}

/// A socket that listens at `address`.
fn listen_at(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    set_socket_reuseaddr(&socket, true)?;
    // Connections inherit it: the end of an answer does not wait for the acknowledgement of its middle.
    set_tcp_nodelay(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

//! The destination of a rung's bytes, and the count of those that went.
//!
//! A call may do a part of what it was asked, be interrupted, or find no room: [`Sink::call`] goes on
//! after each. A datagram that the far end has no room for would be lost, so [`Sink::room`] waits for
//! the far end's word before it is sent.

use std::net::{TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::bounds::{NAP, STUCK};
use super::receiver::Receiver;
use super::{Arrived, BLOCK, Stopped, Why};

/// Bounds of a rung's work, and the counter by which it tells its progress.
#[derive(Debug)]
pub struct Terms<'a> {
    /// Bytes that are to go.
    pub len: u64,
    /// Bytes that a call moves at most: a block of a stream, or a datagram.
    pub most: usize,
    /// Ends it when it becomes true.
    pub stop: &'a AtomicBool,
    /// Bytes that went, for who watches.
    pub progress: &'a AtomicU64,
}

/// The destination of a rung's bytes, and the count of those that went.
pub struct Sink<'a> {
    to: To,
    /// The far end whose window bounds what is under way.
    far: Option<&'a mut Receiver>,
    terms: Terms<'a>,
    sent: u64,
    copied: u64,
}

enum To {
    Stream(TcpStream),
    Datagrams(UdpSocket),
    /// A place that the rung knows: a ring, a card, a file.
    Elsewhere,
}

impl<'a> Sink<'a> {
    /// A connected stream.
    pub fn stream(stream: TcpStream, terms: Terms<'a>) -> std::io::Result<Self> {
        // A call that waits returns now and then, so that Ctrl-C is heard; else it waits in the kernel.
        stream.set_write_timeout(Some(NAP))?;
        Ok(Self::new(To::Stream(stream), None, terms))
    }

    /// A connected socket for datagrams, that `far` takes.
    pub fn datagrams(
        socket: UdpSocket,
        far: &'a mut Receiver,
        terms: Terms<'a>,
    ) -> std::io::Result<Self> {
        socket.set_write_timeout(Some(NAP))?;
        Ok(Self::new(To::Datagrams(socket), Some(far), terms))
    }

    /// A place that the rung knows by itself; with a far end where that takes datagrams.
    pub fn elsewhere(far: Option<&'a mut Receiver>, terms: Terms<'a>) -> Self {
        Self::new(To::Elsewhere, far, terms)
    }

    fn new(to: To, far: Option<&'a mut Receiver>, terms: Terms<'a>) -> Self {
        Self {
            to,
            far,
            terms,
            sent: 0,
            copied: 0,
        }
    }

    /// Bytes that went.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes that are to go.
    pub fn len(&self) -> u64 {
        self.terms.len
    }

    /// Returns whether there is nothing to go.
    pub fn is_empty(&self) -> bool {
        self.terms.len == 0
    }

    /// Bytes that the processor copied, by the rung's own account.
    pub fn copied(&self) -> u64 {
        self.copied
    }

    /// Bytes that a call moves at most.
    pub fn most(&self) -> usize {
        self.terms.most
    }

    /// Returns whether each call makes a datagram of its own.
    pub fn is_datagrams(&self) -> bool {
        matches!(self.to, To::Datagrams(_))
    }

    /// The socket, for who makes no system call on it.
    ///
    /// # Errors
    /// [`Why::Missing`] where there is none.
    pub(super) fn socket(&self) -> Result<BorrowedFd<'_>, Stopped> {
        match &self.to {
            To::Stream(stream) => Ok(stream.as_fd()),
            To::Datagrams(socket) => Ok(socket.as_fd()),
            To::Elsewhere => Err(self.stopped(Why::Missing("no socket".to_owned()))),
        }
    }

    /// Counts bytes that the processor copies.
    #[inline]
    pub fn copies(&mut self, bytes: usize) {
        self.copied += bytes as u64;
    }

    /// Counts bytes that went.
    #[inline]
    pub fn moved(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.terms.progress.store(self.sent, Ordering::Relaxed);
    }

    /// Bytes that may be moved now, at most [`Sink::most`] and what is left; waits until the far end has
    /// room for them. `None`: all went.
    ///
    /// # Errors
    /// [`Why::Stuck`] where it has none for long; [`Why::Interrupted`]; what the control connection says.
    #[inline]
    pub fn room(&mut self) -> Result<Option<usize>, Stopped> {
        let left = self.terms.len.saturating_sub(self.sent);
        let most = usize::try_from(left).map_or(self.terms.most, |left| left.min(self.terms.most));
        if self.terms.stop.load(Ordering::Relaxed) {
            return Err(self.stopped(Why::Interrupted));
        }
        if most == 0 {
            return Ok(None);
        }
        if let Some(far) = &mut self.far {
            let waited = far.wait_for_room(self.sent + most as u64, self.terms.stop);
            if let Err(why) = waited {
                return Err(self.stopped(why));
            }
        }
        Ok(Some(most))
    }

    /// Returns whether `bytes` more than went may be under way. Looks at what the far end has said so far, and does
    /// not wait: for who has other work meanwhile.
    ///
    /// # Errors
    /// [`Why::Interrupted`]; what the control connection says.
    #[inline]
    pub fn has_room(&mut self, bytes: u64) -> Result<bool, Stopped> {
        if self.terms.stop.load(Ordering::Relaxed) {
            return Err(self.stopped(Why::Interrupted));
        }
        let past = self.sent.saturating_add(bytes);
        let room = self.far.as_mut().map(|far| far.has_room(past));
        room.unwrap_or(Ok(true)).map_err(|why| self.stopped(why))
    }

    /// Makes a system call on the socket until it has done something; gives what it gives. Goes on after
    /// a signal, and where there is no room waits for some.
    ///
    /// # Errors
    /// Errors of the system; [`Why::Stuck`]; [`Why::Interrupted`].
    #[inline]
    pub fn call(
        &mut self,
        name: &'static str,
        call: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
    ) -> Result<usize, Stopped> {
        let socket = match &self.to {
            To::Stream(stream) => stream.as_fd(),
            To::Datagrams(socket) => socket.as_fd(),
            To::Elsewhere => return Err(self.stopped(Why::Missing("no socket".to_owned()))),
        };
        self.until_done(name, socket, PollFlags::OUT, call)
    }

    /// Makes a system call on a stream that something is to come from, until it has given something. Goes
    /// on after a signal, and where nothing has come waits for it.
    ///
    /// # Errors
    /// [`Why::Closed`] where its other end has closed it; what the system says of it; [`Why::Silent`];
    /// [`Why::Interrupted`].
    #[inline]
    pub fn take(
        &self,
        name: &'static str,
        from: &TcpStream,
        call: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
    ) -> Result<usize, Stopped> {
        match self.until_done(name, from.as_fd(), PollFlags::IN, call) {
            Ok(0) => Err(self.stopped(Why::Closed)),
            Err(Stopped {
                why: Why::Stuck { seconds },
                ..
            }) => Err(self.stopped(Why::Silent { seconds })),
            done => done,
        }
    }

    #[inline]
    fn until_done(
        &self,
        name: &'static str,
        socket: BorrowedFd<'_>,
        event: PollFlags,
        mut call: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
    ) -> Result<usize, Stopped> {
        let mut since = None;
        loop {
            let errno = match call(socket) {
                Ok(done) => return Ok(done),
                Err(errno) => errno,
            };
            match errno {
                Errno::INTR => {}
                // Of datagrams: the interface's queue is full.
                Errno::AGAIN | Errno::NOBUFS => {
                    let nap = Timespec::try_from(NAP).expect("a tenth of a second");
                    // Who waits too long is told below.
                    let _ = poll(&mut [PollFd::from_borrowed_fd(socket, event)], Some(&nap));
                }
                errno => return Err(self.failed(name, errno)),
            }
            self.go_on(since.get_or_insert_with(Instant::now))?;
        }
    }

    /// Checks that a wait that began `since` may go on.
    ///
    /// # Errors
    /// [`Why::Interrupted`], [`Why::Stuck`].
    pub fn go_on(&self, since: &Instant) -> Result<(), Stopped> {
        if self.terms.stop.load(Ordering::Relaxed) {
            return Err(self.stopped(Why::Interrupted));
        }
        if since.elapsed() > STUCK {
            return Err(self.stopped(Why::Stuck {
                seconds: STUCK.as_secs(),
            }));
        }
        Ok(())
    }

    /// Writes all of `bytes`, as one datagram or in as many calls as it takes.
    ///
    /// # Errors
    /// As [`Sink::call`].
    #[inline]
    pub fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), Stopped> {
        while !bytes.is_empty() {
            let written = self.call("write", |socket| rustix::io::write(socket, bytes))?;
            if written == 0 {
                return Err(
                    self.failed("write", std::io::Error::from(std::io::ErrorKind::WriteZero))
                );
            }
            self.moved(written);
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Returns the error for a failure of `call`, with the bytes that went by then.
    pub fn failed(&self, call: &'static str, errno: impl Into<std::io::Error>) -> Stopped {
        self.stopped(Why::Call {
            call,
            source: errno.into(),
        })
    }

    /// Returns the error for a rung that does not go on because of `why`, with the bytes that went by then.
    pub fn stopped(&self, why: Why) -> Stopped {
        Stopped {
            sent: self.sent,
            len: self.terms.len,
            arrived: Arrived::NotAsked,
            why,
        }
    }
}

impl Terms<'_> {
    /// Bytes of a datagram that fits into an Ethernet frame, or of a block.
    pub fn usual(protocol: super::Protocol) -> usize {
        match protocol {
            super::Protocol::Udp => 1472,
            _ => BLOCK,
        }
    }
}

/// Makes a call that is not on the socket; goes on after a signal.
pub fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

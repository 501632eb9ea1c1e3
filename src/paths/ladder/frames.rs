//! Frames that we make by ourselves, in a ring that we share with the kernel: what rung 10's two ways
//! have in common. The payload is read from the file straight into its frame.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, pread};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socket_with};

use super::bounds::NAP;
use super::{Job, Sink, Stopped, Why, retry};
use crate::net::UdpFlow;

/// Frames a call: as many as AF_XDP takes.
const BATCH: usize = 32;
/// Length of a sleep where the kernel says that there is room, but there is none.
const DOZE: Duration = Duration::from_micros(50);
/// Longest time for frames to leave when nobody waits for them any more.
const LEAVING: Duration = Duration::from_secs(1);

/// A ring of frames that the kernel sends.
pub trait FrameRing: AsFd {
    /// Bytes of the longest frame.
    const ROOM: usize;

    /// Returns the slot for the next frame; `None` while the kernel has all.
    fn slot(&mut self) -> Option<&mut [u8]>;

    /// Hands it over, `len` bytes long.
    ///
    /// # Panics
    /// If there is no slot, or it has less room.
    fn push(&mut self, len: usize);

    /// Tells the kernel that there is something to send; returns whether it took all of it.
    ///
    /// # Errors
    /// Errors of the system; that it has no room just now is none.
    fn kick(&mut self) -> io::Result<bool>;

    /// Returns whether the kernel has given all slots back.
    fn is_idle(&mut self) -> bool;
}

/// Sends a job's file from its position on; what is read into a frame the kernel copies `by_kernel`
/// times more.
pub(super) fn send_file<R: FrameRing>(
    job: &mut Job<'_>,
    ring: &mut R,
    by_kernel: usize,
) -> Result<(), Stopped> {
    let flow = interface(job)?.flow;
    let (file, sink) = (job.file, &mut job.sink);
    let most = sink.most().min(R::ROOM - UdpFlow::HEADER);
    let mut place = rustix::fs::tell(file).map_err(|errno| sink.failed("lseek", errno))?;
    let (mut waiting, mut taken) = (0, 0);
    loop {
        // What the far end is to make room for must have left before.
        if waiting == BATCH || waiting > 0 && !sink.has_room(sink.most() as u64)? {
            flush(sink, ring).map_err(|stopped| Stopped {
                sent: taken,
                ..stopped
            })?;
            (waiting, taken) = (0, sink.sent());
        }
        let Some(len) = sink.room()? else { break };
        wait_until(sink, ring, |ring| Ok(ring.slot().is_some()))?;
        let slot = ring.slot().expect("there is one");
        let payload = &mut slot[UdpFlow::HEADER..][..len.min(most)];
        let read = match retry(|| pread(file, &mut *payload, place)) {
            Ok(read) => read,
            Err(errno) => return Err(sink.failed("pread", errno)),
        };
        if read == 0 {
            break;
        }
        slot[..UdpFlow::HEADER].copy_from_slice(&flow.header_for_any(read));
        ring.push(UdpFlow::HEADER + read);
        sink.copies(read * (1 + by_kernel));
        sink.moved(read);
        (waiting, place) = (waiting + 1, place + read as u64);
    }
    // What is there of a file that became shorter leaves, too.
    flush(sink, ring).map_err(|stopped| Stopped {
        sent: taken,
        ..stopped
    })?;
    wait_until(sink, ring, |ring| Ok(ring.is_idle()))?;
    match sink.sent() < sink.len() {
        true => Err(sink.stopped(Why::Shrunk)),
        false => Ok(()),
    }
}

/// The interface that a job's frames go out of.
pub(super) fn interface<'a>(job: &'a Job<'_>) -> Result<&'a super::Interface, Stopped> {
    let why = "it makes its own frames, and lo takes none with 127.0.0.1 in them (the kernel calls \
        them martian): name a card";
    let missing = || job.sink.stopped(Why::Missing(why.to_owned()));
    job.interface.as_ref().ok_or_else(missing)
}

/// Returns why no socket of this family can be opened; `None` where one can.
pub(super) fn missing(family: AddressFamily, called: &str) -> Option<String> {
    match socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, None) {
        Ok(_) => None,
        Err(Errno::PERM | Errno::ACCESS) => {
            Some(format!("{called} needs CAP_NET_RAW: run it as root"))
        }
        Err(Errno::AFNOSUPPORT) => Some(format!("this kernel has no {called} sockets")),
        Err(errno) => Some(format!("no {called} socket can be opened: {errno}")),
    }
}

/// Sends what is ready on a socket with a ring.
pub(super) fn kick(socket: BorrowedFd<'_>) -> io::Result<()> {
    match send(socket, &[], SendFlags::DONTWAIT) {
        Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits a second at most for what was handed over, so that nothing leaves behind the back of who goes on.
pub(super) fn quiesce<R: FrameRing>(ring: &mut R) {
    let begin = Instant::now();
    while !ring.is_idle() && begin.elapsed() < LEAVING && ring.kick().is_ok() {
        std::thread::sleep(DOZE);
    }
}

/// Waits until the kernel has taken all that was handed over.
fn flush<R: FrameRing>(sink: &Sink<'_>, ring: &mut R) -> Result<(), Stopped> {
    wait_until(sink, ring, R::kick)
}

fn wait_until<R: FrameRing>(
    sink: &Sink<'_>,
    ring: &mut R,
    mut done: impl FnMut(&mut R) -> io::Result<bool>,
) -> Result<(), Stopped> {
    let mut since = None;
    let failed = |error| sink.failed("send", error);
    while !done(ring).map_err(failed)? {
        sink.go_on(since.get_or_insert_with(Instant::now))?;
        ring.kick().map_err(failed)?;
        let nap = Timespec::try_from(NAP).expect("a tenth of a second");
        // Who waits too long is told above.
        let _ = poll(&mut [PollFd::new(&*ring, PollFlags::OUT)], Some(&nap));
        std::thread::sleep(DOZE);
    }
    Ok(())
}

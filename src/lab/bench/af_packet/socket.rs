//! AF_PACKET sockets: one that only sends, and one that is given the frames of one EtherType.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::paths::ladder::packet_socket;
use crate::{Error, Result};

/// Longest time for which the card may do nothing.
const STUCK: Duration = Duration::from_secs(1);

/// One that sends on the interface `index` and receives nothing.
///
/// # Errors
/// Missing privilege (CAP_NET_RAW), or no such interface.
pub fn open(index: u32) -> Result<OwnedFd> {
    // Protocol 0: no packet is given to it.
    listen(index, 0)
}

/// One that receives frames of `ethertype` on the interface `index`, too.
///
/// # Errors
/// As [`open`].
pub fn listen(index: u32, ethertype: u16) -> Result<OwnedFd> {
    packet_socket(index, ethertype)
        .map_err(|error| Error::io("opening an AF_PACKET socket (needs root)", error))
}

/// Returns whether the queue was just full, so that one tries again.
pub fn again(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOBUFS | libc::EAGAIN | libc::EINTR)
    )
}

/// Waits until it can be written to.
///
/// # Errors
/// It cannot: the interface went down.
pub fn wait_writable(fd: &impl AsFd) -> Result<()> {
    let mut poll = libc::pollfd {
        fd: fd.as_fd().as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one valid `pollfd`.
    match unsafe { libc::poll(&raw mut poll, 1, STUCK.as_millis() as i32) } {
        0 => Err(stuck()),
        1.. => Ok(()),
        _ => match io::Error::last_os_error() {
            error if again(&error) => Ok(()),
            error => Err(Error::io("waiting for the AF_PACKET socket", error)),
        },
    }
}

/// Waits until all that was sent has left the card: only then does the kernel give the memory back.
///
/// # Errors
/// It has not within a second.
pub fn drain(fd: &impl AsFd) -> Result<()> {
    let start = Instant::now();
    loop {
        let mut bytes: libc::c_int = 0;
        // SAFETY: an integer that the kernel writes.
        let asked = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        match (asked, bytes) {
            (0, 0) => return Ok(()),
            (0, _) if start.elapsed() < STUCK => std::thread::sleep(Duration::from_micros(50)),
            (0, _) => return Err(stuck()),
            _ => {
                return Err(Error::last_os(
                    "asking what the AF_PACKET socket has not sent",
                ));
            }
        }
    }
}

fn stuck() -> Error {
    Error::Usage("the kernel's interface sent nothing for a second: is its link up?".to_owned())
}

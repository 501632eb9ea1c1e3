//! An AF_PACKET socket that sends on one interface and receives nothing.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use pinwire::{Error, Result};

/// How long the card may do nothing.
const STUCK: Duration = Duration::from_secs(1);

/// Opens one.
///
/// # Errors
/// Not root (CAP_NET_RAW), or no such interface.
pub fn open(index: u32) -> Result<OwnedFd> {
    // Protocol 0: no packet is given to it.
    // SAFETY: plain arguments.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(Error::last_os("opening an AF_PACKET socket (needs root)"));
    }
    // SAFETY: just opened, and owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeros is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index as i32;
    // SAFETY: an address of the length given.
    let bound = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as u32,
        )
    };
    match bound {
        0 => Ok(fd),
        _ => Err(Error::last_os("binding the AF_PACKET socket")),
    }
}

/// Was the queue just full, so that one tries again?
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
pub fn wait_writable(fd: &OwnedFd) -> Result<()> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
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
pub fn drain(fd: &OwnedFd) -> Result<()> {
    let start = Instant::now();
    loop {
        let mut bytes: libc::c_int = 0;
        // SAFETY: an integer that the kernel writes.
        let asked = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
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

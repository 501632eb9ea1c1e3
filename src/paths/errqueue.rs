//! A socket's error queue, where the kernel reports which sends with MSG_ZEROCOPY it is done with.
//!
//! It numbers them by itself, from 0, and reports ranges of them, in any order (see
//! Documentation/networking/msg_zerocopy.rst); it says with each whether it copied after all.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::setsockopt_impl;
use nix::sockopt_impl;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use rustix::io::Errno;

// linux/errqueue.h
const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
const SO_EE_CODE_ZEROCOPY_COPIED: u8 = 1;

sockopt_impl!(ZeroCopy, SetOnly, libc::SOL_SOCKET, libc::SO_ZEROCOPY, bool);

/// The sends that are done.
pub(crate) struct Report {
    /// Their first and last number.
    pub first: u32,
    pub last: u32,
    /// True if the kernel copied after all.
    pub copied: bool,
}

/// Asks a socket for reports, and those that are accepted from it.
///
/// # Errors
/// OPNOTSUPP where this kind of socket has none; NOPROTOOPT where the kernel has none.
pub(crate) fn ask(socket: BorrowedFd<'_>) -> rustix::io::Result<()> {
    setsockopt(&socket, ZeroCopy, &true).map_err(|error| match error {
        // ENOTSUPP, as older kernels say, has no name outside of them.
        nix::Error::UnknownErrno => Errno::OPNOTSUPP,
        error => errno(error),
    })
}

/// Room for what comes with a report.
pub(crate) fn space() -> Vec<u8> {
    nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6)
}

/// Takes the next report from the queue; `None` where it has none.
///
/// # Errors
/// Errors of the system.
pub(crate) fn next(socket: BorrowedFd<'_>, space: &mut [u8]) -> rustix::io::Result<Option<Report>> {
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    loop {
        let said = match recvmsg::<()>(socket.as_raw_fd(), &mut [], Some(&mut *space), flags) {
            Ok(said) => said,
            Err(nix::Error::EAGAIN) => return Ok(None),
            Err(nix::Error::EINTR) => continue,
            Err(error) => return Err(errno(error)),
        };
        for message in said.cmsgs().map_err(errno)? {
            if let ControlMessageOwned::Ipv4RecvErr(word, _)
            | ControlMessageOwned::Ipv6RecvErr(word, _) = message
                && word.ee_origin == SO_EE_ORIGIN_ZEROCOPY
            {
                return Ok(Some(Report {
                    first: word.ee_info,
                    last: word.ee_data,
                    copied: word.ee_code & SO_EE_CODE_ZEROCOPY_COPIED != 0,
                }));
            }
        }
    }
}

fn errno(error: nix::Error) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

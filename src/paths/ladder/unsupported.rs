//! Features that a system may unsupported, and the errnos that tell of it: no failure of ours, so it is told as
//! [`Why::Missing`], with what to do.

use std::io;

use rustix::io::Errno;

use super::{Stopped, Why};

/// Something that a system may not support.
pub(super) struct Unsupported {
    /// Errnos by which the system says that it has none.
    errnos: &'static [Errno],
    what: &'static str,
    remedy: &'static str,
}

/// The file cannot be mapped.
pub(super) const MMAP: Unsupported = Unsupported {
    errnos: &[Errno::NODEV, Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS],
    what: "files of this file system cannot be mapped",
    remedy: "copy the file to another one",
};

const NO_SPLICE: &[Errno] = &[Errno::INVAL, Errno::NODEV, Errno::OPNOTSUPP, Errno::NOSYS];

/// The file gives no references to its pages.
pub(super) const SPLICE_FROM_FILE: Unsupported = Unsupported {
    errnos: NO_SPLICE,
    what: "files of this file system give no references to their pages",
    remedy: "copy the file to another one",
};

/// The log takes none.
pub(super) const SPLICE_INTO_FILE: Unsupported = Unsupported {
    errnos: NO_SPLICE,
    what: "the log's file system has no splice, or the log is open for appending",
    remedy: "name a scratch directory of another file system",
};

/// A socket neither gives nor takes any.
pub(super) const SPLICE_SOCKET: Unsupported = Unsupported {
    errnos: NO_SPLICE,
    what: "sockets of this kernel have no splice",
    remedy: "run it on another kernel",
};

/// MSG_ZEROCOPY.
pub(super) const ZEROCOPY: Unsupported = Unsupported {
    errnos: &[Errno::NOPROTOOPT, Errno::OPNOTSUPP],
    what: "this kernel's sockets have no MSG_ZEROCOPY",
    remedy: "TCP has it since Linux 4.14, UDP since 5.0: run it on a newer one",
};

/// `copy_file_range`, between two file systems.
pub(super) const COPY_FILE_RANGE: Unsupported = Unsupported {
    errnos: &[Errno::XDEV, Errno::OPNOTSUPP, Errno::INVAL, Errno::NOSYS],
    what: "the kernel does not copy between these files' file systems",
    remedy: "name a scratch directory beside the file, or copy the file to another file system",
};

/// Frames of one's own.
pub(super) const NET_RAW: Unsupported = Unsupported {
    errnos: &[Errno::PERM, Errno::ACCESS],
    what: "frames of its own take CAP_NET_RAW",
    remedy: "run it as root",
};

/// PACKET_TX_RING.
pub(super) const TX_RING: Unsupported = Unsupported {
    errnos: &[
        Errno::AFNOSUPPORT,
        Errno::NOPROTOOPT,
        Errno::OPNOTSUPP,
        Errno::INVAL,
    ],
    what: "this kernel has no PACKET_TX_RING as we want it",
    remedy: "run it on one with CONFIG_PACKET (modprobe af_packet)",
};

/// AF_XDP, or an interface that it can be bound to.
pub(super) const AF_XDP: Unsupported = Unsupported {
    errnos: &[
        Errno::AFNOSUPPORT,
        Errno::NOPROTOOPT,
        Errno::OPNOTSUPP,
        Errno::INVAL,
    ],
    what: "this kernel, or this interface, has no AF_XDP",
    remedy: "run it on a kernel of Linux 4.18 or newer with CONFIG_XDP_SOCKETS",
};

/// io_uring, at all.
pub(super) const URING: Unsupported = Unsupported {
    errnos: &[Errno::NOSYS],
    what: "this kernel has no io_uring",
    remedy: "run it on one of Linux 5.1 or newer with CONFIG_IO_URING",
};

/// io_uring, for us.
pub(super) const URING_FOR_US: Unsupported = Unsupported {
    errnos: &[Errno::PERM, Errno::ACCESS],
    what: "io_uring is forbidden here",
    remedy: "is /proc/sys/kernel/io_uring_disabled 0, and no sandbox around us?",
};

/// An operation of io_uring's, on this file or socket.
pub(super) const URING_OPERATION: Unsupported = Unsupported {
    errnos: &[Errno::OPNOTSUPP, Errno::NOSYS],
    what: "this kernel's io_uring cannot do that with this file, or this socket",
    remedy: "copy the file to another file system, or run it on a newer kernel",
};

impl Unsupported {
    /// [`Why::Missing`] where `call` failed with one of its errors.
    fn told_by(&self, call: &str, source: &io::Error) -> Option<Why> {
        let errno = Errno::from_io_error(source)?;
        let (what, remedy) = (self.what, self.remedy);
        self.errnos
            .contains(&errno)
            .then(|| Why::Missing(format!("{what} ({call}: {source})\n  {remedy}")))
    }
}

impl Why {
    /// This, or where it is a call that failed since something is not supported, that.
    pub(super) fn or_missing(self, known: &Unsupported) -> Self {
        let missing = match &self {
            Self::Call { call, source } => known.told_by(call, source),
            _ => None,
        };
        missing.unwrap_or(self)
    }
}

impl Stopped {
    /// The same of a rung, as long as nothing went: later it was not for want of support.
    pub(super) fn or_missing(self, known: &Unsupported) -> Self {
        match self.sent {
            0 => Self {
                why: self.why.or_missing(known),
                ..self
            },
            _ => self,
        }
    }
}

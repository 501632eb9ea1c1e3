//! The folder that is served, and files beneath it.
//!
//! `openat2` with `RESOLVE_BENEATH` has the kernel refuse whatever leads out: `..`, an absolute name, a
//! symbolic link. A name checked here and opened afterwards could have changed in between. Relative
//! symbolic links that stay inside are followed; an absolute one leads out, wherever it points. Where the
//! kernel has no `openat2` (before Linux 5.6, or forbidden), the way is walked part by part, and no
//! symbolic link is followed at all.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, Stat, fstat, open, openat, openat2};
use rustix::io::Errno;

use super::budget::{Budget, Taken};
use crate::{Error, Result};

/// Flags to open a file for reading; a FIFO does not keep us waiting, a terminal does not become ours. (Who waits to
/// write into a FIFO sees a reader come and go: to look first would be one more call for each file.)
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// Flags to look at what a name is, without opening that.
const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
/// Bytes of listings that may wait to be taken by their peers, all together.
const LISTINGS: usize = 64 << 20;

/// The folder.
pub struct Root {
    folder: OwnedFd,
    /// True if the kernel looks names up beneath it (openat2).
    beneath: bool,
    /// Number of files that may still be opened.
    places: Budget,
    /// Bytes that further listings may have.
    pub listings: Budget,
}

/// A file of it, and its place among those that may be open.
pub struct Opened {
    file: OwnedFd,
    _place: Taken,
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Root {
    /// The folder at `path`, of which so many files may be open.
    ///
    /// # Errors
    /// It is none, or cannot be read.
    pub fn new(path: &Path, files: usize) -> Result<Self> {
        let failed = |error: Errno| {
            let what = format!("cannot serve {}", path.display());
            Error::io(what, error.into())
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(path, flags, Mode::empty()).map_err(failed)?;
        let beneath = beneath(folder.as_fd(), b".", READ);
        if let Err(error) = &beneath {
            tracing::warn!("openat2: {error}: symbolic links are not followed");
        }
        Ok(Self {
            beneath: beneath.is_ok(),
            places: Budget::new(files),
            listings: Budget::new(LISTINGS),
            folder,
        })
    }

    /// Opens the file `path`, relative to the folder and without `..`.
    ///
    /// # Errors
    /// `XDEV` or `LOOP` where it leads out, `MFILE` where too many are open; those of openat2(2) else.
    pub fn file(&self, path: &[u8]) -> rustix::io::Result<Opened> {
        let place = self.places.take(1).ok_or(Errno::MFILE)?;
        let file = self.open(path, READ)?;
        Ok(Opened {
            file,
            _place: place,
        })
    }

    /// Returns the `stat` of `path`, followed as [`Root::file`] would follow it, but not opened. (A symbolic link
    /// where that follows none.)
    ///
    /// # Errors
    /// As there.
    pub fn stat(&self, path: &[u8]) -> rustix::io::Result<Stat> {
        fstat(self.open(path, LOOK)?)
    }

    fn open(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let folder = self.folder.as_fd();
        match self.beneath {
            true => beneath(folder, path, flags),
            false => walk(folder, path, flags),
        }
    }
}

fn beneath(folder: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match openat2(folder, path, flags, Mode::empty(), how) {
            // Something was renamed meanwhile, and the kernel cannot tell whether it led out.
            Err(Errno::AGAIN) if tries < 10 => tries += 1,
            Err(Errno::INTR) => {}
            opened => return opened,
        }
    }
}

fn walk(folder: BorrowedFd<'_>, path: &[u8], last: OFlags) -> rustix::io::Result<OwnedFd> {
    let mut folders: Option<OwnedFd> = None;
    let mut parts = path.split(|byte| *byte == b'/').peekable();
    while let Some(part) = parts.next() {
        let here = folders.as_ref().map_or(folder, AsFd::as_fd);
        let flags = match parts.peek() {
            Some(_) => OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            None => last,
        };
        let opened = openat(here, part, flags | OFlags::NOFOLLOW, Mode::empty())?;
        if parts.peek().is_none() {
            return Ok(opened);
        }
        folders = Some(opened);
    }
    Err(Errno::NOENT)
}

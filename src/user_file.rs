//! Files that users name: opened without waiting for anybody, then looked at.
//!
//! A path may lead to anything. `open` on a named pipe waits for its other end and, since the system
//! begins it again after a signal, swallows the first Ctrl-C. The rule: nobody but this module opens a
//! file that a user named, for reading or for writing. It opens with `O_NONBLOCK`, so it never waits, and gives
//! [`UserFile`], from which a [`File`] is had only together with its [`Kind`]. A length is had from
//! [`regular`] or [`length`] only, which have held what `stat` says against what can be read: the
//! files of `/proc` have bytes where `stat` says 0, those of sysfs fewer than the page that it says.

use std::fmt;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Kind of thing that a path led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file: reading it never waits for another program.
    Regular,
    /// A directory.
    Directory,
    /// A pipe, with or without a name.
    Pipe,
    /// A socket.
    Socket,
    /// A character device: a terminal, `/dev/zero`.
    Device,
    /// A block device: a disk.
    Disk,
}

impl Kind {
    fn of(file: FileType) -> Self {
        match () {
            () if file.is_dir() => Self::Directory,
            () if file.is_fifo() => Self::Pipe,
            () if file.is_socket() => Self::Socket,
            () if file.is_char_device() => Self::Device,
            () if file.is_block_device() => Self::Disk,
            () => Self::Regular,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Regular => "a regular file",
            Self::Directory => "a directory",
            Self::Pipe => "a pipe",
            Self::Socket => "a socket",
            Self::Device => "a character device",
            Self::Disk => "a block device",
        })
    }
}

/// A file that is open for reading, and what it is.
#[derive(Debug)]
pub struct UserFile {
    /// The file. Unless it is a regular one, to read it may have to wait: ask by poll(2) first.
    pub file: File,
    /// Its kind.
    pub kind: Kind,
}

impl UserFile {
    /// Opens the file at `path` for reading, and never waits.
    ///
    /// # Errors
    /// [`Error::File`] for a directory and a socket, which cannot be read; [`Error::Io`] where the
    /// system refuses.
    pub fn open(path: &Path) -> Result<Self> {
        // A socket is seen by looking only: opening it says that there is no such device.
        let before = Kind::of(metadata_at(path)?.file_type());
        if let Kind::Directory | Kind::Socket = before {
            return Err(unfit(path, format!("it is {before}\n  name a file")));
        }
        let mut options = OpenOptions::new();
        // Nor does a terminal become ours.
        options
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let file = options.open(path).map_err(|error| cannot(path, error))?;
        let metadata = file.metadata().map_err(|error| cannot(path, error))?;
        let kind = Kind::of(metadata.file_type());
        if kind == Kind::Regular {
            // It waits for nobody, and io_uring takes the flag for a wish not to wait for the disk.
            let flags = rustix::fs::fcntl_getfl(&file);
            flags
                .and_then(|flags| rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK))
                .map_err(|errno| cannot(path, errno.into()))?;
        }
        Ok(Self { file, kind })
    }

    /// Standard input.
    ///
    /// # Errors
    /// [`Error::File`] where it is a directory.
    pub fn stdin() -> Result<Self> {
        let path = Path::new("standard input");
        let file = io::stdin().as_fd().try_clone_to_owned().map(File::from);
        let file = file.map_err(|error| cannot(path, error))?;
        let metadata = file.metadata().map_err(|error| cannot(path, error))?;
        match Kind::of(metadata.file_type()) {
            Kind::Directory => Err(unfit(path, "it is a directory\n  name a file".to_owned())),
            kind => Ok(Self { file, kind }),
        }
    }
}

/// Opens the regular file at `path`, and gives it with its length. `only` ends the sentence "only
/// those ...", for who names another.
///
/// # Errors
/// [`Error::File`] where it is not a regular file, or its length is made up; [`Error::Io`] where the
/// system refuses.
pub fn regular(path: &Path, only: &str) -> Result<(File, u64)> {
    let must_be_regular = |kind: Kind| match kind {
        Kind::Regular => Ok(()),
        Kind::Directory => Err(unfit(
            path,
            format!("it is a directory, not a regular file, and only those {only}\n  name a file"),
        )),
        kind => Err(unfit(
            path,
            format!(
                "it is {kind}, not a regular file, and only those {only}\n  copy it into a file first: \
                 cat {} > COPY",
                path.display()
            ),
        )),
    };
    // By looking first: to open some devices is to start them.
    must_be_regular(Kind::of(metadata_at(path)?.file_type()))?;
    let UserFile { file, kind } = UserFile::open(path)?;
    must_be_regular(kind)?;
    match length(&file).map_err(|error| cannot(path, error))? {
        Length::Real(bytes) => Ok((file, bytes)),
        Length::MadeUp(said) => Err(made_up(path, said)),
    }
}

/// Number of bytes in a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many.
    Real(u64),
    /// Nobody knows before it is read; `stat` says this.
    MadeUp(u64),
}

/// Finds out whether a regular file has as many bytes as `stat` says.
///
/// A file that takes up room on a disk or in memory is believed. What takes up none is empty, a hole, or
/// made by the kernel as it is read: its last byte must be there, and none behind it.
///
/// # Errors
/// Those of `fstat` and `pread`.
pub fn length(file: impl AsFd) -> io::Result<Length> {
    let file = file.as_fd();
    let mut said = rustix::fs::fstat(file)?;
    loop {
        let len = u64::try_from(said.st_size).unwrap_or(0);
        if said.st_blocks != 0 {
            return Ok(Length::Real(len));
        }
        let ends_there = !is_byte(file, len)? && (len == 0 || is_byte(file, len - 1)?);
        if ends_there {
            return Ok(Length::Real(len));
        }
        // Unless it has just been written to or cut off.
        let now = rustix::fs::fstat(file)?;
        if (now.st_size, now.st_blocks) == (said.st_size, said.st_blocks) {
            return Ok(Length::MadeUp(len));
        }
        said = now;
    }
}

/// Returns whether there is a byte at `offset`; one that may come later counts.
fn is_byte(file: impl AsFd, offset: u64) -> io::Result<bool> {
    loop {
        match rustix::io::pread(&file, &mut [0u8; 1], offset) {
            Ok(read) => return Ok(read == 1),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Creates or empties the file at `path` for writing. A named pipe is written to where somebody reads it:
/// waiting for its reader would swallow the first Ctrl-C.
///
/// # Errors
/// If the system refuses, or nobody reads the pipe.
pub fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(|error| {
        let is_pipe = || metadata_at(path).is_ok_and(|at| at.file_type().is_fifo());
        match error.raw_os_error() {
            Some(libc::ENXIO) if is_pipe() => io::Error::other(
                "it is a pipe that nobody reads\n  begin its reader first, or name a file",
            ),
            _ => error,
        }
    })?;
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

/// The error for a length that is made up.
pub fn made_up(path: &Path, said: u64) -> Error {
    unfit(
        path,
        format!(
            "its length is made up, as in /proc and /sys: {said} bytes, it is said, but it does not end \
             there\n  copy it into a file first: cat {} > COPY",
            path.display()
        ),
    )
}

fn metadata_at(path: &Path) -> Result<Metadata> {
    std::fs::metadata(path).map_err(|error| cannot(path, error))
}

fn cannot(path: &Path, source: io::Error) -> Error {
    Error::io(format!("cannot read {}", path.display()), source)
}

fn unfit(path: &Path, what: String) -> Error {
    Error::File {
        path: path.to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    fn says(error: &Error, words: &[&str]) {
        let error = error.to_string();
        for words in words {
            assert!(error.contains(words), "{words:?} is not in: {error}");
        }
    }

    #[test]
    fn a_pipe_without_a_writer_is_opened_at_once_and_has_nothing_yet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let mut opened = UserFile::open(&path).unwrap();
        assert_eq!(opened.kind, Kind::Pipe);
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        let nothing = opened.file.read(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        writer.write_all(b"x").unwrap();
        assert_eq!(opened.file.read(&mut [0; 2]).unwrap(), 1);
        let error = regular(&path, "are sent").unwrap_err();
        says(
            &error,
            &["a pipe", "not a regular file", "only those are sent"],
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        says(&UserFile::open(&socket).unwrap_err(), &["it is a socket"]);
        says(
            &UserFile::open(dir.path()).unwrap_err(),
            &["it is a directory"],
        );
        let device = regular(Path::new("/dev/zero"), "are sent").unwrap_err();
        says(&device, &["a character device", "cat /dev/zero > COPY"]);
    }

    #[test]
    fn a_regular_file_comes_with_its_length_and_may_wait_for_the_disk() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(regular(file.path(), "").unwrap().1, 0);
        file.write_all(&[1; 5000]).unwrap();
        let (opened, len) = regular(file.path(), "").unwrap();
        assert_eq!(len, 5000);
        let flags = rustix::fs::fcntl_getfl(&opened).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
        // A hole takes up no room, but reads as zeros to its end.
        let hole = tempfile::NamedTempFile::new().unwrap();
        hole.as_file().set_len(1 << 20).unwrap();
        assert_eq!(regular(hole.path(), "").unwrap().1, 1 << 20);
    }

    #[test]
    fn a_length_that_is_made_up_is_not_believed() {
        for (path, said) in [
            ("/proc/self/status", "0 bytes"),
            ("/proc/cpuinfo", "0 bytes"),
            ("/sys/kernel/cpu_byteorder", "4096 bytes"),
        ] {
            let path = Path::new(path);
            if path.exists() {
                let error = regular(path, "are sent").unwrap_err();
                says(&error, &["made up", said, "cat"]);
            }
        }
    }
}

//! The bytes that a read finds in a file, where those are not what its filesystem says.
//!
//! The kernel makes up the length of many a file: `/proc` says 0, sysfs 4096, and a filesystem of somebody's
//! (FUSE) what it likes. An answer must know better before its head leaves, since that says how long the body
//! is. So a length is not believed where nothing stands behind it, no block of the file and no disk below it,
//! but looked at: a read at the last byte must find that one byte and none after it. What fails is read, and
//! what was read is sent: nothing is ever announced that no read has found.

use std::os::fd::BorrowedFd;

use rustix::fs::{Stat, fstat, major};
use rustix::io::Errno;

/// Bytes that are read before the head is sent, at most, so that it can tell how many there are.
const MOST: usize = 256 << 10;
/// Bytes of a chunk of what is longer.
const CHUNK: usize = 64 << 10;
/// The offset of the last byte that a file can have.
const LAST: u64 = i64::MAX as u64 - 1;
/// Looks at a file that goes on changing its length.
const LOOKS: usize = 8;

/// The bytes of a file that are to be sent.
pub enum Content {
    /// Number of bytes, which are where they are.
    Measured(u64),
    /// These: all that a read found.
    Read(Vec<u8>),
    /// These, and what further reads find.
    Unmeasured(Vec<u8>),
}

impl Content {
    /// Measures `file`, which is a regular one; `stat` is brought up to date where it has changed.
    ///
    /// # Errors
    /// It cannot be read: `AGAIN` where it is not ready.
    pub fn of(file: BorrowedFd<'_>, stat: &mut Stat) -> rustix::io::Result<Self> {
        for _ in 0..LOOKS {
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            if is_backed(stat) || is_right(file, size)? {
                return Ok(Self::Measured(size));
            }
            let now = fstat(file)?;
            let is_same = now.st_size == stat.st_size;
            *stat = now;
            if is_same {
                return read_all(file);
            }
        }
        // Somebody appends to it faster than we look: those bytes are there.
        Ok(Self::Measured(u64::try_from(stat.st_size).unwrap_or(0)))
    }
}

/// Returns whether storage stands behind the length. A device number without a major one is no disk's.
fn is_backed(stat: &Stat) -> bool {
    stat.st_blocks > 0 && major(stat.st_dev) != 0
}

/// Returns whether the file has exactly `size` bytes, as a read sees it.
fn is_right(file: BorrowedFd<'_>, size: u64) -> rustix::io::Result<bool> {
    let mut bytes = [0; 2];
    let Some(last) = size.checked_sub(1) else {
        return Ok(pread(file, &mut bytes, 0)? == 0);
    };
    // Behind the longest of files there is nothing to ask for: the offset of a read is signed.
    let asked = if last < LAST { 2 } else { 1 };
    Ok(pread(file, &mut bytes[..asked], last)? == 1)
}

/// The next bytes of a file from `at` on; none at its end.
///
/// # Errors
/// It cannot be read on.
pub fn next(file: BorrowedFd<'_>, at: u64) -> rustix::io::Result<Vec<u8>> {
    let mut found = vec![0; CHUNK];
    let got = pread(file, &mut found, at)?;
    found.truncate(got);
    found.shrink_to_fit();
    Ok(found)
}

/// Reads all there is, or as much as is read before the head is sent.
fn read_all(file: BorrowedFd<'_>) -> rustix::io::Result<Content> {
    let mut found = vec![0; MOST];
    let mut got = 0;
    // Such files give a page at a time, or a line.
    while got < MOST {
        match pread(file, &mut found[got..], got as u64)? {
            0 => {
                found.truncate(got);
                found.shrink_to_fit();
                return Ok(Content::Read(found));
            }
            more => got += more,
        }
    }
    Ok(Content::Unmeasured(found))
}

fn pread(file: BorrowedFd<'_>, into: &mut [u8], at: u64) -> rustix::io::Result<usize> {
    loop {
        match rustix::io::pread(file, &mut *into, at) {
            Err(Errno::INTR) => {}
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    fn content(file: &File) -> Content {
        let mut stat = fstat(file).unwrap();
        Content::of(file.as_fd(), &mut stat).unwrap()
    }

    #[test]
    fn a_length_is_believed_where_a_read_finds_its_last_byte_and_none_behind_it() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        for size in [0, 1, 4096, 1 << 40, i64::MAX as u64] {
            file.set_len(size).unwrap();
            assert!(
                matches!(content(&file), Content::Measured(found) if found == size),
                "{size}"
            );
        }
        for path in ["/proc/version", "/sys/devices/virtual/net/lo/mtu"] {
            let Ok(file) = File::open(path) else { continue };
            let expected = std::fs::read(path).unwrap();
            assert!(
                matches!(content(&file), Content::Read(found) if found == expected),
                "{path}"
            );
        }
    }

    #[test]
    fn a_file_that_has_grown_since_it_was_looked_at_is_as_long_as_it_is_now() {
        let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
        let mut stat = fstat(&file).unwrap();
        file.write_all(b"grown").unwrap();
        let content = Content::of(file.as_fd(), &mut stat).unwrap();
        assert!(matches!(content, Content::Measured(5)));
        assert_eq!(stat.st_size, 5);
    }
}

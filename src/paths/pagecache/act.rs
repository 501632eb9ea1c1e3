//! Operations on a file's page cache: pages are dropped, read ahead, used, written.
//!
//! All but [`touch`] and [`warm`] are wishes: the kernel does what it can and wants. What came of it is
//! seen by a look afterwards.

use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Advice as FileAdvice;

use super::backing::is_stacked;
use super::counts::Counts;
use super::look::residency;
use super::span::Span;
use super::sys;
use super::window::{Sink, Window};
use crate::error::{Error, Result};

/// Pages of a wish to read ahead: 128 KiB. The kernel shortens a longer one to what it reads ahead at
/// most, and says nothing.
const READ_AHEAD: u64 = 32;

/// Pages that are mapped at once when they are touched.
const WINDOW: u64 = 1 << 14;

/// Bytes of a read of [`warm`].
const READ: usize = 1 << 20;

fn advise(file: &File, span: Span, advice: FileAdvice) -> Result<()> {
    let Some(bytes) = NonZeroU64::new(span.bytes()) else {
        return Ok(());
    };
    rustix::fs::fadvise(file, span.offset(), Some(bytes), advice)
        .map_err(|errno| Error::io(format!("posix_fadvise({advice:?})"), errno.into()))
}

/// Asks the kernel to drop the pages of `span` (`POSIX_FADV_DONTNEED`); gives what is left. Dirty pages
/// stay, but their write-back begins: [`sync`] first where all shall go. Pages stay, too, that somebody
/// has mapped or pinned, and all of tmpfs, which has no other place for them.
///
/// # Errors
/// If the system refuses, or does not tell what is left.
pub fn evict(file: &File, span: Span) -> Result<Counts> {
    advise(file, span, FileAdvice::DontNeed)?;
    residency(file, span)
}

/// Asks the kernel to read the pages of `span` from the disk (`POSIX_FADV_WILLNEED`); does not wait.
///
/// # Errors
/// If the system refuses.
pub fn read_ahead(file: &File, span: Span) -> Result<()> {
    span.pieces(READ_AHEAD)
        .try_for_each(|piece| advise(file, piece, FileAdvice::WillNeed))
}

/// Reads all of `span`, so that its pages are in the cache, and gives what is there then.
///
/// # Errors
/// [`Error::Interrupted`] by `stop`, and where the file cannot be read.
pub fn warm(file: &File, span: Span, stop: &AtomicBool) -> Result<Counts> {
    let mut buffer = vec![0; READ];
    let (mut at, past) = (span.offset(), span.offset() + span.bytes());
    while at < past {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let most = (past - at).min(READ as u64) as usize;
        match file.read_at(&mut buffer[..most], at) {
            Ok(0) => break,
            Ok(read) => at += read as u64,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::io("reading the file", source)),
        }
    }
    residency(file, span)
}

/// Writes what is dirty to the disk, and waits: all of a file with what is needed to find it again
/// (`fdatasync`), or the pages of a part (`sync_file_range`, which leaves the disk's own cache alone and
/// so promises nothing for when the power goes; all of a file whose pages are another's, as in an overlay).
///
/// # Errors
/// If writing fails: a full disk, a broken one.
pub fn sync(file: &File, part: Option<Span>) -> Result<()> {
    match part {
        None => rustix::fs::fdatasync(file).map_err(|errno| Error::io("fdatasync", errno.into())),
        Some(Span { pages: 0, .. }) => Ok(()),
        // It would look for dirty pages here, where there are none, and say that all is well.
        Some(_) if is_stacked(file) => sync(file, None),
        Some(span) => {
            let os = |source| Error::io("sync_file_range", source);
            sys::sync_file_range(file, span).map_err(os)
        }
    }
}

/// Counts of one [`touch`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Touched {
    /// Pages of which a byte was read.
    pub pages: u64,
    /// Faults that waited for the disk (major): misses.
    pub misses: u64,
    /// Faults that found the page in the cache (minor): hits. The kernel maps the neighbours that are
    /// there along with a page, and reads ahead what comes next, so there are less faults than pages.
    pub hits: u64,
    /// Pages that could not be read: somebody made the file shorter, or its disk fails.
    pub gone: u64,
}

/// Reads a byte of each page of `span` through a mapping, in order, and counts the faults. A file that
/// shrinks meanwhile is no danger.
///
/// # Errors
/// [`Error::Interrupted`] by `stop`, and where the file cannot be mapped.
pub fn touch(file: &File, span: Span, stop: &AtomicBool) -> Result<Touched> {
    let sink = Sink::new()?;
    let mut touched = Touched::default();
    for part in span.pieces(WINDOW) {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let pages: Vec<usize> = (0..part.pages as usize).collect();
        let read = Window::map(file, part)?.read(&pages, &sink)?;
        touched.pages += read.pages as u64;
        touched.misses += read.major;
        touched.hits += read.minor;
        touched.gone += part.pages - read.pages as u64;
    }
    Ok(touched)
}

//! A look at a file's pages, by the best witness there is, and why by no better one.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicBool;

use super::backing::is_stacked;
use super::counts::Counts;
use super::flags::PageFlags;
use super::span::Span;
use super::{cachestat, mincore};
use crate::error::{Error, Result};

/// The interface of the kernel that told the pages' states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// `cachestat`: resident, dirty, write-back, evicted.
    Cachestat,
    /// `/proc/kpageflags`: resident, dirty, write-back, referenced, active.
    PageFlags,
    /// `mincore`: resident, and nothing else.
    Mincore,
}

impl Witness {
    /// Its name, as in the manual.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cachestat => "cachestat",
            Self::PageFlags => "/proc/kpageflags",
            Self::Mincore => "mincore",
        }
    }
}

/// The interfaces to ask, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum How {
    /// `cachestat`, else the page flags, else `mincore`.
    #[default]
    Best,
    /// The page flags, which tell what was used, too; else as above.
    Flags,
    /// `mincore`, whatever else there is.
    Mincore,
}

/// The states of a file's pages at one time.
#[derive(Debug, Clone)]
pub struct Look {
    /// The source of the counts.
    pub witness: Witness,
    /// Reasons for which no witness that knows more was used.
    pub why: Vec<String>,
    /// Pages of a cell; the last one may have less.
    pub cell: u64,
    /// The counts of each cell, in order.
    pub cells: Vec<Counts>,
}

impl Look {
    /// Returns the counts of all cells together.
    pub fn total(&self) -> Counts {
        self.cells.iter().copied().sum()
    }
}

/// Counts the pages of `span` of `file` by state, in all.
///
/// # Errors
/// As [`look`].
pub fn residency(file: &File, span: Span) -> Result<Counts> {
    let cell = span.pages.max(1);
    Ok(look(file, span, cell, How::Best, &AtomicBool::new(false))?.total())
}

/// Counts the pages of `span` of `file` by state, for each piece of `cell` pages. `stop`, where the
/// file is long, ends it.
///
/// # Errors
/// [`Error::NeedsRoot`] for a file of somebody else's that one may not write, [`Error::Interrupted`],
/// and where the file cannot be mapped.
///
/// # Panics
/// If `cell` is 0.
pub fn look(file: &File, span: Span, cell: u64, how: How, stop: &AtomicBool) -> Result<Look> {
    let mut why = Vec::new();
    let seen = |witness, why, cells| Look {
        witness,
        why,
        cell,
        cells,
    };
    if how == How::Best {
        match cachestat::cells(file, span, cell) {
            Ok(cells) if is_blind(file, span, &cells) => why.push(BLIND.to_owned()),
            Ok(cells) => return Ok(seen(Witness::Cachestat, why, cells)),
            Err(error) => why.push(no_cachestat(file, error)?),
        }
    }
    if how != How::Mincore {
        match PageFlags::open() {
            Ok(flags) => {
                let cells = flags.cells(file, span, cell, stop)?;
                return Ok(seen(Witness::PageFlags, why, cells));
            }
            Err(reason) => why.push(reason),
        }
    }
    if how == How::Flags {
        let mut best = look(file, span, cell, How::Best, stop)?;
        best.why.splice(0..0, why);
        best.why.dedup();
        return Ok(best);
    }
    let cells = mincore::cells(file, span, cell, stop)?;
    Ok(seen(Witness::Mincore, why, cells))
}

/// The reason for which `cachestat` is not believed.
const BLIND: &str =
    "cachestat looks at this file, and its pages are another's, in a filesystem below";

/// Pages that are held against `mincore` where `cachestat` found none, at most: 4 GiB.
const CHECKED: u64 = 1 << 20;

/// Returns whether `cachestat` misses the pages of a file that is only a front for another. `mincore` does not miss
/// them: a mapping is one of the file below. So where the one finds nothing and the other something, the one is
/// blind.
fn is_blind(file: &File, span: Span, cells: &[Counts]) -> bool {
    if is_stacked(file) {
        return true;
    }
    let begin = Span {
        pages: span.pages.min(CHECKED),
        ..span
    };
    // Pages come and go: what has come in between is no proof.
    let found = || {
        let counts = mincore::cells(file, begin, CHECKED, &AtomicBool::new(false));
        counts.is_ok_and(|counts| counts.iter().any(|count| count.resident > 0))
    };
    let none = |counts: &[Counts]| counts.iter().all(|count| count.resident == 0);
    let again = || cachestat::cells(file, begin, CHECKED).is_ok_and(|counts| none(&counts));
    none(cells) && found() && again()
}

/// Returns why `cachestat` told nothing, where another witness may; the error where none may.
fn no_cachestat(file: &File, error: io::Error) -> Result<String> {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Ok("this kernel has no cachestat (Linux 6.5 has)".to_owned()),
        // Some containers answer so to what they do not know.
        Some(libc::EPERM) => {
            mincore::check_told(file).map(|()| "cachestat is forbidden here".to_owned())
        }
        Some(libc::EOPNOTSUPP) => Ok("this filesystem has no cachestat".to_owned()),
        _ => Err(Error::io("cachestat", error)),
    }
}

/// Returns the file's name, as far as the system knows it.
pub fn name(file: &File) -> String {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .map_or_else(|_| "the file".to_owned(), |path| path.display().to_string())
}

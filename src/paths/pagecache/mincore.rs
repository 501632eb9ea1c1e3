//! `mincore`: which pages are in memory, and no more.
//!
//! Since Linux 5.2 it tells the truth only to who owns the file or may write it; to all others it says
//! that every page is there, so that nobody spies on what others read. We ask first.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Access, AtFlags, CWD};

use super::counts::Counts;
use super::look::name;
use super::span::Span;
use super::window::Window;
use crate::error::{Error, Result};

/// Pages that are looked at at once: 1 GiB of file, 256 KiB of answer.
const WINDOW: u64 = 1 << 18;

/// Checks that the kernel tells this user the truth about the file.
///
/// # Errors
/// If he is not, with what to do about it.
pub fn check_told(file: &File) -> Result<()> {
    let os = |source| Error::io("reading who owns the file", source);
    let user = rustix::process::geteuid();
    if user.is_root() || file.metadata().map_err(os)?.uid() == user.as_raw() {
        return Ok(());
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    match rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        Err(_) => Err(not_told(file)),
    }
}

/// Returns the error for a file of which this user is told nothing.
pub fn not_told(file: &File) -> Error {
    let name = name(file);
    Error::NeedsRoot {
        what: format!(
            "{name}: which of its pages are in memory is told only to who owns the file or may write it"
        ),
        command: format!("pinwire pagecache {name}"),
    }
}

/// Counts of each piece of `span` of `cell` pages.
pub fn cells(file: &File, span: Span, cell: u64, stop: &AtomicBool) -> Result<Vec<Counts>> {
    check_told(file)?;
    let mut cells = Cells::new(span, cell);
    for part in span.pieces(WINDOW) {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let resident = Window::map(file, part)?.resident()?;
        for (page, resident) in (part.first..).zip(resident) {
            cells.of(page).resident += u64::from(resident);
        }
    }
    Ok(cells.counts)
}

/// Counts by cell, found by page.
pub struct Cells {
    span: Span,
    cell: u64,
    pub counts: Vec<Counts>,
}

impl Cells {
    /// Makes the cells, with nothing but their pages counted.
    pub fn new(span: Span, cell: u64) -> Self {
        let counts = span.pieces(cell).map(|piece| Counts {
            pages: piece.pages,
            ..Counts::default()
        });
        Self {
            span,
            cell,
            counts: counts.collect(),
        }
    }

    /// The counts of the cell that `page` is in.
    pub fn of(&mut self, page: u64) -> &mut Counts {
        &mut self.counts[((page - self.span.first) / self.cell) as usize]
    }
}

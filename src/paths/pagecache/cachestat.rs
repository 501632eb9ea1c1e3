//! `cachestat` (Linux 6.5): the kernel counts the pages of a range by state, from its own index. Fast
//! however long the file is, and nothing is mapped.
//!
//! The marks it counts by are those of write-back, so where there is nothing to write back to (tmpfs),
//! no page is ever dirty.

use std::fs::File;
use std::io;

use super::counts::Counts;
use super::span::Span;
use super::sys;

/// Counts of each piece of `span` of `cell` pages.
///
/// # Errors
/// Errors of the system: ENOSYS before Linux 6.5, EPERM for a file that is somebody else's (since 6.14;
/// before it told everybody).
pub fn cells(file: &File, span: Span, cell: u64) -> io::Result<Vec<Counts>> {
    if span.pages == 0 {
        // Nothing to count, but is there a cachestat?
        sys::cachestat(file, Span { pages: 1, ..span })?;
    }
    let counts = |piece| {
        let stat = sys::cachestat(file, piece)?;
        Ok(Counts {
            pages: piece.pages,
            resident: stat.cache,
            dirty: Some(stat.dirty),
            writeback: Some(stat.writeback),
            evicted: Some(stat.evicted),
            unbacked: None,
            referenced: None,
            active: None,
        })
    };
    span.pieces(cell).map(counts).collect()
}

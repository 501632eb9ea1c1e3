//! A part of a file, mapped to be looked at: never longer than what is worth it, so that a file of any
//! length is looked at in little memory.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::MemfdFlags;

use super::backing::huge_page;
use super::span::{Span, page_bytes};
use super::sys::{self, Read};
use crate::error::{Error, Result};

/// A mapping of a span, shared and for reading. Its bytes are reached by the kernel only
/// ([`Window::read`]), so a file that shrinks is no danger.
pub struct Window {
    map: MmapRaw,
    span: Span,
    /// Pages of the mapping before the span: huge pages are mapped whole.
    lead: usize,
}

impl Window {
    /// Maps `span` of `file`, which has pages.
    pub fn map(file: &File, span: Span) -> Result<Self> {
        let whole = huge_page(file).unwrap_or(page_bytes());
        let begin = span.offset() / whole * whole;
        let end = (span.offset() + span.bytes()).next_multiple_of(whole);
        let map = MmapOptions::new()
            .offset(begin)
            .len((end - begin) as usize)
            .no_reserve_swap() // a look takes no huge page from anybody
            .map_raw_read_only(file)
            .map_err(|source| {
                Error::io(
                    "mapping the file to look at its pages (mmap MAP_SHARED)",
                    source,
                )
            })?;
        let lead = (span.offset() - begin) / page_bytes();
        Ok(Self {
            map,
            span,
            lead: lead as usize,
        })
    }

    /// Its first byte in this process.
    pub fn address(&self) -> usize {
        self.map.as_ptr().addr() + self.lead * page_bytes() as usize
    }

    /// Returns for each of its pages whether it is in memory.
    pub fn resident(&self) -> Result<Vec<bool>> {
        let bytes = sys::mincore(&self.map).map_err(|source| Error::io("mincore", source))?;
        let ours = bytes.iter().skip(self.lead).take(self.span.pages as usize);
        Ok(ours.map(|byte| byte & 1 != 0).collect())
    }

    /// Tells the kernel how it is used.
    pub fn advise(&self, advice: Advice) -> Result<()> {
        let os = |source| Error::io(format!("madvise({advice:?})"), source);
        self.map.advise(advice).map_err(os)
    }

    /// Reads a byte of each of `pages`, in order, up to one that is not there any more.
    pub fn read(&self, pages: &[usize], sink: &Sink) -> Result<Read> {
        let pages: Vec<usize> = pages.iter().map(|page| self.lead + page).collect();
        let mut all = Read::default();
        while all.pages < pages.len() {
            let read = sys::read_a_byte_each(&self.map, &pages[all.pages..], sink.0.as_fd());
            let read = read.map_err(|source| Error::io("reading pages of the mapping", source))?;
            all.major += read.major;
            all.minor += read.minor;
            if read.pages == 0 {
                break;
            }
            all.pages += read.pages;
        }
        Ok(all)
    }
}

/// A sink for bytes that nobody wants: a file in memory, since /dev/null does not even look at them.
pub struct Sink(OwnedFd);

impl Sink {
    /// A new one.
    pub fn new() -> Result<Self> {
        let made = rustix::fs::memfd_create("pinwire", MemfdFlags::CLOEXEC);
        Ok(Self(made.map_err(|errno| {
            Error::io("memfd_create", errno.into())
        })?))
    }
}

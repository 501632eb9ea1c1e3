//! `/proc/kpageflags`: the kernel's own flags of each page, for root.
//!
//! It is asked by page frame, and which frames a file's pages are in is told by `/proc/self/pagemap`
//! for pages that we have mapped. So each page in the cache is mapped for a moment, by a read of one
//! byte. That must not change what is looked at: no read-ahead meanwhile (`MADV_RANDOM`), and the pages
//! are not to look used when we let go of them (`MADV_SEQUENTIAL`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use bitflags::bitflags;
use memmap2::Advice;

use super::backing::Backing;
use super::counts::Counts;
use super::mincore::{Cells, check_told};
use super::span::{Span, page_bytes};
use super::window::{Sink, Window};
use crate::error::{Error, Result};

/// Pages that are mapped at once: 64 MiB of file.
const WINDOW: u64 = 1 << 14;

bitflags! {
    /// Flags of a page frame (<linux/kernel-page-flags.h>).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Flags: u64 {
        const REFERENCED = 1 << 2;
        const DIRTY = 1 << 4;
        const ACTIVE = 1 << 6;
        const WRITEBACK = 1 << 8;
        const SWAPBACKED = 1 << 14;
        const COMPOUND_TAIL = 1 << 16;
        const HUGE = 1 << 17;
        const UNEVICTABLE = 1 << 18;
        const MLOCKED = 1 << 33;
        const _ = !0;
    }
}

impl Flags {
    /// Returns whether the page is all there is of its part of the file. Only the swap takes it (tmpfs), or nobody:
    /// it is one of hugetlbfs's, or never to be dropped though nobody has locked it (ramfs). Such a page is marked
    /// dirty as long as it lives, and not because anything waits to be written.
    fn is_unbacked(self) -> bool {
        let kept = self.contains(Self::UNEVICTABLE) && !self.contains(Self::MLOCKED);
        kept || self.intersects(Self::SWAPBACKED | Self::HUGE)
    }
}

/// The kernel's files of page frames and of their flags.
pub struct PageFlags {
    pagemap: File,
    flags: File,
    sink: Sink,
}

impl PageFlags {
    /// Opens both files.
    ///
    /// # Errors
    /// Why they cannot be read, in words.
    pub fn open() -> Result<Self, String> {
        let open = |path: &str| {
            File::open(path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => format!("this kernel has no {path}"),
                io::ErrorKind::PermissionDenied => format!("{path} is for root"),
                _ => format!("{path}: {error}"),
            })
        };
        Ok(Self {
            flags: open("/proc/kpageflags")?,
            pagemap: open("/proc/self/pagemap")?,
            sink: Sink::new().map_err(|error| error.to_string())?,
        })
    }

    /// Counts of each piece of `span` of `cell` pages.
    pub fn cells(
        &self,
        file: &File,
        span: Span,
        cell: u64,
        stop: &AtomicBool,
    ) -> Result<Vec<Counts>> {
        check_told(file)?;
        let mut cells = Cells::new(span, cell);
        for count in &mut cells.counts {
            let none = Some(0);
            (count.dirty, count.writeback) = (none, none);
            (count.referenced, count.active, count.unbacked) = (none, none, none);
        }
        // A page says so late: one that was just made waits for its list in a processor's batch, and is marked
        // when it gets there. Where the filesystem tells, no page is asked.
        let in_memory = Backing::of(file) == Backing::Memory;
        for part in span.pieces(WINDOW) {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            for (page, flags) in self.pages(file, part)? {
                let count = cells.of(page);
                count.resident += 1;
                let unbacked = in_memory || flags.is_unbacked();
                let mut add = |to: fn(&mut Counts) -> &mut Option<u64>, is: bool| {
                    let to = to(count);
                    *to = to.map(|sum| sum + u64::from(is));
                };
                let has = |flag| flags.contains(flag);
                add(|count| &mut count.unbacked, unbacked);
                add(|count| &mut count.dirty, has(Flags::DIRTY) && !unbacked);
                add(
                    |count| &mut count.writeback,
                    has(Flags::WRITEBACK) && !unbacked,
                );
                add(|count| &mut count.referenced, has(Flags::REFERENCED));
                add(|count| &mut count.active, has(Flags::ACTIVE));
            }
        }
        Ok(cells.counts)
    }

    /// The pages of `span` that are in the cache, with their flags.
    fn pages(&self, file: &File, span: Span) -> Result<Vec<(u64, Flags)>> {
        let window = Window::map(file, span)?;
        let resident = window.resident()?;
        let there: Vec<usize> = (0..resident.len())
            .filter(|index| resident[*index])
            .collect();
        if there.is_empty() {
            return Ok(Vec::new());
        }
        window.advise(Advice::Random)?;
        window.read(&there, &self.sink)?;
        let frames = self.frames(window.address(), resident.len())?;
        let mut pages = Vec::with_capacity(there.len());
        let mut frame_flags = FrameFlags::new(&self.flags);
        for index in there {
            // One that has gone meanwhile has no frame.
            if let Some(frame) = frames[index] {
                pages.push((span.first + index as u64, frame_flags.of(frame)?));
            }
        }
        window.advise(Advice::Sequential)?;
        Ok(pages)
    }

    /// The page frames that `pages` pages from `address` on are mapped to.
    fn frames(&self, address: usize, pages: usize) -> Result<Vec<Option<u64>>> {
        /// Bits of an entry: the page is present, and its frame.
        const PRESENT: u64 = 1 << 63;
        const FRAME: u64 = (1 << 55) - 1;
        let mut bytes = vec![0; pages * 8];
        let first = address as u64 / page_bytes();
        self.pagemap
            .read_exact_at(&mut bytes, first * 8)
            .map_err(|source| Error::io("reading /proc/self/pagemap", source))?;
        let entries = bytes.chunks_exact(8).map(word);
        Ok(entries
            .map(|entry| (entry & PRESENT != 0).then_some(entry & FRAME))
            .collect())
    }
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))
}

/// Flags of frames, read many at once: a file's pages mostly lie side by side.
struct FrameFlags<'a> {
    file: &'a File,
    first: u64,
    words: Vec<u8>,
}

impl<'a> FrameFlags<'a> {
    /// Frames read at once; the first of a large page is at most so far away.
    const BLOCK: u64 = 512;

    fn new(file: &'a File) -> Self {
        Self {
            file,
            first: 0,
            words: Vec::new(),
        }
    }

    /// The flags of `frame`; those of a part of a larger page are its head's.
    fn of(&mut self, frame: u64) -> Result<Flags> {
        let mut flags = self.word(frame)?;
        let mut head = frame;
        while flags.contains(Flags::COMPOUND_TAIL) && head > 0 && frame - head < Self::BLOCK {
            head -= 1;
            flags = self.word(head)?;
        }
        Ok(flags)
    }

    fn word(&mut self, frame: u64) -> Result<Flags> {
        let first = frame - frame % Self::BLOCK;
        if self.words.is_empty() || self.first != first {
            let os = |source| Error::io("reading /proc/kpageflags", source);
            let mut words = vec![0; Self::BLOCK as usize * 8];
            // The last block of memory may be shorter.
            let read = self.file.read_at(&mut words, first * 8).map_err(os)?;
            words.truncate(read);
            (self.first, self.words) = (first, words);
        }
        let at = (frame - first) as usize * 8;
        let flags = self.words.get(at..at + 8).map_or(0, word);
        Ok(Flags::from_bits_retain(flags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_all_there_is_of_it_is_told_from_one_that_somebody_has_locked() {
        for (flags, is_unbacked) in [
            (Flags::DIRTY, false),
            (Flags::DIRTY | Flags::UNEVICTABLE | Flags::MLOCKED, false),
            (Flags::DIRTY | Flags::UNEVICTABLE, true),
            (Flags::DIRTY | Flags::SWAPBACKED, true),
            (
                Flags::SWAPBACKED | Flags::UNEVICTABLE | Flags::MLOCKED,
                true,
            ),
            (Flags::HUGE, true),
        ] {
            assert_eq!(flags.is_unbacked(), is_unbacked, "{flags:?}");
        }
    }
}

//! Physical region pages (§4.3): how a command says where its data lies.
//!
//! PRP 1 is where the data begins, anywhere in a page. PRP 2 is the second page where there are two, or the IOVA of a
//! list of all pages from the second on. Each entry but the first is a whole page, so the memory of a request must go
//! on page by page. A list lies in one page of its own, so that it needs no second list.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dma::{Chain, DmaArray, DmaSpace, Iova, SpaceId};
use crate::error::Result;

/// Bytes of a page: what the driver sets in CC.MPS.
pub const PAGE: usize = 4096;
/// Most entries of a list: a page of them.
const MOST: usize = PAGE / size_of::<u64>();

/// The lists of a queue, one for each command that may be in flight.
pub struct Lists {
    entries: DmaArray<AtomicU64>,
    each: usize,
}

impl Lists {
    /// Lists for `count` commands of up to `max_transfer` bytes.
    pub fn new(dma: &Arc<dyn DmaSpace>, count: usize, max_transfer: usize) -> Result<Self> {
        // A power of two, so that none goes across a page; four at least, since a copy keeps its range there.
        let each = (max_transfer / PAGE).next_power_of_two().clamp(4, MOST);
        Ok(Self {
            entries: DmaArray::alloc(dma, count * each)?,
            each,
        })
    }

    /// Most bytes that a command with one list can move, wherever in a page they begin.
    pub const fn longest() -> usize {
        MOST * PAGE
    }

    /// The space of their memory.
    pub fn space(&self) -> SpaceId {
        self.entries.space()
    }

    /// IOVA of list `index`.
    #[inline]
    pub fn iova(&self, index: u16) -> Iova {
        self.entries.iova(usize::from(index) * self.each)
    }

    /// Entries of list `index`.
    #[inline]
    fn list(&self, index: u16) -> &[AtomicU64] {
        let begin = usize::from(index) * self.each;
        &self.entries[begin..begin + self.each]
    }

    /// Writes words into list `index`, for what is no list of pages: a range of blocks.
    pub fn put(&self, index: u16, words: &[u64]) {
        for (entry, word) in self.list(index).iter().zip(words) {
            entry.store(word.to_le(), Ordering::Relaxed);
        }
    }

    /// PRP entries 1 and 2 of data that [`is_paged`] and is no longer than the lists are made for; the list, where there
    /// is one, is `index`.
    #[inline]
    pub fn describe(&self, index: u16, data: &Chain) -> [Iova; 2] {
        if let Some(segment) = data.single() {
            let (begin, len) = (segment.iova().0, segment.len());
            let first = PAGE - (begin as usize & (PAGE - 1));
            if len <= first {
                return [Iova(begin), Iova(0)];
            }
            let second = begin + first as u64;
            if len - first <= PAGE {
                return [Iova(begin), Iova(second)];
            }
            let pages = (second..begin + len as u64).step_by(PAGE);
            for (entry, page) in self.list(index).iter().zip(pages) {
                entry.store(page.to_le(), Ordering::Relaxed);
            }
            return [Iova(begin), self.iova(index)];
        }
        self.describe_many(index, data)
    }

    #[cold]
    fn describe_many(&self, index: u16, data: &Chain) -> [Iova; 2] {
        let pages = data.segments().filter(|one| one.len() > 0).flat_map(|one| {
            let (begin, past) = (one.iova().0, one.iova().0 + one.len() as u64);
            let second = (begin | (PAGE as u64 - 1)) + 1;
            std::iter::once(begin).chain((second..past).step_by(PAGE))
        });
        let pages: Vec<u64> = pages.collect();
        match pages[..] {
            [] => [Iova(0), Iova(0)],
            [first] => [Iova(first), Iova(0)],
            [first, second] => [Iova(first), Iova(second)],
            [first, ref rest @ ..] => {
                self.put(index, rest);
                [Iova(first), self.iova(index)]
            }
        }
    }

    /// The controller did not stop: it may go on reading them.
    pub fn quarantine(&mut self) {
        self.entries.quarantine();
    }
}

/// Checks that `data` goes on page by page, and begins at a multiple of 4 bytes (§4.3).
///
/// # Errors
/// In words.
pub fn is_paged(data: &Chain) -> Result<(), String> {
    let Some(segment) = data.single() else {
        return many_are_paged(data);
    };
    match segment.iova().0.is_multiple_of(4) {
        true => Ok(()),
        false => Err(misplaced(0, segment.iova())),
    }
}

#[cold]
fn many_are_paged(data: &Chain) -> Result<(), String> {
    let is_edge = |iova: u64| iova.is_multiple_of(PAGE as u64);
    let segments: Vec<_> = data.segments().filter(|one| one.len() > 0).collect();
    for (nth, one) in segments.iter().enumerate() {
        let (begin, past) = (one.iova().0, one.iova().0 + one.len() as u64);
        let begins = match nth {
            0 => begin.is_multiple_of(4),
            _ => is_edge(begin),
        };
        if !begins {
            return Err(misplaced(nth, one.iova()));
        }
        if nth + 1 < segments.len() && !is_edge(past) {
            return Err(format!(
                "its buffer {nth} ends within a page, and another follows"
            ));
        }
    }
    Ok(())
}

#[cold]
fn misplaced(nth: usize, iova: Iova) -> String {
    format!(
        "its buffer {nth} begins at IOVA {iova}: take buffers that begin on a page (Pool::pages)"
    )
}

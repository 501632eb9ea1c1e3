//! A stretch of a file in whole pages, since the cache knows no others.

use std::fs::File;

use crate::error::{Error, Result};

/// Bytes of a page.
pub fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// A stretch of a file, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first page.
    pub first: u64,
    /// Number of pages.
    pub pages: u64,
}

impl Span {
    /// All of `file`, as long as it is now.
    ///
    /// # Errors
    /// If the system cannot tell its length.
    pub fn all(file: &File) -> Result<Self> {
        Self::within(file, 0, None)
    }

    /// The pages that `length` bytes from `offset` on touch (`None`: to the end), as far as `file` goes now.
    ///
    /// # Errors
    /// If the system cannot tell the file's length.
    pub fn within(file: &File, offset: u64, length: Option<u64>) -> Result<Self> {
        let os = |source| Error::io("reading the file's length", source);
        let end = file.metadata().map_err(os)?.len();
        let past = length.map_or(end, |length| offset.saturating_add(length).min(end));
        let page = page_bytes();
        let first = offset / page;
        let pages = match past > offset {
            true => past.div_ceil(page) - first,
            false => 0,
        };
        Ok(Self { first, pages })
    }

    /// Returns its offset in the file, in bytes.
    pub fn offset(self) -> u64 {
        self.first * page_bytes()
    }

    /// Its bytes, whole pages.
    pub fn bytes(self) -> u64 {
        self.pages * page_bytes()
    }

    /// Cut into pieces of `pages` pages; the last may be shorter.
    ///
    /// # Panics
    /// If `pages` is 0.
    pub fn pieces(self, pages: u64) -> impl Iterator<Item = Self> {
        let count = self.pages.div_ceil(pages);
        (0..count).map(move |index| Self {
            first: self.first + index * pages,
            pages: pages.min(self.pages - index * pages),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_all_of_a_span_in_order(first in 0..1u64 << 40, pages in 0..5000u64, piece in 1..700u64) {
            let span = Span { first, pages };
            let mut next = first;
            for part in span.pieces(piece) {
                prop_assert_eq!(part.first, next);
                prop_assert!((1..=piece).contains(&part.pages));
                next += part.pages;
            }
            prop_assert_eq!(next, first + pages);
        }

        #[test]
        fn every_byte_asked_for_is_in_the_span_and_no_page_past_the_end(
            size in 0..1u64 << 44, offset in 0..1u64 << 45, length in proptest::option::of(0..1u64 << 45),
        ) {
            let file = tempfile::tempfile().unwrap();
            prop_assume!(file.set_len(size).is_ok());
            let span = Span::within(&file, offset, length).unwrap();
            let past = length.map_or(size, |length| (offset + length).min(size));
            if past <= offset {
                prop_assert_eq!(span.pages, 0);
            } else {
                prop_assert!(span.offset() <= offset && offset < span.offset() + page_bytes());
                let end = span.offset() + span.bytes();
                prop_assert!(past <= end && end < past + page_bytes());
            }
        }
    }
}

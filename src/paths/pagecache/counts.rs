//! Counts of a stretch's pages by state; what is not known is not 0.

use std::iter::Sum;
use std::ops::Add;

/// Pages of a stretch of a file, counted by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub pages: u64,
    /// In the page cache.
    pub resident: u64,
    /// Written to, and the disk does not have it yet. `None`: not known, as with all that follows.
    pub dirty: Option<u64>,
    /// On their way to the disk.
    pub writeback: Option<u64>,
    /// Dropped from the cache when memory was short (a dropping on demand is not remembered); of a file in memory
    /// alone: on the swap.
    pub evicted: Option<u64>,
    /// Those in the cache that live in memory alone: there is nothing that they could be written to.
    pub unbacked: Option<u64>,
    /// Used since they were last looked at by the kernel's reclaim.
    pub referenced: Option<u64>,
    /// On the active list: used more than once, and so dropped late.
    pub active: Option<u64>,
}

impl Counts {
    /// Returns the pages in the cache with nothing to be written.
    pub fn clean(self) -> u64 {
        let unclean = self.dirty.unwrap_or(0) + self.writeback.unwrap_or(0);
        self.resident.saturating_sub(unclean)
    }

    /// Returns the pages that are not in the cache.
    pub fn absent(self) -> u64 {
        self.pages.saturating_sub(self.resident)
    }
}

/// A sum is known where both are.
impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let both = |a: Option<u64>, b: Option<u64>| Some(a? + b?);
        Self {
            pages: self.pages + other.pages,
            resident: self.resident + other.resident,
            dirty: both(self.dirty, other.dirty),
            writeback: both(self.writeback, other.writeback),
            evicted: both(self.evicted, other.evicted),
            unbacked: both(self.unbacked, other.unbacked),
            referenced: both(self.referenced, other.referenced),
            active: both(self.active, other.active),
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.reduce(Self::add).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_with_something_unknown_is_unknown() {
        let known = Counts {
            pages: 2,
            resident: 2,
            dirty: Some(1),
            ..Counts::default()
        };
        let unknown = Counts {
            dirty: None,
            ..known
        };
        let sum = |parts: &[Counts]| parts.iter().copied().sum::<Counts>();
        assert_eq!(sum(&[known, known]).dirty, Some(2));
        assert_eq!(sum(&[known, unknown]).dirty, None);
        assert_eq!(sum(&[known, unknown]).resident, 4);
        assert_eq!(sum(&[]), Counts::default());
    }
}

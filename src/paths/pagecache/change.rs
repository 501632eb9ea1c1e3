//! Changes of a file's pages between two looks: hits, misses, write-back and eviction.
//!
//! Pages come and go in between unseen, so all of it is what happened at least.

use std::ops::AddAssign;

use super::{Counts, Look};

/// Pages that changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Came into the cache, and not by being written: misses, or read ahead.
    pub read_in: u64,
    /// Used again, in the cache: hits. Known where the page flags tell it.
    pub hits: Option<u64>,
    /// Became dirty.
    pub dirtied: u64,
    /// Dirty or on their way before, and on the disk now.
    pub written_back: u64,
    /// Left the cache.
    pub dropped: u64,
}

impl Change {
    /// Returns the change from one look to the next; in all where the cells are not the same ones.
    pub fn between(before: &Look, after: &Look) -> Self {
        let same = before.cell == after.cell && before.cells.len() == after.cells.len();
        if !same {
            return Self::of(before.total(), after.total());
        }
        let mut all = Self::default();
        for (number, (before, after)) in before.cells.iter().zip(&after.cells).enumerate() {
            let change = Self::of(*before, *after);
            match number {
                0 => all = change,
                _ => all += change,
            }
        }
        all
    }

    fn of(before: Counts, after: Counts) -> Self {
        let more = |from: u64, to: u64| to.saturating_sub(from);
        let known = |count: Option<u64>| count.unwrap_or(0);
        let came = more(before.resident, after.resident);
        let dropped = more(after.resident, before.resident);
        let unclean = |counts: Counts| known(counts.dirty) + known(counts.writeback);
        let dirtied = more(unclean(before), unclean(after));
        // A page goes up a step each time that it is used: referenced, active, active and referenced.
        let steps = |counts: Counts| Some(counts.referenced? + 2 * counts.active?);
        let hits = steps(before)
            .zip(steps(after))
            .map(|(before, after)| more(before, after).saturating_sub(came));
        Self {
            read_in: came.saturating_sub(dirtied),
            hits,
            dirtied,
            written_back: more(unclean(after), unclean(before)),
            dropped,
        }
    }

    /// Names and numbers, for people.
    pub fn columns(&self) -> [(&'static str, Option<u64>); 5] {
        [
            ("read in (misses)", Some(self.read_in)),
            ("used again (hits)", self.hits),
            ("dirtied", Some(self.dirtied)),
            ("written back", Some(self.written_back)),
            ("dropped", Some(self.dropped)),
        ]
    }
}

impl AddAssign for Change {
    fn add_assign(&mut self, other: Self) {
        self.read_in += other.read_in;
        self.hits = self.hits.zip(other.hits).map(|(a, b)| a + b);
        self.dirtied += other.dirtied;
        self.written_back += other.written_back;
        self.dropped += other.dropped;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Witness;
    use super::*;

    fn counts(resident: u64, dirty: u64, referenced: u64) -> Counts {
        Counts {
            pages: 8,
            resident,
            dirty: Some(dirty),
            writeback: Some(0),
            evicted: None,
            unbacked: Some(0),
            referenced: Some(referenced),
            active: Some(0),
        }
    }

    fn look(cells: &[Counts]) -> Look {
        Look {
            witness: Witness::PageFlags,
            why: Vec::new(),
            cell: 8,
            cells: cells.to_vec(),
        }
    }

    #[test]
    fn what_happens_in_one_cell_does_not_hide_what_happens_in_another() {
        let before = look(&[counts(8, 3, 0), counts(0, 0, 0), counts(4, 0, 1)]);
        let after = look(&[counts(2, 0, 0), counts(6, 0, 6), counts(6, 2, 4)]);
        let change = Change::between(&before, &after);
        assert_eq!(
            change,
            Change {
                read_in: 6,
                hits: Some(1),
                dirtied: 2,
                written_back: 3,
                dropped: 6,
            }
        );
    }

    #[test]
    fn hits_that_cannot_be_seen_are_not_0() {
        let blind = Counts {
            active: None,
            ..counts(8, 0, 0)
        };
        let change = Change::between(&look(&[blind]), &look(&[blind]));
        assert_eq!(change.hits, None);
    }
}

//! I/O virtual addresses, and who has which.
//!
//! The ranges come from the IOMMU's own report (on x86 there is a hole for the interrupt window at
//! `0xfee0_0000`, and the width differs from machine to machine); nothing is assumed about them.

use std::fmt;
use std::ops::RangeInclusive;

/// An address as the device sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Iova(pub u64);

impl fmt::Display for Iova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Iova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Iova({:#x})", self.0)
    }
}

/// Hands out stretches of the valid ranges: lowest first, each aligned as asked.
#[derive(Debug, Clone)]
pub struct IovaAllocator {
    valid: Vec<RangeInclusive<u64>>,
    /// Sorted, apart from each other, each inside one valid range.
    taken: Vec<RangeInclusive<u64>>,
}

impl IovaAllocator {
    /// Over `valid` (inclusive bounds, as VFIO reports them). Address 0 is never handed out: to a
    /// reader of a descriptor it looks like a null pointer.
    pub fn new(valid: impl IntoIterator<Item = RangeInclusive<u64>>) -> Self {
        let mut valid: Vec<_> = valid
            .into_iter()
            .filter(|range| !range.is_empty())
            .collect();
        valid.sort_by_key(|range| *range.start());
        Self {
            valid,
            taken: Vec::new(),
        }
    }

    /// Hands out nothing behind `last` from here on: a device reaches no further.
    ///
    /// # Errors
    /// The end of what is handed out beyond already; nothing is changed then.
    pub fn limit(&mut self, last: Iova) -> Result<(), Iova> {
        if let Some(beyond) = self.taken.iter().find(|taken| *taken.end() > last.0) {
            return Err(Iova(*beyond.end()));
        }
        self.valid.retain(|range| *range.start() <= last.0);
        for range in &mut self.valid {
            *range = *range.start()..=last.0.min(*range.end());
        }
        Ok(())
    }

    /// Takes `len` bytes aligned to `align` (a power of two); `None` where no range has room.
    pub fn alloc(&mut self, len: u64, align: u64) -> Option<Iova> {
        debug_assert!(align.is_power_of_two());
        let past = len.checked_sub(1)?;
        for range in &self.valid {
            let mut start = (*range.start()).max(1).checked_next_multiple_of(align)?;
            loop {
                let end = start.checked_add(past).filter(|end| end <= range.end());
                let Some(end) = end else { break };
                let in_the_way = self
                    .taken
                    .iter()
                    .find(|taken| *taken.start() <= end && start <= *taken.end());
                let Some(taken) = in_the_way else {
                    let place = self.taken.partition_point(|taken| *taken.end() < start);
                    self.taken.insert(place, start..=end);
                    return Some(Iova(start));
                };
                let next = taken.end().checked_add(1);
                match next.and_then(|next| next.checked_next_multiple_of(align)) {
                    Some(next) => start = next,
                    None => break,
                }
            }
        }
        None
    }

    /// Gives back what [`IovaAllocator::alloc`] gave; `false` where nothing begins there.
    pub fn free(&mut self, iova: Iova) -> bool {
        let found = self.taken.iter().position(|taken| *taken.start() == iova.0);
        found.map(|index| self.taken.remove(index)).is_some()
    }

    /// The valid ranges, for people.
    pub fn ranges(&self) -> String {
        let text: Vec<_> = self
            .valid
            .iter()
            .map(|range| format!("{:#x}..={:#x}", range.start(), range.end()))
            .collect();
        text.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_first_and_aligned() {
        let mut iovas = IovaAllocator::new([0x0..=0xffff, 0x20000..=0x5ffff]);
        assert_eq!(iovas.alloc(0x1000, 0x1000), Some(Iova(0x1000)));
        assert_eq!(iovas.alloc(0x8000, 0x8000), Some(Iova(0x8000)));
        assert_eq!(iovas.alloc(0x1000, 0x1000), Some(Iova(0x2000)));
        assert_eq!(iovas.alloc(0x20000, 0x20000), Some(Iova(0x20000)));
        assert!(iovas.free(Iova(0x1000)));
        assert!(!iovas.free(Iova(0x1000)));
        assert_eq!(iovas.alloc(0x1000, 0x1000), Some(Iova(0x1000)));
        assert_eq!(iovas.alloc(0x40000, 0x1000), None);
        assert_eq!(iovas.alloc(0, 0x1000), None);
    }

    #[test]
    fn nothing_is_handed_out_behind_a_limit() {
        let mut iovas = IovaAllocator::new([0x0..=0xffff, 0x20000..=0x5ffff]);
        assert_eq!(iovas.alloc(0x8000, 0x8000), Some(Iova(0x8000)));
        assert_eq!(iovas.limit(Iova(0xfffe)), Err(Iova(0xffff)));
        iovas.limit(Iova(0x2ffff)).unwrap();
        assert_eq!(iovas.ranges(), "0x0..=0xffff, 0x20000..=0x2ffff");
        assert_eq!(iovas.alloc(0x10001, 0x1000), None);
        assert_eq!(iovas.alloc(0x10000, 0x1000), Some(Iova(0x20000)));
        // A wider one takes nothing back.
        iovas.limit(Iova(u64::MAX)).unwrap();
        assert_eq!(iovas.alloc(0x10000, 0x1000), None);
    }

    #[test]
    fn the_last_byte_of_the_address_space_is_usable() {
        let mut iovas = IovaAllocator::new([u64::MAX - 0x1fff..=u64::MAX]);
        assert!(iovas.alloc(0x1000, 0x1000).is_some());
        assert_eq!(iovas.alloc(0x1000, 0x1000), Some(Iova(u64::MAX - 0xfff)));
        assert_eq!(iovas.alloc(0x1000, 0x1000), None);
    }
}

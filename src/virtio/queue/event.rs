//! Event suppression by index (VIRTIO_F_EVENT_IDX): whether the other side wants to be told.
//!
//! Each side writes the place at which it wants to hear of the other's progress, and whoever passes
//! that place tells it. The indices wrap, and "passes" must stay right where they do.

/// A split ring's index went from `old` to `new`; the other side asked for the entry at `event`
/// (virtio 1.2, §2.7.7 and §2.7.10). Was that one of those just written?
///
/// Right for up to 65535 entries at once; a ring has at most 32768.
#[inline]
pub fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// A packed ring's `count` descriptors from `old` on were written; the other side asked for the one
/// at `event` (§2.8.10). Both are an offset in bits 0 to 14 and a wrap counter in bit 15; the ring
/// has `size` descriptors, and `count` is at most that. Was it one of them?
///
/// An offset beyond the ring is answered with yes: to be told once too often harms nobody.
#[inline]
pub fn need_event_packed(event: u16, old: u16, count: u16, size: u16) -> bool {
    let (size, offset) = (u32::from(size), u32::from(event & OFFSET));
    if offset >= size {
        return true;
    }
    // Two laps, one for each value of the wrap counter, make a round on which every place is once.
    let lap = |at: u16| if at & WRAP != 0 { 0 } else { size };
    // Both are at most 16 bits of 32.
    let place = |at: u16| u32::from(at & OFFSET).wrapping_add(lap(at));
    let (event, old) = (place(event), place(old));
    let round = size.wrapping_mul(2);
    let ahead = match event.checked_sub(old) {
        Some(ahead) => ahead,
        None => event.wrapping_add(round).wrapping_sub(old),
    };
    ahead < u32::from(count)
}

/// The offset in a packed ring's event word, §2.8.14.
pub(super) const OFFSET: u16 = 0x7fff;
/// The wrap counter in it.
pub(super) const WRAP: u16 = 0x8000;

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The specification's words: "if the idx field (which determined where that descriptor index
    /// was placed) was equal to the event", for each entry written.
    fn by_the_book(event: u16, old: u16, count: u16) -> bool {
        (0..count).any(|nth| old.wrapping_add(nth) == event)
    }

    #[test]
    fn need_event_is_the_specifications_for_all_differences_at_the_edges() {
        let edges = [0u16, 1, 2, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff];
        for old in edges {
            for count in [0u16, 1, 2, 3, 255, 256, 0x7fff, 0x8000] {
                let new = old.wrapping_add(count);
                // `by_the_book` for all events at once.
                let mut passed = vec![false; 0x1_0000];
                for nth in 0..count {
                    passed[usize::from(old.wrapping_add(nth))] = true;
                }
                for difference in 0..=u16::MAX {
                    let event = old.wrapping_add(difference);
                    assert_eq!(
                        need_event(event, new, old),
                        passed[usize::from(event)],
                        "event {event} old {old} new {new}"
                    );
                }
            }
        }
    }

    /// The same for a packed ring: the wrap counter flips after the last descriptor.
    fn by_the_book_packed(event: u16, old: u16, count: u16, size: u16) -> bool {
        let (mut offset, mut wrap) = (old & OFFSET, old & WRAP);
        (0..count).any(|_| {
            let here = offset | wrap;
            offset += 1;
            if offset == size {
                (offset, wrap) = (0, wrap ^ WRAP);
            }
            here == event
        })
    }

    #[test]
    fn need_event_packed_is_the_specifications_for_all_places_of_small_rings() {
        for size in 1..=9u16 {
            let places = || (0..size).flat_map(|offset| [offset, offset | WRAP]);
            for (old, event) in places().flat_map(|old| places().map(move |event| (old, event))) {
                for count in 0..=size {
                    assert_eq!(
                        need_event_packed(event, old, count, size),
                        by_the_book_packed(event, old, count, size),
                        "event {event:#x} old {old:#x} count {count} size {size}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_event_beyond_the_ring_is_told_once_too_often() {
        assert!(need_event_packed(5, WRAP, 1, 5));
        assert!(need_event_packed(0xffff, 0, 0, 32767));
    }

    proptest! {
        #[test]
        fn need_event_is_the_specifications(event: u16, old: u16, count in 0..=0x8000u16) {
            prop_assert_eq!(
                need_event(event, old.wrapping_add(count), old),
                by_the_book(event, old, count)
            );
        }

        #[test]
        fn need_event_packed_is_the_specifications(
            size in 1..=0x8000u16, event: u16, old: u16, count: u16,
        ) {
            let place = |word: u16| ((word & OFFSET) % size) | (word & WRAP);
            let (event, old, count) = (place(event), place(old), count % (size + 1));
            prop_assert_eq!(
                need_event_packed(event, old, count, size),
                by_the_book_packed(event, old, count, size)
            );
        }
    }
}

//! The parts of a virtqueue beside its descriptors: the available and the used ring of a split one, the wrap counters
//! and event words of a packed one (virtio 1.2, §2.7 and §2.8).

use std::fmt::Write;

use super::paint::{Ink, Paint};
use super::strip::{Stage, strip};
use crate::inspect::{PackedIndices, SplitIndices};

/// The available and the used ring, each with its index.
pub fn split(text: &mut String, indices: &SplitIndices, paint: Paint) {
    let n = indices.avail.len();
    let devices = indices.avail_idx.wrapping_sub(indices.used_idx);
    let to_take = indices.used_idx.wrapping_sub(indices.taken_idx);
    if usize::from(devices) > n || usize::from(to_take) > n {
        let alarm = format!(
            "available idx {}, used idx {}, taken back {}: further apart than the ring is long: do not believe it",
            indices.avail_idx, indices.used_idx, indices.taken_idx
        );
        let _ = writeln!(
            text,
            "  {}",
            paint.ink(Ink::Alarm, &paint.fold(&alarm, 2, 4))
        );
        return;
    }
    let what = format!(
        "  at IOVA {}, written by the driver: idx={}{} used_event={}",
        indices.avail_iova,
        indices.avail_idx,
        flag(indices.avail_flags, "NO_INTERRUPT"),
        indices.used_event
    );
    let _ = writeln!(text, "\n{}\n", paint.titled("available ring", &what, 0));
    let cells = cells(n, indices.used_idx, devices, Stage::Device);
    let arrow = (
        at(indices.avail_idx, n),
        format!("idx {}", indices.avail_idx),
    );
    strip(text, &cells, &[arrow], paint);
    let newest = entries(n, indices.avail_idx, devices, |slot| {
        indices.avail[slot].to_string()
    });
    sentence(
        text,
        &format!(
            "{devices} made available and not used yet{newest}: chains, by their first descriptor"
        ),
        paint,
    );
    sentence(
        text,
        &format!(
            "the driver wants an interrupt when the used idx moves past {}, {} from where it is",
            indices.used_event,
            indices.used_event.wrapping_sub(indices.used_idx)
        ),
        paint,
    );

    let what = format!(
        "  at IOVA {}, written by the device: idx={}{} avail_event={}",
        indices.used_iova,
        indices.used_idx,
        flag(indices.used_flags, "NO_NOTIFY"),
        indices.avail_event
    );
    let _ = writeln!(text, "\n{}\n", paint.titled("used ring", &what, 0));
    let cells = self::cells(n, indices.taken_idx, to_take, Stage::Done);
    let (idx, taken) = (indices.used_idx, indices.taken_idx);
    let arrows = match idx == taken {
        true => vec![(at(idx, n), format!("idx = taken back = {idx}"))],
        false => vec![
            (at(taken, n), format!("taken back {taken}")),
            (at(idx, n), format!("idx {idx}")),
        ],
    };
    strip(text, &cells, &arrows, paint);
    let newest = entries(n, idx, to_take, |slot| {
        let (id, written) = indices.used[slot];
        format!("{id} ({written} bytes)")
    });
    sentence(
        text,
        &format!("{to_take} used and not taken back yet{newest}"),
        paint,
    );
    sentence(
        text,
        &format!(
            "the device wants a notification when the available idx moves past {}, {} from where it is",
            indices.avail_event,
            indices.avail_event.wrapping_sub(indices.avail_idx)
        ),
        paint,
    );
}

/// A sentence beneath a strip.
fn sentence(text: &mut String, words: &str, paint: Paint) {
    let _ = writeln!(text, "  {}", paint.fold(words, 2, 4));
}

/// Place of an index in a ring of `n`.
fn at(idx: u16, n: usize) -> usize {
    usize::from(idx) % n.max(1)
}

/// A ring of `n` in which the `count` entries from `first` on count.
fn cells(n: usize, first: u16, count: u16, stage: Stage) -> Vec<Stage> {
    let mut cells = vec![Stage::Free; n];
    for past in 0..count {
        cells[at(first.wrapping_add(past), n)] = stage;
    }
    cells
}

/// Entries shown of a ring.
const ENTRIES: u16 = 4;

/// The newest of the `count` entries up to `idx`.
fn entries(n: usize, idx: u16, count: u16, entry: impl Fn(usize) -> String) -> String {
    let shown = count.min(ENTRIES);
    if shown == 0 {
        return String::new();
    }
    let words: Vec<_> = (0..shown)
        .rev()
        .map(|past| entry(at(idx.wrapping_sub(past + 1), n)))
        .collect();
    let which = if count > shown { ", the newest" } else { "" };
    format!("{which} [{}]", words.join(", "))
}

/// The only flag there is, or the number where others are set.
fn flag(flags: u16, name: &str) -> String {
    match flags {
        0 => String::new(),
        1 => format!(" flags={name}"),
        other => format!(" flags={other:#x}"),
    }
}

/// The places at which both sides go on.
pub fn arrows(indices: &PackedIndices) -> Vec<(usize, String)> {
    let (avail, used) = (indices.next_avail, indices.next_used);
    match avail == used {
        true => vec![(avail.into(), format!("next = {avail}"))],
        false => vec![
            (used.into(), format!("next used {used}")),
            (avail.into(), format!("next available {avail}")),
        ],
    }
}

/// Wrap counters and event words.
pub fn packed(text: &mut String, indices: &PackedIndices, paint: Paint) {
    let (avail, used) = (u8::from(indices.avail_wrap), u8::from(indices.used_wrap));
    let _ = writeln!(
        text,
        "  the driver makes available with AVAIL={avail} USED={}: its wrap counter is {avail}",
        1 - avail
    );
    let _ = writeln!(
        text,
        "  the next that is used will have AVAIL={used} USED={used}: the device's wrap counter is {used}"
    );
    let sides = [
        (
            "driver event",
            indices.driver_event_iova,
            indices.driver_event,
            "the driver wants",
            "interrupt",
        ),
        (
            "device event",
            indices.device_event_iova,
            indices.device_event,
            "the device wants",
            "notification",
        ),
    ];
    for (name, iova, words, who, what) in sides {
        let event = format!(" at IOVA {iova}: {}", event(words, who, what));
        let _ = writeln!(text, "  {}", paint.titled(name, &event, 2));
    }
}

/// An event suppression structure (§2.8.14) in words.
fn event([place, flags]: [u16; 2], who: &str, what: &str) -> String {
    match flags & 3 {
        0 => format!("ENABLE, {who} every {what}"),
        1 => format!("DISABLE, {who} no {what}"),
        2 => format!(
            "DESC, {who} one {what}, when descriptor {} is passed with wrap counter {}",
            place & 0x7fff,
            place >> 15
        ),
        _ => format!("flags={flags:#x}, which is reserved"),
    }
}

#[cfg(test)]
mod tests {
    use crate::dma::Iova;

    use super::*;

    const PLAIN: Paint = Paint {
        colour: false,
        width: 80,
    };

    fn indices() -> SplitIndices {
        SplitIndices {
            avail_iova: Iova(0x3000),
            avail_flags: 1,
            avail_idx: 0x0002,
            avail: (0..16).collect(),
            used_event: 0xffff,
            used_iova: Iova(0x4000),
            used_flags: 0,
            used_idx: 0xffff,
            used: (0..16).map(|id| (id, 60)).collect(),
            avail_event: 1,
            taken_idx: 0xfffd,
        }
    }

    #[test]
    fn both_rings_of_a_split_queue_are_seen_across_the_wrap_of_their_indices() {
        let mut text = String::new();
        split(&mut text, &indices(), PLAIN);
        let expected = "
available ring  at IOVA 0x3000, written by the driver: idx=2 flags=NO_INTERRUPT
  used_event=65535

╭▸ 0 DD······ ·······D                ╮
│      ▲ idx 2                        │
╰────── after 15 comes 0 again ───────╯
  3 made available and not used yet [15, 0, 1]: chains, by their first
    descriptor
  the driver wants an interrupt when the used idx moves past 65535, 0 from where
    it is

used ring  at IOVA 0x4000, written by the device: idx=65535 avail_event=1

╭▸ 0 ········ ·····✓✓·                ╮
│                  ▲ ▲ idx 65535      │
│                  ╰ taken back 65533 │
╰────── after 15 comes 0 again ───────╯
  2 used and not taken back yet [13 (60 bytes), 14 (60 bytes)]
  the device wants a notification when the available idx moves past 1, 65535
    from where it is
";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_index_that_ran_away_is_said_and_not_drawn() {
        let mut text = String::new();
        let lie = SplitIndices {
            used_idx: 0x8000,
            ..indices()
        };
        split(&mut text, &lie, PLAIN);
        assert!(text.contains("do not believe it"), "{text}");
        assert!(!text.contains('▲'), "{text}");
    }

    #[test]
    fn the_event_words_of_a_packed_queue_are_said() {
        let mut text = String::new();
        let indices = PackedIndices {
            next_avail: 5,
            avail_wrap: false,
            next_used: 250,
            used_wrap: true,
            driver_event_iova: Iova(0x5000),
            driver_event: [0x80fa, 2],
            device_event_iova: Iova(0x5004),
            device_event: [0, 1],
        };
        let wide = Paint {
            width: 160,
            ..PLAIN
        };
        packed(&mut text, &indices, wide);
        for line in [
            "with AVAIL=0 USED=1: its wrap counter is 0",
            "will have AVAIL=1 USED=1: the device's wrap counter is 1",
            "driver event at IOVA 0x5000: DESC, the driver wants one interrupt, when descriptor 250 is passed with wrap counter 1",
            "device event at IOVA 0x5004: DISABLE, the device wants no notification",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert_eq!(arrows(&indices).len(), 2);
    }
}

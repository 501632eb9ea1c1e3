//! A ring for people: a strip of cells that closes on itself, one a descriptor, with head and tail
//! beneath, and then the descriptors one by one.

use std::fmt::Write;

use comfy_table::{Cell, Row};

use super::paint::{Ink, Paint};
use super::strip::{Stage, legend, strip};
use super::virtqueue;
use crate::inspect::{RingIndices, RingView, SlotView};

/// Columns from which on the descriptors' own addresses are shown, too.
const WIDE: u16 = 110;

/// The ring as text.
pub fn draw(ring: &RingView, all: bool, paint: Paint) -> String {
    let n = ring.slots.len();
    let first = ring.slots.first().map_or(0, |slot| slot.iova.0);
    let which = match ring.pair {
        0 => String::new(),
        pair => format!(" {pair}"),
    };
    let kind = match &ring.indices {
        RingIndices::Registers { .. } => "ring",
        RingIndices::Own { .. } => "ring, with OWN bits,",
        RingIndices::Phase { .. } => "queue, with phase tags,",
        RingIndices::Split(_) => "virtqueue, split,",
        RingIndices::Packed(_) => "virtqueue, packed,",
    };
    let title = format!("{}{which} {kind}", ring.name);
    let what = format!(
        "  {n} descriptors at IOVA {first:#x}, here at {:#x}",
        ring.address
    );
    let mut text = paint.titled(&title, &what, 0) + "\n\n";
    let stages: Vec<Stage> = ring.slots.iter().map(Stage::of).collect();
    match &ring.indices {
        RingIndices::Registers { head, tail } => {
            strip(&mut text, &stages, &head_and_tail(*head, *tail), paint);
            legend(&mut text, ring, paint);
            let _ = writeln!(text, "  {}", story(ring, *head, *tail, paint));
        }
        RingIndices::Own { next, oldest } => {
            strip(&mut text, &stages, &next_and_oldest(*next, *oldest), paint);
            legend(&mut text, ring, paint);
            let _ = writeln!(text, "  {}", own_story(ring, *next, *oldest));
        }
        RingIndices::Phase { head, phase } => {
            let arrow = (*head as usize, format!("head {head}"));
            strip(&mut text, &stages, &[arrow], paint);
            legend(&mut text, ring, paint);
            let new = u8::from(*phase);
            let _ = writeln!(
                text,
                "  an entry from {head} on with the phase tag {new} is new"
            );
        }
        RingIndices::Split(indices) => {
            strip(&mut text, &stages, &[], paint);
            legend(&mut text, ring, paint);
            virtqueue::split(&mut text, indices, paint);
        }
        RingIndices::Packed(indices) => {
            strip(&mut text, &stages, &virtqueue::arrows(indices), paint);
            legend(&mut text, ring, paint);
            virtqueue::packed(&mut text, indices, paint);
        }
    }
    text.push('\n');
    descriptors(&mut text, ring, all, paint);
    text
}

fn head_and_tail(head: u32, tail: u32) -> Vec<(usize, String)> {
    match head == tail {
        true => vec![(head as usize, format!("head = tail = {head}"))],
        false => vec![
            (head as usize, format!("head {head}")),
            (tail as usize, format!("tail {tail}")),
        ],
    }
}

fn next_and_oldest(next: u32, oldest: u32) -> Vec<(usize, String)> {
    match next == oldest {
        true => vec![(next as usize, format!("next = oldest = {next}"))],
        false => vec![
            (oldest as usize, format!("oldest {oldest}")),
            (next as usize, format!("next {next}")),
        ],
    }
}

/// The meaning of a driver's own places, in a sentence.
fn own_story(ring: &RingView, next: u32, oldest: u32) -> String {
    let is_posted = |slot: &SlotView| Stage::of(slot) != Stage::Free;
    match ring.slots.iter().filter(|slot| is_posted(slot)).count() {
        0 => format!("the driver posts {next} next: the device has no descriptor"),
        posted if posted == ring.slots.len() => {
            format!("all are posted: the driver waits for the device to clear OWN of {oldest}")
        }
        _ => format!(
            "the driver waits for the device to clear OWN of {oldest}, and posts {next} next"
        ),
    }
}

/// The meaning of head and tail, in a sentence.
fn story(ring: &RingView, head: u32, tail: u32, paint: Paint) -> String {
    let n = ring.slots.len() as u32;
    if head >= n || tail >= n {
        let text = format!("head {head} or tail {tail} is outside of the ring: do not believe it");
        return paint.ink(Ink::Alarm, &text);
    }
    let last = (tail + n - 1) % n;
    let posted = ring
        .slots
        .iter()
        .filter(|slot| Stage::of(slot) == Stage::Posted)
        .count();
    match (ring.name, head == tail) {
        ("receive", true) => "head = tail: no buffer is left for the device to fill".to_owned(),
        ("receive", false) => {
            format!("the device fills {head} next, and so on up to {last}, one before the tail")
        }
        (_, true) if posted > 0 => {
            format!("head = tail: the device will take {posted} once the tail has moved past them")
        }
        (_, true) => format!(
            "head = tail: nothing is left for the device to take; the next frame goes to {tail}"
        ),
        (_, false) => {
            format!("the device takes {head} next, and so on up to {last}, one before the tail")
        }
    }
}

fn descriptors(text: &mut String, ring: &RingView, all: bool, paint: Paint) {
    let wide = paint.width >= WIDE;
    let mut header = vec!["slot", "owner", "buffer IOVA", "here", "descriptor"];
    if wide {
        header.insert(2, "its own IOVA");
    }
    let mut table = paint.table(&header);
    let mut index = 0;
    let alike = match ring.indices {
        RingIndices::Registers { .. } => same_word,
        RingIndices::Own { .. }
        | RingIndices::Phase { .. }
        | RingIndices::Split(_)
        | RingIndices::Packed(_) => same_fields,
    };
    for run in ring.slots.chunk_by(|a, b| !all && alike(a, b)) {
        let row = row(run, index, wide);
        table.add_row(row);
        index += run.len();
    }
    let _ = writeln!(text, "{}", table.trim_fmt());
}

/// Returns whether two descriptors differ in their addresses only.
fn same_word(a: &SlotView, b: &SlotView) -> bool {
    a.words.get(1..) == b.words.get(1..) && same_fields(a, b)
}

/// The same of those of a virtqueue, whose ids differ, too; and nobody cares what is left in free ones.
fn same_fields(a: &SlotView, b: &SlotView) -> bool {
    let length = |slot: &SlotView| slot.buffer.map(|(_, _, length)| length);
    let stage = Stage::of(a);
    let fields = |slot| fields(slot, &["iova=", "addr=", "id="]);
    stage == Stage::of(b)
        && length(a) == length(b)
        && (fields(a) == fields(b) || (stage == Stage::Free && a.text.starts_with("addr=")))
}

/// The fields, without the address that has a column of its own.
fn decoded(slot: &SlotView) -> String {
    if slot.words.iter().all(|word| *word == 0) {
        return "all zero: not used yet".to_owned();
    }
    fields(slot, &["iova=", "addr="])
}

fn fields(slot: &SlotView, without: &[&str]) -> String {
    let is_left_out = |field: &&str| !without.iter().any(|name| field.starts_with(name));
    let fields = slot.text.split(' ').filter(is_left_out);
    fields.collect::<Vec<_>>().join(" ")
}

fn row(run: &[SlotView], index: usize, wide: bool) -> Row {
    let slot = &run[0];
    let (range, more) = match run.len() {
        1 => (format!("{index}"), ""),
        count => (format!("{index}–{}", index + count - 1), " …"),
    };
    let stage = Stage::of(slot);
    let owner = format!("{} {}", stage.letter(), stage.name());
    let mut cells = vec![Cell::new(format!("{range:>5}")), stage.ink().cell(owner)];
    if wide {
        cells.push(Ink::Quiet.cell(format!("{:#x}{more}", slot.iova.0)));
    }
    match slot.buffer {
        Some((iova, address, _)) => {
            cells.push(Cell::new(format!("{:#x}{more}", iova.0)));
            cells.push(Ink::Quiet.cell(format!("{address:#x}{more}")));
        }
        None => cells.extend(["–", ""].map(|text| Ink::Quiet.cell(text))),
    }
    cells.push(match stage {
        Stage::Free => Ink::Quiet.cell(decoded(slot)),
        _ => Cell::new(decoded(slot)),
    });
    Row::from(cells)
}

#[cfg(test)]
mod tests {
    use crate::dma::Iova;
    use crate::inspect::Owner;

    use super::*;

    const PLAIN: Paint = Paint {
        colour: false,
        width: 80,
    };

    /// `stages`, one letter a descriptor.
    fn ring(name: &'static str, stages: &str, head: u32, tail: u32) -> RingView {
        let slots = stages.chars().enumerate().map(|(index, letter)| {
            let iova = 0x10_0000 + index as u64 * 0x800;
            SlotView {
                iova: Iova(0x2000 + index as u64 * 16),
                words: if letter == '·' {
                    vec![0, 0]
                } else {
                    vec![iova, 60]
                },
                text: format!("legacy iova={iova:#x} length=60"),
                owner: match letter {
                    'D' => Owner::Device,
                    '✓' => Owner::Done,
                    _ => Owner::Driver,
                },
                buffer: (letter != '·').then_some((Iova(iova), 0x7000_0000 + index, 60)),
            }
        });
        RingView {
            name,
            pair: 0,
            address: 0x7f00_0000_2000,
            indices: RingIndices::Registers { head, tail },
            slots: slots.collect(),
        }
    }

    #[test]
    fn a_transmit_ring_is_seen() {
        let ring = ring("transmit", "✓✓✓✓✓✓✓✓✓✓DDDDDpp·······", 10, 15);
        let expected = "\
transmit ring  24 descriptors at IOVA 0x2000, here at 0x7f0000002000

╭▸ 0 ✓✓✓✓✓✓✓✓ ✓✓DDDDDp p·······       ╮
│       head 10 ▲    ▲ tail 15        │
╰────── after 23 comes 0 again ───────╯
  ·     7  the driver's: free for the next frame
  p     2  the driver's: filled, but the tail has not moved past it yet
  D     5  the device's: in flight
  ✓    10  the device is through with it: to be taken back by the driver
  the device takes 10 next, and so on up to 14, one before the tail

 slot   owner     buffer IOVA  here          descriptor
   0–9  ✓ done    0x100000 …   0x70000000 …  legacy length=60
 10–14  D device  0x105000 …   0x7000000a …  legacy length=60
 15–16  p posted  0x107800 …   0x7000000f …  legacy length=60
 17–23  · driver  –                          all zero: not used yet
";
        assert_eq!(draw(&ring, false, PLAIN), expected);
    }

    #[test]
    fn a_ring_longer_than_the_terminal_goes_on_below() {
        let ring = ring("receive", &"D".repeat(128), 3, 127);
        let text = draw(&ring, false, PLAIN);
        let row = ["DDDDDDDD"; 8].join(" ");
        assert!(text.contains(&format!("╭▸  0 {row}\n│        ▲ head 3\n│  64 {row} ╮\n")));
        assert!(text.contains("tail 127 ▲ │\n"), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }

    #[test]
    fn a_head_outside_of_the_ring_is_said_and_not_drawn() {
        let ring = ring("transmit", "········", 4096, 0);
        let text = draw(&ring, false, PLAIN);
        assert!(text.contains("head 4096 or tail 0 is outside of the ring"));
        assert!(text.contains("▲ tail 0"));
        assert!(!text.contains("▲ head"));
    }

    #[test]
    fn all_shows_each_descriptor() {
        let ring = ring("receive", "DDDDDDD·", 0, 7);
        let text = draw(&ring, true, PLAIN);
        for index in 0..7 {
            assert!(text.contains(&format!("{:#x}", 0x10_0000 + index * 0x800)));
        }
    }
}

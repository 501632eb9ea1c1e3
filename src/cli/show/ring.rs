//! A ring for people: a strip of cells that closes on itself, one a descriptor, with head and tail
//! beneath, and then the descriptors one by one.

use std::fmt::Write;

use comfy_table::{Cell, Row};
use pinwire::nic::{Owner, RingView, SlotView};

use super::arrows::{Arrow, under};
use super::paint::{Ink, Paint};

/// Cells between two gaps, so that one can count.
const GROUP: usize = 8;

/// Columns that the labels of a short ring need.
const LABELS: usize = 32;

/// Columns from which on the descriptors' own addresses are shown, too.
const WIDE: u16 = 110;

/// The ring as text.
pub fn draw(ring: &RingView, all: bool, paint: Paint) -> String {
    let n = ring.slots.len();
    let first = ring.slots.first().map_or(0, |slot| slot.iova.0);
    let title = paint.ink(Ink::Title, &format!("{} ring", ring.name));
    let mut text = format!(
        "{title}  {n} descriptors at IOVA {first:#x}, here at {:#x}\n\n",
        ring.address
    );
    strip(&mut text, ring, paint);
    legend(&mut text, ring, paint);
    text.push('\n');
    descriptors(&mut text, ring, all, paint);
    text
}

/// Where a descriptor is on its way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Free,
    Posted,
    Device,
    Done,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Free, Self::Posted, Self::Device, Self::Done];

    fn of(slot: &SlotView) -> Self {
        match (slot.owner, slot.buffer) {
            (Owner::Device, _) => Self::Device,
            (Owner::Done, _) => Self::Done,
            (Owner::Driver, Some(_)) => Self::Posted,
            (Owner::Driver, None) => Self::Free,
        }
    }

    fn letter(self) -> &'static str {
        match self {
            Self::Free => "·",
            Self::Posted => "p",
            Self::Device => "D",
            Self::Done => "✓",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Free => "driver",
            Self::Posted => "posted",
            Self::Device => "device",
            Self::Done => "done",
        }
    }

    fn ink(self) -> Ink {
        match self {
            Self::Free => Ink::Quiet,
            Self::Posted => Ink::Title,
            Self::Device => Ink::Device,
            Self::Done => Ink::Done,
        }
    }

    fn meaning(self, ring: &RingView) -> &'static str {
        match (self, ring.name) {
            (Self::Free, "receive") => "the driver's: without a buffer for the device",
            (Self::Free, _) => "the driver's: free for the next frame",
            (Self::Posted, _) => "the driver's: filled, but the tail has not moved past it yet",
            (Self::Device, "receive") => "the device's: an empty buffer for it to fill",
            (Self::Device, _) => "the device's: in flight",
            (Self::Done, "receive") => "filled by the device: to be taken by the driver",
            (Self::Done, _) => "the device is through with it: to be taken back by the driver",
        }
    }
}

/// Columns of `cells` cells with their gaps.
fn columns(cells: usize) -> usize {
    cells + cells.saturating_sub(1) / GROUP
}

/// Cells in a line: as many groups, by powers of two, as fit beside `margin` columns.
fn cells_in_a_line(n: usize, margin: usize, paint: Paint) -> usize {
    let mut cells = GROUP;
    while cells < n && columns(cells * 2) + margin <= usize::from(paint.width) {
        cells *= 2;
    }
    cells
}

/// ```text
/// ╭▸  0 ✓✓✓✓✓✓✓✓ ✓✓DDDDDD ........
/// │     head 10 ▲         ▲ tail 16
/// │  24 ........ ........ ........ ╮
/// ╰────────── after 47, 0 ─────────╯
/// ```
fn strip(text: &mut String, ring: &RingView, paint: Paint) {
    let n = ring.slots.len();
    let digits = n.to_string().len();
    let cells = cells_in_a_line(n, digits + 5, paint).min(n.max(1));
    let width = columns(cells).max(LABELS);
    let rail = |rail: &str| paint.ink(Ink::Quiet, rail);
    let lines = n.div_ceil(cells);
    for (line, slots) in ring.slots.chunks(cells).enumerate() {
        let (from, last) = (line * cells, line + 1 == lines);
        let left = if line == 0 { "╭▸" } else { "│ " };
        let padding = " ".repeat(width - columns(slots.len()));
        let right = if last { " ╮" } else { "" };
        let _ = writeln!(
            text,
            "{}{} {}{padding}{}",
            rail(left),
            rail(&format!("{from:>digits$}")),
            paint_cells(slots, paint),
            rail(right),
        );
        let right = if last { " │" } else { "" };
        for arrows in under(&arrows(ring, from, slots.len()), width) {
            let arrows = match last {
                true => format!("{arrows:<width$}"),
                false => arrows.trim_end().to_owned(),
            };
            let indent = " ".repeat(digits + 1);
            let _ = writeln!(text, "{}{indent}{arrows}{}", rail("│ "), rail(right));
        }
    }
    let back = format!(" after {} comes 0 again ", n.saturating_sub(1));
    let columns = digits + width + 3;
    let back = format!("╰{back:─^columns$}╯");
    let _ = writeln!(text, "{}", rail(&back));
}

/// The cells of one line; neighbours that are alike share a colour.
fn paint_cells(slots: &[SlotView], paint: Paint) -> String {
    let mut text = String::new();
    let mut before = 0;
    for run in slots.chunk_by(|a, b| Stage::of(a) == Stage::of(b)) {
        let stage = Stage::of(&run[0]);
        let mut cells = String::new();
        for index in before..before + run.len() {
            if index > 0 && index % GROUP == 0 {
                cells.push(' ');
            }
            cells.push_str(stage.letter());
        }
        before += run.len();
        text.push_str(&paint.ink(stage.ink(), &cells));
    }
    text
}

/// Head and tail, where they point into the `count` cells from `from` on.
fn arrows(ring: &RingView, from: usize, count: usize) -> Vec<Arrow> {
    let (head, tail) = (ring.head as usize, ring.tail as usize);
    let named = match head == tail {
        true => vec![(head, format!("head = tail = {head}"))],
        false => vec![
            (head, format!("head {head}")),
            (tail, format!("tail {tail}")),
        ],
    };
    let here = from..from + count;
    let mut arrows: Vec<Arrow> = named
        .into_iter()
        .filter(|(index, _)| here.contains(index))
        .map(|(index, label)| Arrow {
            column: columns(index - from + 1) - 1,
            label,
        })
        .collect();
    arrows.sort_by_key(|arrow| arrow.column);
    arrows
}

fn legend(text: &mut String, ring: &RingView, paint: Paint) {
    for stage in Stage::ALL {
        let is = |slot: &&SlotView| Stage::of(slot) == stage;
        let count = ring.slots.iter().filter(is).count();
        if count > 0 {
            let letter = paint.ink(stage.ink(), stage.letter());
            let meaning = stage.meaning(ring);
            let _ = writeln!(text, "  {letter} {count:>5}  {meaning}");
        }
    }
    let _ = writeln!(text, "  {}", story(ring, paint));
}

/// What head and tail say, in a sentence.
fn story(ring: &RingView, paint: Paint) -> String {
    let n = ring.slots.len() as u32;
    let (head, tail) = (ring.head, ring.tail);
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
    for run in ring.slots.chunk_by(|a, b| !all && alike(a, b)) {
        let row = row(run, index, wide);
        table.add_row(row);
        index += run.len();
    }
    let _ = writeln!(text, "{}", table.trim_fmt());
}

/// Do two descriptors differ in their addresses only?
fn alike(a: &SlotView, b: &SlotView) -> bool {
    let length = |slot: &SlotView| slot.buffer.map(|(_, _, length)| length);
    Stage::of(a) == Stage::of(b)
        && length(a) == length(b)
        && a.words[1] == b.words[1]
        && decoded(a) == decoded(b)
}

/// The fields, without the address that has a column of its own.
fn decoded(slot: &SlotView) -> String {
    if slot.words == [0, 0] {
        return "all zero: not used yet".to_owned();
    }
    let fields = slot
        .text
        .split(' ')
        .filter(|field| !field.starts_with("iova="));
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
    use pinwire::dma::Iova;

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
                words: if letter == '·' { [0, 0] } else { [iova, 60] },
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
            address: 0x7f00_0000_2000,
            head,
            tail,
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

//! A ring as a strip of cells that closes on itself, with arrows beneath, and what the cells mean.

use std::fmt::Write;

use super::arrows::{Arrow, under};
use super::paint::{Ink, Paint};
use crate::inspect::{Owner, RingIndices, RingView, SlotView};

/// Cells between two gaps, so that one can count.
const GROUP: usize = 8;

/// Columns that the labels of a short ring need.
const LABELS: usize = 32;

/// Stage of a descriptor on its way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Free,
    Posted,
    Device,
    Done,
}

impl Stage {
    pub const ALL: [Self; 4] = [Self::Free, Self::Posted, Self::Device, Self::Done];

    pub fn of(slot: &SlotView) -> Self {
        match (slot.owner, slot.buffer) {
            (Owner::Device, _) => Self::Device,
            (Owner::Done, _) => Self::Done,
            (Owner::Driver, Some(_)) => Self::Posted,
            (Owner::Driver, None) => Self::Free,
        }
    }

    pub fn letter(self) -> &'static str {
        match self {
            Self::Free => "·",
            Self::Posted => "p",
            Self::Device => "D",
            Self::Done => "✓",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "driver",
            Self::Posted => "posted",
            Self::Device => "device",
            Self::Done => "done",
        }
    }

    pub fn ink(self) -> Ink {
        match self {
            Self::Free => Ink::Quiet,
            Self::Posted => Ink::Title,
            Self::Device => Ink::Device,
            Self::Done => Ink::Done,
        }
    }

    pub fn meaning(self, ring: &RingView) -> &'static str {
        if self == Self::Posted && !matches!(ring.indices, RingIndices::Registers { .. }) {
            return "the driver's: filled, but not made available yet";
        }
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
pub fn strip(text: &mut String, cells: &[Stage], arrows: &[(usize, String)], paint: Paint) {
    let all = cells;
    let n = all.len();
    let digits = n.to_string().len();
    let cells = cells_in_a_line(n, digits + 5, paint).min(n.max(1));
    let width = columns(cells).max(LABELS);
    let rail = |rail: &str| paint.ink(Ink::Quiet, rail);
    let lines = n.div_ceil(cells);
    for (line, stages) in all.chunks(cells).enumerate() {
        let (from, last) = (line * cells, line + 1 == lines);
        let left = if line == 0 { "╭▸" } else { "│ " };
        let padding = " ".repeat(width - columns(stages.len()));
        let right = if last { " ╮" } else { "" };
        let _ = writeln!(
            text,
            "{}{} {}{padding}{}",
            rail(left),
            rail(&format!("{from:>digits$}")),
            paint_cells(stages, paint),
            rail(right),
        );
        let right = if last { " │" } else { "" };
        for arrows in under(&arrows_in(arrows, from, stages.len()), width) {
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
fn paint_cells(stages: &[Stage], paint: Paint) -> String {
    let mut text = String::new();
    let mut before = 0;
    for run in stages.chunk_by(|a, b| a == b) {
        let stage = run[0];
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

/// The arrows that point into the `count` cells from `from` on.
fn arrows_in(arrows: &[(usize, String)], from: usize, count: usize) -> Vec<Arrow> {
    let here = from..from + count;
    let here = arrows.iter().filter(|(index, _)| here.contains(index));
    let mut arrows: Vec<Arrow> = here
        .map(|(index, label)| Arrow {
            column: columns(index - from + 1) - 1,
            label: label.clone(),
        })
        .collect();
    arrows.sort_by_key(|arrow| arrow.column);
    arrows
}

/// The meaning of a ring's cells, and the number of each kind.
pub fn legend(text: &mut String, ring: &RingView, paint: Paint) {
    for stage in Stage::ALL {
        let is = |slot: &&SlotView| Stage::of(slot) == stage;
        let count = ring.slots.iter().filter(is).count();
        if count > 0 {
            let letter = paint.ink(stage.ink(), stage.letter());
            let meaning = stage.meaning(ring);
            let _ = writeln!(text, "  {letter} {count:>5}  {meaning}");
        }
    }
}

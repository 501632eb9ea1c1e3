//! The map: a cell for each page, or for as many as needed to fit, and what the cells mean.

use std::fmt::Write;

use super::target::Target;
use crate::Error;
use crate::cli::output::{self, grouped};
use crate::paths::pagecache::{Backing, Counts, Look, Span, huge_page, page_bytes};
use crate::scope::text::paint::{Ink, Paint};

/// Lines of the map at most.
pub const MOST_LINES: usize = 16;

/// Cells at most for programs, whatever the terminal.
pub const JSON_CELLS: usize = 1024;

/// Cells between two gaps, so that one can count.
const GROUP: usize = 8;

/// Columns of a line's label and the blank after it.
const MARGIN: usize = 7;

/// The state of a cell, as it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Absent,
    /// Clean pages, in quarters of the cell's, 1 to 4.
    Clean(u8),
    Dirty {
        all: bool,
    },
    WriteBack {
        all: bool,
    },
}

impl Cell {
    fn of(counts: Counts) -> Self {
        let (dirty, writeback) = (counts.dirty.unwrap_or(0), counts.writeback.unwrap_or(0));
        let all = |some| some == counts.pages;
        match counts.resident {
            _ if writeback > 0 => Self::WriteBack {
                all: all(writeback),
            },
            _ if dirty > 0 => Self::Dirty { all: all(dirty) },
            0 => Self::Absent,
            resident => {
                // Full only where all are there.
                let quarters = resident.min(counts.pages) * 4 / counts.pages.max(1);
                Self::Clean(quarters.max(1) as u8)
            }
        }
    }

    fn glyph(self) -> char {
        match self {
            Self::Absent => '·',
            Self::Clean(1) => '░',
            Self::Clean(2) => '▒',
            Self::Clean(3) => '▓',
            Self::Clean(_) => '█',
            Self::Dirty { all: true } => 'D',
            Self::Dirty { all: false } => 'd',
            Self::WriteBack { all: true } => 'W',
            Self::WriteBack { all: false } => 'w',
        }
    }

    fn ink(self) -> Ink {
        match self {
            Self::Absent => Ink::Quiet,
            Self::Clean(_) => Ink::Clean,
            Self::Dirty { .. } => Ink::Dirty,
            Self::WriteBack { .. } => Ink::WriteBack,
        }
    }
}

/// Cells of a line: as many groups, by powers of two, as the terminal has room for.
fn cells_in_a_line(paint: Paint) -> usize {
    let columns = |cells: usize| MARGIN + cells + cells / GROUP - 1;
    let mut cells = GROUP;
    while columns(cells * 2) <= usize::from(paint.width) {
        cells *= 2;
    }
    cells
}

/// A look at `target` as a map of at most `lines` lines, with its legend.
pub fn draw(target: &Target, lines: usize, paint: Paint) -> Result<(String, Look), Error> {
    let line = cells_in_a_line(paint);
    let look = target.look(line * lines.max(1))?;
    let mut text = head(target, &look, paint);
    if !look.cells.is_empty() {
        text.push('\n');
        text += &cells(&look, target.span()?, line, paint);
        text.push('\n');
        text += &legend(target, &look, paint);
    }
    Ok((text, look))
}

/// Returns the line that names the file.
fn head(target: &Target, look: &Look, paint: Paint) -> String {
    let total = look.total();
    let mut text = paint.ink(Ink::Title, &target.path.display().to_string());
    let _ = write!(text, "  {} bytes", grouped(target.bytes()));
    if let Some(filesystem) = &target.filesystem {
        let _ = write!(text, " on {filesystem}");
    }
    if total.pages == 0 {
        let where_from = if target.is_part() { " there" } else { "" };
        let _ = writeln!(text, ": no page{where_from}");
        return text;
    }
    let _ = write!(
        text,
        ": {} of {} bytes",
        output::count(total.pages, "page"),
        page_bytes()
    );
    if target.is_part() {
        text += " of it";
    }
    if let Some(huge) = huge_page(&target.file) {
        let _ = write!(text, ", in huge ones of {} bytes", grouped(huge));
    }
    if look.cell > 1 {
        let _ = write!(text, ", {} a cell", grouped(look.cell));
    }
    text.push('\n');
    text
}

/// The cells, with the place in the file before each line.
fn cells(look: &Look, span: Span, line: usize, paint: Paint) -> String {
    let mut text = String::new();
    let bytes = look.cell * page_bytes();
    for (number, cells) in look.cells.chunks(line).enumerate() {
        let offset = span.offset() + (number * line) as u64 * bytes;
        let label = format!("{:>width$} ", place(offset), width = MARGIN - 1);
        text += &paint.ink(Ink::Quiet, &label);
        for (index, group) in cells.chunks(GROUP).enumerate() {
            if index > 0 {
                text.push(' ');
            }
            let group: Vec<Cell> = group.iter().copied().map(Cell::of).collect();
            for alike in group.chunk_by(|a, b| a.ink() == b.ink()) {
                let glyphs: String = alike.iter().map(|cell| cell.glyph()).collect();
                text += &paint.ink(alike[0].ink(), &glyphs);
            }
        }
        text.push('\n');
    }
    text
}

/// A place in a file: `768K`, exact.
fn place(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let exact = units
        .iter()
        .find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    match exact {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// Returns the legend: what the cells mean, how many pages there are of each kind, and who says so.
fn legend(target: &Target, look: &Look, paint: Paint) -> String {
    let total = look.total();
    let mut text = String::new();
    let mut row = |cell: Cell, count: u64, meaning: &str| {
        let glyph = paint.ink(cell.ink(), &cell.glyph().to_string());
        let _ = writeln!(text, "  {glyph} {:>9}  {meaning}", grouped(count));
    };
    let backing = target.backing(total);
    let clean = match (backing, total.dirty) {
        (Backing::Memory, _) => "in the cache, and nowhere else: this file has no disk",
        (_, None) => "in the cache: a read finds them (hit); dirty or not: not known",
        (Backing::Disk, _) => "in the cache, as on the disk: a read finds them (hit)",
        (Backing::Unknown, _) => "in the cache, and nothing to be written: a read finds them (hit)",
    };
    row(Cell::Clean(4), total.clean(), clean);
    if let Some(dirty) = total.dirty.filter(|dirty| *dirty > 0) {
        let meaning = match backing {
            Backing::Disk => format!("dirty: not on the disk yet; {}", by_time()),
            _ => "dirty: not written back yet".to_owned(),
        };
        row(Cell::Dirty { all: true }, dirty, &meaning);
    }
    if let Some(writeback) = total.writeback.filter(|writeback| *writeback > 0) {
        let meaning = match backing {
            Backing::Disk => "write-back: on their way to the disk",
            _ => "write-back: being written",
        };
        row(Cell::WriteBack { all: true }, writeback, meaning);
    }
    if total.absent() > 0 {
        let meaning = match (backing, total.evicted) {
            (Backing::Memory, Some(0)) => "not there: a hole, zeroes",
            (Backing::Memory, _) => "not there: a hole, zeroes, or on the swap",
            (Backing::Disk, _) => "not in the cache: a read waits for the disk (miss)",
            (Backing::Unknown, _) => "not in the cache: a read waits for the filesystem (miss)",
        };
        row(Cell::Absent, total.absent(), meaning);
    }
    let mut more = |count: Option<u64>, meaning: &str| {
        if let Some(count) = count.filter(|count| *count > 0) {
            let _ = writeln!(text, "    {:>9}  {meaning}", grouped(count));
        }
    };
    more(total.referenced, "of them used lately (referenced)");
    more(
        total.active,
        "of them used more than once, dropped last (active)",
    );
    more(
        total.evicted,
        match backing {
            Backing::Memory => "of the absent ones on the swap",
            _ => "of the absent ones dropped when memory was short (evicted)",
        },
    );
    if look.cell > 1 {
        let _ = writeln!(
            text,
            "  ░▒▓█ some, half, most, all of a cell; d, w: some of it dirty, in write-back"
        );
    }
    let mut quiet = |line: String| {
        let _ = writeln!(text, "{}", paint.ink(Ink::Quiet, &line));
    };
    quiet(format!("  counted by {}", look.witness.name()));
    if backing == Backing::Unknown {
        quiet("  what is behind this filesystem, a disk or not, is not known".to_owned());
    }
    for why in &look.why {
        quiet(format!("  not better: {why}"));
    }
    text
}

/// Returns in words when the kernel writes dirty pages back by itself.
fn by_time() -> String {
    let seconds = |name: &str| -> Option<f64> {
        let text = std::fs::read_to_string(format!("/proc/sys/vm/{name}")).ok()?;
        Some(text.trim().parse::<f64>().ok()? / 100.0)
    };
    let (Some(expire), Some(look)) = (
        seconds("dirty_expire_centisecs"),
        seconds("dirty_writeback_centisecs"),
    ) else {
        return "written later".to_owned();
    };
    match look > 0.0 {
        true => format!("written when {expire} to {} s old", expire + look),
        false => "only a sync writes them".to_owned(), // dirty_writeback_centisecs is 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_are_exact_and_short() {
        let places = [0, 512, 4096, 1 << 20, 3 << 29, 5 << 30, 1 << 45].map(place);
        assert_eq!(places, ["0", "512", "4K", "1M", "1536M", "5G", "32T"]);
    }

    proptest! {
        #[test]
        fn a_cell_is_full_or_empty_only_where_all_its_pages_are(pages in 1..5000u64, resident in 0..5000u64) {
            prop_assume!(resident <= pages);
            let cell = Cell::of(Counts { pages, resident, dirty: Some(0), writeback: Some(0), ..Counts::default() });
            prop_assert_eq!(cell == Cell::Clean(4), resident == pages);
            prop_assert_eq!(cell == Cell::Absent, resident == 0);
        }

        #[test]
        fn a_line_fits_the_terminal(width in 60..400u16) {
            let cells = cells_in_a_line(Paint { colour: false, width });
            prop_assert!(MARGIN + cells + cells / GROUP - 1 <= usize::from(width));
            prop_assert!(MARGIN + 2 * cells + 2 * cells / GROUP > usize::from(width));
        }
    }
}

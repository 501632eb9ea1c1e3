//! The ladder as a picture, fit for a talk: for each rung a bar of processor time, and beside it the
//! way of a payload byte, drawn as in a textbook.

mod bars;
mod ways;

use plotters::prelude::*;

use super::report::{Basis, GIB, MIB, Report};
use super::way::Way;
use crate::cli::figure::short;
use crate::cli::output::grouped;
use crate::cli::picture::{At, Canvas, Drawn, Picture, text};
use crate::lab::ladder::cache::Cache;
use crate::lab::ladder::plan::{Group, Row, State, groups};
use crate::lab::spread::Spread;
use crate::paths::ladder::{Carrier, Kind};

const INK: RGBColor = RGBColor(0x22, 0x2b, 0x38);
const FAINT: RGBColor = RGBColor(0x6b, 0x76, 0x85);
const RULE: RGBColor = RGBColor(0xd9, 0xde, 0xe5);
/// Colour behind the rungs that drive the card.
const OURS: RGBColor = RGBColor(0xee, 0xf5, 0xfb);

const WIDTH: f64 = 1660.0;
const MARGIN: f64 = 44.0;
/// Begin and end of the bars, of the ways, and places of the numbers.
const BARS: (f64, f64) = (304.0, 660.0);
const WAYS: (f64, f64) = (800.0, 1404.0);
const NUMBERS: (f64, f64) = (1500.0, 1600.0);

const HEAD: f64 = 150.0;
const FOOT: f64 = 56.0;
const PANEL_HEAD: f64 = 84.0;
const PANEL_FOOT: f64 = 30.0;

/// Seconds of processor time, in all rounds, from which on its parts are drawn: some fifty looks of the
/// kernel's clock.
const TOLD_APART: f64 = 0.2;

/// The picture of a report.
pub struct Ladder<'a> {
    report: &'a Report,
    panels: Vec<Panel<'a>>,
}

/// Rungs that are put side by side, from either cache.
struct Panel<'a> {
    group: Group,
    lines: Vec<Line<'a>>,
}

/// A rung: a row for each cache.
struct Line<'a> {
    rows: Vec<&'a Row>,
}

impl<'a> Ladder<'a> {
    /// The picture of `report`.
    pub fn of(report: &'a Report) -> Self {
        let mut panels: Vec<Panel<'a>> = Vec::new();
        for group in groups(&report.rows) {
            let same = |panel: &Panel<'_>| {
                (panel.group.kind, panel.group.protocol) == (group.kind, group.protocol)
            };
            if !panels.iter().any(same) {
                let lines = lines(&report.rows, group);
                panels.push(Panel { group, lines });
            }
        }
        Self { report, panels }
    }
}

fn lines(rows: &[Row], group: Group) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    let of = |row: &&Row| (row.rung.kind, row.protocol) == (group.kind, group.protocol);
    for row in rows.iter().filter(of) {
        match lines
            .iter_mut()
            .find(|line| line.rows[0].rung.name == row.rung.name)
        {
            Some(line) => line.rows.push(row),
            None => lines.push(Line { rows: vec![row] }),
        }
    }
    lines
}

impl Line<'_> {
    fn height(&self) -> f64 {
        match self.rows.len() {
            1 => 46.0,
            _ => 56.0,
        }
    }

    /// Returns why there is nothing to be drawn, where that is so.
    fn nothing(&self) -> Option<String> {
        if self.rows.iter().any(|row| !row.runs.is_empty()) {
            return None;
        }
        let (what, why) = match &self.rows[0].state {
            State::Missing(why) => ("not available: ", why.as_str()),
            State::Failed(why) => ("FAILED: ", why.as_str()),
            State::Runs => ("not run", ""),
        };
        let why = why.lines().next().unwrap_or_default();
        let short: String = why.chars().take(110).collect();
        let dots = if short.len() < why.len() { "…" } else { "" };
        Some(format!("{what}{short}{dots}"))
    }
}

impl Panel<'_> {
    fn height(&self) -> f64 {
        let lines: f64 = self.lines.iter().map(Line::height).sum();
        PANEL_HEAD + lines + PANEL_FOOT
    }

    fn title(&self) -> String {
        let over = self.group.protocol;
        match self.group.kind {
            Kind::Send => format!("A file over {over}"),
            Kind::Relay => format!("A {over} stream, passed on to another"),
            Kind::Log => format!("A {over} stream, passed on and written into a log"),
            Kind::Copy => "A file into a file".to_owned(),
        }
    }
}

impl Picture for Ladder<'_> {
    fn size(&self) -> (u32, u32) {
        let panels: f64 = self.panels.iter().map(Panel::height).sum();
        (WIDTH as u32, (HEAD + panels + FOOT).ceil() as u32)
    }

    fn draw<B: DrawingBackend<ErrorType: 'static>>(&self, canvas: &Canvas<'_, B>) -> Drawn {
        self.head(canvas)?;
        let mut y = HEAD;
        for panel in &self.panels {
            self.panel(canvas, panel, y)?;
            y += panel.height();
        }
        self.foot(canvas, y)
    }
}

impl Ladder<'_> {
    fn head<B: DrawingBackend<ErrorType: 'static>>(&self, canvas: &Canvas<'_, B>) -> Drawn {
        let title = text(30.0, INK).bold();
        canvas.text((MARGIN, 46.0), "The zero-copy ladder", title)?;
        let what = format!(
            "Processor time to move 1 GiB, and the way of each byte. {}, Linux {}",
            capital(&self.report.by),
            self.report.kernel
        );
        canvas.text((MARGIN, 82.0), &what, text(15.0, FAINT))?;
        // The legend.
        let y = 114.0;
        let mut x = MARGIN;
        let is_whole = |row: &Row| !row.runs.is_empty() && self.parts(row, 1.0).len() == 1;
        let whole = self.report.rows.iter().any(is_whole).then_some(bars::WHOLE);
        for (colour, name) in bars::PARTS.into_iter().chain(whole) {
            canvas.rounded((x, y - 7.0), (x + 14.0, y + 7.0), 3.0, colour)?;
            canvas.text((x + 22.0, y), name, text(14.0, INK))?;
            x += 44.0 + 7.6 * name.len() as f64;
        }
        canvas.fill((x, y - 1.0), (x + 26.0, y + 1.0), INK)?;
        canvas.text((x + 34.0, y), "least to most", text(14.0, INK))?;
        let mut x = WAYS.0;
        for (by, name) in [
            (Carrier::Cpu, "the processor copies"),
            (Carrier::Dma, "a device moves it (DMA)"),
            (Carrier::Reference, "stays, a reference goes on"),
        ] {
            ways::arrow(canvas, (x, y), x + 36.0, by)?;
            canvas.text((x + 46.0, y), name, text(14.0, INK))?;
            x += 76.0 + 7.6 * name.len() as f64;
        }
        Ok(())
    }

    fn panel<B: DrawingBackend<ErrorType: 'static>>(
        &self,
        canvas: &Canvas<'_, B>,
        panel: &Panel<'_>,
        top: f64,
    ) -> Drawn {
        canvas.text((MARGIN, top + 22.0), &panel.title(), text(20.0, INK).bold())?;
        let y = top + 58.0;
        let caption = match self.report.basis(panel.group) {
            Basis::Machine => "CPU seconds for 1 GiB, whole machine",
            Basis::Process => "CPU seconds for 1 GiB, this process, without interrupts",
        };
        let small = text(12.5, FAINT);
        canvas.text((BARS.0, y), caption, small)?;
        canvas.text((NUMBERS.0, y - 7.0), "copies", small.ending())?;
        canvas.text((NUMBERS.0, y + 8.0), "of a byte", small.ending())?;
        canvas.text((NUMBERS.1, y - 7.0), "mode switches", small.ending())?;
        canvas.text((NUMBERS.1, y + 8.0), "for 1 MiB", small.ending())?;
        let all = panel.lines.iter().flat_map(|line| &line.rows);
        let most = all.filter_map(|row| Some(self.report.cpu(row)?.max));
        let axis = bars::Axis::to(most.fold(0.0, f64::max));
        let (begin, end) = (top + PANEL_HEAD, top + panel.height() - PANEL_FOOT);
        for line in panel.lines.iter().scan(begin, |y, line| {
            let at = *y;
            *y += line.height();
            Some((at, line))
        }) {
            let (y, line) = line;
            if line.rows[0].rung.drives_card() {
                let (from, to) = (
                    (MARGIN - 12.0, y),
                    (WIDTH - MARGIN + 12.0, y + line.height()),
                );
                canvas.fill(from, to, OURS)?;
            }
        }
        axis.draw(canvas, (begin - 4.0, end))?;
        let mut y = begin;
        for line in &panel.lines {
            self.line(canvas, line, (y, y + line.height()), &axis)?;
            y += line.height();
        }
        Ok(())
    }

    fn line<B: DrawingBackend<ErrorType: 'static>>(
        &self,
        canvas: &Canvas<'_, B>,
        line: &Line<'_>,
        (top, bottom): (f64, f64),
        axis: &bars::Axis,
    ) -> Drawn {
        let middle = (top + bottom) / 2.0;
        let rung = line.rows[0].rung;
        canvas.fill((MARGIN, bottom - 0.5), (WIDTH - MARGIN, bottom + 0.5), RULE)?;
        let nothing = line.nothing();
        let colour = if nothing.is_some() { FAINT } else { INK };
        let number = rung.number.to_string();
        canvas.text((MARGIN + 18.0, middle), &number, text(14.0, FAINT).ending())?;
        canvas.text(
            (MARGIN + 30.0, middle),
            rung.name,
            text(15.0, colour).bold(),
        )?;
        if let Some(why) = nothing {
            // No lines of the axis through the words.
            let behind = if rung.drives_card() { OURS } else { WHITE };
            canvas.fill(
                (BARS.0 - 2.0, top + 1.0),
                (BARS.1 + 2.0, bottom - 1.0),
                behind,
            )?;
            return canvas.text((BARS.0, middle), &why, text(14.0, FAINT));
        }
        let bar = if line.rows.len() == 1 { 20.0 } else { 16.0 };
        let mut y = middle - (bar + 4.0) * (line.rows.len() as f64 - 1.0) / 2.0;
        for row in &line.rows {
            if line.rows.len() > 1 {
                let cache = text(11.5, FAINT).ending();
                canvas.text((BARS.0 - 6.0, y), row.cache.name(), cache)?;
            }
            self.bar(canvas, row, (y, bar), axis)?;
            y += bar + 4.0;
        }
        if let Some(way) = self.way(line) {
            ways::draw(canvas, rung.kind, &way, (WAYS.0, WAYS.1), middle)?;
        }
        self.numbers(canvas, line, middle)
    }

    /// The way of a byte as it was seen: of the first cache that was run, with the disk where any run read it.
    fn way(&self, line: &Line<'_>) -> Option<Way> {
        let mut ran = line.rows.iter().filter(|row| !row.runs.is_empty());
        let cold = ran.clone().any(|row| row.cache == Cache::Cold);
        self.report.way(ran.next()?, cold)
    }

    /// `cpu` in parts, each as large as in all rounds together; or as one where the kernel, which finds
    /// out who runs by looking now and then, looked too seldom to tell.
    fn parts(&self, row: &Row, cpu: f64) -> Vec<(f64, RGBColor)> {
        let mut sums = [0.0; 3];
        for run in &row.runs {
            for (sum, part) in sums.iter_mut().zip(self.report.parts(row, run).split) {
                *sum += part.unwrap_or(0.0);
            }
        }
        let all: f64 = sums.iter().sum();
        if all * self.report.len as f64 / GIB < TOLD_APART {
            return vec![(cpu, bars::WHOLE.0)];
        }
        let parts = sums.into_iter().zip(bars::PARTS);
        parts
            .map(|(sum, (colour, _))| (sum / all * cpu, colour))
            .collect()
    }

    fn bar<B: DrawingBackend<ErrorType: 'static>>(
        &self,
        canvas: &Canvas<'_, B>,
        row: &Row,
        (y, height): (f64, f64),
        axis: &bars::Axis,
    ) -> Drawn {
        let Some(cpu) = self.report.cpu(row) else {
            return Ok(());
        };
        let parts = self.parts(row, cpu.median);
        axis.bar(canvas, (y, height), &parts, cpu)?;
        let at: At = (axis.x(cpu.max.max(cpu.median)) + 10.0, y);
        canvas.text(at, &short(cpu.median), text(14.0, INK).bold())?;
        if let Some(of) = self.report.of_first_as_shown(row) {
            let at = (at.0 + 50.0, y);
            canvas.text(at, &format!("× {of:.2}"), text(13.0, FAINT))?;
        }
        Ok(())
    }

    /// Copies and switches, of the first cache.
    fn numbers<B: DrawingBackend<ErrorType: 'static>>(
        &self,
        canvas: &Canvas<'_, B>,
        line: &Line<'_>,
        y: f64,
    ) -> Drawn {
        let Some(row) = line.rows.iter().find(|row| !row.runs.is_empty()) else {
            return Ok(());
        };
        if let Some(copies) = self.report.copies(row) {
            let counted = copies.counted();
            let colour = if counted > 0 { ways::CPU } else { ways::DMA };
            let (at, number) = ((NUMBERS.0, y), counted.to_string());
            canvas.text(at, &number, text(17.0, colour).bold().ending())?;
            // The rung knows of fewer where the kernel was seen to copy on its own.
            if copies.account.round() as usize != counted {
                let account = format!("(account {:.0})", copies.account);
                canvas.text((at.0 - 18.0, y), &account, text(12.0, FAINT).ending())?;
            }
        }
        let calls = row.runs.iter().flat_map(|run| &run.cost.calls);
        let switches = Spread::of(calls.map(|calls| *calls as f64 * 2.0));
        let switches = switches.map(|switches| {
            let each = switches.median / (self.report.len as f64 / MIB);
            match each {
                10.0.. => grouped(each.round() as u64),
                _ => format!("{each:.1}"),
            }
        });
        let switches = switches.unwrap_or("–".to_owned());
        canvas.text((NUMBERS.1, y), &switches, text(15.0, INK).ending())
    }

    fn foot<B: DrawingBackend<ErrorType: 'static>>(&self, canvas: &Canvas<'_, B>, y: f64) -> Drawn {
        let report = self.report;
        let name = std::path::Path::new(&report.path).file_name();
        let name = name.map_or(report.path.clone(), |name| {
            name.to_string_lossy().into_owned()
        });
        let (block, payload) = report.sizes;
        let what = format!(
            "pinwire ladder: {name}, {} bytes; medians of {}; blocks of {} bytes, datagrams of {}",
            grouped(report.len),
            report.of_rounds(),
            grouped(block as u64),
            grouped(payload as u64),
        );
        canvas.text((MARGIN, y + 22.0), &what, text(13.0, FAINT))
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

//! What was measured, for people and for programs.

use comfy_table::{Cell, CellAlignment, LineStyle, Row, Table, TableStyle};
use serde_json::{Value, json};

use super::measure::Run;
use crate::cli::spread::Spread;

/// The row that the others are a share of.
pub const LIMIT: &str = "limit";

/// A line under the header, and one after the last row.
pub const LINES: TableStyle = TableStyle::new()
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// All rounds of one contender with one size.
#[derive(Debug)]
pub struct Line {
    pub size: usize,
    pub what: &'static str,
    pub runs: Vec<Run>,
}

/// All lines.
#[derive(Debug, Default)]
pub struct Report {
    pub lines: Vec<Line>,
    /// What kernel rows are compared with.
    pub ours: &'static str,
}

impl Line {
    /// Frames a second.
    fn rate(&self) -> Spread {
        let none = Spread {
            median: 0.0,
            min: 0.0,
            max: 0.0,
        };
        Spread::of(self.runs.iter().map(Run::rate)).unwrap_or(none)
    }

    /// Frames a second, the middle of the rounds.
    pub fn median(&self) -> f64 {
        self.rate().median
    }

    /// The median, round by round, of what this is of `other`.
    fn compared_with(&self, other: &Self) -> Option<f64> {
        let rounds = self.runs.iter().zip(&other.runs);
        let ratios = rounds.map(|(run, other)| run.rate() / other.rate());
        let median = Spread::of(ratios)?.median;
        median.is_finite().then_some(median)
    }

    fn frames(&self) -> u64 {
        self.runs.iter().map(|run| run.frames).sum()
    }

    fn lost(&self) -> u64 {
        self.runs.iter().map(|run| run.lost).sum()
    }

    fn mbits(&self) -> f64 {
        self.rate().median * self.size as f64 * 8.0 / 1e6
    }
}

impl Report {
    /// The line of `what` with the same size.
    fn line(&self, what: &str, size: usize) -> Option<&Line> {
        let is = |line: &&Line| line.what == what && line.size == size;
        self.lines.iter().find(is)
    }

    fn is_kernel(&self, line: &Line) -> bool {
        line.what.starts_with("AF_PACKET")
    }

    /// Of our own rows: the share of the limit.
    fn share(&self, line: &Line) -> Option<f64> {
        if self.is_kernel(line) {
            return None;
        }
        line.compared_with(self.line(LIMIT, line.size)?)
    }

    /// Of the kernel's rows: how many times as fast ours is.
    fn times(&self, line: &Line) -> Option<f64> {
        if !self.is_kernel(line) {
            return None;
        }
        self.line(self.ours, line.size)?.compared_with(line)
    }

    /// One object a line.
    pub fn json(&self) -> Value {
        let line = |line: &Line| {
            let Spread { median, min, max } = line.rate();
            json!({
                "size": line.size,
                "what": line.what,
                "frames": line.frames(),
                "lost": line.lost(),
                "kpps": { "median": median / 1e3, "min": min / 1e3, "max": max / 1e3 },
                "mbits": line.mbits(),
                "share_of_limit": self.share(line),
                "ours_is_times": self.times(line),
            })
        };
        self.lines.iter().map(line).collect()
    }

    /// A table.
    pub fn table(&self) -> String {
        let lossy = self.lines.iter().any(|line| line.lost() > 0);
        let kernel = self.lines.iter().any(|line| self.is_kernel(line));
        let mut header = vec!["size", "what", "kpps", "min – max", "Mbit/s", "of limit"];
        if kernel {
            header.push("ours is");
        }
        if lossy {
            header.push("lost");
        }
        let mut table = Table::new();
        table.load_style(LINES).set_header(header);
        for (index, line) in self.lines.iter().enumerate() {
            let first = index == 0 || self.lines[index - 1].size != line.size;
            let Spread { median, min, max } = line.rate();
            let or_none = |text: Option<String>| text.unwrap_or_default();
            let mut cells = vec![
                if first {
                    line.size.to_string()
                } else {
                    String::new()
                },
                line.what.to_owned(),
                kilo(median),
                format!("{} – {}", kilo(min), kilo(max)),
                format!("{:.0}", line.mbits()),
                or_none(self.share(line).map(|share| format!("{share:.2}"))),
            ];
            if kernel {
                cells.push(or_none(
                    self.times(line).map(|times| format!("{times:.1} x")),
                ));
            }
            if lossy {
                let all = line.frames() + line.lost();
                let percent = 100.0 * line.lost() as f64 / all.max(1) as f64;
                // Who only sends does not know.
                let known = line.what.starts_with(self.ours);
                cells.push(or_none(known.then(|| format!("{percent:.2} %"))));
            }
            let cells = cells.into_iter().enumerate().map(|(column, text)| {
                let cell = Cell::new(text);
                match column {
                    1 => cell,
                    _ => cell.set_alignment(CellAlignment::Right),
                }
            });
            table.add_row(Row::from(cells.collect::<Vec<_>>()));
        }
        table.trim_fmt()
    }
}

/// Frames a second in thousands.
fn kilo(rate: f64) -> String {
    format!("{:.1}", rate / 1e3)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(what: &'static str, frames: u64, lost: u64) -> Line {
        let run = Run {
            frames,
            lost,
            took: Duration::from_secs(1),
        };
        Line {
            size: 64,
            what,
            runs: vec![run],
        }
    }

    fn report() -> Report {
        Report {
            lines: vec![
                line(LIMIT, 1000, 0),
                line("tx", 800, 0),
                line("AF_PACKET sendto", 40, 0),
            ],
            ours: "tx",
        }
    }

    #[test]
    fn ours_is_a_share_of_the_limit_and_a_multiple_of_the_kernels() {
        let Value::Array(lines) = report().json() else {
            panic!("not an array");
        };
        let of = |key: &str| {
            lines
                .iter()
                .map(|line| line[key].as_f64())
                .collect::<Vec<_>>()
        };
        assert_eq!(of("share_of_limit"), [Some(1.0), Some(0.8), None]);
        assert_eq!(of("ours_is_times"), [None, None, Some(20.0)]);
        assert_eq!(of("mbits"), [Some(0.512), Some(0.4096), Some(0.02048)]);
    }

    #[test]
    fn columns_without_a_value_are_left_out() {
        let mut report = report();
        assert!(report.table().contains("20.0 x"));
        assert!(!report.table().contains("lost"));
        report.lines.pop();
        assert!(!report.table().contains("ours is"));
        report.lines.push(line("tx", 1, 3));
        assert!(report.table().contains("75.00 %"));
    }
}

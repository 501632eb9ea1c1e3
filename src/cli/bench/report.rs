//! Rates that were measured, for people and for programs.
//!
//! A share is the quotient of two medians that stand in the same column, as they are shown there.

use comfy_table::{Cell, CellAlignment, LineStyle, Row, Table, TableStyle};
use serde_json::{Value, json};

use crate::cli::figure::{decimals, quotient, short, six};
use crate::lab::bench::rates::{LIMIT, Line, Rates};
use crate::lab::spread::Spread;

/// A line under the header, and one after the last row.
pub const LINES: TableStyle = TableStyle::new()
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// All lines.
#[derive(Debug, Default)]
pub struct Report {
    pub lines: Vec<Line>,
    /// Name of our own rows, which kernel rows are compared with.
    pub ours: &'static str,
    /// Rounds that were finished, of all sizes.
    pub finished: u64,
    /// True if it ended early: lines may be of different numbers of rounds.
    pub cut_short: bool,
}

/// The form in which figures are divided by one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// As it is shown to people.
    Table,
    /// As programs get it.
    Json,
}

impl Report {
    /// A report of `rates`, whose own rows are called `ours`.
    pub fn of(ours: &'static str, rates: Rates, cut_short: bool) -> Self {
        Self {
            lines: rates.lines,
            ours,
            finished: rates.finished,
            cut_short,
        }
    }

    /// The lines that were measured, if only for one round.
    fn measured(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| !line.runs.is_empty())
    }

    /// Returns whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.measured().next().is_none()
    }

    /// The line of `what` with the same size.
    fn line(&self, what: &str, size: usize) -> Option<&Line> {
        let is = |line: &&Line| line.what == what && line.size == size;
        self.measured().find(is)
    }

    fn is_kernel(&self, line: &Line) -> bool {
        line.what.starts_with("AF_PACKET")
    }

    /// Returns a row's share of the limit; `None` for the kernel's rows.
    fn share(&self, line: &Line, shown: Shown) -> Option<f64> {
        if self.is_kernel(line) {
            return None;
        }
        shown.quotient(line, self.line(LIMIT, line.size)?)
    }

    /// Returns how many times as fast as a kernel's row ours is; `None` for our own rows.
    fn times(&self, line: &Line, shown: Shown) -> Option<f64> {
        if !self.is_kernel(line) {
            return None;
        }
        shown.quotient(self.line(self.ours, line.size)?, line)
    }

    /// One object a line.
    pub fn json(&self) -> Value {
        let line = |line: &Line| {
            let Spread { median, min, max } = line.rate();
            json!({
                "size": line.size,
                "what": line.what,
                "rounds": line.runs.len(),
                "frames": line.frames(),
                "lost": line.lost(),
                "kpps": { "median": whole(median), "min": whole(min), "max": whole(max) },
                "mbits": decimals(mbits(line), 6),
                "share_of_limit": self.share(line, Shown::Json).map(six),
                "ours_is_times": self.times(line, Shown::Json).map(six),
            })
        };
        self.measured().map(line).collect()
    }

    /// A table.
    pub fn table(&self) -> String {
        let lines: Vec<&Line> = self.measured().collect();
        let lossy = lines.iter().any(|line| line.lost() > 0);
        let kernel = lines.iter().any(|line| self.is_kernel(line));
        let limited = lines.iter().any(|line| line.what == LIMIT);
        let mut header = vec!["size", "what", "kpps", "min – max", "Mbit/s"];
        if limited {
            header.push("of limit");
        }
        if kernel {
            header.push("ours is");
        }
        if lossy {
            header.push("lost");
        }
        if self.cut_short {
            header.push("rounds");
        }
        let mut table = Table::new();
        table.load_style(LINES).set_header(header);
        for (index, line) in lines.iter().enumerate() {
            let first = index == 0 || lines[index - 1].size != line.size;
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
                format!("{:.0}", mbits(line)),
            ];
            if limited {
                let share = self.share(line, Shown::Table);
                cells.push(or_none(share.map(|share| format!("{share:.2}"))));
            }
            if kernel {
                let times = self.times(line, Shown::Table);
                cells.push(or_none(times.map(|times| format!("{times:.1} x"))));
            }
            if lossy {
                let all = line.frames() + line.lost();
                let percent = 100.0 * line.lost() as f64 / all.max(1) as f64;
                // Who only sends does not know.
                let known = line.what.starts_with(self.ours);
                cells.push(or_none(known.then(|| format!("{percent:.2} %"))));
            }
            if self.cut_short {
                cells.push(line.runs.len().to_string());
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

impl Shown {
    /// The quotient of two medians.
    fn quotient(self, of: &Line, by: &Line) -> Option<f64> {
        let [of, by] = [of, by].map(|line| match self {
            Self::Table => kilo(line.median()),
            Self::Json => whole(line.median()).to_string(),
        });
        quotient(&of, &by)
    }
}

/// Megabits per second.
fn mbits(line: &Line) -> f64 {
    whole(line.median()) * line.size as f64 * 8.0 / 1e3
}

/// Frames a second in thousands, for people.
fn kilo(rate: f64) -> String {
    match rate / 1e3 {
        kilo @ 10.0.. => format!("{kilo:.1}"),
        kilo => short(kilo),
    }
}

/// The same for programs: whole frames.
fn whole(rate: f64) -> f64 {
    decimals(rate / 1e3, 3)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::bench::measure::Run;

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
            ..Report::of("tx", Rates::default(), false)
        }
    }

    #[test]
    fn a_share_is_the_quotient_of_the_two_figures_that_are_shown() {
        let of = |what, rates: [u64; 3]| Line {
            size: 64,
            what,
            runs: rates
                .map(|frames| Run {
                    frames,
                    lost: 0,
                    took: Duration::from_secs(1),
                })
                .to_vec(),
        };
        // Round by round ours is 0.9 of the limit, 0.5, and all of it; the medians are as 60 to 100.
        let report = Report {
            lines: vec![
                of(LIMIT, [100_000, 120_000, 50_000]),
                of("tx", [90_000, 60_000, 50_000]),
                of("AF_PACKET sendto", [1_234, 9_000, 1_000]),
            ],
            ..Report::of("tx", Rates::default(), false)
        };
        let table = report.table();
        assert!(table.contains("100.0") && table.contains("60.0"), "{table}");
        assert!(table.contains("0.60"), "{table}");
        // As shown: 60.0 by 1.23.
        assert!(table.contains("48.8 x"), "{table}");
        assert_eq!(report.json()[1]["share_of_limit"], 0.6);
        assert_eq!(report.json()[2]["ours_is_times"], 48.6224);
    }

    #[test]
    fn what_was_measured_before_the_end_is_shown_with_its_rounds() {
        let mut report = report();
        report.lines.push(Line {
            size: 128,
            ..line("tx", 1, 0)
        });
        report.lines[3].runs.clear();
        report.lines[1].runs.push(Run::default());
        report.cut_short = true;
        let table = report.table();
        assert!(
            table.contains("rounds") && !table.contains("128"),
            "{table}"
        );
        let rounds: Vec<_> = report.json().as_array().unwrap().clone();
        let rounds: Vec<_> = rounds.iter().map(|line| line["rounds"].clone()).collect();
        assert_eq!(rounds, [1, 2, 1]);
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
        assert!(report.table().contains("of limit"));
        let limit = report.lines.remove(0);
        // A driver that does not measure it.
        assert!(!report.table().contains("of limit"));
        assert!(report.json()[0]["share_of_limit"].is_null());
        report.lines.insert(0, limit);
        report.lines.pop();
        assert!(!report.table().contains("ours is"));
        report.lines.push(line("tx", 1, 3));
        assert!(report.table().contains("75.00 %"));
    }
}

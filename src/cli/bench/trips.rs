//! Round trip times, for people and for programs.

use comfy_table::{Cell, CellAlignment, Row, Table};
use serde_json::{Value, json};

use super::report::LINES;
use crate::cli::figure::{decimals, quotient, six};
use crate::lab::bench::trips::{Figures, RoundTrips, Trips};

/// All of them; kernel rows are compared with the first of the same size.
#[derive(Debug, Default)]
pub struct TripReport {
    pub rows: Vec<Trips>,
    /// Rounds that were finished, of all sizes.
    pub finished: u64,
}

impl TripReport {
    /// A report of these.
    pub fn of(trips: RoundTrips) -> Self {
        Self {
            rows: trips.rows,
            finished: trips.finished,
        }
    }

    /// The rows of which there was a trip at all, if only a lost one.
    fn measured(&self) -> impl Iterator<Item = &Trips> {
        let tried = |trips: &&Trips| !trips.took.is_empty() || trips.lost > 0;
        self.rows.iter().filter(tried)
    }

    /// Returns whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.measured().next().is_none()
    }

    /// Returns how many times as long as ours it took: the quotient of the two medians as they are shown.
    fn times(&self, trips: &Trips, shown: fn(f64) -> String) -> Option<f64> {
        let ours = self.measured().find(|ours| ours.size == trips.size)?;
        if std::ptr::eq(ours, trips) {
            return None;
        }
        let [trips, ours] = [trips, ours].map(|trips| Some(shown(trips.figures()?.median)));
        quotient(&trips?, &ours?)
    }

    /// One object a line.
    pub fn json(&self) -> Value {
        let line = |trips: &Trips| {
            let micros = trips.figures().map(|figures| {
                json!({
                    "min": nanos(figures.min),
                    "median": nanos(figures.median),
                    "p99": nanos(figures.p99),
                    "max": nanos(figures.max),
                })
            });
            json!({
                "size": trips.size,
                "what": trips.what,
                "trips": trips.took.len(),
                "lost": trips.lost,
                "micros": micros,
                "times_polling": self.times(trips, |micros| nanos(micros).to_string()).map(six),
            })
        };
        self.measured().map(line).collect()
    }

    /// A table.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        let header = [
            "size",
            "what",
            "median us",
            "min",
            "p99",
            "max",
            "times polling",
            "trips",
            "lost",
        ];
        table.load_style(LINES).set_header(header);
        for trips in self.measured() {
            let mut cells = vec![trips.size.to_string(), trips.what.to_owned()];
            match trips.figures() {
                Some(Figures {
                    min,
                    median,
                    p99,
                    max,
                }) => {
                    cells.extend([median, min, p99, max].map(tenth));
                }
                None => cells.extend(std::iter::repeat_n(String::new(), 4)),
            }
            let times = self
                .times(trips, tenth)
                .map(|times| format!("{times:.1} x"));
            cells.push(times.unwrap_or_default());
            cells.extend([trips.took.len().to_string(), trips.lost.to_string()]);
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

/// Microseconds for people.
fn tenth(micros: f64) -> String {
    format!("{micros:.1}")
}

/// Microseconds for programs: to the nanosecond, which is what the clock gives.
fn nanos(micros: f64) -> f64 {
    decimals(micros, 3)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn trips(what: &'static str, micros: &[u64]) -> Trips {
        Trips {
            size: 64,
            what,
            took: micros
                .iter()
                .map(|micros| Duration::from_micros(*micros))
                .collect(),
            lost: 0,
        }
    }

    #[test]
    fn the_kernel_is_a_multiple_of_polling() {
        let mut report = TripReport {
            rows: vec![
                trips("poll", &[30, 10, 20]),
                trips("AF_PACKET", &[100, 80, 60]),
                trips("interrupt", &[]),
                trips("never begun", &[]),
            ],
            finished: 1,
        };
        report.rows[2].lost = 1;
        let json = report.json();
        assert_eq!(json[0]["micros"]["median"], 20.0);
        assert_eq!(json[0]["times_polling"], Value::Null);
        assert_eq!(json[1]["times_polling"], 4.0);
        assert_eq!(json[2]["micros"], Value::Null);
        assert!(report.table().contains("4.0 x"));
        assert!(!report.table().contains("never begun"));
    }
}

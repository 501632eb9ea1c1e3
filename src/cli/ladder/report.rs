//! A ladder's measurements, for people: a table for each group.

use std::collections::BTreeSet;

use comfy_table::{Cell, CellAlignment, ColumnConstraint, Row as TableRow, Table, Width};

use super::way::{self, Copies, Way};
use crate::cli::bench::LINES;
use crate::cli::figure::{quotient, short, six};
use crate::cli::output::{count, grouped};
use crate::lab::count::Parts;
use crate::lab::ladder::plan::{Group, Row, Run, State, groups};
use crate::lab::ladder::run::Common;
use crate::lab::ladder::site::Site;
use crate::lab::spread::Spread;
use crate::paths::ladder::Kind;
use crate::{Error, Result};

/// Bytes of a GiB, of a MiB.
pub const GIB: f64 = (1u64 << 30) as f64;
pub const MIB: f64 = (1u64 << 20) as f64;

/// All rows, and what they have in common.
pub struct Report {
    /// Its path.
    pub path: String,
    /// Its bytes.
    pub len: u64,
    /// SHA-256 of them.
    pub sha256: String,
    /// The card or the loopback that it went by, in words.
    pub by: String,
    /// True if all that the machine does is done for us.
    pub whole_machine: bool,
    /// The kernel's release.
    pub kernel: String,
    /// Rounds that were asked for, and that were finished.
    pub rounds: u16,
    pub finished: u16,
    /// True if it was ended before all were.
    pub interrupted: bool,
    /// Bytes of a block, and of a datagram.
    pub sizes: (usize, usize),
    /// The rows: a rung over a protocol from a cache each.
    pub rows: Vec<Row>,
}

/// The processor time that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// This process's.
    Process,
    /// The whole machine's.
    Machine,
}

impl Report {
    /// Makes a report with no rows yet.
    ///
    /// # Errors
    /// If the card is gone.
    pub fn new(common: &Common, site: &Site, rounds: u16) -> Result<Self> {
        Ok(Self {
            path: common.path.display().to_string(),
            len: common.len,
            sha256: common.sha256.clone(),
            by: site.describe()?,
            whole_machine: matches!(site, Site::Card(_)),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            rounds,
            finished: 0,
            interrupted: false,
            sizes: (common.block, common.payload),
            rows: Vec::new(),
        })
    }

    /// Returns the processor time that is compared in `group`: all of the machine's, unless others work there, too,
    /// or it was not counted.
    pub fn basis(&self, group: Group) -> Basis {
        match (self.is_alone(group), self.uncounted_machine()) {
            (true, None) => Basis::Machine,
            _ => Basis::Process,
        }
    }

    /// Returns whether all that the machine does is done for a rung of `group`. Not where a feeder of ours works
    /// there.
    fn is_alone(&self, group: Group) -> bool {
        self.whole_machine && matches!(group.kind, Kind::Send | Kind::Copy)
    }

    /// Returns why the machine's time is not known, where that is so.
    fn uncounted_machine(&self) -> Option<&String> {
        let mut runs = self.rows.iter().flat_map(|row| &row.runs);
        runs.find_map(|run| run.cost.machine.as_ref().err())
    }

    /// Seconds of processor time for a GiB in `run`.
    pub fn parts(&self, row: &Row, run: &Run) -> Parts {
        let parts = match (self.basis(row.group()), &run.cost.machine) {
            (Basis::Machine, Ok(machine)) => Parts::from(machine),
            _ => Parts::from(&run.cost.process),
        };
        parts.times(GIB / self.len as f64)
    }

    /// Seconds of processor time for a GiB, over the rounds.
    pub fn cpu(&self, row: &Row) -> Option<Spread> {
        Spread::of(row.runs.iter().map(|run| self.total(row, run)))
    }

    fn total(&self, row: &Row, run: &Run) -> f64 {
        self.parts(row, run).all
    }

    /// MiB that arrived in a second.
    pub fn rate(&self, row: &Row) -> Option<Spread> {
        let rate = |run: &Run| self.len as f64 / MIB / run.cost.seconds;
        Spread::of(row.runs.iter().map(rate))
    }

    /// Returns the row that others are compared with: the first rung of `row`'s group, where it was run.
    fn first(&self, row: &Row) -> Option<&Row> {
        let first = |of: &&crate::paths::ladder::Rung| of.kind == row.rung.kind;
        let first = crate::paths::ladder::RUNGS.iter().find(first)?;
        let mut of_group = self
            .rows
            .iter()
            .filter(|other| other.group() == row.group());
        of_group.find(|other| other.rung.name == first.name)
    }

    /// Its processor time as a multiple of the first rung's: the quotient of the two medians as `shown`.
    pub fn of_first(&self, row: &Row, shown: fn(f64) -> String) -> Option<f64> {
        let first = self.first(row)?;
        let [row, first] = [row, first].map(|row| Some(shown(self.cpu(row)?.median)));
        quotient(&row?, &first?)
    }

    /// The same for people: of the figures in the table.
    pub fn of_first_as_shown(&self, row: &Row) -> Option<f64> {
        self.of_first(row, short)
    }

    /// The same for programs.
    pub fn of_first_for_programs(&self, row: &Row) -> Option<f64> {
        self.of_first(row, |cpu| six(cpu).to_string()).map(six)
    }

    /// Returns how often each byte was copied, where the rung was run.
    pub fn copies(&self, row: &Row) -> Option<Copies> {
        let times = |bytes: f64| bytes / self.len as f64;
        let account = Spread::of(row.runs.iter().map(|run| run.copied as f64))?;
        Some(Copies {
            account: times(account.median),
            seen: row.seen.as_ref().ok().map(|bytes| times(*bytes as f64)),
        })
    }

    /// The way of a byte in the runs of `row`; `cold` where there are runs of the same from the disk.
    pub fn way(&self, row: &Row, cold: bool) -> Option<Way> {
        let run = way::Run {
            copies: self.copies(row)?,
            by_card: self.whole_machine,
            cold,
        };
        Some(Way::of_run(row.rung, run))
    }

    /// [`Error::Usage`] where a rung failed, or where there is none to be measured.
    ///
    /// # Errors
    /// Then.
    pub fn verdict(&self) -> Result<()> {
        let failed = |row: &&Row| matches!(row.state, State::Failed(_));
        let failed: Vec<_> = self.rows.iter().filter(failed).map(Row::title).collect();
        if !failed.is_empty() {
            return Err(Error::Usage(format!(
                "what these did is in the table, beside their names\n  failed: {}",
                failed.join("; ")
            )));
        }
        match self.rows.iter().all(|row| row.runs.is_empty()) {
            true => Err(Error::Usage(
                "nothing was measured: none of these rungs can be had here, and beside each it says why\n  \
                 name others with --only, or leave it away"
                    .to_owned(),
            )),
            false => Ok(()),
        }
    }

    /// Returns the rounds that the medians are of: `3 rounds`, or how many of those that were to be.
    pub fn of_rounds(&self) -> String {
        match self.is_cut_short() {
            true => format!(
                "what was measured: {} of {} finished",
                self.finished,
                count(self.rounds.into(), "round")
            ),
            false => count(self.rounds.into(), "round"),
        }
    }

    /// Returns whether there are fewer rounds than were asked for.
    fn is_cut_short(&self) -> bool {
        self.finished < self.rounds
    }

    /// The tables, one a group.
    pub fn table(&self) -> String {
        let (block, payload) = self.sizes;
        let hashes = match self.verdict() {
            Ok(()) => "; every hash as it was sent",
            Err(_) => "",
        };
        let early = match self.interrupted {
            true => "interrupted; ",
            false => "",
        };
        let mut text = format!(
            "{}, {} bytes, {}; Linux {}\n{early}medians of {}; blocks of {block} bytes, datagrams of {payload}{hashes}\n",
            self.path,
            grouped(self.len),
            self.by,
            self.kernel,
            self.of_rounds(),
        );
        for group in groups(&self.rows) {
            text += &format!("\n{}\n{}\n", group.title(), self.group_table(group));
        }
        for note in self.notes() {
            text += &format!("\n{note}");
        }
        text
    }

    fn group_table(&self, group: Group) -> String {
        let mut table = Table::new();
        let mut header = vec![
            "",
            "rung",
            "CPU s/GiB",
            "min – max",
            "of first",
            "MiB/s",
            "calls",
            "switches",
            "faults",
            "copied",
            "seen",
        ];
        if self.is_cut_short() {
            header.push("runs");
        }
        let rows = self.rows.iter().filter(|row| row.group() == group);
        let (run, not_run): (Vec<&Row>, Vec<&Row>) = rows.partition(|row| self.cpu(row).is_some());
        if run.is_empty() {
            table.load_style(comfy_table::presets::NOTHING);
        } else {
            table.load_style(LINES).set_header(header);
        }
        for row in run {
            let cells = self.cells(row).into_iter().enumerate();
            let cells = cells.map(|(column, text)| match column {
                1 => Cell::new(text),
                _ => Cell::new(text).set_alignment(CellAlignment::Right),
            });
            table.add_row(TableRow::from(cells.collect::<Vec<_>>()));
        }
        if let Some(column) = table.column_mut(1) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(20)));
        }
        let mut text = table.trim_fmt();
        for row in not_run {
            let (number, name) = (row.rung.number, row.rung.name);
            let why = match &row.state {
                State::Missing(why) => format!("not available: {why}"),
                State::Failed(why) => format!("FAILED: {why}"),
                State::Runs => "not run".to_owned(),
            };
            text += &format!("\n {number:2}  {name}: {}", why.replace('\n', "\n   "));
        }
        text
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let median = |of: &dyn Fn(&Run) -> f64| {
            let spread = Spread::of(row.runs.iter().map(of));
            spread.map_or(0, |spread| spread.median.round() as u64)
        };
        let or_dash = |text: Option<String>| text.unwrap_or("–".to_owned());
        let pair = |a: u64, b: u64| format!("{} + {}", grouped(a), grouped(b));
        let Some(cpu) = self.cpu(row) else {
            return Vec::new();
        };
        let calls = row.runs.iter().map(|run| run.cost.calls.clone().ok());
        let calls: Option<Vec<u64>> = calls.collect();
        let calls = calls.and_then(|calls| Spread::of(calls.into_iter().map(|calls| calls as f64)));
        let copies = self.copies(row);
        let times = |times: Option<f64>| or_dash(times.map(|times| format!("{times:.2}")));
        let name = match &row.state {
            State::Failed(_) => format!("{}: FAILED", row.rung.name),
            _ => row.rung.name.to_owned(),
        };
        let mut cells = vec![
            row.rung.number.to_string(),
            name,
            short(cpu.median),
            format!("{} – {}", short(cpu.min), short(cpu.max)),
            times(self.of_first_as_shown(row)),
            or_dash(self.rate(row).map(|rate| short(rate.median))),
            or_dash(calls.map(|calls| grouped(calls.median.round() as u64))),
            pair(
                median(&|run| run.cost.process.voluntary as f64),
                median(&|run| run.cost.process.involuntary as f64),
            ),
            pair(
                median(&|run| run.cost.process.minor_faults as f64),
                median(&|run| run.cost.process.major_faults as f64),
            ),
            times(copies.map(|copies| copies.account)),
            times(copies.and_then(|copies| copies.seen)),
        ];
        if self.is_cut_short() {
            cells.push(row.runs.len().to_string());
        }
        cells
    }

    /// Returns notes on what the tables do not say by themselves.
    fn notes(&self) -> Vec<String> {
        let ran = || self.rows.iter().filter(|row| !row.runs.is_empty());
        let mut notes = BTreeSet::new();
        for row in ran() {
            for run in &row.runs {
                if let Err(why) = &run.cost.calls {
                    notes.insert(format!("calls not counted: {why}"));
                }
            }
            if let Err(why) = &row.seen {
                notes.insert(format!("copies not checked: {why}"));
            }
        }
        if let Some(why) = self.uncounted_machine() {
            notes.insert(format!("the machine's time not counted: {why}"));
        }
        let mut notes: Vec<_> = notes.into_iter().collect();
        let bases: Vec<_> = ran().map(|row| self.basis(row.group())).collect();
        if bases.contains(&Basis::Machine) {
            notes.push(
                "CPU: the whole machine's, so that work done in interrupts is not hidden"
                    .to_owned(),
            );
        }
        if bases.contains(&Basis::Process) {
            let whose = match bases.contains(&Basis::Machine) {
                true => {
                    "CPU of streams that are relayed: this process's, since their feeder works here, too"
                }
                false => "CPU: this process's, since others work on this machine, too",
            };
            notes.push(format!("{whose};\n  work done in interrupts is not in it"));
        }
        notes
    }
}

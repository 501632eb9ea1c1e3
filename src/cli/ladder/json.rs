//! A ladder's measurements, for programs.

use serde_json::{Value, json};

use super::list;
use super::report::{Basis, Report};
use super::way::Way;
use crate::cli::figure::six;
use crate::lab::ladder::cache::Cache;
use crate::lab::ladder::plan::{Row, Run, State};
use crate::lab::spread::Spread;

impl Report {
    /// One object.
    pub fn json(&self) -> Value {
        json!({
            "file": self.path,
            "bytes": self.len,
            "sha256": self.sha256,
            "by": self.by,
            "kernel": self.kernel,
            "rounds": self.rounds,
            "rounds_finished": self.finished,
            "interrupted": self.interrupted,
            "block": self.sizes.0,
            "payload": self.sizes.1,
            "rungs": self.rows.iter().map(|row| self.rung(row)).collect::<Vec<_>>(),
        })
    }

    fn rung(&self, row: &Row) -> Value {
        let (why, error) = match &row.state {
            State::Runs => (None, None),
            State::Missing(why) => (Some(why), None),
            State::Failed(error) => (None, Some(error)),
        };
        let of = |figure: &dyn Fn(&Run) -> f64| spread(Spread::of(row.runs.iter().map(figure)));
        let counted = |figure: &dyn Fn(&Run) -> f64| exact(Spread::of(row.runs.iter().map(figure)));
        let of_machine = |figure: &dyn Fn(&crate::lab::count::Machine) -> f64| {
            let figures = row
                .runs
                .iter()
                .flat_map(|run| &run.cost.machine)
                .map(figure);
            spread(Spread::of(figures))
        };
        let part = |part: usize| {
            let measured = row
                .runs
                .iter()
                .filter_map(|run| self.parts(row, run).split[part]);
            spread(Spread::of(measured))
        };
        let calls = row.runs.iter().flat_map(|run| &run.cost.calls);
        let uncounted = row
            .runs
            .iter()
            .find_map(|run| run.cost.calls.as_ref().err());
        let way = self.way(row, row.cache == Cache::Cold);
        let basis = match self.basis(row.group()) {
            Basis::Process => "process",
            Basis::Machine => "machine",
        };
        json!({
            "number": row.rung.number,
            "name": row.rung.name,
            "kind": list::kind(row.rung.kind),
            "protocol": list::protocol(row.protocol),
            "cache": row.cache.name(),
            "available": why.is_none(),
            "why": why,
            "error": error,
            "runs": row.runs.len(),
            "cpu_of": basis,
            "cpu_seconds_per_gib": spread(self.cpu(row)),
            "cpu_seconds_per_gib_user": part(0),
            "cpu_seconds_per_gib_system": part(1),
            "cpu_seconds_per_gib_interrupts": part(2),
            "cpu_of_first": self.of_first_for_programs(row),
            "seconds": of(&|run| run.cost.seconds),
            "mib_per_second": spread(self.rate(row)),
            "system_calls": exact(Spread::of(calls.map(|calls| *calls as f64))),
            "system_calls_not_counted": uncounted,
            "context_switches_voluntary": counted(&|run| run.cost.process.voluntary as f64),
            "context_switches_involuntary": counted(&|run| run.cost.process.involuntary as f64),
            "page_faults_minor": counted(&|run| run.cost.process.minor_faults as f64),
            "page_faults_major": counted(&|run| run.cost.process.major_faults as f64),
            "process_user_seconds": of(&|run| run.cost.process.user),
            "process_system_seconds": of(&|run| run.cost.process.system),
            "machine_user_seconds": of_machine(&|machine| machine.user),
            "machine_system_seconds": of_machine(&|machine| machine.system),
            "machine_interrupt_seconds": of_machine(&|machine| machine.interrupts),
            "machine_busy_seconds": of_machine(&|machine| machine.busy),
            "bytes_copied": counted(&|run| run.copied as f64),
            "copies": way.as_ref().map(Way::copies),
            "way": way.as_ref().map(Way::to_string),
            "bytes_seen_copied": row.seen.as_ref().ok(),
            "bytes_copied_not_checked": row.seen.as_ref().err(),
        })
    }
}

/// Converts a spread that was measured, to six significant digits.
fn spread(spread: Option<Spread>) -> Value {
    let six = |spread: Spread| Spread {
        median: six(spread.median),
        min: six(spread.min),
        max: six(spread.max),
    };
    exact(spread.map(six))
}

/// Converts a spread that was counted, to the last digit.
fn exact(spread: Option<Spread>) -> Value {
    match spread {
        Some(Spread { median, min, max }) => json!({ "median": median, "min": min, "max": max }),
        None => Value::Null,
    }
}

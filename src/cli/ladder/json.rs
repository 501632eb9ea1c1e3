//! What was measured, for programs.

use serde_json::{Value, json};

use super::list;
use super::plan::{Row, Run, State};
use super::report::{Basis, Report};
use crate::cli::spread::Spread;

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
        let of_machine = |figure: &dyn Fn(&super::count::Machine) -> f64| {
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
            "cpu_of_first": self.of_first(row),
            "seconds": of(&|run| run.cost.seconds),
            "mib_per_second": spread(self.rate(row)),
            "system_calls": spread(Spread::of(calls.map(|calls| *calls as f64))),
            "system_calls_not_counted": uncounted,
            "context_switches_voluntary": of(&|run| run.cost.process.voluntary as f64),
            "context_switches_involuntary": of(&|run| run.cost.process.involuntary as f64),
            "page_faults_minor": of(&|run| run.cost.process.minor_faults as f64),
            "page_faults_major": of(&|run| run.cost.process.major_faults as f64),
            "process_user_seconds": of(&|run| run.cost.process.user),
            "process_system_seconds": of(&|run| run.cost.process.system),
            "machine_user_seconds": of_machine(&|machine| machine.user),
            "machine_system_seconds": of_machine(&|machine| machine.system),
            "machine_interrupt_seconds": of_machine(&|machine| machine.interrupts),
            "machine_busy_seconds": of_machine(&|machine| machine.busy),
            "bytes_copied": of(&|run| run.copied as f64),
            "bytes_seen_copied": row.seen.as_ref().ok(),
            "bytes_copied_not_checked": row.seen.as_ref().err(),
        })
    }
}

fn spread(spread: Option<Spread>) -> Value {
    match spread {
        Some(Spread { median, min, max }) => json!({ "median": median, "min": min, "max": max }),
        None => Value::Null,
    }
}

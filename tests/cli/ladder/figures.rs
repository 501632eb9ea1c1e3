//! The figures themselves: what must be true of them, whatever the machine.

use serde_json::Value;

use super::folder;
use crate::{json, pinwire};

/// All that is told with its least and most.
const SPREADS: [&str; 15] = [
    "cpu_seconds_per_gib",
    "cpu_seconds_per_gib_user",
    "cpu_seconds_per_gib_system",
    "seconds",
    "mib_per_second",
    "context_switches_voluntary",
    "context_switches_involuntary",
    "page_faults_minor",
    "page_faults_major",
    "process_user_seconds",
    "process_system_seconds",
    "machine_user_seconds",
    "machine_system_seconds",
    "machine_busy_seconds",
    "bytes_copied",
];

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

/// The rungs of three rounds over loopback.
fn measured(only: &str) -> Vec<Value> {
    let (_folder, file, _) = folder();
    let mut command = pinwire(["ladder", &file, "--loopback", "--json", "--rounds", "3"]);
    command.args(["--only", only, "--over", "tcp"]);
    let all = json(&command.assert().success().get_output().stdout);
    let rungs = all["rungs"].as_array().unwrap();
    assert!(rungs.iter().all(|rung| rung["runs"] == 3), "{all:#}");
    rungs.clone()
}

#[test]
fn figures_lie_between_their_least_and_their_most_and_ratios_follow_from_them() {
    let rungs = measured("1,2,5,6,io_uring splice");
    assert_eq!(rungs.len(), 8);
    for rung in &rungs {
        for figure in SPREADS {
            let [min, median, max] =
                ["min", "median", "max"].map(|which| number(&rung[figure][which]));
            let in_order = 0.0 <= min && min <= median && median <= max;
            assert!(in_order, "{figure}: {rung:#}");
        }
        for figure in ["cpu_seconds_per_gib", "seconds", "mib_per_second"] {
            assert!(number(&rung[figure]["min"]) > 0.0, "{figure}: {rung:#}");
        }
        let first = rungs.iter().find(|first| first["kind"] == rung["kind"]);
        let [first, cpu] = [first.unwrap(), rung].map(|rung| &rung["cpu_seconds_per_gib"]);
        let [least, most] =
            [("min", "max"), ("max", "min")].map(|(of, by)| number(&cpu[of]) / number(&first[by]));
        let ratio = number(&rung["cpu_of_first"]);
        let follows = (least * 0.999..=most * 1.001).contains(&ratio);
        assert!(follows, "{least} <= {ratio} <= {most}: {rung:#}");
    }
    let row = |name: &str| {
        let found = rungs.iter().find(|rung| rung["name"] == name);
        found.unwrap_or_else(|| panic!("{name}"))
    };
    for first in [
        "read + write",
        "relay: read + write",
        "log: read + 2 writes",
    ] {
        assert_eq!(number(&row(first)["cpu_of_first"]), 1.0);
    }
    // A mapping's pages are found by faults, in batches as large as the kernel likes.
    let faults = number(&row("mmap + write")["page_faults_minor"]["min"]);
    assert!(faults > 0.0);
    // Each splice is done by a thread of the kernel's, which is waited for, and waits for work.
    let waits = number(&row("io_uring splice")["context_switches_voluntary"]["min"]);
    assert!(waits > 0.0);
}

#[test]
fn what_a_process_is_not_told_of_interrupts_is_no_zero() {
    for rung in measured("1,relay,log") {
        assert_eq!(rung["cpu_of"], "process", "{rung:#}");
        let interrupts = &rung["cpu_seconds_per_gib_interrupts"];
        assert!(interrupts.is_null(), "{rung:#}");
    }
    let (_folder, file, _) = folder();
    let mut command = pinwire(["ladder", &file, "--loopback", "--rounds", "1"]);
    let table = command.args(["--only", "relay"]).assert().success();
    let table = String::from_utf8_lossy(&table.get_output().stdout).into_owned();
    assert!(table.contains("interrupts is not in it"), "{table}");
}

/// A `<rect>` of an SVG: its colour, and where it is.
fn rect(line: &str) -> Option<(&str, [f64; 3])> {
    let rest = line.strip_prefix("<rect ")?;
    let attribute = |name: &str| {
        let (_, value) = rest.split_once(&format!("{name}=\""))?;
        Some(value.split_once('"')?.0)
    };
    let place = ["y", "width", "height"].map(|name| attribute(name)?.parse().ok());
    let [y, width, height] = place;
    Some((attribute("fill")?, [y?, width?, height?]))
}

#[test]
fn a_picture_has_a_bar_with_its_name_for_each_rung_that_was_measured() {
    let (folder, file, _) = folder();
    let plot = folder.path().join("ladder.svg");
    let mut command = pinwire(["ladder", &file, "--loopback", "--json", "--rounds", "1"]);
    command.arg("--plot").arg(&plot);
    let all = json(&command.assert().success().get_output().stdout);
    let rungs = all["rungs"].as_array().unwrap();
    let drawn = std::fs::read_to_string(plot).unwrap();

    let measured = rungs.iter().filter(|rung| rung["runs"] == 1).count();
    assert!(measured > 20, "{all:#}");
    const COLOURS: [&str; 4] = ["#2F6DB5", "#F0A030", "#C078A8", "#9AA5B1"];
    let bars = drawn.lines().filter_map(rect);
    let bars: Vec<_> = bars.filter(|(fill, _)| COLOURS.contains(fill)).collect();
    for (fill, [_, width, height]) in &bars {
        assert!(
            *width >= 1.0 && *height >= 1.0,
            "{fill}: {width} x {height}"
        );
    }
    let mut places: Vec<_> = bars.iter().map(|(_, [y, ..])| *y as u64).collect();
    places.dedup();
    assert_eq!(places.len(), measured, "{places:?}");

    for rung in rungs {
        let name = rung["name"].as_str().unwrap();
        let rows = rungs.iter().filter(|row| row["name"] == name).count();
        let labels = drawn.lines().filter(|line| *line == name).count();
        assert_eq!(labels, rows, "{name}");
    }
    let fed = drawn.lines().filter(|line| *line == "feeder").count();
    assert_eq!(fed, 4, "two relays and two logs");
}

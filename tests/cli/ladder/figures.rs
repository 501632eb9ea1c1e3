//! The figures themselves: what must be true of them, whatever the machine.

use serde_json::Value;

use super::folder;
use crate::{interrupt_at, json, pinwire};

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
        let [cpu, first] = [cpu, first].map(|cpu| number(&cpu["median"]));
        let ratio = number(&rung["cpu_of_first"]);
        // Six digits of it.
        let off = (ratio / (cpu / first) - 1.0).abs();
        assert!(off < 1e-5, "{cpu} by {first} is not {ratio}: {rung:#}");
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

/// The numbers of a table's rows: CPU seconds, and of first.
fn of_first(table: &str) -> Vec<(f64, f64)> {
    let rows = table
        .lines()
        .filter(|line| line.contains(" – ") && !line.contains("min"));
    rows.map(|row| {
        let columns: Vec<&str> = row.split("  ").map(str::trim).collect();
        let columns: Vec<&str> = columns
            .into_iter()
            .filter(|cell| !cell.is_empty())
            .collect();
        // The spread is one column.
        let at = columns
            .iter()
            .position(|cell| cell.contains(" – "))
            .unwrap();
        let number = |cell: &str| cell.parse().unwrap_or_else(|_| panic!("{row}"));
        (number(columns[at - 1]), number(columns[at + 1]))
    })
    .collect()
}

#[test]
fn of_first_is_the_quotient_of_the_two_figures_in_the_table() {
    let (_folder, file, _) = folder();
    let mut command = pinwire(["ladder", &file, "--loopback", "--rounds", "4"]);
    command.args(["--only", "1,2,4,5", "--over", "udp"]);
    let output = command.assert().success().get_output().clone();
    let table = String::from_utf8(output.stdout).unwrap();
    let rows = of_first(&table);
    assert!(rows.len() >= 4, "{table}");
    for (cpu, ratio) in &rows {
        let quotient = cpu / rows[0].0;
        // Two digits of it.
        assert!(
            (ratio - quotient).abs() <= 0.005 + 1e-9,
            "{quotient}: {table}"
        );
    }
}

#[test]
fn what_is_drawn_is_what_was_counted_and_loopback_has_no_card() {
    let (folder, file, _) = folder();
    let plot = folder.path().join("ladder.svg");
    let mut command = pinwire(["ladder", &file, "--loopback", "--rounds", "1", "--json"]);
    command.arg("--plot").arg(&plot);
    let all = json(&command.assert().success().get_output().stdout);
    let mut copies = 0;
    for rung in all["rungs"].as_array().unwrap() {
        let Some(way) = rung["way"].as_str() else {
            assert_eq!(rung["runs"], 0, "{rung:#}");
            continue;
        };
        let bytes = number(&all["bytes"]);
        let account = (number(&rung["bytes_copied"]["median"]) / bytes).round();
        let seen = rung["bytes_seen_copied"].as_f64();
        let counted = account.max((seen.unwrap_or(0.0) / bytes).round()) as usize;
        assert_eq!(way.matches('→').count(), counted, "{rung:#}");
        assert_eq!(rung["copies"], counted, "{rung:#}");
        assert!(!way.contains("card"), "{rung:#}");
        assert!(
            !way.contains("disk") || rung["name"] == "reflink",
            "{rung:#}"
        );
        copies += counted;
    }
    // MSG_ZEROCOPY has loopback copy after all.
    let zerocopy = |rung: &&Value| rung["name"] == "MSG_ZEROCOPY";
    let rungs = all["rungs"].as_array().unwrap();
    assert!(
        rungs
            .iter()
            .filter(zerocopy)
            .all(|rung| rung["copies"] == 1),
        "{all:#}"
    );
    // An arrow has a head, which is a triangle; the one more is the legend's.
    let drawn = std::fs::read_to_string(&plot).unwrap();
    let head = regex_lite::Regex::new("<polygon[^>]*fill=\"#D1492E\"").unwrap();
    assert_eq!(head.find_iter(&drawn).count(), copies + 1);
    assert!(!drawn.contains(">\ncard\n<") && drawn.contains(">\nfar end\n<"));
}

#[test]
fn rungs_that_cannot_be_had_here_are_no_success() {
    let (_folder, file, _) = folder();
    for only in ["11", "10,11,12", "AF_XDP"] {
        let mut command = pinwire(["ladder", &file, "--loopback", "--rounds", "1"]);
        let output = command.args(["--only", only]).assert().code(1);
        let [said, told] = [&output.get_output().stderr, &output.get_output().stdout]
            .map(|text| String::from_utf8_lossy(text).into_owned());
        assert!(said.contains("nothing was measured"), "{said}");
        assert!(told.contains("not available: "), "{told}");
        assert!(
            !told.contains("CPU s/GiB") && !told.contains("every hash"),
            "{told}"
        );
    }
}

#[test]
fn an_interruption_shows_the_rounds_that_were_finished() {
    let (folder, file, _) = folder();
    let plot = folder.path().join("ladder.svg");
    let args = [
        "ladder",
        &file,
        "--loopback",
        "--only",
        "1,4",
        "--rounds",
        "60000",
    ];
    let at = "round 2 of 60000 is finished";
    let (code, table) = interrupt_at(&args, at);
    assert_eq!(code, Some(130), "{table}");
    assert!(
        table.contains("interrupted; medians of what was measured: "),
        "{table}"
    );
    assert!(table.contains(" of 60 000 rounds finished"), "{table}");
    assert!(
        table.contains("read + write") && table.contains("runs"),
        "{table}"
    );

    let args = [&args[..], &["--json", "--plot", plot.to_str().unwrap()]].concat();
    let (code, text) = interrupt_at(&args, at);
    assert_eq!(code, Some(130), "{text}");
    let all = json(text.as_bytes());
    assert_eq!(
        (&all["rounds"], &all["interrupted"]),
        (&60000.into(), &true.into())
    );
    let finished = all["rounds_finished"].as_u64().unwrap();
    assert!(finished >= 2, "{all:#}");
    for rung in all["rungs"].as_array().unwrap() {
        let runs = rung["runs"].as_u64().unwrap();
        assert!((finished..=finished + 1).contains(&runs), "{rung:#}");
        assert!(
            number(&rung["cpu_seconds_per_gib"]["median"]) > 0.0,
            "{rung:#}"
        );
    }
    assert!(std::fs::read_to_string(&plot).unwrap().contains("finished"));
}

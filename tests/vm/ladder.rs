//! `qemu/ladder`, small: rungs by one card in the VM, which the kernel and pinwire drive in turn, to a far
//! end outside that is not our code. What a rung says that it copies is what the kernel was seen to copy.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::common;

/// Bytes of the file.
const SIZE: u64 = 2 << 20;

#[test]
fn rungs_deliver_by_one_card_and_copy_what_they_say() {
    if !common::wants_vm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (json, plot) = (folder.path().join("l.json"), folder.path().join("l.svg"));
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/qemu/ladder"))
        .args(["--size", "2", "--timeout", "500", "--json"])
        .arg(&json)
        .arg("--plot")
        .arg(&plot)
        .args(["--", "--rounds", "1", "--cache", "warm", "--prove"])
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    let text = std::fs::read_to_string(&json).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(all["bytes"], SIZE);
    let rungs = all["rungs"].as_array().unwrap();

    let has = |number: u64| {
        rungs
            .iter()
            .any(|rung| rung["number"] == number && rung["available"] == true)
    };
    for number in 1..=12 {
        assert!(has(number), "rung {number}: {said}");
    }
    for rung in rungs.iter().filter(|rung| rung["available"] == true) {
        let name = format!("{} {}", rung["protocol"], rung["name"]);
        assert_eq!(rung["error"], Value::Null, "{name}");
        assert_eq!(rung["runs"], 1, "{name}");
        let copied = rung["bytes_copied"]["median"].as_f64().unwrap();
        let seen = rung["bytes_seen_copied"].as_f64().unwrap();
        // A card that neither sums nor gathers has what is in pieces copied once more, for all that the
        // rung can know: each TCP byte, and each frame that refers to a ring.
        let in_pieces = rung["protocol"] == "tcp" || rung["number"] == 10;
        let (copies, seen) = (copied / SIZE as f64, seen / SIZE as f64);
        let most = copies + if in_pieces { 1.0 } else { 0.0 };
        let is_right = (copies - 0.05..=most + 0.1).contains(&seen);
        assert!(is_right, "{name}: says {copies}, seen {seen}");
        assert!(rung["cpu_seconds_per_gib"]["median"].as_f64() > Some(0.0));
    }
    let row = |name: &str| {
        let found = rungs
            .iter()
            .find(|rung| rung["name"] == name && rung["protocol"] == "udp");
        found.unwrap_or_else(|| panic!("{name}: {said}"))
    };
    let calls = |name: &str| row(name)["system_calls"]["median"].as_f64().unwrap();
    let datagrams = SIZE.div_ceil(1472) as f64;
    assert!(calls("read + write") >= 2.0 * datagrams);
    assert!(calls("pinwire, page cache") < datagrams / 10.0);
    assert_eq!(row("pinwire, page cache")["bytes_copied"]["median"], 0.0);

    let picture = std::fs::read_to_string(&plot).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("pinwire, page cache"));
}

/// The calls of each part of `log` (strace's) that was counted, by who made them: those between a perf
/// counter's reset and start, and its stop.
fn counted(log: &str) -> Vec<u64> {
    let mut under_way = BTreeMap::<&str, u64>::new();
    let (mut counts, mut was_reset) = (Vec::new(), "");
    for line in log.lines() {
        let Some((who, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        if call.contains("PERF_EVENT_IOC_RESET") {
            was_reset = who;
        } else if call.contains("PERF_EVENT_IOC_ENABLE") && was_reset == who {
            (was_reset, _) = ("", under_way.insert(who, 0));
        } else if call.contains("PERF_EVENT_IOC_DISABLE") {
            counts.extend(under_way.remove(who));
        } else if let Some(count) = under_way.get_mut(who)
            && !call.starts_with(['<', '-', '+'])
        {
            *count += 1;
        }
    }
    counts
}

#[test]
fn a_rungs_calls_are_as_many_as_strace_sees() {
    let script = "
        head -c 200000 /dev/urandom >/tmp/file
        strace -f -o /tmp/log pinwire ladder /tmp/file --loopback --rounds 1 --cache warm --only 1,4,9 --over udp --json || exit 1
        echo ==; cat /tmp/log";
    let Some(output) = common::vm(&["--no-vfio"], script) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{error}");
    let (json, log) = said.split_once("\n==\n").expect("both");
    let all: Value = serde_json::from_str(json).unwrap();
    let rows = all["rungs"].as_array().unwrap();
    let is_one = |row: &&Value| row["available"] == true;
    let rows = rows.iter().filter(is_one).map(|row| {
        let calls = row["system_calls"]["median"].as_f64();
        calls.unwrap_or_else(|| panic!("{row}")) as u64
    });
    let told: Vec<u64> = rows.collect();
    assert_eq!(told.len(), 5, "{json}");
    // In the runs before those, kprobes look for copies.
    assert!(counted(log).ends_with(&told), "{told:?}: {log}");
}

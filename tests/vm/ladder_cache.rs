//! `pinwire ladder --cache`, in the VM, on a disk whose reads are counted: cold is cold, and where it cannot be
//! had it is told why.
#![cfg(feature = "cli")]

use std::collections::BTreeMap;

use serde_json::Value;

use crate::common;

/// Bytes of the file.
const SIZE: u64 = 2_000_000;

#[test]
fn a_cold_cache_waits_for_the_disk_and_a_warm_one_does_not() {
    let script = "
        head -c 2000000 /dev/urandom >/disk/file; sync
        cp /disk/file /tmp/file
        cp /proc/$$/exe /disk/sleep; /disk/sleep 1000 &
        sectors() { echo \"$1 $(awk '$3 == \"vda\" { print $6 }' /proc/diskstats)\"; }
        ladder() {
            name=$1 file=$2; shift 2
            echo \"$name $(pinwire ladder $file --loopback --over tcp --rounds 2 --json \"$@\")\"
        }
        ladder faults /disk/file --cache both --only 1,mmap
        sectors begin
        ladder warm /disk/file --cache warm --only 1
        sectors between
        ladder cold /disk/file --cache cold --only 1
        sectors end
        ladder tmpfs /tmp/file --cache cold --only 1
        ladder mapped /disk/sleep --cache both --only 1";
    let Some(output) = common::vm(&["--disk", "256M", "--no-vfio"], script) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{error}");
    let lines = said.lines().filter_map(|line| line.split_once(' '));
    let lines: BTreeMap<&str, &str> = lines.collect();
    let rows = |name: &str| {
        let all: Value =
            serde_json::from_str(lines[name]).unwrap_or_else(|_| panic!("{said}{error}"));
        all["rungs"].as_array().unwrap().clone()
    };

    let faults = rows("faults");
    assert_eq!(faults.len(), 6, "{said}");
    for row in &faults {
        let [minor, major] = ["minor", "major"]
            .map(|which| row[format!("page_faults_{which}")]["min"].as_f64().unwrap());
        let is_mapped = row["name"].as_str().unwrap().contains("mmap");
        let waits = is_mapped && row["cache"] == "cold";
        assert_eq!(major > 0.0, waits, "{row:#}");
        assert!(minor > 0.0 || !is_mapped, "{row:#}");
    }

    let sectors = |name: &str| lines[name].parse::<u64>().unwrap();
    let read = |from, to| (sectors(to) - sectors(from)) * 512;
    assert_eq!(rows("cold")[0]["runs"], 2, "{said}");
    assert!(read("begin", "between") < SIZE / 2, "{said}");
    // Each of its rounds.
    assert!(read("between", "end") >= 2 * SIZE, "{said}");

    let why = |row: &Value| {
        assert_eq!(row["available"], false, "{row:#}");
        assert!(row["cpu_seconds_per_gib"].is_null(), "{row:#}");
        row["why"].as_str().unwrap().to_owned()
    };
    assert!(
        why(&rows("tmpfs")[0]).contains("put it on a disk"),
        "{said}"
    );
    let mapped = rows("mapped");
    let is = |cache| mapped.iter().find(|row| row["cache"] == cache).unwrap();
    assert_eq!(is("warm")["runs"], 2, "{said}");
    assert!(why(is("cold")).contains("mapped or pinned"), "{said}");
}

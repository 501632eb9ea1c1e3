//! `pinwire ladder` over loopback: every rung that needs no card, what it says of those that do, and what
//! it does where something goes wrong.

mod figures;
mod lacks;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{BOUND, json, pinwire, spawn};

const LEN: usize = 1_000_000;

/// A folder with a file in it.
fn folder() -> (tempfile::TempDir, String, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let bytes: Vec<u8> = (0..LEN as u32)
        .map(|at| (at.wrapping_mul(at) / 251) as u8)
        .collect();
    File::create(&path).unwrap().write_all(&bytes).unwrap();
    (folder, path.to_str().unwrap().to_owned(), bytes)
}

#[test]
fn every_rung_without_a_card_is_measured_and_the_others_say_what_they_lack() {
    let (folder, file, bytes) = folder();
    let plots = ["svg", "png"].map(|ending| folder.path().join(format!("ladder.{ending}")));
    let mut command = pinwire(["ladder", &file, "--loopback", "--rounds", "1", "--json"]);
    command.arg("--plot").arg(&plots[0]);
    let all = json(&command.assert().success().get_output().stdout);
    let hash = Sha256::digest(&bytes);
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&all["bytes"], &all["sha256"]), (&LEN.into(), &hash.into()));

    let rungs = all["rungs"].as_array().unwrap();
    let is_there = |rung: &&Value| rung["available"] == true;
    for number in 1..=9 {
        let found = rungs
            .iter()
            .filter(is_there)
            .any(|rung| rung["number"] == number);
        assert!(found, "rung {number}: {all:#}");
    }
    for rung in rungs {
        let name = rung["name"].as_str().unwrap();
        assert_eq!(rung["error"], Value::Null, "{name}");
        if !is_there(&rung) {
            assert!(
                rung["why"].as_str().is_some_and(|why| !why.is_empty()),
                "{rung:#}"
            );
            assert!(
                rung["cpu_seconds_per_gib"].is_null(),
                "never a zero: {rung:#}"
            );
        }
    }
    let row = |name: &str, protocol: &str| {
        let mut rows = rungs.iter().filter(is_there);
        let found = rows.find(|rung| rung["name"] == name && rung["protocol"] == protocol);
        found.unwrap_or_else(|| panic!("{name} over {protocol}: {all:#}"))
    };
    assert_eq!(
        row("read + write", "tcp")["bytes_copied"]["median"],
        2.0 * LEN as f64
    );
    assert_eq!(row("sendfile", "tcp")["bytes_copied"]["median"], 0.0);
    assert_eq!(row("read + write", "tcp")["cpu_of_first"], 1.0);
    let calls = &row("read + write", "udp")["system_calls"];
    // Two a datagram, where this process may have them counted.
    assert!(
        calls.is_null() || calls["median"].as_f64() >= Some(2.0 * (LEN / 1472) as f64),
        "{calls}"
    );
    let missing = |rung: &&Value| rung["number"] == 12 && rung["available"] == false;
    assert!(rungs.iter().any(|rung| missing(&rung)), "{all:#}");

    let drawn = std::fs::read_to_string(&plots[0]).unwrap();
    assert!(
        drawn.starts_with("<svg") && drawn.contains("sendfile"),
        "{drawn}"
    );
    let mut command = pinwire([
        "ladder",
        &file,
        "--loopback",
        "--rounds",
        "1",
        "--only",
        "1,4",
    ]);
    let table = command.arg("--plot").arg(&plots[1]).assert().success();
    let table = String::from_utf8(table.get_output().stdout.clone()).unwrap();
    assert!(
        table.contains("read + write") && table.contains("sendfile"),
        "{table}"
    );
    assert!(!table.contains("mmap"), "{table}");
    is_a_picture(&plots[1]);
}

/// By python's own decompressor.
fn is_a_picture(path: &Path) {
    const CHECK: &str = "
import sys, struct, zlib
data = open(sys.argv[1], 'rb').read()
assert data[:8] == b'\\x89PNG\\r\\n\\x1a\\n'
at, pixels = 8, b''
while at < len(data):
    length, kind = struct.unpack('>I4s', data[at:at + 8])
    if kind == b'IHDR': width, height = struct.unpack('>II', data[at + 8:at + 16])
    if kind == b'IDAT': pixels += data[at + 8:at + 8 + length]
    at += 12 + length
assert width > 300 and height > 100 and len(zlib.decompress(pixels)) > width * height
";
    let checked = Command::new("python3")
        .args(["-c", CHECK])
        .arg(path)
        .output();
    let checked = checked.expect("python3");
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn what_arrives_otherwise_than_it_was_hashed_fails_the_run() {
    let (_folder, file, _) = folder();
    let (done, open) = (
        AtomicBool::new(false),
        File::options().write(true).open(&file),
    );
    let open = open.unwrap();
    let said = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0_u64;
            while !done.load(Ordering::Relaxed) {
                number += 1;
                open.write_all_at(&number.to_le_bytes(), 500_000).unwrap();
            }
        });
        let mut command = pinwire([
            "ladder",
            &file,
            "--loopback",
            "--rounds",
            "2",
            "--only",
            "1",
        ]);
        let output = command.output().unwrap();
        done.store(true, Ordering::Relaxed);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        [output.stdout, output.stderr].concat()
    });
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains("WRONG HASH") && said.contains("read + write"),
        "{said}"
    );
}

#[test]
fn a_far_end_that_dies_fails_the_run() {
    let (_folder, file, _) = folder();
    let child = spawn([
        "ladder",
        &file,
        "--loopback",
        "--rounds",
        "60000",
        "--only",
        "1",
        "--over",
        "tcp",
    ]);
    let path = format!("/proc/{0}/task/{0}/children", child.id());
    let begin = std::time::Instant::now();
    let far_end = loop {
        let children = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some(pid) = children.split_whitespace().next() {
            break pid.to_owned();
        }
        assert!(begin.elapsed() < BOUND, "its far end");
        std::thread::sleep(Duration::from_millis(20));
    };
    std::thread::sleep(Duration::from_secs(1));
    let killed = Command::new("kill").args(["-KILL", &far_end]).status();
    assert!(killed.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let is_told = said.contains("FAILED") || said.contains("is it still there?");
    assert!(said.contains("read + write") && is_told, "{said}");
}

#[test]
fn an_interruption_ends_it_and_its_helpers() {
    let (_folder, file, _) = folder();
    let mut child = spawn(["ladder", &file, "--loopback", "--rounds", "60000"]);
    let helpers = || {
        let path = format!("/proc/{0}/task/{0}/children", child.id());
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let begin = std::time::Instant::now();
    while helpers().split_whitespace().count() < 2 {
        assert!(begin.elapsed() < BOUND, "its far end and its feeder");
        std::thread::sleep(Duration::from_millis(20));
    }
    let helpers: Vec<String> = helpers().split_whitespace().map(str::to_owned).collect();
    std::thread::sleep(Duration::from_millis(300));
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(130));
    for helper in helpers {
        let begin = std::time::Instant::now();
        while Path::new("/proc").join(&helper).join("exe").exists() {
            assert!(begin.elapsed() < BOUND, "{helper} stays");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let (_folder, file, _) = folder();
    for args in [
        vec!["ladder"],
        vec!["ladder", &file],
        vec!["ladder", &file, "--loopback", "--plot", "l.gif"],
        vec!["ladder", &file, "--loopback", "--rounds", "0"],
    ] {
        let mut command = pinwire([]);
        command.args(&args).assert().code(2);
    }
    let mut command = pinwire(["ladder", &file, "--loopback", "--only", "no such rung"]);
    command.assert().code(1);
    let empty = tempfile::NamedTempFile::new().unwrap();
    let empty = empty.path().to_str().unwrap();
    for (path, why) in [
        ("/nowhere", "cannot read"),
        ("/dev/null", "not a regular file"),
        (empty, "it is empty"),
    ] {
        let refused = pinwire(["ladder", path, "--loopback"]).assert().code(1);
        let said = String::from_utf8_lossy(&refused.get_output().stderr);
        assert!(said.contains(why), "{said}");
    }
    let list = pinwire(["ladder", "--list"]).assert().success();
    let list = String::from_utf8(list.get_output().stdout.clone()).unwrap();
    assert!(
        list.contains("sendfile") && list.contains("pinwire, page cache"),
        "{list}"
    );
}

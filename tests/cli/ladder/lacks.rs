//! What a kernel lacks, by the answers that one gives which lacks it: strace puts them in.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::folder;
use crate::common::{again, has_strace};
use crate::{json, pinwire};

/// `pinwire ladder FILE --loopback --json ARGUMENTS` under `strace OPTIONS`.
fn meddled(options: &[&str], file: &str, arguments: &[&str]) -> Output {
    Command::new("strace")
        .args(["-f", "-qqq", "-o", "/dev/null"])
        .args(options)
        .arg(env!("CARGO_BIN_EXE_pinwire"))
        .args(["ladder", file, "--loopback", "--json"])
        .args(arguments)
        .output()
        .unwrap()
}

/// The rungs of a run that went well although some cannot be had; where none can, that is told as an error.
fn rungs(output: &Output) -> Vec<Value> {
    let rungs = json(&output.stdout)["rungs"].as_array().unwrap().clone();
    let said = String::from_utf8_lossy(&output.stderr);
    let is_empty = rungs.iter().all(|rung| rung["runs"] == 0);
    assert_eq!(output.status.code(), Some(is_empty.into()), "{output:?}");
    assert_eq!(said.contains("nothing was measured"), is_empty, "{said}");
    rungs
}

fn assert_missing(rung: &Value, words: &str) {
    assert_eq!(rung["available"], false, "{rung:#}");
    let why = rung["why"].as_str().unwrap();
    assert!(why.contains(words) && why.contains('\n'), "{why}");
    for figure in [
        "error",
        "cpu_seconds_per_gib",
        "bytes_copied",
        "mib_per_second",
    ] {
        assert!(rung[figure].is_null(), "{figure}: {rung:#}");
    }
    assert_eq!(rung["runs"], 0);
}

#[test]
fn what_is_not_done_with_this_file_is_not_available() {
    if !has_strace() {
        return;
    }
    let (_folder, file, _) = folder();
    let options = [
        "-P",
        &file,
        "-e",
        "inject=sendfile,splice:error=EINVAL",
        "-e",
        "inject=copy_file_range:error=EXDEV",
    ];
    let only = ["--rounds", "1", "--only", "sendfile,splice,copy_file_range"];
    let output = meddled(&options, &file, &only);
    let rungs = rungs(&output);
    assert_eq!(rungs.len(), 5, "{rungs:#?}");
    for rung in &rungs {
        assert_missing(
            rung,
            match rung["name"].as_str().unwrap() {
                "copy_file_range" => "scratch directory",
                _ => "copy the file to another one",
            },
        );
    }
}

#[test]
fn an_io_uring_that_there_is_not_or_that_is_forbidden_is_not_available() {
    if !has_strace() {
        return;
    }
    let (_folder, file, _) = folder();
    for (error, words) in [("ENOSYS", "Linux 5.1"), ("EPERM", "io_uring_disabled")] {
        let inject = format!("inject=io_uring_setup:error={error}");
        let only = ["--rounds", "1", "--only", "9"];
        let output = meddled(&["-e", &inject], &file, &only);
        let rungs = rungs(&output);
        assert_eq!(rungs.len(), 6, "{rungs:#?}");
        rungs.iter().for_each(|rung| assert_missing(rung, words));
    }
}

/// Which `setsockopt` of the program's first thread asks for MSG_ZEROCOPY, by a run without meddling.
fn asks_for_zerocopy(file: &str, log: &Path) -> usize {
    let traced = Command::new("strace")
        .args(["-qqq", "-e", "trace=setsockopt", "-o"])
        .arg(log)
        .arg(env!("CARGO_BIN_EXE_pinwire"))
        .args(["ladder", file, "--loopback"])
        .args(ZEROCOPY)
        .output()
        .unwrap();
    assert!(traced.status.success(), "{traced:?}");
    let log = std::fs::read_to_string(log).unwrap();
    let mut calls = log.lines().filter(|line| line.starts_with("setsockopt"));
    let place = calls.position(|call| call.contains("SO_ZEROCOPY"));
    1 + place.unwrap_or_else(|| panic!("{log}"))
}

const ZEROCOPY: [&str; 6] = ["--rounds", "1", "--only", "8", "--over", "tcp"];

#[test]
fn sockets_without_msg_zerocopy_are_not_available() {
    if !has_strace() {
        return;
    }
    let (folder, file, _) = folder();
    let place = asks_for_zerocopy(&file, &folder.path().join("log"));
    for error in ["ENOPROTOOPT", "EOPNOTSUPP", "524"] {
        let inject = format!("inject=setsockopt:error={error}:when={place}");
        let output = meddled(&["-e", &inject], &file, &ZEROCOPY);
        let rungs = rungs(&output);
        assert_eq!(rungs.len(), 1);
        assert_missing(&rungs[0], "since Linux 4.14");
    }
}

#[test]
fn frames_of_ones_own_without_the_right_to_them_are_not_available() {
    let without = "set -- setpriv --bounding-set=-net_raw --inh-caps=-net_raw \"$@\"";
    if !again(&["--net"], without, "PINWIRE_NO_NET_RAW") {
        return;
    }
    let list = pinwire(["ladder", "--list", "--json"]).assert().success();
    let all = json(&list.get_output().stdout);
    let rungs = all["rungs"].as_array().unwrap();
    let raw: Vec<_> = rungs.iter().filter(|rung| rung["number"] == 10).collect();
    assert_eq!(raw.len(), 2);
    for rung in raw {
        assert_eq!(rung["available"], false, "{rung:#}");
        let why = rung["why"].as_str().unwrap();
        assert!(why.contains("CAP_NET_RAW"), "{why}");
    }
}

#[test]
fn what_is_lacking_only_later_failed_and_keeps_its_figures() {
    if !has_strace() {
        return;
    }
    let (_folder, file, _) = folder();
    let options = [
        "-P",
        &file,
        "-e",
        "inject=copy_file_range:error=EXDEV:when=2+",
    ];
    // One call a run.
    let arguments = [
        "--rounds",
        "2",
        "--block",
        "1G",
        "--only",
        "copy_file_range",
    ];
    let output = meddled(&options, &file, &arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let all = json(&output.stdout);
    let rung = &all["rungs"][0];
    assert_eq!(rung["available"], true, "{rung:#}");
    assert_eq!(rung["why"], Value::Null);
    let error = rung["error"].as_str().unwrap();
    assert!(
        error.contains("ran before") && error.contains("ross-device"),
        "{error}"
    );
}

#[test]
fn a_rung_that_stops_early_says_what_of_it_arrived() {
    if !has_strace() {
        return;
    }
    let (_folder, file, _) = folder();
    let options = ["-P", &file, "-e", "inject=sendfile:error=EIO:when=3+"];
    let arguments = ["--rounds", "1", "--only", "sendfile", "--over", "tcp"];
    let output = meddled(&options, &file, &arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let all = json(&output.stdout);
    let error = all["rungs"][0]["error"].as_str().unwrap();
    let (sent, rest) = error
        .split_once(" of 1000000 bytes were sent and ")
        .unwrap();
    let (arrived, why) = rest.split_once(" arrived, then ").unwrap();
    assert_eq!(sent, arrived, "{error}");
    assert!(sent.parse::<u64>().unwrap() > 0, "{error}");
    assert!(why.contains("sendfile failed"), "{error}");
}

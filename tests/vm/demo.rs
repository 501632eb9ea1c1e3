//! The demo: what the README promises.

use std::io::Write;
use std::process::{Command, Stdio};

use regex_lite::Regex;

use crate::common;

#[test]
fn the_demo_tells_its_story_to_the_end() {
    if !common::wants_vm() {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/qemu/demo");
    let mut demo = Command::new(script);
    demo.env("CLICOLOR_FORCE", "1").stdin(Stdio::null());
    let output = demo.output().expect("the script");
    let coloured = String::from_utf8_lossy(&output.stdout);
    let out = Regex::new("\x1b\\[[0-9;]*m").unwrap();
    let out = out.replace_all(&coloured, "");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}\n{err}");
    // In its order, although all of it goes through a pipe: each command stands before what it printed.
    let story_of_a_command = |command: &str, printed: &str| {
        let places = [command, printed].map(|words| out.find(words));
        assert!(
            places[0].is_some() && places[0] < places[1],
            "{command}: {out}"
        );
    };
    story_of_a_command("# pinwire list", "Intel Corporation");
    story_of_a_command("# pinwire bind", "0000:00:03.0: e1000 -> vfio-pci");
    story_of_a_command("# pinwire send 0000:00:05.0", "Frame 1");
    story_of_a_command(
        "# pinwire send 0000:00:03.0",
        "payload bytes copied by the CPU  0",
    );
    assert!(
        !err.contains("# pinwire") && !out.contains("_per_second"),
        "{out}\n{err}"
    );
    check_picture(&coloured);
    let story = [
        "0000:00:03.0: e1000 -> vfio-pci",
        "write TDT      = 0x00000001",
        "done: legacy",
        "payload bytes copied by the CPU  0, and it could not have",
        "the file: ",
        "the answer to it: came in, as sent",
        "the capture: 30 frames in QEMU's own capture, byte for byte as sent",
        "In short",
    ];
    let mut rest = &*out;
    for part in story {
        let at = rest.find(part);
        rest = &rest[at.unwrap_or_else(|| panic!("{part:?} is missing:\n{out}\n{err}"))..];
    }
    // The file's column: nothing copied, and the kernel was not called.
    for row in [
        "payload bytes copied by the CPU",
        "system calls on the data path",
    ] {
        let row = rest.lines().find_map(|line| line.trim().strip_prefix(row));
        let file = row.and_then(|cells| cells.split_whitespace().next());
        assert_eq!(file, Some("0"), "{rest}");
    }
}

/// README's picture is of a run like this one: but for figures and what else a run has for itself, they are equal.
fn check_picture(run: &str) {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut command = Command::new(format!("{root}/docs/picture"));
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.spawn().expect("docs/picture");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(run.as_bytes()).expect("all of it");
    drop(stdin);
    let drawn = child.wait_with_output().expect("docs/picture").stdout;
    let drawn = String::from_utf8(drawn).expect("a picture");
    let path = format!("{root}/docs/src/img/run.svg");
    let kept = std::fs::read_to_string(path).expect("the picture");
    let text = Regex::new(">([^<]+)</text>").unwrap();
    let figure = Regex::new("[0-9a-f]{64}|[0-9]+").unwrap();
    let lines = |picture: &str| -> Vec<String> {
        let lines = text.captures_iter(picture);
        lines
            .map(|line| figure.replace_all(&line[1], "0").replace("0 0", "0"))
            .collect()
    };
    let hint = "make it anew: CLICOLOR_FORCE=1 qemu/demo | docs/picture >docs/src/img/run.svg";
    assert_eq!(lines(&drawn), lines(&kept), "{hint}");
}

#[test]
fn the_demo_says_what_is_wrong_with_its_file() {
    if !common::wants_vm() {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/qemu/demo");
    let output = Command::new(script)
        .arg("/nowhere")
        .output()
        .expect("the script");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere: no such file"));
}

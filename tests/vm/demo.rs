//! The demo: what the README promises.

use std::process::{Command, Stdio};

use crate::common;

#[test]
fn the_demo_tells_its_story_to_the_end() {
    if !common::wants_vm() {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/qemu/demo");
    let mut demo = Command::new(script);
    let output = demo.stdin(Stdio::null()).output().expect("the script");
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}\n{err}");
    let story = [
        "0000:00:03.0: e1000 -> vfio-pci",
        "write TDT      = 0x00000001",
        "done: legacy",
        "payload_denied_to_cpu: true",
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

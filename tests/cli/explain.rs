//! `--explain` tells what happens in the datasheet's words, in the order in which it does.

use std::thread;
use std::time::Duration;

use crate::common::require_qemu;
use crate::{Wire, frame, json, pinwire};

/// `all` in this order, each after the one before.
#[track_caller]
fn in_order(text: &str, all: &[&str]) {
    let mut rest = text;
    for words in all {
        let at = rest.find(words);
        let at =
            at.unwrap_or_else(|| panic!("{words:?} is not, or not in this place, in:\n{text}"));
        rest = &rest[at + words.len()..];
    }
}

#[test]
fn a_frame_going_out_step_by_step() {
    if !require_qemu() {
        return;
    }
    let args = [
        "send",
        "qtest:e1000",
        "--synthetic",
        "64",
        "--count",
        "1",
        "--explain",
    ];
    let output = pinwire(args).assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    in_order(
        &text,
        &[
            "Intel 82540EM",
            "write CTRL ",
            " rst ",
            "§13.4.1",
            "write TDLEN    = 0x00001000",
            "write TCTL ",
            " en psp ",
            "transmit control, §13.4.33",
            "its address is 52:54:00:12:34:56; the link is up",
            "Frame 1: 64 bytes",
            "packet buffer",
            "transmit descriptor 0, at IOVA",
            "was 0000000000000000 0000000000000000  the driver's: empty",
            "is  ",
            "the driver's: legacy iova=",
            "length=64 eop ifcs\n",
            "The doorbell",
            "write TDT      = 0x00000001",
            "§13.4.40",
            "done: legacy",
            "length=64 eop ifcs rs dd",
            "head 0 -> 1, tail 0 -> 1",
            "frames sent  1",
        ],
    );
    assert!(!text.contains('\x1b'), "colour where there is no terminal");
    assert!(!text.contains("Frame 2"));
}

#[test]
fn a_file_s_frame_shows_both_its_segments() {
    if !require_qemu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"in the page cache").unwrap();
    let path = file.to_str().unwrap();
    let to = ["--to", "10.1.2.4:9", "--via", "02:00:00:00:00:09"];
    let mut command = pinwire(["send", "qtest:e1000", "--file", path, "--explain", "--json"]);
    let output = command.args(to).assert().success();
    // Standard output is for the program that asked for JSON.
    assert_eq!(json(&output.get_output().stdout)["frames"], 1);
    let text = String::from_utf8(output.get_output().stderr.clone()).unwrap();
    in_order(
        &text,
        &[
            "Frame 1: 59 bytes",
            "42 bytes at IOVA",
            "packet buffer",
            "17 bytes at IOVA",
            "page cache",
            "the card shall do: IP_CHECKSUM, UDP_CHECKSUM",
            "descriptor 0",
            "context ipcss=14",
            "descriptor 1",
            "data iova=",
            "dtalen=42",
            "descriptor 2",
            "dtalen=17",
            "The doorbell",
        ],
    );
}

#[test]
fn frames_after_the_first_few_go_unexplained_but_go() {
    if !require_qemu() {
        return;
    }
    let args = [
        "send",
        "qtest:e1000",
        "--synthetic",
        "64",
        "--count",
        "10",
        "--explain",
    ];
    let output = pinwire(args).assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    in_order(&text, &["Frame 3:", "go unexplained", "frames sent  10"]);
    assert!(!text.contains("Frame 4:"));
}

#[test]
fn a_frame_coming_in_step_by_step() {
    if !require_qemu() {
        return;
    }
    let wire = Wire::new();
    let device = wire.device();
    let mut command = pinwire([
        "recv",
        &device,
        "--explain",
        "--count",
        "1",
        "--promiscuous",
    ]);
    let receiver = thread::spawn(move || command.assert().success().get_output().clone());
    while !receiver.is_finished() {
        wire.send(&frame(1, 99));
        thread::sleep(Duration::from_millis(50));
    }
    let text = String::from_utf8(receiver.join().unwrap().stdout).unwrap();
    in_order(
        &text,
        &[
            "write RCTL ",
            " en upe mpe bam ",
            "§13.4.22",
            "255 of them hold a buffer for the card to fill",
            "Frame 1 comes in",
            "receive descriptor 0, at IOVA",
            "the card's: receive",
            "done: receive",
            "length=99 dd eop",
            "write RDT ",
            "§13.4.29",
            "EtherType 0x88b5",
        ],
    );
}

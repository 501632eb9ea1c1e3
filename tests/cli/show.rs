//! `pinwire show` on QEMU's e1000.

use crate::common::require_qemu;
use crate::{json, pinwire};

fn show<const N: usize>(args: [&str; N]) -> String {
    let mut command = pinwire(["show", "qtest:e1000"]);
    let output = command.args(args).env_remove("COLUMNS").assert().success();
    String::from_utf8(output.get_output().stdout.clone()).unwrap()
}

#[test]
fn frames_go_through_their_stages() {
    if !require_qemu() {
        return;
    }
    let stage = |stage| {
        show([
            "--ring",
            "tx",
            "--descriptors",
            "16",
            "--after",
            "3",
            "--stage",
            stage,
        ])
    };
    let posted = stage("posted");
    assert!(posted.contains("╭▸ 0 ppp····· ········ "), "{posted}");
    assert!(posted.contains("▲ head = tail = 0 "), "{posted}");
    let sent = stage("sent");
    assert!(sent.contains("╭▸ 0 ✓✓✓····· ········ "), "{sent}");
    assert!(sent.contains("▲ head = tail = 3 "), "{sent}");
    // The last of the batch asks for the report that tells of all three.
    assert!(sent.contains("legacy length=64 eop ifcs rs"), "{sent}");
    let reaped = stage("reaped");
    assert!(reaped.contains("╭▸ 0 ········ ········ "), "{reaped}");
    for text in [posted, sent, reaped] {
        assert!(!text.contains('\u{1b}'), "colour without a terminal");
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }
}

#[test]
fn registers_are_named_and_decoded() {
    if !require_qemu() {
        return;
    }
    let text = show(["--registers"]);
    assert!(
        text.contains("TCTL      0400    000400fa  transmit control, §13.4.33"),
        "{text}"
    );
    assert!(text.contains("→ en psp ct=15 cold=64"), "{text}");
    assert!(!text.contains("ring  "), "{text}");
    for group in ["general", "interrupts", "receive", "transmit", "filters"] {
        assert!(text.lines().any(|line| line.trim() == group), "{text}");
    }
}

#[test]
fn a_program_gets_all_of_it() {
    if !require_qemu() {
        return;
    }
    let text = show(["--json", "--after", "5"]);
    let card = json(text.as_bytes());
    assert_eq!(card["device"], "qtest:e1000");
    assert_eq!(card["stats"]["tx_frames"], 5);
    let named = |list: &str, name: &str| {
        let list = card[list].as_array().unwrap();
        list.iter().find(|one| one["name"] == name).unwrap().clone()
    };
    let tctl = named("registers", "TCTL");
    assert_eq!(
        (&tctl["offset"], &tctl["value"]),
        (&0x400.into(), &0x400fa.into())
    );
    assert_eq!(tctl["fields"]["en"], true);
    assert_eq!(tctl["fields"]["ct"], 15);
    assert_eq!(named("registers", "TDT")["value"], 5);

    let ring = named("rings", "transmit");
    assert_eq!((&ring["head"], &ring["tail"]), (&5.into(), &5.into()));
    let descriptors = ring["descriptors"].as_array().unwrap();
    let owners = |owner: &str| {
        descriptors
            .iter()
            .filter(|one| one["owner"] == owner)
            .count()
    };
    assert_eq!(
        (owners("done"), owners("device"), owners("driver")),
        (5, 0, 251)
    );
    assert_eq!(descriptors[4]["buffer"]["length"], 64);
    // Word 0 of a legacy descriptor is the buffer's IOVA.
    assert_eq!(descriptors[4]["words"][0], descriptors[4]["buffer"]["iova"]);
    let receive = named("rings", "receive");
    assert_eq!(receive["descriptors"].as_array().unwrap().len(), 256);
    assert_eq!(receive["tail"], 255);
}

#[test]
fn a_ring_without_room_for_the_frames_is_an_error() {
    if !require_qemu() {
        return;
    }
    let output = pinwire(["show", "qtest:e1000", "--after", "8", "--descriptors", "8"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        stderr.contains("--after 8: the ring had no room for 1 of them"),
        "{stderr}"
    );
}

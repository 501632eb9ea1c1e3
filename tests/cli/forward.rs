//! `pinwire forward`: what goes in at one cable comes out at the other.

use std::fs::File;
use std::thread;

use pcap_file::pcapng::{Block, PcapNgReader};

use crate::common::require_qemu;
use crate::{Wire, frame, json, pinwire};

/// Forwards between two cables, into which frames go again and again, until it has enough: its output
/// and what came out of each.
fn forward(models: [&str; 2], args: &[&str]) -> (std::process::Output, [Vec<Vec<u8>>; 2]) {
    let wires = [Wire::new(), Wire::new()];
    let devices = [0, 1].map(|side| wires[side].device_of(models[side]));
    let mut command = pinwire(["forward", &devices[0], &devices[1]]);
    command.args(args);
    let forwarder = thread::spawn(move || command.assert().success().get_output().clone());
    let mut came = [Vec::new(), Vec::new()];
    while !forwarder.is_finished() {
        let both = came.iter().all(|came| !came.is_empty());
        for (wire, came) in wires.iter().zip(&mut came) {
            // Few, until both let frames through: else one alone might have enough of them.
            for number in 0..if both { 4 } else { 1 } {
                wire.send(&sent(number));
            }
            while let Some(frame) = wire.try_recv() {
                came.push(frame);
            }
        }
    }
    for (wire, came) in wires.iter().zip(&mut came) {
        while let Some(frame) = wire.try_recv() {
            came.push(frame);
        }
    }
    (forwarder.join().unwrap(), came)
}

fn sent(number: u32) -> Vec<u8> {
    frame(number, 60 + 400 * number as usize)
}

#[test]
fn frames_pass_both_ways_and_are_captured_with_the_card_that_they_came_in_by() {
    if !require_qemu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.pcapng");
    let args = ["--count", "200", "--json", "--pcap", path.to_str().unwrap()];
    let (output, came) = forward(["e1000", "e1000"], &args);
    let summary = json(&output.stdout);
    assert_eq!(summary["frames"], 200, "{summary}");
    for (side, came) in ["b", "a"].into_iter().zip(&came) {
        assert_eq!(summary[side]["frames"], came.len(), "{summary}");
        assert!(
            came.iter()
                .all(|frame| (0..4).any(|number| sent(number) == *frame))
        );
        assert!((0..4).all(|number| came.contains(&sent(number))));
        assert_eq!(summary[side]["dropped"]["bad_length"], 0, "{summary}");
    }
    let mut reader = PcapNgReader::new(File::open(path).unwrap()).unwrap();
    let mut captured = [0, 0];
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            captured[packet.interface_id as usize] += 1;
            assert!((0..4).any(|number| sent(number) == *packet.data));
        }
    }
    assert_eq!(captured[0], summary["a"]["frames"].as_u64().unwrap());
    assert_eq!(captured[1], summary["b"]["frames"].as_u64().unwrap());
    assert_eq!(reader.interfaces().len(), 2);
}

#[test]
fn frames_come_from_the_card_that_they_leave_by_and_go_to_the_next_hop() {
    if !require_qemu() {
        return;
    }
    let args = [
        "--count",
        "40",
        "--rewrite-mac",
        "--next-hop-b",
        "02:00:00:00:00:07",
    ];
    let (output, [from_a, from_b]) = forward(["e1000", "e1000"], &args);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("A to B"), "{text}");
    let mac = |last: u8| [0x52, 0x54, 0x00, 0x12, 0x34, last];
    assert!(!from_a.is_empty() && !from_b.is_empty());
    for frame in from_a {
        assert_eq!(
            (&frame[..6], &frame[6..12]),
            (&[2, 0, 0, 0, 0, 2][..], &mac(0x56)[..])
        );
    }
    for frame in from_b {
        assert_eq!(
            (&frame[..6], &frame[6..12]),
            (&[2, 0, 0, 0, 0, 7][..], &mac(0x57)[..])
        );
    }
}

#[test]
fn cards_of_different_kinds_hand_frames_to_each_other() {
    if !require_qemu() {
        return;
    }
    for models in [
        ["e1000", "virtio-net"],
        ["virtio-net,packed=on", "e1000e"],
        ["virtio-net", "virtio-net,packed=on"],
    ] {
        let (output, came) = forward(models, &["--count", "200", "--json"]);
        let summary = json(&output.stdout);
        assert_eq!(summary["frames"], 200, "{models:?}: {summary}");
        for (side, came) in ["b", "a"].into_iter().zip(&came) {
            assert_eq!(summary[side]["frames"], came.len(), "{models:?}: {summary}");
            let known = |frame: &Vec<u8>| (0..4).any(|number| sent(number) == *frame);
            assert!(came.iter().all(known), "{models:?}");
            let all = (0..4).all(|number| came.contains(&sent(number)));
            assert!(all, "{models:?}: {summary}");
        }
    }
}

#[test]
fn cards_that_cannot_share_memory_are_refused() {
    let mut command = pinwire(["forward", "qtest:e1000", "0000:00:03.0"]);
    let output = command.assert().code(1).get_output().clone();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("cannot reach the same memory"), "{text}");
}

//! `--explain` tells what happens in the datasheet's words, in the order in which it does.

use std::io::{BufRead, BufReader};

use crate::{Running, Wire, frame, json, on_every_card, pinwire, spawn};

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

/// A descriptor that the driver has filled, on every card.
const FILLED: &str = "the driver's: ";

/// How the card is set up, and how a frame of 64 bytes leaves it.
fn sending(card: &str) -> &'static [&'static str] {
    match card {
        "e1000" => &[
            "Intel 82540EM",
            "write CTRL ",
            " rst ",
            "§13.4.1",
            "write TDLEN    = 0x00001000",
            "write TCTL ",
            " en psp ",
            "transmit control, §13.4.33",
            FILLED,
            "legacy iova=",
            "length=64 eop ifcs\n",
            "The doorbell",
            "write TDT      = 0x00000001",
            "§13.4.40",
            "done: legacy",
            "length=64 eop ifcs rs dd",
            "head 0 -> 1, tail 0 -> 1",
        ],
        "e1000e" => &[
            "Intel 82574L",
            "write CTRL ",
            " rst ",
            "§10.2.2",
            "write TDLEN[0] = 0x00001000",
            "write TCTL ",
            " en psp ",
            "transmit control, §10.2.6",
            FILLED,
            "legacy iova=",
            "length=64 eop ifcs\n",
            "The doorbell",
            "write TDT[0]   = 0x00000001",
            "§10.2.6",
            "done: legacy",
            "length=64 eop ifcs rs dd",
            "head 0 -> 1, tail 0 -> 1",
        ],
        "virtio-net" => &[
            "virtio-net, split queues",
            "write DEVICE_STATUS = 0x00",
            "§4.1.4.3",
            "read  DEVICE_FEATURE = ",
            "write DRIVER_FEATURE = ",
            "write QUEUE_DESC_LO = ",
            "write DEVICE_STATUS = 0x0f  acknowledge driver driver_ok features_ok",
            FILLED,
            "addr=",
            "len=76 flags=0\n",
            "The driver moves the available index",
            "write NOTIFY_QUEUE = 0x0001",
            "§4.1.4.4",
            "available ring: idx 0 -> 1, entry 0 = chain 0",
            "used ring: idx 0 -> 1, entry 0 = chain 0, 0 bytes written",
        ],
        _ => &[
            "virtio-net, packed queues",
            "write DEVICE_STATUS = 0x00",
            "§4.1.4.3",
            "read  DEVICE_FEATURE = ",
            "write DRIVER_FEATURE = ",
            "write QUEUE_DESC_LO = ",
            "write DEVICE_STATUS = 0x0f  acknowledge driver driver_ok features_ok",
            FILLED,
            "addr=",
            "next to make available 0 -> 1, wrap counter 1",
            "The driver flips the flags of the first descriptor last",
            "write NOTIFY_QUEUE = 0x0001",
            "§4.1.4.4",
            "done: addr=",
            "len=0 id=0 AVAIL USED\n",
        ],
    }
}

#[test]
fn a_frame_going_out_step_by_step() {
    on_every_card(|card| {
        let device = format!("qtest:{card}");
        let args = [
            "send",
            &device,
            "--synthetic",
            "64",
            "--count",
            "1",
            "--explain",
        ];
        let output = pinwire(args).assert().success();
        let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
        in_order(&text, sending(card));
        in_order(
            &text,
            &[
                "its address is 52:54:00:12:34:56; the link is up",
                "Frame 1: 64 bytes",
                "packet buffer",
                "transmit descriptor 0, at IOVA",
                "was 0000000000000000 0000000000000000  the driver's: empty",
                "is  ",
                "without asking the card, and has the frame back",
                "frames sent  1",
            ],
        );
        assert!(!text.contains('\x1b'), "colour where there is no terminal");
        assert!(!text.contains("Frame 2"));
    });
}

/// How 42 bytes of headers and 17 of the file are handed to the card as one frame.
fn two_segments(card: &str) -> &'static [&'static str] {
    match card {
        "virtio-net" => &[
            "the card shall do: IP_CHECKSUM\n",
            "descriptor 0",
            "len=54 flags=NEXT next=1",
            "descriptor 1",
            "len=17 flags=0",
            "entry 0 = chain 0",
        ],
        "virtio-net,packed=on" => &[
            "the card shall do: IP_CHECKSUM\n",
            "descriptor 0",
            "descriptor 1",
            "len=17 id=0 AVAIL",
            "next to make available 0 -> 2, wrap counter 1",
            "done: ",
        ],
        _ => &[
            "the card shall do: IP_CHECKSUM, UDP_CHECKSUM\n",
            "descriptor 0",
            "context ipcss=14",
            "descriptor 1",
            "data iova=",
            "dtalen=42",
            "descriptor 2",
            "dtalen=17",
            "The doorbell",
        ],
    }
}

#[test]
fn a_file_s_frame_shows_both_its_segments() {
    on_every_card(|card| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"in the page cache").unwrap();
        let (device, path) = (format!("qtest:{card}"), file.to_str().unwrap());
        let to = ["--to", "10.1.2.4:9", "--via", "02:00:00:00:00:09"];
        let mut command = pinwire(["send", &device, "--file", path, "--explain", "--json"]);
        let output = command.args(to).assert().success();
        // Standard output is for the program that asked for JSON.
        assert_eq!(json(&output.get_output().stdout)["frames"], 1);
        let text = String::from_utf8(output.get_output().stderr.clone()).unwrap();
        let segments = [
            "Frame 1: 59 bytes",
            "42 bytes at IOVA",
            "packet buffer",
            "17 bytes at IOVA",
            "page cache",
        ];
        in_order(&text, &[&segments[..], two_segments(card)].concat());
    });
}

#[test]
fn frames_after_the_first_few_go_unexplained_but_go() {
    on_every_card(|card| {
        let device = format!("qtest:{card}");
        let args = [
            "send",
            &device,
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
    });
}

/// How the card waits, and what it does with a frame of 99 bytes; virtio has a header of 12 before it.
fn receiving(card: &str) -> &'static [&'static str] {
    match card {
        "e1000" => &[
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
        ],
        "e1000e" => &[
            "write RCTL ",
            " en upe mpe bam ",
            "§10.2.5",
            "255 of them hold a buffer for the card to fill",
            "Frame 1 comes in",
            "receive descriptor 0, at IOVA",
            "the card's: extended iova=",
            "done: extended dd eop length=99",
            "write RDT[0] ",
            "§10.2.5",
        ],
        "virtio-net" => &[
            "write NOTIFY_QUEUE = 0x0000",
            "256 of them hold a buffer for the card to fill",
            "Frame 1 comes in",
            "used ring: idx 0 -> 1, entry 0 = chain 0, 111 bytes written",
            "receive descriptor 0, at IOVA",
            "the card's: addr=",
            "available ring: idx 256 -> 257, entry 0 = chain 0",
        ],
        _ => &[
            "write NOTIFY_QUEUE = 0x0000",
            "256 of them hold a buffer for the card to fill",
            "Frame 1 comes in",
            "receive descriptor 0, at IOVA",
            "id=0 WRITE AVAIL",
            "len=111 id=0 AVAIL USED",
            "id=0 WRITE USED",
            "next to be used 0 -> 1, wrap counter 1",
        ],
    }
}

#[test]
fn a_frame_coming_in_step_by_step() {
    on_every_card(|card| {
        let wire = Wire::new();
        let device = wire.device(card);
        let args = [
            "recv",
            &device,
            "--explain",
            "--count",
            "1",
            "--promiscuous",
            "--seconds",
            "30",
        ];
        let mut receiver = Running(spawn(args));
        let stdout = receiver.0.stdout.take().unwrap();
        let mut lines = BufReader::new(stdout).lines().map(Result::unwrap);
        let mut text = String::new();
        // A frame that comes before all is set up is in the ring when it is looked at first.
        for line in lines.by_ref() {
            text += &line;
            text.push('\n');
            if line.contains("the link is up") {
                break;
            }
        }
        wire.send(&frame(1, 99));
        text.extend(lines.map(|line| line + "\n"));
        assert!(receiver.0.wait().unwrap().success());
        in_order(&text, receiving(card));
        in_order(&text, &["The driver took the frame", "EtherType 0x88b5"]);
    });
}

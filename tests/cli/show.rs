//! `pinwire show` on QEMU's cards.

use serde_json::Value;

use crate::{json, on_every_card, pinwire};

fn show<const N: usize>(card: &str, args: [&str; N]) -> String {
    let mut command = pinwire(["show", &format!("qtest:{card}")]);
    let output = command.args(args).env_remove("COLUMNS").assert().success();
    String::from_utf8(output.get_output().stdout.clone()).unwrap()
}

/// How far driver and device are when three frames are posted, sent, and reaped, as each kind of ring
/// says it.
fn words(card: &str) -> [&'static [&'static str]; 3] {
    match card {
        "virtio-net" => [
            &["▲ idx 0 ", "0 made available and not used yet: "],
            &[
                "▲ idx 3 ",
                "╰ taken back 0 ",
                "3 used and not taken back yet [",
            ],
            &["▲ idx = taken back = 3 "],
        ],
        "virtio-net,packed=on" => [
            &["▲ next available 3 ", "╰ next used 0 ", "len=76 id=1 AVAIL"],
            &[
                "▲ next available 3 ",
                "╰ next used 0 ",
                "len=0 id=0 AVAIL USED",
            ],
            &["▲ next = 3 "],
        ],
        // The last of the batch asks for the report that tells of all three.
        _ => [
            &["▲ head = tail = 0 "],
            &["▲ head = tail = 3 ", "legacy length=64 eop ifcs rs"],
            &["▲ head = tail = 3 "],
        ],
    }
}

#[test]
fn frames_go_through_their_stages() {
    on_every_card(|card| {
        let cells = ["ppp·····", "✓✓✓·····", "········"];
        for ((stage, cells), words) in ["posted", "sent", "reaped"]
            .into_iter()
            .zip(cells)
            .zip(words(card))
        {
            let text = show(
                card,
                [
                    "--ring",
                    "tx",
                    "--descriptors",
                    "16",
                    "--after",
                    "3",
                    "--stage",
                    stage,
                ],
            );
            assert!(text.contains(&format!("╭▸ 0 {cells} ········ ")), "{text}");
            for words in words {
                assert!(text.contains(words), "{words:?} is not in:\n{text}");
            }
            assert!(!text.contains('\u{1b}'), "colour without a terminal");
            assert!(
                text.lines().all(|line| line.chars().count() <= 80),
                "{text}"
            );
        }
    });
}
/// A register with its fields, and the groups that there are.
fn registers(card: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match card {
        "e1000" => (
            &[
                "TCTL      0400    000400fa  transmit control, §13.4.33",
                "→ en psp ct=15 cold=64",
            ],
            &["general", "interrupts", "receive", "transmit", "filters"],
        ),
        "e1000e" => (
            &[
                "TCTL                0400    1003f0fa  transmit control, §10.2.6",
                "→ en psp ct=15 cold=63 mulr",
            ],
            &[
                "general",
                "PCIe",
                "interrupts",
                "receive",
                "transmit",
                "filters",
            ],
        ),
        _ => (
            &[
                "DEVICE_STATUS                0014    0f        how far driver and device",
                "→ acknowledge driver",
            ],
            &[
                "device (common configuration)",
                "queues (common configuration)",
                "network card (device",
            ],
        ),
    }
}

#[test]
fn registers_are_named_and_decoded() {
    on_every_card(|card| {
        let text = show(card, ["--registers"]);
        let (register, groups) = registers(card);
        for words in register {
            assert!(text.contains(words), "{words:?} is not in:\n{text}");
        }
        for group in groups {
            assert!(
                text.lines().any(|line| line.trim() == *group),
                "{group}: {text}"
            );
        }
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(!text.contains("descriptors at IOVA"), "{text}");
    });
}

fn named(card: &Value, list: &str, name: &str) -> Value {
    let list = card[list].as_array().unwrap();
    list.iter().find(|one| one["name"] == name).unwrap().clone()
}

#[test]
fn a_program_gets_all_of_it() {
    on_every_card(|card| {
        let text = show(card, ["--json", "--after", "5"]);
        let shown = json(text.as_bytes());
        let (model, _) = card.split_once(',').unwrap_or((card, ""));
        assert_eq!(shown["device"], format!("qtest:{model}"));

        let transmit = named(&shown, "rings", "transmit");
        let descriptors = transmit["descriptors"].as_array().unwrap();
        let owners = ["done", "device", "driver"].map(|owner| {
            let owned = descriptors.iter().filter(|one| one["owner"] == owner);
            owned.count()
        });
        assert_eq!(owners, [5, 0, 251]);
        // Word 0 of all of them is the buffer's IOVA, which on virtio begins with a header of 12 bytes.
        let header = if model == "virtio-net" { 12 } else { 0 };
        assert_eq!(descriptors[4]["buffer"]["length"], 64 + header);
        assert_eq!(descriptors[4]["words"][0], descriptors[4]["buffer"]["iova"]);
        let receive = named(&shown, "rings", "receive");
        assert_eq!(receive["descriptors"].as_array().unwrap().len(), 256);
        match card {
            "virtio-net" => check_split(&shown, &transmit, &receive),
            "virtio-net,packed=on" => check_packed(&shown, &transmit, &receive),
            _ => check_intel(&shown, &transmit, &receive),
        }
    });
}

fn check_intel(card: &Value, transmit: &Value, receive: &Value) {
    assert_eq!(card["stats"]["tx_frames"], 5);
    let tctl = named(card, "registers", "TCTL");
    assert_eq!(tctl["offset"], 0x400);
    assert_eq!(
        (&tctl["fields"]["en"], &tctl["fields"]["ct"]),
        (&true.into(), &15.into())
    );
    assert_eq!(named(card, "registers", "TDT")["value"], 5);
    assert_eq!(
        (&transmit["head"], &transmit["tail"]),
        (&5.into(), &5.into())
    );
    assert_eq!(receive["tail"], 255);
}

fn check_virtio(card: &Value, has_packed: bool) {
    let status = named(card, "registers", "DEVICE_STATUS");
    assert_eq!(
        (&status["offset"], &status["value"]),
        (&0x14.into(), &0xf.into())
    );
    assert_eq!(status["fields"]["driver_ok"], true);
    let packed = named(card, "features", "RING_PACKED");
    assert_eq!(
        (&packed["bit"], &packed["negotiated"]),
        (&34.into(), &has_packed.into())
    );
}

fn check_split(card: &Value, transmit: &Value, receive: &Value) {
    check_virtio(card, false);
    let (available, used) = (&transmit["split"]["available"], &transmit["split"]["used"]);
    assert_eq!((&available["idx"], &used["idx"]), (&5.into(), &5.into()));
    assert_eq!(
        (&available["ring"][4], &used["ring"][4]),
        (&4.into(), &[4, 0][..].into())
    );
    assert_eq!(transmit["split"]["taken_back"], 0);
    assert_eq!(receive["split"]["available"]["idx"], 256);
}

fn check_packed(card: &Value, transmit: &Value, receive: &Value) {
    check_virtio(card, true);
    let transmit = &transmit["packed"];
    assert_eq!(
        (&transmit["next_available"], &transmit["next_used"]),
        (&5.into(), &0.into())
    );
    assert_eq!(transmit["driver_wrap_counter"], true);
    // It is full: the driver has come round once.
    let receive = &receive["packed"];
    assert_eq!(
        (&receive["next_available"], &receive["driver_wrap_counter"]),
        (&0.into(), &false.into())
    );
}

#[test]
fn a_ring_without_room_for_the_frames_is_an_error() {
    on_every_card(|card| {
        let most = if card.starts_with("virtio") { 8 } else { 7 };
        let after = (most + 1).to_string();
        let device = format!("qtest:{card}");
        let args = ["show", &device, "--after", &after, "--descriptors", "8"];
        let output = pinwire(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        let says = format!(
            "--after {after}: the ring had no room for 1 of them; of 8 descriptors (--descriptors) it takes \
             {most} at once"
        );
        assert!(stderr.contains(&says), "{stderr}");
    });
}

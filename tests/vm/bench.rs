//! `pinwire bench` and the cost of a packet in the VM, over VFIO.
//!
//! Rates are for people to read; what is tested is that all of them are there, that no system call is
//! made for a packet, as strace counts them, and no more than one notification for a batch, as QEMU does.
#![cfg(feature = "cli")]

use std::collections::BTreeMap;

use serde_json::Value;

use crate::common;

/// What `command` prints in a VM with two cards that nobody listens to, 0000:00:03.0 bound to
/// vfio-pci and eth1 left to the kernel; nothing where VMs are not wanted.
fn vm(command: &str) -> Option<String> {
    let command = format!("pinwire bind 0000:00:03.0 >&2 || exit 1\n{command}");
    let output = common::vm(&["--nic", "e1000,e1000"], &command)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn bench_measures_the_card_and_its_twin_in_the_kernel() {
    let command = "
        pinwire bench 0000:00:03.0 tx --size 64,1514 --seconds 0.2 --rounds 2 --kernel eth1 --json || exit 2
        pinwire bench 0000:00:03.0 limit --size 64 --seconds 0.2 --rounds 1 --json || exit 3
        cat /sys/class/net/eth1/flags
        ip addr add 10.1.1.1/24 dev eth1
        pinwire bench 0000:00:03.0 tx --kernel eth1 2>&1 && exit 4
        pinwire bench 0000:00:03.0 tx --kernel eth9 2>&1 && exit 5
        cat /sys/class/net/eth1/flags";
    let Some(text) = vm(command) else { return };
    let mut lines = text.lines();
    let mut rows = || -> Vec<Value> {
        let report: Value = serde_json::from_str(lines.next().unwrap()).expect(&text);
        assert_eq!(report["device"], "0000:00:03.0");
        report["results"].as_array().unwrap().clone()
    };
    let (tx, limit) = (rows(), rows());
    let names = |rows: &[Value]| -> Vec<(u64, String)> {
        let name = |row: &Value| {
            (
                row["size"].as_u64().unwrap(),
                row["what"].as_str().unwrap().to_owned(),
            )
        };
        rows.iter().map(name).collect()
    };
    let contenders = [
        "limit",
        "tx",
        "AF_PACKET sendto",
        "AF_PACKET sendmmsg x64",
        "AF_PACKET TX_RING",
    ];
    let expected: Vec<_> = [64, 1514]
        .into_iter()
        .flat_map(|size| contenders.map(|name| (size, name.to_owned())))
        .collect();
    assert_eq!(names(&tx), expected);
    assert_eq!(names(&limit), [(64, "limit".to_owned())]);
    for row in tx.iter().chain(&limit) {
        assert!(row["kpps"]["median"].as_f64() > Some(0.0), "{row}");
        let kernel = row["what"].as_str().unwrap().starts_with("AF_PACKET");
        assert_eq!(row["ours_is_times"].is_number(), kernel, "{row}");
        assert_eq!(row["share_of_limit"].is_number(), !kernel, "{row}");
    }

    // IFF_UP is bit 0: down as it was found, whether the bench went well or not.
    let rest: Vec<&str> = lines.collect();
    let (first, last) = (rest.first().unwrap(), rest.last().unwrap());
    assert_eq!((*first, *last), ("0x1002", "0x1002"), "{text}");
    assert!(text.contains("eth1 has an address (10.1.1.1)"), "{text}");
    assert!(
        text.contains("eth9: there is no such network interface"),
        "{text}"
    );
}

/// Calls by name, from `strace -c`.
fn calls(table: &str) -> BTreeMap<String, u64> {
    table
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let count = words.get(3)?.parse().ok()?;
            let name = *words.last()?;
            (name != "total").then(|| (name.to_owned(), count))
        })
        .collect()
}

/// Is strace there, to count? Where it is not, says so; the test must return then.
#[must_use]
fn has_strace() -> bool {
    let version = std::process::Command::new("strace").arg("-V").output();
    if version.is_err() {
        common::not_run("strace is missing on this host, and so in the VM; install it");
    }
    version.is_ok()
}

/// What a command said of itself as JSON, and the system calls that it made.
struct Run {
    said: Value,
    calls: BTreeMap<String, u64>,
}

impl Run {
    /// Not the very same each time: a device that has a thread of its own may not get to it for long, and
    /// then the sender naps.
    fn calls_but_naps(&self) -> u64 {
        let naps = self.calls.get("clock_nanosleep").unwrap_or(&0);
        self.calls.values().sum::<u64>() - naps
    }
}

/// The runs of a script, which are all the same command: for each the JSON, then what strace counted,
/// then `==`.
fn runs(nics: &[&str], script: &str) -> Option<Vec<Run>> {
    let output = common::vm(nics, script)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{complaint}");
    let run = |text: &str| {
        let (said, table) = text.split_once('\n').expect("JSON, then a table");
        Run {
            said: serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {text}")),
            calls: calls(table),
        }
    };
    Some(text.split_terminator("==\n").map(run).collect())
}

/// Many frames make no more system calls than few do; but for a handful, for memory that the allocator
/// asks for, waits for the card's reset, and a look after an idle card now and then, which is more often where
/// the machine has much else to do.
fn check_calls(card: &str, [few, many]: [&Run; 2], frames: impl Fn(&Run) -> u64) {
    assert!(few.calls["ioctl"] > 10, "{card}: {:?}", few.calls);
    let more = frames(many).saturating_sub(frames(few));
    // So many that a call a batch of 64 would be seen, and one each fourth batch.
    assert!(more > 4_000, "{card}: only {more} frames more");
    let some = 20.max(more / 256);
    let calls = many.calls_but_naps().saturating_sub(few.calls_but_naps());
    assert!(
        calls < some,
        "{card}: {calls} system calls more for {more} frames more: {:?}, then {:?}",
        few.calls,
        many.calls
    );
}

const CARDS: [&str; 4] = ["e1000", "e1000e", "virtio", "virtio-packed"];

#[test]
fn a_packet_costs_no_system_call() {
    if !has_strace() {
        return;
    }
    let script = "
        for card in 3 4 5 6; do
            pinwire bind 0000:00:0$card.0 >&2 || exit 1
            for frames in 20000 20000 400000; do
                strace -f -c -o /tmp/calls pinwire send 0000:00:0$card.0 --synthetic 64 --count $frames --json || exit 2
                cat /tmp/calls; echo ==
            done
        done";
    let Some(runs) = runs(&["--nic", &CARDS.join(",")], script) else {
        return;
    };
    assert_eq!(runs.len(), 3 * CARDS.len());
    for (card, runs) in CARDS.iter().zip(runs.chunks(3)) {
        // The first one may find things to be made ready.
        check_calls(card, [&runs[1], &runs[2]], |run| {
            run.said["frames"].as_u64().expect("a number")
        });
    }
}

#[test]
fn a_packet_that_comes_in_or_passes_costs_who_polls_no_system_call() {
    if !has_strace() {
        return;
    }
    // On one hub four cards and one that floods it; beside it four more, into the void. What is received
    // is filtered out: to show it would be a call.
    let nics = [&CARDS[..], &CARDS, &["e1000"]].concat().join(",");
    let nets = [["hub:0"; 4], ["none"; 4]].concat().join(",") + ",hub:0";
    let script = "
        pinwire bind 0000:00:03.0 0000:00:04.0 0000:00:05.0 0000:00:06.0 0000:00:07.0 \
            0000:00:08.0 0000:00:09.0 0000:00:0a.0 0000:00:0b.0 >&2 || exit 1
        pinwire send 0000:00:0b.0 --synthetic 64 >/dev/null &
        counted() { strace -f -c -o /tmp/calls pinwire \"$@\" --wait poll --json || exit 2; cat /tmp/calls; echo ==; }
        for card in 3 4 5 6; do
            for seconds in 0.5 2.5; do
                counted recv 0000:00:0$card.0 --promiscuous --ethertype 0x0800 --seconds $seconds
            done
        done
        for cards in '3 8' '4 9' '5 a' '6 7'; do
            set -- $cards
            for frames in 5000 30000; do
                counted forward 0000:00:0$1.0 0000:00:0$2.0 --count $frames --seconds 60
            done
        done
        kill $!";
    let Some(runs) = runs(&["--nic", &nics, "--net", &nets], script) else {
        return;
    };
    assert_eq!(runs.len(), 2 * 2 * CARDS.len());
    let (received, passed) = runs.split_at(2 * CARDS.len());
    for (card, runs) in CARDS.iter().zip(received.chunks(2)) {
        check_calls(card, [&runs[0], &runs[1]], |run| {
            run.said["summary"]["filtered_out"]
                .as_u64()
                .expect("a number")
        });
    }
    for (card, runs) in CARDS.iter().zip(passed.chunks(2)) {
        check_calls(card, [&runs[0], &runs[1]], |run| {
            run.said["frames"].as_u64().expect("a number")
        });
    }
}

const BATCHES: usize = 500;

/// How often QEMU was notified of that many batches of frames to send.
fn notifications(card: &str) -> Option<usize> {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join(card);
    let trace = format!("virtio_queue_notify,{}", log.display());
    let frames = 64 * BATCHES;
    let command = format!(
        "pinwire bind 0000:00:03.0 >&2 || exit 1
        pinwire send 0000:00:03.0 --synthetic 64 --batch 64 --count {frames} --json"
    );
    let output = common::vm(&["--nic", card, "--trace", &trace], &command)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let sent: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect(&text);
    assert_eq!(sent["frames"], frames, "{text}");
    // QEMU's own account; queue 1 of a card with one pair is the one that sends, and no other device
    // of the VM's is so busy with its second queue.
    let log = std::fs::read_to_string(log).expect("QEMU's trace");
    let told = log.lines().filter(|line| line.contains(" n 1 ")).count();
    assert!(told > 0, "{card}: {log}");
    Some(told)
}

#[test]
fn virtio_is_notified_at_most_once_a_batch() {
    for card in ["virtio", "virtio-packed"] {
        let Some(told) = notifications(card) else {
            return;
        };
        assert!(told <= BATCHES, "{card}: {told} for {BATCHES} batches");
    }
}

/// How fast each card must be, beside what it is measured against in the same run. A benchmark, for a machine
/// that does nothing else, and never in CI; a few minutes a card:
///
/// ```text
/// PINWIRE_VM=1 cargo test --test vm bench:: -- --ignored --nocapture
/// ```
mod speed {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// Two at once would measure each other.
    static MACHINE: Mutex<()> = Mutex::new(());

    #[test]
    #[ignore = "a benchmark"]
    fn e1000() {
        is_met_by("e1000", 0.85);
    }

    #[test]
    #[ignore = "a benchmark"]
    fn e1000e() {
        is_met_by("e1000e", 0.85);
    }

    #[test]
    #[ignore = "a benchmark"]
    fn virtio_split() {
        is_met_by("virtio", 0.90);
    }

    #[test]
    #[ignore = "a benchmark"]
    fn virtio_packed() {
        is_met_by("virtio-packed", 0.90);
    }

    /// All is measured and told before anything fails.
    fn is_met_by(card: &str, share_of_limit: f64) {
        let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        let Some([tx, rx, rtt]) = alone_and_on_a_wire(card) else {
            return;
        };
        let forward = forwarding(card).expect("there was a VM just now");
        let share = number(row(&tx, "tx"), "share_of_limit");
        let times = number(row(&rx, "AF_PACKET recvmmsg x64"), "ours_is_times");
        let trip = |what| number(&row(&rtt, what)["micros"], "median");
        let of_the_kernels = trip("poll") / trip("AF_PACKET");
        let lost = number(row(&forward, "forward at 0.8"), "lost");
        let mut criteria = vec![
            ("sending, of the limit", share, share >= share_of_limit),
            ("receiving, times AF_PACKET", times, times >= 2.0),
            (
                "a polled round trip, of AF_PACKET's",
                of_the_kernels,
                of_the_kernels <= 0.5,
            ),
            ("lost at 0.8 of what it forwards", lost, lost == 0.0),
        ];
        if card.starts_with("virtio") {
            let told = notifications(card).expect("a VM") as f64 / BATCHES as f64;
            criteria.push(("notifications a batch", told, told <= 1.0));
        }
        for (what, found, is_met) in &criteria {
            let verdict = if *is_met { "met" } else { "NOT MET" };
            println!("{card}: {what}: {found:.2}: {verdict}");
        }
        let unmet: Vec<_> = criteria.iter().filter(|(.., is_met)| !is_met).collect();
        assert!(unmet.is_empty(), "{card}: {unmet:?}");
    }

    /// `pinwire bench` of a card that has no cable, and of one beside its twins, one of which is the kernel's.
    fn alone_and_on_a_wire(card: &str) -> Option<[Value; 3]> {
        let script = "
            pinwire bind 0000:00:03.0 0000:00:04.0 0000:00:05.0 >&2 || exit 1
            kernel=$(ls /sys/bus/pci/devices/0000:00:06.0/net /sys/bus/pci/devices/0000:00:06.0/virtio*/net 2>/dev/null | grep eth)
            bench() { pinwire bench \"$@\" --size 64 --rounds 9 --json || exit 2; }
            bench 0000:00:03.0 tx
            bench 0000:00:04.0 rx --from 0000:00:05.0 --kernel $kernel
            bench 0000:00:04.0 rtt --through 0000:00:05.0 --kernel $kernel";
        let nics = [card; 4].join(",");
        let reports = reports(&["--nic", &nics, "--net", "none,hub:0,hub:0,hub:0"], script)?;
        Some(reports.try_into().expect("three reports"))
    }

    fn forwarding(card: &str) -> Option<Value> {
        let script = "
            pinwire bind 0000:00:03.0 0000:00:04.0 0000:00:05.0 0000:00:06.0 >&2 || exit 1
            pinwire bench 0000:00:04.0 forward --from 0000:00:03.0 --to 0000:00:05.0 --sink 0000:00:06.0 \
                --size 64 --rounds 9 --json";
        let nics = [card; 4].join(",");
        let reports = reports(
            &["--nic", &nics, "--net", "hub:0,hub:0,hub:1,hub:1"],
            script,
        )?;
        reports.into_iter().next()
    }

    fn reports(options: &[&str], script: &str) -> Option<Vec<Value>> {
        let output = common::vm(options, script)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}{complaint}");
        let report =
            |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}"));
        Some(text.lines().map(report).collect())
    }

    /// The row of a report.
    fn row<'a>(report: &'a Value, what: &str) -> &'a Value {
        let rows = report["results"].as_array().expect("rows");
        let found = rows.iter().find(|row| row["what"] == what);
        found.unwrap_or_else(|| panic!("no {what:?} in {report}"))
    }

    fn number(row: &Value, key: &str) -> f64 {
        row[key]
            .as_f64()
            .unwrap_or_else(|| panic!("no {key} in {row}"))
    }
}

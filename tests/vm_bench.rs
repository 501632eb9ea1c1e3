//! `pinwire bench` and the cost of a packet in the VM, over VFIO.
//!
//! Rates are for people to read; what is tested is that all of them are there, that no system call is
//! made for a packet, as strace counts them, and no more than one notification for a batch, as QEMU does.
#![cfg(feature = "cli")]

mod common;

use std::collections::BTreeMap;

use serde_json::Value;

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

#[test]
fn a_packet_costs_no_system_call() {
    if std::process::Command::new("strace")
        .arg("-V")
        .output()
        .is_err()
    {
        common::not_run("strace is missing on this host, and so in the VM; install it");
        return;
    }
    let command = "
        for card in 3 4 5 6; do
            pinwire bind 0000:00:0$card.0 >&2 || exit 1
            for frames in 20000 20000 400000; do
                strace -f -c -o /tmp/calls pinwire send 0000:00:0$card.0 --synthetic 64 --count $frames --json >&2 || exit 2
                cat /tmp/calls; echo ==
            done
        done";
    let cards = ["e1000", "e1000e", "virtio", "virtio-packed"];
    let Some(output) = common::vm(&["--nic", &cards.join(",")], command) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let runs: Vec<_> = text.split("==\n").map(calls).collect();
    for (card, runs) in cards.iter().zip(runs.chunks(3)) {
        let [first, few, many] = runs else {
            panic!("{text}")
        };
        assert!(few["ioctl"] > 10 && first["execve"] == 1, "{card}: {text}");
        // Not the very same: memory that the allocator asks for, waits for the card's reset, and naps
        // when a device that has a thread of its own does not get to it for long.
        let total = |calls: &BTreeMap<String, u64>| -> u64 {
            let naps = calls.get("clock_nanosleep").unwrap_or(&0);
            calls.values().sum::<u64>() - naps
        };
        let more = total(many).saturating_sub(total(few));
        assert!(
            more < 20,
            "{card}: {more} system calls more for 380000 frames more: {text}"
        );
    }
}

#[test]
fn virtio_is_notified_at_most_once_a_batch() {
    const BATCHES: usize = 500;
    let directory = tempfile::tempdir().expect("a directory");
    for card in ["virtio", "virtio-packed"] {
        let log = directory.path().join(card);
        let trace = format!("virtio_queue_notify,{}", log.display());
        let frames = 64 * BATCHES;
        let command = format!(
            "pinwire bind 0000:00:03.0 >&2 || exit 1
            pinwire send 0000:00:03.0 --synthetic 64 --batch 64 --count {frames} --json"
        );
        let Some(output) = common::vm(&["--nic", card, "--trace", &trace], &command) else {
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let sent: Value =
            serde_json::from_str(text.lines().last().unwrap_or_default()).expect(&text);
        assert_eq!(sent["frames_counted_by_device"], frames, "{text}");
        // QEMU's own account; queue 1 of a card with one pair is the one that sends, and no other device
        // of the VM's is so busy with its second queue.
        let log = std::fs::read_to_string(log).expect("QEMU's trace");
        let told = log.lines().filter(|line| line.contains(" n 1 ")).count();
        assert!(told > 0, "{card}: {log}");
        assert!(told <= BATCHES, "{card}: {told} for {BATCHES} batches");
    }
}

//! The driver over VFIO, in the VM: the tests of `tests/nic` and `tests/guest`, run inside, and what
//! can only be seen from outside.

use std::io::Write;

use crate::common;

/// Runs `command` in a VM with two NICs on one hub, an e1000 that is ours and another that is the
/// kernel's.
fn run_with_twin(options: &[&str], tests: &[&str], command: &str) -> Option<String> {
    run_with_twins("e1000,e1000", options, tests, command)
}

/// The same with these two cards.
fn run_with_twins(nics: &str, options: &[&str], tests: &[&str], command: &str) -> Option<String> {
    if !common::wants_vm() {
        return None;
    }
    let share = tempfile::tempdir().expect("a directory");
    for test in tests {
        common::put_test(test, share.path());
    }
    let path = share.path().to_str().expect("a UTF-8 path");
    // The twin's model takes frames in a second after its receiver was set up.
    let setup = "ip link set eth1 mtu 9000 promisc on up
        until [ \"$(cat /sys/class/net/eth1/carrier)\" = 1 ]; do sleep 0.1; done; sleep 1.5
        pinwire bind 0000:00:03.0 >&2 || exit 1
        export PINWIRE_DEVICE=0000:00:03.0 PINWIRE_WIRE=eth1 PINWIRE_DIRS=/tmp:/disk\n";
    let common = ["--nic", nics, "--net", "hub:0,hub:0", "--share", path];
    let output = common::vm(
        &[&common, options].concat(),
        &format!("{}\n{setup}{command}", common::NO_IPV6),
    )?;
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}\n{err}");
    Some(out)
}

/// `card` is its name in the table of what has passed.
fn the_tests_of_a_card_pass(nics: &str, card: &str) {
    let table = "cat /tmp/table | sed 's/^/passed: /'";
    let all = format!(
        "export PINWIRE_MODEL={card} PINWIRE_TABLE=/tmp/table
        /share/nic --test-threads=1 || exit 1
        {table}"
    );
    let all = all.as_str();
    let Some(out) = run_with_twins(nics, &["--disk", "64M"], &["nic"], all) else {
        return;
    };
    assert!(out.contains("21 passed; 0 failed"), "{nics}: {out}");
    let passed = out.lines().filter_map(|line| line.strip_prefix("passed: "));
    let passed: String = passed.flat_map(|line| [line, "\n"]).collect();
    if let Some(table) = std::env::var_os("PINWIRE_TABLE") {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(table);
        file.and_then(|mut file| file.write_all(passed.as_bytes()))
            .expect("PINWIRE_TABLE can be written");
    }
}

#[test]
fn the_tests_of_a_card_pass_over_vfio_on_an_e1000() {
    the_tests_of_a_card_pass("e1000,e1000", "e1000");
}

#[test]
fn the_tests_of_a_card_pass_over_vfio_on_an_e1000e() {
    the_tests_of_a_card_pass("e1000e,e1000e", "e1000e");
}

#[test]
fn the_tests_of_a_card_pass_over_vfio_on_virtio_net_with_split_queues() {
    the_tests_of_a_card_pass("virtio,virtio", "virtio-net");
}

#[test]
fn the_tests_of_a_card_pass_over_vfio_on_virtio_net_with_packed_queues() {
    the_tests_of_a_card_pass("virtio-packed,virtio", "virtio-net,packed=on");
}

#[test]
fn the_page_cache_of_tmpfs_and_ext4_is_sent() {
    let all = "/share/guest --test-threads=1 --skip dma_outside --skip killed";
    let Some(out) = run_with_twin(&["--disk", "64M"], &["guest"], all) else {
        return;
    };
    assert!(out.contains("3 passed; 0 failed"), "{out}");
}

#[test]
fn the_iommu_stops_what_is_not_mapped_and_says_where() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("faults");
    let trace = format!("vtd_dmar_fault,{}", log.display());
    let one = "/share/guest --test-threads=1 --nocapture dma_outside";
    let Some(out) = run_with_twin(&["--trace", &trace], &["guest"], one) else {
        return;
    };
    let outside: Vec<_> = out
        .split("outside 0x")
        .skip(1)
        .filter_map(|rest| rest.lines().next())
        .collect();
    assert_eq!(outside.len(), 3, "{out}");
    let faults = std::fs::read_to_string(log).expect("QEMU's trace");
    for address in outside {
        for write in ["write 0", "write 1"] {
            let seen = faults
                .lines()
                .any(|line| line.contains(address) && line.contains(write));
            assert!(seen, "no fault at {address} with {write}:\n{faults}");
        }
    }
}

#[test]
fn a_program_killed_in_the_middle_leaves_nothing_behind() {
    // Without hugepages, so that what a dead program had is given to the next that asks.
    let options = ["--hugepages", "0"];
    let all = "/share/guest --test-threads=1 --nocapture killed";
    let Some(out) = run_with_twin(&options, &["guest"], all) else {
        return;
    };
    assert!(out.contains("2 passed; 0 failed"), "{out}");
}

/// What the file holds from `start` on: words that are all different.
fn content(start: u64, into: &mut [u8]) {
    for (word, i) in into.chunks_exact_mut(8).zip(start / 8..) {
        word.copy_from_slice(&i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
}

#[test]
fn a_file_of_a_gibibyte_leaves_whole() {
    const LEN: u64 = 1 << 30;
    const HEADERS: usize = 42;
    if !common::wants_vm() {
        return;
    }
    let share = tempfile::tempdir().expect("a directory");
    let path = share.path().to_str().expect("a UTF-8 path");
    let file = std::fs::File::create(share.path().join("file")).expect("a file");
    let mut file = std::io::BufWriter::new(file);
    let mut page = vec![0; 1 << 20];
    for start in (0..LEN).step_by(page.len()) {
        content(start, &mut page);
        file.write_all(&page).expect("room for the file");
    }
    file.flush().expect("room for the file");

    let command = "cp /share/file /tmp/file && pinwire bind 0000:00:03.0 >&2 && pinwire send \
        0000:00:03.0 --file /tmp/file --to 10.0.0.2:7000 --via 02:00:00:00:00:02 --prove --json";
    let options = ["--mem", "2900", "--share", path, "--pcap", path];
    let Some(output) = common::vm(&options, command) else {
        return;
    };
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{out}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );

    // What QEMU wrote of the cable, datagram by datagram.
    let capture = std::fs::File::open(share.path().join("nic0.pcap")).expect("QEMU's capture");
    let mut capture = pcap_file::pcap::PcapReader::new(capture).expect("a capture");
    let mut at = 0;
    while let Some(packet) = capture.next_packet() {
        let packet = packet.expect("a whole capture");
        assert!(packet.data.len() > HEADERS, "at {at}");
        let payload = &packet.data[HEADERS..];
        content(at, &mut page[..payload.len()]);
        assert_eq!(
            payload,
            &page[..payload.len()],
            "the datagram from byte {at} on"
        );
        at += (packet.data.len() - HEADERS) as u64;
    }
    assert_eq!(at, LEN);
}

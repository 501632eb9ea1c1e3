//! The driver over VFIO, in the VM: the tests of `tests/nic` and `tests/guest`, run inside, and what
//! can only be seen from outside.

use std::io::Write;

use crate::common;

/// For the VM's shell: `twin SLOT` brings up the kernel's card there, and gives the name of its interface.
const TWIN: &str = "
    twin() {
        wire=$(cd /sys/bus/pci/devices/0000:00:$1.0; ls -d net/* virtio*/net/* 2>/dev/null); wire=${wire##*/}
        ip link set $wire mtu 9000 promisc on up
        until [ \"$(cat /sys/class/net/$wire/carrier)\" = 1 ]; do sleep 0.1; done
        # The twin's model takes frames in a second after its receiver was set up.
        sleep 1.5
        echo $wire
    }
    export PINWIRE_DIRS=/tmp:/disk\n";

/// Runs `command` in a VM whose share has the programs `tests`; gives what it printed.
fn run(options: &[&str], tests: &[&str], command: &str) -> Option<String> {
    if !common::wants_vm() {
        return None;
    }
    let share = tempfile::tempdir().expect("a directory");
    for test in tests {
        common::put_test(test, share.path());
    }
    let path = share.path().to_str().expect("a UTF-8 path");
    let output = common::vm(
        &[&["--share", path], options].concat(),
        &format!("{}{TWIN}{command}", common::NO_IPV6),
    )?;
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}\n{err}");
    Some(out)
}

/// Runs `guest` in a VM with two NICs on one hub, an e1000 that is ours and another that is the kernel's.
fn run_guest(options: &[&str], arguments: &str) -> Option<String> {
    let command = format!(
        "export PINWIRE_DEVICE=0000:00:03.0 PINWIRE_WIRE=$(twin 04)
        pinwire bind 0000:00:03.0 >&2 || exit 1
        /share/guest --test-threads=1 {arguments}"
    );
    let common = ["--nic", "e1000,e1000", "--net", "hub:0,hub:0"];
    run(&[&common, options].concat(), &["guest"], &command)
}

/// Each card in a slot before the kernel's, its twin, and its name in the table of what has passed.
const CARDS: [(&str, &str); 4] = [
    ("e1000,e1000", "e1000"),
    ("e1000e,e1000e", "e1000e"),
    ("virtio,virtio", "virtio-net"),
    ("virtio-packed,virtio", "virtio-net,packed=on"),
];

/// Tests of `tests/nic` beside the claims.
const PECULIAR: usize = 3;

#[test]
fn the_tests_of_a_card_pass_over_vfio_on_each() {
    let nics = CARDS.map(|(nics, _)| nics).join(",");
    let hubs = [0, 1, 2, 3].map(|hub| format!("hub:{hub},hub:{hub}"));
    let mut command = String::from("export PINWIRE_TABLE=/tmp/table\n");
    for (slot, (_, card)) in (3..).step_by(2).zip(CARDS) {
        let ours = format!("0000:00:{slot:02x}.0");
        let twin = slot + 1;
        command += &format!(
            "pinwire bind {ours} >&2 || exit 1
            export PINWIRE_DEVICE={ours} PINWIRE_WIRE=$(twin {twin:02x}) PINWIRE_MODEL={card}
            echo \"--- {card}\"; /share/nic --test-threads=1 || exit 1\n"
        );
    }
    command += "sed 's/^/passed: /' /tmp/table";
    let options = ["--nic", &nics, "--net", &hubs.join(","), "--disk", "64M"];
    let Some(out) = run(&options, &["nic"], &command) else {
        return;
    };
    for (_, card) in CARDS {
        let (_, said) = out.split_once(&format!("--- {card}\n")).expect(card);
        let own = said.split("--- ").next().unwrap();
        let all = pinwire::testing::CLAIMS.len() + PECULIAR;
        assert!(
            own.contains(&format!("{all} passed; 0 failed")),
            "{card}: {out}"
        );
    }
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
fn the_page_cache_of_tmpfs_and_ext4_is_sent() {
    let all = "--skip dma_outside --skip killed";
    let Some(out) = run_guest(&["--disk", "64M"], all) else {
        return;
    };
    assert!(out.contains("3 passed; 0 failed"), "{out}");
}

#[test]
fn the_iommu_stops_what_is_not_mapped_and_says_where() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("faults");
    let trace = format!("vtd_dmar_fault,{}", log.display());
    let Some(out) = run_guest(&["--trace", &trace], "--nocapture dma_outside") else {
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
    let Some(out) = run_guest(&options, "--nocapture killed") else {
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

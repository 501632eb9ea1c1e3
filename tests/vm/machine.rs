//! The VM itself: what the tests that run in it rely on. None of our driver code is involved.

use std::process::Output;

use crate::common;

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn output_and_exit_code_come_out_unchanged() {
    // Every byte value, then enough to fill every buffer on the way; something is left running at the end.
    let command = "for i in $(seq 0 255); do printf \"\\\\$(printf %o $i)\"; done; seq 1 300000; \
                   echo to stderr >&2; sleep 1000 & exit 42";
    let Some(output) = common::vm(&[], command) else {
        return;
    };
    assert_eq!(output.status.code(), Some(42), "{}", stderr(&output));
    let mut expected: Vec<u8> = (0..=255).collect();
    for i in 1..=300_000 {
        expected.extend_from_slice(format!("{i}\n").as_bytes());
    }
    assert!(output.stdout == expected, "{} bytes", output.stdout.len());
    assert!(
        stderr(&output).ends_with("to stderr\n"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn nics_sit_in_order_each_with_its_kernel_driver_and_a_group_of_its_own() {
    let command = r#"
        for device in /sys/bus/pci/devices/*; do
            echo "${device##*/} $(basename "$(readlink "$device/driver")") \
                $(basename "$(readlink "$device/iommu_group")") $(ls "$device/iommu_group/devices" | wc -l)"
        done
        cat /sys/class/net/eth*/operstate
        B=0000:00:04.0; D=/sys/bus/pci/devices/$B
        echo $B >$D/driver/unbind; echo vfio-pci >$D/driver_override; echo $B >/sys/bus/pci/drivers_probe
        test -c "/dev/vfio/$(basename "$(readlink $D/iommu_group)")" && echo bound"#;
    let nics = "e1000,e1000-82544gc,e1000-82545em,e1000e,virtio";
    let Some(output) = common::vm(&["--nic", nics], command) else {
        return;
    };
    let out = stdout(&output);
    assert!(output.status.success(), "{out}{}", stderr(&output));
    let drivers = ["e1000", "e1000", "e1000", "e1000e", "virtio-pci"];
    for (slot, driver) in (3..).zip(drivers) {
        let address = format!("0000:00:{slot:02x}.0");
        let line = out.lines().find(|line| line.starts_with(&address));
        let words: Vec<&str> = line.expect(&address).split_whitespace().collect();
        assert_eq!(words[1], driver, "{out}");
        assert_eq!(words[3], "1", "{address} shares group {}: {out}", words[2]);
    }
    assert_eq!(out.matches("down\n").count(), drivers.len(), "{out}");
    assert!(out.ends_with("bound\n"), "{out}");
}

#[test]
fn memory_disk_and_share_are_there() {
    let share = tempfile::tempdir().expect("a directory");
    let path = share.path().to_str().expect("a UTF-8 path");
    let command = "set -e; grep -q 'HugePages_Free: *9$' /proc/meminfo
        grep -q ' /disk ext4 ' /proc/mounts; grep -q ' /dev/shm tmpfs ' /proc/mounts; grep -q ' /tmp tmpfs ' /proc/mounts
        grep -q ' /dev/hugepages hugetlbfs ' /proc/mounts; test -d /sys/kernel/tracing/events
        test $(df -m /disk | awk 'END { print $2 }') -gt 200
        echo inside > /share/file; modprobe dummy";
    let options = ["--hugepages", "9", "--disk", "256M", "--share", path];
    let Some(output) = common::vm(&options, command) else {
        return;
    };
    assert!(output.status.success(), "{}", stderr(&output));
    let file = std::fs::read_to_string(share.path().join("file"));
    assert_eq!(file.expect("the guest's file"), "inside\n");
}

#[test]
fn what_a_nic_sends_is_in_the_captures_of_its_hub() {
    let captures = tempfile::tempdir().expect("a directory");
    let path = captures.path().to_str().expect("a UTF-8 path");
    let command = "ip link set eth0 up; ip addr add 10.0.0.1/24 dev eth0
        until [ \"$(cat /sys/class/net/eth0/carrier)\" = 1 ]; do sleep 0.1; done
        sleep 1; arping -c 1 -I eth0 10.0.0.2; true";
    let options = [
        "--nic",
        "e1000,virtio,e1000",
        "--net",
        "hub:0,hub:0",
        "--pcap",
        path,
    ];
    let Some(output) = common::vm(&options, command) else {
        return;
    };
    assert!(output.status.success(), "{}", stderr(&output));
    // ARP request from the first NIC's address: the start of the frame, as it is on the wire.
    let arp = b"\xff\xff\xff\xff\xff\xff\x52\x54\x00\x12\x34\x56\x08\x06\x00\x01";
    let seen = |nic: u32| {
        let file = captures.path().join(format!("nic{nic}.pcap"));
        let bytes = std::fs::read(file).expect("a capture for every NIC");
        bytes.windows(arp.len()).any(|window| window == arp)
    };
    assert!(seen(0) && seen(1) && !seen(2), "{}", stdout(&output));
}

#[test]
fn a_guest_can_do_without_iommu_vfio_and_hugepages() {
    let command = "ls /sys/kernel/iommu_groups; ls /dev/vfio 2>/dev/null; lsmod | grep -w ^vfio
        grep HugePages_Total /proc/meminfo";
    let options = ["--no-iommu", "--no-vfio", "--hugepages", "0"];
    let Some(output) = common::vm(&options, command) else {
        return;
    };
    assert_eq!(
        stdout(&output),
        "HugePages_Total:       0\n",
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_card_behind_a_virtio_iommu_is_driven_where_the_kernel_knows_one() {
    let command = "set -e; pinwire bind 0000:00:03.0; pinwire send 0000:00:03.0 --synthetic 64 --count 10 --json
        ls /sys/class/iommu; ls /sys/class/iommu | grep -q dmar && exit 1; true";
    let Some(output) = common::vm(&["--iommu", "virtio"], command) else {
        return;
    };
    let out = stdout(&output);
    // Debian's 6.1 has no driver for it; KERNEL= and MODULES= name one that has.
    let lacking = "has no driver for it; Debian's have one from 6.12 on: KERNEL= and MODULES=";
    if output.status.code() == Some(125) && stderr(&output).contains(lacking) {
        return;
    }
    assert!(output.status.success(), "{out}{}", stderr(&output));
    assert!(out.contains("\"frames\":10,"), "{out}");
}

#[test]
fn a_panic_is_told_with_the_kernels_words() {
    // What was said before counts once it is outside.
    let command = "echo before; until grep -q before /run/vm/stdout; do sleep 0.1; done; echo c > /proc/sysrq-trigger";
    let Some(output) = common::vm(&[], command) else {
        return;
    };
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(stdout(&output), "before\n");
    assert!(
        stderr(&output).contains("Kernel panic - not syncing"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_hang_ends_at_the_time_limit() {
    let Some(output) = common::vm(&["--timeout", "40"], "echo before; sleep 1000") else {
        return;
    };
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(stdout(&output), "before\n");
    assert!(
        stderr(&output).contains("no end within 40 s"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_event_of_the_iommu_can_be_traced() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("trace");
    let event = format!("vtd_inv_qi_tail,{}", log.display());
    let Some(output) = common::vm(&["--trace", &event], "true") else {
        return;
    };
    assert!(output.status.success(), "{}", stderr(&output));
    let log = std::fs::read_to_string(log).expect("QEMU's log");
    assert!(log.contains("vtd_inv_qi_tail"), "{log}");
}

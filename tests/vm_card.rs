//! The driver over VFIO, in the VM: the tests of `tests/nic` and `tests/guest`, run inside, and what
//! can only be seen from outside.

mod common;

/// Runs `command` in a VM with two NICs on one hub, the first ours and the second the kernel's.
fn run_with_twin(options: &[&str], tests: &[&str], command: &str) -> Option<String> {
    if !common::wants_vm() {
        return None;
    }
    let share = tempfile::tempdir().expect("a directory");
    for test in tests {
        common::put_test(test, share.path());
    }
    let path = share.path().to_str().expect("a UTF-8 path");
    // The twin's model takes frames in a second after its receiver was set up.
    let setup = "ip link set eth1 promisc on up
        until [ \"$(cat /sys/class/net/eth1/carrier)\" = 1 ]; do sleep 0.1; done; sleep 1.5
        pinwire bind 0000:00:03.0 >&2 || exit 1
        export PINWIRE_DEVICE=0000:00:03.0 PINWIRE_WIRE=eth1 PINWIRE_DIRS=/tmp:/disk\n";
    let common = [
        "--nic",
        "e1000,e1000",
        "--net",
        "hub:0,hub:0",
        "--share",
        path,
    ];
    let output = common::vm(&[&common, options].concat(), &format!("{setup}{command}"))?;
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}\n{err}");
    Some(out)
}

#[test]
fn the_tests_of_a_card_pass_over_vfio() {
    let all = "/share/nic --test-threads=1";
    let Some(out) = run_with_twin(&["--disk", "64M"], &["nic"], all) else {
        return;
    };
    assert!(out.contains("15 passed; 0 failed"), "{out}");
}

#[test]
fn the_page_cache_of_tmpfs_and_ext4_is_sent() {
    let all = "/share/guest --test-threads=1 --skip dma_outside";
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

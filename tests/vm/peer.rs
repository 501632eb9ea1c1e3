//! Our cards and the kernel's driver talk to each other, in the VM: pings of all sizes, UDP with a hash
//! at the end, VLANs, checksums and segments, against the kernel's own counters.
#![cfg(feature = "cli")]

use serde_json::Value;

use crate::common;

/// Bytes of UDP each way, so that the four cards move a GiB together: more datagrams than a virtqueue's indices count
/// to. `PINWIRE_UDP_BYTES` changes it.
const UDP_BYTES: &str = "134217728";

/// In a VM with our card, 0000:00:03.0, and the kernel's eth1, 10.0.0.1, at the other end of its cable. The VM has one
/// processor: two that wait for each other under TCG cost twice as much, and the next card's VM has use for the other.
fn talks_with_the_kernel(nic: &str) {
    if !common::wants_vm() {
        return;
    }
    let share = tempfile::tempdir().expect("a directory");
    common::put_test("peer", share.path());
    let bytes = std::env::var("PINWIRE_UDP_BYTES").unwrap_or(UDP_BYTES.to_owned());
    let command = format!(
        "
        {}
        modprobe 8021q || exit 10
        echo 8388608 >/proc/sys/net/core/rmem_max
        echo 8388608 >/proc/sys/net/core/rmem_default
        ours=$(cat /sys/bus/pci/devices/0000:00:03.0/net/*/address 2>/dev/null ||
            cat /sys/bus/pci/devices/0000:00:03.0/virtio*/net/*/address)
        ip addr add 10.0.0.1/24 dev eth1 && ip link set eth1 up || exit 11
        vconfig add eth1 42 >&2 && ip addr add 10.42.0.1/24 dev eth1.42 && ip link set eth1.42 up || exit 12
        pinwire bind 0000:00:03.0 >&2 || exit 13
        until [ \"$(cat /sys/class/net/eth1/carrier)\" = 1 ]; do sleep 0.1; done
        # QEMU's e1000 takes nothing in during its first second.
        sleep 1.5
        {PINGS}
        arp -s 10.0.0.2 $ours && arp -i eth1.42 -s 10.42.0.2 $ours || exit 30
        export PINWIRE_DEVICE=0000:00:03.0 PINWIRE_WIRE=eth1 PINWIRE_UDP_BYTES={bytes}
        echo --- peer
        /share/peer --test-threads=1 --nocapture",
        common::NO_IPV6
    );
    let nics = format!("{nic},e1000");
    let share = share.path().to_str().expect("a UTF-8 path");
    let options = [
        "--nic",
        &nics,
        "--net",
        "hub:0,hub:0",
        "--share",
        share,
        "--timeout",
        "3000",
    ];
    let Some(output) = common::vm(&options, &command) else {
        return;
    };
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {out}\n{err}", output.status);
    let (pings, peer) = out.split_once("--- peer\n").expect("both parts");
    kernel_and_card_have_pinged_each_other(pings);
    assert!(peer.contains("4 passed; 0 failed"), "{peer}");
    println!("{peer}");
}

#[test]
fn an_e1000_and_the_kernel_ping_each_other_and_take_what_the_other_sends() {
    talks_with_the_kernel("e1000");
}

#[test]
fn an_e1000e_and_the_kernel_ping_each_other_and_take_what_the_other_sends() {
    talks_with_the_kernel("e1000e");
}

#[test]
fn virtio_net_with_split_queues_and_the_kernel_ping_each_other_and_take_what_the_other_sends() {
    talks_with_the_kernel("virtio");
}

#[test]
fn virtio_net_with_packed_queues_and_the_kernel_ping_each_other_and_take_what_the_other_sends() {
    talks_with_the_kernel("virtio-packed");
}

/// Pings of all sizes, each way; then what the kernel counted.
const PINGS: &str = "
        pinwire echo 0000:00:03.0 --address 10.0.0.2 --json >/tmp/echo &
        echo=$!
        # Nothing is answered before the card takes frames in; the kernel's own ARP gives up after three seconds.
        arping -q -f -w 60 -I eth1 10.0.0.2 >&2 || exit 19
        ping -q -c 1 -w 20 10.0.0.2 >/dev/null || exit 20
        for size in 1 56 1472 1473 9000 32768 65507; do
            ping -q -c 5 -A -s $size 10.0.0.2 || { echo \"ping of $size\"; exit 21; }
        done
        kill -INT $echo; wait $echo
        for size in 0 1 56 1472 1473 9000 32768 65507; do
            pinwire ping 0000:00:03.0 10.0.0.1 --from 10.0.0.2 --flood -c 20 -W 10 -s $size --json || exit 22
        done
        cat /tmp/echo /proc/net/snmp";

/// A counter in two lines of `/proc/net/snmp`.
fn counter(snmp: &str, group: &str, name: &str) -> u64 {
    let prefix = format!("{group}: ");
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix(&prefix));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    pairs
        .find(|(other, _)| *other == name)
        .unwrap()
        .1
        .parse()
        .unwrap()
}

/// What [`PINGS`] printed.
fn kernel_and_card_have_pinged_each_other(out: &str) {
    let lost = out.matches(" 0% packet loss").count();
    assert_eq!(lost, 7, "{out}");
    let json: Vec<Value> = out
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [pings @ .., echo] = &json[..] else {
        panic!("{out}")
    };
    assert_eq!(pings.len(), 8, "{out}");
    for ping in pings {
        assert_eq!(ping["received"], 20, "{ping}");
        for what in ["lost", "late", "duplicates", "damaged"] {
            assert_eq!(ping[what], 0, "{ping}");
        }
    }
    assert_eq!(echo["icmp"].as_u64(), Some(1 + 7 * 5), "{echo}");
    let snmp = |group, name| counter(out, group, name);
    assert_eq!(snmp("Icmp", "InCsumErrors"), 0, "{out}");
    assert_eq!(snmp("Icmp", "InEchoReps"), 1 + 7 * 5, "{out}");
    assert_eq!(snmp("Icmp", "InEchos"), 8 * 20, "{out}");
    assert_eq!(snmp("Ip", "ReasmFails"), 0, "{out}");
}

//! Cards of several queue pairs over VFIO, in the VM, with this test at the other end of the cable: the
//! test inside is `tests/queues.rs`. The tap is in a network namespace of the test's own, in which it
//! runs once more; the VM is, too: no root, and none is left.

#[path = "../queues/flows.rs"]
mod flows;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flows::{LAST, OUR_MAC, datagram, read_answer};
use pinwire::testing::{PacketSocket, Wire};

use crate::common;

const BOUND: Duration = Duration::from_secs(20);
/// What `qemu/vm` gives its first card.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const FLOWS: usize = 32;
/// Datagrams of each flow.
const EACH: usize = 4;
/// Frames that each pair sends at the end.
const SENT: usize = 10_000;

/// Runs the test inside on `queues` pairs of `nic`, which each answer what comes in by them.
fn each_pair_is_woken_by_its_flows_and_sends(nic: &str, queues: usize) {
    let share = tempfile::tempdir().expect("a directory");
    common::put_test("queues", share.path());
    let inside = format!(
        "pinwire bind 0000:00:03.0 >&2 || exit 1
        export PINWIRE_DEVICE=0000:00:03.0 PINWIRE_QUEUES={queues}
        /share/queues --exact over_vfio --ignored --nocapture"
    );
    let share = share.path().to_str().expect("a UTF-8 path");
    let options = ["--nic", nic, "--net", "tap:tap0", "--share", share];
    let cable = PacketSocket::open("tap0").expect("the tap");
    let before = arrived();
    let output = std::thread::scope(|scope| {
        let vm = scope.spawn(|| common::vm(&options, &inside));
        while next_answer(&cable, Duration::from_millis(200)) != Some((0, 0, LAST)) {
            // It says what is wrong.
            if vm.is_finished() {
                return vm.join().unwrap();
            }
        }
        flows_are_spread(&cable, queues);
        vm.join().unwrap()
    });
    let output = output.expect("VMs are wanted");
    let said = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{nic}: {said}{err}");
    assert!(said.contains("1 passed"), "{nic}: {said}{err}");
    let answers = 1 + FLOWS * EACH + queues;
    assert_eq!(arrived() - before, answers + queues * SENT, "{nic}: {said}");
}

/// Frames that came out of the card.
fn arrived() -> usize {
    let count = std::fs::read_to_string("/sys/class/net/tap0/statistics/rx_packets").unwrap();
    count.trim().parse().unwrap()
}

/// The next that comes out of the card within `bound`.
fn next_answer(cable: &PacketSocket, bound: Duration) -> Option<(usize, usize, usize)> {
    let begin = Instant::now();
    while begin.elapsed() < bound {
        let frame = cable.recv(bound.saturating_sub(begin.elapsed()))?;
        if frame[6..12] == OUR_MAC {
            return read_answer(&frame);
        }
    }
    None
}

/// Sends all flows, each frame once the one before it was answered, so that the threads sleep in between;
/// then ends the threads.
fn flows_are_spread(cable: &PacketSocket, queues: usize) {
    let ask = |flow, number| {
        cable.send(&datagram(MAC, flow, number));
        let (pair, of, which) = next_answer(cable, BOUND).expect("an answer");
        assert_eq!((of, which), (flow, number));
        pair
    };
    let mut pairs = BTreeMap::new();
    for (number, flow) in (0..EACH).flat_map(|number| (0..FLOWS).map(move |flow| (number, flow))) {
        let pair = ask(flow, number);
        let first = *pairs.entry(flow).or_insert(pair);
        assert_eq!(pair, first, "flow {flow} stays with its pair");
    }
    for pair in 0..queues {
        let of_pair = pairs.iter().filter(|(_, of)| **of == pair);
        let flows: Vec<_> = of_pair.map(|(flow, _)| *flow).collect();
        assert!(flows.len() >= FLOWS / 4 / queues, "{pairs:?}");
        assert_eq!(ask(flows[0], LAST), pair);
    }
}

/// Is this process where there is a tap? If not, runs the calling test there.
fn has_a_tap(options: &str) -> bool {
    let setup = format!(
        "mount -t sysfs sysfs /sys
        ip tuntap add tap0 mode tap {options}
        {{ echo 1 >/proc/sys/net/ipv6/conf/tap0/disable_ipv6; true; }} 2>/dev/null
        ip link set tap0 up"
    );
    common::wants_vm() && common::again(&["--net", "--mount"], &setup, "PINWIRE_TAP")
}

#[test]
fn two_pairs_of_an_e1000e_with_headers_apart_receive_over_vfio() {
    if has_a_tap("") {
        each_pair_is_woken_by_its_flows_and_sends("e1000e", 2);
    }
}

#[test]
fn two_pairs_of_virtio_net_with_split_queues_receive_over_vfio() {
    if has_a_tap("multi_queue") {
        each_pair_is_woken_by_its_flows_and_sends("virtio+queues=4+vectors=10", 2);
    }
}

#[test]
fn four_pairs_of_virtio_net_with_packed_queues_receive_over_vfio() {
    if has_a_tap("multi_queue") {
        each_pair_is_woken_by_its_flows_and_sends("virtio-packed+queues=4+vectors=10", 4);
    }
}

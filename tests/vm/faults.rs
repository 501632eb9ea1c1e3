//! What happens to a card while a program in the VM has it over VFIO: QEMU's monitor pulls it out, or its
//! cable. The tests inside are those of `tests/events`; and the command, which ends with a word of what
//! happened.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common;

/// Does what is asked of QEMU in the file `asked` of the share: a command and its arguments.
fn serve(share: &Path, socket: &Path, ended: &AtomicBool) {
    let [asked, done] = ["asked", "done"].map(|name| share.join(name));
    while !ended.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
        let Ok(wanted) = std::fs::read_to_string(&asked) else {
            continue;
        };
        let (command, arguments) = wanted.trim().split_once(' ').expect("a command, arguments");
        let answer = common::qmp(socket, command, arguments);
        // The monitor for people complains in its answer.
        let is_done = [r#"{"return": {}}"#, r#"{"return": "OK "#];
        assert!(
            is_done.iter().any(|done| answer.starts_with(done)),
            "{wanted}: {answer}"
        );
        std::fs::remove_file(&asked).unwrap();
        std::fs::write(&done, "").unwrap();
    }
}

/// Runs `command` in a VM with these NICs on these peers, whose monitor does what is asked in the share,
/// where the test program `events` is; gives what it said.
fn run(nics: &str, peers: &str, command: &str) -> Option<String> {
    if !common::wants_vm() {
        return None;
    }
    let folder = tempfile::tempdir().expect("a directory");
    let (share, socket) = (folder.path().join("share"), folder.path().join("qmp"));
    std::fs::create_dir(&share).unwrap();
    common::put_test("events", &share);
    let options = [
        ["--nic", nics],
        ["--net", peers],
        ["--share", share.to_str().unwrap()],
        ["--qmp", socket.to_str().unwrap()],
    ];
    let ended = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        let monitor = scope.spawn(|| serve(&share, &socket, &ended));
        let output = common::vm(
            options.as_flattened(),
            &format!("{}{TOOLS}{command}", common::NO_IPV6),
        );
        ended.store(true, Ordering::Relaxed);
        monitor.join().unwrap();
        output
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    let said = format!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{nics}: {said}");
    Some(said)
}

/// `ask COMMAND ARGUMENTS`: of the monitor. `ends PROCESS FILE`: its exit code, within a time, and what
/// it said.
const TOOLS: &str = r#"
    ask() {
        echo "$*" >/share/draft; mv /share/draft /share/asked
        until [ -e /share/done ]; do sleep 0.1; done; rm /share/done
    }
    link() { ask set_link "{\"name\": \"$1\", \"up\": $2}"; }
    pull() { ask device_del "{\"id\": \"$1\"}"; }
    ends() {
        tries=0
        while kill -0 $1 2>/dev/null && [ $tries -lt 300 ]; do sleep 0.1; tries=$((tries + 1)); done
        kill -9 $1 2>/dev/null && echo "it hangs"
        wait $1; echo "exit code $?"; cat $2
    }
"#;

fn goes_through_it_over_vfio(card: &str) {
    // Two of a kind, since each goes out once; the kernel's is the twin.
    let nics = format!("{card}+hotplug,{card}+hotplug,e1000");
    let inside = "
        pinwire bind --force 0000:01:00.0 0000:02:00.0 >&2 || exit 1
        export PINWIRE_WIRE=$(ls /sys/bus/pci/devices/0000:00:05.0/net)
        ip link set $PINWIRE_WIRE promisc on up
        until [ \"$(cat /sys/class/net/$PINWIRE_WIRE/carrier)\" = 1 ]; do sleep 0.1; done; sleep 1.5
        export PINWIRE_DEVICE=0000:01:00.0 PINWIRE_ID=nic0
        /share/events --test-threads=1 --skip pulled_out --skip forwarding || exit 1
        /share/events --test-threads=1 pulled_out_in_traffic || exit 1
        export PINWIRE_DEVICE=0000:02:00.0 PINWIRE_ID=nic1
        /share/events --test-threads=1 who_sleeps_on || exit 1
        while [ -e /sys/bus/pci/devices/0000:02:00.0 ]; do sleep 0.1; done; echo both are out";
    let Some(said) = run(&nics, "hub:0,hub:0,hub:0", inside) else {
        return;
    };
    let passed = ["2 passed; 0 failed", "1 passed; 0 failed", "both are out"];
    assert!(
        passed.iter().all(|words| said.contains(words)),
        "{card}: {said}"
    );
}

#[test]
fn an_e1000_goes_through_it_over_vfio() {
    goes_through_it_over_vfio("e1000");
}

#[test]
fn an_e1000e_goes_through_it_over_vfio() {
    goes_through_it_over_vfio("e1000e");
}

#[test]
fn virtio_net_with_split_queues_goes_through_it_over_vfio() {
    goes_through_it_over_vfio("virtio");
}

#[test]
fn virtio_net_with_packed_queues_goes_through_it_over_vfio() {
    goes_through_it_over_vfio("virtio-packed");
}

#[test]
fn a_command_goes_on_when_its_link_comes_back_and_ends_when_its_card_goes() {
    let nics = "e1000e+hotplug,virtio+hotplug,virtio-packed+hotplug,e1000+hotplug,e1000";
    let peers = "hub:0,hub:0,hub:1,hub:2,hub:1";
    let inside = r#"
        pinwire bind --force 0000:01:00.0 0000:02:00.0 0000:03:00.0 0000:04:00.0 0000:00:07.0 >&2 || exit 1
        pinwire recv 0000:02:00.0 --promiscuous --write /tmp/in.pcap >/tmp/recv 2>&1 & recv=$!
        pinwire send 0000:01:00.0 --synthetic 64 --rate 5000 >/tmp/send 2>&1 & send=$!
        grows() { before=$(stat -c %s /tmp/in.pcap); until [ $(stat -c %s /tmp/in.pcap) -gt $before ]; do sleep 0.1; done; }
        until [ -e /tmp/in.pcap ]; do sleep 0.1; done; grows
        for nic in nic0 nic1; do link $nic false; sleep 1; link $nic true; done
        grows; kill -0 $send && kill -0 $recv && echo both go on
        pull nic1; echo "--- recv"; ends $recv /tmp/recv
        kill -0 $send && echo it sends on
        pull nic0; echo "--- send"; ends $send /tmp/send
        pinwire forward 0000:03:00.0 0000:04:00.0 >/tmp/forward 2>&1 & forward=$!
        pinwire send 0000:00:07.0 --synthetic 64 --rate 5000 >/dev/null 2>&1 & send=$!
        sleep 3
        link nic2 false; sleep 1; link nic2 true; link nic3 false; sleep 1; link nic3 true; sleep 1
        kill -0 $forward && echo it forwards on
        pull nic3; echo "--- forward"; ends $forward /tmp/forward
        kill -INT $send; wait $send
        pinwire recv 0000:03:00.0 >/tmp/idle 2>&1 & idle=$!
        until grep -q 'vfio-.*0000:03:00.0' /proc/interrupts; do kill -0 $idle || exit 1; sleep 0.1; done; sleep 1
        pull nic2; echo "--- idle"; ends $idle /tmp/idle; true"#;
    let Some(said) = run(nics, peers, inside) else {
        return;
    };
    for words in ["both go on", "it sends on", "it forwards on"] {
        assert!(said.contains(words), "{words}? {said}");
    }
    for (step, device) in [
        ("recv", "0000:02:00.0"),
        ("send", "0000:01:00.0"),
        ("forward", "0000:04:00.0"),
        ("idle", "0000:03:00.0"),
    ] {
        let (_, rest) = said.split_once(&format!("--- {step}\n")).expect(step);
        let part = rest.split("--- ").next().unwrap();
        for words in ["exit code 1\n", &format!("error: {device} is gone")] {
            assert!(part.contains(words), "{step}: {words}? {said}");
        }
        assert!(
            !part.contains("panicked") && !part.contains("hangs"),
            "{step}: {said}"
        );
    }
}

#[test]
fn an_error_that_pci_express_reports_ends_a_command_and_is_named() {
    let inside = r#"
        inject() { ask human-monitor-command "{\"command-line\": \"pcie_aer_inject_error nic0 $1\"}"; }
        pinwire bind 0000:01:00.0 >&2 || exit 1
        pinwire recv 0000:01:00.0 >/tmp/idle 2>&1 & idle=$!
        until grep -q 'vfio-.*0000:01:00.0' /proc/interrupts; do kill -0 $idle || exit 1; sleep 0.1; done; sleep 1
        # What the link corrected is nobody's loss.
        inject RCVR; sleep 1; kill -0 $idle && echo it goes on
        inject UNX_COMP; echo "--- idle"; ends $idle /tmp/idle
        # Opened again it is as good as new.
        pinwire recv 0000:01:00.0 >/tmp/again 2>&1 & again=$!
        until grep -q 'vfio-.*0000:01:00.0' /proc/interrupts; do kill -0 $again || exit 1; sleep 0.1; done; sleep 1
        kill -INT $again; echo "--- again"; ends $again /tmp/again; true"#;
    // Of QEMU's network models the one whose device control register can turn reports on.
    let Some(said) = run("virtio+hotplug+aer=on", "hub:0", inside) else {
        return;
    };
    let (before, rest) = said.split_once("--- idle\n").expect("both");
    let (idle, again) = rest.split_once("--- again\n").expect("both");
    assert!(before.contains("it goes on"), "{said}");
    for words in ["exit code 1\n", "error: 0000:01:00.0 met an error", "AER"] {
        assert!(idle.contains(words), "{words}? {said}");
    }
    assert!(again.starts_with("exit code 130\n"), "{said}");
}

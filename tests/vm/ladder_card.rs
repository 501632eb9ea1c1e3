//! `pinwire ladder --card` in the VM gives the card back to the driver that it found, however it ends; and what
//! arrives otherwise than it was sent fails the run.
#![cfg(feature = "cli")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::common;

/// A far end on this host, ended with the test.
struct Receiver {
    child: Child,
    port: u16,
}

impl Receiver {
    fn start(program: &str) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", program])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap();
        Self { child, port }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_card_is_given_back_and_a_wrong_hash_is_no_success() {
    const HONEST: &str = include_str!("../../qemu/far-end");
    let lies = HONEST.replace("{digest.hexdigest()}", &"0".repeat(64));
    assert_ne!(lies, HONEST);
    let (honest, liar) = (Receiver::start(HONEST), Receiver::start(&lies));
    let script = format!(
        "
        card=/sys/bus/pci/devices/0000:00:03.0
        driver() {{ basename \"$(readlink $card/driver)\"; }}
        for control in /sys/bus/pci/devices/0000:00:04.0/virtio*/net/*; do control=${{control##*/}}; done
        ip addr add 10.0.3.15/24 dev $control; ip link set dev $control up
        head -c 300000 /dev/urandom >/tmp/file
        ladder() {{
            port=$1; shift
            exec pinwire ladder /tmp/file --card 0000:00:03.0 --address 10.0.2.15/24 --to 10.0.2.2 \\
                --control 10.0.3.2:$port --over udp \"$@\" >&2
        }}
        # Ends it by Ctrl-C while $1 drives the card.
        interrupted() {{
            by=$1; shift
            ladder {honest} --rounds 60000 \"$@\" & pid=$!
            until [ \"$(driver)\" = $by ] || ! kill -0 $pid; do sleep 0.1; done
            kill -INT $pid; wait $pid; echo \"$? $(driver)\"
        }}
        driver
        (ladder {honest} --rounds 1 --only 1,12); echo \"$? $(driver)\"
        (ladder {liar} --rounds 1 --only 12); echo \"$? $(driver)\"
        interrupted vfio-pci --only 12
        pinwire bind 0000:00:03.0 >&2; driver
        (ladder {honest} --rounds 1 --only 1,12); echo \"$? $(driver)\"
        interrupted virtio-pci --only 1",
        honest = honest.port,
        liar = liar.port,
    );
    let options = ["--nic", "virtio,virtio", "--net", "user,user:10.0.3.0/24"];
    let Some(output) = common::vm(&options, &script) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    let expected = [
        "virtio-pci",
        "0 virtio-pci",
        "1 virtio-pci",
        "130 virtio-pci",
        "vfio-pci",
        "0 vfio-pci",
        "130 vfio-pci",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{error}");
    assert!(error.contains("WRONG HASH"), "{error}");
}

//! A line of INTx that our cards share with a card of the kernel's: the kernel's must not lose an interrupt, nor
//! see any that nobody caused.

use crate::common;

/// Slots 3, 7, 11 and 15 of q35 are on one line.
const OURS: [&str; 3] = ["0000:00:03.0", "0000:00:0b.0", "0000:00:0f.0"];
const PINGS: u64 = 100;

#[test]
fn a_card_of_the_kernels_on_the_line_of_ours_loses_no_interrupt_and_sees_no_storm() {
    // All are on one hub. The kernel's card in slot 7 is asked by one in slot 4, which is on another line, in a
    // network namespace of its own; what they say to each other comes to ours, too.
    let others = "-netdev hubport,hubid=0,id=b -device e1000,addr=0xb,netdev=b,romfile= \
        -netdev hubport,hubid=0,id=f -device e1000e,addr=0xf,netdev=f,romfile=";
    let options = [
        "--nic",
        "virtio,virtio,e1000,e1000,e1000",
        "--net",
        "hub:0,hub:0,none,none,hub:0",
        "--qemu-args",
        others,
    ];
    let ours = OURS.join(" ");
    let script = format!(
        r#"{no_ipv6}
        interface() {{ ls $(find /sys/bus/pci/devices/$1/ -name net -type d) | head -n 1; }}
        witness=$(interface 0000:00:07.0) asker=$(interface 0000:00:04.0)
        pinwire bind {ours} >&2 || exit 1
        unshare -n sleep 100000 & inside=$!
        until [ "$(cat /proc/$inside/comm)" = sleep ]; do sleep 0.1; done
        ip link set $asker netns $inside
        nsenter -t $inside -n ip addr add 10.0.0.2/24 dev $asker
        nsenter -t $inside -n ip link set $asker up
        ip addr add 10.0.0.1/24 dev $witness; ip link set $witness up
        until nsenter -t $inside -n ping -c 1 -W 1 10.0.0.1 >/dev/null; do :; done
        count() {{ awk -v name="$witness" 'index($0, name) {{ print $2 }}' /proc/interrupts; }}
        for card in {ours}; do
            for how in poll interrupt; do
                pinwire recv $card --wait $how --promiscuous --json >/tmp/said & receiver=$!
                # Its first frame: from here on it takes in what passes.
                until [ -s /tmp/said ] || ! [ -e /proc/$receiver ]; do
                    nsenter -t $inside -n ping -c 1 -W 1 10.0.0.1 >/dev/null
                done
                before=$(count)
                nsenter -t $inside -n ping -c {PINGS} -i 0.02 10.0.0.1 >/tmp/pings
                after=$(count)
                kill -INT $receiver; wait $receiver
                answered=$(sed -n 's/.*transmitted, \([0-9]*\) packets received.*/\1/p' /tmp/pings)
                echo "$card $how $answered $((after - before)) $(wc -l </tmp/said)"
            done
        done
        dmesg | grep -e 'nobody cared' -e 'Disabling IRQ'; cat /proc/interrupts >&2"#,
        no_ipv6 = common::NO_IPV6
    );
    let Some(output) = common::vm(&options, &script) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let said = format!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let (rows, troubles): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with("0000:"));
    assert!(troubles.is_empty(), "{said}");
    assert_eq!(rows.len(), 2 * OURS.len(), "{said}");
    for row in rows {
        let words: Vec<_> = row.split(' ').collect();
        let number = |index: usize| {
            words[index]
                .parse::<u64>()
                .unwrap_or_else(|_| panic!("{said}"))
        };
        let (answered, interrupts, frames) = (number(2), number(3), number(4));
        assert_eq!(answered, PINGS, "{row}: lost\n{said}");
        // The kernel's own: one each for what came in and what went out; as many again for ours where it
        // sleeps on the line.
        assert!(
            (1..20 * PINGS).contains(&interrupts),
            "{row}: a storm\n{said}"
        );
        assert!(frames >= PINGS, "{row}: ours saw too few frames\n{said}");
    }
}

//! VFIO for real: in the VM, with the kernel's own drivers, groups, limits and errors. One boot a
//! test, many steps a boot.

use std::collections::BTreeMap;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::common;

/// A step of a script: its name, its shell lines, and what they say: parts of it, one a line, in order.
type Step<'a> = (&'a str, &'a str, &'a str);

/// `code` tells the exit code of what ran before it; `$nic` is where the first NIC is in sysfs.
const PRELUDE: &str = r#"
exec 2>&1
code() { echo "exit code $?"; }
sys=/sys/bus/pci/devices
nic=$sys/0000:00:03.0
"#;

/// Runs the steps one after the other in one VM, checks what they say, and gives all of it, by name.
#[track_caller]
pub fn run(options: &[&str], steps: &[Step]) -> Option<BTreeMap<String, String>> {
    let mut script = PRELUDE.to_owned();
    for (name, lines, _) in steps {
        script += &format!("echo '=== {name}'\n{lines}\n");
    }
    let output = common::vm(options, &script)?;
    let text = String::from_utf8(output.stdout).unwrap();
    let done = output.status.success();
    assert!(done, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let parts = text.split("=== ").skip(1).map(|part| {
        let (name, said) = part.split_once('\n').unwrap();
        (name.to_owned(), said.to_owned())
    });
    let all: BTreeMap<_, _> = parts.collect();
    for (name, _, parts) in steps {
        let mut rest = all[*name].as_str();
        for part in parts.lines().map(str::trim) {
            let found = rest.find(part);
            let place = found.unwrap_or_else(|| panic!("{name}: no {part:?} in:\n{}", all[*name]));
            rest = &rest[place + part.len()..];
        }
    }
    Some(all)
}

#[test]
fn functions_are_listed_bound_used_and_given_back() {
    // Two functions in one group at 10.0 and 10.1, and a NIC behind a bridge at 01:00.0.
    let topology = "-device e1000,addr=0x10.0,multifunction=on -device e1000,addr=0x10.1 \
        -device pcie-root-port,id=below,addr=0x11,chassis=1 -device e1000,bus=below";
    let options = ["--nic", "e1000,e1000e", "--qemu-args", topology];
    let steps = [
        (
            "list",
            "pinwire list",
            "ADDRESS
             0000:00:03.0  e1000
             pinwire bind 0000:00:03.0
             Ethernet controller: Intel Corporation 82540EM
             0000:00:11.0  pcieport
             PCI bridge",
        ),
        ("json", "pinwire list --json", ""),
        (
            "no such function",
            "for verb in 'pinwire bind' 'pinwire unbind' hello_bar; do
                 $verb 0000:00:09.0; code
             done",
            "error: 0000:00:09.0: there is no such PCI function
             try: pinwire list
             exit code 1
             0000:00:09.0: there is no such PCI function
             exit code 1
             0000:00:09.0: there is no such PCI function
             exit code 1",
        ),
        (
            "not bound",
            "hello_bar 0000:00:03.0; code",
            "Error: 0000:00:03.0 is bound to e1000, not to vfio-pci
             try: pinwire bind 0000:00:03.0
             exit code 1",
        ),
        (
            "not root",
            "su nobody -s /bin/sh -c 'pinwire bind 0000:00:03.0'; code; readlink $nic/driver",
            "permission denied
             try: sudo pinwire bind 0000:00:03.0
             exit code 1
             /e1000",
        ),
        (
            "bind",
            "pinwire bind 0000:00:03.0 0000:00:04.0; code
             pinwire list
             pinwire bind 0000:00:03.0; code",
            "0000:00:03.0: e1000 -> vfio-pci
             0000:00:04.0: e1000e -> vfio-pci
             exit code 0
             0000:00:03.0  vfio-pci
             yes
             0000:00:03.0: on vfio-pci already
             exit code 0",
        ),
        (
            "use",
            "hello_bar 0000:00:03.0; code; hello_dma 0000:00:03.0; code",
            "0000:00:03.0: PCI device 8086:100e
             Ethernet address 52:54:00:12:34:56
             exit code 0
             exit code 0",
        ),
        (
            "unbind",
            "pinwire unbind 0000:00:03.0 0000:00:04.0; code
             cat $nic/driver_override $nic/net/*/address
             echo records $(ls /run/pinwire)
             pinwire unbind 0000:00:03.0; code",
            "0000:00:03.0: vfio-pci -> e1000
             0000:00:04.0: vfio-pci -> e1000e
             exit code 0
             (null)
             52:54:00:12:34:56
             records
             0000:00:03.0: on e1000 already
             exit code 0",
        ),
        (
            "with a driver_override before",
            "echo e1000 >$nic/driver_override
             pinwire bind 0000:00:03.0; pinwire unbind 0000:00:03.0
             cat $nic/driver_override; echo >$nic/driver_override",
            "vfio-pci -> e1000
             e1000",
        ),
        (
            "without a driver before",
            "echo 0000:00:03.0 >$nic/driver/unbind
             pinwire bind 0000:00:03.0; pinwire unbind 0000:00:03.0
             ls $nic/driver; echo 0000:00:03.0 >/sys/bus/pci/drivers_probe",
            "no driver -> vfio-pci
             vfio-pci -> no driver
             No such file",
        ),
        (
            "in use",
            "eth=$(ls $nic/net); ip addr add 192.0.2.1/24 dev $eth; ip link set $eth up
             pinwire bind 0000:00:03.0; code; readlink $nic/driver
             pinwire bind --force 0000:00:03.0; code; pinwire unbind 0000:00:03.0",
            "error: 0000:00:03.0 is in use: eth
             is up with the address 192.0.2.1
             pinwire bind --force 0000:00:03.0
             exit code 1
             /e1000
             0000:00:03.0: e1000 -> vfio-pci
             exit code 0
             vfio-pci -> e1000",
        ),
        (
            "a bridge",
            "pinwire bind --force 0000:00:11.0; code; readlink $sys/0000:00:11.0/driver",
            "error: 0000:00:11.0 cannot be given to vfio-pci: it is a bridge
             exit code 1
             /pcieport",
        ),
        (
            "a group that is not viable",
            "pinwire bind 0000:00:10.0; code; hello_bar 0000:00:10.0; code; pinwire list",
            "0000:00:10.0: e1000 -> vfio-pci
             exit code 0
             Error: 0000:00:10.0 cannot be used: IOMMU group
             is not viable
             0000:00:10.1 is bound to e1000; try: pinwire bind 0000:00:10.1
             exit code 1
             0000:00:10.0  vfio-pci
             pinwire bind 0000:00:10.1",
        ),
        (
            "a group that is viable",
            "pinwire bind 0000:00:10.1; code
             hello_bar 0000:00:10.0; code; hello_bar 0000:00:10.1; code",
            "exit code 0
             52:54:00:12:34:58
             exit code 0
             52:54:00:12:34:59
             exit code 0",
        ),
        (
            "gone",
            // The bridge is told that another bus is behind it.
            r"pinwire bind 0000:01:00.0; hello_bar 0000:01:00.0; code
              printf '\7\7' | dd of=$sys/0000:00:11.0/config bs=1 seek=25 2>/dev/null
              hello_bar 0000:01:00.0; code",
            "Ethernet address
             exit code 0
             Error: 0000:01:00.0 is gone: its config space reads all ones
             exit code 1",
        ),
    ];
    let Some(said) = run(&options, &steps) else {
        return;
    };

    let rows: Vec<Value> = serde_json::from_str(&said["json"]).unwrap();
    let mut rows = rows.iter();
    let row = rows.find(|row| row["address"] == "0000:00:03.0").unwrap();
    assert_eq!(
        (&row["vendor"], &row["device"]),
        (&"0x8086".into(), &"0x100e".into())
    );
    assert_eq!(
        (&row["driver"], &row["known"]),
        (&"e1000".into(), &true.into())
    );
    assert!(row["iommu_group"].is_u64(), "{row}");
    assert_eq!(row["usable"], false);
    let why_not = row["why_not"].as_str().unwrap();
    assert!(why_not.contains("pinwire bind 0000:00:03.0"), "{row}");
    assert!(
        row["interfaces"][0].as_str().unwrap().starts_with("eth"),
        "{row}"
    );
}

#[test]
fn a_group_has_one_owner_who_may_open_it_and_pin_memory() {
    let steps = [
        (
            "bind",
            "pinwire bind 0000:00:03.0; code
             file=/dev/vfio/$(basename $(readlink $nic/iommu_group))",
            "exit code 0",
        ),
        (
            "busy",
            r#"sh -c "exec sleep 1000 <>$file" & holder=$!
               while [ "$(cat /proc/$holder/comm)" != sleep ]; do sleep 0.1; done
               hello_bar 0000:00:03.0; code; pinwire list; pinwire unbind 0000:00:03.0; code
               echo "holder $holder"; kill $holder; wait $holder; hello_bar 0000:00:03.0; code"#,
            "Error: 0000:00:03.0: IOMMU group
             is in use by sleep (process
             end that program first
             exit code 1
             0000:00:03.0  vfio-pci
             in use by sleep (process
             error: 0000:00:03.0: IOMMU group
             is in use by sleep (process
             exit code 1
             holder
             Ethernet address 52:54:00:12:34:56
             exit code 0",
        ),
        (
            "not permitted",
            "su nobody -s /bin/sh -c 'hello_bar 0000:00:03.0'; code",
            "Error: /dev/vfio/
             permission denied
             it belongs to root (mode 600)
             sudo chown
             exit code 1",
        ),
        (
            "permitted",
            "chown nobody $file; su nobody -s /bin/sh -c 'hello_bar 0000:00:03.0'; code",
            "Ethernet address 52:54:00:12:34:56
             exit code 0",
        ),
        (
            "without the container file",
            "mv /dev/vfio/vfio /tmp/; hello_bar 0000:00:03.0; code; mv /tmp/vfio /dev/vfio/",
            "Error: there is no /dev/vfio/vfio
             try: sudo modprobe vfio-pci
             exit code 1",
        ),
        (
            "a limit on mappings",
            "limit=/sys/module/vfio_iommu_type1/parameters/dma_entry_limit; before=$(cat $limit)
             echo 2 >$limit; pinwire show 0000:00:03.0; code; echo $before >$limit",
            "error: 0000:00:03.0: mapping
             bytes for the device: the kernel allows 2 mappings at a time
             dma_entry_limit
             exit code 1",
        ),
        (
            "a limit on locked memory",
            // Each try is given what the one before asked for.
            r#"limit=4; tries=0
               while [ $tries -lt 9 ]; do
                   tries=$((tries + 1))
                   su nobody -s /bin/sh -c "ulimit -l $limit; pinwire show 0000:00:03.0" >/tmp/show 2>&1 && break
                   grep -A1 '^error' /tmp/show
                   limit=$(sed -n 's/.*ulimit -l \([0-9]*\).*/\1/p' /tmp/show)
               done
               echo "try $tries: $limit KiB"; grep STATUS /tmp/show"#,
            "error: cannot pin
             bytes of memory: the locked-memory limit is 4096 bytes
             ulimit -l
             try
             STATUS",
        ),
    ];
    let Some(said) = run(&[], &steps) else {
        return;
    };
    let holder = said["busy"].split("holder ").nth(1).unwrap();
    let holder = format!("sleep (process {})", holder.lines().next().unwrap());
    assert_eq!(said["busy"].matches(&holder).count(), 3, "{}", said["busy"]);
}

#[test]
fn without_an_iommu_nothing_is_taken() {
    let steps = [
        (
            "list",
            "pinwire list",
            "0000:00:03.0  e1000
             turn on the IOMMU",
        ),
        (
            "bind",
            "pinwire bind --force 0000:00:03.0; code; readlink $nic/driver",
            "error: 0000:00:03.0: no IOMMU is active
             intel_iommu=on
             exit code 1
             /e1000",
        ),
        (
            "open",
            "hello_bar 0000:00:03.0; code",
            "Error: 0000:00:03.0: no IOMMU is active
             intel_iommu=on
             exit code 1",
        ),
    ];
    let _ = run(&["--no-iommu"], &steps);
}

#[test]
fn an_iommu_that_does_not_remap_interrupts_is_not_enough() {
    let steps = [(
        "open",
        "pinwire bind 0000:00:03.0; hello_bar 0000:00:03.0; code
         echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts
         hello_bar 0000:00:03.0; code",
        "Error: 0000:00:03.0: the IOMMU does not remap interrupts
         allow_unsafe_interrupts
         exit code 1
         Ethernet address 52:54:00:12:34:56
         exit code 0",
    )];
    let iommu = "-device intel-iommu,intremap=off";
    let _ = run(&["--no-iommu", "--qemu-args", iommu], &steps);
}

#[test]
fn without_modules_or_hugepages_it_says_which_and_goes_on_with_them() {
    let steps = [
        (
            "without vfio-pci",
            "pinwire list
             pinwire bind 0000:00:03.0; code; readlink $nic/driver; hello_bar 0000:00:03.0; code",
            "0000:00:03.0  e1000
             sudo modprobe vfio-pci
             error: the kernel's vfio-pci driver is not loaded
             try: sudo modprobe vfio-pci
             exit code 1
             /e1000
             Error: the kernel's vfio-pci driver is not loaded
             try: sudo modprobe vfio-pci
             exit code 1",
        ),
        (
            "without type 1",
            "modprobe vfio-pci; pinwire bind 0000:00:03.0; code; hello_bar 0000:00:03.0; code",
            "0000:00:03.0: e1000 -> vfio-pci
             exit code 0
             Error: the kernel's VFIO has no type 1 IOMMU
             try: sudo modprobe vfio_iommu_type1
             exit code 1",
        ),
        (
            "with both",
            "modprobe vfio_iommu_type1; hello_bar 0000:00:03.0; code",
            "Ethernet address 52:54:00:12:34:56
             exit code 0",
        ),
        (
            "without the former driver",
            "rmmod e1000; pinwire unbind 0000:00:03.0; code; readlink $nic/driver
             modprobe e1000; pinwire unbind 0000:00:03.0; code; pinwire bind 0000:00:03.0",
            "error: 0000:00:03.0: its driver e1000 is not loaded any more
             try: sudo modprobe e1000
             exit code 1
             /vfio-pci
             0000:00:03.0: vfio-pci -> e1000
             exit code 0
             e1000 -> vfio-pci",
        ),
        (
            "without hugepages",
            "pinwire show 0000:00:03.0 >/tmp/show; code",
            "not enough hugepages
             /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
             exit code 0",
        ),
        (
            "with hugepages",
            "echo 64 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
             pinwire show 0000:00:03.0 >/tmp/show; code",
            "exit code 0",
        ),
    ];
    let Some(said) = run(&["--no-vfio", "--hugepages", "0"], &steps) else {
        return;
    };
    let words = |step: &str| said[step].matches("not enough hugepages").count();
    assert_eq!(words("without hugepages"), 1);
    assert_eq!(words("with hugepages"), 0);
}

#[test]
fn the_backend_works_on_real_devices() {
    if !common::wants_vm() {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    common::put_test("vfio", share.path());
    let share = share.path().to_str().unwrap();
    let others = "-device e1000,addr=0x10.0,multifunction=on -device e1000,addr=0x10.1 \
        -device pcie-root-port,id=below,addr=0x11,chassis=1 \
        -netdev hubport,hubid=0,id=alone -device e1000,bus=below,netdev=alone";
    let nics = ["--nic", "e1000,e1000e,e1000", "--net", "hub:0"];
    let nics = [&nics[..], &["--qemu-args", others]].concat();
    let options = [&nics[..], &["--share", share]].concat();
    let inside =
        "pinwire bind 0000:00:03.0 0000:00:04.0 0000:00:10.0 0000:00:10.1 0000:01:00.0; code
        /share/vfio --test-threads=1; code";
    let steps = [(
        "inside",
        inside,
        "exit code 0\ntest result: ok.\n0 failed; 0 ignored\nexit code 0",
    )];
    let _ = run(&options, &steps);
}

#[test]
fn a_card_that_is_unplugged_is_let_go_and_another_knows_its_link() {
    if !common::wants_vm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (share, socket) = (folder.path().join("share"), folder.path().join("qmp"));
    std::fs::create_dir(&share).unwrap();
    let steps = [
        (
            "unplugged",
            "pinwire bind 0000:01:00.0 0000:00:04.0; code
             pinwire recv 0000:01:00.0 &
             until grep -q 'vfio-.*0000:01:00.0' /proc/interrupts; do sleep 0.1; done; sleep 1; touch /share/ready; wait $!; code
             while [ -e $sys/0000:01:00.0 ]; do sleep 0.1; done; echo out",
            "exit code 0
             0000:01:00.0 is gone
             exit code 1
             out",
        ),
        (
            "link down",
            "until [ -e /share/down ]; do sleep 0.1; done; hello_bar 0000:00:04.0",
            "lu: false",
        ),
    ];
    let qmp = |command: &str, arguments: &str| {
        let answer = common::qmp(&socket, command, arguments);
        assert!(answer.contains("return"), "{answer}");
    };
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let monitor = scope.spawn(|| {
            while !share.join("ready").exists() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            qmp("device_del", r#"{"id": "nic0"}"#);
            qmp("set_link", r#"{"name": "nic1", "up": false}"#);
            std::fs::write(share.join("down"), "").unwrap();
        });
        let options = [
            ["--nic", "e1000+hotplug,e1000"],
            ["--share", share.to_str().unwrap()],
            ["--qmp", socket.to_str().unwrap()],
        ];
        let said = catch_unwind(|| run(options.as_flattened(), &steps));
        // Where a step failed nobody says that it is ready.
        ended.store(true, Ordering::Relaxed);
        monitor.join().unwrap();
        if let Err(panic) = said {
            resume_unwind(panic);
        }
    });
}

use std::fs;

use crate::error::Error;
use crate::pci::machine::{Machine, NIC, address};

/// Path of a disk's directory.
fn disk(name: &str) -> String {
    format!("sys/devices/pci0000:00/{NIC}/virtio1/block/{name}")
}

fn virtual_block(name: &str) -> String {
    format!("sys/devices/virtual/block/{name}")
}

/// A machine whose function has a disk vda, of two partitions.
fn with_a_disk() -> Machine {
    let machine = Machine::new("none0");
    machine.file(&format!("sys/bus/pci/devices/{NIC}/class"), "0x010000\n");
    machine.block("vda", "254:0", &disk("vda"));
    for (number, minor) in [(1, "254:1"), (2, "254:2")] {
        let directory = disk(&format!("vda/vda{number}"));
        machine.file(&format!("{directory}/partition"), &number.to_string());
        machine.block(&format!("vda{number}"), minor, &directory);
    }
    machine
}

/// Asserts that it is refused, with and without force, by these words.
#[track_caller]
fn refused(machine: &Machine, words: &str) {
    for force in [false, true] {
        let error = machine.sysfs.bind(address(), force).unwrap_err();
        assert!(matches!(error, Error::DiskInUse { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(words), "{text}");
        assert!(text.contains("never taken away"), "{text}");
    }
    assert_eq!(machine.driver().as_deref(), Some("e1000"));
}

#[test]
fn an_idle_disk_is_taken_where_that_is_meant() {
    let machine = with_a_disk();
    let error = machine.sysfs.bind(address(), false).unwrap_err();
    assert!(matches!(error, Error::NotNetwork { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(
            "is a SCSI controller, neither a network card nor an NVMe disk; e1000 has it"
        ),
        "{text}"
    );
    assert!(text.contains("can be taken all the same"), "{text}");
    machine.sysfs.bind(address(), true).unwrap();
}

#[test]
fn an_idle_nvme_disk_is_taken_and_one_in_use_is_not() {
    let machine = with_a_disk();
    machine.file(&format!("sys/bus/pci/devices/{NIC}/class"), "0x010802\n");
    let mount = "25 1 254:2 / /home rw - ext4 /dev/vda2 rw\n";
    machine.file("proc/self/mountinfo", mount);
    refused(&machine, "/home is mounted from its partition vda2");
    machine.file("proc/self/mountinfo", "");
    machine.sysfs.bind(address(), false).unwrap();
}

#[test]
fn mounted_in_our_own_namespace() {
    let machine = with_a_disk();
    let mount = "25 1 254:2 / /home rw - ext4 /dev/vda2 rw\n";
    machine.file("proc/self/mountinfo", mount);
    refused(&machine, "/home is mounted from its partition vda2");
}

#[test]
fn mounted_in_anothers_namespace() {
    let machine = with_a_disk();
    machine.file("proc/self/mountinfo", "25 1 0:1 / / rw - tmpfs tmpfs rw\n");
    machine.link("proc/self/ns/mnt", "/mnt:[1]");
    machine.link("proc/7/ns/mnt", "/mnt:[2]");
    machine.file("proc/7/comm", "shop\n");
    machine.file(
        "proc/7/mountinfo",
        "25 1 254:0 / /data rw - xfs /dev/vda rw\n",
    );
    refused(
        &machine,
        "/data (in the mount namespace of shop (process 7)) is mounted from its disk vda",
    );
}

#[test]
fn a_second_device_of_a_btrfs() {
    let machine = with_a_disk();
    machine.block(
        "sdb",
        "8:16",
        "sys/devices/pci0000:00/0000:00:1f.2/ata1/block/sdb",
    );
    let devices = "sys/fs/btrfs/6f2b/devices";
    machine.link(
        &format!("{devices}/sdb"),
        "sys/devices/pci0000:00/0000:00:1f.2/ata1/block/sdb",
    );
    machine.link(&format!("{devices}/vda"), &disk("vda"));
    // The mount names the one that is not ours.
    let mount = "25 1 0:44 / /srv rw - btrfs /dev/sdb rw\n";
    machine.file("proc/self/mountinfo", mount);
    refused(&machine, "/srv is mounted from its disk vda");
    // Where no mount shows it.
    machine.file("proc/self/mountinfo", "");
    refused(&machine, "a filesystem (btrfs) on its disk vda is in use");
}

#[test]
fn a_filesystem_that_no_mount_shows() {
    let machine = with_a_disk();
    machine.file("sys/fs/ext4/vda1/session_write_kbytes", "0");
    refused(
        &machine,
        "a filesystem (ext4) on its partition vda1 is in use",
    );
}

#[test]
fn volumes_above_whatever_lies_between() {
    let machine = with_a_disk();
    // A RAID of a partition, an encrypted volume on that, LVM on that.
    machine.block("md0", "9:0", &virtual_block("md0"));
    machine.file(&format!("{}/md/level", virtual_block("md0")), "raid1");
    machine.link(
        &format!("{}/holders/md0", disk("vda/vda1")),
        &virtual_block("md0"),
    );
    refused(&machine, "there is the RAID md0, made of vda1");

    for (name, number, below, uuid, mapped) in [
        ("dm-0", "253:0", "md0", "CRYPT-LUKS2-1", "vault"),
        ("dm-1", "253:1", "dm-0", "LVM-2", "vg-home"),
    ] {
        let directory = virtual_block(name);
        machine.block(name, number, &directory);
        machine.file(&format!("{directory}/dm/name"), mapped);
        machine.file(&format!("{directory}/dm/uuid"), uuid);
        // Told by the upper of the two alone.
        machine.link(
            &format!("{directory}/slaves/{below}"),
            &virtual_block(below),
        );
    }
    refused(
        &machine,
        "there is the volume vg-home (dm-1, LVM), made of dm-0",
    );
    let mount = "25 1 253:1 / /home rw - ext4 /dev/mapper/vg-home rw\n";
    machine.file("proc/self/mountinfo", mount);
    refused(
        &machine,
        "/home is mounted from the volume vg-home (dm-1, LVM)",
    );
}

#[test]
fn a_multipath_device_and_one_of_nvmes_own() {
    let machine = with_a_disk();
    machine.block("dm-0", "253:0", &virtual_block("dm-0"));
    machine.file(&format!("{}/dm/name", virtual_block("dm-0")), "mpatha");
    machine.file(&format!("{}/dm/uuid", virtual_block("dm-0")), "mpath-360");
    machine.link(
        &format!("{}/slaves/vda", virtual_block("dm-0")),
        &disk("vda"),
    );
    refused(
        &machine,
        "there is the multipath device mpatha (dm-0), made of vda",
    );

    let machine = Machine::new("none0");
    let subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
    machine.file(
        &format!("sys/devices/pci0000:00/{NIC}/nvme/nvme0/model"),
        "x",
    );
    machine.link(
        &format!("{subsystem}/nvme0"),
        &format!("sys/devices/pci0000:00/{NIC}/nvme/nvme0"),
    );
    machine.block("nvme0n1", "259:0", &format!("{subsystem}/nvme0n1"));
    machine.block(
        "nvme0n1p1",
        "259:1",
        &format!("{subsystem}/nvme0n1/nvme0n1p1"),
    );
    machine.file(
        "proc/self/mountinfo",
        "25 1 259:1 / / rw - ext4 /dev/root rw\n",
    );
    refused(&machine, "/ is mounted from its disk nvme0n1p1");
}

#[test]
fn loop_devices_over_a_file_and_over_the_disk() {
    for (backing, words) in [
        (
            "/mnt/images/a b.img",
            "there is the loop device loop0, made of vda2",
        ),
        (
            "/mnt/images/a b.img (deleted)",
            "there is the loop device loop0, made of vda2",
        ),
        ("/dev/vda", "there is the loop device loop0, made of vda"),
    ] {
        let machine = with_a_disk();
        machine.block("loop0", "7:0", &virtual_block("loop0"));
        machine.file(
            &format!("{}/loop/backing_file", virtual_block("loop0")),
            backing,
        );
        machine.file(
            "proc/self/mountinfo",
            "25 1 254:2 / /mnt rw - ext4 /dev/vda2 rw\n",
        );
        let error = machine.sysfs.bind(address(), true).unwrap_err().to_string();
        assert!(error.contains("/mnt is mounted"), "{error}");
        // The mount may be another's to see.
        if backing == "/dev/vda" {
            machine.file("proc/self/mountinfo", "");
            refused(&machine, words);
        } else {
            machine.file("proc/self/mountinfo", "25 1 7:0 / /loop rw - ext4 /dev/loop0 rw\n26 1 254:2 / /mnt rw - ext4 /dev/vda2 rw\n");
            refused(&machine, "is mounted from");
        }
    }
}

#[test]
fn swap_on_a_partition_and_in_a_file() {
    let machine = with_a_disk();
    let head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
    machine.file(
        "proc/swaps",
        &format!("{head}/dev/vda2 partition 1000 0 -2\n"),
    );
    refused(&machine, "/dev/vda2 is swap, on its partition vda2");
    machine.file(
        "proc/swaps",
        &format!("{head}/var/swap\\040file file 1000 0 -2\n"),
    );
    machine.sysfs.check_unused(address()).unwrap();
    machine.file(
        "proc/self/mountinfo",
        "25 1 254:1 / /var rw - ext4 /dev/vda1 rw\n",
    );
    refused(&machine, "/var is mounted");
}

#[test]
fn a_folder_of_the_host_that_comes_through_it() {
    let machine = Machine::new("none0");
    let device = format!("sys/devices/pci0000:00/{NIC}/virtio1");
    machine.link("sys/bus/virtio/devices/virtio1", &device);
    machine.file(&format!("{device}/mount_tag"), "share\0");
    machine.sysfs.check_unused(address()).unwrap();
    machine.file(
        "proc/self/mountinfo",
        "25 1 0:40 / /share rw - 9p share rw\n",
    );
    refused(&machine, "/share is mounted through it");
}

#[test]
fn a_disk_of_a_virtual_function() {
    let machine = Machine::new("none0");
    let device = format!("sys/bus/pci/devices/{NIC}");
    for (file, text) in [
        ("vendor", "0x8086"),
        ("device", "0x10ed"),
        ("class", "0x010802"),
    ] {
        machine.file(&format!("sys/bus/pci/devices/0000:00:03.1/{file}"), text);
    }
    machine.link(
        &format!("{device}/virtfn0"),
        "sys/bus/pci/devices/0000:00:03.1",
    );
    machine.block(
        "nvme1n1",
        "259:0",
        "sys/devices/pci0000:00/0000:00:03.1/nvme/nvme1/nvme1n1",
    );
    machine.file(
        "proc/self/mountinfo",
        "25 1 259:0 / /data rw - ext4 /dev/nvme1n1 rw\n",
    );
    refused(&machine, "/data is mounted from its disk nvme1n1");
}

/// The one interface that every machine has, with an address.
#[test]
fn an_interface_in_use_is_refused_unless_forced() {
    for (flags, words) in [
        ("0x1003\n", "lo is up with the address"),
        ("0x1002\n", "lo has the address"),
    ] {
        let machine = Machine::new("lo");
        machine.file("sys/class/net/lo/flags", flags);
        let error = machine.sysfs.bind(address(), false).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(words), "{error}");
        assert!(error.contains("end that first"), "{error}");
        assert_eq!(machine.driver().as_deref(), Some("e1000"));
        machine.sysfs.bind(address(), true).unwrap();
        assert_eq!(machine.driver().as_deref(), Some("vfio-pci"));
    }
}

#[test]
fn an_interface_that_is_up_and_no_more_is_taken() {
    let machine = Machine::new("none0");
    machine.file("sys/class/net/none0/flags", "0x1003\n");
    machine.sysfs.bind(address(), false).unwrap();
}

#[test]
fn an_interface_that_somebody_listens_to_or_the_default_route_is_in_use() {
    let machine = Machine::new("none0");
    machine.file("sys/class/net/none0/flags", "0x1003\n");
    machine.file("sys/class/net/none0/ifindex", "4\n");
    let head = "sk RefCnt Type Proto  Iface R Rmem   User   Inode";
    let sockets = format!("{head}\nffff 3 3 0003 3 1 0 0 55\nffff 3 3 0003 4 1 0 0 56\n");
    machine.file("proc/thread-self/net/packet", &sockets);
    machine.file("proc/8/comm", "tcpdump\n");
    let folder = machine.root.path().join("proc/8/fd");
    fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink("socket:[56]", folder.join("3")).unwrap();
    let error = machine
        .sysfs
        .bind(address(), false)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("tcpdump (process 8) listens to the frames of none0"),
        "{error}"
    );

    let routes = "Iface\tDestination\tGateway\nnone0\t00000000\t0200000A\n";
    machine.file("proc/thread-self/net/route", routes);
    let error = machine
        .sysfs
        .bind(address(), false)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("none0 is up, and the default route goes there"),
        "{error}"
    );
}

#[test]
fn an_interface_of_which_something_was_made_is_in_use_up_or_not() {
    for (flags, words) in [
        ("0x1003\n", "none0 is up and part of br0"),
        ("0x1002\n", "none0 is part of br0"),
    ] {
        let machine = Machine::new("none0");
        machine.file("sys/class/net/none0/flags", flags);
        machine.file("sys/class/net/none0/upper_br0/flags", "");
        let error = machine
            .sysfs
            .bind(address(), false)
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn registers_that_a_process_has_mapped() {
    let machine = Machine::new("none0");
    machine.file("proc/9/comm", "testpmd\n");
    let resource = format!("/sys/devices/pci0000:00/{NIC}/resource0");
    let line = format!("7f00-7f01 rw-s 00000000 00:15 1234    {resource}\n");
    machine.file("proc/9/maps", &line);
    let error = machine
        .sysfs
        .bind(address(), false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("testpmd (process 9) has"), "{error}");
    assert!(error.contains("resource0 mapped"), "{error}");
    fs::remove_file(machine.root.path().join("proc/9/maps")).unwrap();
    machine.link("proc/9/fd/3", &resource);
    let error = machine
        .sysfs
        .bind(address(), false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("resource0 open"), "{error}");
}

//! What `pinwire bind` refuses, since somebody uses it, and what `pinwire unbind` gives back: with the
//! kernel's own disks, filesystems, namespaces and bridges.

use serde_json::Value;

use crate::common;
use crate::vfio::run;

/// A btrfs of two devices (128 MiB each, `mkfs.btrfs -m raid1 -d single`), compressed.
const BTRFS: [&[u8]; 2] = [
    include_bytes!("btrfs/first.xz"),
    include_bytes!("btrfs/second.xz"),
];

#[test]
fn a_disk_is_not_taken_while_anything_of_it_is_used_however_far_above() {
    if !common::wants_vm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (name, content) in ["first.xz", "second.xz"].iter().zip(BTRFS) {
        std::fs::write(path(name), content).unwrap();
    }
    let mut disks = String::new();
    for (name, slot) in [("one", "0x10"), ("two", "0x11")] {
        let file = std::fs::File::create(path(name)).unwrap();
        file.set_len(128 << 20).unwrap();
        disks += &format!(
            " -drive file={},if=none,id={name},format=raw,cache=unsafe \
             -device virtio-blk-pci,drive={name},addr={slot},romfile=,iommu_platform=on,disable-legacy=on",
            path(name)
        );
    }
    let steps = [
        (
            "nobody uses it",
            "modprobe -a virtio_blk ext4 loop btrfs raid1
             until [ -b /dev/vda ] && [ -b /dev/vdb ]; do sleep 0.1; done
             disk=0000:00:10.0
             pinwire bind $disk; code
             pinwire bind --force $disk; code; pinwire unbind $disk; code
             until [ -b /dev/vda ]; do sleep 0.1; done",
            "error: 0000:00:10.0 is a SCSI controller, neither a network card nor an NVMe disk; virtio-pci has it
             pinwire bind --force 0000:00:10.0
             exit code 1
             0000:00:10.0: virtio-pci -> vfio-pci
             exit code 0
             0000:00:10.0: vfio-pci -> virtio-pci
             exit code 0",
        ),
        (
            "mounted, and a loop device over a file on it",
            "mke2fs /dev/vda >/dev/null 2>&1; mkdir -p /mnt; mount -t ext4 /dev/vda /mnt
             pinwire bind --force $disk; code
             truncate -s 32M /mnt/image; losetup /dev/loop0 /mnt/image
             pinwire bind --force $disk; code",
            "error: 0000:00:10.0 is in use: /mnt is mounted from its disk vda
             not with --force either
             exit code 1
             /mnt is mounted from its disk vda
             exit code 1",
        ),
        (
            "mounted where nobody sees it",
            // A file on it keeps it in use.
            "losetup -d /dev/loop0; exec 9</mnt/image; umount -l /mnt
             pinwire bind --force $disk; code; exec 9<&-
             until ! [ -e /sys/fs/ext4/vda ]; do sleep 0.1; done",
            "error: 0000:00:10.0 is in use: a filesystem (ext4) on its disk vda is in use
             exit code 1",
        ),
        (
            "mounted in another namespace",
            "unshare -m sh -c 'mount -t ext4 /dev/vda /mnt && exec sleep 100000' & inside=$!
             until grep -q ' /mnt ext4 ' /proc/$inside/mounts; do sleep 0.1; done
             pinwire bind --force $disk; code; kill $inside; wait $inside 2>/dev/null
             until ! [ -e /sys/fs/ext4/vda ]; do sleep 0.1; done",
            "/mnt (in the mount namespace of sleep (process
             is mounted from its disk vda
             exit code 1",
        ),
        (
            "a loop device over the disk itself",
            "losetup /dev/loop0 /dev/vda; pinwire bind --force $disk; code; losetup -d /dev/loop0",
            "error: 0000:00:10.0 is in use: there is the loop device loop0, made of vda
             exit code 1",
        ),
        (
            "a process with the disk open",
            "sleep 100000 </dev/vda & holder=$!
             until [ \"$(cat /proc/$holder/comm)\" = sleep ]; do sleep 0.1; done
             pinwire bind --force $disk; code; kill $holder; wait $holder 2>/dev/null",
            "is in use: sleep (process
             has /dev/vda open
             exit code 1",
        ),
        (
            "swap",
            "mkswap /dev/vda >/dev/null; swapon /dev/vda
             pinwire bind --force $disk; code; swapoff /dev/vda",
            "error: 0000:00:10.0 is in use: /dev/vda is swap, on its disk vda
             exit code 1",
        ),
        (
            "a RAID that nothing is on yet",
            // As mdadm does it. A new array is `active` first, and nothing of it needs a resync.
            "echo md_twins >/sys/module/md_mod/parameters/new_array
             md=/sys/block/md_twins/md
             echo none >$md/metadata_version; echo raid1 >$md/level; echo 2 >$md/raid_disks
             for disk_name in vda vdb; do cat /sys/block/$disk_name/dev >$md/new_dev; done
             echo 0 >$md/dev-vda/slot; echo 1 >$md/dev-vdb/slot
             for disk_name in vda vdb; do echo 65536 >$md/dev-$disk_name/size; done
             echo 65536 >$md/component_size; echo none >$md/resync_start
             echo active >$md/array_state; cat $md/level
             ls /sys/block/vda/holders
             pinwire bind --force $disk; code
             mke2fs /dev/md_twins >/dev/null 2>&1; mount -t ext4 /dev/md_twins /mnt
             pinwire bind --force 0000:00:11.0; code
             umount /mnt; echo clear >$md/array_state
             until [ -z \"$(ls /sys/block/vda/holders)\" ]; do sleep 0.1; done",
            "raid1
             md_twins
             error: 0000:00:10.0 is in use: there is the RAID md_twins, made of vda
             exit code 1
             error: 0000:00:11.0 is in use: /mnt is mounted from the RAID md_twins, made of vdb
             exit code 1",
        ),
        (
            "a btrfs of two disks, of which the mount names one",
            "xzcat /share/first.xz >/dev/vda; xzcat /share/second.xz >/dev/vdb
             mount -t btrfs -o device=/dev/vdb,device=/dev/vda /dev/vda /mnt
             pinwire bind --force $disk; code
             pinwire bind --force 0000:00:11.0; code; umount /mnt",
            "error: 0000:00:10.0 is in use: /mnt is mounted from its disk vda
             exit code 1
             error: 0000:00:11.0 is in use: /mnt is mounted from its disk vdb
             exit code 1",
        ),
        (
            "what the VM itself runs from",
            "pinwire bind --force 0000:00:18.0; code",
            "error: 0000:00:18.0 is in use: /run/vm is mounted through it
             exit code 1",
        ),
        (
            "nobody uses it any more",
            "pinwire bind --force $disk 0000:00:11.0; code",
            "0000:00:10.0: virtio-pci -> vfio-pci
             0000:00:11.0: virtio-pci -> vfio-pci
             exit code 0",
        ),
    ];
    let share = folder.path().to_str().unwrap();
    let options = ["--share", share, "--qemu-args", disks.trim()];
    let _ = run(&options, &steps);
}

#[test]
fn a_card_is_not_taken_while_its_interface_is_used_wherever_that_is() {
    let around = "-device virtio-net-pci,addr=0x10,romfile=,disable-legacy=on";
    let options = ["--nic", "e1000,virtio", "--qemu-args", around];
    let steps = [
        (
            "up in another network namespace",
            "for i in all default; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done; eth=$(ls $nic/net)
             unshare -n sleep 100000 & inside=$!
             until [ \"$(cat /proc/$inside/comm)\" = sleep ]; do sleep 0.1; done
             ip link set $eth netns $inside; nsenter -t $inside -n ip link set $eth up
             pinwire bind 0000:00:03.0; code
             nsenter -t $inside -n ip link set $eth down; pinwire bind 0000:00:03.0; code",
            "error: 0000:00:03.0 is in use: its interface eth
             is in the network namespace of sleep (process
             pinwire bind --force 0000:00:03.0
             exit code 1
             is in the network namespace of sleep
             exit code 1",
        ),
        (
            "from inside it is one of ours",
            "nsenter -t $inside -n pinwire bind 0000:00:03.0; code
             nsenter -t $inside -n pinwire unbind 0000:00:03.0; code
             nsenter -t $inside -n ls /sys/class/net >/dev/null; kill $inside; wait $inside 2>/dev/null
             until [ -n \"$(ls $nic/net)\" ]; do sleep 0.1; done",
            "0000:00:03.0: e1000 -> vfio-pci
             exit code 0
             0000:00:03.0: vfio-pci -> e1000
             exit code 0",
        ),
        (
            "a namespace that has a name and no process",
            "eth=$(ls $nic/net); mkdir -p /run/netns; : >/run/netns/blue
             unshare -n mount -o bind /proc/self/ns/net /run/netns/blue
             nsenter -n/run/netns/blue sleep 100000 & inside=$!
             until [ \"$(cat /proc/$inside/comm)\" = sleep ]; do sleep 0.1; done
             ip link set $eth netns $inside; kill $inside; wait $inside 2>/dev/null
             pinwire bind 0000:00:03.0; code",
            "is in the network namespace blue
             exit code 1",
        ),
        (
            "a namespace that is mounted only where another process sees it",
            "mkdir /run/red; unshare -m sh -c 'mount -t tmpfs none /run/red && : >/run/red/it &&
                 mount -o bind /run/netns/blue /run/red/it && exec sleep 100000' & inside=$!
             until [ \"$(cat /proc/$inside/comm)\" = sleep ]; do sleep 0.1; done
             nsenter -t $inside -m umount /run/netns/blue; umount /run/netns/blue
             pinwire bind 0000:00:03.0; code",
            "is in the network namespace /run/red/it (in the mount namespace of sleep (process
             exit code 1",
        ),
        (
            "a namespace that a process has open, of a file that is mounted no more",
            "sleep 100000 </proc/$inside/root/run/red/it & holder=$!
             until [ \"$(cat /proc/$holder/comm)\" = sleep ]; do sleep 0.1; done
             kill $inside; wait $inside 2>/dev/null
             pinwire bind 0000:00:03.0; code; kill $holder; wait $holder 2>/dev/null
             until [ -n \"$(ls $nic/net)\" ]; do sleep 0.1; done",
            "is in a network namespace that sleep (process
             has open
             exit code 1",
        ),
        (
            "in a bridge, and below a VLAN",
            "modprobe -a bridge 8021q; eth=$(ls $nic/net)
             brctl addbr br0; brctl addif br0 $eth
             pinwire bind 0000:00:03.0; code; brctl delif br0 $eth
             ip link add link $eth name tagged type vlan id 5
             pinwire bind 0000:00:03.0; code; ip link del tagged",
            "is part of br0
             exit code 1
             is part of tagged
             exit code 1",
        ),
        (
            "up, and somebody listens",
            "ip link set $eth up; udhcpc -f -n -t 100 -i $eth >/dev/null 2>&1 & client=$!
             until grep -q . /proc/$client/net/packet && [ \"$(wc -l </proc/net/packet)\" -gt 1 ]; do sleep 0.1; done
             pinwire bind 0000:00:03.0; code; kill $client; wait $client 2>/dev/null
             pinwire bind 0000:00:03.0; code; pinwire unbind 0000:00:03.0; code",
            "udhcpc (process
             listens to the frames of eth
             exit code 1
             e1000 -> vfio-pci
             exit code 0
             vfio-pci -> e1000
             exit code 0",
        ),
        (
            "a virtio card that goes around the IOMMU",
            "pinwire list
             pinwire bind 0000:00:10.0; code; readlink $sys/0000:00:10.0/driver",
            "0000:00:04.0  virtio-pci
             pinwire bind 0000:00:04.0
             0000:00:10.0  virtio-pci
             QEMU: iommu_platform=on
             error: 0000:00:10.0: it does not offer VIRTIO_F_ACCESS_PLATFORM
             iommu_platform=on
             exit code 1
             /virtio-pci",
        ),
        ("json", "pinwire list --json", ""),
    ];
    let Some(said) = run(&options, &steps) else {
        return;
    };
    let rows: Vec<Value> = serde_json::from_str(&said["json"]).unwrap();
    let row = rows
        .iter()
        .find(|row| row["address"] == "0000:00:10.0")
        .unwrap();
    let why_not = row["why_not"].as_str().unwrap();
    assert!(why_not.contains("VIRTIO_F_ACCESS_PLATFORM"), "{row}");
    assert_eq!(row["usable"], false);
}

#[test]
fn what_is_not_as_it_was_is_told_and_mended_by_what_it_says() {
    let options = [
        "--nic",
        "e1000",
        "--qemu-args",
        "-device nvme-subsys,id=s -device nvme,subsys=s,serial=a,sriov_max_vfs=2,sriov_vq_flexible=4,sriov_vi_flexible=2,max_ioqpairs=8,msix_qsize=9,addr=0x10 -device rtl8139,addr=0x11,romfile=",
    ];
    let steps = [
        (
            "ids that were put into vfio-pci",
            "echo 0000:00:03.0 >$nic/driver/unbind; echo 8086 100e >/sys/bus/pci/drivers/vfio-pci/new_id
             pinwire bind 0000:00:03.0; code; pinwire unbind 0000:00:03.0; code
             echo 8086 100e | tee /sys/bus/pci/drivers/vfio-pci/remove_id; pinwire unbind 0000:00:03.0; code",
            "0000:00:03.0: on vfio-pci already
             exit code 0
             error: 0000:00:03.0 is not given back: vfio-pci took it again
             echo 8086 100e | sudo tee /sys/bus/pci/drivers/vfio-pci/remove_id
             exit code 1
             0000:00:03.0: vfio-pci -> e1000
             exit code 0",
        ),
        (
            "ids that vfio-pci has, and a driver that is remembered",
            "pinwire bind 0000:00:03.0; echo 8086 100e >/sys/bus/pci/drivers/vfio-pci/new_id
             pinwire unbind 0000:00:03.0; code; cat $nic/driver_override
             echo 8086 100e >/sys/bus/pci/drivers/vfio-pci/remove_id",
            "e1000 -> vfio-pci
             vfio-pci -> e1000
             exit code 0
             (null)",
        ),
        (
            "reserved for vfio-pci before",
            "echo vfio-pci >$nic/driver_override; pinwire bind 0000:00:03.0; pinwire unbind 0000:00:03.0; code
             cat $nic/driver_override",
            "vfio-pci -> e1000
             exit code 0
             vfio-pci",
        ),
        (
            "reserved for vfio-pci, and nobody remembers why",
            "pinwire unbind 0000:00:03.0; code; cat $nic/driver_override
             echo 0000:00:03.0 >$nic/driver/unbind; echo vfio-pci >$nic/driver_override
             pinwire unbind 0000:00:03.0; code; cat $nic/driver_override",
            "on e1000 already
             its driver_override said vfio-pci
             exit code 0
             (null)
             no driver -> e1000
             exit code 0
             (null)",
        ),
        (
            "a driver that refuses, and a bind after it",
            // What is written there is lost.
            "pinwire bind 0000:00:03.0; mount -o bind /dev/null /sys/bus/pci/drivers/e1000/bind
             pinwire unbind 0000:00:03.0; code; pinwire bind 0000:00:03.0; code
             umount /sys/bus/pci/drivers/e1000/bind; pinwire unbind 0000:00:03.0; code",
            "e1000 -> vfio-pci
             error: 0000:00:03.0 is not given back: e1000 did not take it; it is on no driver
             exit code 1
             0000:00:03.0: no driver -> vfio-pci
             exit code 0
             0000:00:03.0: vfio-pci -> e1000
             exit code 0",
        ),
        (
            "nobody remembers its driver, which is not loaded",
            "pinwire bind 0000:00:03.0; rm /run/pinwire/*; rmmod e1000
             pinwire unbind 0000:00:03.0; code; modprobe e1000; readlink $nic/driver",
            "error: 0000:00:03.0 is not given back: no driver that is loaded took it
             sudo modprobe $(cat /sys/bus/pci/devices/0000:00:03.0/modalias)
             exit code 1
             /e1000",
        ),
        (
            "a card that no driver here knows",
            "pinwire bind 0000:00:11.0; code; pinwire unbind 0000:00:11.0; code",
            "0000:00:11.0: no driver -> vfio-pci
             0000:00:11.0: no command here has a driver for 10ec:8139
             exit code 0
             vfio-pci -> no driver
             exit code 0",
        ),
        (
            "virtual functions",
            "modprobe nvme; until [ -e $sys/0000:00:10.0/driver ]; do sleep 0.1; done
             cat $sys/0000:00:10.0/sriov_totalvfs
             echo 1 >$sys/0000:00:10.0/sriov_numvfs; code
             pinwire bind --force 0000:00:10.0; code; ls -d $sys/0000:00:10.0/virtfn*
             pinwire unbind 0000:00:10.0; code; ls -d $sys/0000:00:10.0/virtfn*",
            "2
             exit code 0
             0000:00:10.0: nvme -> vfio-pci
             0000:00:10.0: its virtual functions are gone: 1
             exit code 0
             No such file
             vfio-pci -> nvme
             exit code 0
             virtfn0",
        ),
    ];
    let _ = run(&options, &steps);
}

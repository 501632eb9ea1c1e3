//! The rungs on the guest's kernel, which is older than most hosts', and on a file system whose files share
//! blocks: the tests of `tests/ladder.rs`, run inside.

use std::process::Command;

use crate::common;

/// Not in the VM: what needs python, 5 GiB of a sparse file through an emulated processor, what measures
/// its patience, and what a namespace of a newer kernel has of its own.
const SKIP: &str = "--skip every_byte_arrives --skip goes_whole --skip for_long --skip an_interruption \
    --skip kernel_remembers";

#[test]
fn rungs_hold_on_the_guests_kernel_and_files_are_shared_on_btrfs() {
    if !common::wants_vm() {
        return;
    }
    let share = tempfile::tempdir().expect("a directory");
    common::put_test("ladder", share.path());
    let image = share.path().join("btrfs");
    let file = std::fs::File::create(&image).expect("the share can be written");
    file.set_len(512 << 20).expect("a sparse file");
    // In /usr/sbin, which an ordinary user's PATH may lack.
    let mut mkfs = Command::new("/usr/sbin/mkfs.btrfs");
    let made = mkfs.arg("-q").arg(&image).output();
    let made = made.expect("mkfs.btrfs: qemu/setup installs it");
    assert!(made.status.success(), "{made:?}");

    let command = format!(
        "set -e; modprobe -a loop btrfs; mkdir /tmp/btrfs; mount -o loop /share/btrfs /tmp/btrfs
        /share/ladder --test-threads=1 {SKIP} --skip files:: >&2
        echo here; /share/ladder --test-threads=1 files::a_full_disk --nocapture
        echo there; export PINWIRE_LADDER_DIR=/tmp/btrfs
        /share/ladder --test-threads=1 files:: --skip full_disk --nocapture"
    );
    let path = share.path().to_str().expect("a UTF-8 path");
    let Some(output) = common::vm(&["--share", path, "--no-vfio"], &command) else {
        return;
    };
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}\n{err}");
    assert!(
        !err.contains("NOT RUN") && !out.contains("NOT RUN"),
        "{out}\n{err}"
    );
    let (_, there) = out.split_once("there\n").expect("both");
    assert!(there.contains("--- reflink"), "{there}");
}

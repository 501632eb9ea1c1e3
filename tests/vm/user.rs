//! A user who is not root, with what `contrib/` gives him: udev's rule, and the limit of locked memory.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common;

/// Puts udevadm into `share`, with the libraries that it needs: there are none in the VM.
fn put_udevadm(share: &Path) {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or(Path::new(env!("CARGO_MANIFEST_DIR")).join("target"));
    // Where qemu/setup puts one that this machine does not have.
    let unpacked = target.join("qemu/udev");
    let path = format!(
        "{}:{}",
        std::env::var("PATH").expect("a PATH"),
        unpacked.display()
    );
    let output = Command::new("sh")
        .args(["-c", "u=$(command -v udevadm) && echo $u && ldd $u"])
        .env("PATH", path)
        .env("LD_LIBRARY_PATH", unpacked)
        .output()
        .expect("a shell");
    let listed = String::from_utf8(output.stdout).expect("text");
    assert!(
        output.status.success() && !listed.contains("not found"),
        "{listed}"
    );
    for file in listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let name = Path::new(file).file_name().expect("a file");
        std::fs::copy(file, share.join(name)).expect("it can be read");
    }
}

#[test]
fn with_the_files_of_contrib_a_member_of_the_group_has_the_card_and_nobody_else() {
    if !common::wants_vm() {
        return;
    }
    let share = tempfile::tempdir().expect("a directory");
    put_udevadm(share.path());
    let contrib = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib");
    for name in ["70-pinwire-vfio.rules", "70-pinwire-vfio.conf"] {
        std::fs::copy(Path::new(contrib).join(name), share.path().join(name)).expect("it is there");
    }
    // udev's daemon is the same program, by another name.
    let command = "set -e
        loader=$(echo /share/ld-linux*); run() { $loader --library-path /share --argv0 $1 /share/udevadm $2 $3 $4; }
        echo vfio:x:777:user >>/etc/group
        echo user:x:1000:1000::/tmp:/bin/sh >>/etc/passwd
        mkdir -p /etc/udev/rules.d; cp /share/70-pinwire-vfio.rules /etc/udev/rules.d/
        run systemd-udevd --daemon
        pinwire bind 0000:00:03.0
        run udevadm settle
        stat -c '%U %G %a' /dev/vfio/[0-9]*
        limits=$(sed -n 's/^@vfio - memlock //p' /share/70-pinwire-vfio.conf); ulimit -l $limits
        su nobody -s /bin/sh -c 'pinwire send 0000:00:03.0 --synthetic 64 --count 10' || echo nobody: $?
        su user -s /bin/sh -c 'id -u; pinwire send 0000:00:03.0 --synthetic 64 --count 10'";
    let pcap = tempfile::tempdir().expect("a directory");
    let path = |folder: &tempfile::TempDir| folder.path().to_str().expect("UTF-8").to_owned();
    let options = ["--share", &path(&share), "--pcap", &path(&pcap)];
    let output = common::vm(&options, command).expect("VMs are wanted");
    let (out, complaint) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}{complaint}");
    for line in ["root vfio 660", "nobody: 1", "1000"] {
        assert!(
            out.lines().any(|said| said == line),
            "{line}: {out}{complaint}"
        );
    }
    for words in ["permission denied", "contrib/70-pinwire-vfio.rules"] {
        assert!(complaint.contains(words), "{complaint}");
    }
    let capture = std::fs::read(pcap.path().join("nic0.pcap")).expect("QEMU's capture");
    // A header of 24 bytes, and one of 16 before each frame: those of one sender only.
    assert_eq!(capture.len(), 24 + 10 * (16 + 64));
}

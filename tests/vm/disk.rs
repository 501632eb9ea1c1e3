//! A disk over VFIO: bound, read and written, and its image read outside by an ordinary program.

use std::path::Path;
use std::process::Command;

use crate::common;

fn noise(len: usize) -> Vec<u8> {
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// `sha256sum` of a part of a file, by coreutils.
fn sha256(file: &Path, skip: usize, count: usize) -> String {
    let script = format!(
        "tail -c +{} {} | head -c {count} | sha256sum",
        skip + 1,
        file.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output();
    let text = String::from_utf8(output.expect("coreutils").stdout).expect("text");
    text.split_whitespace().next().expect("a hash").to_owned()
}

#[test]
fn an_nvme_disk_is_bound_read_and_written_over_vfio() {
    let share = tempfile::tempdir().expect("a directory");
    let image = share.path().join("disk.img");
    let mut bytes = noise(32 << 20);
    bytes[510] = 0; // not the sign of a partition table
    std::fs::write(&image, &bytes).expect("room");
    std::fs::write(share.path().join("new"), noise(5_000_001)).expect("room");
    let (disk, folder) = (
        image.to_str().expect("text"),
        share.path().to_str().expect("text"),
    );
    let script = "set -e
        pinwire bind 0000:00:14.0 >&2
        pinwire list | grep 0000:00:14.0
        pinwire disk info 0000:00:14.0
        echo whole $(pinwire disk read 0000:00:14.0 | sha256sum)
        echo part $(pinwire disk read 0000:00:14.0 --offset 1000 --length 3000003 | sha256sum)
        pinwire disk write 0000:00:14.0 /share/new --offset 4097 --verify 2>&1
        pinwire unbind 0000:00:14.0 >&2";
    let before = [
        sha256(&image, 0, bytes.len()),
        sha256(&image, 1000, 3_000_003),
    ];
    let Some(output) = common::vm(
        &[
            "--disk-nvme",
            &format!("{disk},serial=outs1de"),
            "--share",
            folder,
        ],
        script,
    ) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{complaint}");
    for words in [
        "QEMU NVMe Ctrl, outs1de",
        "namespace 1: 65 536 blocks of 512 bytes",
        &format!("whole {}", before[0]),
        &format!("part {}", before[1]),
        "wrote 5 000 001 bytes, and flushed",
        "all 5 000 001 bytes are the same",
    ] {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
    bytes[4097..][..5_000_001].copy_from_slice(&noise(5_000_001));
    assert!(std::fs::read(&image).expect("it is there") == bytes);
}

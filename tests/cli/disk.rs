//! `pinwire disk`: QEMU's NVMe over a file, which the test reads and writes by itself.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::common::require_qemu;
use crate::pinwire;

const BYTES: usize = 4 << 20;

struct Image {
    folder: tempfile::TempDir,
}

impl Image {
    /// An image with these bytes, then zeros.
    fn new(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut all = bytes.to_vec();
        all.resize(BYTES, 0);
        std::fs::write(folder.path().join("disk.img"), all).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn device(&self) -> String {
        format!(
            "qtest:nvme,serial=s3r1al,drive={}",
            self.path("disk.img").display()
        )
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path("disk.img")).unwrap()
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// What the command printed on standard output; it must have ended well.
fn output(command: &mut assert_cmd::Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    output.stdout
}

fn complaint(command: &mut assert_cmd::Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn info_says_what_the_disk_is() {
    if !require_qemu() {
        return;
    }
    let image = Image::new(&[]);
    let text = output(&mut pinwire(["disk", "info", &image.device()]));
    let text = String::from_utf8(text).unwrap();
    for words in [
        "qtest:nvme, QEMU NVMe Ctrl, s3r1al",
        "namespace 1: 8 192 blocks of 512 bytes: 4 194 304 bytes (4.00 MiB)",
        "write zeroes, discard, compare",
        "up to 524 288 bytes",
        "health  well",
    ] {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    let json = output(&mut pinwire(["disk", "info", &image.device(), "--json"]));
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["namespaces"][0]["blocks"], 8192);
    assert_eq!(json["health"]["warnings"], 0);
}

#[test]
fn what_is_read_is_the_image_from_any_byte_on() {
    if !require_qemu() {
        return;
    }
    let image = Image::new(&noise(BYTES));
    let bytes = image.bytes();
    let device = image.device();
    assert!(output(&mut pinwire(["disk", "read", &device])) == bytes);
    for (offset, length) in [(0, 1), (511, 2), (1000, 300_000), (BYTES - 1, 1), (7, 0)] {
        let file = image.path("part");
        let (offset_text, length_text) = (offset.to_string(), length.to_string());
        output(&mut pinwire([
            "disk",
            "read",
            &device,
            "--offset",
            &offset_text,
            "--length",
            &length_text,
            "-o",
            file.to_str().unwrap(),
        ]));
        let part = std::fs::read(file).unwrap();
        assert!(
            part == bytes[offset..offset + length],
            "{length} from {offset}"
        );
    }
}

#[test]
fn what_is_written_is_there_and_nothing_beside_it_changed() {
    if !require_qemu() {
        return;
    }
    for (offset, length) in [
        (0, BYTES),
        (4096, 8192),
        (1000, 300_001),
        (BYTES - 3, 3),
        (513, 5),
    ] {
        let image = Image::new(&[]);
        let mut expected = noise(BYTES);
        expected[510] = 0; // not the sign of a partition table
        std::fs::write(image.path("disk.img"), &expected).unwrap();
        let new: Vec<u8> = noise(length).iter().map(|byte| !byte).collect();
        let file = image.path("new");
        std::fs::write(&file, &new).unwrap();
        let offset_text = offset.to_string();
        let said = pinwire([
            "disk",
            "write",
            &image.device(),
            file.to_str().unwrap(),
            "--offset",
            &offset_text,
            "--verify",
        ])
        .output()
        .unwrap();
        let text = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "{text}");
        assert!(
            text.contains("and flushed") && text.contains("are the same"),
            "{text}"
        );
        expected[offset..offset + length].copy_from_slice(&new);
        assert!(image.bytes() == expected, "{length} at {offset}");
    }
}

#[test]
fn a_disk_that_holds_something_is_left_alone() {
    if !require_qemu() {
        return;
    }
    let image = Image::new(&[]);
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4"])
        .arg(image.path("disk.img"))
        .status();
    assert!(made.expect("mke2fs").success());
    let before = image.bytes();
    let file = image.path("new");
    std::fs::write(&file, noise(5000)).unwrap();
    let (device, file) = (image.device(), file.to_str().unwrap().to_owned());
    // Wherever it is to go.
    for offset in ["0", "2M"] {
        let said = complaint(&mut pinwire([
            "disk", "write", &device, &file, "--offset", offset,
        ]));
        for words in [
            "a file system (ext2, ext3 or ext4)",
            "nothing was written",
            "--overwrite",
        ] {
            assert!(said.contains(words), "{words:?} is not in: {said}");
        }
        assert!(image.bytes() == before);
    }
    output(&mut pinwire([
        "disk",
        "write",
        &device,
        &file,
        "--offset",
        "2M",
        "--overwrite",
    ]));
    let mut after = before;
    after[2 << 20..][..5000].copy_from_slice(&noise(5000));
    assert!(image.bytes() == after);
}

#[test]
fn what_cannot_be_says_why_and_leaves_the_disk_as_it_was() {
    if !require_qemu() {
        return;
    }
    let image = Image::new(&[]);
    let file = image.path("long");
    std::fs::File::create(&file)
        .unwrap()
        .write_all_at(&[1], BYTES as u64)
        .unwrap();
    let (device, file) = (image.device(), file.to_str().unwrap().to_owned());
    for (command, words) in [
        (
            pinwire(["disk", "write", &device, &file]),
            "reach 4194305 bytes from byte 0 on: namespace 1 has 4194304 bytes",
        ),
        (
            pinwire(["disk", "read", &device, "--offset", "5M", "--length", "1"]),
            "namespace 1 has 4194304 bytes",
        ),
        (
            pinwire(["disk", "read", &device, "--namespace", "7"]),
            "cannot use namespace 7: it has 1",
        ),
        (
            pinwire(["disk", "info", "qtest:e1000"]),
            "no driver for PCI device 8086:100e",
        ),
        (
            pinwire(["disk", "write", &device, "/no/such/file"]),
            "/no/such/file",
        ),
    ] {
        let mut command = command;
        let said = complaint(&mut command);
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    assert!(image.bytes().iter().all(|byte| *byte == 0));
}

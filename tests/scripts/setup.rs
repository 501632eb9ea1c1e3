//! qemu/setup and qemu/unpack-kernel, on machines that have less than this one: other Debians, and no Debian.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common;

/// What any Linux has, and bash.
const BASIS: &[&str] = &[
    "bash", "cat", "chmod", "dirname", "env", "flock", "grep", "head", "id", "mkdir", "mktemp",
    "mv", "od", "rm", "sed", "stat", "tail", "tr", "true", "gzip", "setpriv", "strip",
];

/// A folder for PATH with these commands, and no other but those in /usr/sbin.
fn path(commands: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let own = std::env::var("PATH").unwrap();
    for command in commands {
        let mut folders = own.split(':').map(|place| Path::new(place).join(command));
        let found = folders.find(|path| path.exists());
        let found = found.unwrap_or_else(|| panic!("{command} is missing"));
        symlink(found, folder.path().join(command)).unwrap();
    }
    folder
}

fn script(name: &str) -> Command {
    let mut script = Command::new(format!("{}/qemu/{name}", env!("CARGO_MANIFEST_DIR")));
    for variable in ["PINWIRE_QEMU", "KERNEL", "MODULES"] {
        script.env_remove(variable);
    }
    script.stdin(Stdio::null());
    script
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// A machine without apt, with nothing there but [`BASIS`].
fn setup(
    state: &Path,
    more: &[&str],
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (String, bool) {
    let commands = path(&[BASIS, more].concat());
    let output = script("setup")
        .args(arguments)
        .env("PATH", commands.path())
        .env("CARGO_TARGET_DIR", state)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    (said(&output), output.status.success())
}

#[test]
fn without_apt_each_missing_thing_is_named_with_its_package() {
    let state = tempfile::tempdir().unwrap();
    let (said, good) = setup(state.path(), &[], &[], &[]);
    assert!(!good, "{said}");
    for line in [
        "missing: qemu-system-x86_64 (package qemu-system-x86)",
        "missing: xz (package xz-utils)",
        "missing: zstd (package zstd)",
        "missing: wrk (package wrk)",
        "missing: tcpdump (package tcpdump)",
        "there is no apt-get here",
        "put a static busybox at",
        "KERNEL=",
    ] {
        assert!(said.contains(line), "{line:?} is not in:\n{said}");
    }
}

#[test]
fn only_what_booting_needs_is_demanded_to_boot() {
    let target = tempfile::tempdir().unwrap();
    let qemu = target.path().join("my-qemu");
    symlink("/bin/true", &qemu).unwrap();
    let boot =
        |variables: &[(&str, &str)]| setup(target.path(), &[], &["--for", "boot"], variables);
    let kernel = ("KERNEL", "/boot/vmlinuz");
    let (said, good) = boot(&[kernel]);
    assert!(!good, "{said}");
    assert!(said.contains("qemu-system-x86_64 (package"), "{said}");
    for other in [
        "wrk", "tcpdump", "strace", "btrfs", "python3", "nginx", "xz",
    ] {
        assert!(
            !said.contains(other),
            "{other} is not needed to boot:\n{said}"
        );
    }
    let state = target.path().join("qemu");
    symlink("/bin/true", state.join("busybox")).unwrap();
    let own = ("PINWIRE_QEMU", qemu.to_str().unwrap());
    assert_eq!(boot(&[kernel, own]), (String::new(), true));
    // One's own QEMU that is not there is not a package that is missing.
    let (said, good) = boot(&[kernel, ("PINWIRE_QEMU", "/nowhere/qemu")]);
    assert!(
        !good && said.contains("PINWIRE_QEMU=/nowhere/qemu"),
        "{said}"
    );
    let (said, good) = setup(target.path(), &[], &["--for", "boot,tea"], &[kernel, own]);
    assert!(!good && said.contains("--for tea"), "{said}");
}

/// A bzImage (boot protocol 2.15) with this payload.
fn image(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 5 * 512];
    image[0x1f1] = 3;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    image[0x248..0x24c].copy_from_slice(&512_u32.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    // What looks like the start of a stream is not it.
    let alike: Vec<u8> = [
        b"\xfd7zXZ\0".as_slice(),
        b"\x28\xb5\x2f\xfd",
        b"\x1f\x8b\x08",
    ]
    .concat();
    image[4 * 512..][..alike.len()].copy_from_slice(&alike);
    [image, payload.to_vec(), b"what follows".to_vec()].concat()
}

fn compressed(tool: &str, content: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    let output = Command::new(tool)
        .args(["-c"])
        .stdin(std::fs::File::open(file.path()).unwrap())
        .output();
    output
        .unwrap_or_else(|error| panic!("{tool}: {error}"))
        .stdout
}

/// Unpacks `image` with these commands on the PATH, in a locale of UTF-8.
fn unpack(image: &[u8], commands: &[&str]) -> Result<Vec<u8>, String> {
    let folder = tempfile::tempdir().unwrap();
    let [from, to] = ["bzImage", "vmlinux"].map(|name| folder.path().join(name));
    std::fs::write(&from, image).unwrap();
    let commands = path(&[BASIS, commands].concat());
    let output = script("unpack-kernel")
        .args([&from, &to])
        .env("PATH", commands.path())
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(std::fs::read(to).unwrap());
    }
    assert!(!to.exists(), "half a kernel is left");
    Err(said(&output))
}

#[test]
fn a_kernel_is_unpacked_whatever_it_is_compressed_with_or_says_why_not() {
    for tool in ["xz", "zstd"] {
        if Command::new(tool).arg("--version").output().is_err() {
            return common::not_run(&format!("{tool} is missing; install it: qemu/setup"));
        }
    }
    let mut elf = b"\x7fELF".to_vec();
    elf.extend((0..200_000_u32).flat_map(u32::to_le_bytes));
    let length = u32::try_from(elf.len()).unwrap().to_le_bytes();
    for tool in ["xz", "zstd"] {
        let payload = [compressed(tool, &elf), length.to_vec()].concat();
        assert!(
            unpack(&image(&payload), &[tool]) == Ok(elf.clone()),
            "{tool}"
        );
        let why = unpack(&image(&payload), &[]).unwrap_err();
        assert!(why.contains(&format!("{tool} is missing")), "{why}");
        let mut damaged = payload.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 64].fill(0x55);
        let why = unpack(&image(&damaged), &[tool]).unwrap_err();
        assert!(why.contains("damaged"), "{why}");
        let short = &image(&payload)[..5 * 512 + payload.len() / 2];
        let why = unpack(short, &[tool]).unwrap_err();
        assert!(why.contains("cut short"), "{why}");
    }
    assert!(
        unpack(&image(&compressed("gzip", &elf)), &[]) == Ok(elf.clone()),
        "gzip"
    );
    assert!(unpack(&image(&elf), &[]) == Ok(elf), "not compressed");
    let why = unpack(&image(b"\x02\x21\x4c\x18 lz4"), &[]).unwrap_err();
    assert!(why.contains("02214c18") && why.contains("KERNEL="), "{why}");
    let why = unpack(b"no kernel", &[]).unwrap_err();
    assert!(why.contains("is no bzImage"), "{why}");
}

#[test]
fn the_vm_takes_the_qemu_that_is_named() {
    if !common::wants_vm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let qemu = folder.path().join("qemu");
    let text = "#!/bin/sh\necho \"this is my own: $1\" >&2; exit 1\n";
    std::fs::write(&qemu, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&qemu, mode).unwrap();
    let output = script("vm")
        .args(["--accel", "tcg", "--", "true"])
        .env("PINWIRE_QEMU", &qemu)
        .output()
        .unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("this is my own: -machine"), "{said}");
}

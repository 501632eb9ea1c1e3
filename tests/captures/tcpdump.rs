//! Captures as `tcpdump -r` reads them, which gives them back in one form (`-w -`).

use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// What it reads.
#[derive(Default)]
pub struct Theirs {
    /// Are they frames of Ethernet?
    pub ethernet: bool,
    /// Microseconds since 1970, bytes. No time where libpcap, to which a fraction of a second is a signed number, takes
    /// it for negative.
    pub packets: Vec<(Option<i128>, Vec<u8>)>,
    /// Did it come to the end without a complaint?
    pub whole: bool,
}

/// Is it there? Says so where not.
pub fn require() -> bool {
    let found = Command::new("tcpdump").arg("--version").output().is_ok();
    if !found {
        crate::common::not_run("tcpdump is missing; install it: qemu/setup");
    }
    found
}

/// Has it read the capture `bytes`.
pub fn read(bytes: &[u8]) -> Theirs {
    let mut child = Command::new("tcpdump")
        .args(["-n", "-r", "-", "-w", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut stdin, bytes) = (child.stdin.take().unwrap(), bytes.to_vec());
    // It ends where it complains, and reads no more.
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let mut out = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
    let whole = child.wait().unwrap().success();
    let _ = writer.join().unwrap();
    let word = |at: usize| u32::from_le_bytes(out[at..at + 4].try_into().unwrap());
    if out.len() < 24 || word(20) != 1 {
        return Theirs::default();
    }
    let (mut at, mut packets) = (24, Vec::new());
    while at < out.len() {
        let len = word(at + 8) as usize;
        let (seconds, fraction) = (word(at), word(at + 4));
        let time = i128::from(seconds) * 1_000_000 + i128::from(fraction);
        let time = i32::try_from(fraction).is_ok().then_some(time);
        packets.push((time, out[at + 16..at + 16 + len].to_vec()));
        at += 16 + len;
    }
    Theirs {
        ethernet: true,
        packets,
        whole,
    }
}

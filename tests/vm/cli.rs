//! `pinwire send` in the VM, over VFIO: what it says of itself (no system call, no copy), and what a
//! socket outside the VM got.
#![cfg(feature = "cli")]

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common;

/// Bytes of the headers of a datagram.
const HEADERS: usize = 42;
/// Few enough bytes that all datagrams fit into the socket, however late they are taken out.
const FILE: usize = 80_000;
const TO: &str = "--to 10.0.0.2:7000 --via 02:00:00:00:00:09 --prove --json";

/// All frames that come to `socket` until `over`.
fn listen(socket: &UdpSocket, over: &AtomicBool) -> Vec<Vec<u8>> {
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let (mut frames, mut buffer) = (Vec::new(), vec![0; 65_536]);
    loop {
        match socket.recv(&mut buffer) {
            Ok(len) => frames.push(buffer[..len].to_vec()),
            Err(_) if over.load(Ordering::Relaxed) => return frames,
            Err(_) => {}
        }
    }
}

#[test]
fn files_leave_the_vm_with_no_system_call_and_no_copy_even_truncated() {
    if !common::wants_vm() {
        return;
    }
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (outside, qemu) = (bind(), bind());
    let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
    let net = format!("udp:{}:{}", port(&qemu), port(&outside));
    drop(qemu);
    let share = tempfile::tempdir().unwrap();
    let path = share.path().to_str().unwrap();
    let content: Vec<u8> = (0..FILE as u32)
        .map(|at| (at.wrapping_mul(at) / 7) as u8)
        .collect();
    std::fs::write(share.path().join("file"), &content).unwrap();

    // Each line of output is a summary, then an exit code. Truncated while half of it has left.
    let script = format!(
        "pinwire bind 0000:00:03.0 >&2 || exit 1
         cp /share/file /tmp/tmpfs; cp /share/file /disk/ext4
         for file in /tmp/tmpfs /disk/ext4; do
             pinwire send 0000:00:03.0 --file $file {TO} --rate 2000; echo $?
         done
         for file in /tmp/tmpfs /disk/ext4; do
             pinwire send 0000:00:03.0 --file $file {TO} --rate 40 & sender=$!
             until grep -q $file /proc/$sender/maps; do sleep 0.05; done; sleep 0.3; : >$file
             wait $sender; echo $?
         done
         pinwire send 0000:00:03.0 --synthetic 64 --count 5 --rate 10 --json; echo $?"
    );
    let over = AtomicBool::new(false);
    let options = ["--net", &net, "--share", path, "--disk", "64M"];
    let (output, frames) = std::thread::scope(|scope| {
        let listener = scope.spawn(|| listen(&outside, &over));
        let output = common::vm(&options, &script);
        over.store(true, Ordering::Relaxed);
        (output.unwrap(), listener.join().unwrap())
    });
    let (stdout, stderr) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 10, "{text}\n{stderr}");
    let runs: Vec<(serde_json::Value, &str)> = lines
        .chunks(2)
        .map(|pair| (serde_json::from_str(pair[0]).unwrap(), pair[1]))
        .collect();

    for (summary, code) in &runs[..4] {
        assert_eq!(summary["frames"], FILE.div_ceil(1472), "{summary}");
        assert_eq!(summary["frames_counted_by_device"], summary["frames"]);
        assert_eq!(summary["payload_bytes_copied_by_cpu"], 0);
        let error = summary["error"].as_str().unwrap_or_default();
        assert_eq!(error.contains("truncated from 80000 to 0"), *code == "1");
    }
    // Frames as near as these are waited for without sleeping.
    for (summary, _) in &runs[..2] {
        assert_eq!(summary["system_calls"], 0, "{summary}");
    }
    let codes: Vec<&str> = runs.iter().map(|(_, code)| *code).collect();
    assert_eq!(codes, ["0", "0", "1", "1", "0"], "{text}\n{stderr}");
    // The counter counts: between frames far apart the sender sleeps.
    assert!(runs[4].0["system_calls"].as_u64().unwrap() > 0, "{text}");

    let payloads: Vec<u8> = frames[..frames.len() - 5]
        .iter()
        .flat_map(|frame| frame[HEADERS..].iter().copied())
        .collect();
    assert!(
        payloads == content.repeat(4),
        "{} bytes came out",
        payloads.len()
    );
}

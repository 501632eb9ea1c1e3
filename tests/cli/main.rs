//! The `pinwire` command as a person or a program runs it, on each of QEMU's cards.
//!
//! What it sent is checked by what is not our code: QEMU's own capture of the cable, or a socket at
//! the cable's other end and another stack's checksums.
#![cfg(feature = "cli")]

mod bad_input;
mod bench;
mod captures;
#[path = "../common/mod.rs"]
mod common;
mod disk;
mod echo;
mod explain;
mod forward;
mod idle;
mod ladder;
mod ping;
mod recv;
mod send;
mod show;
mod stats;
mod surroundings;

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long any of these commands may take.
const BOUND: Duration = Duration::from_secs(60);

/// QEMU's cards, as device specs have them.
const CARDS: [&str; 4] = ["e1000", "e1000e", "virtio-net", "virtio-net,packed=on"];

/// Runs `body` on each card, where there is QEMU; all at once, since each waits for most of its time.
fn on_every_card(body: impl Fn(&str) + Sync) {
    if !common::require_qemu() {
        return;
    }
    thread::scope(|scope| {
        for card in CARDS {
            // A panic tells the name of its thread.
            let thread = thread::Builder::new().name(card.to_owned());
            thread.spawn_scoped(scope, || body(card)).unwrap();
        }
    });
}

/// The same, one card after the other: for what needs a processor for itself.
fn on_every_card_in_turn(body: impl Fn(&str)) {
    if common::require_qemu() {
        CARDS.into_iter().for_each(body);
    }
}

/// `pinwire` with `args`, to be run to its end.
fn pinwire<const N: usize>(args: [&str; N]) -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_pinwire"));
    command.args(args).timeout(BOUND);
    command
}

/// `pinwire` with `args`, to be left running; its standard output is a pipe.
fn spawn<const N: usize>(args: [&str; N]) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinwire"));
    let piped = command
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    piped.spawn().unwrap()
}

/// Runs `pinwire -v` with `args`, and interrupts it as Ctrl-C does when its standard error has had a line with
/// `words`: how it ended, and its standard output.
fn interrupt_at(args: &[&str], words: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinwire"));
    let piped = command.args(args).arg("-v");
    let piped = piped.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = Running(piped.unwrap());
    let mut said = BufReader::new(child.0.stderr.take().unwrap());
    let mut stdout = child.0.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        assert!(
            said.read_line(&mut line).unwrap() > 0,
            "{words:?} was never said"
        );
    }
    // SAFETY: no memory is touched; the process is our child and not waited for yet.
    assert_eq!(unsafe { libc::kill(child.0.id() as i32, libc::SIGINT) }, 0);
    // What it says on its way out has room.
    std::io::copy(&mut said, &mut std::io::sink()).unwrap();
    let status = child.0.wait().unwrap();
    (status.code(), reader.join().unwrap().unwrap())
}

/// Ends with the test, however that ends.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// As Ctrl-C: its exit code is 130 then.
    fn interrupt(&mut self) {
        // SAFETY: no memory is touched; the process is our child and not waited for yet.
        let sent = unsafe { libc::kill(self.0.id() as i32, libc::SIGINT) };
        assert_eq!(sent, 0);
        assert_eq!(self.0.wait().unwrap().code(), Some(130));
    }
}

/// What a command said on its way out, as JSON.
fn json(output: &[u8]) -> serde_json::Value {
    let text = std::str::from_utf8(output).unwrap();
    serde_json::from_str(text.lines().last().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The far end of a cable: frames as UDP datagrams on the loopback.
struct Wire {
    socket: UdpSocket,
    /// Where QEMU receives.
    to: u16,
}

impl Wire {
    fn new() -> Self {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (socket, theirs) = (bind(), bind());
        let to = theirs.local_addr().unwrap().port();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        Self { socket, to }
    }

    /// The device at its other end, which is a `card`.
    fn device(&self, card: &str) -> String {
        let ours = self.socket.local_addr().unwrap().port();
        format!("qtest:{card},net=udp:{}:{ours}", self.to)
    }

    /// Lost where QEMU is not up yet: then the sender sends again.
    fn send(&self, frame: &[u8]) {
        let _ = self.socket.send_to(frame, (Ipv4Addr::LOCALHOST, self.to));
    }

    /// The next frame, if one comes soon.
    fn try_recv(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 65_536];
        let len = self.socket.recv(&mut frame).ok()?;
        frame.truncate(len);
        Some(frame)
    }

    /// The next frame.
    fn recv(&self) -> Vec<u8> {
        let begin = Instant::now();
        while begin.elapsed() < BOUND {
            if let Some(frame) = self.try_recv() {
                return frame;
            }
        }
        panic!("no frame came");
    }
}

/// A pcap file, written by hand: microseconds from the first packet, bytes.
fn write_pcap(path: &Path, packets: &[(u32, Vec<u8>)]) {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for (micros, packet) in packets {
        let len = packet.len() as u32;
        for word in [
            1_700_000_000 + micros / 1_000_000,
            micros % 1_000_000,
            len,
            len,
        ] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(packet);
    }
    std::fs::write(path, bytes).unwrap();
}

/// The packets of a pcap file, read by hand.
fn read_pcap(bytes: &[u8]) -> Vec<Vec<u8>> {
    assert_eq!(bytes[..4], 0xa1b2_c3d4u32.to_le_bytes());
    let mut rest = &bytes[24..];
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        packets.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    packets
}

/// Frame `number` of `len` bytes, unlike any other.
fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    frame.extend(number.to_be_bytes());
    let seed = number.wrapping_mul(2_654_435_761);
    frame.extend(
        (frame.len()..len).map(|at| (seed.rotate_left(at as u32 % 32) as usize + at) as u8),
    );
    frame
}

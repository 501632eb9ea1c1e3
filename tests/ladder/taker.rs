//! A far end that gives trouble: it is slow, stops in the middle, or vanishes. `src/paths/ladder/far.rs` has the
//! words that it says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};
use sha2::{Digest, Sha256};

use super::far::hex;

/// Little enough for an ordinary user's socket, whatever a datagram takes up there.
const WINDOW: u64 = 32 * 1024;

/// How long a sender of datagrams may send none, as long as for `qemu/far-end`.
const SILENCE: Duration = Duration::from_secs(5);

/// What it does.
#[derive(Clone, Copy, PartialEq)]
pub enum Habit {
    /// Takes little at a time, by a small buffer.
    Slow,
    /// Takes seconds for a few megabytes, until it is told to go on.
    Drips,
    /// Takes so many bytes, then none until it is told to go on.
    PausesAfter(usize),
    /// Takes so many bytes, then cuts all connections.
    VanishesAfter(usize),
    /// Throws all away, and counts it; of a stream it keeps the bytes at [`marks`].
    Drains,
}

/// Places in a long file where an offset that is cut to 32 bits is seen: at both ends, and on either side of
/// 4 GiB.
pub fn marks(len: u64) -> [u64; 4] {
    [0, (4 << 30) - 1, 4 << 30, len - 1]
}

/// Takes some of a stream: the byte at the next of the marks alone, or what comes before it, which is not
/// copied (tcp(7), MSG_TRUNC). Gives how much.
pub fn drain(data: &TcpStream, got: u64, len: u64, block: &mut [u8]) -> (usize, Option<u8>) {
    let ahead = marks(len).into_iter().filter(|mark| *mark >= got);
    match ahead.min().unwrap_or(len) - got {
        0 => {
            let (_, read) = rustix::net::recv(data, &mut block[..1], RecvFlags::empty()).unwrap();
            (read, (read == 1).then_some(block[0]))
        }
        before => {
            let most = usize::try_from(before).map_or(block.len(), |few| few.min(block.len()));
            let (_, read) = rustix::net::recv(data, &mut block[..most], RecvFlags::TRUNC).unwrap();
            (read, None)
        }
    }
}

pub struct Taker {
    pub address: SocketAddr,
    /// What it has got by each transfer, once that has ended.
    pub taken: Receiver<Vec<Vec<u8>>>,
    go_on: Arc<AtomicBool>,
}

impl Taker {
    pub fn start(habit: Habit) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let go_on = Arc::new(AtomicBool::new(false));
        let (taken, receiver) = channel();
        let told = Arc::clone(&go_on);
        std::thread::spawn(move || {
            while let Ok((control, _)) = listener.accept() {
                let (taken, told) = (taken.clone(), Arc::clone(&told));
                std::thread::spawn(move || transfer(control, habit, &told, &taken));
            }
        });
        Self {
            address,
            taken: receiver,
            go_on,
        }
    }

    /// What to set for it to go on, where it pauses.
    pub fn go_on_later(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.go_on)
    }
}

fn transfer(
    mut control: TcpStream,
    habit: Habit,
    go_on: &AtomicBool,
    taken: &Sender<Vec<Vec<u8>>>,
) {
    let mut line = String::new();
    let mut reader = BufReader::new(control.try_clone().unwrap());
    reader.read_line(&mut line).unwrap();
    let words: Vec<&str> = line.trim().split(' ').collect();
    let len: u64 = words[1].parse().unwrap();
    let got = match words[0] {
        "tcp" => stream(&mut control, habit, go_on, len),
        _ => datagrams(&mut control, habit, go_on, len),
    };
    let Some((bytes, parts)) = got else {
        control.shutdown(std::net::Shutdown::Both).unwrap();
        return;
    };
    let mut sum = Sha256::new();
    parts.iter().for_each(|part| sum.update(part));
    // Who did not stay to hear it has had its answer.
    let _ = writeln!(control, "done {bytes} {}", hex(&sum.finalize()));
    let _ = taken.send(parts);
}

fn wait_for(go_on: &AtomicBool) {
    while !go_on.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn stream(
    control: &mut TcpStream,
    habit: Habit,
    go_on: &AtomicBool,
    len: u64,
) -> Option<(u64, Vec<Vec<u8>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    if habit != Habit::Drains {
        sockopt::set_socket_recv_buffer_size(&listener, 32 << 10).unwrap();
    }
    let port = listener.local_addr().unwrap().port();
    writeln!(control, "port {port} {}", u64::MAX / 2).unwrap();
    let (mut data, _) = listener.accept().unwrap();
    let (mut got, mut parts, mut block) = (0, Vec::new(), vec![0; 1 << 20]);
    while got < len {
        let some = match habit {
            Habit::Drains => {
                let (read, kept) = drain(&data, got, len, &mut block);
                got += read as u64;
                parts.extend(kept.map(|byte| vec![byte]));
                if read == 0 {
                    break;
                }
                continue;
            }
            Habit::Slow => {
                std::thread::sleep(Duration::from_micros(100));
                9_000
            }
            Habit::Drips if !go_on.load(Ordering::Acquire) => {
                std::thread::sleep(Duration::from_millis(3));
                9_000
            }
            Habit::Drips => 1 << 20,
            Habit::PausesAfter(after) if got < after as u64 => after - got as usize,
            Habit::PausesAfter(_) => {
                wait_for(go_on);
                1 << 20
            }
            Habit::VanishesAfter(after) if got < after as u64 => after - got as usize,
            Habit::VanishesAfter(_) => {
                // Closing with no time to linger is a reset.
                sockopt::set_socket_linger(&data, Some(Duration::ZERO)).unwrap();
                return None;
            }
        };
        let some = some.min(block.len());
        match data.read(&mut block[..some]) {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                got += read as u64;
                parts.push(block[..read].to_vec());
            }
        }
    }
    Some((got, parts))
}

fn datagrams(
    control: &mut TcpStream,
    habit: Habit,
    go_on: &AtomicBool,
    len: u64,
) -> Option<(u64, Vec<Vec<u8>>)> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 1 << 20).unwrap();
    let port = socket.local_addr().unwrap().port();
    writeln!(control, "port {port} {WINDOW}").unwrap();
    let (mut got, mut told, mut parts, mut block) = (0, 0, Vec::new(), vec![0; 1 << 16]);
    let mut since = Instant::now();
    while got < len {
        match habit {
            Habit::PausesAfter(after) if got >= after as u64 => {
                wait_for(go_on);
                since = Instant::now();
            }
            Habit::VanishesAfter(after) if got >= after as u64 => return None,
            Habit::Slow => std::thread::sleep(Duration::from_micros(10)),
            _ => {}
        }
        let Ok(read) = socket.recv(&mut block) else {
            // What a sender that has gone had sent is here.
            if has_gone(control) || since.elapsed() > SILENCE {
                break;
            }
            continue;
        };
        since = Instant::now();
        got += read as u64;
        parts.push(block[..read].to_vec());
        if got - told >= WINDOW / 4 {
            told = got;
            // Who has gone does not hear it.
            let _ = writeln!(control, "got {got}");
        }
    }
    Some((got, parts))
}

/// Has the sender closed its end?
fn has_gone(control: &TcpStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let peeked = rustix::net::recv(control, &mut [0][..], flags);
    !matches!(peeked, Ok((_, 1..)) | Err(Errno::AGAIN))
}

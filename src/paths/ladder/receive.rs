//! A far end in this house: takes transfers, hashes them, says what it got ([`Receiver`](super::Receiver)
//! has the words). In the VM's ladder another one does, `qemu/far-end`, which is not our code.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt;
use sha2::{Digest, Sha256};

/// Longest silence before the rest is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes under way at once, at most.
const WINDOW: u64 = 1 << 20;
/// Bytes of a line that announces, and of a datagram, at most.
const LINE: u64 = 256;
const LONGEST: u64 = 65_507;

/// Takes transfers from all who connect, until the listener fails.
///
/// # Errors
/// If it does.
pub fn receive(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (control, _) = match listener.accept() {
            // Who connected is gone already.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            accepted => accepted?,
        };
        thread::spawn(move || {
            // Who sends sees the connection end without a word of what arrived, and says so.
            let _ = transfer(control);
        });
    }
}

fn transfer(mut control: TcpStream) -> io::Result<()> {
    control.set_nodelay(true)?;
    let mut line = String::new();
    BufReader::new(control.try_clone()?.take(LINE)).read_line(&mut line)?;
    let words: Vec<&str> = line.trim().split(' ').collect();
    let number = |text: &str| {
        text.parse()
            .map_err(|_| io::Error::from(ErrorKind::InvalidData))
    };
    let (bytes, hash) = match words[..] {
        ["tcp", len] => stream(&mut control, number(len)?)?,
        ["udp", len, payload] => {
            datagrams(&mut control, number(len)?, number(payload)?.min(LONGEST))?
        }
        _ => return Err(ErrorKind::InvalidData.into()),
    };
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    control.write_all(format!("done {bytes} {hex}\n").as_bytes())
}

fn stream(control: &mut TcpStream, len: u64) -> io::Result<(u64, [u8; 32])> {
    let listener = TcpListener::bind((control.local_addr()?.ip(), 0))?;
    let port = listener.local_addr()?.port();
    control.write_all(format!("port {port} {}\n", u64::MAX / 2).as_bytes())?;
    let (mut data, _) = listener.accept()?;
    let (mut hash, mut got, mut block) = (Sha256::new(), 0, vec![0; 256 * 1024]);
    while got < len {
        let read = match data.read(&mut block) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // Who sends has gone: what came is told.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error),
        };
        hash.update(&block[..read]);
        got += read as u64;
    }
    Ok((got, hash.finalize().into()))
}

fn datagrams(control: &mut TcpStream, len: u64, payload: u64) -> io::Result<(u64, [u8; 32])> {
    let socket = UdpSocket::bind((control.local_addr()?.ip(), 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Only root may have more than the system's limit; without it the window is smaller.
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, 8 << 20));
    let room = sockopt::socket_recv_buffer_size(&socket)? as u64;
    // A datagram takes up more than its bytes: at worst the pages that they lie in (by MSG_ZEROCOPY over
    // loopback: one more than they fill), and its bookkeeping.
    let worst = payload.next_multiple_of(4096) + 4096 + 1536;
    let window = (room / worst * payload).clamp(payload, WINDOW.max(payload));
    let port = socket.local_addr()?.port();
    control.write_all(format!("port {port} {window}\n").as_bytes())?;
    let (mut hash, mut got, mut told, mut datagram) = (Sha256::new(), 0, 0, vec![0; 65536]);
    while got < len {
        let read = match socket.recv(&mut datagram) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        };
        hash.update(&datagram[..read]);
        got += read as u64;
        if got - told >= window / 4 {
            control.write_all(format!("got {got}\n").as_bytes())?;
            told = got;
        }
    }
    Ok((got, hash.finalize().into()))
}

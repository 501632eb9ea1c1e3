//! The rungs of the ladder over loopback: every byte arrives, at a far end that is not our code and at
//! one that is, whatever the file, and whatever the calls on the way leave undone.
#![cfg(feature = "ladder")]

#[path = "ladder/arrivals.rs"]
mod arrivals;
mod common;
#[path = "ladder/copies.rs"]
mod copies;
#[path = "ladder/far.rs"]
mod far;
#[path = "ladder/files.rs"]
mod files;
#[path = "ladder/lacks.rs"]
mod lacks;
#[path = "ladder/pestered.rs"]
mod pestered;
#[path = "ladder/streams.rs"]
mod streams;
#[path = "ladder/taker.rs"]
mod taker;
#[path = "ladder/troubles.rs"]
mod troubles;

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64};

use far::{Python, file_of, hash};
use pinwire::paths::ladder::{
    Delivered, Job, Kind, Protocol, RUNGS, Receiver, Rung, Sink, Stopped, Terms, Why, receive,
};

static GO_ON: AtomicBool = AtomicBool::new(false);
static PROGRESS: AtomicU64 = AtomicU64::new(0);

/// The far end in this house.
fn ours() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || receive(&listener));
    address
}

/// How a rung is run.
#[derive(Clone, Copy)]
struct Manner {
    /// Of the sockets that it works on: what waits else, fails with EAGAIN.
    nonblocking: bool,
    /// Of the socket that it sends by, in bytes.
    buffer: Option<usize>,
    /// Bytes that a call moves at most.
    most: Option<usize>,
    stop: &'static AtomicBool,
    progress: &'static AtomicU64,
    /// Where the file begins.
    from: u64,
    /// Is the far end asked what arrived, where it does not go on?
    asks: bool,
}

const PLAIN: Manner = Manner {
    nonblocking: false,
    buffer: None,
    most: None,
    stop: &GO_ON,
    progress: &PROGRESS,
    from: 0,
    asks: false,
};

/// What came of a rung.
#[derive(Debug)]
struct Done {
    delivered: Delivered,
    copied: u64,
    /// What is in the log.
    log: File,
}

/// Sends `len` bytes of `file` to the far end at `control`; what arrived.
fn send(
    rung: &Rung,
    protocol: Protocol,
    file: &File,
    len: u64,
    control: SocketAddr,
) -> Result<Done, Stopped> {
    send_so(&PLAIN, rung, protocol, file, len, control)
}

fn send_so(
    manner: &Manner,
    rung: &Rung,
    protocol: Protocol,
    file: &File,
    len: u64,
    control: SocketAddr,
) -> Result<Done, Stopped> {
    (&*file).seek(SeekFrom::Start(manner.from)).unwrap();
    let payload = Terms::usual(protocol);
    let mut far = Receiver::announce(control, None, protocol, (len, payload)).unwrap();
    let terms = Terms {
        len,
        most: manner.most.unwrap_or(payload),
        stop: manner.stop,
        progress: manner.progress,
    };
    let out = match protocol {
        Protocol::Udp => {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.connect(far.data()).unwrap();
            socket.set_nonblocking(manner.nonblocking).unwrap();
            set_buffer(&socket, manner.buffer);
            Sink::datagrams(socket, &mut far, terms).unwrap()
        }
        _ => {
            let stream = TcpStream::connect(far.data()).unwrap();
            stream.set_nonblocking(manner.nonblocking).unwrap();
            set_buffer(&stream, manner.buffer);
            Sink::stream(stream, terms).unwrap()
        }
    };
    let log = tempfile::tempfile_in(files::scratch()).unwrap();
    let from = matches!(rung.kind, Kind::Relay | Kind::Log).then(|| feed(file, len));
    if let Some(from) = &from {
        from.set_nonblocking(manner.nonblocking).unwrap();
    }
    let mut job = Job {
        file,
        sink: out,
        from,
        into: Some(&log),
        interface: None,
        card: None,
    };
    let ended = (rung.run)(&mut job);
    let copied = job.sink.copied();
    drop(job);
    ended.map_err(|stopped| match manner.asks {
        true => stopped.ask(&mut far, &GO_ON),
        false => stopped,
    })?;
    let delivered = far.delivered(&GO_ON).expect("the far end's word");
    Ok(Done {
        delivered,
        copied,
        log,
    })
}

fn set_buffer(socket: &impl std::os::fd::AsFd, bytes: Option<usize>) {
    if let Some(bytes) = bytes {
        rustix::net::sockopt::set_socket_send_buffer_size(socket, bytes).unwrap();
    }
}

/// A stream by which the file comes, by reference to its pages.
fn feed(file: &File, len: u64) -> TcpStream {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let feeder = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let file = file.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut at = 0;
        while at < len {
            // An own position: the file's is the rung's.
            let some = (len - at).min(1 << 20) as usize;
            match rustix::fs::sendfile(&feeder, &file, Some(&mut at), some) {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
    });
    listener.accept().unwrap().0
}

/// Every rung that sends a file, over each protocol that it can.
fn every_sender(body: impl FnMut(&Rung, Protocol)) {
    every(&[Kind::Send], body);
}

/// Every rung of these kinds, likewise.
fn every(kinds: &[Kind], mut body: impl FnMut(&Rung, Protocol)) {
    // Those from 10 on make frames by themselves.
    let over_sockets = |rung: &&Rung| kinds.contains(&rung.kind) && rung.number < 10;
    for rung in RUNGS.iter().filter(over_sockets) {
        if let Some(why) = (rung.missing)() {
            common::not_run(&format!("{}: {why}", rung.name));
            continue;
        }
        for protocol in rung.over {
            println!("--- {} over {protocol}", rung.name);
            body(rung, *protocol);
        }
    }
}

/// What goes to the network.
const NETWORK: &[Kind] = &[Kind::Send, Kind::Relay, Kind::Log];

#[test]
fn every_byte_arrives_whatever_the_length() {
    let python = Python::start();
    for control in [python.address, ours()] {
        for len in [0, 1, 1471, 1472, 1473, 65536, 3_000_001] {
            let (file, sum) = file_of(len);
            every(NETWORK, |rung, protocol| {
                let mut done = send(rung, protocol, &file, len as u64, control).unwrap();
                assert_eq!(done.delivered.bytes, len as u64);
                assert_eq!(done.delivered.sha256, sum);
                if rung.kind == Kind::Log {
                    assert_eq!(hash(&mut done.log), (len as u64, sum.clone()));
                }
            });
        }
    }
}

#[test]
fn a_file_that_is_shorter_than_it_was_is_told_with_what_was_sent() {
    let control = ours();
    let (file, _) = file_of(100_000);
    every_sender(|rung, protocol| {
        let stopped = send(rung, protocol, &file, 200_000, control).unwrap_err();
        assert!(matches!(stopped.why, Why::Shrunk), "{stopped}");
        assert_eq!((stopped.sent, stopped.len), (100_000, 200_000));
    });
}

#[test]
fn a_stream_that_ends_too_early_is_told_with_what_was_relayed() {
    let control = ours();
    let (file, _) = file_of(100_000);
    every(&[Kind::Relay, Kind::Log], |rung, protocol| {
        let stopped = send(rung, protocol, &file, 200_000, control).unwrap_err();
        assert!(matches!(stopped.why, Why::Closed), "{stopped}");
        assert_eq!((stopped.sent, stopped.len), (100_000, 200_000));
    });
}

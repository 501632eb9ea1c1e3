//! What the processor copies: a rung's own account, its picture, and what can be seen from outside. Over
//! loopback the far end's socket holds what the near one was given. Where that is the file's own pages,
//! what is written into the file afterwards arrives; where it is a copy, what was there before.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use pinwire::paths::ladder::{Carrier, Job, Kind, Protocol, Receiver, Rung, Sink, Terms};

use super::far::file_of;
use super::taker::{Habit, Taker};
use super::{NETWORK, PLAIN, every, every_sender, feed, ours, send, send_so};

fn copies_of(rung: &Rung) -> u64 {
    rung.hops
        .iter()
        .filter(|hop| hop.by == Carrier::Cpu)
        .count() as u64
}

/// May the kernel copy after all, where the picture shows none? Over loopback it does so for MSG_ZEROCOPY and
/// SEND_ZC, and some of its versions do for datagrams.
fn may_copy(rung: &Rung, protocol: Protocol) -> bool {
    let asks = rung.number == 8 || rung.name.contains("SEND_ZC");
    asks || protocol == Protocol::Udp && copies_of(rung) == 0
}

#[test]
fn a_rung_copies_as_often_as_its_picture_shows() {
    let control = ours();
    let (file, _) = file_of(1_000_000);
    every(NETWORK, |rung, protocol| {
        let done = send(rung, protocol, &file, 1_000_000, control).unwrap();
        let name = rung.name;
        let copies = done.copied / 1_000_000;
        assert_eq!(done.copied % 1_000_000, 0, "{name} over {protocol}");
        let is_right =
            copies == copies_of(rung) || copies == copies_of(rung) + 1 && may_copy(rung, protocol);
        assert!(is_right, "{name} over {protocol}: {copies} copies");
    });
}

/// Fits into the buffers on the way, without anybody taking it.
const LITTLE: usize = 30_000;

#[test]
fn what_is_written_into_the_file_later_arrives_where_a_rung_says_it_copied_nothing() {
    every(NETWORK, |rung, protocol| {
        let (file, _) = file_of(LITTLE);
        (&file).seek(SeekFrom::Start(0)).unwrap();
        // A far end that has said all that it has to say, and looks when it is told to.
        let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let data = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let datagrams = UdpSocket::bind(data.local_addr().unwrap()).unwrap();
        let port = data.local_addr().unwrap().port();
        let address = control.local_addr().unwrap();
        let says = std::thread::spawn(move || {
            use std::io::Write;
            let (mut control, _) = control.accept().unwrap();
            writeln!(control, "port {port} 1000000").unwrap();
            control
        });
        let payload = Terms::usual(protocol);
        let announced = (LITTLE as u64, payload);
        let mut far = Receiver::announce(address, None, protocol, announced).unwrap();
        let terms = Terms {
            len: LITTLE as u64,
            most: payload,
            stop: PLAIN.stop,
            progress: PLAIN.progress,
        };
        let log = tempfile::tempfile().unwrap();
        let out = match protocol {
            Protocol::Udp => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                socket.connect(far.data()).unwrap();
                Sink::datagrams(socket, &mut far, terms).unwrap()
            }
            _ => Sink::stream(TcpStream::connect(far.data()).unwrap(), terms).unwrap(),
        };
        let from = matches!(rung.kind, Kind::Relay | Kind::Log).then(|| feed(&file, LITTLE as u64));
        let mut job = Job {
            file: &file,
            sink: out,
            from,
            into: Some(&log),
            interface: None,
            card: None,
        };
        (rung.run)(&mut job).unwrap();
        let copied = job.sink.copied() / LITTLE as u64;

        let before = contents(&file);
        let after = vec![0xee; LITTLE];
        file.write_all_at(&after, 0).unwrap();
        let mut arrived = vec![0; LITTLE];
        if protocol == Protocol::Udp {
            datagrams
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let mut at = 0;
            while at < LITTLE {
                at += datagrams.recv(&mut arrived[at..]).unwrap();
            }
        } else {
            use std::io::Read;
            let (mut data, _) = data.accept().unwrap();
            data.read_exact(&mut arrived).unwrap();
        }
        drop(says.join().unwrap());
        // The log's copy comes off the way, which is by reference.
        let on_the_way = copied - u64::from(rung.kind == Kind::Log);
        let expected = if on_the_way == 0 { after } else { before };
        let late = arrived.iter().filter(|byte| **byte == 0xee).count();
        assert!(
            arrived == expected,
            "{} over {protocol}: {late} bytes came late",
            rung.name
        );
    });
}

fn contents(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn std_copies_a_file_to_a_socket_and_leaves_sendfile_alone() {
    // What rung 3 says of std, of std itself: the rung puts a writer of its own in between.
    let (file, _) = file_of(LITTLE);
    (&file).seek(SeekFrom::Start(0)).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    let before = contents(&file);
    std::io::copy(&mut &file, &mut near).unwrap();
    file.write_all_at(&[0xee; LITTLE], 0).unwrap();
    let mut arrived = vec![0; LITTLE];
    std::io::Read::read_exact(&mut far, &mut arrived).unwrap();
    assert!(
        arrived == before,
        "it is sendfile: say so in rung 3, and use it there"
    );
}

#[test]
fn a_call_makes_one_datagram_whichever_call_it_is() {
    const LEN: usize = 100_000;
    let (file, sum) = file_of(LEN);
    every_sender(|rung, protocol| {
        if protocol != Protocol::Udp {
            return;
        }
        let taker = Taker::start(Habit::PausesAfter(LEN));
        let done = send_so(&PLAIN, rung, protocol, &file, LEN as u64, taker.address).unwrap();
        assert_eq!(done.delivered.sha256, sum);
        let taken = taker.taken.recv().unwrap();
        let sizes: Vec<usize> = taken.iter().map(Vec::len).collect();
        let (last, full) = sizes.split_last().unwrap();
        assert!(full.iter().all(|size| *size == 1472), "{sizes:?}");
        assert_eq!((full.len(), *last), (LEN / 1472, LEN % 1472));
    });
}

//! What a rung that stops early says: not only what it sent, but what of it arrived.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread;

use pinwire::paths::ladder::{Arrived, Protocol, RUNGS, Rung, Stopped};

use super::far::file_of;
use super::taker::{Habit, Taker};
use super::{Manner, NETWORK, PLAIN, every, send_so};

const LEN: usize = 100_000;

const ASKS: Manner = Manner {
    asks: true,
    ..PLAIN
};

/// The rung is sent off with a file that is too short by half.
fn stopped(rung: &Rung, protocol: Protocol, control: SocketAddr) -> Stopped {
    let (file, _) = file_of(LEN);
    let done = send_so(&ASKS, rung, protocol, &file, 2 * LEN as u64, control);
    done.expect_err("it cannot end")
}

#[test]
fn what_arrived_is_told_as_the_far_end_counted_it() {
    let mut running = Vec::new();
    every(NETWORK, |rung, protocol| {
        let rung = RUNGS.iter().find(|same| same.name == rung.name).unwrap();
        // Each waits for datagrams that never come.
        running.push(thread::spawn(move || {
            let taker = Taker::start(Habit::PausesAfter(2 * LEN));
            let stopped = stopped(rung, protocol, taker.address);
            let taken: Vec<Vec<u8>> = taker.taken.recv().unwrap();
            let taken: usize = taken.iter().map(Vec::len).sum();
            let told = format!("{} over {protocol}: {stopped}", rung.name);
            assert_eq!(stopped.arrived, Arrived::Bytes(taken as u64), "{told}");
            assert_eq!((stopped.sent, taken), (LEN as u64, LEN), "{told}");
            assert!(told.contains("100000 of 200000 bytes were sent and 100000 arrived, then"));
        }));
    });
    for thread in running {
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

#[test]
fn what_was_lost_on_the_way_has_not_arrived() {
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = control.local_addr().unwrap();
    let far = thread::spawn(move || {
        let (mut control, _) = control.accept().unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        writeln!(control, "port {port} 1000000").unwrap();
        let taken = socket.recv(&mut [0; 1500]).unwrap();
        writeln!(control, "done {taken} -").unwrap();
        (control, socket)
    });
    let stopped = stopped(&RUNGS[0], Protocol::Udp, address);
    drop(far.join().unwrap());
    assert_eq!(stopped.sent, LEN as u64);
    assert_eq!(stopped.arrived, Arrived::Bytes(1472), "{stopped}");
}

#[test]
fn a_far_end_that_vanished_is_told_not_to_have_said_what_arrived() {
    let (file, _) = file_of(16 << 20);
    every(NETWORK, |rung, protocol| {
        let taker = Taker::start(Habit::VanishesAfter(LEN));
        let done = send_so(&ASKS, rung, protocol, &file, 16 << 20, taker.address);
        let stopped = done.expect_err("it cannot end");
        assert_eq!(stopped.arrived, Arrived::Unsaid, "{stopped}");
        let told = stopped.to_string();
        assert!(told.contains("does not say what arrived"), "{told}");
    });
}

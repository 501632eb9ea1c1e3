//! A TCP relay that never sees what it relays: each direction is a pipe, and `splice` moves the pages of one
//! socket through it into the other. What nginx's stream proxy or a load balancer does by read and write.
//!
//!     splice_relay 127.0.0.1:7008 192.0.2.1:80

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

const USAGE: &str = "usage: splice_relay ADDRESS:PORT TO:PORT
Relays each TCP connection to TO:PORT and back, by splice(2). Port 0: any; it is printed. Ctrl-C ends it.";
/// Bytes that a call moves at most: what a pipe has room for.
const PIPE: usize = 64 * 1024;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (address, to) = match &args[..] {
        [help] if help == "--help" || help == "-h" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        [address, to] => (address, to),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match serve(address, to) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Until Ctrl-C: that ends the process, and the kernel closes what it had open.
fn serve(address: &str, to: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (near, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many are open, or one was gone before it was taken: the others go on.
                eprintln!("accept: {error}");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let to = to.to_owned();
        let started = thread::Builder::new().spawn(move || match relay(&near, &to) {
            Ok((there, back)) => println!("{peer}: {there} bytes there, {back} bytes back"),
            Err(error) => println!("{peer}: {to}: {error}"),
        });
        if let Err(error) = started {
            eprintln!("{peer}: no thread for it: {error}");
        }
    }
}

/// Both directions at once, until both have ended.
fn relay(near: &TcpStream, to: &str) -> io::Result<(u64, u64)> {
    let far = TcpStream::connect(to)?;
    thread::scope(|scope| {
        let back = thread::Builder::new().spawn_scoped(scope, || one_way(&far, near))?;
        let there = one_way(near, &far);
        let back = back.join().expect("it does not panic");
        Ok((there?, back?))
    })
}

/// Moves all that comes from one to the other, and then says there that no more will come: the other
/// direction goes on.
fn one_way(from: &TcpStream, to: &TcpStream) -> io::Result<u64> {
    let moved = move_all(from, to);
    if moved.is_err() {
        // One has vanished: whoever is at the other end, or sleeps in the other direction, is to hear of it.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
    moved
}

fn move_all(from: &TcpStream, to: &TcpStream) -> io::Result<u64> {
    let (pipe, fill) = pipe_with(PipeFlags::CLOEXEC)?;
    let none = SpliceFlags::empty();
    let mut relayed = 0;
    loop {
        let mut inside = match splice(from, None, &fill, None, PIPE, none) {
            Ok(0) => {
                // Who has gone meanwhile need not be told.
                let _ = to.shutdown(Shutdown::Write);
                return Ok(relayed);
            }
            Err(Errno::INTR) => continue,
            moved => moved?,
        };
        relayed += inside as u64;
        while inside > 0 {
            match splice(&pipe, None, to, None, inside, none) {
                Ok(moved) => inside -= moved,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

//! A TCP server that sends back what comes, without ever seeing it: `splice` from the socket into a pipe, and
//! from the pipe into the same socket. No byte is copied into the program, or by it.
//!
//!     splice_echo 127.0.0.1:7007

use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

const USAGE: &str = "usage: splice_echo ADDRESS:PORT
Sends back what comes on each TCP connection, by splice(2). Port 0: any; it is printed. Ctrl-C ends it.";
/// Bytes that a call moves at most: what a pipe has room for.
const PIPE: usize = 64 * 1024;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let address = match &args[..] {
        [help] if help == "--help" || help == "-h" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        [address] => address,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match serve(address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Until Ctrl-C: that ends the process, and the kernel closes what it had open.
fn serve(address: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many are open, or one was gone before it was taken: the others go on.
                eprintln!("accept: {error}");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        // Each connection has a thread and a pipe, which end with it.
        let started = thread::Builder::new().spawn(move || match echo(&stream) {
            Ok(bytes) => println!("{peer}: {bytes} bytes"),
            Err(error) => println!("{peer}: {error}"),
        });
        if let Err(error) = started {
            eprintln!("{peer}: no thread for it: {error}");
        }
    }
}

/// Sends back all that comes, until the other side has no more to say.
fn echo(stream: &TcpStream) -> std::io::Result<u64> {
    let (pipe, fill) = pipe_with(PipeFlags::CLOEXEC)?;
    let none = SpliceFlags::empty();
    let mut echoed = 0;
    loop {
        let mut inside = match splice(stream, None, &fill, None, PIPE, none) {
            // It may still wait for the end of what we say: half of the connection is closed at a time.
            Ok(0) => {
                stream.shutdown(Shutdown::Write)?;
                return Ok(echoed);
            }
            Err(Errno::INTR) => continue,
            moved => moved?,
        };
        echoed += inside as u64;
        while inside > 0 {
            match splice(&pipe, None, stream, None, inside, none) {
                Ok(moved) => inside -= moved,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

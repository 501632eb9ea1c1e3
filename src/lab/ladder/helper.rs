//! Our helpers, each a process of its own, so that what they use is not counted as ours: a far end
//! that takes what comes, and one that sends the file to whoever connects.
//!
//! A helper prints the address where it listens, and ends when its standard input does: however we
//! end, it does not stay.

use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, Stdio};

use crate::paths::ladder;
use crate::{Error, Result, user_file};

/// Works as a helper until its standard input ends: takes transfers, or sends `feed` to all who connect. `listening`
/// is told the address.
///
/// # Errors
/// No socket, or no such file.
pub fn help<E: From<Error>>(
    feed: Option<&Path>,
    listening: impl FnOnce(SocketAddr) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        process::exit(0);
    });
    let failed = |source| Error::io("the helper's socket", source);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    listening(listener.local_addr().map_err(failed)?)?;
    match feed {
        None => ladder::receive(&listener).map_err(failed)?,
        Some(path) => loop {
            let (mut stream, _) = listener.accept().map_err(failed)?;
            let (mut file, _) = user_file::regular(path, "can be fed again and again")?;
            std::thread::spawn(move || {
                let mut block = vec![0; ladder::BLOCK];
                while let Ok(read @ 1..) = file.read(&mut block) {
                    // Who has enough closes the stream.
                    if io::Write::write_all(&mut stream, &block[..read]).is_err() {
                        break;
                    }
                }
            });
        },
    }
    Ok(())
}

/// A helper that runs.
pub struct Helper {
    child: process::Child,
    /// The address that it listens on.
    pub address: SocketAddr,
}

impl Helper {
    /// Starts `command`, which does what [`help`] does and prints where it listens.
    ///
    /// # Errors
    /// It does not start, or prints no address.
    pub fn start(mut command: Command) -> Result<Self> {
        let failed = |source| Error::io("starting a helper of our own", source);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C is for us: a helper ends when we have ended.
        let mut helper = Self {
            child: command.process_group(0).spawn().map_err(failed)?,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
        };
        let mut line = String::new();
        let stdout = helper.child.stdout.take().expect("piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(failed)?;
        let address = line.trim().parse();
        helper.address = address.map_err(|_| failed(io::ErrorKind::UnexpectedEof.into()))?;
        Ok(helper)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Nobody else has waited for it, so it is that process and no other.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

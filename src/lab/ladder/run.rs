//! One run of one rung: made ready, counted, and checked by what arrived.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};

use super::plan::{Row, Run};
use super::site::Reach;
use crate::lab::count::Counting;
use crate::lab::count::routines::Routines;
use crate::paths::ladder::{Job, Kind, Protocol, Receiver, Sink, Stopped, Terms, Why};
use crate::{Error, Result, user_file};

/// Parameters that all runs have in common.
pub struct Common {
    /// The file that is moved.
    pub file: File,
    /// Its path.
    pub path: PathBuf,
    /// Its bytes.
    pub len: u64,
    /// SHA-256 of them, in hexadecimal.
    pub sha256: String,
    /// The folder in which other files are made.
    pub scratch: PathBuf,
    /// Bytes of a block of a stream.
    pub block: usize,
    /// Bytes of a datagram.
    pub payload: usize,
    /// Take the processor's access to the payload away, where a rung can.
    pub prove: bool,
    /// Address of the feeder, which sends what is relayed.
    pub feeder: Option<SocketAddr>,
    /// Ends all that is under way.
    pub stop: &'static AtomicBool,
    /// Bytes that went in the run under way.
    pub progress: Arc<AtomicU64>,
}

/// Reasons for which there is no run.
#[derive(Debug)]
pub enum Fault {
    /// The rung cannot be had here.
    Missing(String),
    /// It failed.
    Rung(String),
    /// Nothing more can be run.
    End(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::End(error)
    }
}

impl From<Stopped> for Fault {
    fn from(stopped: Stopped) -> Self {
        match stopped.why {
            Why::Missing(why) => Self::Missing(why),
            Why::Interrupted => Self::End(Error::Interrupted),
            _ => Self::Rung(stopped.to_string()),
        }
    }
}

impl Common {
    /// Opens `path`, and reads it once for its hash.
    ///
    /// # Errors
    /// If it cannot be read, is empty, or is no regular file.
    pub fn open(path: &Path, scratch: Option<&Path>, stop: &'static AtomicBool) -> Result<Self> {
        let (mut file, len) = user_file::regular(path, "have a page cache to send from")?;
        if len == 0 {
            return Err(Error::File {
                path: path.to_owned(),
                what: "it is empty: there is nothing to measure".to_owned(),
            });
        }
        let (sha256, len) = hash(&mut file, path, stop)?;
        let here = path.parent().filter(|parent| *parent != Path::new(""));
        Ok(Self {
            file,
            path: path.to_owned(),
            len,
            sha256,
            scratch: scratch.or(here).unwrap_or(Path::new(".")).to_owned(),
            block: crate::paths::ladder::BLOCK,
            payload: Terms::usual(Protocol::Udp),
            prove: false,
            feeder: None,
            stop,
            progress: Arc::default(),
        })
    }

    /// Runs the rung of `row` once, and checks what arrived.
    ///
    /// # Errors
    /// Why it could not be run, or did not come to its end.
    pub fn run(
        &self,
        row: &Row,
        mut reach: Reach<'_>,
        routines: Option<&Routines>,
    ) -> std::result::Result<Run, Fault> {
        let (protocol, kind) = (row.protocol, row.rung.kind);
        row.cache
            .prepare(&self.file, self.stop)?
            .map_err(Fault::Missing)?;
        let read = |source| Error::io(format!("reading {}", self.path.display()), source);
        (&self.file).seek(SeekFrom::Start(0)).map_err(read)?;
        let mut into = match kind {
            Kind::Log | Kind::Copy => Some(self.another_file().map_err(Fault::Missing)?),
            Kind::Send | Kind::Relay => None,
        };
        let from = match (kind, self.feeder) {
            (Kind::Relay | Kind::Log, Some(feeder)) => {
                let stream = TcpStream::connect(feeder);
                Some(stream.map_err(|source| Error::io("connecting to our own feeder", source))?)
            }
            _ => None,
        };
        let mut far = match protocol {
            Protocol::Disk => None,
            _ => Some(self.announce(protocol, &reach)?),
        };
        let (sink, ends) = self.sink(protocol, &reach, far.as_mut())?;
        let (interface, card) = match ends {
            Some((source, to)) => reach.headed(source, to, self.prove),
            None => (None, None),
        };
        let mut job = Job {
            file: &self.file,
            sink,
            from,
            into: into.as_ref(),
            interface,
            card,
        };
        let watched = routines.map(Routines::begin);
        let counting = Counting::begin();
        let ended = (row.rung.run)(&mut job);
        let copied = job.sink.copied();
        drop(job);
        let rest = counting.rung_is_through();
        let seen = match (routines, watched) {
            (Some(routines), Some(watched)) => watched.and_then(|()| routines.copied()),
            _ => Err("nobody looked".to_owned()),
        };
        ended.map_err(|stopped| with_what_arrived(stopped, far.as_mut(), self.stop))?;
        let arrived = far
            .as_mut()
            .map(|far| delivered(far, self.stop))
            .transpose()?;
        let cost = rest.end();
        for arrived in [
            arrived,
            into.as_mut()
                .map(|file| hash(file, &self.scratch, self.stop))
                .transpose()?,
        ] {
            self.check(arrived)?;
        }
        Ok(Run { cost, copied, seen })
    }

    /// Checks that what arrived is what was sent.
    fn check(&self, arrived: Option<(String, u64)>) -> std::result::Result<(), Fault> {
        match arrived {
            Some((sha256, bytes)) if sha256 != self.sha256 => Err(Fault::Rung(format!(
                "WRONG HASH: {bytes} bytes arrived, SHA-256 {sha256}\n  the file's {} bytes have {}",
                self.len, self.sha256
            ))),
            _ => Ok(()),
        }
    }

    fn announce(&self, protocol: Protocol, reach: &Reach<'_>) -> Result<Receiver> {
        let control = reach.control;
        Receiver::announce(control, reach.data, protocol, (self.len, self.payload)).map_err(
            |source| {
                Error::io(
                    format!("the far end at {control} (is it still there?)"),
                    source,
                )
            },
        )
    }

    /// Makes the destination of the bytes; for who makes frames by itself also from whom to whom.
    fn sink<'a>(
        &'a self,
        protocol: Protocol,
        reach: &Reach<'_>,
        far: Option<&'a mut Receiver>,
    ) -> Result<(Sink<'a>, Option<(SocketAddr, SocketAddr)>)> {
        let terms = Terms {
            len: self.len,
            most: match protocol {
                Protocol::Udp => self.payload,
                _ => self.block,
            },
            stop: self.stop,
            progress: &self.progress,
        };
        let failed = |source| Error::io("connecting to the far end", source);
        Ok(match (protocol, far) {
            // Who drives the card makes the frames of datagrams and of streams by itself.
            (_, Some(far)) if reach.drives_card() => {
                let flow = (SocketAddr::new(reach.from.into(), 7000), far.data());
                (Sink::elsewhere(Some(far), terms), Some(flow))
            }
            (Protocol::Tcp, Some(far)) => {
                let bound = Duration::from_secs(10);
                let to = far.data();
                let gone = |source| {
                    let what = format!("connecting to the far end at {to} (is it still there?)");
                    Error::io(what, source)
                };
                let stream = TcpStream::connect_timeout(&to, bound).map_err(gone)?;
                (Sink::stream(stream, terms).map_err(failed)?, None)
            }
            (Protocol::Udp, Some(far)) => {
                let to = far.data();
                let socket = UdpSocket::bind((reach.from, 0)).map_err(failed)?;
                socket.connect(to).map_err(failed)?;
                let flow = (socket.local_addr().map_err(failed)?, to);
                (
                    Sink::datagrams(socket, far, terms).map_err(failed)?,
                    Some(flow),
                )
            }
            _ => (Sink::elsewhere(None, terms), None),
        })
    }

    /// A file without a name, gone when it is closed.
    fn another_file(&self) -> std::result::Result<File, String> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.scratch, flags, Mode::RUSR | Mode::WUSR);
        file.map(File::from).map_err(|errno| {
            format!(
                "no file can be made in {}: {errno}; name another scratch directory",
                self.scratch.display()
            )
        })
    }
}

/// Adds what the far end says of it, where the rung began to send.
fn with_what_arrived(stopped: Stopped, far: Option<&mut Receiver>, stop: &AtomicBool) -> Stopped {
    match (&stopped.why, far) {
        (Why::Missing(_) | Why::Interrupted, _) | (_, None) => stopped,
        (_, Some(far)) => stopped.ask(far, stop),
    }
}

/// SHA-256 of all that arrived, and its bytes.
fn delivered(far: &mut Receiver, stop: &AtomicBool) -> std::result::Result<(String, u64), Fault> {
    let delivered = far.delivered(stop);
    let delivered = delivered.map_err(|why| match why {
        Why::Interrupted => Fault::End(Error::Interrupted),
        why => Fault::Rung(format!(
            "all was sent and at least {} bytes arrived, but {why}",
            far.got()
        )),
    })?;
    Ok((delivered.sha256, delivered.bytes))
}

/// SHA-256 of a file, from its beginning, and its bytes.
fn hash(file: &mut File, path: &Path, stop: &AtomicBool) -> Result<(String, u64)> {
    let failed = |source| Error::io(format!("reading {}", path.display()), source);
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let (mut hash, mut len, mut block) = (Sha256::new(), 0, vec![0; 1 << 18]);
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        match file.read(&mut block) {
            Ok(0) => break,
            Ok(read) => {
                hash.update(&block[..read]);
                len += read as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let hex = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok((hex, len))
}

//! The answer to a request: a head, and parts of a file or bytes of our own.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Once;
use std::time::SystemTime;

use httpdate::fmt_http_date;
use rustix::fs::{FileType, Stat, fstat};
use rustix::io::Errno;

use super::budget::Taken;
use super::condition::Validator;
use super::content::{self, Content};
use super::listing;
use super::method::{Method, Piece, flags, of_the_file};
use super::path::{Name, Target};
use super::range::{self, Ranges};
use super::request::Request;
use super::root::{Opened, Root};
use super::status::Status;

/// The file that is sent for a folder, if it is there.
const INDEX: &[u8] = b"/index.html";
/// The head of a file that is longer leaves by itself: its peer wakes, and takes packets in while we send,
/// which else is our work. That of a shorter one leaves with it, which costs both sides less.
const LONG: u64 = 2 << 20;
/// Methods that there are, and that change nothing here.
const NOT_ALLOWED: [&str; 7] = [
    "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT",
];

/// An answer on its way.
pub struct Answer {
    /// Its status code.
    pub status: Status,
    /// True if the connection goes on after it.
    pub keep_alive: bool,
    /// Bytes that the socket has taken.
    pub sent: u64,
    parts: VecDeque<Part>,
    file: Option<Opened>,
    /// A listing's share of the memory for listings.
    _listing: Option<Taken>,
}

enum Part {
    /// Bytes of our own, and how many of them are gone.
    Own(Vec<u8>, usize),
    /// A range of the file.
    File(Range<u64>),
    /// All that a read finds in the file from `at` on, in chunks or as it is.
    Rest { at: u64, chunks: bool },
}

/// The point to which an answer came.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// To its end.
    All,
    /// To the end of its share: others come first now.
    Share,
    /// Until the socket was full.
    Full,
}

impl Answer {
    /// Sends on, about `share` bytes at most: bytes of our own go whole.
    ///
    /// # Errors
    /// The peer is gone, or the file: `UnexpectedEof` where it has shrunk.
    pub fn send<M: Method>(
        &mut self,
        method: &mut M,
        kept: &mut M::Kept,
        socket: BorrowedFd<'_>,
        share: &mut u64,
    ) -> io::Result<Sent> {
        loop {
            let more = self.parts.len() > 1;
            let is_before_long = self.parts.get(1).is_some_and(Part::is_long);
            let moved = match (self.parts.front_mut(), &self.file) {
                (None, _) => return Ok(Sent::All),
                (Some(_), _) if *share == 0 => return Ok(Sent::Share),
                (Some(&mut Part::Rest { at, chunks }), Some(file)) => {
                    let found = content::next(file.as_fd(), at).map_err(of_the_file)?;
                    self.found(at, chunks, found);
                    continue;
                }
                (Some(Part::Own(bytes, gone)), _) => {
                    let flags = flags(more && !is_before_long);
                    rustix::net::send(socket, &bytes[*gone..], flags).map_err(Into::into)
                }
                (Some(Part::File(range)), Some(file)) => {
                    let left = range.end - range.start;
                    let piece = Piece {
                        file: file.as_fd(),
                        at: range.start,
                        len: left.min(*share),
                        more: more || left > *share,
                    };
                    method.move_some(kept, &piece, socket)
                }
                (Some(Part::File(_) | Part::Rest { .. }), None) => {
                    unreachable!("parts of a file come with it")
                }
            };
            match moved {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(moved) => {
                    *share = share.saturating_sub(moved as u64);
                    self.gone(moved as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Sent::Full),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Queues bytes that were read of the rest of a file before what is left of it; no bytes are its end.
    fn found(&mut self, at: u64, chunks: bool, found: Vec<u8>) {
        let is_end = found.is_empty();
        self.parts.pop_front();
        if !is_end {
            let at = at.saturating_add(found.len() as u64);
            self.parts.push_front(Part::Rest { at, chunks });
        }
        let bytes = if chunks { chunk(found) } else { found };
        if !bytes.is_empty() {
            self.parts.push_front(Part::Own(bytes, 0));
        }
    }

    fn gone(&mut self, moved: u64) {
        self.sent += moved;
        let is_over = match self.parts.front_mut() {
            Some(Part::Own(bytes, gone)) => {
                *gone += moved as usize;
                *gone == bytes.len()
            }
            Some(Part::File(range)) => {
                range.start += moved;
                range.is_empty()
            }
            Some(Part::Rest { .. }) | None => false,
        };
        if is_over {
            self.parts.pop_front();
        }
    }
}

/// The part of a head beyond what every head has.
#[derive(Default)]
struct Head {
    fields: String,
    body: Body,
}

/// The way in which the end of an answer's body is told (RFC 9112 §6.3).
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Body {
    /// The status forbids one.
    #[default]
    None,
    /// After so many bytes.
    Length(u64),
    /// After an empty chunk.
    Chunks,
    /// With the connection, for a client that knows no chunks.
    Connection,
}

impl Head {
    fn field(&mut self, name: &str, value: &str) {
        self.fields.extend([name, ": ", value, "\r\n"]);
    }
}

/// Makes answers.
pub struct Answering<'a> {
    root: &'a Root,
    now: SystemTime,
}

impl<'a> Answering<'a> {
    /// Answers from `root`, now.
    pub fn new(root: &'a Root) -> Self {
        Self {
            root,
            now: SystemTime::now(),
        }
    }

    /// The answer to a request.
    pub fn to(&self, request: &Request<'_, '_>) -> Answer {
        match request.method {
            "GET" | "HEAD" => {}
            "OPTIONS" if Target::parse(request.target, true) == Ok(Target::Server) => {
                let mut head = Head::default();
                head.field("Allow", "GET, HEAD, OPTIONS");
                return self.own(Status(200), head, Vec::new(), Some(request));
            }
            method if NOT_ALLOWED.contains(&method) => {
                return self.status(Status(405), Some(request));
            }
            _ => return self.status(Status(501), Some(request)),
        }
        self.find(request)
            .unwrap_or_else(|status| self.status(status, Some(request)))
    }

    /// An answer that says no more than its status. Without a request the connection ends.
    pub fn status(&self, status: Status, request: Option<&Request<'_, '_>>) -> Answer {
        let mut head = Head::default();
        if status == Status(405) {
            head.field("Allow", "GET, HEAD");
        }
        if status == Status(503) {
            head.field("Retry-After", "1");
        }
        self.text(status, head, request)
    }

    fn text(&self, status: Status, mut head: Head, request: Option<&Request<'_, '_>>) -> Answer {
        head.field("Content-Type", "text/plain; charset=utf-8");
        let text = format!("{} {}\n", status.0, status.reason());
        self.own(status, head, text.into_bytes(), request)
    }

    /// An answer with a body of our own.
    fn own(
        &self,
        status: Status,
        mut head: Head,
        body: Vec<u8>,
        request: Option<&Request<'_, '_>>,
    ) -> Answer {
        head.body = Body::Length(body.len() as u64);
        let mut answer = self.begin(status, head, request);
        if request.is_none_or(|request| request.method != "HEAD") && !body.is_empty() {
            answer.parts.push_back(Part::Own(body, 0));
        }
        answer
    }

    /// An answer with its head only.
    fn begin(&self, status: Status, head: Head, request: Option<&Request<'_, '_>>) -> Answer {
        let keep_alive =
            request.is_some_and(|request| request.keep_alive) && head.body != Body::Connection;
        let mut text = format!("HTTP/1.1 {} {}\r\n", status.0, status.reason());
        text += "Server: pinwire\r\nDate: ";
        text += &fmt_http_date(self.now);
        text += "\r\n";
        match head.body {
            Body::Length(length) => text += &format!("Content-Length: {length}\r\n"),
            Body::Chunks => text += "Transfer-Encoding: chunked\r\n",
            Body::None | Body::Connection => {}
        }
        text += &head.fields;
        match (keep_alive, request.is_some_and(|request| request.is_old)) {
            (false, _) => text += "Connection: close\r\n",
            (true, true) => text += "Connection: keep-alive\r\n",
            (true, false) => {}
        }
        text += "\r\n";
        Answer {
            status,
            keep_alive,
            sent: 0,
            parts: [Part::Own(text.into_bytes(), 0)].into(),
            file: None,
            _listing: None,
        }
    }

    /// Looks the target up.
    fn find(&self, request: &Request<'_, '_>) -> Result<Answer, Status> {
        let name = Name::parse(request.target)?;
        let file = self.root.file(&name.path).map_err(refused)?;
        let stat = fstat(&file).map_err(refused)?;
        match (FileType::from_raw_mode(stat.st_mode), name.is_folder) {
            (FileType::RegularFile, false) => self.file(request, file, stat, &name.path),
            (FileType::RegularFile, true) => Err(Status(404)),
            (FileType::Directory, true) => self.folder(request, file, &name),
            (FileType::Directory, false) => {
                let mut head = Head::default();
                head.field("Location", &name.as_folder());
                Ok(self.text(Status(301), head, Some(request)))
            }
            _ => Err(Status(403)),
        }
    }

    fn folder(
        &self,
        request: &Request<'_, '_>,
        folder: Opened,
        name: &Name<'_>,
    ) -> Result<Answer, Status> {
        let index = [&name.path, INDEX].concat();
        match self.root.file(&index) {
            Ok(file) => {
                let stat = fstat(&file).map_err(refused)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => self.file(request, file, stat, &index),
                    _ => Err(Status(403)),
                }
            }
            Err(Errno::NOENT) => {
                let after = name.query.and_then(listing::after);
                let page = listing::page(self.root, folder.as_fd(), &name.path, after.as_deref());
                let page = page.map_err(refused)?;
                let Some(room) = self.root.listings.take(page.len()) else {
                    return Err(Status(503));
                };
                let mut head = Head::default();
                head.field("Content-Type", "text/html; charset=utf-8");
                let mut answer = self.own(Status(200), head, page, Some(request));
                // The page is memory: as many of them as there may be files, and so many bytes in all.
                answer.file = Some(folder);
                answer._listing = Some(room);
                Ok(answer)
            }
            Err(error) => Err(refused(error)),
        }
    }

    fn file(
        &self,
        request: &Request<'_, '_>,
        file: Opened,
        mut stat: Stat,
        path: &[u8],
    ) -> Result<Answer, Status> {
        let found = Content::of(file.as_fd(), &mut stat).map_err(refused)?;
        let validator = match &found {
            Content::Measured(_) => Validator::new(&stat, self.now),
            Content::Read(bytes) => Validator::of(bytes),
            Content::Unmeasured(_) => Validator::none(),
        };
        let mut head = Head::default();
        if let Some(tag) = &validator.tag {
            head.field("ETag", tag);
        }
        if let Some(modified) = validator.last_modified() {
            head.field("Last-Modified", &modified);
        }
        match validator.check(request) {
            Some(Status(304)) => return Ok(self.begin(Status(304), head, Some(request))),
            Some(status) => return Ok(self.status(status, Some(request))),
            None => {}
        }
        let kind = kind(path);
        let (size, part): (_, &dyn Fn(Range<u64>) -> Part) = match &found {
            Content::Measured(size) => (*size, &Part::File),
            Content::Read(bytes) => (bytes.len() as u64, &|range| {
                Part::Own(bytes[range.start as usize..range.end as usize].into(), 0)
            }),
            Content::Unmeasured(_) => return Ok(self.unmeasured(request, file, found, head, &kind)),
        };
        head.field("Accept-Ranges", "bytes");
        let (status, parts) = match self.ranges(request, size, &validator) {
            Ranges::None => {
                head.field("Content-Range", &format!("bytes */{size}"));
                return Ok(self.text(Status(416), head, Some(request)));
            }
            Ranges::Whole => {
                head.field("Content-Type", &kind);
                let whole = (size > 0).then(|| part(0..size));
                (Status(200), Vec::from_iter(whole))
            }
            Ranges::Some(ranges) => match &ranges[..] {
                [range] => {
                    head.field("Content-Type", &kind);
                    head.field("Content-Range", &content_range(range, size));
                    (Status(206), vec![part(range.clone())])
                }
                ranges => {
                    let boundary = format!("{:016x}", RandomState::new().hash_one(self.now));
                    let field = format!("multipart/byteranges; boundary={boundary}");
                    head.field("Content-Type", &field);
                    let parts = multipart(ranges, size, &kind, &boundary, part);
                    (Status(206), parts)
                }
            },
        };
        head.body = Body::Length(parts.iter().map(Part::len).sum());
        let mut answer = self.begin(status, head, Some(request));
        if request.method == "GET" && !parts.is_empty() {
            answer.parts.extend(parts);
            answer.file = Some(file);
        }
        Ok(answer)
    }

    /// A file of which nobody knows how long it is before it has been read: there are no ranges of it.
    fn unmeasured(
        &self,
        request: &Request<'_, '_>,
        file: Opened,
        found: Content,
        mut head: Head,
        kind: &str,
    ) -> Answer {
        let chunks = !request.is_old;
        head.field("Content-Type", kind);
        head.body = if chunks {
            Body::Chunks
        } else {
            Body::Connection
        };
        let mut answer = self.begin(Status(200), head, Some(request));
        if let (Content::Unmeasured(begin), "GET") = (found, request.method) {
            let at = begin.len() as u64;
            let begin = if chunks { chunk(begin) } else { begin };
            let parts = [Part::Own(begin, 0), Part::Rest { at, chunks }];
            answer.parts.extend(parts);
            answer.file = Some(file);
        }
        answer
    }

    /// Returns the ranges that are asked for: only GET may ask for some, and If-Range must hold.
    fn ranges(&self, request: &Request<'_, '_>, size: u64, validator: &Validator) -> Ranges {
        let may = request
            .all("if-range")
            .all(|value| validator.may_complete(value));
        match request.one("range") {
            Some(value) if may && request.method == "GET" => range::parse(value, size),
            _ => Ranges::Whole,
        }
    }
}

impl Part {
    fn is_long(&self) -> bool {
        matches!(self, Self::File(_)) && self.len() > LONG
    }

    fn len(&self) -> u64 {
        match self {
            Self::Own(bytes, _) => bytes.len() as u64,
            Self::File(range) => range.end - range.start,
            Self::Rest { .. } => 0, // not known; no length is announced for it
        }
    }
}

/// Formats bytes as a chunk of a body (RFC 9112 §7.1); without bytes it is the last.
fn chunk(bytes: Vec<u8>) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend(bytes);
    chunk.extend(b"\r\n");
    chunk
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

/// Several ranges as parts of one body (RFC 9110 §14.6).
fn multipart(
    ranges: &[Range<u64>],
    size: u64,
    kind: &str,
    boundary: &str,
    part: &dyn Fn(Range<u64>) -> Part,
) -> Vec<Part> {
    let mut parts = Vec::new();
    for range in ranges {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {}\r\n\r\n",
            content_range(range, size)
        );
        parts.push(Part::Own(head.into_bytes(), 0));
        parts.push(part(range.clone()));
    }
    parts.push(Part::Own(format!("\r\n--{boundary}--\r\n").into_bytes(), 0));
    parts
}

/// The media type of a file, by its name.
fn kind(path: &[u8]) -> String {
    let path = Path::new(OsStr::from_bytes(path));
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    let charset = match kind.type_() == mime_guess::mime::TEXT {
        true => "; charset=utf-8",
        false => "",
    };
    format!("{kind}{charset}")
}

/// Maps the error of opening a file to a status.
fn refused(error: Errno) -> Status {
    match error {
        // What leads out of the folder is not there for anybody.
        Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP | Errno::NAMETOOLONG => {
            Status(404)
        }
        Errno::ACCESS | Errno::PERM | Errno::NXIO => Status(403),
        // One that waits for something to read: there may be something later.
        Errno::AGAIN => Status(503),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                tracing::warn!(
                    "no file can be opened for some answers (503): {error}; raise the limit of open \
                     files (ulimit -n), or take fewer connections"
                );
            });
            Status(503)
        }
        error => {
            tracing::warn!("cannot open or read a file: {error}");
            Status(500)
        }
    }
}

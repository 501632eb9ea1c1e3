//! What is sent back for a request: a head, and parts of a file or bytes of our own.

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

use super::condition::Validator;
use super::listing;
use super::method::{Method, Piece, flags};
use super::path::Name;
use super::range::{self, Ranges};
use super::request::Request;
use super::root::{Opened, Root};
use super::status::Status;

/// What a folder shows, if it is there.
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
    /// What it says.
    pub status: Status,
    /// Does the connection go on after it?
    pub keep_alive: bool,
    /// Bytes that the socket has taken.
    pub sent: u64,
    parts: VecDeque<Part>,
    file: Option<Opened>,
}

enum Part {
    /// Bytes of our own, and how many of them are gone.
    Own(Vec<u8>, usize),
    /// Of the file.
    File(Range<u64>),
}

/// How far an answer came.
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
                (Some(Part::File(_)), None) => unreachable!("parts of a file come with it"),
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
            None => false,
        };
        if is_over {
            self.parts.pop_front();
        }
    }
}

/// What a head has beside what every head has.
#[derive(Default)]
struct Head {
    fields: String,
    /// Bytes of the body; none where the status forbids a body.
    length: Option<u64>,
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
        head.length = Some(body.len() as u64);
        let mut answer = self.begin(status, head, request);
        if request.is_none_or(|request| request.method != "HEAD") {
            answer.parts.push_back(Part::Own(body, 0));
        }
        answer
    }

    /// An answer with its head only.
    fn begin(&self, status: Status, head: Head, request: Option<&Request<'_, '_>>) -> Answer {
        let keep_alive = request.is_some_and(|request| request.keep_alive);
        let mut text = format!("HTTP/1.1 {} {}\r\n", status.0, status.reason());
        text += "Server: pinwire\r\nDate: ";
        text += &fmt_http_date(self.now);
        text += "\r\n";
        if let Some(length) = head.length {
            text += &format!("Content-Length: {length}\r\n");
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
        }
    }

    /// Looks the target up.
    fn find(&self, request: &Request<'_, '_>) -> Result<Answer, Status> {
        let name = Name::parse(request.target)?;
        let file = self.root.file(&name.path).map_err(refused)?;
        let stat = fstat(&file).map_err(refused)?;
        match (FileType::from_raw_mode(stat.st_mode), name.is_folder) {
            (FileType::RegularFile, false) => Ok(self.file(request, file, &stat, &name.path)),
            (FileType::RegularFile, true) => Err(Status(404)),
            (FileType::Directory, true) => self.folder(request, file, name.path),
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
        path: Vec<u8>,
    ) -> Result<Answer, Status> {
        let index = [&path, INDEX].concat();
        match self.root.file(&index) {
            Ok(file) => {
                let stat = fstat(&file).map_err(refused)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => Ok(self.file(request, file, &stat, &index)),
                    _ => Err(Status(403)),
                }
            }
            Err(Errno::NOENT) => {
                let page = listing::page(folder.as_fd(), &path).map_err(refused)?;
                let mut head = Head::default();
                head.field("Content-Type", "text/html; charset=utf-8");
                let mut answer = self.own(Status(200), head, page, Some(request));
                // The page is memory: as many of them as there may be files.
                answer.file = Some(folder);
                Ok(answer)
            }
            Err(error) => Err(refused(error)),
        }
    }

    fn file(&self, request: &Request<'_, '_>, file: Opened, stat: &Stat, path: &[u8]) -> Answer {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let validator = Validator::new(stat, self.now);
        let mut head = Head::default();
        head.field("ETag", &validator.tag);
        if let Some(modified) = validator.last_modified() {
            head.field("Last-Modified", &modified);
        }
        match validator.check(request) {
            Some(Status(304)) => return self.begin(Status(304), head, Some(request)),
            Some(status) => return self.status(status, Some(request)),
            None => {}
        }
        head.field("Accept-Ranges", "bytes");
        let kind = kind(path);
        let (status, parts) = match self.ranges(request, size, &validator) {
            Ranges::None => {
                head.field("Content-Range", &format!("bytes */{size}"));
                return self.text(Status(416), head, Some(request));
            }
            Ranges::Whole => {
                head.field("Content-Type", &kind);
                let whole = (size > 0).then_some(Part::File(0..size));
                (Status(200), Vec::from_iter(whole))
            }
            Ranges::Some(ranges) => match &ranges[..] {
                [range] => {
                    head.field("Content-Type", &kind);
                    head.field("Content-Range", &content_range(range, size));
                    (Status(206), vec![Part::File(range.clone())])
                }
                ranges => {
                    let boundary = format!("{:016x}", RandomState::new().hash_one(self.now));
                    let field = format!("multipart/byteranges; boundary={boundary}");
                    head.field("Content-Type", &field);
                    (Status(206), multipart(ranges, size, &kind, &boundary))
                }
            },
        };
        head.length = Some(parts.iter().map(Part::len).sum());
        let mut answer = self.begin(status, head, Some(request));
        if request.method == "GET" && !parts.is_empty() {
            answer.parts.extend(parts);
            answer.file = Some(file);
        }
        answer
    }

    /// Which bytes are asked for: only GET may ask for some, and If-Range must hold.
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
        }
    }
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

/// Several ranges as parts of one body (RFC 9110 §14.6).
fn multipart(ranges: &[Range<u64>], size: u64, kind: &str, boundary: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for range in ranges {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {}\r\n\r\n",
            content_range(range, size)
        );
        parts.push(Part::Own(head.into_bytes(), 0));
        parts.push(Part::File(range.clone()));
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

/// What it means that a file cannot be opened.
fn refused(error: Errno) -> Status {
    match error {
        // What leads out of the folder is not there for anybody.
        Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP | Errno::NAMETOOLONG => {
            Status(404)
        }
        Errno::ACCESS | Errno::PERM | Errno::NXIO => Status(403),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                tracing::warn!(
                    "no file can be opened for some answers (503): {error}; raise the limit of open \
                     files (ulimit -n), or take fewer --connections"
                );
            });
            Status(503)
        }
        error => {
            tracing::warn!("cannot open a file: {error}");
            Status(500)
        }
    }
}

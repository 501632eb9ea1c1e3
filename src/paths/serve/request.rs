//! Requests, parsed and checked (RFC 9112 §2 to §6).
//!
//! The head is parsed by httparse. It must fit into [`LONGEST`] bytes and [`FIELDS`] fields; until it
//! is whole, it is asked for again. A version that httparse does not know is refused with 505: HTTP/1.2,
//! too, which RFC 9110 §6.2 would have answered as 1.1.

use httparse::{EMPTY_HEADER, Error, Header};

use super::status::Status;

/// Bytes of a head, at most.
pub const LONGEST: usize = 16 << 10;
/// Fields of a head, at most.
pub const FIELDS: usize = 64;

/// Room for the fields of a request.
pub type Fields<'b> = [Header<'b>; FIELDS];

/// Fields not yet read.
pub fn no_fields<'b>() -> Fields<'b> {
    [EMPTY_HEADER; FIELDS]
}

/// A request that may be answered.
#[derive(Debug)]
pub struct Request<'h, 'b> {
    /// The method: `GET`.
    pub method: &'b str,
    /// The target: `/film.mkv?t=3`.
    pub target: &'b str,
    /// True if it comes from HTTP/1.0.
    pub is_old: bool,
    /// True if the connection goes on after the answer.
    pub keep_alive: bool,
    fields: &'h [Header<'b>],
}

/// The outcome of parsing the bytes that came so far.
#[derive(Debug)]
pub enum Parsed<'h, 'b> {
    /// A whole head, and how many bytes it has.
    Whole(Request<'h, 'b>, usize),
    /// The beginning of one.
    Begun,
    /// A request that may be answered only with this.
    Bad(Status),
}

/// Parses the head at the beginning of `bytes`.
pub fn parse<'h, 'b>(bytes: &'b [u8], fields: &'h mut Fields<'b>) -> Parsed<'h, 'b> {
    let mut head = httparse::Request::new(fields);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= LONGEST => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST => return Parsed::Begun,
        Ok(_) => return Parsed::Bad(too_long(bytes)),
        Err(Error::TooManyHeaders) => return Parsed::Bad(Status(431)),
        Err(Error::Version) => return Parsed::Bad(Status(505)),
        Err(_) => return Parsed::Bad(Status(400)),
    };
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Parsed::Bad(Status(400));
    };
    let mut request = Request {
        method,
        target,
        is_old: version == 0,
        keep_alive: false,
        fields: head.headers,
    };
    match request.goes_on() {
        Ok(goes_on) => request.keep_alive = goes_on,
        Err(status) => return Parsed::Bad(status),
    }
    Parsed::Whole(request, length)
}

/// Returns the offset in `bytes` of the first request: empty lines in front of it are nothing (RFC 9112 §2.2).
pub fn begin(bytes: &[u8]) -> usize {
    let is_line_end = |byte: &&u8| matches!(**byte, b'\r' | b'\n');
    bytes.iter().take_while(is_line_end).count()
}

/// Returns whether `text` is a host, perhaps with a port (RFC 9112 §3.2, RFC 3986 §3.2.2). It may be empty.
pub fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (text, ""),
    };
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
    let in_brackets = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let is_right = match in_brackets {
        Some(literal) => !literal.is_empty() && literal.bytes().all(|b| in_name(b) || b == b':'),
        None => host.bytes().all(|byte| in_name(byte) || byte == b'%'),
    };
    is_right && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the status for a head that is too long: 414 where the first line is, 431 where what follows is.
fn too_long(bytes: &[u8]) -> Status {
    match bytes[..LONGEST.min(bytes.len())].contains(&b'\n') {
        true => Status(431),
        false => Status(414),
    }
}

impl<'h, 'b> Request<'h, 'b> {
    /// The values of the fields with this name, in order. One that is no text is left out.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'b str> {
        self.fields
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .filter_map(|field| std::str::from_utf8(field.value).ok())
    }

    /// The value of a field that may be there once; nothing where it is there more often.
    pub fn one(&self, name: &str) -> Option<&'b str> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// Returns whether `word` is in the list that the field `name` is.
    fn says(&self, name: &str, word: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(word))
    }

    fn count(&self, name: &str) -> usize {
        let is_it = |field: &&Header<'_>| field.name.eq_ignore_ascii_case(name);
        self.fields.iter().filter(is_it).count()
    }

    /// Returns whether the connection goes on after the answer. Not after a body: it is not read here, and what comes
    /// next would be taken for a request (that is how requests are smuggled).
    fn goes_on(&self) -> Result<bool, Status> {
        let hosts = self.count("host");
        if hosts > 1 || (hosts == 0 && !self.is_old) {
            return Err(Status(400));
        }
        if hosts == 1 && !self.one("host").is_some_and(is_host) {
            return Err(Status(400));
        }
        let lengths = self.count("content-length");
        let chunked = self.count("transfer-encoding") > 0;
        if lengths > 1 || (lengths > 0 && chunked) {
            return Err(Status(400));
        }
        let has_body = match (lengths, self.one("content-length")) {
            (0, _) => chunked,
            (_, Some(text)) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                text.bytes().any(|digit| digit != b'0')
            }
            _ => return Err(Status(400)),
        };
        let wanted = match self.is_old {
            true => self.says("connection", "keep-alive"),
            false => true,
        };
        Ok(wanted && !has_body && !self.says("connection", "close"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(bytes: &[u8]) -> Result<(usize, bool), Option<u16>> {
        match parse(bytes, &mut no_fields()) {
            Parsed::Whole(request, length) => Ok((length, request.keep_alive)),
            Parsed::Begun => Err(None),
            Parsed::Bad(status) => Err(Some(status.0)),
        }
    }

    #[test]
    fn the_connection_goes_on_where_both_sides_can_tell_where_the_next_request_begins() {
        let of = |head: &str| status(format!("{head}\r\n\r\n").as_bytes()).map(|(_, on)| on);
        for (head, goes_on) in [
            ("GET / HTTP/1.1\r\nHost: a", Ok(true)),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close",
                Ok(false),
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0", Ok(true)),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3", Ok(false)),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked",
                Ok(false),
            ),
            ("GET / HTTP/1.0", Ok(false)),
            ("GET / HTTP/1.0\r\nConnection: keep-alive", Ok(true)),
            ("GET / HTTP/1.1", Err(Some(400))),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a", Err(Some(400))),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1",
                Err(Some(400)),
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1",
                Err(Some(400)),
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1",
                Err(Some(400)),
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
                Err(Some(400)),
            ),
            ("GET / HTTP/1.1\r\nHost:", Ok(true)),
            ("GET / HTTP/1.1\r\nHost: a.example:80", Ok(true)),
            ("GET / HTTP/1.1\r\nHost: 192.0.2.1:", Ok(true)),
            ("GET / HTTP/1.1\r\nHost: [2001:db8::1]", Ok(true)),
            ("GET / HTTP/1.1\r\nHost: [2001:db8::1]:80", Ok(true)),
            ("GET / HTTP/1.1\r\nHost: a b", Err(Some(400))),
            ("GET / HTTP/1.1\r\nHost: a/b", Err(Some(400))),
            ("GET / HTTP/1.1\r\nHost: a@b", Err(Some(400))),
            ("GET / HTTP/1.1\r\nHost: a:b", Err(Some(400))),
            ("GET / HTTP/1.1\r\nHost: 2001:db8::1", Err(Some(400))),
            ("GET / HTTP/1.1\r\nHost: []:80", Err(Some(400))),
            ("GET / HTTP/1.1\r\nHost: n\u{fc}", Err(Some(400))),
            ("GET / HTTP/2.0\r\nHost: a", Err(Some(505))),
            ("GET / HTTP/1.1\r\nHost : a", Err(Some(400))),
            ("GET /\r\nHost: a", Err(Some(400))),
        ] {
            assert_eq!(of(head), goes_on, "{head}");
        }
    }

    #[test]
    fn a_head_has_its_bounds() {
        let long = |what: &str| format!("GET /{what}");
        assert_eq!(
            status(long(&"a".repeat(LONGEST)).as_bytes()),
            Err(Some(414))
        );
        let field = format!(" HTTP/1.1\r\nHost: {}", "a".repeat(LONGEST));
        assert_eq!(status(long(&field).as_bytes()), Err(Some(431)));
        let fields = format!(" HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(FIELDS + 1));
        assert_eq!(status(long(&fields).as_bytes()), Err(Some(431)));
        assert_eq!(status(long(&"a".repeat(LONGEST - 6)).as_bytes()), Err(None));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = status(&bytes);
        }

        #[test]
        fn what_is_like_a_request_does_not_either(
            text in "(GET|HEAD|P[A-Z]{1,5}) [ -~]{1,30} HTTP/1\\.[01]\r?\n([A-Za-z-]{1,18}:[ -~]{0,20}\r?\n){0,70}\r?\n[ -~]{0,9}"
        ) {
            if let Ok((length, _)) = status(text.as_bytes()) {
                prop_assert!(length <= text.len());
            }
        }

        #[test]
        fn a_head_is_whole_only_when_its_last_byte_is_there(cut in 0usize..44) {
            let whole = b"GET /a%20b HTTP/1.1\r\nHost: a\r\nRange: x\r\n\r\n";
            let of = status(&whole[..cut.min(whole.len())]);
            prop_assert_eq!(of.is_ok(), cut >= whole.len());
        }
    }
}

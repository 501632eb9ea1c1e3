//! Names of files, read from targets. Nothing of a target is trusted: what is opened is looked up beneath the root by
//! the kernel ([`super::root`]); here the name is only made one that can be looked up.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::request::is_host;
use super::status::Status;

/// The form of a target, and what is left of it to look up (RFC 9112 §3.2).
///
/// Every target is one of these or refused, whatever the method: there is no other way from the bytes of a
/// request to a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// `/films/a.mkv?t=3`, or the same behind `http://host` or `https://host`: a server must take both. Whose
    /// host that is does not matter, since all names here are of one folder. There is no TLS here: what comes
    /// for https has been through a gateway that has it.
    Path(&'a str),
    /// `*`: the server itself, which `OPTIONS` may ask; or a host alone, which means the same to it.
    Server,
}

impl<'a> Target<'a> {
    /// Tells the form of `target`. `asks_server` where the method is `OPTIONS`.
    ///
    /// # Errors
    /// 400 where it has none: a host alone, another scheme, a host that can be none, user and password, a
    /// fragment.
    pub fn parse(target: &'a str, asks_server: bool) -> Result<Self, Status> {
        let bad = Status(400);
        if target.contains('#') {
            return Err(bad); // a fragment is the client's own business, and in no form of a target
        }
        if target == "*" && asks_server {
            return Ok(Self::Server);
        }
        if target.starts_with('/') {
            return Ok(Self::Path(target));
        }
        let (scheme, rest) = target.split_once("://").ok_or(bad)?;
        let is_ours = ["http", "https"]
            .iter()
            .any(|ours| scheme.eq_ignore_ascii_case(ours));
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        // None of the two schemes has a resource without a host (RFC 9110 §4.2).
        if !is_ours || host.is_empty() || host.starts_with(':') || !is_host(host) {
            return Err(bad);
        }
        match path {
            "" if asks_server => Ok(Self::Server),
            path => Ok(Self::Path(path)),
        }
    }
}

/// Characters that must be escaped in the path of a URL; the slash stays.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A name beneath the root.
#[derive(Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// Its parts with one slash in between: `films/a b.mkv`. The root itself is `.`.
    pub path: Vec<u8>,
    /// True if it ended with a slash, as the name of a folder does.
    pub is_folder: bool,
    /// The text after the question mark.
    pub query: Option<&'a str>,
}

impl<'a> Name<'a> {
    /// Reads a name from the target of a request: `/films//a%20b.mkv?t=3`, or with `http://host` in front.
    ///
    /// # Errors
    /// 400 where it cannot be a name: not of this form, bad escapes, a NUL, `..`, or a slash that only
    /// comes out of an escape.
    pub fn parse(target: &'a str) -> Result<Self, Status> {
        let bad = Status(400);
        let Target::Path(target) = Target::parse(target, false)? else {
            return Err(bad);
        };
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        // Without a path behind it, a host stands for its root (RFC 9110 §4.2.3).
        let path = if path.is_empty() { "/" } else { path };
        if has_bad_escape(path) {
            return Err(bad);
        }
        let mut name = Vec::with_capacity(path.len());
        for part in path.split('/') {
            let from = name.len();
            name.extend(percent_decode_str(part));
            match &name[from..] {
                b"" | b"." => name.truncate(from),
                b".." => return Err(bad),
                part if part.contains(&0) || part.contains(&b'/') => return Err(bad),
                _ => name.push(b'/'),
            }
        }
        if name.pop().is_none() {
            name.push(b'.');
        }
        Ok(Self {
            path: name,
            is_folder: path.ends_with('/') || path.ends_with("/."),
            query,
        })
    }

    /// Returns the path of this name's folder as it is written in a URL, with the slash at its end.
    pub fn as_folder(&self) -> String {
        let mut path = String::from("/");
        if self.path != b"." {
            path += &escape(&self.path);
            path.push('/');
        }
        if let Some(query) = self.query {
            path.push('?');
            path += query;
        }
        path
    }
}

/// Escapes a path as it is written in a URL.
pub fn escape(path: &[u8]) -> String {
    percent_encode(path, ESCAPED).to_string()
}

/// Returns whether there is a `%` without two hexadecimal digits after it.
fn has_bad_escape(path: &str) -> bool {
    path.split('%').skip(1).any(|after| {
        let digits = after.bytes().take(2);
        digits.filter(u8::is_ascii_hexdigit).count() < 2
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(target: &str) -> Result<String, u16> {
        let name = Name::parse(target).map_err(|status| status.0)?;
        let slash = if name.is_folder { "/" } else { "" };
        Ok(String::from_utf8(name.path).unwrap() + slash)
    }

    #[test]
    fn a_name_is_what_is_left_without_escapes_and_empty_parts() {
        for (target, name) in [
            ("/", Ok("./")),
            ("//", Ok("./")),
            ("/a", Ok("a")),
            ("/a/", Ok("a/")),
            ("//a//b%20c", Ok("a/b c")),
            ("/./a/.", Ok("a/")),
            ("/a?b/../c", Ok("a")),
            ("http://host", Ok("./")),
            ("HTTP://host:1/a", Ok("a")),
            ("http://host?x/s", Ok("./")),
            ("http://host/a?x/s", Ok("a")),
            ("https://host/a", Ok("a")),
            ("hTTpS://[::1]:443/a?b", Ok("a")),
            ("https://host", Ok("./")),
            ("http://host/a?b=http://c/d", Ok("a")),
            ("/a?b=http://c/d", Ok("a")),
            ("/http://host/a", Ok("http:/host/a")),
            ("/a%2eb", Ok("a.b")),
            ("/a\\..\\b", Ok("a\\..\\b")),
            ("/...", Ok("...")),
            ("/..", Err(400)),
            ("/a/../b", Err(400)),
            ("/%2e%2E/a", Err(400)),
            ("/a%2fb", Err(400)),
            ("/a%00b", Err(400)),
            ("/a%", Err(400)),
            ("/a%2", Err(400)),
            ("/a%zz", Err(400)),
            ("a", Err(400)),
            ("*", Err(400)),
            ("", Err(400)),
            ("host:80", Err(400)),
            ("file:///etc/passwd", Err(400)),
            ("ftp://host/a", Err(400)),
            ("http:///a", Err(400)),
            ("https://", Err(400)),
            ("http://:80/a", Err(400)),
            ("http://user@host/a", Err(400)),
            ("http://host:b/a", Err(400)),
            ("http:/a", Err(400)),
            ("://host/a", Err(400)),
            ("/a#b", Err(400)),
            ("http://host#b", Err(400)),
            ("?a", Err(400)),
        ] {
            assert_eq!(path(target), name.map(str::to_owned), "{target}");
        }
    }

    #[test]
    fn a_folder_is_sent_to_on_this_host_only() {
        let of = |target| Name::parse(target).unwrap().as_folder();
        assert_eq!(of("//evil.example/a"), "/evil.example/a/");
        assert_eq!(of("/a b%0d%0aX: y?q=1"), "/a%20b%0D%0AX%3A%20y/?q=1");
        assert_eq!(of("/\\evil.example"), "/%5Cevil.example/");
    }

    #[test]
    fn the_server_itself_is_asked_by_options_alone() {
        for target in ["*", "http://host", "HTTPS://host:1"] {
            assert_eq!(Target::parse(target, true), Ok(Target::Server), "{target}");
        }
        assert_eq!(Target::parse("/*", true), Ok(Target::Path("/*")));
        assert_eq!(Target::parse("http://h/", true), Ok(Target::Path("/")));
        for target in ["*", "**", "host", ""] {
            assert_eq!(Target::parse(target, false), Err(Status(400)), "{target}");
        }
    }

    proptest! {
        #[test]
        fn no_target_leads_up_or_to_an_absolute_name(
            target in "(|https?://[a-z:@]{0,3}|\\*|x)/?([a%2ef0/.\\\\?#*]|%2e|%2f|\\.\\./|://){0,20}"
        ) {
            if let Ok(name) = Name::parse(&target) {
                prop_assert!(!name.path.starts_with(b"/"));
                prop_assert!(name.path.split(|byte| *byte == b'/').all(|part| part != b".." && !part.is_empty()));
                prop_assert!(!name.path.contains(&0));
            }
        }

        #[test]
        fn no_text_makes_it_panic(target in "\\PC{0,40}") {
            let _ = (Name::parse(&target), Target::parse(&target, true));
        }

        #[test]
        fn what_is_escaped_is_the_same_name_again(bytes in proptest::collection::vec(1u8.., 1..30)) {
            prop_assume!(!bytes.contains(&b'/') && bytes != b"." && bytes != b"..");
            let target = format!("/{}", escape(&bytes));
            prop_assert_eq!(Name::parse(&target).unwrap().path, bytes);
        }
    }
}

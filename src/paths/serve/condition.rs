//! Conditional requests: whether the client's copy is still what the file is (RFC 9110 §8.8, §13).

use std::hash::{DefaultHasher, Hasher};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::{fmt_http_date, parse_http_date};
use rustix::fs::Stat;

use super::request::Request;
use super::status::Status;

/// The last second that a date of HTTP can name: the end of the year 9999.
const LAST: u64 = 253_402_300_799;

/// Entity tag and modification time, which tell one state of a file from another.
#[derive(Debug)]
pub struct Validator {
    /// Entity tag, made of inode, size and time of change: `"1f-400-18a5d2c0f00"`; with `W/` where it is weak.
    /// Nothing where nobody knows what the file holds before it is sent.
    pub tag: Option<String>,
    /// The time of the file's last change, to the second, and never later than now (§8.8.2.1). Not there for a time
    /// before 1970.
    modified: Option<SystemTime>,
    /// True if that is the file's own time. One still to come is told as now, which is another time at each request:
    /// a client that has it has seen nothing of the file.
    is_own: bool,
    /// Changed less than a second ago: a change may follow that neither time nor size show.
    is_weak: bool,
}

impl Validator {
    /// Makes the validator of the file that `stat` describes, as seen at `now`.
    pub fn new(stat: &Stat, now: SystemTime) -> Self {
        let seconds = u64::try_from(stat.st_mtime).ok();
        let own = seconds.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds.min(LAST)));
        let age = own.and_then(|time| now.duration_since(time).ok());
        // In the seconds the clock reads now or before: a time of 12:00:00.9 is seen as 12:00:00.
        let is_weak = age.is_none_or(|age| age < Duration::from_secs(2));
        let weak = if is_weak { "W/" } else { "" };
        let (inode, size) = (stat.st_ino, stat.st_size);
        let time = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
        Self {
            tag: Some(format!("{weak}\"{inode:x}-{size:x}-{time:x}\"")),
            modified: own.map(|time| time.min(now)),
            is_own: age.is_some(),
            is_weak,
        }
    }

    /// Makes the validator of these bytes, which are all there is of a file whose size and times say nothing.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        Self {
            tag: Some(format!("\"{:x}-{:016x}\"", bytes.len(), hasher.finish())),
            ..Self::none()
        }
    }

    /// Makes the validator of a file of which nothing is known.
    pub fn none() -> Self {
        Self {
            tag: None,
            modified: None,
            is_own: false,
            is_weak: false,
        }
    }

    /// The Last-Modified field.
    pub fn last_modified(&self) -> Option<String> {
        self.modified.map(fmt_http_date)
    }

    /// Evaluates the request's conditions in the order of §13.2.2: returns an answer other than the file, if that is
    /// what they come to.
    pub fn check(&self, request: &Request<'_, '_>) -> Option<Status> {
        let has = |name| request.all(name).next().is_some();
        let failed = if has("if-match") {
            !request
                .all("if-match")
                .any(|list| self.is_listed(list, true))
        } else {
            let since = self.compare(request.one("if-unmodified-since"));
            since.is_some_and(|(modified, date)| modified > date)
        };
        if failed {
            return Some(Status(412));
        }
        let same = if has("if-none-match") {
            request
                .all("if-none-match")
                .any(|list| self.is_listed(list, false))
        } else {
            let since = self.compare(request.one("if-modified-since"));
            self.is_own && since.is_some_and(|(modified, date)| modified <= date)
        };
        same.then_some(Status(304))
    }

    /// Returns whether ranges of it may complete what the client has. `value` is that of an If-Range field (§13.1.5).
    pub fn may_complete(&self, value: &str) -> bool {
        if value.contains('"') {
            return !self.is_weak && self.tag.as_deref() == Some(value);
        }
        let same = self.compare(Some(value));
        !self.is_weak && same.is_some_and(|(modified, date)| modified == date)
    }

    fn compare(&self, date: Option<&str>) -> Option<(SystemTime, SystemTime)> {
        Some((self.modified?, parse_http_date(date?).ok()?))
    }

    /// Returns whether our tag is in the list. `strong` where a weak one may not count (§8.8.3.2).
    fn is_listed(&self, list: &str, strong: bool) -> bool {
        if list.trim() == "*" {
            return true;
        }
        let Some(own) = self.tag.as_deref() else {
            return false;
        };
        let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
        // Our tags have no comma in them, so nothing of ours is cut in two.
        list.split(',').map(str::trim).any(|tag| match strong {
            true => !self.is_weak && tag == own,
            false => opaque(tag) == opaque(own),
        })
    }
}

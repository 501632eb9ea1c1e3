//! The page that shows what is in a folder: what this server would send, and nothing that it would refuse.
//!
//! Names come in the order of their bytes, all of them, however many: a page holds [`MOST`] bytes, and where
//! that is not enough the next one begins after the last name of this one (`?after=NAME`). So a page is
//! bounded in memory, and nothing is left out or shown twice, whatever comes and goes in between.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::time::{Duration, UNIX_EPOCH};

use httpdate::fmt_http_date;
use percent_encoding::percent_decode_str;
use rustix::fs::{Access, AtFlags, Dir, FileType, Stat, accessat, fstatfs, statat};
use rustix::io::Errno;

use super::path::escape;
use super::root::Root;

/// Bytes of a page, about: it stays in memory until the last of it is sent.
const MOST: usize = 8 << 20;
/// Bytes of an entry beside its name: tags, size and date.
const BESIDE: usize = 100;
/// The last second that a date of HTTP can name.
const LAST: u64 = 253_402_300_799;

/// The name that the query of a page says it begins after.
pub fn after(query: &str) -> Option<Vec<u8>> {
    let of_it = query
        .split('&')
        .find_map(|item| item.strip_prefix("after="))?;
    Some(percent_decode_str(of_it).collect())
}

/// The page of `folder`, whose path from the root is `path`, with the names after `after`.
///
/// # Errors
/// It cannot be read.
pub fn page(
    root: &Root,
    folder: BorrowedFd<'_>,
    path: &[u8],
    after: Option<&[u8]>,
) -> rustix::io::Result<Vec<u8>> {
    let (names, more) = names(folder, after.unwrap_or_default())?;
    // A filesystem without blocks stores nothing: the kernel makes up what is in it, and how long that is.
    let stored = fstatfs(folder).is_ok_and(|fs| fs.f_blocks > 0);
    let is_root = path == b".";
    let title = match is_root {
        true => "/".to_owned(),
        false => format!("/{}/", html(path)),
    };
    let mut page = format!(
        "<!DOCTYPE html>\n<html>\n<head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body>\n<h1>{title}</h1>\n<ul>\n"
    );
    if !is_root {
        page += "<li><a href=\"../\">../</a></li>\n";
    }
    for name in &names {
        page.extend(line(root, folder, path, name, stored));
    }
    page += "</ul>\n";
    if let Some(last) = names.last().filter(|_| more) {
        let next = escape(last);
        page += &format!(
            "<p>A page has {} MiB at most: <a href=\"./?after={next}\">the names after these</a></p>\n",
            MOST >> 20
        );
    }
    page += "</body>\n</html>\n";
    Ok(page.into_bytes())
}

/// Returns the first names after `after`, in order, as many as a page has room for, and whether there are more.
fn names(folder: BorrowedFd<'_>, after: &[u8]) -> rustix::io::Result<(BTreeSet<Vec<u8>>, bool)> {
    let mut names: BTreeSet<Vec<u8>> = BTreeSet::new();
    let (mut bytes, mut more) = (0, false);
    let cost = |name: &[u8]| BESIDE + escape(name).len() + html(name).len();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let is_nothing = matches!(
            entry.file_type(),
            FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice
        );
        if is_nothing || name == b"." || name == b".." || name <= after {
            continue;
        }
        if more && names.last().is_none_or(|last| name > last.as_slice()) {
            continue;
        }
        bytes += cost(name);
        names.insert(name.to_vec());
        while bytes > MOST && names.len() > 1 {
            more = true;
            bytes -= names.pop_last().map_or(0, |last| cost(&last));
        }
    }
    Ok((names, more))
}

/// Returns the line for `name`; `None` where a request for it would be refused.
fn line(
    root: &Root,
    folder: BorrowedFd<'_>,
    path: &[u8],
    name: &[u8],
    stored: bool,
) -> Option<String> {
    let mut stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        // Where it leads is found out as for a request.
        stat = root.stat(&[path, b"/", name].concat()).ok()?;
    }
    let (needed, end, size) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => (Access::READ_OK, "", size(&stat, stored)),
        FileType::Directory => (Access::READ_OK | Access::EXEC_OK, "/", String::new()),
        _ => return None,
    };
    if accessat(folder, name, needed, AtFlags::EACCESS) == Err(Errno::ACCESS) {
        return None;
    }
    // "./" in front: a name with a colon is no scheme, and one with a slash in front no host.
    Some(format!(
        "<li><a href=\"./{}{end}\">{}{end}</a> {size}{}</li>\n",
        escape(name),
        html(name),
        date(&stat)
    ))
}

/// Its size; nothing where the kernel made that up.
fn size(stat: &Stat, stored: bool) -> String {
    match (stat.st_size, stored || stat.st_blocks > 0) {
        (_, false) => String::new(),
        (1, true) => "1 byte, ".to_owned(),
        (size, true) => format!("{size} bytes, "),
    }
}

/// Formats the time of the last change, in UTC: `30 Nov 2026 21:20`. Empty for a time that has no date of HTTP's.
fn date(stat: &Stat) -> String {
    let seconds = u64::try_from(stat.st_mtime).ok();
    let seconds = seconds.filter(|seconds| *seconds <= LAST);
    seconds.map_or_else(String::new, |seconds| {
        let date = fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
        // Without the day of the week in front, and seconds and zone behind.
        date.get(5..22).unwrap_or_default().to_owned()
    })
}

/// Escapes a name as text of a page. Bytes that are no UTF-8 are shown as U+FFFD; the link has them as they are.
fn html(bytes: &[u8]) -> String {
    let mut text = String::new();
    for char in String::from_utf8_lossy(bytes).chars() {
        match char {
            '&' => text += "&amp;",
            '<' => text += "&lt;",
            '>' => text += "&gt;",
            '"' => text += "&quot;",
            '\'' => text += "&#39;",
            char => text.push(char),
        }
    }
    text
}

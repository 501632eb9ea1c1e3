//! The page that shows what is in a folder.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use rustix::fs::{Dir, FileType};

use super::path::escape;

/// Bytes of the names shown, at most: the page stays in memory until the last of it is sent.
const MOST: usize = 256 << 10;

/// The page of `folder`, whose path from the root is `path`.
///
/// # Errors
/// It cannot be read.
pub fn page(folder: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<Vec<u8>> {
    let mut lines = BTreeMap::new();
    let (mut bytes, mut more) = (0, 0);
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if more > 0 {
            more += 1;
            continue;
        }
        let mut name = name.to_vec();
        if entry.file_type() == FileType::Directory {
            name.push(b'/');
        }
        // "./" in front: a name with a colon is no scheme, and one with a slash in front no host.
        let line = format!(
            "<li><a href=\"./{}\">{}</a></li>\n",
            escape(&name),
            html(&name)
        );
        bytes += line.len();
        match bytes > MOST {
            true => more += 1,
            false => drop(lines.insert(name, line)),
        }
    }
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
    page.extend(lines.into_values());
    page += "</ul>\n";
    if more > 0 {
        page += &format!("<p>and {more} more</p>\n");
    }
    page += "</body>\n</html>\n";
    Ok(page.into_bytes())
}

/// As text of a page. Bytes that are no UTF-8 are shown as U+FFFD; the link has them as they are.
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

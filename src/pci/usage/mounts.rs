//! Mounts of every mount namespace that a process is in, and swap.

use std::fs;
use std::path::{Path, PathBuf};

use crate::pci::processes;

/// A line of `/proc/PID/mountinfo`.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Major and minor number of what is mounted, `259:1`; of no device for a filesystem of several.
    pub number: String,
    pub place: PathBuf,
    /// The way there from here: through the root of a process that sees it.
    pub path: PathBuf,
    pub kind: String,
    pub source: String,
    /// Owner of its namespace; none for our own.
    pub whose: Option<String>,
}

impl Mount {
    /// Its place, for people.
    pub fn name(&self) -> String {
        let place = self.place.display();
        match &self.whose {
            Some(whose) => format!("{place} (in the mount namespace of {whose})"),
            None => place.to_string(),
        }
    }
}

/// All mounts, our own namespace's first.
pub fn all(root: &Path) -> Vec<Mount> {
    let mut mounts = read(&root.join("proc/self"), None);
    // A process that was given another root sees a part of its namespace only.
    let view = |directory: &Path| {
        let namespace = fs::read_link(directory.join("ns/mnt")).ok();
        (namespace, fs::read_link(directory.join("root")).ok())
    };
    let mut seen = vec![view(&root.join("proc/self"))];
    for process in processes::all(root) {
        let view = view(&process.directory);
        if view.0.is_some() && !seen.contains(&view) {
            let whose = (view.0 != seen[0].0).then(|| process.name());
            mounts.extend(read(&process.directory, whose.as_deref()));
            seen.push(view);
        }
    }
    mounts
}

fn read(process: &Path, whose: Option<&str>) -> Vec<Mount> {
    let text = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
    let parse = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ');
        let mut back = back.split(' ');
        let number = front.nth(2)?.to_owned();
        let place = PathBuf::from(unescaped(front.nth(1)?));
        let inside = place.strip_prefix("/").unwrap_or(&place);
        Some(Mount {
            number,
            path: process.join("root").join(inside),
            place,
            kind: back.next()?.to_owned(),
            source: unescaped(back.next()?),
            whose: whose.map(str::to_owned),
        })
    };
    text.lines().filter_map(parse).collect()
}

/// Spaces and the like are written as three octal digits.
pub fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, code) {
            (b'\\', Some(code)) => {
                bytes.push(code);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Files and devices that memory is swapped to.
pub fn swaps(root: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(root.join("proc/swaps")).unwrap_or_default();
    let first = |line: &str| Some(unescaped(line.split_whitespace().next()?).into());
    text.lines().skip(1).filter_map(first).collect()
}

/// The mount that a file is in: the one whose place is the longest part of its path.
pub fn of<'a>(mounts: &'a [Mount], file: &Path) -> Option<&'a Mount> {
    let ours = mounts.iter().filter(|mount| mount.whose.is_none());
    // Of two on one place the later hides the earlier.
    ours.filter(|mount| file.starts_with(&mount.place))
        .max_by_key(|mount| mount.place.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_with_spaces_are_read() {
        let root = tempfile::tempdir().unwrap();
        let process = root.path().join("proc/self");
        fs::create_dir_all(&process).unwrap();
        let line =
            r"25 1 0:44 /sub /my\040disk rw,relatime shared:1 master:2 - btrfs /dev/sd\134a rw";
        fs::write(process.join("mountinfo"), line).unwrap();
        let mounts = all(root.path());
        assert_eq!(mounts.len(), 1);
        let Mount {
            number,
            place,
            path,
            kind,
            source,
            whose,
        } = &mounts[0];
        assert_eq!(path, &process.join("root/my disk"));
        assert_eq!(
            (number.as_str(), place.as_path()),
            ("0:44", Path::new("/my disk"))
        );
        assert_eq!(
            (kind.as_str(), source.as_str(), whose),
            ("btrfs", r"/dev/sd\a", &None)
        );
    }

    #[test]
    fn a_file_is_in_the_innermost_mount() {
        let mount = |number: &str, place: &str| Mount {
            number: number.to_owned(),
            place: place.into(),
            path: place.into(),
            kind: String::new(),
            source: String::new(),
            whose: None,
        };
        let mounts = [mount("1:1", "/"), mount("1:2", "/a/b"), mount("1:3", "/a")];
        let number = |file: &str| of(&mounts, Path::new(file)).unwrap().number.as_str();
        assert_eq!(
            (number("/a/b/c"), number("/a/bc"), number("/x")),
            ("1:2", "1:3", "1:1")
        );
    }
}

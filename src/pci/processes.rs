//! Files that processes have open, by `/proc`: of all processes for root, of their own for others.

use std::fs;
use std::path::{Path, PathBuf};

use super::sysfs::names_in;

/// One process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    /// Its directory under `/proc`.
    pub directory: PathBuf,
    pub id: u32,
}

/// All processes below `root`'s `/proc`, in the order of their ids.
pub(crate) fn all(root: &Path) -> Vec<Process> {
    let proc = root.join("proc");
    let names = names_in(&proc).unwrap_or_default();
    let mut all: Vec<_> = names
        .iter()
        .filter_map(|name| {
            Some(Process {
                id: name.parse().ok()?,
                directory: proc.join(name),
            })
        })
        .collect();
    all.sort_by_key(|process| process.id);
    all
}

impl Process {
    /// Name for people: `pinwire (process 412)`.
    pub fn name(&self) -> String {
        let name = fs::read_to_string(self.directory.join("comm")).unwrap_or_default();
        format!("{} (process {})", name.trim(), self.id)
    }

    /// The files that it has open: each descriptor's place in `/proc`, and what that says it is.
    pub fn open_files(&self) -> impl Iterator<Item = (PathBuf, PathBuf)> {
        let directory = self.directory.join("fd");
        let numbers = names_in(&directory).unwrap_or_default().into_iter();
        numbers.filter_map(move |number| {
            let fd = directory.join(number);
            let target = fs::read_link(&fd).ok()?;
            Some((fd, target))
        })
    }
}

/// The first process that has a file open of which `/proc` says `target`.
pub(crate) fn holder(root: &Path, target: &Path) -> Option<Process> {
    let mut all = all(root).into_iter();
    all.find(|process| process.open_files().any(|(_, open)| open == target))
}

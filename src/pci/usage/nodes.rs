//! Processes that have a device node of a function open, or its registers.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};

use super::is_below;
use crate::pci::{Address, Sysfs, processes};

/// A file that a process has open or mapped.
pub struct Node {
    /// Path, by `/proc`.
    path: PathBuf,
    device: Option<Device>,
}

/// A device node.
struct Device {
    is_block: bool,
    /// Major and minor number, `259:1`.
    number: String,
}

impl Node {
    /// That of a file that is open (a link in `/proc/PID/fd`), or of what a mapping names.
    fn of(file: &Path, path: PathBuf) -> Self {
        // Without asking a server that may not answer.
        let status = statx(CWD, file, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE);
        let device = status.ok().and_then(|status| {
            let kind = FileType::from_raw_mode(status.stx_mode.into());
            let is_block = kind == FileType::BlockDevice;
            (is_block || kind == FileType::CharacterDevice).then(|| Device {
                is_block,
                number: format!("{}:{}", status.stx_rdev_major, status.stx_rdev_minor),
            })
        });
        Self { path, device }
    }

    /// Returns whether it is the block device of that number.
    pub fn is_block(&self, number: &str) -> bool {
        let device = self.device.as_ref();
        device.is_some_and(|device| device.is_block && device.number == number)
    }

    /// Returns whether it is a device below one of these functions, or a file of sysfs through which registers are
    /// reached.
    pub fn is_below(&self, sysfs: &Sysfs, functions: &[Address]) -> bool {
        match &self.device {
            Some(device) => {
                let kind = if device.is_block { "block" } else { "char" };
                let link = sysfs.root.join("sys/dev").join(kind).join(&device.number);
                is_below(&link, functions)
            }
            None => {
                let name = self.path.file_name().unwrap_or_default().to_string_lossy();
                let folder = self.path.parent().and_then(Path::file_name);
                let address = folder.and_then(|folder| folder.to_str()?.parse().ok());
                name.starts_with("resource")
                    && address.is_some_and(|address| functions.contains(&address))
            }
        }
    }
}

/// The first process with a node of that kind.
pub fn usage(sysfs: &Sysfs, is_one: impl Fn(&Node) -> bool) -> Option<String> {
    let own = std::process::id();
    let others = processes::all(&sysfs.root).into_iter();
    others
        .filter(|process| process.id != own)
        .find_map(|process| {
            let open = process.open_files().filter(|(_, path)| path.is_absolute());
            let open = open.map(|(file, path)| ("open", Node::of(&file, path)));
            let maps = fs::read_to_string(process.directory.join("maps")).unwrap_or_default();
            let mapped = mapped(&maps).map(|path| ("mapped", Node::of(&path, path.clone())));
            let (how, node) = open.chain(mapped).find(|(_, node)| is_one(node))?;
            Some(format!(
                "{} has {} {how}",
                process.name(),
                node.path.display()
            ))
        })
}

/// Device nodes and files of sysfs that a process has mapped: the sixth word of a line of `/proc/PID/maps`.
fn mapped(maps: &str) -> impl Iterator<Item = PathBuf> {
    let mut paths: Vec<_> = maps
        .lines()
        .filter_map(|line| Some(&line[line.find('/')?..]))
        .filter(|path| path.starts_with("/dev/") || path.starts_with("/sys/"))
        .map(PathBuf::from)
        .collect();
    paths.dedup();
    paths.into_iter()
}

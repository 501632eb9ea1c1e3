//! The file that is looked at: opened so that looking does it no harm, and what is known of it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use super::Args;
use crate::cli::signals::INTERRUPTED;
use crate::paths::pagecache::{Backing, Counts, How, Look, Span, check_cached, look};
use crate::{Error, user_file};

/// A regular file, and the part of it that is asked for.
pub struct Target {
    pub path: PathBuf,
    pub file: File,
    /// Type of its filesystem, as it is mounted: `ext4`; nothing where the system does not say. To be shown, and for
    /// nothing else: what it means for the pages is [`Backing`].
    pub filesystem: Option<String>,
    backing: Backing,
    offset: Option<u64>,
    length: Option<u64>,
    how: How,
}

impl Target {
    pub fn open(args: &Args) -> Result<Self, Error> {
        let path = &args.file;
        let (file, _) = user_file::regular(path, "have pages to show")?;
        check_cached(&file).map_err(|what| Error::File {
            path: path.clone(),
            what,
        })?;
        Ok(Self {
            path: path.clone(),
            backing: Backing::of(&file),
            filesystem: filesystem(&file),
            file,
            offset: args.offset,
            length: args.length,
            how: args.how(),
        })
    }

    /// Returns whether it is only a part of the file.
    pub fn is_part(&self) -> bool {
        self.offset.is_some() || self.length.is_some()
    }

    /// The pages that are asked for, as long as the file is now.
    pub fn span(&self) -> Result<Span, Error> {
        Span::within(&self.file, self.offset.unwrap_or(0), self.length)
    }

    /// Bytes of the file now.
    pub fn bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Returns the backing of its pages, of which these have been counted.
    pub fn backing(&self, total: Counts) -> Backing {
        self.backing.seen(total)
    }

    /// A look at it, in at most `cells` cells, a power of two of pages each.
    pub fn look(&self, cells: usize) -> Result<Look, Error> {
        let span = self.span()?;
        let cell = span.pages.div_ceil(cells as u64).max(1).next_power_of_two();
        look(&self.file, span, cell, self.how, &INTERRUPTED)
    }
}

/// The type of the filesystem, by the mount that the file was opened through: device numbers are shared, and
/// made up for an overlay's files and btrfs's subvolumes.
fn filesystem(file: &File) -> Option<String> {
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let mount = about
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    type_of(&mounts, mount.trim()).map(str::to_owned)
}

/// Number, parent, device, root, place, options, ..., `-`, type, ...
fn type_of<'a>(mounts: &'a str, number: &str) -> Option<&'a str> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        (mount.split(' ').next()? == number).then(|| kind.split(' ').next())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filesystem_is_found_by_the_number_of_its_mount() {
        let mounts = "21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                      22 21 0:5 / /dev/shm rw - tmpfs tmpfs rw,inode64\n";
        assert_eq!(type_of(mounts, "21"), Some("ext4"));
        assert_eq!(type_of(mounts, "22"), Some("tmpfs"));
        assert_eq!(type_of(mounts, "1"), None);
    }
}

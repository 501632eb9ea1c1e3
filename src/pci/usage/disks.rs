//! Users of a function's block devices: filesystems, swap, volumes, RAIDs, loop devices.
//!
//! From the disks below the function all that is made of them is collected, and what is made of that, and so
//! on: partitions, holders (LVM, LUKS, MD, multipath, bcache), devices that name one as a slave, and loop
//! devices over a file or a disk among them. Then each is looked for where the kernel tells what is used. What
//! tells of itself nowhere, the kernel still refuses to give to a second owner: that is asked last.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::mounts::{self, Mount};
use super::{is_below, line_of, nodes};
use crate::pci::sysfs::{names_in, target_name};
use crate::pci::{Address, Sysfs};

/// A block device, as sysfs has it.
#[derive(Debug, Clone)]
struct Block {
    /// The kernel's name, `nvme0n1p3`.
    name: String,
    /// Major and minor number, `259:3`.
    number: String,
    /// Its directory below `/sys/class/block`.
    directory: PathBuf,
    /// Description of its parts, if it is no disk of the function itself: "the RAID md0, made of vda1".
    made: Option<String>,
}

/// The first user found of a disk of the functions.
pub fn usage(sysfs: &Sysfs, functions: &[Address]) -> Option<String> {
    let mounts = mounts::all(&sysfs.root);
    let disks = Disks {
        root: &sysfs.root,
        mounts: &mounts,
        swaps: mounts::swaps(&sysfs.root),
        blocks: Vec::new(),
    };
    let disks = disks.of(functions);
    shared_folder(sysfs, functions, &mounts).or_else(|| disks.usage(sysfs, functions))
}

struct Disks<'a> {
    root: &'a Path,
    mounts: &'a [Mount],
    swaps: Vec<PathBuf>,
    /// The functions' disks, and what is made of them.
    blocks: Vec<Block>,
}

impl Disks<'_> {
    fn of(mut self, functions: &[Address]) -> Self {
        let class = self.root.join("sys/class/block");
        let names = names_in(&class).unwrap_or_default().into_iter();
        let all = names.map(|name| Block {
            number: line_of(&class.join(&name).join("dev")),
            directory: class.join(&name),
            name,
            made: None,
        });
        let (mut found, mut others): (Vec<_>, Vec<_>) =
            all.partition(|block| is_disk_of(&block.directory, functions));
        found.sort_by(|a, b| a.name.cmp(&b.name));
        while let Some(block) = found.pop() {
            // What is made of this one, next; a circle ends, since each is taken once.
            let made = others.extract_if(.., |other| self.is_made_of(other, &block));
            found.extend(made.map(|mut other| {
                other.made = Some(format!("{}, made of {}", other.kind(), block.name));
                other
            }));
            self.blocks.push(block);
        }
        self
    }

    fn is_made_of(&self, other: &Block, block: &Block) -> bool {
        let named = |list: &str, of: &Block, name: &str| {
            let names = names_in(&of.directory.join(list)).unwrap_or_default();
            names.iter().any(|found| found == name)
        };
        let is_partition = || {
            let link = fs::read_link(&other.directory).unwrap_or_default();
            let parent = link.parent().and_then(Path::file_name);
            parent.is_some_and(|parent| *parent == *block.name)
        };
        let backing = [
            other.directory.join("loop/backing_file"),
            other.directory.join("backing_dev"),
        ];
        named("holders", block, &other.name)
            || named("slaves", other, &block.name)
            || is_partition()
            || backing.iter().any(|file| self.is_on(&line_of(file), block))
    }

    /// Returns whether this path names the block device, or a file on it.
    fn is_on(&self, path: &str, block: &Block) -> bool {
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        if !path.starts_with('/') {
            return false;
        }
        let path = Path::new(path);
        self.is_node(path, block)
            || mounts::of(self.mounts, path).is_some_and(|mount| self.is_mount_of(mount, block))
    }

    /// Returns whether this path leads to the block device's node.
    fn is_node(&self, path: &Path, block: &Block) -> bool {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let Ok(path) = path.strip_prefix("/dev") else {
            return false;
        };
        let node = self.root.join("dev").join(path);
        if let Ok(status) = fs::metadata(&node)
            && status.file_type().is_block_device()
        {
            let (major, minor) = (libc::major(status.rdev()), libc::minor(status.rdev()));
            return format!("{major}:{minor}") == block.number;
        }
        // One of another namespace's /dev: by the names that the kernel gives.
        let name = block.node();
        let mapped = line_of(&block.directory.join("dm/name"));
        path == name || !mapped.is_empty() && path == Path::new("mapper").join(mapped)
    }

    fn is_mount_of(&self, mount: &Mount, block: &Block) -> bool {
        mount.number == block.number
            || self.is_node(Path::new(&mount.source), block)
            || self.is_member(mount, block)
    }

    /// Returns whether it is one of the devices of a filesystem that has several (btrfs). The mount names one of
    /// them, which need not be this.
    fn is_member(&self, mount: &Mount, block: &Block) -> bool {
        let filesystems = self.root.join("sys/fs").join(&mount.kind);
        let all = names_in(&filesystems).unwrap_or_default();
        all.iter().any(|filesystem| {
            let names = names_in(&filesystems.join(filesystem).join("devices"));
            let names = names.unwrap_or_default();
            let source = Path::new(&mount.source);
            let class = self.root.join("sys/class/block");
            let is_source = |name: &String| {
                let number = line_of(&class.join(name).join("dev"));
                let (directory, name, made) = (class.join(name), name.clone(), None);
                self.is_node(
                    source,
                    &Block {
                        name,
                        number,
                        directory,
                        made,
                    },
                )
            };
            names.contains(&block.name) && names.iter().any(is_source)
        })
    }

    /// Whatever uses one of them, and in plain words what it has to do with the function.
    fn usage(&self, sysfs: &Sysfs, functions: &[Address]) -> Option<String> {
        let each = |f: &dyn Fn(&Block) -> Option<String>| self.blocks.iter().find_map(f);
        each(&|block| {
            let mount = self
                .mounts
                .iter()
                .find(|mount| self.is_mount_of(mount, block))?;
            Some(format!(
                "{} is mounted from {}",
                mount.name(),
                block.described()
            ))
        })
        .or_else(|| {
            each(&|block| {
                let swap = self
                    .swaps
                    .iter()
                    .find(|swap| self.is_on(&swap.to_string_lossy(), block))?;
                Some(format!(
                    "{} is swap, on {}",
                    swap.display(),
                    block.described()
                ))
            })
        })
        .or_else(|| each(&|block| self.filesystem_on(block)))
        .or_else(|| {
            // A partition is there whether anybody uses it or not.
            let made = |block: &Block| block.made.is_some() && !block.is_partition();
            let highest = self.blocks.iter().rev().find(|block| made(block))?;
            Some(format!("there is {}", highest.described()))
        })
        .or_else(|| {
            nodes::usage(sysfs, |node| {
                self.blocks.iter().any(|block| node.is_block(&block.number))
                    || !self.blocks.is_empty() && node.is_below(sysfs, functions)
            })
        })
        .or_else(|| each(&|block| self.is_claimed(block)))
    }

    /// A filesystem that is mounted where nobody sees it: in a namespace of no process, or one that was
    /// detached while in use.
    fn filesystem_on(&self, block: &Block) -> Option<String> {
        let filesystems = self.root.join("sys/fs");
        let kinds = names_in(&filesystems).unwrap_or_default();
        kinds.iter().find_map(|kind| {
            let folder = filesystems.join(kind);
            let is_it = folder.join(&block.name).exists()
                || names_in(&folder)
                    .unwrap_or_default()
                    .iter()
                    .any(|name| folder.join(name).join("devices").join(&block.name).exists());
            is_it.then(|| {
                let place = block.described();
                format!("a filesystem ({kind}) on {place} is in use, though no mount shows it")
            })
        })
    }

    /// The kernel's exclusive user of it, if there is one: nobody else gets it then (`O_EXCL` of a block device).
    fn is_claimed(&self, block: &Block) -> Option<String> {
        let node = self.root.join("dev").join(block.node());
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_EXCL | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(node);
        let busy = opened.is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy);
        busy.then(|| format!("the kernel has {} in use", block.described()))
    }
}

impl Block {
    /// Its node, below `/dev`.
    fn node(&self) -> PathBuf {
        self.name.replace('!', "/").into()
    }

    /// Kind and name.
    fn kind(&self) -> String {
        let name = &self.name;
        let mapped = line_of(&self.directory.join("dm/name"));
        let uuid = line_of(&self.directory.join("dm/uuid"));
        match uuid.split('-').next() {
            Some("LVM") => format!("the volume {mapped} ({name}, LVM)"),
            Some("CRYPT") => format!("the encrypted volume {mapped} ({name})"),
            Some("mpath") => format!("the multipath device {mapped} ({name})"),
            _ if !mapped.is_empty() => format!("the mapped device {mapped} ({name})"),
            _ if self.directory.join("md").exists() => format!("the RAID {name}"),
            _ if self.directory.join("loop").exists() => format!("the loop device {name}"),
            _ if self.is_partition() => format!("the partition {name}"),
            _ => name.clone(),
        }
    }

    fn described(&self) -> String {
        match &self.made {
            Some(made) => made.clone(),
            None if self.is_partition() => format!("its partition {}", self.name),
            None => format!("its disk {}", self.name),
        }
    }

    fn is_partition(&self) -> bool {
        self.directory.join("partition").exists()
    }
}

/// Returns whether it is below one of the functions. A disk that is reached by several paths (NVMe's own multipath)
/// is below none; beside it are links to its controllers, which are.
fn is_disk_of(link: &Path, functions: &[Address]) -> bool {
    if is_below(link, functions) {
        return true;
    }
    let Ok(directory) = fs::canonicalize(link) else {
        return false;
    };
    let is_path = |folder: &Path| {
        let names = names_in(folder).unwrap_or_default();
        names
            .iter()
            .any(|name| name.starts_with("nvme") && is_below(&folder.join(name), functions))
    };
    // A partition is one step further away.
    directory.ancestors().skip(1).take(2).any(is_path)
}

/// A folder of a host that a virtio device of the functions shares (9p, virtiofs).
fn shared_folder(sysfs: &Sysfs, functions: &[Address], mounts: &[Mount]) -> Option<String> {
    let devices = sysfs.root.join("sys/bus/virtio/devices");
    let names = names_in(&devices).unwrap_or_default();
    let ours = names.iter().map(|name| devices.join(name));
    let ours = ours.filter(|device| is_below(device, functions));
    ours.into_iter().find_map(|device| {
        let tag = line_of(&device.join("mount_tag"));
        let tag = tag.trim_end_matches('\0');
        // Not every kernel tells the tag of a virtiofs.
        let is_virtiofs =
            target_name(&device.join("driver")).is_some_and(|name| name == "virtiofs");
        let mount = mounts.iter().find(|mount| match mount.kind.as_str() {
            "9p" => !tag.is_empty() && mount.source == tag,
            "virtiofs" => is_virtiofs,
            _ => false,
        })?;
        Some(format!("{} is mounted through it", mount.name()))
    })
}

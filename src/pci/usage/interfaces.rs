//! Users of a function's network interfaces, in every network namespace.
//!
//! `/sys/class/net` shows the namespace of whoever mounted sysfs and no other. So each namespace is
//! entered, by a thread of its own, which mounts a sysfs of its own, that nobody else sees.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{is_below, line_of, mounts};
use crate::error::{Error, Result};
use crate::pci::sysfs::names_in;
use crate::pci::{Address, Sysfs, processes};

/// The first use found of an interface of these functions.
pub fn usage(sysfs: &Sysfs, functions: &[Address]) -> Result<Option<String>> {
    let root = &sysfs.root;
    // A tree that a test made has one namespace, and no processes in it.
    if root != Path::new("/") {
        return Ok(look(root, &root.join("sys"), functions)?.1);
    }
    let own = Inode::of(Path::new("/proc/thread-self/ns/net"));
    let namespaces = own.as_ref().map(|own| namespaces(root, own));
    let mut seen = 0;
    // Ours first.
    let (here, elsewhere): (Vec<_>, Vec<_>) = namespaces
        .unwrap_or_default()
        .into_iter()
        .partition(|namespace| Some(&namespace.inode) == own.as_ref());
    let found = match here.first() {
        Some(here) => here.enter(functions),
        None => None,
    };
    let (interfaces, usage) = match found {
        Some(found) => found?,
        // What needs no rights.
        None => look(root, &root.join("sys"), functions)?,
    };
    if usage.is_some() {
        return Ok(usage);
    }
    seen += interfaces.len();
    for namespace in &elsewhere {
        let Some(found) = namespace.enter(functions) else {
            continue;
        };
        if let Some(interface) = found?.0.first() {
            let whose = &namespace.name;
            return Ok(Some(format!("its interface {interface} is in {whose}")));
        }
    }
    // A function's directory says that it has interfaces, whatever namespace they are in.
    let hidden = functions
        .iter()
        .any(|function| has_interfaces(&sysfs.device(*function), 3));
    let usage = "its interface is in a network namespace that cannot be looked into";
    Ok((seen == 0 && hidden).then(|| usage.to_owned()))
}

/// Returns whether the device, or one below it, has a directory of network interfaces.
fn has_interfaces(device: &Path, depth: usize) -> bool {
    let names = names_in(device).unwrap_or_default();
    names.iter().any(|name| {
        let path = device.join(name);
        let is_directory = fs::symlink_metadata(&path).is_ok_and(|status| status.is_dir());
        is_directory && (name == "net" || depth > 0 && has_interfaces(&path, depth - 1))
    })
}

/// The interfaces that a tree of sysfs shows, and what one of them is used for.
fn look(root: &Path, sys: &Path, functions: &[Address]) -> Result<(Vec<String>, Option<String>)> {
    let net = sys.join("class/net");
    let mut interfaces = names_in(&net).unwrap_or_default();
    interfaces.retain(|name| is_below(&net.join(name), functions));
    interfaces.sort();
    for interface in &interfaces {
        if let Some(usage) = usage_of(root, &net, interface)? {
            return Ok((interfaces, Some(usage)));
        }
    }
    Ok((interfaces, None))
}

/// The use of an interface of this thread's namespace: an address, a bridge, bond, VLAN or the like made of it, the
/// default route, or somebody who listens to its frames.
fn usage_of(root: &Path, net: &Path, interface: &str) -> Result<Option<String>> {
    let directory = net.join(interface);
    let flags = line_of(&directory.join("flags"));
    let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or(0);
    let is_up = flags & libc::IFF_UP as u32 != 0;
    let up = if is_up { "is up and " } else { "is " };
    let above = names_in(&directory).unwrap_or_default();
    if let Some(above) = above.iter().find_map(|name| name.strip_prefix("upper_")) {
        return Ok(Some(format!("{interface} {up}part of {above}")));
    }
    let all = if_addrs::get_if_addrs()
        .map_err(|source| Error::io("asking for the interfaces' addresses", source))?;
    let address = all.iter().find(|found| found.name == interface);
    let tables = root.join("proc/thread-self/net");
    let route = match is_default_route(&tables, interface) {
        true => ", and the default route goes there",
        false => "",
    };
    let listener = || listener(root, &tables, &line_of(&directory.join("ifindex")));
    Ok(match address.map(if_addrs::Interface::ip) {
        Some(ip) if is_up => Some(format!("{interface} is up with the address {ip}{route}")),
        Some(ip) => Some(format!("{interface} has the address {ip}")),
        None if !route.is_empty() => Some(format!("{interface} is up{route}")),
        None => listener().map(|who| format!("{who} listens to the frames of {interface}")),
    })
}

fn is_default_route(tables: &Path, interface: &str) -> bool {
    let table = fs::read_to_string(tables.join("route")).unwrap_or_default();
    table.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(interface) && words.next() == Some("00000000")
    })
}

/// Owner of a packet socket on the interface: the table has the index as its fifth word, and the socket's inode as
/// the ninth.
fn listener(root: &Path, tables: &Path, index: &str) -> Option<String> {
    let table = fs::read_to_string(tables.join("packet")).unwrap_or_default();
    let inode = table.lines().skip(1).find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        (words.get(4) == Some(&index)).then(|| words.get(8).copied())?
    })?;
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    let holder = processes::holder(root, &socket);
    Some(holder.map_or("a program".to_owned(), |holder| holder.name()))
}

/// A file's identity, whatever leads there. A namespace is known by nothing else: the text of a link does not do, since
/// it reads `net:[4026531840]` only where it leads past all mounts, and is the place of the mount otherwise.
#[derive(PartialEq)]
struct Inode {
    /// Major and minor number of the filesystem; one (nsfs) has all namespaces.
    device: (u32, u32),
    number: u64,
}

impl Inode {
    fn of(file: &Path) -> Option<Self> {
        // Without asking a server that may not answer.
        let status = statx(CWD, file, AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
        Some(Self {
            device: (status.stx_dev_major, status.stx_dev_minor),
            number: status.stx_ino,
        })
    }
}

/// A network namespace, or one of another kind, which a thread does not enter as a network's.
struct Namespace {
    inode: Inode,
    file: PathBuf,
    name: String,
}

impl Namespace {
    /// The function's interfaces in it, and what one is used for; none where it cannot be entered.
    fn enter(&self, functions: &[Address]) -> Option<Result<(Vec<String>, Option<String>)>> {
        let inside = || {
            let namespace = File::open(&self.file).ok()?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).ok()?;
            let tree = mount().ok()?;
            let sys = format!("/proc/self/fd/{}", tree.as_raw_fd());
            Some(look(Path::new("/"), Path::new(&sys), functions))
        };
        // The thread's namespace goes with it.
        std::thread::scope(|scope| scope.spawn(inside).join()).ok()?
    }
}

/// A sysfs that shows this thread's network namespace, mounted nowhere.
fn mount() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
}

/// All network namespaces that something leads to: a name that `ip netns` gave, a thread that is in it, a
/// descriptor that is open, a file that it is mounted on, in whichever mount namespace. `own` is one of them.
fn namespaces(root: &Path, own: &Inode) -> Vec<Namespace> {
    let mut all: Vec<Namespace> = Vec::new();
    let mut add = |file: PathBuf, name: &dyn Fn() -> String| {
        let Some(inode) = Inode::of(&file) else {
            return;
        };
        if inode.device == own.device && all.iter().all(|known| known.inode != inode) {
            let name = name();
            all.push(Namespace { inode, file, name });
        }
    };
    let processes = processes::all(root);
    let named = root.join("run/netns");
    for name in names_in(&named).unwrap_or_default() {
        add(named.join(&name), &|| {
            format!("the network namespace {name}")
        });
    }
    for process in &processes {
        let tasks = process.directory.join("task");
        let threads = names_in(&tasks).unwrap_or_default();
        let threads = threads.iter().map(|thread| tasks.join(thread));
        for directory in std::iter::once(process.directory.clone()).chain(threads) {
            add(directory.join("ns/net"), &|| {
                format!("the network namespace of {}", process.name())
            });
        }
    }
    let mounts = mounts::all(root);
    for mount in mounts.iter().filter(|mount| mount.kind == "nsfs") {
        add(mount.path.clone(), &|| {
            format!("the network namespace {}", mount.name())
        });
    }
    for process in &processes {
        for (file, _) in process.open_files() {
            add(file, &|| {
                format!("a network namespace that {} has open", process.name())
            });
        }
    }
    all
}

//! The host's end of a cable, checked before QEMU takes it: QEMU shares a UDP port with whoever has it, and makes a
//! tap that does not exist.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{AddressFamily, SocketType, netdevice, sockopt};

use super::spec::{Peer, QtestSpec};
use crate::error::{Error, Result};
use crate::pci::processes;

/// A UDP port of 127.0.0.1 that nobody else has, for a QEMU to receive on.
///
/// QEMU lets others have its port, too (SO_REUSEADDR), and the kernel gives each datagram to one of them
/// alone. So the port is bound here first, by a socket that shares it with nobody: that fails where
/// anybody has it, another QEMU included. Only then is it shared, for the QEMU that is started next; and
/// it is let go once that one has it. The port is never free in between, so of two that begin at the
/// same moment one fails.
#[derive(Debug)]
pub struct UdpPort(UdpSocket);

impl UdpPort {
    /// Takes the port.
    ///
    /// # Errors
    /// [`Error::Qemu`] where somebody has it.
    pub fn take(port: u16) -> Result<Self> {
        let what = || format!("UDP port {port} of 127.0.0.1");
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
            if error.kind() != io::ErrorKind::AddrInUse {
                return Error::io(format!("binding {}", what()), error);
            }
            let owner = owner(Path::new("/"), port);
            let owner = owner.map(|name| format!(" by {name}")).unwrap_or_default();
            Error::Qemu {
                what: format!("{} is in use{owner}", what()),
                remedy:
                    "frames would go to one of the two alone: end that first, or take another port"
                        .to_owned(),
            }
        })?;
        sockopt::set_socket_reuseaddr(&socket, true)
            .map_err(|error| Error::io(format!("sharing {}", what()), error.into()))?;
        Ok(Self(socket))
    }

    /// Keeps the port for the program that this process is replaced with, as long as that runs.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn keep(&self) -> Result<()> {
        rustix::io::fcntl_setfd(&self.0, rustix::io::FdFlags::empty())
            .map_err(|error| Error::io("keeping a socket open", error.into()))
    }
}

/// Owner of the port, if we may see it.
fn owner(root: &Path, port: u16) -> Option<String> {
    let tables = ["udp", "udp6"]
        .map(|table| fs::read_to_string(root.join("proc/net").join(table)).unwrap_or_default());
    // Of this address, or of all.
    let is_ours = |place: &str| {
        place.split_once(':').is_some_and(|(address, found)| {
            let is_ours = address == "0100007F" || address.bytes().all(|digit| digit == b'0');
            is_ours && found == format!("{port:04X}")
        })
    };
    let inode = tables
        .iter()
        .flat_map(|table| table.lines())
        .find_map(|line| {
            let mut words = line.split_whitespace();
            is_ours(words.nth(1)?).then(|| words.nth(7))?
        })?;
    let socket = format!("socket:[{inode}]");
    Some(processes::holder(root, Path::new(&socket))?.name())
}

/// The host's ends of a QEMU's cables, held from before it starts until it has them.
#[derive(Debug)]
pub(super) struct Cables {
    _ports: Vec<UdpPort>,
    taps: Vec<(String, u32)>,
    socket: OwnedFd,
}

impl Cables {
    /// Takes the ports, and looks whether the taps are there.
    pub fn take(specs: &[&QtestSpec]) -> Result<Self> {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)
            .map_err(|error| Error::io("making a socket", error.into()))?;
        let (mut ports, mut taps) = (Vec::new(), Vec::new());
        for spec in specs {
            match &spec.peer {
                Peer::Udp { local, .. } => ports.push(UdpPort::take(*local)?),
                Peer::Tap(name) => taps.push((name.clone(), tap(socket.as_fd(), name)?)),
                _ => {}
            }
        }
        Ok(Self {
            _ports: ports,
            taps,
            socket,
        })
    }

    /// QEMU has them now.
    ///
    /// # Errors
    /// If a tap went just before, so that QEMU has made one, which ends with it.
    pub fn taken(self) -> Result<()> {
        for (name, index) in &self.taps {
            if tap(self.socket.as_fd(), name)? != *index {
                return Err(no_tap(name));
            }
        }
        Ok(())
    }
}

/// The index of the tap `name`, which must be there.
fn tap(socket: BorrowedFd<'_>, name: &str) -> Result<u32> {
    let index = netdevice::name_to_index(socket, name).map_err(|_| no_tap(name))?;
    // Of another kind, as far as that can be seen: sysfs may show another network namespace.
    let interface = Path::new("/sys/class/net").join(OsStr::new(name));
    let line = |file| fs::read_to_string(interface.join(file)).unwrap_or_default();
    let is_shown = line("ifindex").trim().parse() == Ok(index);
    let flags = u32::from_str_radix(line("tun_flags").trim().trim_start_matches("0x"), 16);
    let is_tap = flags.is_ok_and(|flags| flags & libc::IFF_TAP as u32 != 0);
    match is_tap || !is_shown {
        true => Ok(index),
        false => Err(Error::Qemu {
            what: format!("net=tap:{name}: {name} is an interface, but no tap"),
            remedy: "make one of another name: sudo ip tuntap add tap0 mode tap".to_owned(),
        }),
    }
}

fn no_tap(name: &str) -> Error {
    Error::Qemu {
        what: format!("net=tap:{name}: there is no interface {name}"),
        remedy: format!("make it first: sudo ip tuntap add {name} mode tap"),
    }
}

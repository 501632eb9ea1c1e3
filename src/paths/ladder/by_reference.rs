//! A probe of whether the kernel sends a file's pages in datagrams, or copies of them. It depends on its version
//! (Debian's 6.1 copies, 6.18 does not) and nothing tells, so it is tried: what is written into the file after it was
//! sent arrives, or does not.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create, sendfile};

/// Once a program, over loopback. Where it cannot be tried: no.
pub(super) static DATAGRAMS: LazyLock<bool> = LazyLock::new(|| attempt().unwrap_or(false));

/// Tries it now, for [`Rung::missing`](super::Rung::missing), which is asked before anything is counted.
pub(super) fn tried() -> Option<String> {
    LazyLock::force(&DATAGRAMS);
    None
}

fn attempt() -> std::io::Result<bool> {
    let file = File::from(memfd_create("by_reference", MemfdFlags::CLOEXEC)?);
    file.write_all_at(b"before", 0)?;
    let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    near.connect(far.local_addr()?)?;
    sendfile(&near, &file, Some(&mut 0), 6)?;
    file.write_all_at(b"after!", 0)?;
    far.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut arrived = [0; 6];
    far.recv(&mut arrived)?;
    Ok(&arrived == b"after!")
}

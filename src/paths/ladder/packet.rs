//! AF_PACKET sockets: whole frames, out of and into one interface of the kernel's.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketFlags, SocketType, socket_with};

/// One on the interface `index`, which is given the frames of `ethertype`; of 0, none.
///
/// # Errors
/// Missing privilege (CAP_NET_RAW), or no such interface.
pub fn packet_socket(index: u32, ethertype: u16) -> io::Result<OwnedFd> {
    let protocol = ethertype.to_be();
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        RawProtocol::new(protocol.into()).map(Protocol::from_raw),
    )?;
    // SAFETY: all zeros is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index as i32;
    // SAFETY: an address of the length given.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as u32,
        )
    };
    match bound {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

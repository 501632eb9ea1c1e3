//! The far end of the cable, which is not our code: a socket to QEMU, or the kernel's driver on a
//! twin card.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// Whole Ethernet frames, without the frame check sequence.
pub trait Wire {
    fn send(&self, frame: &[u8]);
    /// The next frame within `bound`.
    fn recv(&self, bound: Duration) -> Option<Vec<u8>>;
    /// Does it show VLAN tags as they were on the wire?
    fn shows_vlan(&self) -> bool;

    /// The next frame that is one of ours (the kernel says things of its own on a twin card).
    fn recv_ours(&self) -> Vec<u8> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            match self.recv(Duration::from_secs(1)) {
                Some(frame) if frame[6..12] == super::OUR_MAC => return frame,
                _ => {}
            }
        }
        panic!("no frame came out within 10 s");
    }
}

impl Wire for UnixDatagram {
    fn send(&self, frame: &[u8]) {
        UnixDatagram::send(self, frame).expect("QEMU has the other end");
    }

    fn recv(&self, bound: Duration) -> Option<Vec<u8>> {
        self.set_read_timeout(Some(bound)).unwrap();
        let mut frame = vec![0; 70_000];
        let len = UnixDatagram::recv(self, &mut frame).ok()?;
        frame.truncate(len);
        Some(frame)
    }

    fn shows_vlan(&self) -> bool {
        true
    }
}

/// A raw socket on a network interface.
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// On `interface`, which must be up.
    pub fn open(interface: &str) -> io::Result<Self> {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        let name = std::ffi::CString::new(interface)?;
        // SAFETY: a string that ends in zero.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        // SAFETY: plain numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, protocol.into()) };
        if index == 0 || fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else has it.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: all zeros is an address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index as i32;
        let len = size_of_val(&address) as u32;
        // SAFETY: an address of that length.
        if unsafe { libc::bind(fd, (&raw const address).cast(), len) } != 0 {
            return Err(io::Error::last_os_error());
        }
        socket.without_gro(interface)?;
        Ok(socket)
    }

    /// Sends `frame`, or not where the queue is full.
    #[allow(dead_code, reason = "not every test floods")]
    pub fn try_send(&self, frame: &[u8]) {
        // SAFETY: a buffer of that length.
        let _ = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
    }

    /// Frames as they came in: the kernel would put TCP segments together, and not sum them again.
    fn without_gro(&self, interface: &str) -> io::Result<()> {
        const ETHTOOL_SGRO: u32 = 0x2c;
        let mut off = [ETHTOOL_SGRO, 0];
        // SAFETY: all zeros is a request.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(15)) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut off).cast();
        // SAFETY: a request that points to a command and its value.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Wire for PacketSocket {
    fn send(&self, frame: &[u8]) {
        // SAFETY: a buffer of that length.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    fn recv(&self, bound: Duration) -> Option<Vec<u8>> {
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid `pollfd`.
        if unsafe { libc::poll(&raw mut poll, 1, bound.as_millis() as i32) } != 1 {
            return None;
        }
        let mut frame = vec![0; 70_000];
        // SAFETY: a buffer of that length.
        let len = unsafe { libc::recv(poll.fd, frame.as_mut_ptr().cast(), frame.len(), 0) };
        frame.truncate(usize::try_from(len).ok()?);
        Some(frame)
    }

    /// The kernel takes the tag out before the socket sees the frame.
    fn shows_vlan(&self) -> bool {
        false
    }
}

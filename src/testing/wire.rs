//! The far end of a card's cable, which is not its driver's code: a socket to QEMU, or the kernel's driver on
//! another card.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// Bytes of a frame that nothing is longer than.
const LONGEST: usize = 70_000;
/// Bytes of the Ethernet header.
const ETHERNET: usize = 14;

/// The far end of a card's cable: whole Ethernet frames, without the frame check sequence.
pub trait Wire {
    /// Sends `frame` to the card.
    ///
    /// # Panics
    /// If it cannot be sent.
    fn send(&self, frame: &[u8]);

    /// Sends `frame`, or not where nobody takes it just now.
    fn try_send(&self, frame: &[u8]);

    /// Receives the next frame that the card sends within `bound`.
    fn recv(&self, bound: Duration) -> Option<Vec<u8>>;

    /// Bytes of the longest frame that it takes and shows.
    fn longest(&self) -> usize;

    /// Receives the next frame from [`OUR_MAC`](super::OUR_MAC): the kernel says things of its own on another card.
    ///
    /// # Panics
    /// If none comes within 10 s.
    fn recv_ours(&self) -> Vec<u8> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            match self.recv(Duration::from_secs(1)) {
                Some(frame) if frame[6..12] == super::OUR_MAC.0 => return frame,
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

    fn try_send(&self, frame: &[u8]) {
        let _ = UnixDatagram::send(self, frame);
    }

    fn recv(&self, bound: Duration) -> Option<Vec<u8>> {
        self.set_read_timeout(Some(bound)).unwrap();
        let mut frame = vec![0; LONGEST];
        let len = UnixDatagram::recv(self, &mut frame).ok()?;
        frame.truncate(len);
        Some(frame)
    }

    fn longest(&self) -> usize {
        LONGEST
    }
}

/// A raw socket on a network interface, which shows VLAN tags as they were on the wire.
pub struct PacketSocket {
    fd: OwnedFd,
    longest: usize,
}

impl PacketSocket {
    /// On `interface`, which must be up.
    ///
    /// # Errors
    /// If there is no such interface, or this process may not listen on it.
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
        let mut socket = Self {
            // SAFETY: just opened, and nobody else has it.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            longest: 0,
        };
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
        socket.longest = ETHERNET + socket.mtu(interface)?;
        socket.as_on_the_wire(interface)?;
        socket.with_tags()?;
        Ok(socket)
    }

    /// The kernel takes a VLAN tag out of a frame, and tells it beside.
    fn with_tags(&self) -> io::Result<()> {
        let on = 1i32;
        // SAFETY: a number of that length.
        let set = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_AUXDATA,
                (&raw const on).cast(),
                size_of_val(&on) as u32,
            )
        };
        match set {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// A frame, and its VLAN tag where it had one.
    fn recv_untagged(&self) -> io::Result<(Vec<u8>, Option<[u8; 4]>)> {
        let mut frame = vec![0; LONGEST];
        let mut beside = [0u64; 16];
        let mut part = libc::iovec {
            iov_base: frame.as_mut_ptr().cast(),
            iov_len: frame.len(),
        };
        // SAFETY: all zeros is a message of nothing.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = beside.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&beside);
        // SAFETY: buffers of these lengths.
        let len = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, 0) };
        frame.truncate(usize::try_from(len).map_err(|_| io::Error::last_os_error())?);
        // SAFETY: the kernel filled in the message.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
        let header = header.expect("PACKET_AUXDATA is on");
        assert_eq!(header.cmsg_type, libc::PACKET_AUXDATA);
        // SAFETY: what PACKET_AUXDATA carries.
        let told: libc::tpacket_auxdata = unsafe {
            libc::CMSG_DATA(header)
                .cast::<libc::tpacket_auxdata>()
                .read_unaligned()
        };
        let tag = (told.tp_status & libc::TP_STATUS_VLAN_VALID != 0).then(|| {
            let [a, b] = told.tp_vlan_tpid.to_be_bytes();
            let [c, d] = told.tp_vlan_tci.to_be_bytes();
            [a, b, c, d]
        });
        Ok((frame, tag))
    }

    /// Frames as they came in: the kernel would put TCP segments together, and not sum them again; and
    /// its driver of the e1000, where the card takes tags out, forgets their priority.
    fn as_on_the_wire(&self, interface: &str) -> io::Result<()> {
        const SGRO: u32 = 0x2c;
        const GFLAGS: u32 = 0x25;
        const SFLAGS: u32 = 0x26;
        const RXVLAN: u32 = 1 << 8;
        self.ethtool(interface, SGRO, 0)?;
        if self.driver(interface)?.starts_with(b"e1000\0") {
            let flags = self.ethtool(interface, GFLAGS, 0)?;
            self.ethtool(interface, SFLAGS, flags & !RXVLAN)?;
        }
        Ok(())
    }

    fn driver(&self, interface: &str) -> io::Result<[u8; 32]> {
        const GDRVINFO: u32 = 3;
        // struct ethtool_drvinfo: the command, then the driver's name.
        let mut info = [0u8; 196];
        info[..4].copy_from_slice(&GDRVINFO.to_ne_bytes());
        let data = info.as_mut_ptr().cast();
        self.ask(interface, libc::SIOCETHTOOL, |union| union.ifru_data = data)?;
        Ok(info[4..36].try_into().expect("32 bytes"))
    }

    /// As `ethtool` does: a command of a number, and the number that it leaves.
    fn ethtool(&self, interface: &str, command: u32, value: u32) -> io::Result<u32> {
        let mut both = [command, value];
        let data = both.as_mut_ptr().cast();
        self.ask(interface, libc::SIOCETHTOOL, |union| union.ifru_data = data)?;
        Ok(both[1])
    }

    fn mtu(&self, interface: &str) -> io::Result<usize> {
        let answer = self.ask(interface, libc::SIOCGIFMTU, |_| {})?;
        // SAFETY: the kernel left an MTU there.
        Ok(unsafe { answer.ifru_mtu } as usize)
    }

    /// Asks the kernel about an interface of this network namespace (/sys may show another's).
    fn ask(
        &self,
        interface: &str,
        what: libc::c_ulong,
        with: impl FnOnce(&mut libc::__c_anonymous_ifr_ifru),
    ) -> io::Result<libc::__c_anonymous_ifr_ifru> {
        // SAFETY: all zeros is a request.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(15)) {
            *to = from as libc::c_char;
        }
        with(&mut request.ifr_ifru);
        // SAFETY: what the request points to, if anything, lives in the caller and is long enough.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), what, &raw mut request) } {
            0 => Ok(request.ifr_ifru),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Wire for PacketSocket {
    fn send(&self, frame: &[u8]) {
        // SAFETY: a buffer of that length.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    fn try_send(&self, frame: &[u8]) {
        // SAFETY: a buffer of that length.
        let _ = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
    }

    fn recv(&self, bound: Duration) -> Option<Vec<u8>> {
        let mut poll = libc::pollfd {
            fd: self.fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid `pollfd`.
        if unsafe { libc::poll(&raw mut poll, 1, bound.as_millis() as i32) } != 1 {
            return None;
        }
        let (mut frame, tag) = self.recv_untagged().ok()?;
        if let Some(tag) = tag {
            frame.splice(12..12, tag);
        }
        Some(frame)
    }

    fn longest(&self) -> usize {
        self.longest
    }
}

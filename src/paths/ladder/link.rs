//! Facts about the kernel's interface that our own frames need: its number, its Ethernet address, and that of the
//! next hop.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;

use super::Interface;
use crate::net::UdpFlow;
use crate::nic::Mac;

/// Longest wait for the next hop's ARP reply, and the interval at which it is asked for.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(1);
const NAP: Duration = Duration::from_millis(5);

impl Interface {
    /// The interface `name`, for datagrams from `source` to `destination`. Has the kernel ask who is next
    /// on the way, by a datagram to port 9 there.
    ///
    /// # Errors
    /// There is no such interface; nobody answers; [`io::ErrorKind::Interrupted`] where `stop` has become
    /// true; [`io::ErrorKind::Unsupported`] where it is lo and the addresses are 127.0.0.0/8, which the
    /// kernel takes from nobody but itself.
    pub fn of(
        name: &str,
        source: SocketAddrV4,
        destination: SocketAddrV4,
        stop: &AtomicBool,
    ) -> io::Result<Self> {
        let links = getifaddrs()?.filter(|link| link.interface_name == name);
        let mut links = links.filter_map(|link| link.address?.as_link_addr().copied());
        let link = links.next().ok_or_else(|| {
            let why = format!("{name}: there is no such network interface: see ip link");
            io::Error::new(io::ErrorKind::NotFound, why)
        })?;
        let (source_mac, destination_mac) = if link.hatype() == libc::ARPHRD_LOOPBACK {
            let own = [source, destination]
                .into_iter()
                .find(|end| end.ip().is_loopback());
            if let Some(own) = own {
                let why = format!("{name} takes no frames with {} in them", own.ip());
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
            (Mac::default(), Mac::default())
        } else {
            let ours = link.addr().ok_or(io::ErrorKind::Unsupported)?;
            (
                Mac(ours),
                neighbour(name, *source.ip(), *destination.ip(), stop)?,
            )
        };
        let index = u32::try_from(link.ifindex()).map_err(io::Error::other)?;
        let flow = UdpFlow {
            source_mac,
            destination_mac,
            source,
            destination,
        };
        Ok(Self { index, flow })
    }
}

/// The Ethernet address of who is next on the way to `to`.
fn neighbour(name: &str, from: Ipv4Addr, to: Ipv4Addr, stop: &AtomicBool) -> io::Result<Mac> {
    let next = next_hop(&fs::read_to_string("/proc/net/route")?, name, to);
    let (begin, mut asked) = (Instant::now(), None::<Instant>);
    loop {
        if let Some(mac) = known(&fs::read_to_string("/proc/net/arp")?, name, next) {
            return Ok(mac);
        }
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if begin.elapsed() > PATIENCE {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{next} on {name} does not say its Ethernet address: is it there?"),
            ));
        }
        if asked.is_none_or(|asked| asked.elapsed() > AGAIN) {
            // Port 9 throws away what comes; that nobody listens there is as good.
            let _ = UdpSocket::bind((from, 0)).and_then(|socket| socket.send_to(&[0], (next, 9)));
            asked = Some(Instant::now());
        }
        std::thread::sleep(NAP);
    }
}

/// The router on the way to `to` by the closest route in `table` (/proc/net/route), or `to` itself.
fn next_hop(table: &str, name: &str, to: Ipv4Addr) -> Ipv4Addr {
    let address = |hex: &str| {
        u32::from_str_radix(hex, 16)
            .ok()
            .map(|word| u32::from_be_bytes(word.to_ne_bytes()))
    };
    let routes = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [on, network, router, _, _, _, _, mask, ..] = words[..] else {
            return None;
        };
        let (network, router, mask) = (address(network)?, address(router)?, address(mask)?);
        (on == name && to.to_bits() & mask == network).then_some((mask, router))
    });
    match routes.max_by_key(|(mask, _)| *mask) {
        Some((_, router)) if router != 0 => Ipv4Addr::from_bits(router),
        _ => to,
    }
}

/// Returns the Ethernet address of `address` by `table` (/proc/net/arp), whose lines are: address, type, flags,
/// Ethernet address, mask, interface.
fn known(table: &str, name: &str, address: Ipv4Addr) -> Option<Mac> {
    let address = address.to_string();
    table
        .lines()
        .find_map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words[..] {
                [ip, _, _, mac, _, on] if ip == address && on == name => mac.parse().ok(),
                _ => None,
            }
        })
        .filter(|mac| *mac != Mac::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_route_says_who_is_next() {
        let table = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
";
        let next = |name, to: [u8; 4]| next_hop(table, name, to.into()).octets();
        assert_eq!(next("eth0", [10, 0, 2, 7]), [10, 0, 2, 7]);
        assert_eq!(next("eth0", [10, 0, 3, 7]), [10, 0, 2, 2]);
        assert_eq!(next("eth1", [10, 0, 2, 7]), [192, 168, 0, 1]);
        assert_eq!(next("eth2", [10, 0, 2, 7]), [10, 0, 2, 7]);
    }

    #[test]
    fn who_was_asked_for_but_did_not_answer_is_unknown() {
        let table = "\
IP address       HW type     Flags       HW address            Mask     Device
10.0.2.2         0x1         0x2         52:55:0a:00:02:02     *        eth0
10.0.2.3         0x1         0x0         00:00:00:00:00:00     *        eth0
";
        let known = |name, last| known(table, name, [10, 0, 2, last].into());
        assert_eq!(known("eth0", 2), Some(Mac([0x52, 0x55, 0x0a, 0, 2, 2])));
        assert_eq!(known("eth1", 2), None);
        assert_eq!(known("eth0", 3), None);
        assert_eq!(known("eth0", 4), None);
    }
}

//! What a kernel says that does not give us sockets or rings for frames of our own: strace says it.

use std::net::{Ipv4Addr, SocketAddrV4};

use pinwire::net::UdpFlow;
use pinwire::nic::Mac;
use pinwire::paths::ladder::{Interface, Job, RUNGS, Sink, Stopped, Terms, Why};

use super::common::{again, has_strace};
use super::far::file_of;
use super::{GO_ON, PROGRESS};

const INSIDE: &str = "PINWIRE_REFUSED";

/// What the rung `name` says that frames for lo are asked of.
fn asked(name: &str) -> Stopped {
    let rung = RUNGS.iter().find(|rung| rung.name == name).unwrap();
    let end = |last| SocketAddrV4::new(Ipv4Addr::new(10, 78, 0, last), 7000);
    let flow = UdpFlow {
        source_mac: Mac::default(),
        destination_mac: Mac::default(),
        source: end(7),
        destination: end(1),
    };
    let terms = Terms {
        len: 1,
        most: 1472,
        stop: &GO_ON,
        progress: &PROGRESS,
    };
    let mut job = Job {
        file: &file_of(1).0,
        sink: Sink::elsewhere(None, terms),
        from: None,
        into: None,
        interface: Some(Interface { index: 1, flow }),
        card: None,
    };
    (rung.run)(&mut job).unwrap_err()
}

/// The rung `name`, in a process where the call that `meddling` names fails: `CALL:error=ERROR:when=PLACE`.
fn refused(name: &'static str, meddling: &str, words: &str) {
    // Who is traced cannot trace.
    if std::env::var_os(INSIDE).is_none() && !has_strace() {
        return;
    }
    let strace = format!(
        "ip link set lo up; set -- strace -f -qqq -o /dev/null -e inject={meddling} \"$@\""
    );
    if !again(&["--net"], &strace, INSIDE) {
        return;
    }
    // Calls are counted by thread.
    let stopped = std::thread::spawn(|| asked(name)).join().unwrap();
    assert!(matches!(stopped.why, Why::Missing(_)), "{stopped}");
    let told = stopped.to_string();
    assert!(told.contains(words) && told.contains('\n'), "{told}");
}

#[test]
fn no_af_xdp_sockets_are_missing() {
    refused(
        "AF_XDP, copy mode",
        "socket:error=EAFNOSUPPORT:when=1",
        "CONFIG_XDP_SOCKETS",
    );
}

#[test]
fn no_umem_is_missing() {
    refused(
        "AF_XDP, copy mode",
        "setsockopt:error=ENOPROTOOPT:when=1",
        "Linux 4.18",
    );
}

#[test]
fn an_interface_without_af_xdp_is_missing() {
    refused(
        "AF_XDP, copy mode",
        "bind:error=EOPNOTSUPP:when=1",
        "this interface",
    );
}

#[test]
fn no_right_to_af_xdp_is_missing() {
    refused(
        "AF_XDP, copy mode",
        "bind:error=EPERM:when=1",
        "CAP_NET_RAW",
    );
}

#[test]
fn no_af_packet_sockets_are_missing() {
    refused(
        "AF_PACKET TX_RING",
        "socket:error=EAFNOSUPPORT:when=1",
        "af_packet",
    );
}

#[test]
fn no_right_to_af_packet_is_missing() {
    refused(
        "AF_PACKET TX_RING",
        "socket:error=EPERM:when=1",
        "CAP_NET_RAW",
    );
}

#[test]
fn a_packet_tx_ring_that_is_refused_is_missing() {
    // After PACKET_VERSION.
    refused(
        "AF_PACKET TX_RING",
        "setsockopt:error=ENOPROTOOPT:when=2",
        "no PACKET_TX_RING",
    );
}

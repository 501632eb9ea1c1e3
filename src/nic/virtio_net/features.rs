//! virtio-net's own feature bits, §5.1.3, and which of them the driver takes.

use super::VirtioNetConfig;
use crate::inspect::FeatureView;
use crate::nic::{NicConfig, OffloadFlags};
use crate::virtio::features::{self as reserved, Feature};

/// Declares feature bits: a constant each, and the list of them.
macro_rules! bits {
    ($($(#[doc = $what:literal])+ $name:ident = $bit:literal;)*) => {
        $($(#[doc = $what])+ pub const $name: u64 = 1 << $bit;)*

        /// virtio-net's own feature bits.
        pub const NET: &[Feature] = &[$(Feature {
            bit: $bit,
            name: stringify!($name),
            what: concat!($($what),+).trim_ascii(),
        },)*];
    };
}

bits! {
    /// the device completes TCP and UDP checksums
    CSUM = 0;
    /// the driver takes frames whose checksum is yet to be made
    GUEST_CSUM = 1;
    /// the driver can turn its offloads on and off
    CTRL_GUEST_OFFLOADS = 2;
    /// the device says how long a packet may be
    MTU = 3;
    /// the device has an Ethernet address
    MAC = 5;
    /// the driver takes TCP over IPv4 uncut
    GUEST_TSO4 = 7;
    /// the driver takes TCP over IPv6 uncut
    GUEST_TSO6 = 8;
    /// the driver takes uncut TCP with ECN
    GUEST_ECN = 9;
    /// the driver takes UDP unfragmented
    GUEST_UFO = 10;
    /// the device cuts TCP over IPv4
    HOST_TSO4 = 11;
    /// the device cuts TCP over IPv6
    HOST_TSO6 = 12;
    /// the device cuts TCP with ECN
    HOST_ECN = 13;
    /// the device fragments UDP
    HOST_UFO = 14;
    /// a frame may come in over several buffers
    MRG_RXBUF = 15;
    /// the device tells of the link
    STATUS = 16;
    /// there is a control queue
    CTRL_VQ = 17;
    /// by control: whose frames come in
    CTRL_RX = 18;
    /// by control: which VLANs come in
    CTRL_VLAN = 19;
    /// by control: whose frames do not come in
    CTRL_RX_EXTRA = 20;
    /// the driver tells the network where the card is now
    GUEST_ANNOUNCE = 21;
    /// several queue pairs
    MQ = 22;
    /// by control: the Ethernet address
    CTRL_MAC_ADDR = 23;
    /// hashes look inside tunnels
    HASH_TUNNEL = 51;
    /// interrupts of one queue can be held back
    VQ_NOTF_COAL = 52;
    /// interrupts can be held back
    NOTF_COAL = 53;
    /// the driver takes UDP over IPv4 uncut
    GUEST_USO4 = 54;
    /// the driver takes UDP over IPv6 uncut
    GUEST_USO6 = 55;
    /// the device cuts UDP into datagrams
    HOST_USO = 56;
    /// the device tells each frame's hash
    HASH_REPORT = 57;
    /// the driver says exactly how long the headers are
    GUEST_HDRLEN = 59;
    /// the device spreads frames over the queues by hash
    RSS = 60;
    /// the device puts TCP segments together, and says how many
    RSC_EXT = 61;
    /// the card stands in for another one
    STANDBY = 62;
    /// the device says how fast the link is
    SPEED_DUPLEX = 63;
}

/// Taken wherever they are offered.
const ALWAYS: u64 = reserved::INDIRECT_DESC
    | reserved::EVENT_IDX
    | reserved::VERSION_1
    | reserved::ACCESS_PLATFORM
    | reserved::RING_PACKED
    | reserved::IN_ORDER
    | reserved::ORDER_PLATFORM
    | reserved::NOTIFICATION_DATA
    | reserved::RING_RESET
    | CSUM
    | MTU
    | MAC
    | HOST_TSO4
    | HOST_TSO6
    | HOST_USO
    | MRG_RXBUF
    | STATUS
    | CTRL_VQ
    | CTRL_RX
    | GUEST_ANNOUNCE
    | GUEST_HDRLEN
    | SPEED_DUPLEX;
/// Taken with [`NicConfig::rx_offload`].
const RX_OFFLOAD: u64 = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | GUEST_USO4 | GUEST_USO6;
/// Taken for several queue pairs.
const QUEUES: u64 = MQ | RSS;

/// Features that each bit needs, §5.1.3.1: without all of them, it cannot be taken.
const NEEDS: &[(u64, u64)] = &[
    (GUEST_TSO4, GUEST_CSUM),
    (GUEST_TSO6, GUEST_CSUM),
    (GUEST_USO4, GUEST_CSUM),
    (GUEST_USO6, GUEST_CSUM),
    (HOST_TSO4, CSUM),
    (HOST_TSO6, CSUM),
    (HOST_USO, CSUM),
    (CTRL_RX, CTRL_VQ),
    (GUEST_ANNOUNCE, CTRL_VQ | STATUS),
    (CTRL_VLAN, CTRL_VQ),
    (MQ, CTRL_VQ),
    (RSS, CTRL_VQ),
];

/// Returns the features that the driver takes of those offered.
pub(super) fn choose(offered: u64, config: &NicConfig) -> u64 {
    let mut wanted = ALWAYS;
    if config.rx_offload {
        wanted |= RX_OFFLOAD;
    }
    if config.queues > 1 {
        wanted |= QUEUES;
    }
    if config.vlan_filter {
        wanted |= CTRL_VLAN;
    }
    let mut negotiated = offered & wanted & !config.of::<VirtioNetConfig>().refuse_features;
    for (bit, needed) in NEEDS {
        if negotiated & needed != *needed {
            negotiated &= !bit;
        }
    }
    if negotiated & (GUEST_TSO4 | GUEST_TSO6) == 0 {
        negotiated &= !GUEST_ECN;
    }
    negotiated
}

/// Returns the offloads that the card can do to a frame as it leaves. virtio has no IPv4 header checksum: the driver
/// makes that, in the 20 bytes of the header.
pub(super) fn offloads(negotiated: u64) -> OffloadFlags {
    let mut flags = OffloadFlags::IP_CHECKSUM;
    if negotiated & CSUM != 0 {
        flags |= OffloadFlags::TCP_CHECKSUM | OffloadFlags::UDP_CHECKSUM | OffloadFlags::IPV6;
    }
    if negotiated & (HOST_TSO4 | HOST_TSO6) != 0 {
        flags |= OffloadFlags::TSO;
    }
    if negotiated & HOST_USO != 0 {
        flags |= OffloadFlags::USO;
    }
    flags
}

/// All bits that have a name, and what became of each.
pub(super) fn views(offered: u64, negotiated: u64) -> Vec<FeatureView> {
    let mut all: Vec<_> = NET
        .iter()
        .chain(reserved::RESERVED)
        .map(|feature| feature.view(offered, negotiated))
        .collect();
    all.sort_by_key(|view| view.bit);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_another_is_not_taken_without_it() {
        let config = NicConfig::default().rx_offload(true).queues(4);
        assert_eq!(choose(!CTRL_VQ, &config) & (MQ | RSS | CTRL_RX), 0);
        assert_eq!(choose(!CSUM, &config) & (HOST_TSO4 | HOST_USO), 0);
        let without = choose(!GUEST_CSUM, &config);
        assert_eq!(without & (RX_OFFLOAD), 0);
        assert_ne!(choose(u64::MAX, &config) & MQ, 0);
    }

    #[test]
    fn what_is_refused_is_not_taken() {
        let config =
            NicConfig::default().driver(VirtioNetConfig::default().refuse_features(MRG_RXBUF));
        let negotiated = choose(u64::MAX, &config);
        assert_eq!(negotiated & (MRG_RXBUF | GUEST_CSUM | MQ), 0);
        let views = views(u64::MAX, negotiated);
        let view = views.iter().find(|view| view.name == "MRG_RXBUF").unwrap();
        assert!(view.offered && !view.negotiated && view.bit == 15);
    }
}

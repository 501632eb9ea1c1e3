//! virtio-net's device configuration, §5.1.4. A field is there only where its feature is.

use bitfield_struct::bitfield;

use super::features as f;
use crate::mmio::{Mmio, ReadOnly, Reg};
use crate::nic::Mac;

crate::registers! {
    /// All of it.
    pub TABLE;
    in "network card (device configuration)";
    /// a byte of the Ethernet address
    MAC[6, 1]: u32 as One, ReadOnly, 0x00, "5.1.4";
    /// link, and whether the network is to be told where the card is
    STATUS: NetStatus as Two, ReadOnly, 0x06, "5.1.4";
    /// queue pairs that there are at most
    MAX_VIRTQUEUE_PAIRS: u32 as Two, ReadOnly, 0x08, "5.1.4";
    /// bytes of a packet, without its Ethernet header, at most
    MTU: u32 as Two, ReadOnly, 0x0a, "5.1.4";
    /// megabits a second; 0xffffffff: unknown
    SPEED: u32, ReadOnly, 0x0c, "5.1.4";
    /// 0: half, 1: full, 0xff: unknown
    DUPLEX: u32 as One, ReadOnly, 0x10, "5.1.4";
    /// bytes of a hash key at most
    RSS_MAX_KEY_SIZE: u32 as One, ReadOnly, 0x11, "5.1.4";
    /// entries of the indirection table at most
    RSS_MAX_INDIRECTION_TABLE_LENGTH: u32 as Two, ReadOnly, 0x12, "5.1.4";
    /// kinds of packets that can be hashed
    SUPPORTED_HASH_TYPES: HashTypes, ReadOnly, 0x14, "5.1.4";
}

/// Returns whether there is such a field of device configuration, with these features. Without its feature a field
/// may be beyond the configuration's end, and reads anything.
pub(super) fn has(field: &str, negotiated: u64) -> bool {
    let needs = match field {
        "MAC" => f::MAC,
        "STATUS" => f::STATUS,
        "MAX_VIRTQUEUE_PAIRS" => f::MQ | f::RSS,
        "MTU" => f::MTU,
        "SPEED" | "DUPLEX" => f::SPEED_DUPLEX,
        _ => f::RSS | f::HASH_REPORT,
    };
    negotiated & needs != 0
}

/// Status, §5.1.4.2
#[bitfield(u32)]
pub struct NetStatus {
    /// There is a link
    pub link_up: bool,
    /// The network is to be told where the card is now
    pub announce: bool,
    #[bits(30)]
    __: u32,
}

/// Types of packets that are hashed, §5.1.6.4.3.1
#[bitfield(u32)]
pub struct HashTypes {
    /// IPv4 addresses
    pub ipv4: bool,
    /// ... and TCP ports
    pub tcpv4: bool,
    /// ... and UDP ports
    pub udpv4: bool,
    /// IPv6 addresses
    pub ipv6: bool,
    /// ... and TCP ports
    pub tcpv6: bool,
    /// ... and UDP ports
    pub udpv6: bool,
    #[bits(26)]
    __: u32,
}

impl HashTypes {
    /// Those that this driver knows.
    pub const KNOWN: u32 = 0x3f;
}

/// The fields that the driver uses; `None` where there is no such field, or its feature was not negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct NetConfig {
    pub mac: Option<Mac>,
    pub status: Option<u32>,
    pub pairs: Option<u16>,
    pub mtu: Option<usize>,
    /// Megabits a second, and both ways at once.
    pub speed: Option<(u32, bool)>,
    pub rss: Option<Rss>,
}

/// The device's limits on hashing: bytes of the key, entries of the indirection table, hash types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rss {
    pub key_size: usize,
    pub table_len: usize,
    pub types: u32,
}

impl NetConfig {
    /// Returns whether all that does not change of itself is as it is in `other`.
    pub(super) fn is_same_card(&self, other: &Self) -> bool {
        (self.mac, self.pairs, self.mtu, self.rss) == (other.mac, other.pairs, other.mtu, other.rss)
    }

    /// Reads it, once; the caller sees to it that it is of one generation.
    pub(super) fn read<M: Mmio>(config: &M, negotiated: u64) -> Self {
        let has = |feature: u64| negotiated & feature != 0;
        let mac = || {
            let bytes: Vec<u8> = (0..6)
                .map_while(|byte| field(config, MAC.index(byte)))
                .map(|byte| byte as u8)
                .collect();
            bytes.try_into().ok().map(Mac)
        };
        let speed = || {
            let speed = field(config, SPEED)?;
            let full = field(config, DUPLEX)? != 0;
            // Up to i32::MAX; anything beyond is unknown.
            Some((if speed > i32::MAX as u32 { 0 } else { speed }, full))
        };
        let rss = || {
            Some(Rss {
                key_size: field(config, RSS_MAX_KEY_SIZE)? as usize,
                table_len: field(config, RSS_MAX_INDIRECTION_TABLE_LENGTH)? as usize,
                types: field(config, SUPPORTED_HASH_TYPES)?.into_bits(),
            })
        };
        Self {
            mac: has(f::MAC).then(mac).flatten(),
            status: has(f::STATUS)
                .then(|| field(config, STATUS).map(NetStatus::into_bits))
                .flatten(),
            pairs: has(f::MQ | f::RSS)
                .then(|| field(config, MAX_VIRTQUEUE_PAIRS).map(|pairs| pairs as u16))
                .flatten(),
            mtu: has(f::MTU)
                .then(|| field(config, MTU).map(|mtu| mtu as usize))
                .flatten(),
            speed: has(f::SPEED_DUPLEX).then(speed).flatten(),
            rss: has(f::RSS).then(rss).flatten(),
        }
    }

    /// Returns whether the device asks for the network to be told where the card is.
    pub(super) fn announce(&self) -> bool {
        self.status
            .is_some_and(|bits| NetStatus::from(bits).announce())
    }

    /// Returns whether the link is up. One that the device does not tell of always is.
    pub(super) fn link_up(&self) -> bool {
        self.status
            .is_none_or(|bits| NetStatus::from(bits).link_up())
    }
}

/// A field, where the device's configuration is long enough to have it.
fn field<M: Mmio, T: From<u32>>(config: &M, reg: Reg<T, ReadOnly>) -> Option<T> {
    let past = reg.offset().checked_add(reg.width().bytes());
    past.is_some_and(|past| past <= config.size())
        .then(|| config.get(reg))
}

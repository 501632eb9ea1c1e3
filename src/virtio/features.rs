//! Features that any virtio device may have (§6), and what one is called.
//!
//! A device offers bits, the driver takes some of them, and both then behave accordingly. Bits 0 to
//! 23 and 50 on are the device type's own; what is here is common to all.

use crate::inspect::FeatureView;

/// VIRTIO_F_INDIRECT_DESC
pub const INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX
pub const EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1
pub const VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_ACCESS_PLATFORM
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// VIRTIO_F_RING_PACKED
pub const RING_PACKED: u64 = 1 << 34;
/// VIRTIO_F_IN_ORDER
pub const IN_ORDER: u64 = 1 << 35;
/// VIRTIO_F_ORDER_PLATFORM
pub const ORDER_PLATFORM: u64 = 1 << 36;
/// VIRTIO_F_NOTIFICATION_DATA
pub const NOTIFICATION_DATA: u64 = 1 << 38;
/// VIRTIO_F_RING_RESET
pub const RING_RESET: u64 = 1 << 40;

/// Name and meaning of a feature bit.
#[derive(Debug, Clone, Copy)]
pub struct Feature {
    /// Its bit.
    pub bit: u8,
    /// Its name in the specification, without the prefix.
    pub name: &'static str,
    /// Description in a few words.
    pub what: &'static str,
}

impl Feature {
    /// The bit's state among those `offered` and `negotiated`.
    pub fn view(&self, offered: u64, negotiated: u64) -> FeatureView {
        let among = |bits: u64| bits >> self.bit & 1 != 0;
        FeatureView {
            bit: self.bit,
            name: self.name,
            what: self.what,
            offered: among(offered),
            negotiated: among(negotiated),
        }
    }
}

/// The reserved feature bits, §6.
pub const RESERVED: &[Feature] = &[
    Feature {
        bit: 28,
        name: "INDIRECT_DESC",
        what: "a chain may lie in a table of its own and take one descriptor",
    },
    Feature {
        bit: 29,
        name: "EVENT_IDX",
        what: "each side says exactly when it wants to be told",
    },
    Feature {
        bit: 32,
        name: "VERSION_1",
        what: "virtio 1.0 or later: not the legacy interface",
    },
    Feature {
        bit: 33,
        name: "ACCESS_PLATFORM",
        what: "the device reaches memory as the platform says: through the IOMMU",
    },
    Feature {
        bit: 34,
        name: "RING_PACKED",
        what: "the packed virtqueue: one ring that both sides write",
    },
    Feature {
        bit: 35,
        name: "IN_ORDER",
        what: "buffers are used in the order in which they were made available",
    },
    Feature {
        bit: 36,
        name: "ORDER_PLATFORM",
        what: "memory is ordered as for real hardware",
    },
    Feature {
        bit: 37,
        name: "SR_IOV",
        what: "virtual functions",
    },
    Feature {
        bit: 38,
        name: "NOTIFICATION_DATA",
        what: "a notification says how far the driver is",
    },
    Feature {
        bit: 39,
        name: "NOTIF_CONFIG_DATA",
        what: "the device says what a notification holds",
    },
    Feature {
        bit: 40,
        name: "RING_RESET",
        what: "a queue can be reset alone",
    },
];

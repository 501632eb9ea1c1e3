//! The registers of the PCI transport (§4.1.4), by structure: where each structure is, a capability
//! says.
//!
//! Names are those of the specification. A structure may lie at any place of any BAR, so offsets are
//! from its beginning.

use bitfield_struct::bitfield;

use crate::mmio::RegInfo;

crate::registers! {
    /// The common configuration structure, what is the device's.
    pub COMMON;
    in "device (common configuration)";
    /// which 32 of the device's feature bits DEVICE_FEATURE shows
    DEVICE_FEATURE_SELECT: u32, ReadWrite, 0x00, "4.1.4.3";
    /// features that the device offers
    DEVICE_FEATURE: u32, ReadOnly, 0x04, "4.1.4.3";
    /// which 32 bits DRIVER_FEATURE shows
    DRIVER_FEATURE_SELECT: u32, ReadWrite, 0x08, "4.1.4.3";
    /// features that the driver takes
    DRIVER_FEATURE: u32, ReadWrite, 0x0c, "4.1.4.3";
    /// MSI-X vector for configuration changes; 0xffff: none
    CONFIG_MSIX_VECTOR: u32 as Two, ReadWrite, 0x10, "4.1.4.3";
    /// queues that the device has at most
    NUM_QUEUES: u32 as Two, ReadOnly, 0x12, "4.1.4.3";
    /// how far driver and device are; writing 0 resets
    DEVICE_STATUS: DeviceStatus as One, ReadWrite, 0x14, "4.1.4.3";
    /// changes with the device configuration
    CONFIG_GENERATION: u32 as One, ReadOnly, 0x15, "4.1.4.3";
    /// which queue the registers below are of
    QUEUE_SELECT: u32 as Two, ReadWrite, 0x16, "4.1.4.3";
}

crate::registers! {
    /// The common configuration structure, what is of the queue that QUEUE_SELECT names.
    pub QUEUE;
    in "queues (common configuration)";
    /// descriptors; before it is set, the most there can be
    QUEUE_SIZE: u32 as Two, ReadWrite, 0x18, "4.1.4.3";
    /// MSI-X vector; 0xffff: none
    QUEUE_MSIX_VECTOR: u32 as Two, ReadWrite, 0x1a, "4.1.4.3";
    /// 1: the device may work on it
    QUEUE_ENABLE: u32 as Two, ReadWrite, 0x1c, "4.1.4.3";
    /// where its doorbell is, in units of the notify capability's multiplier
    QUEUE_NOTIFY_OFF: u32 as Two, ReadOnly, 0x1e, "4.1.4.3";
    /// descriptor area's IOVA, low
    QUEUE_DESC_LO: u32, ReadWrite, 0x20, "4.1.4.3";
    /// descriptor area's IOVA, high
    QUEUE_DESC_HI: u32, ReadWrite, 0x24, "4.1.4.3";
    /// driver area's IOVA, low
    QUEUE_DRIVER_LO: u32, ReadWrite, 0x28, "4.1.4.3";
    /// driver area's IOVA, high
    QUEUE_DRIVER_HI: u32, ReadWrite, 0x2c, "4.1.4.3";
    /// device area's IOVA, low
    QUEUE_DEVICE_LO: u32, ReadWrite, 0x30, "4.1.4.3";
    /// device area's IOVA, high
    QUEUE_DEVICE_HI: u32, ReadWrite, 0x34, "4.1.4.3";
    /// what to notify with, where NOTIF_CONFIG_DATA was negotiated
    QUEUE_NOTIFY_DATA: u32 as Two, ReadOnly, 0x38, "4.1.4.3";
    /// 1: reset it, with RING_RESET
    QUEUE_RESET: u32 as Two, ReadWrite, 0x3a, "4.1.4.3";
}

crate::registers! {
    /// The notification structure; how many doorbells there are and how far apart, the device says.
    pub NOTIFY;
    in "doorbells (notification structure)";
    /// rings the doorbell of a queue
    NOTIFY_QUEUE: u32 as Two, WriteOnly, 0x00, "4.1.4.4";
    /// the same, with how far the driver is (NOTIFICATION_DATA)
    NOTIFY_DATA: NotifyData, WriteOnly, 0x00, "4.1.5.2";
}

crate::registers! {
    /// The ISR structure.
    pub ISR;
    in "interrupts (ISR structure)";
    /// why INTx is up; reading clears it and lowers the line
    ISR_STATUS: IsrStatus as One, ReadClear, 0x00, "4.1.4.5";
}

/// Bytes of the common configuration that every device has: up to QUEUE_DEVICE.
pub const COMMON_LEN: usize = QUEUE_DEVICE_HI.end();
/// Bytes of it with QUEUE_NOTIFY_DATA and QUEUE_RESET (virtio 1.2).
pub const COMMON_LEN_1_2: usize = RegInfo::size_of(QUEUE);
/// No MSI-X vector, §4.1.5.1.2.1.
pub const NO_VECTOR: u16 = 0xffff;

/// Device status, §2.1
#[bitfield(u32)]
pub struct DeviceStatus {
    /// The device was seen
    pub acknowledge: bool,
    /// There is a driver for it
    pub driver: bool,
    /// The driver is set up
    pub driver_ok: bool,
    /// Features are agreed on
    pub features_ok: bool,
    #[bits(2)]
    __: u8,
    /// The device has given up
    pub device_needs_reset: bool,
    /// The driver has given up
    pub failed: bool,
    #[bits(24)]
    __: u32,
}

/// Value of a notification with VIRTIO_F_NOTIFICATION_DATA, §4.1.5.2
#[bitfield(u32)]
pub struct NotifyData {
    /// Index of the queue
    pub vqn: u16,
    /// Split ring: the available index; packed ring: the next descriptor to be made available
    #[bits(15)]
    pub next_off: u16,
    /// Packed ring: the driver's wrap counter (split ring: the index's highest bit)
    pub next_wrap: bool,
}

/// Cause of INTx, §4.1.4.5
#[bitfield(u32)]
pub struct IsrStatus {
    /// A queue has used buffers
    pub queue: bool,
    /// The configuration has changed
    pub device_configuration: bool,
    #[bits(30)]
    __: u32,
}

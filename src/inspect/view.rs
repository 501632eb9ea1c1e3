//! Plain values, taken from a device at one moment, for showing.

use crate::dma::Iova;
use crate::mmio::RegInfo;

/// One register and its value.
#[derive(Debug, Clone, Copy)]
pub struct RegisterView {
    /// Its declaration.
    pub info: &'static RegInfo,
    /// Index in its array; 0 for a lone one.
    pub index: usize,
    /// Value read.
    pub value: u64,
}

/// Owner of a descriptor and its buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The device: the buffer is in flight.
    Device,
    /// The device is through with it and said so; the driver has not taken it back yet.
    Done,
    /// The driver: nothing is there.
    Driver,
}

/// One descriptor.
#[derive(Debug, Clone)]
pub struct SlotView {
    /// Address of the descriptor for the device.
    pub iova: Iova,
    /// Its words as they are in memory: as many as a descriptor of this ring has.
    pub words: Vec<u64>,
    /// Its fields, in the datasheet's names.
    pub text: String,
    /// Its owner, who alone may touch it.
    pub owner: Owner,
    /// The buffer: where the device sees it, where this process sees it, and its length.
    pub buffer: Option<(Iova, usize, usize)>,
}

/// One ring.
#[derive(Debug, Clone)]
pub struct RingView {
    /// "transmit", "receive" or "control".
    pub name: &'static str,
    /// Index of its queue pair.
    pub pair: usize,
    /// Address of the first descriptor in this process.
    pub address: usize,
    /// Progress of driver and device.
    pub indices: RingIndices,
    /// The descriptors, in order.
    pub slots: Vec<SlotView>,
}

/// Progress of driver and device, as each tells the other. The device's words are not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RingIndices {
    /// Two registers (Intel's cards).
    Registers {
        /// Index of the descriptor that the device takes next.
        head: u32,
        /// One past what it may take.
        tail: u32,
    },
    /// A bit in each descriptor, OWN: the driver keeps its own places, and the device tells nobody its own.
    Own {
        /// Index of the descriptor that the driver posts next.
        next: u32,
        /// Index of the oldest that the driver has not taken back, of which it looks at OWN.
        oldest: u32,
    },
    /// A bit in each entry of a completion queue, which is the other way each time round (NVMe 1.4, §4.6).
    Phase {
        /// Index of the entry that the driver looks at next.
        head: u32,
        /// The phase tag that makes it a new one.
        phase: bool,
    },
    /// Two more rings in memory (virtio 1.2, §2.7).
    Split(SplitIndices),
    /// Bits in each descriptor, which change their meaning each time round (virtio 1.2, §2.8).
    Packed(PackedIndices),
}

/// The available and the used ring of a split virtqueue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitIndices {
    /// Address of the available ring for the device.
    pub avail_iova: Iova,
    /// The available ring's flags.
    pub avail_flags: u16,
    /// Counts the chains that the driver made available.
    pub avail_idx: u16,
    /// Heads of chains, by `idx % size`.
    pub avail: Vec<u16>,
    /// Up to where the driver wants no interrupt.
    pub used_event: u16,
    /// Address of the used ring for the device.
    pub used_iova: Iova,
    /// The used ring's flags.
    pub used_flags: u16,
    /// Counts the chains that the device used.
    pub used_idx: u16,
    /// Head of a chain and bytes written, by `idx % size`.
    pub used: Vec<(u32, u32)>,
    /// Up to where the device wants no notification.
    pub avail_event: u16,
    /// Up to where the driver has taken chains back.
    pub taken_idx: u16,
}

/// Positions of both sides of a packed virtqueue, and the events that they ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedIndices {
    /// The descriptor that the driver makes available next.
    pub next_avail: u16,
    /// The driver's wrap counter.
    pub avail_wrap: bool,
    /// The descriptor that the driver expects to be used next.
    pub next_used: u16,
    /// The device's wrap counter, as the driver follows it.
    pub used_wrap: bool,
    /// Address of the driver's event suppression structure for the device.
    pub driver_event_iova: Iova,
    /// Its two words: descriptor and wrap counter, then flags.
    pub driver_event: [u16; 2],
    /// Address of the device's event suppression structure, which the device writes.
    pub device_event_iova: Iova,
    /// Its two words.
    pub device_event: [u16; 2],
}

/// A feature that was negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureView {
    /// Its bit.
    pub bit: u8,
    /// Its name in the specification, without the prefix: `MRG_RXBUF`.
    pub name: &'static str,
    /// Description in a few words.
    pub what: &'static str,
    /// The device offers it.
    pub offered: bool,
    /// The driver accepted it: it is in force.
    pub negotiated: bool,
}

//! Places of a virtio device's structures: vendor-specific capabilities, §4.1.4.
//!
//! Each names a BAR and a stretch of it. What a device says of itself is checked before anything is
//! mapped by it: the BAR is one of six and the stretch lies inside. A device may tell of a structure more
//! than once, and of what this driver cannot use (I/O ports): the first that can be used counts.

use crate::error::Result;
use crate::mmio::{Mmio, Width};
use crate::pci::config::Config;

/// Capability id "vendor specific".
const VENDOR_SPECIFIC: u8 = 0x09;
/// Bytes of `virtio_pci_cap`.
const CAP_LEN: u8 = 16;
/// BARs that a function has; those from here on are reserved.
const BARS: u8 = 6;
/// Bytes of config space that capabilities lie in.
const SPACE: u16 = 256;

/// Kind of structure, §4.1.4 (cfg_type).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Structure {
    /// VIRTIO_PCI_CAP_COMMON_CFG
    Common = 1,
    /// VIRTIO_PCI_CAP_NOTIFY_CFG
    Notify = 2,
    /// VIRTIO_PCI_CAP_ISR_CFG
    Isr = 3,
    /// VIRTIO_PCI_CAP_DEVICE_CFG
    Device = 4,
}

impl Structure {
    /// Bytes of the capability that tells of it.
    const fn cap_len(self) -> u8 {
        match self {
            // `virtio_pci_notify_cap`, §4.1.4.4.
            Self::Notify => 20,
            Self::Common | Self::Isr | Self::Device => CAP_LEN,
        }
    }

    /// Alignment of its offset.
    fn align(self) -> usize {
        match self {
            Self::Isr => 1,
            Self::Notify => 2,
            Self::Common | Self::Device => 4,
        }
    }
}

/// One stretch of a BAR, as a capability names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Index of the BAR.
    pub bar: u8,
    /// Offset of its first byte.
    pub offset: u32,
    /// Its length in bytes.
    pub length: u32,
    /// In the notification structure: bytes from one doorbell to the next.
    pub multiplier: u32,
}

/// Places of `structure`, in the device's order: the driver takes the first that it can use, §4.1.4.1. A capability
/// of a type that is reserved, in a BAR that is, or too short for what it is, tells of nothing.
///
/// # Errors
/// If config space cannot be read.
pub fn find(config: &impl Config, structure: Structure) -> Result<Vec<Location>> {
    let wanted = structure.cap_len();
    let mut found = Vec::new();
    for cap in config.capabilities()? {
        let past = cap.offset.checked_add(wanted.into());
        if cap.id != VENDOR_SPECIFIC || past.is_none_or(|past| past > SPACE) {
            continue;
        }
        let mut bytes = [0; CAP_LEN as usize];
        config.read(cap.offset, &mut bytes)?;
        let [
            _,
            _,
            len,
            cfg_type,
            bar,
            _,
            _,
            _,
            o0,
            o1,
            o2,
            o3,
            l0,
            l1,
            l2,
            l3,
        ] = bytes;
        if cfg_type != structure as u8 || len < wanted || bar >= BARS {
            continue;
        }
        let multiplier = match structure {
            Structure::Notify => config.read32(cap.offset.saturating_add(CAP_LEN.into()))?,
            _ => 0,
        };
        found.push(Location {
            bar,
            offset: u32::from_le_bytes([o0, o1, o2, o3]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            multiplier,
        });
    }
    Ok(found)
}

/// A structure: a stretch of a BAR that is known to be inside it.
#[derive(Clone)]
pub struct Window<M> {
    bar: M,
    index: u8,
    base: usize,
    len: usize,
}

impl<M: Mmio> Window<M> {
    /// The stretch of `bar` that `location` names, which must have `least` bytes; else what is wrong with
    /// it.
    pub(super) fn new(
        bar: M,
        location: Location,
        structure: Structure,
        least: usize,
    ) -> Result<Self, String> {
        let (base, len) = (location.offset as usize, location.length as usize);
        let past = base.checked_add(len);
        let inside = past.is_some_and(|past| past <= bar.size());
        if len < least || !inside || !base.is_multiple_of(structure.align()) {
            return Err(format!(
                "it is {len} bytes at {base:#x} of BAR {}, which has {:#x}; {least} bytes are needed, at a \
                 multiple of {}",
                location.bar,
                bar.size(),
                structure.align()
            ));
        }
        Ok(Self {
            bar,
            index: location.bar,
            base,
            len,
        })
    }

    /// Offset of its first byte in the BAR.
    pub(super) fn base(&self) -> usize {
        self.base
    }

    /// The BAR that it is in.
    pub(super) fn bar(&self) -> &M {
        &self.bar
    }

    /// Place in it of byte `offset` of BAR `bar`.
    pub(super) fn place(&self, bar: u8, offset: usize) -> Option<usize> {
        let past = offset.checked_sub(self.base)?;
        (bar == self.index && past < self.len).then_some(past)
    }

    fn inside(&self, offset: usize, width: Width) -> usize {
        let past = offset.checked_add(width.bytes());
        assert!(past.is_some_and(|past| past <= self.len));
        // Inside of the BAR, as `new` saw.
        self.base.wrapping_add(offset)
    }
}

impl<M: Mmio> Mmio for Window<M> {
    fn size(&self) -> usize {
        self.len
    }

    fn read(&self, offset: usize, width: Width) -> u64 {
        self.bar.read(self.inside(offset, width), width)
    }

    fn write(&self, offset: usize, width: Width, value: u64) {
        self.bar.write(self.inside(offset, width), width, value);
    }
}

//! Where a virtio device keeps its structures: vendor-specific capabilities, §4.1.4.
//!
//! Each names a BAR and a stretch of it. What a device says of itself is checked before anything is
//! mapped by it: the BAR is one of six and the stretch lies inside.

use crate::error::{Error, Result};
use crate::mmio::{Mmio, Width};
use crate::pci::config::Config;

/// Capability id "vendor specific".
const VENDOR_SPECIFIC: u8 = 0x09;
/// Bytes of `virtio_pci_cap`; of the notification's, 4 more.
const CAP_LEN: u8 = 16;

/// Which structure, §4.1.4 (cfg_type).
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
    /// What its offset is a multiple of.
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
    /// Which BAR.
    pub bar: u8,
    /// Where it begins, in bytes.
    pub offset: u32,
    /// Its length in bytes.
    pub length: u32,
    /// Of the notification structure: bytes from one doorbell to the next.
    pub multiplier: u32,
}

/// Where `structure` is: the first capability that says so counts, §4.1.4.1.
///
/// # Errors
/// Where config space cannot be read.
pub fn find(config: &impl Config, structure: Structure) -> Result<Option<Location>> {
    for cap in config.capabilities()? {
        if cap.id != VENDOR_SPECIFIC || cap.offset + u16::from(CAP_LEN) > 256 {
            continue;
        }
        let [len, cfg_type] = config.read16(cap.offset + 2)?.to_le_bytes();
        let bar = config.read8(cap.offset + 4)?;
        let wanted = CAP_LEN + if structure == Structure::Notify { 4 } else { 0 };
        // BARs past 5 are reserved: such a capability is to be ignored.
        if cfg_type != structure as u8 || len < wanted || bar > 5 {
            continue;
        }
        if cap.offset + u16::from(wanted) > 256 {
            continue;
        }
        return Ok(Some(Location {
            bar,
            offset: config.read32(cap.offset + 8)?,
            length: config.read32(cap.offset + 12)?,
            multiplier: match structure {
                Structure::Notify => config.read32(cap.offset + 16)?,
                _ => 0,
            },
        }));
    }
    Ok(None)
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
    /// The stretch of `bar` that `location` names, which must have `least` bytes.
    pub(super) fn new(
        bar: M,
        location: Location,
        structure: Structure,
        least: usize,
        device: &str,
    ) -> Result<Self> {
        let (base, len) = (location.offset as usize, location.length as usize);
        let past = base.checked_add(len);
        let inside = past.is_some_and(|past| past <= bar.size());
        if len < least || !inside || !base.is_multiple_of(structure.align()) {
            return Err(Error::DeviceLied {
                device: device.to_owned(),
                what: format!(
                    "its {structure:?} structure is {len} bytes at {base:#x} of BAR {}, which has {:#x}; \
                     {least} bytes are needed",
                    location.bar,
                    bar.size()
                ),
            });
        }
        Ok(Self {
            bar,
            index: location.bar,
            base,
            len,
        })
    }

    /// Where it begins in the BAR.
    pub(super) fn base(&self) -> usize {
        self.base
    }

    /// The BAR that it is in.
    pub(super) fn bar(&self) -> &M {
        &self.bar
    }

    /// Where in it byte `offset` of BAR `bar` is.
    pub(super) fn place(&self, bar: u8, offset: usize) -> Option<usize> {
        let past = offset.checked_sub(self.base)?;
        (bar == self.index && past < self.len).then_some(past)
    }

    fn inside(&self, offset: usize, width: Width) -> usize {
        assert!(offset + width.bytes() <= self.len);
        self.base + offset
    }
}

impl<M: Mmio> Mmio for Window<M> {
    fn size(&self) -> usize {
        self.len
    }

    fn read(&self, offset: usize, width: Width) -> u32 {
        self.bar.read(self.inside(offset, width), width)
    }

    fn write(&self, offset: usize, width: Width, value: u32) {
        self.bar.write(self.inside(offset, width), width, value);
    }
}

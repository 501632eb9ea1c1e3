//! Config space through the host bridge's ports 0xcf8 and 0xcfc (PCI 3.0, §3.2.2.3.2), and the BARs,
//! which we assign as firmware would: there is none.

use std::sync::{Arc, Mutex};

use super::mailbox;
use super::wire::{Wire, lock};
use crate::error::{Error, Result};
use crate::pci::config::{BAR0, Config};

/// The devices' slots on bus 0, one after the other.
pub(super) fn slots() -> std::ops::Range<u8> {
    3..19
}

/// Input of the IOAPIC to which INTA of slot `slot` is wired on q35 (PIRQ E to H, inputs 20 to 23).
pub(super) fn inta(slot: u8) -> u32 {
    20 + u32::from(slot) % 4
}

/// Range for BARs: above any memory, and below the mailbox's and the IOAPIC.
const WINDOW: std::ops::Range<u64> = 0xe000_0000..mailbox::BASE as u64;

/// The two ports, which all functions are reached through.
pub(super) struct HostBridge {
    wire: Arc<Wire>,
    /// Address and data are two accesses.
    pair: Mutex<()>,
    /// Lowest address of the next BAR.
    next: Mutex<u64>,
}

impl HostBridge {
    pub fn new(wire: Arc<Wire>) -> Self {
        Self {
            wire,
            pair: Mutex::default(),
            next: Mutex::new(WINDOW.start),
        }
    }

    /// Moves to the next multiple of `align`, and returns it: the lowest address of the next BAR.
    pub fn align(&self, align: u64) -> u64 {
        let mut next = lock(&self.next);
        *next = next.next_multiple_of(align);
        *next
    }
}

/// A function's config space: 256 bytes, no more through these ports.
pub(super) struct Ports {
    bridge: Arc<HostBridge>,
    bus: u8,
    slot: u8,
}

/// A memory BAR that has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bar {
    pub index: u8,
    pub base: u64,
    pub size: u64,
    /// I/O ports: they have no address.
    pub is_io: bool,
}

impl Ports {
    pub fn new(bridge: Arc<HostBridge>, bus: u8, slot: u8) -> Self {
        Self { bridge, bus, slot }
    }

    /// Selects the 4 bytes that `offset` is in; gives the data port of `offset`.
    fn select(&self, offset: u16) -> u16 {
        let function = u32::from(self.bus) << 16 | u32::from(self.slot) << 11;
        let address = 1 << 31 | function | u32::from(offset & 0xfc);
        self.bridge
            .wire
            .post(format_args!("outl 0xcf8 {address:#x}"));
        0xcfc + (offset & 3)
    }

    /// Finds out each memory BAR's size and gives it an address aligned to it. I/O BARs stay off.
    pub fn assign_bars(&self) -> Result<Vec<Bar>> {
        let mut bars = Vec::new();
        let mut next = lock(&self.bridge.next);
        let mut index = 0;
        while index < 6 {
            let place = BAR0 + 4 * index;
            // All ones written, the bits that stay 0 tell the size (PCI 3.0, §6.2.5.1).
            let probe = |place: u16| -> Result<u32> {
                self.write(place, &u32::MAX.to_le_bytes())?;
                let sticks = self.read32(place)?;
                self.write(place, &0u32.to_le_bytes())?;
                Ok(sticks)
            };
            let low = probe(place)?;
            let (io, wide) = (low & 1 != 0, low & 0b110 == 0b100 && index < 5);
            let high = if wide { probe(place + 4)? } else { u32::MAX };
            let mask = u64::from(high) << 32 | u64::from(low & !0xf);
            if io {
                bars.push(Bar {
                    index: index as u8,
                    base: 0,
                    // Ports have 16 bits, and so may the mask.
                    size: u64::from((low | 0xffff_0000) & !3).wrapping_neg() & 0xffff,
                    is_io: true,
                });
            }
            if !io && low != 0 {
                let size = mask.wrapping_neg();
                let base = next.next_multiple_of(size);
                if base + size > WINDOW.end {
                    return Err(Error::Qemu {
                        what: format!("BAR {index} of {size:#x} bytes does not fit below 4 GiB"),
                        remedy: "use a model with smaller BARs".to_owned(),
                    });
                }
                self.write(place, &(base as u32).to_le_bytes())?;
                *next = base + size;
                bars.push(Bar {
                    index: index as u8,
                    base,
                    size,
                    is_io: false,
                });
            }
            index += if wide { 2 } else { 1 };
        }
        Ok(bars)
    }
}

/// `offset..offset + len` in accesses of 4, 2 or 1 bytes, each aligned: no byte beside them is
/// written, since some act on being written.
fn accesses(offset: u16, len: usize) -> Result<impl Iterator<Item = (u16, usize)>> {
    let past = usize::from(offset) + len;
    if past > 256 {
        return Err(Error::Usage(format!(
            "config space over qtest has 256 bytes; {len} at {offset:#x} lie outside"
        )));
    }
    let mut at = usize::from(offset);
    Ok(std::iter::from_fn(move || {
        let fits = |width: &usize| at.is_multiple_of(*width) && at + width <= past;
        let width = [4, 2, 1].into_iter().find(fits)?;
        at += width;
        Some(((at - width) as u16, width))
    }))
}

fn suffix(width: usize) -> char {
    match width {
        4 => 'l',
        2 => 'w',
        _ => 'b',
    }
}

impl Config for Ports {
    fn read(&self, offset: u16, into: &mut [u8]) -> Result<()> {
        let _pair = lock(&self.bridge.pair);
        for (at, width) in accesses(offset, into.len())? {
            let port = self.select(at);
            let request = format_args!("in{} {port:#x}", suffix(width));
            let value = self.bridge.wire.ask(request).unwrap_or(u64::MAX);
            let start = usize::from(at - offset);
            into[start..start + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        Ok(())
    }

    fn write(&self, offset: u16, from: &[u8]) -> Result<()> {
        let _pair = lock(&self.bridge.pair);
        for (at, width) in accesses(offset, from.len())? {
            let start = usize::from(at - offset);
            let mut value = [0; 4];
            value[..width].copy_from_slice(&from[start..start + width]);
            let value = u32::from_le_bytes(value);
            let port = self.select(at);
            self.bridge
                .wire
                .post(format_args!("out{} {port:#x} {value:#x}", suffix(width)));
        }
        // Config writes are not posted (PCI 3.0, §3.2.5).
        self.bridge.wire.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_aligned_and_exact() {
        let of = |offset, len| accesses(offset, len).unwrap().collect::<Vec<_>>();
        assert_eq!(of(4, 4), [(4, 4)]);
        assert_eq!(of(6, 2), [(6, 2)]);
        assert_eq!(of(5, 6), [(5, 1), (6, 2), (8, 2), (10, 1)]);
        assert_eq!(of(252, 4), [(252, 4)]);
        assert!(accesses(254, 4).is_err());
        assert!(of(0, 0).is_empty());
    }
}

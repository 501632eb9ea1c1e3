//! A function's own part of message interrupts: its MSI or MSI-X capability (PCI 3.0, §6.8).
//!
//! The kernel does this for a function that VFIO reaches; here nobody else does.

use std::fmt::Display;
use std::sync::Arc;

use super::config::Bar;
use super::mailbox::Message;
use super::wire::Wire;
use crate::error::Result;
use crate::irq::IrqKind;
use crate::pci::config::{Capability, Config};

/// The capabilities' ids.
const MSI: u8 = 0x05;
const MSI_X: u8 = 0x11;

/// Message control, 2 bytes, in both.
const CONTROL: u16 = 2;

/// MSI's: on; addresses have 64 bits. How many vectors stays at one (bits 4 to 6): which of several
/// it is, a device says in the low bits of the data, and those are other vectors' in the mailbox.
const MSI_ENABLE: u16 = 1 << 0;
const MSI_MULTIPLE: u16 = 7 << 4;
const MSI_64_BIT: u16 = 1 << 7;

/// MSI-X's: table entries less one; all of them masked; on.
const MSI_X_SIZE: u16 = 0x7ff;
const MSI_X_MASK: u16 = 1 << 14;
const MSI_X_ENABLE: u16 = 1 << 15;

/// Number of the function's vectors of this kind, as far as they can be had here.
pub(super) fn count(config: &impl Config, kind: IrqKind) -> Result<usize> {
    Ok(match (kind, find(config, kind)?) {
        (IrqKind::Intx, _) => 1,
        (_, None) => 0,
        (IrqKind::Msi, Some(_)) => 1,
        (IrqKind::MsiX, Some(at)) => usize::from(config.read16(at + CONTROL)? & MSI_X_SIZE) + 1,
    })
}

fn find(config: &impl Config, kind: IrqKind) -> Result<Option<u16>> {
    let id = if kind == IrqKind::Msi { MSI } else { MSI_X };
    let list = config.capabilities()?;
    let found = list.iter().find(|capability| capability.id == id);
    Ok(found.map(|Capability { offset, .. }| *offset))
}

/// Turns both kinds off.
pub(super) fn disable(config: &impl Config) -> Result<()> {
    for (kind, enable) in [(IrqKind::Msi, MSI_ENABLE), (IrqKind::MsiX, MSI_X_ENABLE)] {
        if let Some(at) = find(config, kind)? {
            let control = config.read16(at + CONTROL)?;
            config.write(at + CONTROL, &(control & !enable).to_le_bytes())?;
        }
    }
    Ok(())
}

/// Gives the first vectors their `messages`, masks the others, and turns the kind on, which the
/// function must have.
pub(super) fn enable(
    config: &impl Config,
    kind: IrqKind,
    messages: impl Iterator<Item = Message>,
    bars: &[Bar],
    wire: &Arc<Wire>,
) -> Result<()> {
    let Some(at) = find(config, kind)? else {
        return Ok(());
    };
    let control = config.read16(at + CONTROL)?;
    let control = match kind {
        IrqKind::MsiX => {
            // Which BAR the table is in is the low 3 bits of where it is.
            let table = config.read32(at + 4)?;
            let is_it = |bar: &&Bar| !bar.is_io && u32::from(bar.index) == table & 7;
            let bar = bars.iter().find(is_it);
            let Some(bar) = bar else { return Ok(()) };
            let table = bar.base + u64::from(table & !7);
            let entries = u64::from(control & MSI_X_SIZE) + 1;
            let mut messages = messages;
            for entry in (0..entries).map(|entry| table + 16 * entry) {
                let write = |offset: u64, value: &dyn Display| {
                    let address = entry + offset;
                    wire.post(format_args!("writel {address:#x} {value}"));
                };
                let message = messages.next();
                if let Some(Message { address, data }) = message {
                    write(0, &(address as u32));
                    write(4, &(address >> 32));
                    write(8, &data);
                }
                // Vector control: bit 0 masks.
                write(12, &u32::from(message.is_none()));
            }
            control & !MSI_X_MASK | MSI_X_ENABLE
        }
        _ => {
            for Message { address, data } in messages.take(1) {
                config.write(at + 4, &(address as u32).to_le_bytes())?;
                let wide = control & MSI_64_BIT != 0;
                if wide {
                    config.write(at + 8, &((address >> 32) as u32).to_le_bytes())?;
                }
                let place = at + if wide { 12 } else { 8 };
                config.write(place, &(data as u16).to_le_bytes())?;
            }
            control & !MSI_MULTIPLE | MSI_ENABLE
        }
    };
    config.write(at + CONTROL, &control.to_le_bytes())
}

//! A card's registers, seen from here: maps a BAR and reads the Ethernet address out of it.
//!
//!     hello_bar 0000:00:03.0        a card bound to vfio-pci
//!     hello_bar qtest:virtio-net    QEMU's card on this host; or e1000, e1000e

use std::error::Error;

use pinwire::backend::Backend;
use pinwire::device::{DeviceSpec, Driver};
use pinwire::mmio::Mmio;
use pinwire::nic::e1000::regs::{RAH, RAL, STATUS};
use pinwire::nic::virtio_net::config::MAC;
use pinwire::nic::{DeviceId, Mac, e1000, e1000e, virtio_net};
use pinwire::pci::config::Command;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// What to do with the card, whatever reaches it.
struct Hello;

impl Driver for Hello {
    type Output = ();
    type Error = Box<dyn Error>;

    fn start<B: Backend + 'static>(self, device: B) -> Result<()> {
        // 1. Config space, which every PCI function has, says who it is.
        let (vendor, id) = device.ids()?;
        println!("{}: PCI device {vendor:04x}:{id:04x}", device.name());

        // 2. Let it answer to its memory BARs.
        device.command(Command::MEMORY, Command::empty())?;

        // 3. The address is a register, in a place that is the card's own.
        let is = |known: DeviceId| known.is(vendor, id);
        let mac = if e1000::devices().chain(e1000e::devices()).any(is) {
            intel(&device)?
        } else if virtio_net::devices().any(is) {
            virtio_net(&device)?
        } else {
            return Err("not a card whose registers are known here".into());
        };
        println!("Ethernet address {mac}");
        Ok(())
    }
}

/// Intel's cards have all of their registers in BAR 0. Sections are those of the 8254x manual; on the
/// 82574L (e1000e) these registers are in the same places, §10.2.2 and §10.2.5 of its datasheet.
fn intel<B: Backend>(device: &B) -> Result<Mac> {
    // Mapped into this process: a register is a word of it. It must have all that are read here.
    let bar = device.map_bar(0, RAH.index(0).end())?;
    println!("BAR 0 has {} bytes", bar.size());

    // STATUS, §13.4.2: is there a link?
    let status = bar.get(STATUS);
    println!("STATUS at {:#06x} reads {status:?}", STATUS.offset());

    // After a reset, receive address 0 (§13.5.2 and §13.5.3) holds the address from the EEPROM.
    let low = bar.get(RAL.index(0)).to_le_bytes();
    let high = bar.get(RAH.index(0)).rah().to_le_bytes();
    Ok(Mac([low[0], low[1], low[2], low[3], high[0], high[1]]))
}

/// A virtio device says by capabilities where its registers are. Sections are those of virtio 1.2.
fn virtio_net<B: Backend>(device: &B) -> Result<Mac> {
    // The capabilities are a list in config space; virtio's are vendor-specific ones (id 9), §4.1.4.
    for cap in device.capabilities()? {
        // cfg_type 4 is the device's own configuration, with what only a network card has.
        if cap.id != 9 || device.read8(cap.offset + 3)? != 4 {
            continue;
        }
        // Which BAR, and where in it.
        let index = device.read8(cap.offset + 4)?;
        let offset = device.read32(cap.offset + 8)? as usize;
        // The device says it, so it is checked: a BAR that ends before is refused.
        let end = offset
            .checked_add(6)
            .ok_or("its configuration is nowhere")?;
        let bar = device.map_bar(index, end)?;
        println!(
            "configuration at {offset:#06x} of BAR {index}, which has {} bytes",
            bar.size()
        );

        // The address comes first, a byte at a time, §5.1.4.
        let byte = |at| bar.get(MAC.index(at).past(offset)) as u8;
        return Ok(Mac(std::array::from_fn(byte)));
    }
    Err("no capability says where its configuration is".into())
}

fn main() -> Result<()> {
    let spec = std::env::args().nth(1).ok_or("usage: hello_bar DEVICE")?;
    spec.parse::<DeviceSpec>()?.open_with(Hello)
}

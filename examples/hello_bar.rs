//! A card's registers, seen from here: maps BAR 0 and reads the Ethernet address out of it.
//!
//!     hello_bar 0000:00:03.0   a card bound to vfio-pci
//!     hello_bar qtest:e1000    QEMU's card on this host
//!
//! Sections are those of the Intel 8254x manual.

use std::process::ExitCode;

use pinwire::backend::{Backend, Qtest, Vfio};
use pinwire::mmio::Mmio;
use pinwire::nic::Mac;
use pinwire::nic::e1000::regs::{RAH, RAL, STATUS};
use pinwire::pci::config::Command;

fn main() -> ExitCode {
    let Some(spec) = std::env::args().nth(1) else {
        eprintln!("usage: hello_bar DEVICE");
        return ExitCode::from(2);
    };
    // The same code for both: a backend is how the device is reached.
    let done = match spec.strip_prefix("qtest:") {
        Some(model) => model.parse().and_then(|m| hello(Qtest::start(&m)?)),
        None => spec.parse().and_then(|address| hello(Vfio::open(address)?)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn hello<B: Backend>(device: B) -> pinwire::Result<()> {
    // 1. Config space, which every PCI function has, says who it is.
    let (vendor, id) = device.ids()?;
    println!("{}: PCI device {vendor:04x}:{id:04x}", device.name());

    // 2. Let it answer to its memory BARs, and have the first one mapped into this process.
    device.command(Command::MEMORY, Command::empty())?;
    let bar = device.map_bar(0)?;
    println!("BAR 0 has {} bytes", bar.size());

    // 3. A register is a word of it. STATUS, §13.4.2: is there a link?
    let status = bar.get(STATUS);
    println!("STATUS at {:#06x} reads {status:?}", STATUS.offset());

    // 4. After a reset, receive address 0 (§13.5.2 and §13.5.3) holds the address from the EEPROM.
    let low = bar.get(RAL.index(0)).to_le_bytes();
    let high = bar.get(RAH.index(0)).rah().to_le_bytes();
    let mac = Mac([low[0], low[1], low[2], low[3], high[0], high[1]]);
    println!("Ethernet address {mac}");
    Ok(())
}

//! Events from outside, while a driver has the device: its cable is pulled, or it itself.
//!
//! A device that can be pulled out sits below a root port of its own, as in a slot of a computer. We
//! are its operating system, which powers the slot down and so lets the device go (PCI Express 4.0,
//! §6.7.1.5 and §7.5.3.10); to the driver, who was not asked, that is a surprise.

use std::sync::{Arc, Weak};

use super::config::{Bar, HostBridge, Ports};
use super::machine::Machine;
use super::spec;
use super::wire::lock;
use crate::error::{Error, Result};
use crate::irq::{Removal, Why};
use crate::pci::config::{Command, Config};

/// The PCI Express capability, and slot control in it.
const EXPRESS: u8 = 0x10;
const SLOT_CONTROL: u16 = 0x18;

/// Power indicator off, power off.
const POWERED_DOWN: u16 = 3 << 8 | 1 << 10;

/// A hand on a [`Qtest`](super::Qtest) that a driver has: for tests, of what devices go through.
#[derive(Clone)]
pub struct QtestControl {
    pub(super) name: String,
    pub(super) slot: u8,
    /// The port that it is below, if any.
    pub(super) port: Option<Arc<Ports>>,
    /// Announced once the device is out of its slot.
    pub(super) removal: Arc<Removal>,
    /// Weak: does not keep QEMU alive.
    pub(super) machine: Weak<Machine>,
}

impl std::fmt::Debug for QtestControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QtestControl({})", self.name)
    }
}

impl QtestControl {
    /// Plugs the cable in, or pulls it out: the device sees its link come and go.
    ///
    /// # Errors
    /// [`Error::Qemu`] where the device has no cable; [`Error::DeviceGone`].
    pub fn set_link(&self, up: bool) -> Result<()> {
        let machine = self.machine()?;
        let id = spec::id(self.slot);
        let command =
            format!(r#"{{"execute": "set_link", "arguments": {{"name": "{id}", "up": {up}}}}}"#);
        let done = lock(&machine.monitor).run(&command, None);
        done.map_err(|why| Error::Qemu {
            what: format!("{}: QEMU does not set the link: {why}", self.name),
            remedy: "only a network card has a cable".to_owned(),
        })
    }

    /// Makes QEMU announce the card's place to the network once, as after a move to another machine, and ask a driver
    /// that can (VIRTIO_NET_F_GUEST_ANNOUNCE) to do so, too.
    ///
    /// # Errors
    /// [`Error::Qemu`] where QEMU does not; [`Error::DeviceGone`].
    pub fn announce(&self) -> Result<()> {
        let machine = self.machine()?;
        let id = spec::id(self.slot);
        let command = format!(
            r#"{{"execute": "announce-self", "arguments": {{"initial": 50, "max": 50, "rounds": 1, "step": 10, "interfaces": ["{id}"]}}}}"#
        );
        let done = lock(&machine.monitor).run(&command, None);
        done.map_err(|why| Error::Qemu {
            what: format!("{}: QEMU does not announce it: {why}", self.name),
            remedy: "only a network card has a place in a network".to_owned(),
        })
    }

    /// Pulls the device out of its slot, without asking its driver: it is gone for good.
    ///
    /// # Errors
    /// [`Error::Usage`] where it was not started with `hotplug=on`; [`Error::DeviceGone`] where that
    /// was done before.
    pub fn unplug(&self) -> Result<()> {
        let machine = self.machine()?;
        let Some(port) = &self.port else {
            return Err(Error::Usage(format!(
                "{}: it cannot be pulled out: start it with hotplug=on",
                self.name
            )));
        };
        // Before it is: no register access finds what is in its place then.
        self.removal.announce(Why::Removal);
        let list = port.capabilities()?;
        let found = list.iter().find(|capability| capability.id == EXPRESS);
        let gone = || Error::DeviceGone(self.name.clone());
        let place = found.ok_or_else(gone)?.offset + SLOT_CONTROL;
        let control = port.read16(place)? | POWERED_DOWN;
        port.write(place, &control.to_le_bytes())?;
        machine.wire.flush();
        Ok(())
    }

    fn machine(&self) -> Result<Arc<Machine>> {
        let there = self.machine.upgrade();
        let there = there.filter(|_| !self.removal.is_announced());
        there.ok_or_else(|| Error::DeviceGone(self.name.clone()))
    }
}

/// The registers of a bridge that say which buses are behind it (primary, secondary, highest), and
/// which memory, first and last MiB (PCI-to-PCI Bridge Architecture 1.2, §3.2.5).
const BUSES: u16 = 0x18;
const MEMORY_BEHIND: u16 = 0x20;

const MIB: u64 = 1 << 20;

/// Sets up the port in slot `slot` of bus 0 and what is below it, which gets the bus of that number.
pub(super) fn below_a_port(bridge: &Arc<HostBridge>, slot: u8) -> Result<(Ports, Ports, Vec<Bar>)> {
    let port = Ports::new(Arc::clone(bridge), 0, slot);
    port.write(BUSES, &[0, slot, slot])?;
    let first = bridge.align(MIB);
    let device = Ports::new(Arc::clone(bridge), slot, 0);
    let bars = device.assign_bars()?;
    let last = bridge.align(MIB).max(first + MIB) - 1;
    for (place, address) in [(MEMORY_BEHIND, first), (MEMORY_BEHIND + 2, last)] {
        // The upper 12 bits of 16 are the upper 12 of the address.
        port.write(place, &((address >> 16) as u16 & 0xfff0).to_le_bytes())?;
    }
    port.command(Command::MEMORY | Command::BUS_MASTER, Command::empty())?;
    Ok((port, device, bars))
}

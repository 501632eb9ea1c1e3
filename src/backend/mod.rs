//! The ways to reach a PCI function.
//!
//! A [`Backend`] is one function, whatever is behind it: a real one over VFIO, one of QEMU's device
//! models over qtest, or a fake. Drivers are generic over it and never name one, so
//! that the same driver code runs in all three, and nothing on the hot path is a dynamic call.

mod any;
mod fake;
mod qtest;
mod vfio;
mod watch;

use std::sync::Arc;

pub use any::{AnyBackend, AnyBar};
pub use fake::{Fake, FakeBar, FakeDevice, FakeMemory};
pub use qtest::{Peer, Qtest, QtestBar, QtestControl, QtestSpec, UdpPort};
pub use vfio::{Vfio, VfioBar};
pub use watch::{Watch, Watched, WatchedBar};

use crate::dma::{DmaSpace, Iova};
use crate::error::{Error, Result};
use crate::irq::{Irq, IrqKind, Removal};
use crate::mmio::Mmio;
use crate::pci::config::{self, Config};
use crate::pci::express::{self, Aspm};

/// One PCI function.
///
/// INTx is off from the moment the function is open, and whatever is done to it, until
/// [`Backend::interrupts`] turns it on: a level that nobody listens to, on a line that is shared, storms
/// until the kernel turns off the line, for everybody. A driver cannot touch that bit:
/// [`Config::command`] does not.
///
/// Dropping the backend gives the function back: interrupts off, bus mastering off, mappings gone.
///
/// # What a driver may rely on
/// - No DMA before [`Command::BUS_MASTER`](crate::pci::config::Command::BUS_MASTER) is on. Memory that was mapped is
///   reached at once; what was unmapped is not, where an IOMMU is in between ([`Backend::has_iommu`]).
/// - Register accesses of one thread arrive in their order, and reads are answered after the writes before them. A write
///   alone has not arrived as it returns: over qtest, as over PCI, it is posted.
/// - A device that is gone reads all ones, of registers and of config space, so that every wait needs a bound. That it is
///   being taken away is told before ([`Backend::removal`]): give that to
///   [`RingState::new`](crate::ring_state::RingState::new), and rings tell their callers.
/// - The same driver runs over VFIO, qtest and fakes: it is generic, and asks for nothing else.
pub trait Backend: Config + Send {
    /// A mapped BAR.
    type Bar: Mmio + 'static;

    /// Name for people: `0000:00:03.0`, `qtest:e1000`.
    fn name(&self) -> &str;

    /// Maps BAR `index` (0 to 5), which must be a memory BAR of at least `least` bytes. How long a BAR is
    /// the device says; how much of it is needed, the driver's register table
    /// ([`RegInfo::size_of`](crate::mmio::RegInfo::size_of)). Held against each other here, before the
    /// first access, no register of the table lies outside of what is mapped.
    ///
    /// # Errors
    /// [`Error::UnusableBar`] where there is no such BAR, or one of I/O ports, or one that is too short;
    /// where the system refuses.
    fn map_bar(&self, index: u8, least: usize) -> Result<Self::Bar>;

    /// Opens the first BAR that is I/O ports: offsets count from its first port. For what a chip cannot be
    /// told by memory; nothing on a hot path.
    ///
    /// # Errors
    /// [`Error::NotOffered`] where the function has none of at least `least` bytes, or they cannot be reached.
    fn map_ports(&self, least: usize) -> Result<Self::Bar> {
        let _ = least;
        Err(Error::NotOffered {
            device: self.name().to_owned(),
            what: "reach its I/O ports".to_owned(),
        })
    }

    /// Turns off ASPM (L0s and L1) of the function's PCI Express link, at the ends of it that can be
    /// reached, and gives what is still on.
    ///
    /// # Errors
    /// As [`Config::read`].
    fn disable_aspm(&self) -> Result<Aspm> {
        express::disable_aspm(self)
    }

    /// Source of memory that the device can reach.
    fn dma(&self) -> &Arc<dyn DmaSpace>;

    /// Says how many address lines the device has, where it has fewer than 64: memory and files in its space get
    /// addresses that it reaches. A driver says so first of all, before it allocates.
    ///
    /// ```
    /// use pinwire::backend::Backend;
    /// use pinwire::dma::Pool;
    ///
    /// fn start(card: &impl Backend) -> pinwire::Result<Pool> {
    ///     card.limit_dma(32)?;
    ///     // All of it lies below 4 GiB, for the device.
    ///     Pool::new(card.dma(), 256, 2048)
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfReach`] where something in the space lies beyond already.
    fn limit_dma(&self, lines: u32) -> Result<()> {
        let last = 1u64.checked_shl(lines).map_or(u64::MAX, |past| past - 1);
        self.dma().limit(self.name(), Iova(last))
    }

    /// Turns on the first `count` vectors of one kind; those turned on before are off, and so is INTx,
    /// unless it is what was asked for.
    ///
    /// # Errors
    /// If the function has not that many.
    fn interrupts(&self, kind: IrqKind, count: usize) -> Result<Vec<Irq>>;

    /// Resets the function by the bus's means; `false` where it has none, and the driver must do
    /// with the device's own reset. What interrupts were on, or that INTx was off, is so after it, too.
    ///
    /// # Errors
    /// If the reset was tried and failed.
    fn reset(&self) -> Result<bool>;

    /// Returns whether an IOMMU stands between the device and memory, so that a virtio device must use its
    /// addresses. When memory is freed does not depend on it: see [`DmaSpace::quarantine`].
    fn has_iommu(&self) -> bool;

    /// The news that the function is being taken away, or that its bus met an error: reads memory only, where
    /// [`Backend::check_present`] asks the system. One that is never announced, where the backend hears of
    /// nothing.
    fn removal(&self) -> Arc<Removal> {
        Removal::of(self.name())
    }

    /// Returns whether the function seems not to be there any more: config space reads all ones, or cannot be
    /// read. One that is really gone does no DMA, and none when it comes back, since a link that went down
    /// resets what is below it (PCI Express 4.0, §2.9.1); but a device can say so and stay. One that the
    /// system only wants back is still there.
    fn is_absent(&self) -> bool {
        !answers(self)
    }

    /// Checks that the function is still there.
    ///
    /// # Errors
    /// [`Error::DeviceGone`] where config space reads all ones, or the system wants the function back.
    fn check_present(&self) -> Result<()> {
        match answers(self) {
            true => Ok(()),
            false => Err(Error::DeviceGone(self.name().to_owned())),
        }
    }
}

/// The command register's bit that turns INTx off (PCI 3.0, §6.2.2).
const INTX_DISABLE: u16 = 1 << 10;

/// Turns INTx on or off in config space.
fn set_intx(config: &(impl Config + ?Sized), on: bool) -> Result<()> {
    let now = config.read16(config::COMMAND)?;
    let then = match on {
        true => now & !INTX_DISABLE,
        false => now | INTX_DISABLE,
    };
    config.write(config::COMMAND, &then.to_le_bytes())
}

/// Finding of a backend in place of a BAR, with its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Ports(u64),
    Memory(u64),
}

/// Checks that BAR `index` of `device` can be mapped and has at least `least` bytes. Every backend calls it.
fn check_bar(device: &str, index: u8, found: Found, least: usize) -> Result<()> {
    match found {
        Found::Memory(size) if size >= least as u64 => Ok(()),
        _ => Err(unusable_bar(device, index, found, least)),
    }
}

/// The reason for which BAR `index` of `device` cannot be mapped with at least `least` bytes.
fn unusable_bar(device: &str, index: u8, found: Found, least: usize) -> Error {
    let (size, why) = match found {
        Found::Nothing if index > 5 => (0, "there are BARs 0 to 5"),
        Found::Nothing => (0, "there is none"),
        Found::Ports(size) => (size, "it is not memory, but I/O ports"),
        Found::Memory(size) => (size, "it is too short"),
    };
    Error::UnusableBar {
        device: device.to_owned(),
        bar: index,
        size,
        needed: least as u64,
        why,
    }
}

/// The error of a device that does not reach `end`, but only as far as `last`. Every backend's space gives it.
fn out_of_reach(device: &str, last: Iova, end: Iova) -> Error {
    Error::OutOfReach {
        device: device.to_owned(),
        last: last.0,
        end: end.0,
    }
}

/// Returns whether config space reads anything but all ones.
fn answers(config: &(impl Config + ?Sized)) -> bool {
    // VFIO answers for the ids by itself, so the class and revision are asked for, too.
    [config::VENDOR_ID, config::REVISION]
        .iter()
        .all(|offset| config.read32(*offset).is_ok_and(|word| word != u32::MAX))
}

#[cfg(test)]
mod tests {
    /// The command register consists of words of config space like others, so that a driver could write it by hand.
    #[test]
    fn no_driver_writes_the_command_register_by_hand() {
        let mut folders = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/src").into()];
        let mut read = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir::<std::path::PathBuf>(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let is_ours = ["src/backend/", "src/pci/"]
                    .iter()
                    .any(|ours| path.to_str().unwrap().contains(ours));
                let text = std::fs::read_to_string(&path).unwrap();
                // By its name, which drivers import or write out.
                let named = |line: &str| {
                    let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
                    line.contains("config::") && words.any(|word| word == "COMMAND")
                };
                let found = text.lines().find(|line| !is_ours && named(line));
                assert_eq!(found, None, "{}", path.display());
                read += 1;
            }
        }
        assert!(read > 100, "{read} files");
    }
}

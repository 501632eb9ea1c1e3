//! `pinwire bind` and `pinwire unbind`.

use super::output::{self, Failure, Outcome};
use crate::Error;
use crate::block;
use crate::open::Drivers;
use crate::pci::{Address, Rebound, Sysfs};

/// Takes PCI functions from the kernel: binds them to vfio-pci.
///
/// The former state of a function (its driver, its driver_override) is kept in /run/pinwire until
/// `pinwire unbind` gives it back. Refused is what is neither a network card nor an NVMe disk, and what is in use: an interface
/// that has an address, is part of a bridge or the like, is listened to, or is in another network
/// namespace; a card with virtual functions; a disk with anything on it.
#[derive(clap::Args)]
pub struct Bind {
    /// Addresses, such as 0000:00:03.0; see `pinwire list`
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<Address>,

    /// Takes them even where they are neither network cards nor NVMe disks, or their interface is in use; not what has a
    /// disk that is in use
    #[arg(long)]
    force: bool,
}

impl Bind {
    /// Runs it.
    pub fn run(self, drivers: &Drivers) -> Outcome {
        let sysfs = Sysfs::default();
        for &address in &self.addresses {
            report(address, &sysfs.bind(address, self.force)?)?;
        }
        // The last word: is it enough?
        for &address in &self.addresses {
            let function = sysfs.function(address)?;
            match sysfs.check_usable(&function) {
                Err(error @ Error::GroupNotViable { .. }) => tracing::warn!("{error}"),
                checked => drop(checked?),
            }
            let (vendor, device) = (function.vendor, function.device);
            let class = function.class;
            if !drivers.drives(block::Function {
                vendor,
                device,
                class,
            }) {
                output::line(format!(
                    "{address}: no command here has a driver for {vendor:04x}:{device:04x}; other programs may"
                ))?;
            }
        }
        Ok(())
    }
}

/// Gives PCI functions back to the drivers they had before `pinwire bind`.
///
/// Where one is not as it was before, it says what is left, and what to do; the others are given back all
/// the same, and the exit code is 1.
#[derive(clap::Args)]
pub struct Unbind {
    /// Addresses, such as 0000:00:03.0; see `pinwire list`
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<Address>,
}

impl Unbind {
    /// Runs it.
    pub fn run(self) -> Outcome {
        let sysfs = Sysfs::default();
        let mut outcome = Ok(());
        for &address in &self.addresses {
            match sysfs.unbind(address) {
                Ok(rebound) => report(address, &rebound)?,
                Err(error) => {
                    output::error(&error);
                    outcome = Err(Failure::Told);
                }
            }
        }
        outcome
    }
}

fn report(address: Address, rebound: &Rebound) -> Outcome {
    let name = |driver: &Option<String>| driver.clone().unwrap_or("no driver".to_owned());
    match rebound.from == rebound.to {
        true => output::line(format!("{address}: on {} already", name(&rebound.to)))?,
        false => output::line(format!(
            "{address}: {} -> {}",
            name(&rebound.from),
            name(&rebound.to)
        ))?,
    }
    for note in &rebound.notes {
        output::line(format!("{address}: {note}"))?;
    }
    Ok(())
}

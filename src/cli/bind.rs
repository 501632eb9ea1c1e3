//! `pinwire bind` and `pinwire unbind`.

use pinwire::Error;
use pinwire::pci::{Address, Rebound, Sysfs};

use super::{Outcome, output};

/// Takes PCI functions from the kernel: binds them to vfio-pci.
///
/// What a function had before (its driver, its driver_override) is remembered in /run/pinwire until
/// `pinwire unbind` gives it back. One whose interface is up with an address, is part of a bridge, or
/// has a mounted disk is refused.
#[derive(clap::Args)]
pub struct Bind {
    /// Where they are, such as 0000:00:03.0; see `pinwire list`
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<Address>,

    /// Takes them even where the system is using them
    #[arg(long)]
    force: bool,
}

impl Bind {
    /// Runs it.
    pub fn run(self) -> Outcome {
        let sysfs = Sysfs::default();
        for &address in &self.addresses {
            report(address, &sysfs.bind(address, self.force)?)?;
        }
        // The last word: is it enough?
        for &address in &self.addresses {
            match sysfs.check_usable(&sysfs.function(address)?) {
                Err(error @ Error::GroupNotViable { .. }) => tracing::warn!("{error}"),
                checked => drop(checked?),
            }
        }
        Ok(())
    }
}

/// Gives PCI functions back to the drivers they had before `pinwire bind`.
#[derive(clap::Args)]
pub struct Unbind {
    /// Where they are, such as 0000:00:03.0; see `pinwire list`
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<Address>,
}

impl Unbind {
    /// Runs it.
    pub fn run(self) -> Outcome {
        let sysfs = Sysfs::default();
        for &address in &self.addresses {
            report(address, &sysfs.unbind(address)?)?;
        }
        Ok(())
    }
}

fn report(address: Address, rebound: &Rebound) -> Outcome {
    let name = |driver: &Option<String>| driver.clone().unwrap_or("no driver".to_owned());
    match rebound.from == rebound.to {
        true => output::line(format!("{address}: on {} already", name(&rebound.to))),
        false => output::line(format!(
            "{address}: {} -> {}",
            name(&rebound.from),
            name(&rebound.to)
        )),
    }
}

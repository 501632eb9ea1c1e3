//! `pinwire bind` and `pinwire unbind`.

use pinwire::Error;

use super::Outcome;

/// Takes a PCI function from the kernel: binds it to vfio-pci.
#[derive(clap::Args)]
pub struct Bind {}

impl Bind {
    /// Runs it.
    pub fn run(self) -> Outcome {
        Err(Error::Usage("not there yet".to_owned()).into())
    }
}

/// Gives a PCI function back to the driver it had.
#[derive(clap::Args)]
pub struct Unbind {}

impl Unbind {
    /// Runs it.
    pub fn run(self) -> Outcome {
        Err(Error::Usage("not there yet".to_owned()).into())
    }
}

//! `pinwire list`.

use pinwire::Error;

use super::Outcome;

/// Lists the PCI functions, with their driver and IOMMU group, and says which can be used.
#[derive(clap::Args)]
pub struct Args {}

impl Args {
    /// Runs it.
    pub fn run(self) -> Outcome {
        Err(Error::Usage("not there yet".to_owned()).into())
    }
}

//! `pinwire show`.

use pinwire::Error;

use super::Outcome;

/// Shows a card's registers and rings, decoded.
#[derive(clap::Args)]
pub struct Args {}

impl Args {
    /// Runs it.
    pub fn run(self) -> Outcome {
        Err(Error::Usage("not there yet".to_owned()).into())
    }
}

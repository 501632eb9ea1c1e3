//! `pinwire recv`.

use pinwire::Error;

use super::Outcome;

/// Receives packets.
#[derive(clap::Args)]
pub struct Args {}

impl Args {
    /// Runs it.
    pub fn run(self) -> Outcome {
        Err(Error::Usage("not there yet".to_owned()).into())
    }
}

//! `pinwire bench`.

use pinwire::Error;

use super::Outcome;

/// Measures packets per second.
#[derive(clap::Args)]
pub struct Args {}

impl Args {
    /// Runs it.
    pub fn run(self) -> Outcome {
        Err(Error::Usage("not there yet".to_owned()).into())
    }
}

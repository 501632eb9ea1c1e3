//! `pinwire ladder-helper`, which `ladder` starts by itself.

use std::path::PathBuf;

use crate::cli::output::{self, Outcome};
use crate::lab::ladder::helper;

/// What a helper does
#[derive(clap::Args)]
pub struct Args {
    /// Send this file to all who connect, instead of taking transfers
    #[arg(long)]
    feed: Option<PathBuf>,
}

impl Args {
    /// Runs it.
    pub fn run(self) -> Outcome {
        helper::help(self.feed.as_deref(), output::line)
    }
}

//! `pinwire ladder-helper`, which `ladder` starts by itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::output::{self, Outcome};
use crate::lab::ladder::helper::{self, Helper};
use crate::{Error, Result};

/// The command's name, which is not for people.
const NAME: &str = "ladder-helper";

/// Takes transfers, or feeds a file, for the ladder
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

/// A far end.
pub fn far_end() -> Result<Helper> {
    Helper::start(ourselves()?)
}

/// One that sends `file` to all who connect.
pub fn feeder(file: &Path) -> Result<Helper> {
    let mut command = ourselves()?;
    command.arg("--feed").arg(file);
    Helper::start(command)
}

fn ourselves() -> Result<Command> {
    let program = std::env::current_exe();
    let program = program.map_err(|source| Error::io("starting a helper of our own", source))?;
    let mut command = Command::new(program);
    command.arg(NAME);
    Ok(command)
}

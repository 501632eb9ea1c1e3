//! `pinwire udp-ports`, which `qemu/vm` starts its QEMU by.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::output::Outcome;
use crate::Error;
use crate::backend::UdpPort;

/// Runs a QEMU that receives on UDP ports of 127.0.0.1, which must be nobody else's.
#[derive(clap::Args)]
pub struct Args {
    /// A port; may be repeated
    #[arg(long = "port", value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,

    /// QEMU and its arguments
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

impl Args {
    /// Becomes that program, unless somebody has a port.
    pub fn run(self) -> Outcome {
        let mut taken = Vec::new();
        for port in self.ports {
            let port = UdpPort::take(port)?;
            port.keep()?;
            taken.push(port);
        }
        let (program, arguments) = self.command.split_first().expect("clap wants one");
        let failed = Command::new(program).args(arguments).exec();
        let what = format!("running {}", program.display());
        Err(Error::io(what, failed).into())
    }
}

//! `pinwire disk`.

mod content;
mod info;

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use super::args;
use super::output::{self, Outcome, grouped};
use super::signals::INTERRUPTED;
use crate::block::{Disk, DiskConfig, Transfer};
use crate::open::Drivers;
use crate::{DeviceSpec, Error, user_file};

/// Drives a disk (NVMe): says what it is, reads and writes its blocks by DMA, past the kernel
///
/// The disk is bound to vfio-pci (`pinwire bind`, which takes none that is in use), or QEMU's model on this host with
/// a file as its blocks (no root, no VM): qtest:nvme,drive=FILE
///
/// Examples:
///
///   What it is, and what it can do:
///     pinwire disk info 0000:00:05.0
///     pinwire disk info qtest:nvme,drive=disk.img
///   Its first MiB into a file; a partition table on the terminal:
///     pinwire disk read 0000:00:05.0 --length 1M -o first.img
///     pinwire disk read 0000:00:05.0 --length 512 | xxd
///   A file onto it, flushed, and read again to be compared:
///     pinwire disk write 0000:00:05.0 disk.img --verify
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(clap::Subcommand)]
enum Deed {
    Info(Info),
    Read(ReadArgs),
    Write(WriteArgs),
}

/// Says what a disk is: model, namespaces, limits, health
#[derive(clap::Args)]
struct Info {
    /// The disk: a PCI address (0000:00:05.0) or QEMU's model on this host (qtest:nvme,drive=FILE)
    device: DeviceSpec,

    /// Print a JSON object, for programs
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Place {
    /// The disk: a PCI address (0000:00:05.0) or QEMU's model on this host (qtest:nvme,drive=FILE)
    device: DeviceSpec,

    /// Number of the namespace
    #[arg(long, value_name = "N", default_value_t = 1)]
    namespace: u32,

    /// Byte to begin at (K, M, G for units of 1024)
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = args::bytes)]
    offset: u64,
}

/// Reads a disk into a file, or to standard output
#[derive(clap::Args)]
struct ReadArgs {
    #[command(flatten)]
    place: Place,

    /// Bytes to read [default: all that follow]
    #[arg(long, value_name = "BYTES", value_parser = args::bytes)]
    length: Option<u64>,

    /// The file to write; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

/// Writes a file onto a disk, and flushes it
///
/// A disk that holds a partition table, a file system or the like is left as it is, unless --overwrite says otherwise.
#[derive(clap::Args)]
struct WriteArgs {
    #[command(flatten)]
    place: Place,

    /// The file whose bytes are written
    file: PathBuf,

    /// Write onto a disk that holds something
    #[arg(long)]
    overwrite: bool,

    /// Read it again after it was flushed, and compare
    #[arg(long)]
    verify: bool,
}

impl Args {
    /// Runs it.
    pub fn run(self, drivers: &Drivers) -> Outcome {
        match self.deed {
            Deed::Info(info) => info.run(drivers),
            Deed::Read(read) => read.run(drivers),
            Deed::Write(write) => write.run(drivers),
        }
    }
}

fn open(drivers: &Drivers, device: &DeviceSpec) -> Result<Box<dyn Disk>, Error> {
    drivers.open_disk(device, &DiskConfig::default(), None)
}

impl Info {
    fn run(self, drivers: &Drivers) -> Outcome {
        let mut disk = open(drivers, &self.device)?;
        match self.json {
            true => output::line(info::json(&mut *disk)?),
            false => output::line(info::text(&mut *disk)?),
        }
    }
}

impl ReadArgs {
    fn run(self, drivers: &Drivers) -> Outcome {
        let Place {
            device,
            namespace,
            offset,
        } = self.place;
        if self.output == Path::new("-") && io::stdout().is_terminal() {
            return Err(Error::Usage(
                "standard output is a terminal, and blocks are not text: name a file (-o FILE), or pipe it, as to: xxd"
                    .to_owned(),
            )
            .into());
        }
        let mut disk = open(drivers, &device)?;
        let mut transfer = Transfer::new(&mut *disk, namespace, &INTERRUPTED)?;
        let rest = transfer.namespace().bytes().saturating_sub(offset);
        let length = self.length.unwrap_or(rest);
        // Before the file is made, which may be there already.
        transfer.check(offset, length)?;
        let bar = progress("read", length);
        let unwritable = |source| -> output::Failure {
            Error::io(format!("cannot write {}", self.output.display()), source).into()
        };
        if self.output == Path::new("-") {
            let mut to = io::stdout().lock();
            return transfer.read(offset, length, |bytes| {
                bar.inc(bytes.len() as u64);
                to.write_all(bytes).map_err(output::stdout_failed)
            });
        }
        let mut to = user_file::create(&self.output).map_err(unwritable)?;
        transfer.read(offset, length, |bytes| {
            bar.inc(bytes.len() as u64);
            to.write_all(bytes).map_err(unwritable)
        })?;
        bar.finish_and_clear();
        output::aside(format_args!("read {} bytes", grouped(length)));
        Ok(())
    }
}

impl WriteArgs {
    fn run(self, drivers: &Drivers) -> Outcome {
        let Place {
            device,
            namespace,
            offset,
        } = self.place;
        let (file, length) = user_file::regular(&self.file, "what is written onto a disk")?;
        let mut disk = open(drivers, &device)?;
        let mut transfer = Transfer::new(&mut *disk, namespace, &INTERRUPTED)?;
        transfer.check(offset, length)?;
        if !self.overwrite {
            let mut head = Vec::new();
            let seen = content::BYTES.min(transfer.namespace().bytes());
            transfer.read(0, seen, |bytes| {
                head.extend_from_slice(bytes);
                Ok::<_, Error>(())
            })?;
            if let Some(what) = content::of(&head) {
                return Err(Error::Usage(format!(
                    "{device} holds {what}, which would be destroyed, and nothing was written\n  \
                     to write all the same: --overwrite"
                ))
                .into());
            }
        }
        let unreadable = |source| Error::io(format!("cannot read {}", self.file.display()), source);
        let bar = progress("written", length);
        let mut from = &file;
        transfer.write(offset, length, |bytes| {
            bar.inc(bytes.len() as u64);
            from.read_exact(bytes).map_err(unreadable)
        })?;
        transfer.flush()?;
        bar.finish_and_clear();
        output::aside(format_args!("wrote {} bytes, and flushed", grouped(length)));
        if self.verify {
            verify(&mut transfer, offset, length, &self.file)?;
        }
        Ok(())
    }
}

/// Reads what was written, and compares it with the file.
fn verify(transfer: &mut Transfer<'_>, offset: u64, length: u64, path: &Path) -> Outcome {
    let unreadable = |source| Error::io(format!("cannot read {}", path.display()), source);
    let mut file = File::open(path).map_err(unreadable)?;
    let bar = progress("compared", length);
    let (mut at, mut expected) = (offset, Vec::new());
    transfer.read(offset, length, |bytes| {
        expected.resize(bytes.len(), 0);
        file.read_exact(&mut expected).map_err(unreadable)?;
        if let Some(differs) = bytes.iter().zip(&expected).position(|(is, was)| is != was) {
            return Err(Error::io(
                format!(
                    "comparing what was written: byte {} differs",
                    at + differs as u64
                ),
                io::ErrorKind::InvalidData.into(),
            ));
        }
        at += bytes.len() as u64;
        bar.inc(bytes.len() as u64);
        Ok(())
    })?;
    bar.finish_and_clear();
    output::aside(format_args!(
        "read it again: all {} bytes are the same",
        grouped(length)
    ));
    Ok(())
}

/// A bar of bytes, on a terminal.
fn progress(what: &'static str, bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = format!(
        "{{wide_bar:.cyan}} {{bytes}}/{{total_bytes}} {what}, {{bytes_per_sec}}, {{eta}} left"
    );
    let style = ProgressStyle::with_template(&style).expect("a template that is right");
    ProgressBar::new(bytes).with_style(style)
}

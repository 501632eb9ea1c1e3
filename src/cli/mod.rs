//! The `pinwire` command: what it understands, and what it exits with.
//!
//! Exit codes: 0 done, 1 failed, 2 not understood, 130 interrupted.

mod args;
mod bench;
mod bind;
mod disk;
mod echo;
mod figure;
mod forward;
mod hints;
mod ladder;
mod list;
mod output;
mod pagecache;
mod picture;
mod ping;
mod recv;
mod send;
mod serve;
mod show;
mod signals;
mod stats;
mod udp_ports;

use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Parser, Subcommand};
use tracing_subscriber::filter::LevelFilter;

use self::output::Failure;
use crate::Error;
use crate::open::Drivers;
use crate::scope::text::paint;

/// Drives PCI network cards from user space: maps a card's registers, pins memory through the IOMMU,
/// and sends and receives packets from that memory, past the kernel.
///
/// A DEVICE is a PCI address, for a card bound to vfio-pci, or a device model of QEMU that pinwire
/// starts on this host (no root, no VM):
///
///   0000:00:03.0                         the card at that address
///   qtest:e1000                          QEMU's e1000, its cable not plugged in anywhere
///   qtest:e1000,pcap=FILE                all that passes through its cable goes to a capture
///   qtest:e1000,net=udp:LOCAL:REMOTE     its cable is UDP on 127.0.0.1, one frame a datagram
///   qtest:virtio-net,packed=on           QEMU's virtio-net, with a property of its model
///   qtest:virtio-net,net=tap:IF,queues=4 its cable is a tap with so many queue pairs
#[derive(Parser)]
#[command(version, verbatim_doc_comment, max_term_width = 100, styles = STYLES, after_help = FIRST_STEPS)]
struct Cli {
    /// Says what it does on the way: -v, -vv and -vvv for more
    #[arg(short, long, action = ArgAction::Count, global = true, display_order = 1000)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

const FIRST_STEPS: &str = "\
First steps:
  pinwire list                                         which cards there are
  pinwire send qtest:e1000 --synthetic 64 --count 1 --explain
                                                       one packet, step by step, on any machine
  sudo pinwire bind 0000:00:03.0                       take a card from the kernel
  sudo pinwire recv 0000:00:03.0 -w - | tcpdump -r -   look at what comes in";

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

#[derive(Subcommand)]
enum Command {
    List(list::Args),
    Bind(bind::Bind),
    Unbind(bind::Unbind),
    Send(send::Args),
    Recv(recv::Args),
    Forward(forward::Args),
    Echo(echo::Args),
    Ping(ping::Args),
    Stats(stats::Args),
    Show(show::Args),
    Bench(bench::Args),
    Ladder(ladder::Args),
    #[command(hide = true)]
    LadderHelper(ladder::helper::Args),
    Disk(disk::Args),
    Pagecache(pagecache::Args),
    Serve(serve::Args),
    #[command(hide = true)]
    UdpPorts(udp_ports::Args),
}

/// Runs the command that the arguments name, for the cards of `drivers`: this crate's, and those of others that a
/// program adds.
///
/// ```no_run
/// use pinwire::open::Drivers;
///
/// fn main() -> std::process::ExitCode {
///     pinwire::cli::run(&Drivers::default())
/// }
/// ```
pub fn run(drivers: &Drivers) -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(paint::stderr_has_colour())
        .with_target(false)
        .without_time()
        .init();
    let outcome = signals::catch()
        .map_err(|source| Error::io("catching signals", source).into())
        .and_then(|()| match cli.command {
            Command::List(args) => args.run(drivers),
            Command::Bind(args) => args.run(drivers),
            Command::Unbind(args) => args.run(),
            Command::Send(args) => args.run(drivers),
            Command::Recv(args) => args.run(drivers),
            Command::Forward(args) => args.run(drivers),
            Command::Echo(args) => args.run(drivers),
            Command::Ping(args) => args.run(drivers),
            Command::Stats(args) => args.run(drivers),
            Command::Show(args) => args.run(drivers),
            Command::Bench(args) => args.run(drivers),
            Command::Ladder(args) => args.run(drivers),
            Command::LadderHelper(args) => args.run(),
            Command::Disk(args) => args.run(drivers),
            Command::Pagecache(args) => args.run(),
            Command::Serve(args) => args.run(),
            Command::UdpPorts(args) => args.run(),
        });
    match outcome {
        Ok(()) | Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::FAILURE,
        Err(Failure::Error(Error::Interrupted)) => ExitCode::from(130),
        Err(Failure::Error(error)) => {
            output::error(&error);
            ExitCode::FAILURE
        }
        Err(Failure::Hinted(error, hint)) => {
            output::error(&error);
            output::aside(format_args!("  {hint}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_sound() {
        super::Cli::command().debug_assert();
    }
}

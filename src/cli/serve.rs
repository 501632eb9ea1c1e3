//! `pinwire serve`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::args;
use super::figure::six;
use super::output::{self, Failure, Outcome, grouped};
use super::signals::INTERRUPTED;
use crate::Error;
use crate::paths::serve::{Config, Counts, Patience, Server, Way};

/// Serves the files of a folder over HTTP/1.1; how their bytes get into the socket is yours to choose
///
/// GET and HEAD, ranges, conditional requests, connections that stay, index.html or a listing. Nothing
/// outside of the folder is served, whatever a name or a symbolic link says. -v logs each request to
/// standard error. Ctrl-C finishes the answers under way, prints what was counted, and ends with 130.
///
/// Examples:
///
///   This folder, for this machine only, on port 8888:
///     pinwire serve .
///     curl -r 0-99 http://127.0.0.1:8888/README.md
///   For everybody who reaches this machine, with each request logged:
///     pinwire serve films --address 0.0.0.0 --port 80 -v
///   The same files another way; then compare (qemu/serve-bench compares them all, and nginx):
///     pinwire serve films --method io_uring
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The folder
    #[arg(value_name = "DIR")]
    root: PathBuf,

    /// Method that moves the bytes of a file into the socket
    #[arg(short, long, value_enum, default_value_t, value_name = "HOW")]
    method: Method,

    /// Port to listen on; 0 takes one that is free
    #[arg(short, long, value_name = "PORT", default_value_t = 8888)]
    port: u16,

    /// Address to listen at: 0.0.0.0 or :: for all of this machine's
    #[arg(short, long, value_name = "IP", default_value_t = Ipv4Addr::LOCALHOST.into())]
    address: IpAddr,

    /// Threads [default: one for each processor]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,

    /// Connections at once; more wait until one ends [default: 10240, or what the limit of open files
    /// allows]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: Option<u32>,

    /// Longest time for which a connection may be idle between requests
    #[arg(long, value_name = "S", default_value = "60", value_parser = args::seconds)]
    idle: Duration,

    /// Longest time for a request to come in, from its first byte
    #[arg(long, value_name = "S", default_value = "10", value_parser = args::seconds)]
    head: Duration,

    /// A peer must take bytes of its answer in each S seconds ...
    #[arg(long, value_name = "S", default_value = "20", value_parser = args::seconds)]
    window: Duration,

    /// ... and so many a second, on average over them
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    min_rate: u64,

    /// Print the summary as JSON, for programs
    #[arg(long)]
    json: bool,
}

/// `--method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Method {
    /// read into a buffer, send from it: two copies by the processor
    Read,
    /// send from a mapping of the file: one copy
    Mmap,
    /// One call that hands pages over: no copy
    #[default]
    Sendfile,
    /// The same by way of a pipe, in two calls: no copy
    Splice,
    /// Chains of reads and sends through registered buffers: two copies, few calls
    #[value(name = "io_uring")]
    IoUring,
    /// read into a buffer, and a send that refers to it (MSG_ZEROCOPY): one copy, but for a loopback
    Zerocopy,
}

impl From<Method> for Way {
    fn from(method: Method) -> Self {
        match method {
            Method::Read => Self::Read,
            Method::Mmap => Self::Mmap,
            Method::Sendfile => Self::Sendfile,
            Method::Splice => Self::Splice,
            Method::IoUring => Self::IoUring,
            Method::Zerocopy => Self::ZeroCopy,
        }
    }
}

impl Args {
    /// Runs it.
    pub fn run(self) -> Outcome {
        let config = Config {
            root: self.root.clone(),
            address: SocketAddr::new(self.address, self.port),
            way: self.method.into(),
            workers: self.workers.unwrap_or(0).into(),
            connections: self.connections.map(|connections| connections as usize),
            patience: Patience {
                idle: self.idle,
                head: self.head,
                window: self.window,
                min_rate: self.min_rate,
            },
        };
        let server = Server::new(&config).map_err(|error| match error {
            Error::KernelLacks { .. } => Failure::Hinted(error, "such as: --method sendfile"),
            error => Failure::Error(error),
        })?;
        output::aside(format_args!(
            "serving {} at http://{}/ by {}, {}, {} at once; Ctrl-C ends it",
            self.root.display(),
            server.address(),
            self.name(),
            output::count(server.workers() as u64, "worker"),
            output::count(server.connections() as u64, "connection"),
        ));
        let begin = Instant::now();
        let counts = server.run(&INTERRUPTED)?;
        self.report(&server, counts, begin.elapsed())?;
        Err(Error::Interrupted.into())
    }

    /// The method, as it is written.
    fn name(&self) -> String {
        let value = self.method.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn report(&self, server: &Server, counts: Counts, took: Duration) -> Outcome {
        let Counts {
            connections,
            most_at_once,
            requests,
            refused,
            bytes,
            slow,
            cut,
            zero_copy,
        } = counts;
        if self.json {
            return output::line(serde_json::json!({
                "address": server.address().to_string(),
                "method": self.name(),
                "workers": server.workers(),
                "seconds": six(took.as_secs_f64()),
                "connections": connections,
                "most_at_once": most_at_once,
                "requests": requests,
                "refused": refused,
                "bytes": bytes,
                "too_slow": slow,
                "cut_short": cut,
                "zerocopy": {
                    "sends": zero_copy.sends,
                    "completed": zero_copy.completed,
                    "copied_by_kernel": zero_copy.copied_by_kernel,
                    "plain": zero_copy.plain,
                },
            }));
        }
        let mut rows = vec![
            ("method", self.name()),
            ("seconds", output::seconds(took.as_secs_f64())),
            ("connections", grouped(connections)),
            ("most at once", grouped(most_at_once)),
            ("requests", grouped(requests)),
            ("refused (4xx and 5xx)", grouped(refused)),
            ("bytes sent", grouped(bytes)),
            ("peers too slow", grouped(slow)),
            ("answers cut short", grouped(cut)),
        ];
        if self.method == Method::Zerocopy {
            let copied = match zero_copy.copied_by_kernel {
                0 => "0".to_owned(),
                copied => format!(
                    "{}: for what stays on this machine it copies after all",
                    grouped(copied)
                ),
            };
            rows.extend([
                ("sends without a copy", grouped(zero_copy.sends)),
                ("reported as done", grouped(zero_copy.completed)),
                ("copied by the kernel", copied),
                ("sent the plain way", grouped(zero_copy.plain)),
            ]);
        }
        output::line(output::summary(&rows))
    }
}

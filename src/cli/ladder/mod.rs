//! `pinwire ladder`: every way to move a file to the network, side by side, with proof.

pub mod helper;
mod json;
mod list;
mod picture;
mod progress;
mod report;
mod way;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{ArgGroup, ValueEnum};

use self::progress::Bar;
use self::report::Report;
use super::args;
use super::output::{self, Outcome};
use super::signals::{INTERRUPTED, interrupted};
use crate::lab::count::routines::Routines;
use crate::lab::ladder::cache::Cache;
use crate::lab::ladder::card::{CardSite, Cidr};
use crate::lab::ladder::plan::{self, Row, Run, State};
use crate::lab::ladder::run::{Common, Fault};
use crate::lab::ladder::site::Site;
use crate::net::UdpFlow;
use crate::open::Drivers;
use crate::paths::ladder::{BLOCK, Kind, Protocol, Terms};
use crate::pci::Address;
use crate::{Error, Result};

const NOTES: &str = "\
What is counted, for each rung and run, by the kernel and not by belief:
  CPU s/GiB  processor time for 1 GiB. By a card: of the whole machine, since much of the work is
             done by nobody in particular, in interrupts. Over loopback, and where a helper of ours
             feeds a stream: of this process, with all of its threads; interrupts are not in that
  of first   the same as a multiple of the group's first rung: the quotient of the two medians
  calls      system calls of this process (it takes root and tracefs); each is two mode switches
  switches   context switches: those that it wanted since it had to wait, and those that it did not
  faults     page faults: those that found the page in memory, and those that waited for the disk
  copied     how often the processor copied each byte: by the rung's own account; and what the
             kernel's copy routines were seen to copy (kprobes, in a run of its own: root, and a
             kernel with them). What a program copies by itself they do not see

The file is sent again and again, each rung in its turn in each round; what arrives is hashed by the \
far end, and a wrong hash fails the run. A table shows medians; --json has each with its least and most. \
Ctrl-C ends it, and shows what was measured until then.

Cold means that nothing of the file is in the page cache; warm, all of it. Streams that are relayed \
come from a helper of ours; logs and copies go to a file without a name beside FILE.

By a card, the kernel's rungs run on its interface, which is brought up with the address given; pinwire's \
own drive the same card over VFIO. It changes hands in each round, and is given back as it was found.

Examples:
  pinwire ladder --list                                  what there is
  pinwire ladder film.mkv --loopback                     the kernel's rungs, on any machine
  pinwire ladder film.mkv --loopback --only 1,sendfile --cache both --plot ladder.svg
  pinwire ladder film.mkv --card 0000:00:03.0 --address 10.0.2.15/24 --to 10.0.2.2 \\
                          --control 10.0.3.2:7000        all of them, by that card
  qemu/ladder                                            the same in a VM, in one command";

/// Measures every way to move a file to the network: read and write, mmap, sendfile, splice, ..., our own
/// driver
///
/// Each rung of the ladder leaves out something that the one before still did: a copy, a system call, the
/// kernel. They move the same file to the same far end, and what each costs is counted.
#[derive(clap::Args)]
#[command(after_help = NOTES)]
#[command(group = ArgGroup::new("where").required(true).args(["loopback", "card", "list"]))]
pub struct Args {
    /// The file to move
    #[arg(required_unless_present = "list")]
    file: Option<PathBuf>,

    /// Send it over loopback, to a helper of ours: the kernel's rungs
    #[arg(long)]
    loopback: bool,

    /// Send it by this card, which the kernel and pinwire drive in turn
    #[arg(long, value_name = "ADDRESS", requires_all = ["address", "to", "control"])]
    card: Option<Address>,

    /// Show the rungs and the way of a byte on each
    #[arg(long)]
    list: bool,

    /// The card's own address, with its network's prefix: 10.0.2.15/24
    #[arg(long, value_name = "IP/PREFIX", requires = "card")]
    address: Option<Cidr>,

    /// The far end, as the card reaches it
    #[arg(long, value_name = "IP", requires = "card")]
    to: Option<Ipv4Addr>,

    /// The far end's control address (qemu/far-end), where it is told of transfers: reached by another card
    #[arg(long, value_name = "IP:PORT", requires = "card")]
    control: Option<SocketAddr>,

    /// Only these rungs: by number, by name, or by a part of it
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<String>,

    /// Protocols to send by
    #[arg(
        long,
        value_name = "PROTOCOL,...",
        value_delimiter = ',',
        default_value = "tcp,udp"
    )]
    over: Vec<Over>,

    /// Part of the file that is in memory before each run
    #[arg(long, default_value = "warm")]
    cache: Caches,

    /// Rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,

    /// Bytes that a call moves at most, of a stream or a file: 64K
    #[arg(long, value_name = "BYTES", default_value_t = BLOCK as u64, value_parser = block)]
    block: u64,

    /// Bytes of the file in each datagram
    #[arg(long, value_name = "BYTES", default_value_t = Terms::usual(Protocol::Udp) as u32,
          value_parser = clap::value_parser!(u32).range(1..=UdpFlow::LONGEST as i64))]
    payload: u32,

    /// Take the processor's access to the file's mapping away while pinwire sends from the page cache: a
    /// copy would end the program
    #[arg(long, requires = "card")]
    prove: bool,

    /// Folder for the other files of logs and copies [default: beside FILE]
    #[arg(long, value_name = "DIRECTORY")]
    scratch: Option<PathBuf>,

    /// Draw it: the processor time of each rung, and the way of a byte
    #[arg(long, value_name = "FILE.svg|png", value_parser = super::picture::path, conflicts_with = "list")]
    plot: Option<PathBuf>,

    /// For programs: one JSON object, in place of the table; or into FILE, beside it
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    json: Option<PathBuf>,
}

/// `--cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Caches {
    /// The file is in memory
    Warm,
    /// Nothing of it is
    Cold,
    /// One after the other
    Both,
}

impl Caches {
    /// Each of them.
    pub fn each(self) -> &'static [Cache] {
        match self {
            Self::Warm => &[Cache::Warm],
            Self::Cold => &[Cache::Cold],
            Self::Both => &[Cache::Warm, Cache::Cold],
        }
    }
}

/// `--over`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Over {
    /// A stream
    Tcp,
    /// Datagrams
    Udp,
}

fn block(text: &str) -> std::result::Result<u64, String> {
    match args::bytes(text)? {
        bytes @ 1..=0x4000_0000 => Ok(bytes),
        _ => Err("from 1 to 1G".to_owned()),
    }
}

impl Args {
    /// Runs it.
    pub fn run(self, drivers: &Drivers) -> Outcome {
        if self.list {
            return output::line(match self.json {
                Some(_) => list::json().to_string(),
                None => list::table(),
            });
        }
        let over = |over: &Over| match over {
            Over::Tcp => Protocol::Tcp,
            Over::Udp => Protocol::Udp,
        };
        let over: Vec<_> = self.over.iter().map(over).collect();
        let rows = plan::rows(&self.only, &over, self.cache.each())?;
        let path = self.file.as_deref().expect("required by the arguments");
        let common = Common::open(path, self.scratch.as_deref(), &INTERRUPTED)?;
        let common = Common {
            block: self.block as usize,
            payload: self.payload as usize,
            prove: self.prove,
            ..common
        };
        let mut ladder = Ladder {
            common,
            rounds: self.rounds,
            finished: 0,
            rows,
        };
        let site = self.site(drivers)?;
        let mut report = Report::new(&ladder.common, &site, self.rounds)?;
        // Whatever ends it, no run that is over is thrown away.
        let ended = ladder.climb(site);
        report.interrupted = matches!(ended, Err(Error::Interrupted));
        report.finished = ladder.finished;
        report.rows = ladder.rows;
        self.tell(&report)?;
        ended?;
        Ok(report.verdict()?)
    }

    fn site(&self, drivers: &Drivers) -> Result<Site> {
        let card = (self.card, self.address, self.to, self.control);
        match card {
            (Some(card), Some(address), Some(to), Some(control)) => {
                let card = CardSite::find(card, drivers, address, to, control, &INTERRUPTED)?;
                Ok(Site::Card(Box::new(card)))
            }
            _ => helper::far_end().map(Site::Loopback),
        }
    }

    fn tell(&self, report: &Report) -> Outcome {
        if let Some(path) = &self.plot {
            super::picture::save(path, &picture::Ladder::of(report))?;
        }
        output::report(self.json.as_deref(), report.json(), report.table())
    }
}

/// The rungs, and how often each is climbed.
struct Ladder {
    common: Common,
    rounds: u16,
    /// Those that are over.
    finished: u16,
    rows: Vec<Row>,
}

impl Ladder {
    /// Runs them all, and gives `site` back as it was found, whatever happens.
    fn climb(&mut self, mut site: Site) -> Result<()> {
        let ended = self.rounds(&mut site);
        let given_back = site.give_back();
        ended.and(given_back)
    }

    fn rounds(&mut self, site: &mut Site) -> Result<()> {
        let is_fed = |row: &Row| matches!(row.rung.kind, Kind::Relay | Kind::Log);
        let feeder = match self.rows.iter().any(is_fed) {
            true => Some(helper::feeder(&self.common.path)?),
            false => None,
        };
        self.common.feeder = feeder.as_ref().map(|feeder| feeder.address);
        let runs = self.rows.len() as u64 * (1 + u64::from(self.rounds));
        let bar = Bar::new(runs, self.common.len, &self.common.progress);
        self.look_at_routines(site, &bar)?;
        for round in 0..self.rounds {
            for index in plan::order(self.rows.len(), round) {
                let what = format!("round {} of {}", round + 1, self.rounds);
                if let Some(run) = self.turn(index, site, &bar, &what, None)? {
                    self.rows[index].runs.push(run);
                }
            }
            self.finished += 1;
            tracing::info!("round {} of {} is finished", self.finished, self.rounds);
        }
        Ok(())
    }

    /// A run of each for what the kernel's routines are seen to copy; none of them is timed.
    fn look_at_routines(&mut self, site: &mut Site, bar: &Bar) -> Result<()> {
        let routines = match Routines::probe() {
            Ok(routines) => routines,
            Err(why) => {
                for row in &mut self.rows {
                    row.seen = Err(why.clone());
                    bar.end();
                }
                return Ok(());
            }
        };
        for index in 0..self.rows.len() {
            if let Some(run) = self.turn(index, site, bar, "watched", Some(&routines))? {
                self.rows[index].seen = run.seen;
            }
        }
        Ok(())
    }

    /// One run of one row, unless it is known not to go; what comes of it otherwise is written down.
    fn turn(
        &mut self,
        index: usize,
        site: &mut Site,
        bar: &Bar,
        what: &str,
        routines: Option<&Routines>,
    ) -> Result<Option<Run>> {
        let row = &self.rows[index];
        if !row.runs() {
            bar.end();
            return Ok(None);
        }
        if interrupted() {
            return Err(Error::Interrupted);
        }
        let title = row.title();
        bar.begin(&format!("{what}: {title}"));
        let ran = match site.reach(row.rung) {
            Ok(reach) => self.common.run(row, reach, routines),
            Err(error) => Err(Fault::End(error)),
        };
        bar.end();
        match ran {
            Ok(run) => Ok(Some(run)),
            Err(Fault::Missing(why)) => {
                self.rows[index].found_missing(why);
                Ok(None)
            }
            Err(Fault::Rung(why)) => {
                tracing::error!("{title}: {why}");
                self.rows[index].state = State::Failed(why);
                Ok(None)
            }
            Err(Fault::End(error)) => {
                if !matches!(error, Error::Interrupted) {
                    tracing::error!("{title} was the last");
                }
                Err(error)
            }
        }
    }
}

//! `pinwire pagecache`: a file's pages in memory as a map, what one can do to them, and how they change.

mod acts;
mod map;
mod target;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use self::acts::{Act, Deed};
use self::target::Target;
use super::args;
use super::output::{self, Outcome};
use crate::paths::pagecache::{Backing, How, Look};
use crate::scope::text::paint::Paint;

/// Shows which pages of a file are in the page cache, and which the disk does not have yet
///
/// A read that finds its pages in the cache is a hit, one that does not waits for the disk. A write
/// only makes pages dirty; they go to the disk later. The map draws it, a cell for each page or for
/// several. With --watch it goes on, and tells what changed. What --sync, --evict, --read-ahead and
/// --touch do is done in this order, then the map is drawn.
///
/// Who is not root, does not own the file and may not write it is told nothing by the kernel.
///
/// Examples:
///
///   What is there:
///     pinwire pagecache film.mkv
///   A cold cache, for measuring: what is dirty is written, then all is dropped
///     pinwire pagecache film.mkv --sync --evict
///   Look on while another program reads and writes it, twice a second:
///     pinwire pagecache film.mkv --watch 0.5
///   Read the second MiB through a mapping, and count hits and misses:
///     pinwire pagecache film.mkv --offset 1M --length 1M --touch
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The file
    file: PathBuf,

    /// Write what is dirty to the disk, and wait (fdatasync; of a part, sync_file_range)
    #[arg(long)]
    sync: bool,

    /// Ask the kernel to drop the pages (posix_fadvise DONTNEED); what is dirty stays until it is written
    #[arg(long)]
    evict: bool,

    /// Ask the kernel to read the pages before anybody does (posix_fadvise WILLNEED)
    #[arg(long)]
    read_ahead: bool,

    /// Read a byte of each page through a mapping; count the faults: misses and hits
    #[arg(long)]
    touch: bool,

    /// Look again and again, every so many seconds [default: 1], until Ctrl-C; what the other options
    /// do is done after the first look
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = args::seconds)]
    watch: Option<Duration>,

    /// Stop after this many looks
    #[arg(short, long, value_name = "N", requires = "watch",
          value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Only what is from this byte on (4096, 4K, 1M, 1G), in whole pages
    #[arg(long, value_name = "BYTES", value_parser = args::bytes)]
    offset: Option<u64>,

    /// Only so many bytes
    #[arg(long, value_name = "BYTES", value_parser = args::bytes)]
    length: Option<u64>,

    /// Ask /proc/kpageflags, even where cachestat would do: as root it tells what was used, too
    #[arg(long)]
    flags: bool,

    /// Print a JSON object, or one for each look, for programs
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs it.
    pub fn run(self) -> Outcome {
        let target = Target::open(&self)?;
        if let Some(every) = self.watch {
            return watch::run(&self, &target, every);
        }
        let deeds = acts::run(&self.acts(), &target)?;
        let (paint, lines) = (Paint::stdout(), map::MOST_LINES);
        if self.json {
            let look = target.look(map::JSON_CELLS)?;
            return output::line(json(&target, &look, &deeds));
        }
        let mut text = String::new();
        if !deeds.is_empty() {
            text += &acts::summary(&deeds);
            text += "\n\n";
        }
        text += &map::draw(&target, lines, paint)?.0;
        output::line(text.trim_end())
    }

    fn acts(&self) -> Vec<Act> {
        [
            (self.sync, Act::Sync),
            (self.evict, Act::Evict),
            (self.read_ahead, Act::ReadAhead),
            (self.touch, Act::Touch),
        ]
        .into_iter()
        .filter_map(|(wanted, act)| wanted.then_some(act))
        .collect()
    }

    fn how(&self) -> How {
        match self.flags {
            true => How::Flags,
            false => How::Best,
        }
    }
}

/// Returns the object that `--json` prints of one look.
fn json(target: &Target, look: &Look, deeds: &[Deed]) -> Value {
    let total = look.total();
    let cells = look.cells.iter().map(|cell| {
        json!({ "pages": cell.pages, "resident": cell.resident, "dirty": cell.dirty, "writeback": cell.writeback })
    });
    json!({
        "file": target.path.display().to_string(),
        "filesystem": target.filesystem,
        "backing": match target.backing(total) {
            Backing::Disk => json!("disk"),
            Backing::Memory => json!("memory"),
            Backing::Unknown => Value::Null,
        },
        "bytes": target.bytes(),
        "page_bytes": crate::paths::pagecache::page_bytes(),
        "offset": target.span().map(|span| span.offset()).unwrap_or_default(),
        "known_by": look.witness.name(),
        "not_known_better": look.why,
        "pages": total.pages,
        "resident": total.resident,
        "dirty": total.dirty,
        "writeback": total.writeback,
        "evicted": total.evicted,
        "unbacked": total.unbacked,
        "referenced": total.referenced,
        "active": total.active,
        "acts": deeds.iter().map(Deed::json).collect::<Value>(),
        "cell_pages": look.cell,
        "cells": cells.collect::<Value>(),
    })
}

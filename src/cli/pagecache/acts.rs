//! `--sync`, `--evict`, `--read-ahead`, `--touch`: done, and told with what came of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::target::Target;
use crate::Error;
use crate::cli::figure::six;
use crate::cli::output::{self, grouped};
use crate::cli::signals::{INTERRUPTED, interrupted};
use crate::paths::pagecache::{
    Backing, Counts, How, Touched, evict, look, read_ahead, residency, sync, touch,
};

/// Acts on a file's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Sync,
    Evict,
    ReadAhead,
    Touch,
}

/// One of them, done.
pub struct Deed {
    act: Act,
    took: Duration,
    before: Counts,
    after: Counts,
    touched: Option<Touched>,
    /// True if the file became shorter meanwhile.
    shrank: bool,
    /// The backing of the file's pages.
    backing: Backing,
}

/// Longest time for which pages that are being read may stay away before we give up on them.
const PATIENCE: Duration = Duration::from_millis(200);

/// Runs `acts` in this order; returns what each did.
pub fn run(acts: &[Act], target: &Target) -> Result<Vec<Deed>, Error> {
    acts.iter().map(|act| act.run(target)).collect()
}

impl Act {
    fn run(self, target: &Target) -> Result<Deed, Error> {
        let (file, span) = (&target.file, target.span()?);
        let before = residency(file, span)?;
        // Its pages may tell, as long as they are there.
        let backing = target.backing(before);
        let begin = Instant::now();
        let (mut after, mut touched) = (None, None);
        match self {
            Self::Sync => sync(file, target.is_part().then_some(span))?,
            Self::Evict => after = Some(evict(file, span)?),
            Self::ReadAhead => {
                read_ahead(file, span)?;
                after = Some(settled(target)?);
            }
            Self::Touch => touched = Some(touch(file, span, &INTERRUPTED)?),
        }
        let took = begin.elapsed();
        let after = after.map_or_else(|| residency(file, span), Ok)?;
        Ok(Deed {
            act: self,
            took,
            before,
            after,
            touched,
            shrank: target.span()?.pages < span.pages,
            backing,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Evict => "evict",
            Self::ReadAhead => "read-ahead",
            Self::Touch => "touch",
        }
    }
}

/// Waits until all pages are there, or no more come in; gives the counts then.
fn settled(target: &Target) -> Result<Counts, Error> {
    // A page that is still being read is in the cache for cachestat, but not for mincore.
    let arrived = || -> Result<Counts, Error> {
        let span = target.span()?;
        let cell = span.pages.max(1);
        match look(&target.file, span, cell, How::Mincore, &INTERRUPTED) {
            // It tells less people than cachestat does.
            Err(Error::NeedsRoot { .. }) => residency(&target.file, span),
            look => Ok(look?.total()),
        }
    };
    let mut last = arrived()?;
    let mut still = Instant::now();
    while last.absent() > 0 && still.elapsed() < PATIENCE {
        if interrupted() {
            return Err(Error::Interrupted);
        }
        std::thread::sleep(Duration::from_millis(1));
        let now = arrived()?;
        if now.resident != last.resident {
            still = Instant::now();
        }
        last = now;
    }
    Ok(last)
}

/// All of them, for people.
pub fn summary(deeds: &[Deed]) -> String {
    let rows: Vec<_> = deeds
        .iter()
        .map(|deed| (deed.act.name(), deed.words()))
        .collect();
    output::summary(&rows)
}

fn pages(number: u64) -> String {
    output::count(number, "page")
}

impl Deed {
    fn words(&self) -> String {
        let (before, after) = (self.before, self.after);
        let took = format!("{:.1} ms", self.took.as_secs_f64() * 1e3);
        match self.act {
            Act::Sync => match self.written() {
                Some(0) if self.backing == Backing::Memory => {
                    "nothing to write: this file has no disk".to_owned()
                }
                Some(written) if self.backing == Backing::Disk => {
                    format!("{} went to the disk in {took}", pages(written))
                }
                Some(written) => format!("{} written back in {took}", pages(written)),
                None => format!("what was dirty is written back, after {took}"),
            },
            Act::Evict => {
                let gone = before.resident.saturating_sub(after.resident);
                let first = match self.written() {
                    None | Some(0) => String::new(),
                    Some(written) => format!(" ({} written first)", grouped(written)),
                };
                format!("{} dropped{first}{}", pages(gone), self.stayed())
            }
            Act::ReadAhead => {
                let came = after.resident.saturating_sub(before.resident);
                let missing = match after.absent() {
                    0 => String::new(),
                    absent => format!("; {} did not come", pages(absent)),
                };
                format!("{} came in {took}{missing}", pages(came))
            }
            Act::Touch => {
                let touched = self.touched.unwrap_or_default();
                let gone = match touched.gone {
                    0 => String::new(),
                    gone if self.shrank => {
                        format!("; {} are gone: the file was made shorter", pages(gone))
                    }
                    gone if self.backing == Backing::Memory => format!(
                        "; {} cannot be had: no memory, or no huge page, is left for them",
                        pages(gone)
                    ),
                    gone => format!(
                        "; {} cannot be read: its disk fails (dmesg says how), or the file has changed",
                        pages(gone)
                    ),
                };
                let waited = match self.backing {
                    Backing::Disk => "waited for the disk",
                    _ => "waited",
                };
                format!(
                    "{} read in {took}: {} {waited}, {} found the page{gone}",
                    pages(touched.pages),
                    output::count(touched.misses, "fault"),
                    grouped(touched.hits),
                )
            }
        }
    }

    /// Pages that went to the disk, where that is known.
    fn written(&self) -> Option<u64> {
        let unclean = |counts: Counts| Some(counts.dirty? + counts.writeback?);
        if self.backing == Backing::Memory {
            return Some(0);
        }
        Some(unclean(self.before)?.saturating_sub(unclean(self.after)?))
    }

    /// Returns in words what an eviction left, and why.
    fn stayed(&self) -> String {
        let after = self.after;
        let unclean = after.dirty.unwrap_or(0) + after.writeback.unwrap_or(0);
        let why = match (after.resident, unclean) {
            (0, _) => return String::new(),
            _ if self.backing == Backing::Memory => {
                "there is no disk to read them from again".to_owned()
            }
            (all, unclean) if unclean >= all => {
                "dirty; their write-back has begun (--sync waits for it)".to_owned()
            }
            (_, 0) if self.backing == Backing::Unknown => {
                "somebody has them mapped, pinned or in use, or their filesystem has them nowhere else".to_owned()
            }
            (_, 0) if after.dirty.is_some() => {
                "somebody has them mapped, pinned or in use".to_owned()
            }
            (_, 0) => "they are dirty, or somebody has them mapped, pinned or in use".to_owned(),
            (_, unclean) => format!(
                "{} dirty, their write-back has begun (--sync waits for it), the others mapped, pinned or in use",
                grouped(unclean)
            ),
        };
        format!(", {} stayed: {why}", grouped(after.resident))
    }

    /// Returns it as JSON, for programs.
    pub fn json(&self) -> Value {
        let counts = |counts: Counts| json!({ "resident": counts.resident, "dirty": counts.dirty, "writeback": counts.writeback });
        let mut deed = json!({
            "act": self.act.name(),
            "seconds": six(self.took.as_secs_f64()),
            "before": counts(self.before),
            "after": counts(self.after),
        });
        if let Some(touched) = self.touched {
            deed["pages_read"] = touched.pages.into();
            deed["major_faults"] = touched.misses.into();
            deed["minor_faults"] = touched.hits.into();
            deed["pages_gone"] = touched.gone.into();
        }
        deed
    }
}

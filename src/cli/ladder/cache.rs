//! The file's page cache before a run: all of it there, or nothing of it.

use std::fs::File;

use clap::ValueEnum;
use pinwire::Result;
use pinwire::pagecache::{Span, evict, sync, warm};

use crate::cli::INTERRUPTED;

/// What is in memory before a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// All of the file.
    Warm,
    /// Nothing of it.
    Cold,
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

impl Cache {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }

    /// Makes it so; says why not where the system does not do it.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn prepare(self, file: &File) -> Result<std::result::Result<(), String>> {
        let all = Span::all(file)?;
        let counts = match self {
            Self::Warm => warm(file, all, &INTERRUPTED)?,
            Self::Cold => {
                sync(file, None)?;
                evict(file, all)?
            }
        };
        Ok(match self {
            Self::Warm if counts.resident < counts.pages => Err(format!(
                "only {} of the file's {} pages stay in memory: it is too long for this machine",
                counts.resident, counts.pages
            )),
            Self::Cold if counts.resident > 0 => Err(match is_tmpfs(file) {
                true => {
                    "the file is on tmpfs, which is page cache and nothing else: put it on a disk"
                        .to_owned()
                }
                false => format!(
                    "{} of the file's {} pages stay in memory: somebody has them mapped or pinned",
                    counts.resident, counts.pages
                ),
            }),
            _ => Ok(()),
        })
    }
}

fn is_tmpfs(file: &File) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC)
}

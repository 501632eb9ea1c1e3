//! The file's page cache before a run: all of it there, or nothing of it.

use std::fs::File;
use std::sync::atomic::AtomicBool;

use crate::Result;
use crate::paths::pagecache::{Backing, How, Span, evict, look, sync, warm};

/// The part of the file that is in memory before a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// All of the file.
    Warm,
    /// Nothing of it.
    Cold,
}

impl Cache {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }

    /// Makes it so, unless `stop` is set meanwhile; says why not where the system does not do it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn prepare(
        self,
        file: &File,
        stop: &AtomicBool,
    ) -> Result<std::result::Result<(), String>> {
        let all = Span::all(file)?;
        let counts = match self {
            Self::Warm => warm(file, all, stop)?,
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
            Self::Cold if counts.resident > 0 => Err(match backing(file, all, stop)? {
                Backing::Memory => {
                    "the file is in memory, as on tmpfs, which is page cache and nothing else: put it on a disk"
                        .to_owned()
                }
                Backing::Disk => format!(
                    "{} of the file's {} pages stay in memory: somebody has them mapped or pinned",
                    counts.resident, counts.pages
                ),
                Backing::Unknown => format!(
                    "{} of the file's {} pages stay in memory: somebody has them mapped or pinned, or its \
                     filesystem has them nowhere else",
                    counts.resident, counts.pages
                ),
            }),
            _ => Ok(()),
        })
    }
}

/// Returns the backing of the file; where its filesystem does not say, its pages may.
fn backing(file: &File, all: Span, stop: &AtomicBool) -> Result<Backing> {
    let cell = all.pages.max(1);
    let seen = look(file, all, cell, How::Best, stop)?.total();
    Ok(Backing::of(file).seen(seen))
}

//! The rungs to run, over what and from which cache, with the outcome of each.

use super::cache::Cache;
use crate::lab::count::Cost;
use crate::paths::ladder::{Kind, Protocol, RUNGS, Rung};
use crate::{Error, Result};

/// A rung over a protocol from a cache, with all of its runs.
pub struct Row {
    /// The rung.
    pub rung: &'static Rung,
    /// The protocol that it sends by.
    pub protocol: Protocol,
    /// The part of the file that is in memory before.
    pub cache: Cache,
    /// Its state.
    pub state: State,
    /// The runs so far; empty unless it could be run.
    pub runs: Vec<Run>,
    /// Bytes that the kernel's routines were seen to copy in a run of its own, or why nobody looked.
    pub seen: std::result::Result<u64, String>,
}

/// The state of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It can be run.
    Runs,
    /// It cannot be had here, and why.
    Missing(String),
    /// It failed, and how.
    Failed(String),
}

/// One run.
#[derive(Debug, Clone)]
pub struct Run {
    /// The kernel's counts.
    pub cost: Cost,
    /// Bytes that the processor copied, by the rung's own account.
    pub copied: u64,
    /// Bytes that the kernel's routines were seen to copy, where somebody looked.
    pub seen: std::result::Result<u64, String>,
}

/// The key of rows that are put side by side: the same kind over the same protocol from the same cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Source and destination of the bytes.
    pub kind: Kind,
    /// The protocol that carries them.
    pub protocol: Protocol,
    /// The part of the file that is in memory before.
    pub cache: Cache,
}

impl Row {
    fn new(rung: &'static Rung, protocol: Protocol, cache: Cache) -> Self {
        Self {
            rung,
            protocol,
            cache,
            state: match (rung.missing)() {
                Some(why) => State::Missing(why),
                None => State::Runs,
            },
            runs: Vec::new(),
            seen: Err("it was not run".to_owned()),
        }
    }

    /// Returns the group of the rows that it is compared with.
    pub fn group(&self) -> Group {
        Group {
            kind: self.rung.kind,
            protocol: self.protocol,
            cache: self.cache,
        }
    }

    /// Returns whether it is to be run.
    pub fn runs(&self) -> bool {
        self.state == State::Runs
    }

    /// RingIndices the row as not available here, for the reason `why`. What was measured before stays, and is no figure of
    /// something missing: then it failed.
    pub fn found_missing(&mut self, why: String) {
        let was_there = !self.runs.is_empty() || self.seen.is_ok();
        self.state = match was_there {
            true => State::Failed(format!("it ran before, and then not any more: {why}")),
            false => State::Missing(why),
        };
    }

    /// Its name with all that it depends on.
    pub fn title(&self) -> String {
        let over = match self.protocol {
            Protocol::Disk => String::new(),
            protocol => format!(" over {protocol}"),
        };
        format!("{}{over}, {} cache", self.rung.name, self.cache.name())
    }
}

impl Group {
    /// Returns its heading.
    pub fn title(self) -> String {
        let cache = self.cache.name();
        match self.kind {
            Kind::Send => format!("A file over {}, {cache} cache", self.protocol),
            Kind::Relay => format!("A {} stream to another one", self.protocol),
            Kind::Log => format!("A {} stream to another one and into a log", self.protocol),
            Kind::Copy => format!("A file to a file, {cache} cache"),
        }
    }
}

/// All rows, in the order in which they are run: by rung.
///
/// # Errors
/// [`Error::Usage`] where a name of `only` is no rung's.
pub fn rows(only: &[String], over: &[Protocol], caches: &[Cache]) -> Result<Vec<Row>> {
    let chosen = chosen(only)?;
    let mut rows = Vec::new();
    for rung in chosen {
        let over = rung
            .over
            .iter()
            .filter(|protocol| **protocol == Protocol::Disk || over.contains(protocol));
        for protocol in over {
            // What is relayed comes from another process.
            let caches = match rung.kind {
                Kind::Send | Kind::Copy => caches,
                Kind::Relay | Kind::Log => &[Cache::Warm],
            };
            rows.extend(caches.iter().map(|cache| Row::new(rung, *protocol, *cache)));
        }
    }
    match rows.is_empty() {
        true => Err(Error::Usage(
            "no rung is left: none of those named goes over a protocol that was named".to_owned(),
        )),
        false => Ok(rows),
    }
}

/// The rungs that are named: by number, by name, or by a part of it; all where none is.
fn chosen(only: &[String]) -> Result<Vec<&'static Rung>> {
    let is_named = |rung: &Rung, word: &str| {
        let exact = |rung: &Rung| rung.name.eq_ignore_ascii_case(word);
        let number: Option<u8> = word.parse().ok();
        match (number, RUNGS.iter().any(exact)) {
            (Some(number), _) => rung.number == number,
            (None, true) => exact(rung),
            (None, false) => rung.name.to_lowercase().contains(&word.to_lowercase()),
        }
    };
    for word in only {
        if word.is_empty() || !RUNGS.iter().any(|rung| is_named(rung, word)) {
            let names: Vec<_> = RUNGS.iter().map(|rung| rung.name).collect();
            return Err(Error::Usage(format!(
                "{word:?} is no rung's number, nor a part of its name\n  there are: {}",
                names.join("; ")
            )));
        }
    }
    let is_wanted = |rung: &&Rung| only.is_empty() || only.iter().any(|word| is_named(rung, word));
    Ok(RUNGS.iter().filter(is_wanted).collect())
}

/// Returns the order in which rows are run in a round: there and back again, so that the card changes hands once a
/// round, and that what drifts meanwhile is no rung's.
pub fn order(rows: usize, round: u16) -> Vec<usize> {
    match round % 2 {
        0 => (0..rows).collect(),
        _ => (0..rows).rev().collect(),
    }
}

/// The groups of `rows`, in the order in which they are shown.
pub fn groups(rows: &[Row]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for row in rows {
        if !groups.contains(&row.group()) {
            groups.push(row.group());
        }
    }
    groups.sort_by_key(|group| {
        (
            [Kind::Send, Kind::Relay, Kind::Log, Kind::Copy]
                .iter()
                .position(|kind| *kind == group.kind),
            group.protocol != Protocol::Tcp,
            group.cache != Cache::Warm,
        )
    });
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(only: &[&str]) -> Vec<&'static str> {
        let only: Vec<_> = only.iter().map(|word| (*word).to_owned()).collect();
        let rungs = chosen(&only).unwrap();
        rungs.iter().map(|rung| rung.name).collect()
    }

    #[test]
    fn a_rung_is_named_by_number_by_name_or_by_a_part_of_it() {
        assert_eq!(names(&[]).len(), RUNGS.len());
        assert_eq!(names(&["1"]), ["read + write"]);
        // A name is that rung's, also where it is a part of another's.
        assert_eq!(names(&["Read + Write"]), ["read + write"]);
        assert_eq!(names(&["splice"]), ["splice"]);
        assert!(names(&["read"]).len() > 1);
        for nonsense in ["", "99", "teleport"] {
            assert!(chosen(&[nonsense.to_owned()]).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn rounds_take_each_row_once_there_and_back_again() {
        let rounds: Vec<_> = (0..3).flat_map(|round| order(3, round)).collect();
        assert_eq!(rounds, [0, 1, 2, 2, 1, 0, 0, 1, 2]);
    }

    #[test]
    fn what_ran_before_is_not_missing_but_failed() {
        let mut rows = rows(&["1".to_owned()], &[Protocol::Tcp], &[Cache::Warm]).unwrap();
        let row = &mut rows[0];
        row.found_missing("why".to_owned());
        assert_eq!(row.state, State::Missing("why".to_owned()));
        row.seen = Ok(1);
        row.found_missing("why".to_owned());
        assert!(matches!(&row.state, State::Failed(how) if how.ends_with("why")));
    }

    #[test]
    fn a_stream_that_is_relayed_has_no_cache_of_ours() {
        let rows = rows(&[], &[Protocol::Tcp], &[Cache::Warm, Cache::Cold]).unwrap();
        let cold = rows.iter().filter(|row| row.cache == Cache::Cold);
        assert!(cold.clone().count() > 0);
        assert!(
            cold.clone()
                .all(|row| matches!(row.rung.kind, Kind::Send | Kind::Copy))
        );
        assert!(rows.iter().all(|row| row.protocol != Protocol::Udp));
    }
}

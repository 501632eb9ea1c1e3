//! `--watch`: looked at again and again; a map that is redrawn on a terminal, a line each time elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::json;
use terminal_size::terminal_size_of;

use super::acts::{self, Deed};
use super::target::Target;
use super::{Args, map};
use crate::Error;
use crate::cli::figure::six;
use crate::cli::output::{self, Outcome, grouped};
use crate::cli::signals::interrupted;
use crate::paths::pagecache::{Change, Look};
use crate::scope::text::paint::{Ink, Paint};

/// Longest sleep, so that Ctrl-C is heard.
const NAP: Duration = Duration::from_millis(50);

/// Lines on the screen beside the map's.
const BESIDE: usize = 21;

/// The last look, and the changes so far.
struct Seen {
    begin: Instant,
    last: Option<Look>,
    /// The change since the last look, and since the first.
    change: Change,
    all: Option<Change>,
    /// The acts since the last look.
    deeds: Vec<Deed>,
}

/// Runs it until Ctrl-C, or as often as wanted.
pub fn run(args: &Args, target: &Target, every: Duration) -> Outcome {
    let redraws = !args.json && io::stdout().is_terminal();
    let mut seen = Seen {
        begin: Instant::now(),
        last: None,
        change: Change::default(),
        all: None,
        deeds: Vec::new(),
    };
    let (mut drawn, mut told) = (0, String::new());
    for number in 0..args.count.unwrap_or(u64::MAX) {
        if number > 0 {
            let after = every.checked_mul(number.try_into().unwrap_or(u32::MAX));
            sleep_until(after.and_then(|after| seen.begin.checked_add(after)))?;
        }
        if redraws {
            let paint = Paint::stdout();
            let (mut text, look) = map::draw(target, lines(told.lines().count()), paint)?;
            seen.add(look);
            text += &seen.table(paint);
            text += &told;
            drawn = redraw(&text, drawn)?;
        } else {
            seen.add(target.look(map::JSON_CELLS)?);
            output::line(match args.json {
                true => seen.json(target),
                false => seen.line(),
            })?;
        }
        seen.deeds.clear();
        if number == 0 {
            seen.deeds = acts::run(&args.acts(), target)?;
            if !seen.deeds.is_empty() && !args.json {
                told = format!("\n{}\n", acts::summary(&seen.deeds));
                if !redraws {
                    output::line(told.trim_matches('\n'))?;
                }
            }
        }
    }
    Ok(())
}

/// Sleeps until `when`; without it, which is later than any clock tells, until Ctrl-C.
fn sleep_until(when: Option<Instant>) -> Result<(), Error> {
    loop {
        if interrupted() {
            return Err(Error::Interrupted);
        }
        let left = when.map_or(NAP, |when| when.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(NAP));
    }
}

/// Lines for the map, so that all of it stays on the screen, with so many more beneath.
fn lines(beneath: usize) -> usize {
    let rows = terminal_size_of(io::stdout()).map_or(0, |(_, rows)| usize::from(rows.0));
    rows.saturating_sub(BESIDE + beneath)
        .clamp(1, map::MOST_LINES)
}

/// Draws over what was drawn before; gives the lines drawn.
fn redraw(text: &str, drawn: usize) -> Result<usize, crate::cli::Failure> {
    // A line that is too long must not become two, or the next frame begins at the wrong one.
    let mut frame = String::from("\x1b[?7l");
    if drawn > 0 {
        frame += &format!("\x1b[{drawn}A");
    }
    for line in text.lines() {
        frame += line;
        frame += "\x1b[K\n"; // what an older, longer line left
    }
    frame += "\x1b[J\x1b[?7h";
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(frame.as_bytes());
    written
        .and_then(|()| stdout.flush())
        .map_err(output::stdout_failed)?;
    Ok(text.lines().count())
}

impl Seen {
    fn add(&mut self, look: Look) {
        if let Some(last) = &self.last {
            self.change = Change::between(last, &look);
            match &mut self.all {
                Some(all) => *all += self.change,
                None => self.all = Some(self.change),
            }
        }
        self.last = Some(look);
    }

    /// Returns the table of changes beneath the map.
    fn table(&self, paint: Paint) -> String {
        let seconds = self.begin.elapsed().as_secs_f64();
        let all = self.all.unwrap_or(Change {
            hits: self.change.hits,
            ..Change::default()
        });
        let mut text = String::from("\n");
        let title = format!(
            "  {:>17}  {:>12}  {:>12}",
            "pages, at least",
            "this look",
            format!("in {seconds:.0} s")
        );
        text += &paint.ink(Ink::Quiet, &title);
        text.push('\n');
        for ((name, now), (_, all)) in self.change.columns().into_iter().zip(all.columns()) {
            let number = |count: Option<u64>| count.map_or_else(|| "not known".to_owned(), grouped);
            let row = format!("  {name:>17}  {:>12}  {:>12}", number(now), number(all));
            let ink = match now.unwrap_or(0) {
                0 => Ink::Quiet,
                _ => Ink::Title,
            };
            text += &paint.ink(ink, &row);
            text.push('\n');
        }
        text
    }

    fn line(&self) -> String {
        let total = self.last.as_ref().map(Look::total).unwrap_or_default();
        let known = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |n| n.to_string());
        let mut text = format!(
            "{:.1} s  {} of {} in the cache, {} dirty, {} in write-back",
            self.begin.elapsed().as_secs_f64(),
            total.resident,
            output::count(total.pages, "page"),
            known(total.dirty),
            known(total.writeback),
        );
        let changes: Vec<String> = self
            .change
            .columns()
            .into_iter()
            .filter_map(|(name, count)| Some((name, count.filter(|count| *count > 0)?)))
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        if !changes.is_empty() {
            text += &format!("  |  {}", changes.join(", "));
        }
        text
    }

    fn json(&self, target: &Target) -> String {
        let Some(look) = &self.last else {
            return String::new();
        };
        let mut value = super::json(target, look, &self.deeds);
        value["seconds"] = six(self.begin.elapsed().as_secs_f64()).into();
        value["since_last"] = json!({
            "read_in": self.change.read_in,
            "hits": self.change.hits,
            "dirtied": self.change.dirtied,
            "written_back": self.change.written_back,
            "dropped": self.change.dropped,
        });
        value.to_string()
    }
}

//! Output for people: standard output that may be closed on us, errors, tables, progress, colour only on a terminal.

use std::fmt;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

use super::hints;
use crate::net::Progress;
use crate::scope::text::paint::stderr_has_colour;
use crate::{Error, user_file};

/// Reason for which a command ends before its end.
pub enum Failure {
    /// Something failed.
    Error(Error),
    /// Something failed, and an option of this command is the way on.
    Hinted(Error, &'static str),
    /// The reader of our standard output has had enough: no failure.
    ReaderGone,
    /// It was said already, where people look for it.
    Told,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Result of a command.
pub type Outcome = Result<(), Failure>;

/// Prints a line to standard output.
///
/// # Errors
/// [`Failure::ReaderGone`] where it is closed, as by `| head`.
pub fn line(text: impl Display) -> Outcome {
    writeln!(io::stdout().lock(), "{text}").map_err(stdout_failed)
}

/// Prints a line to standard error; where even that is closed there is nobody left to tell.
pub fn aside(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Maps a failed write to standard output to the command's failure.
pub fn stdout_failed(source: io::Error) -> Failure {
    match source.kind() {
        io::ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Error::io("writing to standard output", source).into(),
    }
}

/// Prints an error to standard error, and what an option can do about it.
pub fn error(error: &Error) {
    let style = match stderr_has_colour() {
        true => AnsiColor::Red.on_default().bold(),
        false => Style::new(),
    };
    aside(format_args!("{style}error:{style:#} {error}"));
    if let Some(hint) = hints::of(error) {
        aside(format_args!("  {hint}"));
    }
}

/// Shows a report: its JSON in place of its text (`--json`), or in a file beside it (`--json=FILE`).
pub fn report(json: Option<&Path>, value: impl Display, text: impl Display) -> Outcome {
    match json {
        Some(path) if path == Path::new("-") => line(value),
        Some(path) => {
            user_file::create(path)
                .and_then(|mut file| file.write_all(format!("{value}\n").as_bytes()))
                .map_err(|source| Error::io(format!("cannot write {}", path.display()), source))?;
            line(text)
        }
        None => line(text),
    }
}

/// Stands for a device's own figures where it has none, which is so of virtio-net.
pub const NO_COUNTERS: &str =
    "nothing: it has no counters, and the driver's own are no second opinion";

/// Stands for what nobody counted.
pub const NOT_COUNTED: &str = "not known: this device does not count it";

/// Seconds, with so many digits that a rate can be checked against them.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        ..1.0 => format!("{seconds:.6}"),
        _ => format!("{seconds:.3}"),
    }
}

/// A summary: names and values in two columns.
pub fn summary(rows: &[(&str, String)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.add_rows(rows.iter().map(|(name, value)| [*name, value]));
    if let Some(names) = table.column_mut(0) {
        names.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// A number with its thousands apart: `1 234 567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 frame`, `2 frames`.
pub fn count(number: u64, thing: &str) -> String {
    format!(
        "{} {thing}{}",
        grouped(number),
        if number == 1 { "" } else { "s" }
    )
}

/// Draws the progress of another thread, on a terminal; that thread only counts.
pub struct Ticker {
    done: Arc<AtomicBool>,
    drawer: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Draws until dropped; a bar where the number of frames is known.
    pub fn new(progress: &Arc<Progress>, frames: Option<u64>) -> Self {
        let done = Arc::<AtomicBool>::default();
        let drawer = io::stderr().is_terminal().then(|| {
            let (progress, done) = (Arc::clone(progress), Arc::clone(&done));
            std::thread::spawn(move || draw(&progress, frames, &done))
        });
        Self { done, drawer }
    }
}

fn draw(progress: &Progress, frames: Option<u64>, done: &AtomicBool) {
    let (bar, style) = match frames {
        Some(frames) => {
            let style = "{wide_bar:.cyan} {human_pos}/{human_len} frames, {rate}, {eta} left";
            (ProgressBar::new(frames), style)
        }
        None => {
            let style = "{spinner} {human_pos} frames, {rate}, {elapsed}";
            (ProgressBar::new_spinner(), style)
        }
    };
    let style = ProgressStyle::with_template(style).expect("a template that is right");
    bar.set_style(
        style.with_key("rate", |state: &ProgressState, to: &mut dyn fmt::Write| {
            let _ = write!(to, "{}/s", HumanCount(state.per_sec() as u64));
        }),
    );
    while !done.load(Ordering::Acquire) {
        bar.set_position(progress.frames());
        bar.tick();
        std::thread::park_timeout(Duration::from_millis(100));
    }
    bar.finish_and_clear();
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        if let Some(drawer) = self.drawer.take() {
            drawer.thread().unpark();
            let _ = drawer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let numbers = [0, 12, 999, 1000, 12_345, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "12", "999", "1 000", "12 345", "1 234 567"]);
        assert_eq!(count(1, "frame"), "1 frame");
        assert_eq!(count(2000, "frame"), "2 000 frames");
    }
}

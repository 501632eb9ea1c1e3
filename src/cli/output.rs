//! What people see: standard output that may be closed on us, errors, colour only on a terminal.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use pinwire::Error;

use super::{Failure, Outcome};

/// Does standard error go to a terminal that shows colour?
pub fn stderr_has_colour() -> bool {
    has_colour(&io::stderr())
}

/// Does standard output go to a terminal that shows colour?
pub fn stdout_has_colour() -> bool {
    has_colour(&io::stdout())
}

fn has_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints a line to standard output.
///
/// # Errors
/// [`Failure::ReaderGone`] where it is closed, as by `| head`.
pub fn line(text: impl Display) -> Outcome {
    writeln!(io::stdout().lock(), "{text}").map_err(stdout_failed)
}

/// What a failed write to standard output means.
pub fn stdout_failed(source: io::Error) -> Failure {
    match source.kind() {
        io::ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Error::io("writing to standard output", source).into(),
    }
}

/// Prints an error to standard error.
pub fn error(error: &Error) {
    let style = match stderr_has_colour() {
        true => AnsiColor::Red.on_default().bold(),
        false => Style::new(),
    };
    // Where even standard error is closed there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{style}error:{style:#} {error}");
}

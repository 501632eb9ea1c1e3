//! Colour and width: how text is laid out on this terminal, or in none.

use std::io::{self, IsTerminal, stdout};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use terminal_size::terminal_size_of;

/// Columns where nobody says how many there are.
const USUAL_WIDTH: u16 = 80;

/// Columns that the drawings need.
const LEAST_WIDTH: u16 = 60;

/// Colour and width of standard output.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    pub colour: bool,
    pub width: u16,
}

/// Returns whether standard error goes to a terminal that shows colour.
pub fn stderr_has_colour() -> bool {
    has_colour(&io::stderr())
}

/// Returns whether standard output goes to a terminal that shows colour.
pub fn stdout_has_colour() -> bool {
    has_colour(&io::stdout())
}

fn has_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Meaning of a piece of text; on a terminal, its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    Title,
    Quiet,
    Device,
    Done,
    Alarm,
    Clean,
    Dirty,
    WriteBack,
}

impl Ink {
    fn colour(self) -> Color {
        match self {
            Self::Title => Color::Cyan,
            Self::Quiet => Color::DarkGrey,
            Self::Device | Self::Dirty => Color::Yellow,
            Self::Done | Self::Clean => Color::Green,
            Self::Alarm => Color::Red,
            Self::WriteBack => Color::Magenta,
        }
    }

    fn style(self) -> anstyle::Style {
        use anstyle::AnsiColor;
        match self {
            Self::Title => AnsiColor::BrightCyan,
            Self::Quiet => AnsiColor::BrightBlack,
            Self::Device | Self::Dirty => AnsiColor::BrightYellow,
            Self::Done => AnsiColor::BrightGreen,
            Self::Clean => AnsiColor::Green,
            Self::Alarm => AnsiColor::BrightRed,
            Self::WriteBack => AnsiColor::BrightMagenta,
        }
        .on_default()
    }

    /// A table's cell in this colour.
    pub fn cell(self, text: impl ToString) -> Cell {
        Cell::new(text).fg(self.colour())
    }
}

impl Paint {
    /// For standard output as it is.
    pub fn stdout() -> Self {
        let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
        // A serial console says 0.
        let terminal = terminal_size_of(stdout()).map(|(width, _)| width.0);
        let width = terminal.filter(|n| *n > 0).or_else(columns);
        Self {
            colour: stdout_has_colour(),
            width: width.unwrap_or(USUAL_WIDTH).max(LEAST_WIDTH),
        }
    }

    /// `text` in the colour of `ink`, where there is colour.
    pub fn ink(self, ink: Ink, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let style = ink.style();
        format!("{style}{text}{style:#}")
    }

    /// `text`, which begins at `column`, broken between words where the terminal ends; what follows stands
    /// `indent` columns in.
    pub fn fold(self, text: &str, column: usize, indent: usize) -> String {
        let [begin, rest] = [column, indent].map(|columns| " ".repeat(columns));
        let options = textwrap::Options::new(self.width.into())
            .initial_indent(&begin)
            .subsequent_indent(&rest)
            .break_words(false)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        textwrap::fill(text, options)[column..].to_owned()
    }

    /// A title that stands `column` columns in, and what is said of it.
    pub fn titled(self, title: &str, what: &str, column: usize) -> String {
        let what = self.fold(what, column + title.chars().count(), column + 2);
        self.ink(Ink::Title, title) + &what
    }

    /// A table without lines as wide as the terminal.
    pub fn table(self, header: &[&str]) -> Table {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(self.width)
            .set_header(header.iter().map(|text| Ink::Quiet.cell(text)));
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_and_goes_on_further_in() {
        let paint = Paint {
            colour: false,
            width: 12,
        };
        assert_eq!(paint.fold("a word a day", 0, 2), "a word a day");
        assert_eq!(paint.fold("a word a day", 1, 2), "a word a\n  day");
        assert_eq!(paint.fold("  a  word", 8, 4), "  a\n    word");
        assert_eq!(
            paint.fold("one_that_is_too_long for it", 4, 4),
            "one_that_is_too_long\n    for it"
        );
    }

    #[test]
    fn without_colour_there_is_no_escape() {
        for colour in [false, true] {
            let paint = Paint { colour, width: 80 };
            let mut table = paint.table(&["a"]);
            table.add_row([Ink::Done.cell("done")]);
            let text = paint.ink(Ink::Alarm, "x") + &table.to_string();
            assert_eq!(text.contains('\u{1b}'), colour);
        }
    }
}

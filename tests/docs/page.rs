//! A page of Markdown and its fenced blocks.

use std::path::{Path, PathBuf};

/// A Markdown file.
pub struct Page {
    /// From the root of the project.
    pub path: PathBuf,
    pub text: String,
    /// The text without its fenced blocks.
    pub prose: String,
    pub blocks: Vec<Block>,
}

/// A fenced block.
pub struct Block {
    /// File and line, for messages.
    pub place: String,
    /// The heading that it stands under.
    heading: String,
    pub kind: Kind,
    pub text: String,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    Host,
    /// In the VM of `qemu/vm` with these options; with `figures`, no number in the output counts.
    Vm {
        options: String,
        figures: bool,
    },
    /// From this file.
    Rust(String),
    ByHand,
    Text,
    Unknown(String),
}

impl Kind {
    fn of(info: &str) -> Self {
        match info.split_once(' ').unwrap_or((info, "")) {
            ("console", "") => Self::Host,
            ("console", words) if words.split(' ').next() == Some("vm") => {
                let mut words: Vec<_> = words.split(' ').skip(1).collect();
                let figures = words.first() == Some(&"figures");
                Self::Vm {
                    options: words.split_off(usize::from(figures)).join(" "),
                    figures,
                }
            }
            ("rust", file) if !file.is_empty() => Self::Rust(file.to_owned()),
            ("sh", "") => Self::ByHand,
            ("text", "") => Self::Text,
            _ => Self::Unknown(info.to_owned()),
        }
    }
}

/// A command and what it is said to print.
#[derive(Debug)]
pub struct Step {
    pub command: String,
    pub output: String,
}

impl Page {
    pub fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    /// The pages of the project's own folder and of the tests', and those of the book.
    pub fn all() -> Vec<Self> {
        let own = [
            "README.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "SECURITY.md",
            "tests/README.md",
        ];
        let mut paths: Vec<_> = own.map(PathBuf::from).into();
        let book = std::fs::read_dir(Self::root().join("docs/src")).unwrap();
        let mut pages: Vec<_> = book
            .map(|entry| Path::new("docs/src").join(entry.unwrap().file_name()))
            .filter(|path| path.extension().is_some_and(|end| end == "md"))
            .collect();
        pages.sort();
        paths.append(&mut pages);
        paths.into_iter().map(Self::read).collect()
    }

    pub fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let text = std::fs::read_to_string(Self::root().join(&path)).unwrap();
        let (mut prose, mut blocks) = (String::new(), Vec::new());
        let mut heading = String::new();
        let mut open: Option<Block> = None;
        for (number, line) in text.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(info)) => {
                    open = Some(Block {
                        place: format!("{}:{}", path.display(), number + 1),
                        heading: heading.clone(),
                        kind: Kind::of(info.trim()),
                        text: String::new(),
                    });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => block.text += &format!("{line}\n"),
                (None, None) => {
                    if line.starts_with('#') {
                        heading = line.to_owned();
                    }
                    prose += &format!("{line}\n");
                }
            }
        }
        assert!(open.is_none(), "{}: a block without end", path.display());
        Self {
            path,
            text,
            prose,
            blocks,
        }
    }

    /// The blocks under this heading.
    pub fn section(&self, heading: &str) -> Vec<&Block> {
        self.blocks
            .iter()
            .filter(|block| block.heading == heading)
            .collect()
    }
}

impl Block {
    /// The commands, each with what follows it; a command goes on in the lines after `> `.
    pub fn steps(&self) -> Vec<Step> {
        let prompt = if self.kind == Kind::Host { "$ " } else { "# " };
        let mut steps: Vec<Step> = Vec::new();
        for line in self.text.lines() {
            match (line.strip_prefix(prompt), steps.last_mut()) {
                (Some(command), _) => steps.push(Step {
                    command: command.to_owned(),
                    output: String::new(),
                }),
                (None, Some(step)) => match line.strip_prefix("> ") {
                    Some(more) if step.output.is_empty() => step.command += &format!("\n{more}"),
                    _ => step.output += &format!("{line}\n"),
                },
                (None, None) => panic!("{}: output before the first command", self.place),
            }
        }
        steps
    }

    /// Its lines, without the comments at their ends.
    pub fn lines_without_comments(&self) -> impl Iterator<Item = &str> {
        let code = |line| str::split(line, " #").next().unwrap_or(line).trim();
        self.text.lines().map(code).filter(|line| !line.is_empty())
    }

    /// Are its lines those of `source`, side by side but where `// ...` stands? Else gives the line where they
    /// part. How far a line is indented does not count, and it may be of an example in a comment.
    pub fn is_quoted_from(&self, source: &str) -> Result<(), String> {
        let code = |line| str::trim(line).trim_start_matches("//! ").trim();
        let source: Vec<_> = source.lines().map(code).collect();
        let lines: Vec<_> = self.text.lines().map(str::trim).collect();
        let mut from = 0;
        for part in lines
            .split(|line| *line == "// ...")
            .filter(|part| !part.is_empty())
        {
            let at = source[from..]
                .windows(part.len())
                .position(|window| window == part);
            from += at.ok_or_else(|| {
                let missing = part.iter().find(|line| !source[from..].contains(line));
                missing.unwrap_or(&part[0]).to_string()
            })? + part.len();
        }
        Ok(())
    }
}

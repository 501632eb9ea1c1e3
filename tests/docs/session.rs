//! A shell that runs the commands of a page, here or in the VM, and what it printed beside what is
//! written.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use regex_lite::{Regex, escape};
use tempfile::TempDir;

use crate::common;

use super::page::{Block, Kind, Page, Step};

/// Stands before what a command printed, with its number.
const MARK: &str = "@@ step ";

/// Where a page's commands are run.
pub enum Session {
    /// In an empty folder of this host, with `pinwire` and the examples on the PATH.
    Host(TempDir),
    /// In the VM of `qemu/vm` with these options.
    Vm(String),
}

impl Session {
    /// Runs the commands of `blocks`; gives what is not as it is written.
    pub fn run(self, blocks: &[&Block]) -> Vec<String> {
        let steps: Vec<(&Block, Step)> = blocks
            .iter()
            .flat_map(|block| block.steps().into_iter().map(|step| (*block, step)))
            .collect();
        let mut script = String::from("exec 2>&1\n");
        for (number, (_, step)) in steps.iter().enumerate() {
            script += &format!("printf '\\n{MARK}%s\\n' {number}\n{}\n", step.command);
            script += &format!("printf '\\n{MARK}%s\\n' \"$?\"\n");
        }
        let printed = self.shell(&script);
        // Around each command: number, output, exit code.
        let mark = format!("\n{MARK}");
        let mut parts = printed.split(&mark).skip(1);
        let mut wrong = Vec::new();
        for (block, step) in &steps {
            let output = parts.next().and_then(|part| part.split_once('\n'));
            let code = parts
                .next()
                .map(|part| part.lines().next().unwrap_or_default());
            let (Some((_, output)), Some(code)) = (output, code) else {
                wrong.push(format!(
                    "{}: did not end: {}\n{printed}",
                    block.place, step.command
                ));
                break;
            };
            let figures = matches!(block.kind, Kind::Vm { figures: true, .. });
            let fails = step.output.lines().any(|line| line.starts_with("error:"));
            if fails == (code == "0") || !matches(&step.output, output, figures) {
                wrong.push(format!(
                    "{}: $ {}\n--- written\n{}--- printed, exit code {code}\n{}\n---",
                    block.place,
                    step.command,
                    step.output,
                    output.trim_end()
                ));
            }
        }
        wrong
    }

    fn shell(&self, script: &str) -> String {
        let output = match self {
            Self::Host(folder) => Command::new("timeout")
                .args(["300", "bash", "-c", script])
                .current_dir(folder)
                .env("PATH", path_with_programs())
                .env("NO_COLOR", "1")
                .stdin(Stdio::null())
                .output()
                .unwrap(),
            Self::Vm(options) => {
                let options: Vec<_> = options.split_whitespace().collect();
                common::vm(&options, script).expect("VMs are wanted")
            }
        };
        let printed = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        match output.status.success() {
            true => printed,
            false => printed + "\n" + &String::from_utf8_lossy(&output.stderr),
        }
    }
}

/// The PATH with our programs in front; builds the examples, as `cargo test --test` does not.
fn path_with_programs() -> String {
    static PATH: OnceLock<String> = OnceLock::new();
    let path = || {
        let pinwire = std::path::Path::new(env!("CARGO_BIN_EXE_pinwire"));
        let folder = pinwire.parent().unwrap();
        let release = (!cfg!(debug_assertions)).then_some("--release");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--examples"])
            .args(release)
            .current_dir(Page::root())
            .status();
        assert!(built.unwrap().success());
        let before = std::env::var("PATH").unwrap_or_default();
        format!("{0}:{0}/examples:{before}", folder.display())
    };
    PATH.get_or_init(path).clone()
}

/// Is `printed` what is `written`? With `figures`, no number counts.
fn matches(written: &str, printed: &str, figures: bool) -> bool {
    let mut pattern = String::from(r"\A");
    for line in steady(written, figures).lines() {
        pattern += match line {
            "..." => r"(?:.*\n)*?".to_owned(),
            line => escape(line).replace(r"\.\.\.", ".*") + r"\n",
        }
        .as_str();
    }
    let pattern = Regex::new(&(pattern + r"\z")).unwrap();
    pattern.is_match(&steady(printed, figures))
}

/// Without what is different every time.
fn steady(text: &str, figures: bool) -> String {
    let rules = [
        (r"0x[0-9a-f]{9,}", "0xHERE"),
        (
            r"\b\d[\d.,  ]*(ns|us|µs|ms|s|kpps|Mpps|packets/s|frames/s|MB/s)\b",
            "N $1",
        ),
        (r"[  ]+", " "),
        (r"─+", "─"),
        (r"(?m) +$", ""),
    ];
    let mut text = text.trim_end().to_owned() + "\n";
    let numbers = figures.then_some((r"\d[\d.,]*", "N"));
    for (pattern, with) in rules.into_iter().chain(numbers) {
        text = Regex::new(pattern)
            .unwrap()
            .replace_all(&text, with)
            .into_owned();
    }
    text.trim_start_matches('\n').to_owned()
}

#[test]
fn what_was_printed_is_held_against_what_is_written() {
    let same = |written, printed| matches(written, printed, false);
    assert!(same(
        "a  0x7f0012345678\n1.5 ms\n",
        "\na 0x7fffffffffff\n20 ms\n\n"
    ));
    assert!(same("a\n...\nz ... end\n", "a\nb\nc\nz x y end\n"));
    assert!(same("a\n...\n", "a\n"));
    assert!(!same("a\n", "a\nb\n"));
    assert!(!same("head 1\n", "head 2\n"));
    assert!(!same("0x101000\n", "0x102000\n"));
    assert!(!same("a\n...\nz\n", "a\nb\n"));
    assert!(matches("limit 2.5  1.00\n", "limit 17  1.00\n", true));
    assert!(!matches("limit 2.5\n", "limits 2.5\n", true));
}

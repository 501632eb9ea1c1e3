//! README.md, CONTRIBUTING.md and the book tell what is: their commands are run, their errors and their
//! lines of code are ours, their links lead somewhere.
//!
//! The first line of a fenced block says what it is; a block of another kind is a failure.
//!
//! | kind | what it holds | how it is checked |
//! |---|---|---|
//! | `console` | commands after `$ ` on this host, and what they print | run, where QEMU is there |
//! | `console vm [figures] OPTIONS` | commands after `# ` in the VM of `qemu/vm OPTIONS` | run, with `PINWIRE_VM=1` |
//! | `rust FILE` | lines of that file; `// ...` stands for lines left out | looked up |
//! | `sh` | commands for the reader's own hand | on the list [`BY_HAND`], with a reason |
//! | `text` | a figure, or an error of the library | no commands in it |
//!
//! The commands of one page are run by one shell, in order. In what they print, `...` stands for the
//! rest of a line, a line of `...` for any lines, and addresses of this process, times, rates and the
//! width of columns do not count; with `figures`, no number does.

mod common;
mod docs {
    pub mod errors;
    pub mod page;
    pub mod session;
}

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use docs::page::{Block, Kind, Page};
use docs::session::Session;

/// Commands that no test of this file runs, and why.
const BY_HAND: &[(&str, &str)] = &[
    ("qemu/demo", "a test of its own runs it"),
    ("qemu/test", "it runs this test"),
    ("qemu/suite --test nic", "qemu/test runs all that it does"),
    ("qemu/vm", "without a command it is a shell, for people"),
    (
        "qemu/vm -- 'pinwire list'",
        "the VM's blocks go the same way",
    ),
    ("cargo build --release --bins --examples", "built already"),
    ("cargo install --path .", "it would change this machine"),
    (
        "export PATH=$PWD/target/release:$PWD/target/release/examples:$PATH",
        "the tests set their own",
    ),
    ("cargo test", "it runs this test"),
    ("cargo test --test docs", "it is this test"),
    ("PINWIRE_VM=1 cargo test --test docs", "it is this test"),
    (
        "PINWIRE_VM=1 cargo test --test vm bench:: -- --ignored",
        "it measures for minutes",
    ),
    ("cargo test --doc", "cargo test does"),
    ("cd examples/own-driver", "tests/own_driver.rs builds it"),
    (
        "cargo run -- send qtest:rtl8139,pcap=out.pcap --synthetic 64 --count 3 --explain",
        "tests/own_driver.rs runs it",
    ),
    (
        "cargo fmt && cargo clippy --all-targets -- -D warnings",
        "qemu/test does",
    ),
    (
        "qemu/serve-bench",
        "it measures for minutes; a test of its own runs a short one",
    ),
    (
        "qemu/ladder",
        "it measures for minutes; a test of its own runs a short one",
    ),
    (
        "qemu/ladder --plot ladder.svg",
        "so does the test of its own",
    ),
    (
        "pinwire ladder FILE --loopback",
        "tests/cli/ladder.rs runs it, with a FILE",
    ),
    (
        "CLICOLOR_FORCE=1 qemu/demo | docs/picture >docs/src/img/run.svg",
        "the demo's own test compares the picture with a run",
    ),
    ("qemu/tsan", "qemu/test does"),
    ("qemu/docsrs", "qemu/test does"),
    (
        "qemu/package",
        "the workflow does: it builds and tests all once more",
    ),
    ("cargo bench", "it needs valgrind, and counts for minutes"),
    ("cargo bench -- --save-baseline=before", "so does this"),
    (
        "cargo install gungraun-runner@0.20.0",
        "it would change this machine",
    ),
    ("docs/api", "it makes all pages anew"),
    (
        "RUSTFLAGS=\"--cfg pinwire_loom\" cargo test --release --lib every_order",
        "it builds all anew",
    ),
    ("cargo install cargo-fuzz", "it would change this machine"),
    ("cd fuzz", "tests/fuzz runs what the fuzzers do"),
    (
        "RUSTC_BOOTSTRAP=1 cargo fuzz run split -- -max_total_time=600",
        "it takes ten minutes; tests/fuzz runs the kept corpus",
    ),
    (
        "RUSTC_BOOTSTRAP=1 cargo fuzz cmin split",
        "it changes the kept corpus",
    ),
    (
        "RUSTFLAGS=\"-C target-feature=+crt-static\" cargo build --release --target x86_64-unknown-linux-gnu",
        "tests/examples.rs does, with a package of its own",
    ),
    (
        "cargo build --release --target x86_64-unknown-linux-musl",
        "so does this, where that target is installed",
    ),
    (
        "rustup target add x86_64-unknown-linux-musl",
        "it would change this machine",
    ),
    (
        "sudo groupadd --system vfio && sudo usermod --append --groups vfio \"$USER\"",
        "it would change this machine; tests/vm/user.rs does the like in the VM",
    ),
    (
        "sudo cp contrib/70-pinwire-vfio.rules /etc/udev/rules.d/ && sudo udevadm control --reload",
        "so does this",
    ),
    (
        "sudo cp contrib/70-pinwire-vfio.conf /etc/security/limits.d/",
        "so does this",
    ),
    (
        "mdbook serve docs",
        "mdbook is not needed for anything else",
    ),
];

/// What the commands for this host use beside QEMU.
const TOOLS: &[&str] = &["bash", "tcpdump", "python3", "curl"];

/// Fails with all that is wrong.
fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What the book and the maps name, and the package has not: tests/repository.rs says why.
const NOT_PACKED: [&str; 4] = [
    "examples/own-driver",
    "tests/fuzz/main.rs",
    "tests/own_driver.rs",
    "tests/repository.rs",
];

/// Returns whether this is the package, and `path` is not in it.
fn is_left_out(path: &Path) -> bool {
    // Which cargo writes into what it packs.
    let is_package = Page::root().join("Cargo.toml.orig").exists();
    is_package && NOT_PACKED.iter().any(|begin| path.starts_with(begin))
}

#[test]
fn every_block_is_of_a_known_kind() {
    let mut wrong = Vec::new();
    for page in Page::all() {
        for block in &page.blocks {
            match &block.kind {
                Kind::Unknown(info) => {
                    wrong.push(format!("{}: a block of kind {info:?}", block.place))
                }
                Kind::Text if block.text.lines().any(|line| line.starts_with("$ ")) => {
                    wrong.push(format!("{}: a command in a text block", block.place));
                }
                Kind::ByHand => wrong.extend(
                    block
                        .lines_without_comments()
                        .filter(|line| !BY_HAND.iter().any(|(known, _)| known == line))
                        .map(|line| format!("{}: nobody runs {line:?}", block.place)),
                ),
                Kind::Host | Kind::Vm { .. } if block.steps().is_empty() => {
                    wrong.push(format!("{}: no command in it", block.place));
                }
                _ => {}
            }
        }
    }
    report(&wrong);
}

/// `docs/picture`, given what `qemu/demo` printed.
#[test]
fn a_picture_of_a_run_has_its_lines_as_they_stand() {
    if Command::new("python3").arg("--version").output().is_err() {
        common::not_run("it needs python3");
        return;
    }
    let run = "said before\n\n\x1b[1m2. Taken from the kernel: <bound>\x1b[0m\n# pinwire bind\n\
               \n\x1b[1m5. The answer\x1b[0m\nleft out\n\
               \n\x1b[1mIn short\x1b[0m\n     a   b\nfile: \x1b[32mas sent\x1b[0m\n";
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/picture");
    let mut command = Command::new(script);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.spawn().expect("docs/picture");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(run.as_bytes()).expect("all of it");
    drop(stdin);
    let output = child.wait_with_output().expect("docs/picture");
    assert!(output.status.success());
    let picture = String::from_utf8(output.stdout).expect("text");
    let text =
        regex_lite::Regex::new("<text( class=.(.).)? x=.([0-9.]+). y=.([0-9.]+).[^>]*>([^<]*)<");
    let text = text.expect("a pattern");
    let number = |text: &str| -> f64 { text.parse().expect("a number") };
    // Column and line as a terminal has them, from where the first piece stands.
    let pieces: Vec<_> = text.captures_iter(&picture).collect();
    let [left, top] = [3, 4].map(|at| number(&pieces[0][at]));
    let at = |piece: &regex_lite::Captures<'_>, group, from: f64, step: f64| {
        ((number(&piece[group]) - from) / step).round() as usize
    };
    let seen: Vec<_> = pieces
        .iter()
        .map(|piece| {
            let style = piece.get(2).map_or("", |style| style.as_str());
            let place = (at(piece, 4, top, 24.4), at(piece, 3, left, 12.04));
            (place, style, piece[5].to_owned())
        })
        .collect();
    let expected = [
        ((0, 0), "g", "$"),
        ((0, 2), "b", "qemu/demo"),
        ((1, 0), "", "..."),
        ((2, 0), "b", "2. Taken from the kernel: &lt;bound&gt;"),
        ((3, 0), "", "# pinwire bind"),
        ((4, 0), "", "..."),
        ((6, 0), "b", "In short"),
        ((7, 5), "", "a"),
        ((7, 9), "", "b"),
        ((8, 0), "", "file:"),
        ((8, 6), "g", "as sent"),
    ];
    assert_eq!(
        seen,
        expected.map(|(place, style, text)| (place, style, text.to_owned()))
    );
}

#[test]
fn commands_for_this_host_print_what_is_written() {
    if !common::require_qemu() {
        return;
    }
    for tool in TOOLS {
        let found = std::process::Command::new(tool).arg("--version").output();
        if found.is_err() {
            common::not_run(&format!("{tool} is missing; install it: qemu/setup"));
            return;
        }
    }
    let mut wrong = Vec::new();
    let mut ran = 0;
    for page in Page::all() {
        let blocks: Vec<_> = page
            .blocks
            .iter()
            .filter(|block| block.kind == Kind::Host)
            .collect();
        if !blocks.is_empty() {
            ran += 1;
            wrong.extend(Session::Host(tempfile::tempdir().unwrap()).run(&blocks));
        }
    }
    assert!(ran > 0, "no command found");
    report(&wrong);
}

#[test]
fn commands_in_the_vm_print_what_is_written() {
    if !common::wants_vm() {
        return;
    }
    let pages = Page::all();
    let mut sessions = Vec::new();
    for page in &pages {
        // One VM for all blocks of a page that want the same one.
        let mut machines: BTreeMap<&str, Vec<&Block>> = BTreeMap::new();
        for block in &page.blocks {
            if let Kind::Vm { options, .. } = &block.kind {
                machines.entry(options).or_default().push(block);
            }
        }
        sessions.extend(machines);
    }
    assert!(!sessions.is_empty(), "no command found");
    // Two at a time, since a VM has one processor; no session knows of another.
    let next = AtomicUsize::new(0);
    let work = || {
        let mut wrong = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((options, blocks)) = sessions.get(number) else {
                return wrong;
            };
            wrong.push((number, Session::Vm(options.to_string()).run(blocks)));
        }
    };
    let mut wrong = std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let wrong = work();
        [wrong, other.join().unwrap()].concat()
    });
    wrong.sort();
    let wrong: Vec<_> = wrong.into_iter().flat_map(|(_, wrong)| wrong).collect();
    report(&wrong);
}

#[test]
fn quoted_code_is_ours() {
    let mut wrong = Vec::new();
    let mut quoted = 0;
    for page in Page::all() {
        for block in &page.blocks {
            let Kind::Rust(file) = &block.kind else {
                continue;
            };
            if is_left_out(Path::new(file)) {
                continue;
            }
            quoted += 1;
            let source = std::fs::read_to_string(Page::root().join(file));
            let source = source.unwrap_or_else(|error| panic!("{}: {file}: {error}", block.place));
            if let Err(line) = block.is_quoted_from(&source) {
                wrong.push(format!(
                    "{}: not in {file}, or not in this order: {line:?}",
                    block.place
                ));
            }
        }
    }
    assert!(quoted > 0, "no code found");
    report(&wrong);
}

#[test]
fn every_error_is_explained() {
    let page = Page::read("docs/src/troubleshooting.md");
    let mut wrong = Vec::new();
    let samples = docs::errors::samples();
    for name in docs::errors::variants() {
        if !page.text.contains(&format!("\n## `{name}`\n")) {
            wrong.push(format!("no entry for Error::{name}"));
        }
        if !samples.iter().any(|(sample, _)| *sample == name) {
            wrong.push(format!("tests/docs/errors.rs has no Error::{name}"));
        }
    }
    for (name, error) in samples {
        let message = format!("error: {error}");
        let entry = page.section(&format!("## `{name}`"));
        let shown = entry
            .iter()
            .any(|block| block.kind == Kind::Text && block.text.trim_end() == message);
        if !shown {
            wrong.push(format!(
                "the entry of Error::{name} does not show this message:\n{message}"
            ));
        }
    }
    report(&wrong);
}

#[test]
fn the_front_page_of_the_crate_has_every_feature() {
    let read = |path| std::fs::read_to_string(Page::root().join(path)).unwrap();
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let front = read("src/lib.rs");
    let features = manifest["features"].as_table().unwrap();
    let missing = features.keys().filter(|name| *name != "default");
    let missing: Vec<_> = missing
        .filter(|name| !front.contains(&format!("//! | `{name}`")))
        .map(|name| format!("src/lib.rs has no line for the feature {name}"))
        .collect();
    report(&missing);
}

#[test]
fn links_lead_somewhere() {
    let link = regex_lite::Regex::new(r#"\]\(([^)#\s]+)|src="([^"]+)""#).unwrap();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in Page::all() {
        let folder = page.path.parent().unwrap_or(Path::new(""));
        for found in link.captures_iter(&page.prose) {
            let target = found.get(1).or(found.get(2)).unwrap().as_str();
            if target.contains("://") {
                continue;
            }
            checked += 1;
            let target = folder.join(target);
            if is_left_out(&target) {
                continue;
            }
            if !Page::root().join(&target).exists() {
                let (page, target) = (page.path.display(), target.display());
                wrong.push(format!("{page}: {target} is not there"));
            }
        }
    }
    assert!(checked > 0, "no link found");
    report(&wrong);
}

#[test]
fn every_page_of_the_book_is_in_its_summary() {
    let summary = Page::read("docs/src/SUMMARY.md").text;
    let wrong: Vec<_> = Page::all()
        .iter()
        .filter_map(|page| page.path.strip_prefix("docs/src").ok())
        .map(|path| path.display().to_string())
        .filter(|name| name != "SUMMARY.md" && !summary.contains(&format!("({name})")))
        .collect();
    report(&wrong);
}

//! The repository as a whole: tests/README.md is a map of all tests, and `cargo package` packs what it packs
//! whole. What is not packed is on [`NOT_PACKED`], and this file is one of them: of a package that was
//! unpacked, cargo makes no other.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use cargo_metadata::MetadataCommand;

/// Files that the package leaves out, and the reason.
const NOT_PACKED: &[(&str, &str)] = &[
    (".ci/", "runs in a clone"),
    (".editorconfig", "for who works in a clone"),
    (".gitignore", "for who works in a clone"),
    (".github/", "the forge's business"),
    ("examples/own-driver/", "a package of its own"),
    ("fuzz/", "a package of its own"),
    (
        "tests/fuzz/",
        "its corpus is in fuzz/, and its bodies are that package's",
    ),
    ("tests/own_driver.rs", "what it tests is not"),
    ("tests/repository.rs", "this file"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files that `cargo package` packs.
fn packed() -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    let arguments = ["package", "--list", "--allow-dirty", "--offline"];
    let output = cargo.args(arguments).current_dir(root()).output();
    let output = output.expect("cargo");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(str::to_owned).collect()
}

/// All files below `folder`, from the project's folder on, but for what is built and git's own.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("a folder of ours") {
        let entry = entry.expect("one of them");
        let path = entry.path();
        match entry.file_type().expect("its kind").is_dir() {
            true if path == root().join("target") || entry.file_name() == ".git" => {}
            true => all.append(&mut files(&path)),
            // In a work tree git has a file of this name.
            false if entry.file_name() == ".git" => {}
            false => {
                let path = path.strip_prefix(root()).expect("below it");
                all.insert(path.display().to_string());
            }
        }
    }
    all
}

/// `path`, which stands in the file `beside`, from the project's folder on.
fn beside(file: &str, path: &str) -> String {
    let mut whole = PathBuf::new();
    let folder = Path::new(file).parent().expect("a file is in a folder");
    for part in folder.join(path).components() {
        match part {
            Component::ParentDir => assert!(whole.pop(), "{file}: {path} leads out"),
            part => whole.push(part),
        }
    }
    whole.display().to_string()
}

/// All that the first group of `pattern` finds.
fn found(text: &str, pattern: &str) -> Vec<String> {
    let pattern = regex_lite::Regex::new(pattern).expect("a pattern");
    let found = pattern.captures_iter(text);
    found.map(|found| found[1].to_owned()).collect()
}

#[test]
fn every_test_is_on_the_map_and_what_is_on_it_is_there() {
    let map = read("tests/README.md");
    let linked: BTreeSet<_> = found(&map, r"(?m)^\| \[`[^`]+`\]\(([^)]+)\)")
        .into_iter()
        .map(|link| link.trim_end_matches("/mod.rs").to_owned())
        .collect();
    let programs: BTreeSet<_> = std::fs::read_dir(root().join("tests"))
        .expect("the tests")
        .map(|entry| entry.expect("one of them").file_name())
        .map(|name| name.into_string().expect("a name"))
        .filter(|name| name != "README.md")
        .map(
            |name| match root().join("tests").join(&name).join("main.rs") {
                main if main.exists() => format!("{name}/main.rs"),
                _ => name,
            },
        )
        // What a program keeps in a folder of its own name is on its line.
        .filter(|name| name.contains('.') || linked.contains(name) || is_shared(name))
        .collect();
    let missing: Vec<_> = programs.difference(&linked).collect();
    let gone: Vec<_> = linked.difference(&programs).collect();
    assert!(missing.is_empty(), "not on the map: {missing:?}");
    assert!(gone.is_empty(), "on the map, and not there: {gone:?}");
}

/// Returns whether a folder is of no program by that name.
fn is_shared(name: &str) -> bool {
    !root().join("tests").join(format!("{name}.rs")).exists()
}

#[test]
fn what_is_not_packed_is_left_out_on_purpose() {
    let packed = packed();
    let there = files(root());
    let left_out = |path: &&String| !packed.contains(*path);
    let wrong: Vec<_> = there
        .iter()
        .filter(left_out)
        .filter(|path| !NOT_PACKED.iter().any(|(begin, _)| path.starts_with(begin)))
        .collect();
    assert!(wrong.is_empty(), "neither packed nor listed: {wrong:?}");
    for (begin, _) in NOT_PACKED {
        let is_there = there.iter().any(|path| path.starts_with(begin));
        assert!(is_there, "{begin} is listed, and not there");
        let is_packed = packed.iter().any(|path| path.starts_with(begin));
        assert!(!is_packed, "{begin} is listed, and packed");
    }
}

#[test]
fn whatever_a_packed_source_reads_is_packed() {
    let packed = packed();
    let mut looked_at = 0;
    let mut wrong = Vec::new();
    for file in packed.iter().filter(|path| path.ends_with(".rs")) {
        let text = read(file);
        // As the compiler reads them, from beside the source, or from the package's folder.
        let sources = found(&text, r#"(?:include_(?:str|bytes)!\(|#\[path = )"([^"]+)""#);
        let mut needed: Vec<_> = sources.iter().map(|path| beside(file, path)).collect();
        let root = r#"env!\("CARGO_MANIFEST_DIR"\),\s*"/([^"]+)""#;
        needed.extend(found(&text, root));
        for path in needed {
            looked_at += 1;
            let folder = format!("{path}/");
            let is_packed = packed.contains(&path)
                || packed.iter().any(|packed| packed.starts_with(&folder))
                || path == "target";
            if !is_packed {
                wrong.push(format!("{file} reads {path}, which is not packed"));
            }
        }
    }
    assert!(looked_at > 20, "only {looked_at} seen");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn src_reads_no_file_of_the_tests() {
    let sources = packed();
    let sources = sources.iter().filter(|path| path.starts_with("src/"));
    let wrong: Vec<_> = sources
        .filter(|path| path.ends_with(".rs"))
        .filter(|path| {
            let paths = found(&read(path), r#"#\[path = "([^"]+)""#);
            paths.iter().any(|to| beside(path, to).starts_with("tests"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_package_says_where_it_comes_from() {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--locked", "--offline", "--no-deps"].map(String::from))
        .exec()
        .unwrap();
    let package = &metadata.packages[0];
    let repository = package.repository.as_deref().expect("a repository");
    assert!(package.documentation.is_some());
    // One address, wherever it is written.
    for file in ["CHANGELOG.md", ".github/ISSUE_TEMPLATE/config.yml"] {
        let links = found(&read(file), r"(https://github\.com/\S+)");
        assert!(!links.is_empty(), "{file}");
        for link in links {
            assert!(
                link.starts_with(&format!("{repository}/")),
                "{file}: {link}"
            );
        }
    }
    let version = package.rust_version.as_ref().expect("a rust-version");
    let minor = format!("Rust {}.{} ", version.major, version.minor);
    assert!(read("CHANGELOG.md").contains(&minor), "not {minor}");
}

#[test]
fn the_runner_of_the_benches_is_of_the_version_that_they_are_built_with() {
    let lock: toml::Table = read("Cargo.lock").parse().expect("a lock file");
    let packages = lock["package"].as_array().expect("packages");
    let named = packages
        .iter()
        .find(|package| package["name"].as_str() == Some("gungraun-runner"));
    let version = named.expect("it is one of them")["version"]
        .as_str()
        .expect("a version");
    assert_eq!(
        found(&read("CONTRIBUTING.md"), r"gungraun-runner@(\S+)"),
        [version]
    );
}

//! qemu/suite: runs the tests of a package that is made for it, whose tests fail as they are told to.

use std::path::Path;
use std::process::{Command, Stdio};

/// `once` fails where there is no file yet, and leaves one; `ends` takes its whole program with it.
const TESTS: &str = r#"
use std::fs::OpenOptions;
fn first_time(name: &str) -> bool {
    OpenOptions::new().write(true).create_new(true).open(name).is_ok()
}
#[test] fn good() {}
#[test] #[should_panic] fn good_if_it_panics() { panic!() }
#[test] #[ignore] fn left_out() {}
"#;

/// A package with these test programs, each of them with [`TESTS`] in front.
fn package(programs: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "Cargo.toml",
        "[package]\nname = \"sample\"\nedition = \"2024\"\n[workspace]\n",
    );
    write(
        "src/lib.rs",
        "/// ```\n/// assert!(true);\n/// ```\npub fn documented() {}\n",
    );
    for (name, text) in programs {
        write(&format!("tests/{name}.rs"), &format!("{TESTS}{text}"));
    }
    folder
}

/// What qemu/suite says of the package, and its exit code.
fn suite(folder: &Path, arguments: &[&str]) -> (String, Option<i32>) {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/qemu/suite"))
        .args(arguments)
        .current_dir(folder)
        .env("CARGO", env!("CARGO"))
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env("PINWIRE_TEST_LIMIT", "10")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let said = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
    (said, output.status.code())
}

fn total(said: &str) -> &str {
    let total = said
        .lines()
        .filter(|line| line.starts_with("test result: "));
    let total: Vec<_> = total.collect();
    assert_eq!(
        total.len(),
        1,
        "one total, or who adds them up is misled:\n{said}"
    );
    total[0].split("; 0 measured").next().unwrap()
}

#[test]
fn what_fails_once_is_unsteady_and_no_failure() {
    let once = r#"#[test] fn once() { assert!(!first_time("once")); }"#;
    let folder = package(&[("a", once), ("vm", once)]);
    std::fs::create_dir(folder.path().join("vm")).unwrap();
    let (said, code) = suite(folder.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    // With the one of the documentation. The file is the same: only one of the two fails.
    assert_eq!(
        total(&said),
        "test result: ok. 7 passed; 0 failed; 2 ignored"
    );
    let last = said
        .split("\nunsteady")
        .nth(1)
        .unwrap_or_else(|| panic!("{said}"));
    assert!(last.contains(" once\n"), "{said}");
}

#[test]
fn what_fails_twice_fails_the_run_and_is_shown() {
    let twice = r#"#[test] fn twice() { panic!("the reason"); }"#;
    let (said, code) = suite(package(&[("a", twice), ("b", "")]).path(), &[]);
    assert_eq!(code, Some(101), "{said}");
    assert_eq!(
        total(&said),
        "test result: FAILED. 5 passed; 1 failed; 2 ignored"
    );
    assert!(said.contains("\nfailed twice\n  a twice\n"), "{said}");
    assert!(said.contains("the reason"), "{said}");
}

#[test]
fn of_a_program_that_is_killed_or_hangs_each_test_is_run_by_itself() {
    let ends = r#"#[test] fn ends() { if first_time("ends") { std::process::abort() } }"#;
    let hangs = r#"#[test] fn hangs() { if first_time("hangs") { std::thread::park() } }"#;
    let folder = package(&[("a", ends), ("b", hangs)]);
    let (said, code) = suite(folder.path(), &["--tests"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        total(&said),
        "test result: ok. 6 passed; 0 failed; 2 ignored"
    );
    assert!(said.contains("no end within 10 s"), "{said}");
    let (_, last) = said.split_once("\nunsteady").unwrap();
    for program in ["a", "b"] {
        let line = format!("\n  {program} (did not come to its end)\n");
        assert!(last.contains(&line), "{said}");
    }
}

#[test]
fn arguments_are_those_of_cargo_test() {
    let folder = package(&[
        ("a", "#[test] fn wanted() {}"),
        ("vm", "#[test] fn wanted() {}"),
    ]);
    let run = |arguments: &[&str]| suite(folder.path(), arguments);
    let (said, code) = run(&["wanted"]);
    assert_eq!(
        (total(&said), code),
        ("test result: ok. 2 passed; 0 failed; 0 ignored", Some(0))
    );
    let (said, _) = run(&["--test", "vm", "--", "--ignored"]);
    assert_eq!(
        total(&said),
        "test result: ok. 1 passed; 0 failed; 0 ignored"
    );
    let (said, code) = run(&["--test", "nowhere"]);
    assert_eq!(code, Some(101), "{said}");
    std::fs::write(folder.path().join("tests/a.rs"), "no Rust").unwrap();
    let (said, code) = run(&["--tests"]);
    assert_eq!(code, Some(101), "{said}");
    assert!(said.contains("error: could not compile"), "{said}");
}

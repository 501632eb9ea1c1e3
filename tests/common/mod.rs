//! What the tests share.

#![allow(dead_code, reason = "each test uses some of it")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Is QEMU there? Where it is not, says so past the test runner's capture, or fails with
/// `PINWIRE_REQUIRE_ALL=1`; the test must return then.
#[must_use]
pub fn require_qemu() -> bool {
    let binary = std::env::var_os("PINWIRE_QEMU").unwrap_or("qemu-system-x86_64".into());
    let version = Command::new(&binary)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if version.is_ok_and(|status| status.success()) {
        return true;
    }
    let remedy = "install it: qemu/setup";
    not_run(&format!("{} is missing; {remedy}", binary.display()));
    false
}

/// Says loudly that the calling test was not run, and why; fails with `PINWIRE_REQUIRE_ALL=1`.
pub fn not_run(why: &str) {
    let thread = std::thread::current();
    let message = format!("NOT RUN: {}: {why}", thread.name().unwrap_or("a test"));
    if std::env::var_os("PINWIRE_REQUIRE_ALL").is_some_and(|value| value == "1") {
        panic!("{message}");
    }
    // Unlike `eprintln!`, this is not captured.
    let _ = writeln!(std::io::stderr(), "\n{message}");
}

/// Are VMs wanted? `PINWIRE_VM=1` asks for them; `qemu/test` does. Where they are not, says so; the
/// test must return then.
#[must_use]
pub fn wants_vm() -> bool {
    let wanted = std::env::var_os("PINWIRE_VM").is_some_and(|value| value == "1");
    if !wanted {
        not_run("it needs the VM; PINWIRE_VM=1 or qemu/test runs it");
    }
    wanted
}

/// Runs one shell line in the VM (`qemu/vm OPTIONS -- COMMAND`) and returns what came out of it. Where VMs are not
/// wanted (`PINWIRE_VM=1` asks for them; `qemu/test` does), says so and returns nothing; the test must return then.
#[must_use]
pub fn vm(options: &[&str], command: &str) -> Option<Output> {
    if !wants_vm() {
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/qemu/vm");
    let output = Command::new(script)
        .args(options)
        .args(["--", command])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    Some(output)
}

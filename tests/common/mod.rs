//! What the tests share.

#![allow(dead_code, reason = "each test uses some of it")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cargo_metadata::Message;

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

/// Is strace there, and may it trace? Where not, says so; the test must return then.
#[must_use]
pub fn has_strace() -> bool {
    let tried = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output();
    let works = tried.is_ok_and(|output| output.status.success());
    if !works {
        not_run("strace is missing or may not trace; install it: qemu/setup");
    }
    works
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

/// Is this the calling test's second time, in a process that has what `script` makes ready in new namespaces
/// (`unshare --user OPTIONS`; no root, and nothing is left)? If not, runs it there; the test must return
/// then. `inside` names a variable of the environment that tells the two apart.
#[must_use]
pub fn again(options: &[&str], script: &str, inside: &str) -> bool {
    if std::env::var_os(inside).is_some() {
        return true;
    }
    let thread = std::thread::current();
    let script = format!("{script}\necho ready; exec \"$@\"");
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .args(options)
        .args(["sh", "-ec", &script, "sh"])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", thread.name().expect("a test"), "--nocapture"])
        .env(inside, "1")
        .output();
    let (said, complaint) = output.map_or_else(
        |error| (String::new(), error.to_string()),
        |output| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (text(&output.stdout), text(&output.stderr))
        },
    );
    if !said.starts_with("ready\n") {
        not_run(&format!("it needs unshare --user: {script}\n{complaint}"));
        return false;
    }
    assert!(said.contains("1 passed"), "{said}\n{complaint}");
    if complaint.contains("NOT RUN") {
        not_run(&complaint);
    }
    false
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

/// For the VM's shell: the kernel sends nothing by itself from interfaces that come up.
pub const NO_IPV6: &str =
    "for i in all default; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done";

/// Has the monitor of a VM (`--qmp SOCKET`) run a command, with arguments as JSON; gives its answer.
pub fn qmp(socket: &Path, command: &str, arguments: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("the VM's monitor");
    let mut lines = BufReader::new(stream.try_clone().expect("a descriptor")).lines();
    let mut ask = |command: &str, arguments: &str| {
        writeln!(
            stream,
            r#"{{"execute": "{command}", "arguments": {arguments}}}"#
        )
        .expect("a VM that listens");
        // The greeting and events come in between.
        lines
            .find_map(|line| {
                let line = line.expect("a VM that answers");
                let is_answer = line.contains(r#"{"return""#) || line.contains(r#"{"error""#);
                is_answer.then_some(line)
            })
            .expect("an answer")
    };
    ask("qmp_capabilities", "{}");
    ask(command, arguments)
}

/// The test `name`, as a program that runs in the VM; put into `share`.
pub fn put_test(name: &str, share: &Path) {
    let mut cargo = Command::new(env!("CARGO"))
        .args(["test", "--quiet", "--no-run", "--release", "--test", name])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // The guest has no libraries.
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cargo");
    let output = std::io::BufReader::new(cargo.stdout.take().expect("piped"));
    let built = Message::parse_stream(output)
        .filter_map(|message| match message {
            Ok(Message::CompilerArtifact(artifact)) if artifact.profile.test => artifact.executable,
            _ => None,
        })
        .last();
    assert!(
        cargo.wait().expect("cargo").success(),
        "building {name} failed"
    );
    let built = PathBuf::from(built.expect("a program"));
    std::fs::copy(built, share.join(name)).expect("the share can be written");
}

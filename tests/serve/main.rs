//! `pinwire serve`, seen by clients that are not ours: Python's HTTP, raw sockets (client.py), and curl.
//!
//! What is claimed of the server is tried with each method: how bytes move is all that differs.
#![cfg(feature = "cli")]

#[path = "../common/mod.rs"]
mod common;
mod files;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::has_strace;
use tempfile::TempDir;

/// All of them.
const METHODS: [&str; 6] = ["read", "mmap", "sendfile", "splice", "io_uring", "zerocopy"];
/// Tries each of them, all at the same time: most of that is waiting.
fn each_method(test: impl Fn(&'static str) + Sync) {
    std::thread::scope(|scope| {
        for method in METHODS {
            let test = &test;
            scope.spawn(move || test(method));
        }
    });
}

/// Lies beside the folder that is served.
const SECRET: &str = "the secret";

/// A folder to serve.
struct Site {
    top: TempDir,
}

impl Site {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("site")).unwrap();
        fs::write(top.path().join("secret"), SECRET).unwrap();
        let site = Self { top };
        site.file("small", 1000);
        site
    }

    fn path(&self) -> PathBuf {
        self.top.path().join("site")
    }

    /// A file whose bytes tell where they are.
    fn file(&self, name: &str, size: usize) -> PathBuf {
        let mut state = 0x9e37_79b9u32 ^ size as u32;
        let bytes: Vec<u8> = (0..size)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let path = self.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// A server, ended with the test.
struct Server {
    child: Child,
    /// The server's own process, which is not `child` under strace.
    pid: String,
    port: String,
    /// What it said before the line with its address.
    said: String,
}

impl Server {
    fn new(site: &Site, method: &str, options: &[&str]) -> Self {
        Self::under(&[], site, method, options)
    }

    /// Started by another program, such as strace.
    fn under(by: &[String], site: &Site, method: &str, options: &[&str]) -> Self {
        Self::of(by, &site.path(), method, options)
    }

    /// Of any folder.
    fn of(by: &[String], folder: &Path, method: &str, options: &[&str]) -> Self {
        let mut line: Vec<_> = by.iter().map(String::as_str).collect();
        line.extend([env!("CARGO_BIN_EXE_pinwire"), "serve"]);
        let mut child = Command::new(line[0])
            .args(&line[1..])
            .arg(folder)
            .args(["--method", method, "--port", "0", "--json"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", line[0]));
        let mut said = String::new();
        let mut port = None;
        let mut stderr = BufReader::new(child.stderr.as_mut().unwrap());
        while port.is_none() {
            let mut line = String::new();
            let read = stderr.read_line(&mut line).unwrap();
            assert!(read > 0, "{method}: it did not start: {said}");
            let address = line.split_once("http://127.0.0.1:");
            port = address.and_then(|(_, rest)| Some(rest.split_once('/')?.0.to_owned()));
            said += &line;
        }
        let own = child.id().to_string();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let pid = match (by.is_empty(), children) {
            (false, Ok(children)) if !children.is_empty() => children.trim().to_owned(),
            _ => own,
        };
        let port = port.unwrap();
        Self {
            child,
            pid,
            port,
            said,
        }
    }

    /// Has a client check a claim.
    fn shows(&self, claim: &str, arguments: &[&str]) -> Option<String> {
        let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/serve/client.py");
        let output = Command::new("timeout")
            .args(["60", "python3", client, claim, &self.port])
            .args(arguments)
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0) => Some(printed),
            Some(77) => {
                common::not_run(printed.trim());
                None
            }
            _ => panic!(
                "{claim} {arguments:?}: {}\n{printed}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ),
        }
    }

    fn interrupt(&self) {
        let done = Command::new("kill").args(["-INT", &self.pid]).status();
        assert!(done.unwrap().success());
    }

    /// Ends it as Ctrl-C does; gives what it counted.
    fn end(self) -> serde_json::Value {
        self.interrupt();
        self.ended().0
    }

    /// What it counted, and what it said, once it has ended by Ctrl-C.
    fn ended(mut self) -> (serde_json::Value, String) {
        let (mut counted, mut said) = (String::new(), std::mem::take(&mut self.said));
        let (stdout, stderr) = (self.child.stdout.as_mut(), self.child.stderr.as_mut());
        stdout.unwrap().read_to_string(&mut counted).unwrap();
        stderr.unwrap().read_to_string(&mut said).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(130), "{said}");
        let counted = serde_json::from_str(&counted);
        (
            counted.unwrap_or_else(|error| panic!("{error}: {said}")),
            said,
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = Command::new("kill").args(["-KILL", &self.pid]).status();
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// `pinwire serve` that is expected to fail.
fn refused(by: &[String], arguments: &[&str]) -> Output {
    let mut line = vec!["timeout", "10"];
    line.extend(by.iter().map(String::as_str));
    line.extend([env!("CARGO_BIN_EXE_pinwire"), "serve"]);
    line.extend(arguments);
    Command::new(line[0]).args(&line[1..]).output().unwrap()
}

/// A strace that meddles with these calls of what it runs.
fn meddling(calls: &str, how: &str) -> Vec<String> {
    logged_meddling(calls, how, "/dev/null")
}

/// The same, and the calls are written into a file.
fn logged_meddling(calls: &str, how: &str, log: &str) -> Vec<String> {
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{how}"));
    [
        "strace", "-f", "-qqq", "-o", log, "-e", &trace, "-e", &inject,
    ]
    .map(str::to_owned)
    .into()
}

/// A path as text.
fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn every_method_sends_every_byte_whole_and_in_ranges() {
    let site = Site::new();
    for size in [
        0, 1, 2, 4095, 4096, 4097, 65_537, 131_073, 1_048_577, 9_000_000,
    ] {
        site.file(&size.to_string(), size);
    }
    let slow = site.file("slow", 12_345_678);
    for method in METHODS {
        let server = Server::new(&site, method, &[]);
        server.shows("every_byte", &[text(&site.path())]);
        server.shows("slow_reader", &["slow", text(&slow)]);
        let counted = server.end();
        assert_eq!(counted["cut_short"], 0, "{method}: {counted}");
        assert_eq!(counted["method"], method);
    }
}

#[test]
fn files_beyond_32_bits_are_sent() {
    let site = Site::new();
    let path = site.path().join("huge");
    let file = File::create(&path).unwrap();
    const SIZE: u64 = 5 << 30;
    file.set_len(SIZE).unwrap();
    for at in [1u64 << 31, 1 << 32, SIZE] {
        file.write_all_at(b"here it is", at - 5 - u64::from(at == SIZE) * 5)
            .unwrap();
    }
    for method in METHODS {
        let server = Server::new(&site, method, &[]);
        server.shows("beyond_2_gib", &["huge", text(&path)]);
    }
    // One answer that is longer than 32 bits count.
    let server = Server::new(&site, "sendfile", &[]);
    let url = format!("http://127.0.0.1:{}/huge", server.port);
    let curl = Command::new("curl")
        .args(["-sS", "-m", "100", "-r", "0-4300000000", "-o", "/dev/null"])
        .args(["-w", "%{http_code} %{size_download}", &url])
        .output();
    match curl {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), "206 4300000001"),
        Err(_) => common::not_run("curl is missing; install it: qemu/setup"),
    }
}

#[test]
fn ranges_conditions_and_kept_connections_are_answered_as_http_says() {
    let site = Site::new();
    let data = site.file("data.bin", 100_000);
    for method in METHODS {
        let server = Server::new(&site, method, &[]);
        server.shows("several_ranges", &["data.bin", text(&data)]);
        server.shows("keep_alive", &["small", text(&site.path().join("small"))]);
        server.shows("versions", &["small", text(&site.path().join("small"))]);
    }
    let server = Server::new(&site, "sendfile", &[]);
    server.shows(
        "other_methods",
        &["small", text(&site.path().join("small"))],
    );
    server.shows("long_bodies", &[]);
    server.shows("conditions", &["data.bin", text(&data)]);
}

/// Files and links in and out of the folder.
fn tree(site: &Site) {
    let path = site.path();
    let at = |name: &str| path.join(name);
    fs::create_dir(at("a")).unwrap();
    fs::write(at("a/inside"), "inside").unwrap();
    for (link, target) in [
        ("in", "a/inside"),
        ("a/in-up", "../a/inside"),
        ("out", "../secret"),
        ("out-folder", ".."),
        ("proc-link", "/proc/self"),
        ("chain", "out"),
    ] {
        symlink(target, at(link)).unwrap();
    }
    symlink(site.top.path().join("secret"), at("out-absolute")).unwrap();
    fs::write(at("denied"), "denied").unwrap();
    fs::set_permissions(at("denied"), fs::Permissions::from_mode(0o0)).unwrap();
    let made = Command::new("mkfifo").arg(at("fifo")).status();
    assert!(made.unwrap().success());
    let socket = std::os::unix::net::UnixListener::bind(at("socket"));
    drop(socket.unwrap());
}

#[test]
fn nothing_leads_out_of_the_folder() {
    let site = Site::new();
    tree(&site);
    let server = Server::new(&site, "sendfile", &[]);
    server.shows("nothing_leads_out", &[SECRET]);
    assert_eq!(server.end()["cut_short"], 0);
}

#[test]
fn nothing_leads_out_of_the_folder_where_the_kernel_has_no_openat2() {
    if !has_strace() {
        return;
    }
    let site = Site::new();
    tree(&site);
    let strace = meddling("openat2", "error=ENOSYS");
    let server = Server::under(&strace, &site, "sendfile", &[]);
    assert!(
        server.said.contains("symbolic links are not followed"),
        "{}",
        server.said
    );
    server.shows("nothing_leads_out", &[SECRET, "do not follow"]);
}

#[test]
fn a_folder_is_listed_and_names_in_it_are_only_names() {
    let site = Site::new();
    let odd = site.path().join("odd");
    fs::create_dir_all(odd.join("folder")).unwrap();
    for name in [
        "plain",
        "with space",
        "<script>alert(1)</script>"
            .replace('/', "\u{2215}")
            .as_str(),
        "\"quoted\" 'twice' &amp;",
        "per%20cent",
        "que?ry#fragment",
        "javascript:alert(1)",
        "ünïcödé",
        "back\\slash",
        "new\nline",
        "..almost",
    ] {
        fs::write(odd.join(name), name).unwrap();
    }
    fs::write(odd.join(OsStr::from_bytes(b"not \xff utf-8")), "x").unwrap();
    fs::write(site.path().join("index.html"), "<p>index\n").unwrap();
    for name in ["a.css", "a.PNG", "a.unknown"] {
        fs::write(site.path().join(name), "").unwrap();
    }
    let server = Server::new(&site, "sendfile", &[]);
    server.shows("folders", &[text(&odd)]);
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_ends_the_answer_and_nothing_else() {
    each_method(|method| {
        let site = Site::new();
        let path = site.file("shrinks", 40_000_000);
        let server = Server::new(&site, method, &["--workers", "1"]);
        server.shows("shrinking", &["shrinks", text(&path)]);
        let counted = server.end();
        assert_eq!(counted["cut_short"], 1, "{method}: {counted}");
    });
}

#[test]
fn zeros_behind_the_end_of_a_file_that_has_shrunk_are_never_a_whole_answer() {
    if !has_strace() {
        return;
    }
    each_method(|method| {
        let site = Site::new();
        let path = site.file("shrinks", 3000);
        // Each send is held for two seconds, so that the file shrinks between the look at it and its bytes.
        let calls = "sendto,sendfile,splice,io_uring_enter";
        let strace = meddling(calls, "delay_enter=2000000");
        let server = Server::under(&strace, &site, method, &["--workers", "1"]);
        server.shows("shrinking_between", &["shrinks", text(&path)]);
    });
}

#[test]
fn a_peer_that_vanishes_leaves_nothing_open() {
    let site = Site::new();
    site.file("large", 40_000_000);
    each_method(|method| {
        let server = Server::new(&site, method, &[]);
        let pid = server.pid.clone();
        server.shows("vanishing", &["large", &pid]);
        let counted = server.end();
        assert_eq!(counted["cut_short"], 5, "{method}: {counted}");
    });
}

#[test]
fn calls_that_are_interrupted_are_made_again() {
    if !has_strace() {
        return;
    }
    let site = Site::new();
    // More than a socket takes at once, so that each method meets a full one in the middle of its calls.
    let slow = site.file("slow", 16_000_000);
    let small = site.path().join("small");
    for (method, calls, when) in [
        // The first ones are the loader's.
        ("read", "pread64", "8+2"),
        ("read", "sendto,recvfrom,epoll_pwait", "2+2"),
        ("mmap", "sendto,recvfrom,epoll_pwait", "2+2"),
        ("sendfile", "sendfile,sendto,openat2", "2+2"),
        ("splice", "splice,sendto,accept4", "2+2"),
        ("io_uring", "io_uring_enter,sendto", "2+2"),
        ("zerocopy", "pread64", "8+2"),
        ("zerocopy", "sendto,recvmsg", "2+2"),
    ] {
        let log = site.top.path().join("log");
        let strace = logged_meddling(calls, &format!("error=EINTR:when={when}"), text(&log));
        let server = Server::under(&strace, &site, method, &["--workers", "1"]);
        server.shows("slow_reader", &["small", text(&small)]);
        server.shows("slow_reader", &["small", text(&small)]);
        server.shows("slow_reader", &["slow", text(&slow)]);
        let counted = server.end();
        assert_eq!(counted["cut_short"], 0, "{method}: {counted}");
        let log = fs::read_to_string(&log).unwrap();
        for call in calls.split(',') {
            let injected = |line: &str| line.contains(call) && line.contains("(INJECTED)");
            assert!(
                log.lines().any(injected),
                "{method}: {call} was never interrupted"
            );
        }
    }
}

#[test]
fn a_pipe_that_cannot_be_emptied_gives_its_bytes_to_nobody() {
    if !has_strace() {
        return;
    }
    let site = Site::new();
    let slow = site.file("slow", 16_000_000);
    // What a full socket did not take is thrown into /dev/null: that fails each time.
    let mut strace = meddling("splice", "error=EIO");
    strace.extend(["-P", "/dev/null"].map(str::to_owned));
    let server = Server::under(&strace, &site, "splice", &["--workers", "1"]);
    server.shows("slow_reader", &["slow", text(&slow)]);
    server.shows("every_byte", &[text(&site.path())]);
    assert_eq!(server.end()["cut_short"], 0);
}

#[test]
fn a_file_that_is_not_ready_is_not_taken_for_a_full_socket() {
    if !has_strace() {
        return;
    }
    let site = Site::new();
    let small = site.path().join("small");
    for (method, call) in [
        ("read", "pread64"),
        ("splice", "splice"),
        ("zerocopy", "pread64"),
    ] {
        let mut strace = meddling(call, "error=EAGAIN");
        strace.extend(["-P", text(&small)].map(str::to_owned));
        let server = Server::under(&strace, &site, method, &["--workers", "1"]);
        server.shows("ends_early", &["small"]);
        assert_eq!(server.end()["cut_short"], 1, "{method}");
    }
}

#[test]
fn each_method_makes_the_calls_that_it_says_and_no_others() {
    if !has_strace() {
        return;
    }
    let site = Site::new();
    site.file("large", 8_000_000);
    let all = [
        "pread64",
        "mmap",
        "sendfile",
        "splice",
        "io_uring_enter",
        "recvmsg",
    ];
    for (method, calls) in [
        ("read", &["pread64"][..]),
        ("mmap", &["mmap", "pread64"]),
        ("sendfile", &["sendfile"]),
        ("splice", &["splice"]),
        ("io_uring", &["io_uring_enter"]),
        ("zerocopy", &["pread64", "recvmsg"]),
    ] {
        let log = site.top.path().join(method);
        let strace = ["strace", "-f", "-qqq", "-y", "-o", text(&log)].map(str::to_owned);
        let server = Server::under(&strace, &site, method, &["--workers", "1"]);
        let url = format!("http://127.0.0.1:{}/large", server.port);
        let client = "import sys, urllib.request as r; sys.exit(len(r.urlopen(sys.argv[1]).read()) != 8000000)";
        let got = Command::new("python3").args(["-c", client, &url]).status();
        assert!(got.unwrap().success(), "{method}");
        server.end();
        let log = fs::read_to_string(&log).unwrap();
        let (_, served) = log.split_once("recvfrom(").expect("a request");
        for call in all {
            let made = served.lines().filter(|line| {
                // A map of our own for a buffer is no map of the file.
                line.contains(&format!(" {call}(")) && (call != "mmap" || line.contains("/large>"))
            });
            assert_eq!(
                made.count() > 0,
                calls.contains(&call),
                "{method}: {call}\n{served}"
            );
        }
    }
}

#[test]
fn the_head_of_a_long_file_leaves_by_itself_and_that_of_a_short_one_with_it() {
    if !has_strace() {
        return;
    }
    let site = Site::new();
    let long = site.file("long", 8_000_000);
    let log = site.top.path().join("log");
    let strace = [
        "strace",
        "-f",
        "-qqq",
        "-e",
        "trace=sendto",
        "-o",
        text(&log),
    ];
    let server = Server::under(&strace.map(str::to_owned), &site, "sendfile", &[]);
    server.shows("slow_reader", &["long", text(&long)]);
    server.shows("slow_reader", &["small", text(&site.path().join("small"))]);
    server.end();
    let log = fs::read_to_string(&log).unwrap();
    let heads: Vec<_> = log
        .lines()
        .filter(|line| line.contains("HTTP/1.1 200"))
        .map(|line| line.contains("MSG_MORE"))
        .collect();
    assert_eq!(heads, [false, true], "{log}");
}

#[test]
fn what_a_kernel_lacks_is_an_error_that_says_so() {
    if !has_strace() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (method, call, how, says) in [
        (
            "io_uring",
            "io_uring_setup",
            "error=ENOSYS",
            "no io_uring: Function not implemented",
        ),
        (
            "io_uring",
            "io_uring_setup",
            "error=EPERM",
            "kernel.io_uring_disabled",
        ),
        ("io_uring", "io_uring_register", "error=ENOMEM", "ulimit -l"),
        (
            "zerocopy",
            "setsockopt",
            "error=ENOPROTOOPT:when=3",
            "SO_ZEROCOPY",
        ),
    ] {
        let strace = meddling(call, how);
        let output = refused(
            &strace,
            &[text(folder.path()), "--method", method, "--port", "0"],
        );
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(says) && said.contains("--method sendfile"),
            "{said}"
        );
    }
}

#[test]
fn slow_peers_are_given_up_and_steady_ones_are_not() {
    let site = Site::new();
    let large = site.file("large", 12_000_000);
    let options = [
        "--head",
        "2",
        "--idle",
        "3",
        "--window",
        "2",
        "--min-rate",
        "1000",
    ];
    each_method(|method| {
        let server = Server::new(&site, method, &options);
        server.shows("slow_heads", &[]);
        server.shows("slow_takers", &["large", text(&large)]);
        let counted = server.end();
        assert_eq!(counted["too_slow"], 2, "{method}: {counted}");
        assert_eq!(counted["cut_short"], 1, "{method}: {counted}");
    });
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_keep_nobody_waiting() {
    let site = Site::new();
    let server = Server::new(&site, "sendfile", &[]);
    let pid = server.pid.clone();
    if let Some(said) = server.shows("many_idle", &[&pid, "10000"]) {
        println!("{said}");
        let counted = server.end();
        assert!(
            counted["most_at_once"].as_u64().unwrap() >= 10_000,
            "{counted}"
        );
    }
}

#[test]
fn connections_beyond_the_bound_wait_for_their_turn() {
    let site = Site::new();
    let options = [
        "--connections",
        "6",
        "--workers",
        "2",
        "--head",
        "5",
        "--idle",
        "30",
    ];
    let server = Server::new(&site, "sendfile", &options);
    server.shows("full", &["6"]);
}

/// A shell's line that starts what follows with fewer open files.
fn with_limit(files: &str) -> Vec<String> {
    let line = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
    ["bash", "-c", &line].map(str::to_owned).into()
}

#[test]
fn too_few_open_files_are_an_error_or_a_warning_that_names_the_limit() {
    let site = Site::new();
    let path = site.path();
    let arguments = [
        text(&path),
        "--port",
        "0",
        "--connections",
        "1000",
        "--workers",
        "2",
    ];
    let output = refused(&with_limit("500"), &arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the hard limit is 500") && said.contains("ulimit -n 1330"),
        "{said}"
    );
    let server = Server::under(&with_limit("500"), &site, "sendfile", &["--workers", "2"]);
    assert!(
        server.said.contains("raise it: ulimit -n"),
        "{}",
        server.said
    );
    assert!(
        server.said.contains("336 connections at once"),
        "{}",
        server.said
    );
}

#[test]
fn where_no_file_can_be_opened_the_answer_says_so_and_later_ones_are_right() {
    let site = Site::new();
    site.file("large", 40_000_000);
    let server = Server::under(&with_limit("200"), &site, "sendfile", &["--workers", "1"]);
    server.shows("no_file_left", &["/large", "60"]);
}

#[test]
fn listings_that_nobody_takes_are_bounded_in_size_and_number() {
    let site = Site::new();
    // Each letter of a name has three in its link.
    let name = "*".repeat(240);
    let fill = |from, to| {
        for number in from..to {
            File::create(site.path().join(format!("{name}{number}"))).unwrap();
        }
    };
    let server = Server::new(&site, "sendfile", &["--workers", "1"]);
    // Four megabytes each, and 64 MiB for all of them: few fit.
    fill(0, 4000);
    server.shows("no_file_left", &["/", "25"]);
    fill(4000, 9000);
    server.shows("paged_listing", &[text(&site.path())]);
}

#[test]
fn ctrl_c_finishes_what_is_under_way() {
    let site = Site::new();
    let large = site.file("large", 12_000_000);
    each_method(|method| {
        let server = Server::new(&site, method, &[]);
        let pid = server.pid.clone();
        server.shows("finishing", &["large", text(&large), &pid]);
        let (counted, _) = server.ended();
        assert_eq!(counted["cut_short"], 0, "{method}: {counted}");
    });
}

#[test]
fn sends_without_a_copy_are_all_accounted_for() {
    let site = Site::new();
    site.file("large", 40_000_000);
    let slow = site.file("slow", 12_345_678);
    let server = Server::new(&site, "zerocopy", &["--workers", "1"]);
    server.shows("slow_reader", &["slow", text(&slow)]);
    server.shows("slow_reader", &["slow", text(&slow)]);
    let counted = server.end();
    let of = |name: &str| counted["zerocopy"][name].as_u64().unwrap();
    assert!(of("sends") > 100, "{counted}");
    // The connections were closed once all was taken; the last reports may have come too late to be read.
    assert!(
        of("completed") > of("sends") / 2 && of("completed") <= of("sends"),
        "{counted}"
    );
    assert_eq!(
        of("copied_by_kernel"),
        of("completed"),
        "on a loopback: {counted}"
    );
}

#[test]
fn each_request_is_logged_with_v_and_only_then() {
    let site = Site::new();
    for (options, lines) in [(&["-v"][..], 2), (&[], 0)] {
        let server = Server::new(&site, "read", options);
        let mut stream =
            std::net::TcpStream::connect(format!("127.0.0.1:{}", server.port)).unwrap();
        stream
            .write_all(b"GET /small HTTP/1.1\r\nHost: x\r\n\r\nGET /n\xc3\xbc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        server.interrupt();
        let (_, said) = server.ended();
        let logged: Vec<_> = said
            .lines()
            .filter(|line| line.contains("\"GET /"))
            .collect();
        assert_eq!(logged.len(), lines, "{said}");
        if let [first, second] = logged[..] {
            assert!(first.contains("\"GET /small\" 200 "), "{said}");
            assert!(second.contains("\" 404 "), "{said}");
        }
    }
}

#[test]
fn what_cannot_be_served_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = text(folder.path());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, says) in [
        (
            &["/nowhere/at/all"][..],
            "cannot serve /nowhere/at/all: No such file",
        ),
        (
            &["/etc/passwd"],
            "cannot serve /etc/passwd: Not a directory",
        ),
        (&[path, "--port", &port], "cannot listen at 127.0.0.1:"),
        (
            &[path, "--address", "192.0.2.1"],
            "cannot listen at 192.0.2.1:8888: Cannot assign",
        ),
    ] {
        let output = refused(&[], arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(says), "{said}");
    }
    assert_eq!(
        refused(&[], &[path, "--method", "magic"]).status.code(),
        Some(2)
    );
}

#[test]
fn the_bench_compares_every_method_with_nginx() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/target");
    let state = std::env::var("CARGO_TARGET_DIR").unwrap_or(root.to_owned()) + "/qemu";
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:" + &state;
    for tool in ["nginx", "wrk"] {
        let found = Command::new(tool).arg("-v").env("PATH", &path).output();
        if found.is_err() {
            common::not_run(&format!("{tool} is missing; get it: qemu/setup"));
            return;
        }
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/qemu/serve-bench");
    let output = Command::new("timeout")
        .args(["60", script, "--json", "--rounds", "1", "--seconds", "1"])
        .args(["--sizes", "4K", "--methods", "sendfile,io_uring"])
        .env("PINWIRE", env!("CARGO_BIN_EXE_pinwire"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let results = found["results"].as_array().unwrap();
    let servers: Vec<_> = results.iter().map(|one| one["server"].as_str()).collect();
    assert_eq!(
        servers,
        ["nginx", "nginx nopush", "sendfile", "io_uring"].map(Some)
    );
    for one in results {
        assert!(
            one["requests_per_second"]["median"].as_f64() > Some(10.0),
            "{one}"
        );
        assert!(
            one["cpu_seconds_per_gib"]["median"].as_f64() > Some(0.0),
            "{one}"
        );
    }
}

//! The examples that echo and relay by `splice`, against clients and a server that are not our code.
#![cfg(feature = "ladder")]

mod common;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::LazyLock;

use rustix::process::{Pid, Signal, kill_process};

/// The example `name`; both are built first, which `cargo test --test` leaves out.
fn example(name: &str) -> Command {
    static TARGET: LazyLock<PathBuf> = LazyLock::new(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--example", "splice_echo"]);
        cargo.args(["--example", "splice_relay"]);
        let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(built.expect("cargo").success(), "the examples do not build");
        let tests = std::env::current_exe().expect("our own path");
        let target = tests.parent().and_then(Path::parent);
        target.expect("target/PROFILE/deps").join("examples")
    });
    Command::new(TARGET.join(name))
}

/// A server, ended with the test.
struct Server {
    child: Child,
    address: SocketAddr,
    said: BufReader<ChildStdout>,
}

impl Server {
    fn start(name: &str, args: &[&str]) -> Self {
        Self::start_as(example(name), args)
    }

    fn start_as(mut command: Command, args: &[&str]) -> Self {
        command.arg("127.0.0.1:0").args(args).stdout(Stdio::piped());
        // A shell's job in the background hears no Ctrl-C, and nor would its children.
        let hear = || {
            // SAFETY: the default is no function.
            unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
            Ok(())
        };
        // SAFETY: `signal` may be called between fork and exec.
        unsafe { command.pre_exec(hear) };
        let mut child = command.spawn().expect("built");
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").expect(&line);
        let address = address.parse().unwrap();
        Self {
            child,
            address,
            said,
        }
    }

    fn says(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a script with the server's port, and what the scripts share, before it.
fn python(script: &str, port: u16) {
    const SHARED: &str = r#"
import hashlib, os, random, socket, struct, sys, threading, time
PORT = int(sys.argv[1])

def connect():
    return socket.create_connection(("127.0.0.1", PORT), timeout=20)

def rest(stream):
    got = bytearray()
    while read := stream.recv(1 << 16):
        got += read
    return bytes(got)

def reset(stream):
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()

def every(count, body):
    failed = []
    def run(number):
        try:
            body(number)
        except BaseException as error:
            failed.append(f"{number}: {error!r}")
    threads = [threading.Thread(target=run, args=[number]) for number in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failed, failed
"#;
    let output: Output = Command::new("python3")
        .args(["-c", &format!("{SHARED}\n{script}"), &port.to_string()])
        .output()
        .expect("python3");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn a_connection_that_gets_no_thread_is_closed_and_the_server_goes_on() {
    let tried = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .status();
    if !tried.is_ok_and(|status| status.success()) {
        common::not_run("strace is missing or may not trace; install it: qemu/setup");
        return;
    }
    let echo = Server::start("splice_echo", &[]);
    const CLOSED: &str = r#"
with connect() as stream:
    assert rest(stream) == b""
"#;
    const SERVED: &str = r#"
with connect() as stream:
    stream.sendall(b"hello")
    stream.shutdown(socket.SHUT_WR)
    assert rest(stream) == b"hello"
"#;
    for (name, args, scripts) in [
        ("splice_echo", &[][..], [CLOSED, SERVED]),
        // The second connection's own thread has none for the way back, either.
        (
            "splice_relay",
            &[&echo.address.to_string()[..]],
            [CLOSED, CLOSED],
        ),
    ] {
        let mut command = Command::new("strace");
        // -D: the server is our child, and strace is not. Each thread's first attempt fails.
        command.args(["-D", "-f", "-qqq", "-o", "/dev/null"]);
        command.args(["-e", "trace=clone,clone3"]);
        command.args(["-e", "inject=clone,clone3:error=EAGAIN:when=1"]);
        command.arg(example(name).get_program());
        let mut server = Server::start_as(command, args);
        for script in scripts {
            python(script, server.address.port());
        }
        assert!(server.child.try_wait().unwrap().is_none(), "{name}");
    }
}

#[test]
fn an_echo_sends_back_all_to_many_at_once_and_what_is_under_way_after_a_half_close() {
    let server = Server::start("splice_echo", &[]);
    python(
        r#"
def talk(number):
    payload = random.Random(number).randbytes(700_001)
    with connect() as stream:
        def send():
            at = 0
            while at < len(payload):
                at += stream.send(payload[at:at + 1 + at % 70_000])
            stream.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=send)
        sender.start()
        assert rest(stream) == payload
        sender.join()
every(30, talk)
"#,
        server.address.port(),
    );
}

#[test]
fn an_echo_goes_on_while_one_client_takes_nothing_and_others_vanish() {
    let server = Server::start("splice_echo", &[]);
    python(
        r#"
stuck = connect()
stuck.setblocking(False)
try:
    while True:
        stuck.send(bytes(1 << 16))
except BlockingIOError:
    pass
for _ in range(20):
    stream = connect()
    stream.sendall(bytes(100_000))
    reset(stream)
with connect() as stream:
    stream.sendall(b"still there?")
    stream.shutdown(socket.SHUT_WR)
    assert rest(stream) == b"still there?"
"#,
        server.address.port(),
    );
}

#[test]
fn a_relay_carries_both_ways_and_each_half_closes_by_itself() {
    // The server behind it answers only once the client has said that no more will come.
    let behind = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = behind.local_addr().unwrap().to_string();
    drop(behind);
    let mut server = Server::start("splice_relay", &[&to]);
    let port = to.rsplit_once(':').unwrap().1;
    python(
        &format!(
            "BEHIND = {port}\n{}",
            r#"
listener = socket.create_server(("127.0.0.1", BEHIND))
def answer(stream):
    with stream:
        question = rest(stream)
        stream.sendall(hashlib.sha256(question).digest() + question[::-1])
def accept():
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=answer, args=[stream], daemon=True).start()
threading.Thread(target=accept, daemon=True).start()

def ask(number):
    question = random.Random(number).randbytes(300_000 + number)
    with connect() as stream:
        stream.sendall(question)
        stream.shutdown(socket.SHUT_WR)
        assert rest(stream) == hashlib.sha256(question).digest() + question[::-1]
every(30, ask)
"#
        ),
        server.address.port(),
    );
    let line = server.says();
    assert!(line.contains("bytes there, 300"), "{line}");
}

#[test]
fn a_relay_tells_each_side_where_the_other_vanishes_or_was_never_there() {
    let behind = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = behind.local_addr().unwrap();
    let mut server = Server::start("splice_relay", &[&to.to_string()]);
    let wait = Some(std::time::Duration::from_secs(10));

    // The one behind goes: the client's stream ends.
    let mut near = TcpStream::connect(server.address).unwrap();
    let (far, _) = behind.accept().unwrap();
    reset(far);
    near.set_read_timeout(wait).unwrap();
    assert!(ended(&mut near), "the client was not told");

    // The client goes: the stream of the one behind ends.
    let near = TcpStream::connect(server.address).unwrap();
    let (mut far, _) = behind.accept().unwrap();
    reset(near);
    far.set_read_timeout(wait).unwrap();
    assert!(ended(&mut far), "the one behind was not told");

    // Nobody is behind any more.
    let said = [server.says(), server.says()];
    assert!(said.iter().all(|line| line.contains("reset")), "{said:?}");
    drop(behind);
    let mut near = TcpStream::connect(server.address).unwrap();
    near.set_read_timeout(wait).unwrap();
    assert!(ended(&mut near), "the client waits for nobody");
    let line = server.says();
    assert!(line.contains("refused"), "{line}");
}

/// Closes it without a farewell.
fn reset(stream: TcpStream) {
    let now = Some(std::time::Duration::ZERO);
    rustix::net::sockopt::set_socket_linger(&stream, now).unwrap();
}

fn ended(stream: &mut TcpStream) -> bool {
    use std::io::{ErrorKind, Read};
    match stream.read(&mut [0; 16]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn ctrl_c_ends_a_server_and_its_connections() {
    for (name, args) in [("splice_echo", &[][..]), ("splice_relay", &["127.0.0.1:1"])] {
        let mut server = Server::start(name, args);
        let mut stream = TcpStream::connect(server.address).unwrap();
        let pid = Pid::from_child(&server.child);
        kill_process(pid, Signal::INT).unwrap();
        let status = server.child.wait().unwrap();
        // A shell makes 130 of it.
        assert_eq!(
            status.signal(),
            Some(Signal::INT.as_raw()),
            "{name}: {status}"
        );
        assert!(ended(&mut stream), "{name}");
        assert!(TcpStream::connect(server.address).is_err(), "{name}");
    }
}

#[test]
fn a_server_says_how_it_is_used() {
    for name in ["splice_echo", "splice_relay"] {
        let help = example(name).arg("--help").output().expect("built");
        let said = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(
            help.status.success() && said.starts_with("usage: "),
            "{said}"
        );
        let wrong = example(name).output().expect("built");
        assert_eq!(wrong.status.code(), Some(2));
        assert_eq!(String::from_utf8_lossy(&wrong.stderr), said);
        let args = ["127.0.0.1:no", "127.0.0.1:1"];
        let mut refused = example(name);
        refused.args(&args[..if name == "splice_echo" { 1 } else { 2 }]);
        let refused = refused.output().expect("built");
        assert_eq!(refused.status.code(), Some(1));
    }
}

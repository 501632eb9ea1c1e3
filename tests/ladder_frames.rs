//! The ladder's rungs that make frames for the kernel's interface: over a pair of virtual ones, to a far
//! end that is not our code, and over lo. All of it is in network namespaces that the test makes for
//! itself, in which it runs once more (`PINWIRE_FRAMES`): no root, and nothing is left.
#![cfg(feature = "ladder")]

mod common;
#[path = "ladder/far.rs"]
mod far;
#[path = "ladder/pestered.rs"]
mod pestered;
#[path = "ladder/refusals.rs"]
mod refusals;

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use far::file_of;
use pestered::pestered;
use pinwire::paths::ladder::{
    Arrived, Delivered, Interface, Job, Protocol, RUNGS, Receiver, Rung, Sink, Stopped, Terms, Why,
};
use sha2::{Digest, Sha256};

static GO_ON: AtomicBool = AtomicBool::new(false);
static PROGRESS: AtomicU64 = AtomicU64::new(0);

/// Runs `body` for each such rung in a namespace of its own, where `near` is our end of a pair.
fn in_a_namespace(body: impl Fn(&Rung)) {
    let setup = "ip link set lo up; ip addr add 10.78.0.1/24 dev lo
        ip link add near type veth peer name far; ip link del near";
    if !common::again(&["--net"], setup, "PINWIRE_FRAMES") {
        return;
    }
    for rung in RUNGS.iter().filter(|rung| rung.number == 10) {
        println!("--- {}", rung.name);
        match (rung.missing)() {
            Some(why) => common::not_run(&format!("{}: {why}", rung.name)),
            None => body(rung),
        }
    }
}

/// A far end: where it hears, and how frames get there.
struct Far {
    child: Child,
    control: SocketAddr,
    name: &'static str,
    from: Ipv4Addr,
}

impl Far {
    /// At the other end of the pair, which goes into a namespace of its own.
    fn over_veth(program: &[&str]) -> Self {
        let pair = "{ ip link del near 2>/dev/null; true; } && \
            ip link add near type veth peer name far && ip addr add 10.77.0.1/24 dev near && \
            ip link set near up";
        let made = Command::new("sh").args(["-c", pair]).status();
        assert!(made.unwrap().success());
        let setup = "echo ready && read -r _ && ip link set lo up && \
            ip addr add 10.77.0.2/24 dev far && ip link set far up && exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--net", "sh", "-c", setup, "sh"])
            .args(program)
            .args(["0", "10.77.0.2"]);
        Self::start(command, "10.77.0.2", ("near", [10, 77, 0, 1]), |child| {
            let to = child.to_string();
            let moved = Command::new("ip")
                .args(["link", "set", "far", "netns", &to])
                .status();
            assert!(moved.unwrap().success());
        })
    }

    /// Here; the frames say that they come from a neighbour, since the kernel takes none of its own back.
    fn over_lo() -> Self {
        let mut command = Command::new("sh");
        let setup = "echo ready && read -r _ && exec \"$@\"";
        command
            .args(["-c", setup, "sh"])
            .args(FAR_END)
            .args(["0", "10.78.0.1"]);
        Self::start(command, "10.78.0.1", ("lo", [10, 78, 0, 7]), |_| ())
    }

    fn start(
        mut command: Command,
        address: &str,
        (name, from): (&'static str, [u8; 4]),
        once_there: impl FnOnce(u32),
    ) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut input = child.stdin.take().unwrap();
        let mut far = Self {
            child,
            control: (address.parse::<Ipv4Addr>().unwrap(), 0).into(),
            name,
            from: from.into(),
        };
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        once_there(far.child.id());
        input.write_all(b"\n").unwrap();
        line.clear();
        said.read_line(&mut line).unwrap();
        far.control.set_port(line.trim().parse().expect("its port"));
        far
    }

    /// Runs `ip` where the far end is.
    fn ip(&self, arguments: &[&str]) {
        let there = format!("--net=/proc/{}/ns/net", self.child.id());
        let status = Command::new("nsenter")
            .args([&there, "ip"])
            .args(arguments)
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const FAR_END: [&str; 2] = [
    "python3",
    concat!(env!("CARGO_MANIFEST_DIR"), "/qemu/far-end"),
];

/// Sends `len` bytes of `file`, from where it is; what arrived, and what was copied.
fn send(
    rung: &Rung,
    (file, len): (&File, u64),
    far: &Far,
    stop: &AtomicBool,
) -> (Result<u64, Stopped>, Receiver) {
    let payload = Terms::usual(Protocol::Udp);
    let announced = Receiver::announce(far.control, None, Protocol::Udp, (len, payload));
    let mut announced = announced.unwrap();
    let SocketAddr::V4(to) = announced.data() else {
        panic!("not IPv4");
    };
    let interface = Interface::of(far.name, SocketAddrV4::new(far.from, 7000), to, &GO_ON).unwrap();
    let terms = Terms {
        len,
        most: payload,
        stop,
        progress: &PROGRESS,
    };
    let mut job = Job {
        file,
        sink: Sink::elsewhere(Some(&mut announced), terms),
        from: None,
        into: None,
        interface: Some(interface),
        card: None,
    };
    let ended = (rung.run)(&mut job);
    let copied = job.sink.copied();
    drop(job);
    (ended.map(|()| copied), announced)
}

fn arrived(mut far: Receiver) -> Delivered {
    far.delivered(&GO_ON).unwrap()
}

#[test]
fn every_byte_arrives_whatever_the_length() {
    in_a_namespace(|rung| {
        for far in [Far::over_veth(&FAR_END), Far::over_lo()] {
            println!("--- over {}", far.name);
            for len in [0, 1, 1471, 1472, 1473, 65536, 3_000_001] {
                let (file, hash) = file_of(len);
                let (ended, said) = send(rung, (&file, len as u64), &far, &GO_ON);
                let copies = if rung.name.contains("XDP") { 2 } else { 1 };
                assert_eq!(ended.unwrap(), copies * len as u64);
                let delivered = arrived(said);
                assert_eq!((delivered.bytes, delivered.sha256), (len as u64, hash));
            }
        }
    });
}

#[test]
fn a_file_is_sent_from_its_position_on() {
    in_a_namespace(|rung| {
        let far = Far::over_veth(&FAR_END);
        let (mut file, _) = file_of(100_000);
        file.seek(SeekFrom::Start(12_345)).unwrap();
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).unwrap();
        file.seek(SeekFrom::Start(12_345)).unwrap();
        let (ended, said) = send(rung, (&file, rest.len() as u64), &far, &GO_ON);
        ended.unwrap();
        let hash: String = Sha256::digest(&rest)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(arrived(said).sha256, hash);
    });
}

#[test]
fn a_file_that_is_shorter_than_it_was_is_told_and_what_there_is_arrives() {
    in_a_namespace(|rung| {
        let far = Far::over_veth(&FAR_END);
        let (file, hash) = file_of(100_000);
        let (ended, said) = send(rung, (&file, 200_000), &far, &GO_ON);
        let stopped = ended.unwrap_err();
        assert!(matches!(stopped.why, Why::Shrunk), "{stopped}");
        assert_eq!((stopped.sent, stopped.len), (100_000, 200_000));
        // The far end waits for the rest for a while.
        let delivered = arrived(said);
        assert_eq!((delivered.bytes, delivered.sha256), (100_000, hash));
    });
}

/// Takes a transfer on, with room for 100 datagrams, and says nothing of it any more.
const SILENT: [&str; 4] = ["python3", "-c", SILENCE, "147200"];
/// The same with room for all: who sends never waits for it.
const BOUNDLESS: [&str; 4] = ["python3", "-c", SILENCE, "4000000000"];
const SILENCE: &str = "import socket, sys; control = socket.create_server((sys.argv[3], 0)); \
     print(control.getsockname()[1], flush=True); held = []
while True: held.append(control.accept()[0]); held[-1].sendall(f'port 9 {sys.argv[1]}\\n'.encode())";

#[test]
fn a_far_end_that_takes_no_more_is_told_and_so_is_an_interruption() {
    in_a_namespace(|rung| {
        let far = Far::over_veth(&SILENT);
        let (file, _) = file_of(1_000_000);
        let begin = Instant::now();
        let stopped = send(rung, (&file, 1_000_000), &far, &GO_ON).0.unwrap_err();
        assert!(matches!(stopped.why, Why::Stuck { .. }), "{stopped}");
        assert_eq!(stopped.sent, 147_200, "no more than it has room for");
        assert!(begin.elapsed() >= Duration::from_secs(20));

        let (stop, begin) = (AtomicBool::new(false), Instant::now());
        let stopped = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(500));
                stop.store(true, Ordering::Relaxed);
            });
            let (ended, _) = send(rung, (&file, 1_000_000), &far, &stop);
            ended.unwrap_err()
        });
        assert!(matches!(stopped.why, Why::Interrupted), "{stopped}");
        assert!(begin.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn an_interface_that_refuses_is_told() {
    let ip = |arguments: &[&str]| {
        let status = Command::new("ip").args(arguments).status();
        assert!(status.unwrap().success());
    };
    in_a_namespace(|rung| {
        let far = Far::over_veth(&FAR_END);
        let (file, _) = file_of(100_000);
        // A frame is longer than it takes, at either end.
        ip(&["link", "set", "near", "mtu", "1000"]);
        far.ip(&["link", "set", "far", "mtu", "1000"]);
        let (ended, said) = send(rung, (&file, 100_000), &far, &GO_ON);
        let stopped = ended.unwrap_err();
        assert!(stopped.to_string().contains("MTU"), "{stopped}");
        assert_eq!(stopped.sent, 0);
        drop(said);
        // Its link goes while frames are sent.
        let far = Far::over_veth(&BOUNDLESS);
        let (begin, len) = (Instant::now(), 3_000_000_000);
        let started = PROGRESS.load(Ordering::Relaxed);
        let big = file_of(1).0;
        big.set_len(len).unwrap();
        let stopped = std::thread::scope(|scope| {
            scope.spawn(|| {
                while PROGRESS.load(Ordering::Relaxed) == started {
                    std::thread::yield_now();
                }
                ip(&["link", "set", "near", "down"]);
            });
            send(rung, (&big, len), &far, &GO_ON).0.unwrap_err()
        });
        assert!(stopped.sent < len, "{stopped}");
        let is_told = matches!(stopped.why, Why::Call { call: "send", .. });
        assert!(
            is_told && begin.elapsed() < Duration::from_secs(15),
            "{stopped}"
        );
    });
}

#[test]
fn an_interface_that_cannot_be_used_is_told_with_why() {
    in_a_namespace(|rung| {
        let own = "127.0.0.1:7000".parse().unwrap();
        let error = Interface::of("lo", own, own, &GO_ON).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let error = Interface::of("nosuch0", own, own, &GO_ON).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let (file, _) = file_of(1);
        let terms = Terms {
            len: 1,
            most: 1472,
            stop: &GO_ON,
            progress: &PROGRESS,
        };
        let mut job = Job {
            file: &file,
            sink: Sink::elsewhere(None, terms),
            from: None,
            into: None,
            interface: None,
            card: None,
        };
        let stopped = (rung.run)(&mut job).unwrap_err();
        assert!(matches!(stopped.why, Why::Missing(_)), "{stopped}");
    });
}

#[test]
fn signals_on_the_way_lose_nothing() {
    in_a_namespace(|rung| {
        const LEN: usize = 20_000_000;
        let far = Far::over_veth(&FAR_END);
        let (file, hash) = file_of(LEN);
        let ((ended, said), signals) = pestered(|| send(rung, (&file, LEN as u64), &far, &GO_ON));
        ended.unwrap();
        assert_eq!(arrived(said).sha256, hash);
        assert!(signals > 100, "{signals} signals");
    });
}

#[test]
fn what_lies_behind_four_gib_is_sent_as_it_is() {
    in_a_namespace(|rung| {
        let far = Far::over_veth(&FAR_END);
        let (begin, len) = ((4 << 30) - 100_000, 200_000);
        let (content, hash) = file_of(len);
        let mut bytes = vec![0; len];
        content.read_exact_at(&mut bytes, 0).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(5 << 30).unwrap();
        file.write_all_at(&bytes, begin).unwrap();
        file.seek(SeekFrom::Start(begin)).unwrap();
        let (ended, said) = send(rung, (&file, len as u64), &far, &GO_ON);
        ended.unwrap();
        assert_eq!(arrived(said).sha256, hash);
    });
}

/// A file with nothing in it that takes a while, and `meddle` once some of it has gone.
fn meddled(rung: &Rung, far: &Far, meddle: impl FnOnce(&File) + Send) -> (Stopped, Receiver) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(LONG).unwrap();
    PROGRESS.store(0, Ordering::Relaxed);
    let (ended, said) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while PROGRESS.load(Ordering::Relaxed) < 100_000 {
                std::thread::yield_now();
            }
            meddle(&file);
        });
        send(rung, (&file, LONG), far, &GO_ON)
    });
    (ended.unwrap_err(), said)
}

const LONG: u64 = 256 << 20;

#[test]
fn a_file_that_shrinks_meanwhile_is_told_with_what_arrived() {
    in_a_namespace(|rung| {
        let far = Far::over_veth(&FAR_END);
        let (stopped, mut said) = meddled(rung, &far, |file| file.set_len(50_000).unwrap());
        assert!(matches!(stopped.why, Why::Shrunk), "{stopped}");
        let stopped = stopped.ask(&mut said, &GO_ON);
        assert!((100_000..LONG).contains(&stopped.sent), "{stopped}");
        assert_eq!(stopped.arrived, Arrived::Bytes(stopped.sent), "{stopped}");
    });
}

#[test]
fn a_far_end_that_vanishes_is_told_with_what_was_sent() {
    in_a_namespace(|rung| {
        // Over lo: with who is at the other end of a pair, the pair would go.
        let far = Far::over_lo();
        let pid = far.child.id().to_string();
        let (stopped, mut said) = meddled(rung, &far, |_| {
            let killed = Command::new("kill").args(["-KILL", &pid]).status();
            assert!(killed.unwrap().success());
        });
        assert!(matches!(stopped.why, Why::Call { .. }), "{stopped}");
        assert!((100_000..LONG).contains(&stopped.sent), "{stopped}");
        let stopped = stopped.ask(&mut said, &GO_ON);
        assert_eq!(stopped.arrived, Arrived::Unsaid, "{stopped}");
    });
}

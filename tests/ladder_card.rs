//! The ladder's rungs that drive the card by themselves: from QEMU's cards, through QEMU's own network,
//! to a far end on this host that is not our code.
#![cfg(feature = "ladder")]

mod common;
mod fakes;
#[path = "ladder/far.rs"]
mod far;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use fakes::e1000::FakeE1000;
use far::{Python, file_of};
use pinwire::backend::{Fake, FakeDevice, FakeMemory};
use pinwire::mmio::Place;
use pinwire::net::UdpFlow;
use pinwire::nic::{Mac, Nic, NicConfig};
use pinwire::paths::ladder::{
    Card, Delivered, Job, Protocol, RUNGS, Receiver, Rung, Sink, Stopped, Terms, Why,
};
use pinwire::{DeviceSpec, open};

const CARDS: [&str; 4] = ["e1000", "e1000e", "virtio-net", "virtio-net,packed=on"];
const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// This host, as QEMU's own network shows it.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// As it always answers. Who asks after a flood of ICMP errors (nobody listens any more) may get no answer
/// from QEMU's network for seconds.
const HOST_MAC: Mac = Mac([0x52, 0x55, 10, 0, 2, 2]);

static GO_ON: AtomicBool = AtomicBool::new(false);
/// Each such rung on each card.
fn on_every_card(body: impl Fn(&Rung, &mut dyn Nic)) {
    if !common::require_qemu() {
        return;
    }
    for card in CARDS {
        let spec: DeviceSpec = format!("qtest:{card},net=user").parse().unwrap();
        let mut nic = spec.open(&NicConfig::default(), None).unwrap();
        for rung in RUNGS.iter().filter(|rung| rung.name.starts_with("pinwire")) {
            println!("--- {} by {card}", rung.name);
            body(rung, &mut *nic);
        }
    }
}

/// Sends `len` bytes of `file`; what arrived, and what was copied.
fn send(
    rung: &Rung,
    nic: &mut dyn Nic,
    (file, len): (&File, u64),
    python: &Python,
    prove: bool,
    progress: &AtomicU64,
) -> Result<(Delivered, u64), Stopped> {
    let payload = Terms::usual(Protocol::Udp);
    let far = Receiver::announce(python.address, None, Protocol::Udp, (len, payload));
    let mut far = far.unwrap();
    let terms = Terms {
        len,
        most: payload,
        stop: &GO_ON,
        progress,
    };
    let copied = climb(rung, nic, file, prove, &mut far, terms)?;
    Ok((far.delivered(&GO_ON).unwrap(), copied))
}

/// Runs the rung to the far end, which has been announced; what was copied.
fn climb(
    rung: &Rung,
    nic: &mut dyn Nic,
    file: &File,
    prove: bool,
    far: &mut Receiver,
    terms: Terms<'_>,
) -> Result<u64, Stopped> {
    let flow = UdpFlow {
        source_mac: nic.mac(),
        destination_mac: HOST_MAC,
        source: SocketAddrV4::new(OURS, 7000),
        destination: SocketAddrV4::new(HOST, far.data().port()),
    };
    let mut job = Job {
        file,
        sink: Sink::elsewhere(Some(far), terms),
        from: None,
        into: None,
        interface: None,
        card: Some(Card { nic, flow, prove }),
    };
    (rung.run)(&mut job)?;
    Ok(job.sink.copied())
}

#[test]
fn every_byte_arrives_and_is_copied_once_or_never() {
    let python = Python::start();
    on_every_card(|rung, nic| {
        for (len, prove) in [(0, false), (1, false), (1473, true), (3_000_001, true)] {
            let (file, hash) = file_of(len);
            let (delivered, copied) = send(
                rung,
                nic,
                (&file, len as u64),
                &python,
                prove,
                &AtomicU64::new(0),
            )
            .unwrap();
            assert_eq!(delivered.bytes, len as u64);
            assert_eq!(delivered.sha256, hash);
            let once = rung.name.contains("copied");
            assert_eq!(copied, if once { len as u64 } else { 0 });
        }
    });
}

/// A part of the file is pinned at a time; datagrams lie across where one ends.
#[test]
fn a_file_of_several_parts_arrives_from_the_page_cache() {
    let python = Python::start();
    let len = (64 << 20) + 12_345;
    let (file, hash) = file_of(len);
    on_every_card(|rung, nic| {
        if rung.name.contains("copied") || !nic.model().contains("82540EM") {
            return;
        }
        let (delivered, _) = send(
            rung,
            nic,
            (&file, len as u64),
            &python,
            true,
            &AtomicU64::new(0),
        )
        .unwrap();
        assert_eq!(delivered.sha256, hash);
    });
}

#[test]
fn a_file_that_becomes_shorter_is_told_and_the_card_goes_on() {
    let python = Python::start();
    on_every_card(|rung, nic| {
        // Behind what is mapped first: QEMU does not pin it, and would die of it.
        let mib = match (
            rung.name.contains("copied"),
            nic.model().contains("82540EM"),
        ) {
            (true, _) => 16,
            (false, true) => 66,
            (false, false) => return,
        };
        let len = mib << 20;
        let (file, _) = file_of(len);
        let (shorter, progress) = (file.try_clone().unwrap(), AtomicU64::new(0));
        // Once some has gone, so that it is while it is sent.
        let stopped = std::thread::scope(|scope| {
            let progress = &progress;
            scope.spawn(move || {
                while progress.load(Ordering::Relaxed) < 100_000 {
                    std::thread::yield_now();
                }
                shorter.set_len(len as u64 - (1 << 20)).unwrap();
            });
            send(rung, nic, (&file, len as u64), &python, false, progress).unwrap_err()
        });
        let said = stopped.to_string();
        assert!(matches!(stopped.why, Why::Card(_)), "{said}");
        assert!(
            said.contains("truncated") || said.contains("shorter"),
            "{said}"
        );
        let (file, hash) = file_of(5000);
        let (delivered, _) = send(rung, nic, (&file, 5000), &python, false, &progress).unwrap();
        assert_eq!(delivered.sha256, hash);
    });
}

#[test]
fn a_file_that_was_shorter_already_or_has_grown_is_no_other_than_was_asked_for() {
    let python = Python::start();
    let progress = AtomicU64::new(0);
    on_every_card(|rung, nic| {
        let (file, hash) = file_of(5000);
        let stopped = send(rung, nic, (&file, 6000), &python, false, &progress).unwrap_err();
        assert!(matches!(stopped.why, Why::Shrunk), "{stopped}");
        assert_eq!((stopped.sent, stopped.len), (5000, 6000));
        file.set_len(20_000).unwrap();
        let (delivered, _) = send(rung, nic, (&file, 5000), &python, false, &progress).unwrap();
        assert_eq!((delivered.bytes, delivered.sha256), (5000, hash));
    });
}

#[test]
fn what_lies_behind_four_gib_is_sent_as_it_is() {
    let python = Python::start();
    let progress = AtomicU64::new(0);
    let (begin, len) = ((4 << 30) - 100_000, 200_000);
    let (file, _) = file_of(0);
    file.set_len(5 << 30).unwrap();
    let (content, hash) = file_of(len as usize);
    let mut bytes = vec![0; len as usize];
    content.read_exact_at(&mut bytes, 0).unwrap();
    file.write_all_at(&bytes, begin).unwrap();
    on_every_card(|rung, nic| {
        (&file).seek(SeekFrom::Start(begin)).unwrap();
        let (delivered, _) = send(rung, nic, (&file, len), &python, false, &progress).unwrap();
        assert_eq!((delivered.bytes, delivered.sha256), (len, hash.clone()));
    });
}

#[test]
fn a_far_end_that_vanishes_is_told_with_what_was_sent() {
    on_every_card(|rung, nic| {
        // Too long to be through before somebody on a busy machine has ended the far end.
        let (python, len) = (Python::start(), 1u64 << 30);
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        let progress = AtomicU64::new(0);
        let pid = python.id().to_string();
        let stopped = std::thread::scope(|scope| {
            scope.spawn(|| {
                while progress.load(Ordering::Relaxed) < 100_000 {
                    std::thread::yield_now();
                }
                let killed = std::process::Command::new("kill").arg(&pid).status();
                assert!(killed.unwrap().success());
            });
            send(rung, nic, (&file, len), &python, false, &progress).unwrap_err()
        });
        assert!(matches!(stopped.why, Why::Call { .. }), "{stopped}");
        assert!(
            stopped.sent >= 100_000 && stopped.sent < stopped.len,
            "{stopped}"
        );
        // And the card goes on.
        let python = Python::start();
        let (file, hash) = file_of(5000);
        let (delivered, _) = send(rung, nic, (&file, 5000), &python, false, &progress).unwrap();
        assert_eq!(delivered.sha256, hash);
    });
}

/// Takes a transfer on, has room for 100 datagrams, and says nothing any more.
struct Silent {
    control: TcpListener,
    data: UdpSocket,
}

impl Silent {
    const ROOM: u64 = 147_200;

    fn new() -> Self {
        let here = (Ipv4Addr::LOCALHOST, 0);
        let (control, data) = (TcpListener::bind(here), UdpSocket::bind(here));
        let (control, data) = (control.unwrap(), data.unwrap());
        Self { control, data }
    }

    /// What becomes of the rung; `interrupt` is called once all that there is room for went.
    fn stop(&self, rung: &Rung, nic: &mut dyn Nic, interrupt: Option<&AtomicBool>) -> Stopped {
        let (port, len) = (self.data.local_addr().unwrap().port(), 1_000_000);
        let (progress, stop) = (AtomicU64::new(0), interrupt.unwrap_or(&GO_ON));
        let payload = Terms::usual(Protocol::Udp);
        std::thread::scope(|scope| {
            let held = scope.spawn(|| {
                let (mut control, _) = self.control.accept().unwrap();
                writeln!(control, "port {port} {}", Self::ROOM).unwrap();
                control
            });
            let control = self.control.local_addr().unwrap();
            let far = Receiver::announce(control, None, Protocol::Udp, (len, payload));
            let _held = held.join().unwrap();
            scope.spawn(|| {
                while interrupt.is_some() && progress.load(Ordering::Relaxed) < Self::ROOM {
                    std::thread::yield_now();
                }
                if let Some(interrupt) = interrupt {
                    interrupt.store(true, Ordering::Relaxed);
                }
            });
            let terms = Terms {
                len,
                most: payload,
                stop,
                progress: &progress,
            };
            let (file, _) = file_of(len as usize);
            climb(rung, nic, &file, false, &mut far.unwrap(), terms).unwrap_err()
        })
    }
}

#[test]
fn an_interruption_is_heard_while_the_far_end_takes_nothing() {
    on_every_card(|rung, nic| {
        let stop = AtomicBool::new(false);
        let stopped = Silent::new().stop(rung, nic, Some(&stop));
        assert!(matches!(stopped.why, Why::Interrupted), "{stopped}");
        // Some may not have been handed to the card yet.
        assert!((1..=Silent::ROOM).contains(&stopped.sent), "{stopped}");
        // And the card goes on.
        let (python, progress) = (Python::start(), AtomicU64::new(0));
        let (file, hash) = file_of(5000);
        let (delivered, _) = send(rung, nic, (&file, 5000), &python, false, &progress).unwrap();
        assert_eq!(delivered.sha256, hash);
    });
}

#[test]
fn a_far_end_that_takes_no_more_is_told() {
    if !common::require_qemu() {
        return;
    }
    let rungs = RUNGS.iter().filter(|rung| rung.name.starts_with("pinwire"));
    // Each waits for a while, on a card of its own.
    let waiting = rungs.map(|rung| {
        std::thread::spawn(move || {
            let spec: DeviceSpec = "qtest:virtio-net,net=user".parse().unwrap();
            let mut nic = spec.open(&NicConfig::default(), None).unwrap();
            (rung.name, Silent::new().stop(rung, &mut *nic, None))
        })
    });
    let waiting: Vec<_> = waiting.collect();
    assert_eq!(waiting.len(), 2);
    for thread in waiting {
        let (name, stopped) = thread.join().unwrap();
        let is_stuck = matches!(stopped.why, Why::Stuck { seconds: 20 });
        assert!(is_stuck, "{name}: {stopped}");
        assert_eq!(
            stopped.sent,
            Silent::ROOM,
            "{name}: no more than it has room for"
        );
    }
}

/// A fake card that forgets what it sends, but for its bytes, and what of it is not zero.
struct Scale {
    inner: FakeE1000,
    bytes: u64,
    content: Vec<u8>,
}

impl FakeDevice for Scale {
    fn read(&mut self, place: Place) -> u64 {
        self.inner.read(place)
    }

    fn write(&mut self, place: Place, value: u64, memory: &FakeMemory) {
        const NOTHING: [u8; JUMBO] = [0; JUMBO];
        self.inner.write(place, value, memory);
        for frame in self.inner.sent.drain(..) {
            let payload = &frame[UdpFlow::HEADER..];
            self.bytes += payload.len() as u64;
            if *payload != NOTHING[..payload.len()] {
                self.content
                    .extend(payload.iter().filter(|byte| **byte != 0));
            }
        }
    }

    fn config(&mut self) -> &mut [u8; 256] {
        self.inner.config()
    }
}

/// Bytes of a datagram in a frame of 9014.
const JUMBO: usize = 8972;

#[test]
fn a_sparse_file_of_5_gib_goes_whole() {
    const LEN: u64 = 5 << 30;
    let file = tempfile::tempfile().unwrap();
    file.set_len(LEN).unwrap();
    for (byte, place) in [(1, 0), (2, (4 << 30) - 1), (3, 4 << 30), (4, LEN - 1)] {
        file.write_all_at(&[byte], place).unwrap();
    }
    for rung in RUNGS.iter().filter(|rung| rung.name.starts_with("pinwire")) {
        let inner = Arc::into_inner(FakeE1000::new(0x100e)).expect("nobody else has it");
        let scale = Arc::new(Mutex::new(Scale {
            inner: inner.into_inner().expect("nobody panicked with it"),
            bytes: 0,
            content: Vec::new(),
        }));
        let backend = Fake::new(scale.clone(), 0x20000);
        let mut nic = open::start(backend, &NicConfig::default()).unwrap();
        let flow = UdpFlow {
            source_mac: nic.mac(),
            destination_mac: HOST_MAC,
            source: SocketAddrV4::new(OURS, 7000),
            destination: SocketAddrV4::new(HOST, 7000),
        };
        let terms = Terms {
            len: LEN,
            most: JUMBO,
            stop: &GO_ON,
            progress: &AtomicU64::new(0),
        };
        let mut job = Job {
            file: &file,
            sink: Sink::elsewhere(None, terms),
            from: None,
            into: None,
            interface: None,
            card: Some(Card {
                nic: &mut *nic,
                flow,
                prove: false,
            }),
        };
        (&file).seek(SeekFrom::Start(0)).unwrap();
        (rung.run)(&mut job).unwrap();
        assert_eq!(job.sink.sent(), LEN, "{}", rung.name);
        drop(job);
        let scale = scale.lock().unwrap();
        assert_eq!((scale.bytes, &scale.content[..]), (LEN, &[1, 2, 3, 4][..]));
    }
}

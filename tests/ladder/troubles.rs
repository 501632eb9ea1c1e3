//! What may go wrong on the way: all bytes arrive, or it is told how many were sent.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::common::again;
use super::far::file_of;
use super::files::mark;
use super::pestered::pestered;
use super::taker::{Habit, Taker};
use super::{Manner, NETWORK, PLAIN, every, every_sender, send, send_so};
use pinwire::paths::ladder::{
    BLOCK, Carrier, Kind, Place, Protocol, Receiver, Rung, Sink, Stopped, Terms, Why,
};

/// A small one, so that a block is more than it has room for.
const SMALL: Option<usize> = Some(4096);

fn len_for(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Udp => 300_000,
        _ => 1_000_001,
    }
}

#[test]
fn short_writes_and_full_buffers_lose_nothing() {
    for nonblocking in [false, true] {
        let manner = Manner {
            nonblocking,
            buffer: SMALL,
            ..PLAIN
        };
        every(NETWORK, |rung, protocol| {
            let taker = Taker::start(Habit::Slow);
            let len = len_for(protocol);
            let (file, sum) = file_of(len);
            let done = send_so(&manner, rung, protocol, &file, len as u64, taker.address).unwrap();
            assert_eq!(done.delivered.bytes, len as u64);
            assert_eq!(done.delivered.sha256, sum);
        });
    }
}

#[test]
fn signals_on_the_way_lose_nothing() {
    let ((), signals) = pestered(|| {
        let manner = Manner {
            buffer: SMALL,
            ..PLAIN
        };
        every(NETWORK, |rung, protocol| {
            let taker = Taker::start(Habit::Slow);
            let len = len_for(protocol);
            let (file, sum) = file_of(len);
            let done = send_so(&manner, rung, protocol, &file, len as u64, taker.address).unwrap();
            assert_eq!(done.delivered.sha256, sum);
        });
    });
    assert!(signals > 1000, "{signals}");
}

#[test]
fn a_peer_that_vanishes_is_told_with_what_was_sent() {
    let (file, _) = file_of(16 << 20);
    every(NETWORK, |rung, protocol| {
        let taker = Taker::start(Habit::VanishesAfter(1_000_000));
        let stopped = send(rung, protocol, &file, 16 << 20, taker.address).unwrap_err();
        assert!(matches!(stopped.why, Why::Call { .. }), "{stopped}");
        assert!((1_000_000..16 << 20).contains(&stopped.sent), "{stopped}");
    });
}

/// Runs each rung at once, each in a thread of its own, against a far end that takes a little only.
fn against_a_wall(
    kinds: &[Kind],
    stop: &'static AtomicBool,
) -> Vec<(&'static str, Protocol, JoinHandle<Stopped>)> {
    let mut running = Vec::new();
    every(kinds, |rung, protocol| {
        let rung: &'static Rung = pinwire::paths::ladder::RUNGS
            .iter()
            .find(|same| same.name == rung.name)
            .unwrap();
        let thread = thread::spawn(move || {
            let taker = Taker::start(Habit::PausesAfter(100_000));
            let file = tempfile::tempfile().unwrap();
            file.set_len(16 << 20).unwrap();
            let manner = Manner { stop, ..PLAIN };
            let done = send_so(&manner, rung, protocol, &file, 16 << 20, taker.address);
            done.expect_err("it cannot end")
        });
        running.push((rung.name, protocol, thread));
    });
    running
}

/// Far less than the 20 s after which it would end by itself; so many at once are slow on two processors.
const HEARD: Duration = Duration::from_secs(5);

#[test]
fn an_interruption_is_heard_while_the_peer_takes_nothing() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let running = against_a_wall(NETWORK, &STOP);
    thread::sleep(Duration::from_secs(2));
    for (name, protocol, thread) in &running {
        assert!(!thread.is_finished(), "{name} over {protocol} gave up");
    }
    STOP.store(true, Ordering::Relaxed);
    let begin = Instant::now();
    for (name, protocol, thread) in running {
        let stopped = thread.join().unwrap();
        let took = begin.elapsed();
        assert!(
            matches!(stopped.why, Why::Interrupted),
            "{name} over {protocol}: {stopped}"
        );
        assert!(took < HEARD, "{name} over {protocol}: {took:?}");
    }
}

#[test]
fn an_interruption_is_heard_while_all_goes_well() {
    every_sender(|rung, protocol| {
        let taker = Taker::start(Habit::Drains);
        // Seconds of work.
        let len = 8 << 30;
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        let stop: &'static AtomicBool = Box::leak(Box::default());
        let interrupter = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::Relaxed);
            Instant::now()
        });
        let manner = Manner { stop, ..PLAIN };
        let done = send_so(&manner, rung, protocol, &file, len, taker.address);
        let ended = Instant::now();
        let (name, took) = (rung.name, ended - interrupter.join().unwrap());
        let stopped = done.expect_err("it was interrupted");
        assert!(matches!(stopped.why, Why::Interrupted), "{name}: {stopped}");
        assert!(took < HEARD, "{name}: {took:?}");
    });
}

#[test]
fn what_an_interrupted_one_says_that_it_sent_is_what_arrives() {
    let (file, _) = file_of(16 << 20);
    let whole = contents(&file);
    // It hangs in a call, and it is between two.
    for habit in [Habit::PausesAfter(100_000), Habit::Drips] {
        every_sender(|rung, protocol| {
            if protocol != Protocol::Tcp {
                return;
            }
            let taker = Taker::start(habit);
            let stop: &'static AtomicBool = Box::leak(Box::default());
            let progress: &'static AtomicU64 = Box::leak(Box::default());
            let interrupter = thread::spawn(move || {
                while progress.load(Ordering::Relaxed) < 150_000 {
                    thread::sleep(Duration::from_millis(1));
                }
                // Time to fill what has room, where nothing is taken any more.
                thread::sleep(Duration::from_millis(100));
                stop.store(true, Ordering::Relaxed);
            });
            let manner = Manner {
                stop,
                buffer: Some(64 << 10),
                progress,
                ..PLAIN
            };
            let done = send_so(&manner, rung, protocol, &file, 16 << 20, taker.address);
            interrupter.join().unwrap();
            taker.go_on_later().store(true, Ordering::Release);
            let stopped = done.expect_err("it was interrupted");
            let taken = taker.taken.recv_timeout(Duration::from_secs(10));
            let taken = taken.unwrap().concat();
            assert_eq!(taken.len() as u64, stopped.sent, "{}", rung.name);
            assert!(taken == whole[..taken.len()], "{}", rung.name);
        });
    }
}

#[test]
fn a_peer_that_takes_nothing_for_long_is_told() {
    for (name, protocol, thread) in against_a_wall(NETWORK, &super::GO_ON) {
        let stopped = thread.join().unwrap();
        let stuck = matches!(stopped.why, Why::Stuck { seconds: 20 });
        assert!(stuck, "{name} over {protocol}: {stopped}");
    }
}

#[test]
fn a_far_end_that_boasts_and_falls_silent_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let control = listener.local_addr().unwrap();
    let far = thread::spawn(move || {
        let (mut control, _) = listener.accept().unwrap();
        let most = u64::MAX;
        write!(control, "port 9 {most}\ngot {most}\n").unwrap();
        control
    });
    let mut announced = Receiver::announce(control, None, Protocol::Tcp, (1, 1)).unwrap();
    let silent = announced.delivered(&super::GO_ON).unwrap_err();
    assert!(matches!(silent, Why::Stuck { seconds: 20 }), "{silent}");
    let terms = Terms {
        len: 1,
        most: 1,
        stop: &super::GO_ON,
        progress: &AtomicU64::new(0),
    };
    let room = Sink::elsewhere(Some(&mut announced), terms).room();
    assert_eq!(room.unwrap(), Some(1));
    drop(far.join());
}

#[test]
fn a_file_that_shrinks_meanwhile_is_told_and_what_arrived_is_of_it() {
    // Beyond what anybody reads ahead.
    const LEN: usize = (4 << 20) + 100;
    shrinks_to(LEN, (3 << 20) + 123);
    // On its last page: that goes whole from a mapping, and must not pass for the file.
    shrinks_to(LEN, LEN - 50);
}

fn shrinks_to(len: usize, cut_to: usize) {
    every_sender(|rung, protocol| {
        let taker = Taker::start(Habit::PausesAfter(200_000));
        let (file, _) = file_of(len);
        let whole = contents(&file);
        let progress: &'static AtomicU64 = Box::leak(Box::default());
        let manner = Manner {
            buffer: Some(64 << 10),
            progress,
            ..PLAIN
        };
        let (go_on, cut) = (taker.go_on_later(), file.try_clone().unwrap());
        let cutter = thread::spawn(move || {
            // Its buffers are full then: it gets no further.
            while progress.load(Ordering::Relaxed) < 200_000 {
                thread::sleep(Duration::from_millis(1));
            }
            cut.set_len(cut_to as u64).unwrap();
            go_on.store(true, Ordering::Release);
        });
        let done = send_so(&manner, rung, protocol, &file, len as u64, taker.address);
        let stopped = done.unwrap_err();
        cutter.join().unwrap();
        assert!(matches!(stopped.why, Why::Shrunk), "{stopped}");
        let sent = stopped.sent as usize;
        let taken = taker.taken.recv_timeout(Duration::from_secs(10));
        let taken = taken.unwrap().concat();
        assert_eq!(taken.len(), sent, "{stopped}");
        let (of_it, past) = taken.split_at(sent.min(cut_to));
        assert!(of_it == &whole[..of_it.len()], "{stopped}");
        // From a mapping, a call stops before the block that ends too early, or goes on to the page's end.
        assert!(cut_to - of_it.len() < BLOCK, "{stopped}");
        let zeros = past.len() < 4096 && past.iter().all(|byte| *byte == 0);
        assert!(zeros, "{stopped}");
    });
}

fn contents(file: &File) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// MSG_ZEROCOPY alone, in a process for which `script` has made something scarce.
fn zerocopy_lacks(script: &str, inside: &str) {
    let script = format!("ip link set lo up; {script}");
    if !again(&["--net"], &script, inside) {
        return;
    }
    let mut rungs = pinwire::paths::ladder::RUNGS.iter();
    let rung = rungs.find(|rung| rung.name == "MSG_ZEROCOPY");
    let rung = rung.expect("the rung");
    for protocol in rung.over {
        let taker = Taker::start(Habit::Slow);
        let len = len_for(*protocol);
        let (file, sum) = file_of(len);
        let done = send(rung, *protocol, &file, len as u64, taker.address).unwrap();
        assert_eq!(done.delivered.sha256, sum);
        assert_eq!(done.copied, len as u64);
    }
}

#[test]
fn io_uring_says_what_it_lacks_where_little_may_be_locked() {
    let script = "ip link set lo up; ulimit -l 64";
    if !again(&["--net"], script, "PINWIRE_LOCKS_NO_RING") {
        return;
    }
    let mut rungs = pinwire::paths::ladder::RUNGS.iter();
    let rung = rungs.find(|rung| rung.name == "io_uring, registered");
    let taker = Taker::start(Habit::Slow);
    let (file, _) = file_of(1000);
    let done = send(rung.unwrap(), Protocol::Tcp, &file, 1000, taker.address);
    let stopped = done.unwrap_err();
    assert!(matches!(stopped.why, Why::Missing(_)), "{stopped}");
    assert!(stopped.to_string().contains("ulimit -l"), "{stopped}");
}

#[test]
fn zerocopy_waits_where_only_two_blocks_may_be_locked() {
    zerocopy_lacks("ulimit -l 144", "PINWIRE_LOCKS_LITTLE");
}

#[test]
fn zerocopy_copies_where_no_block_may_be_locked() {
    zerocopy_lacks("ulimit -l 0", "PINWIRE_LOCKS_NONE");
}

#[test]
fn zerocopy_waits_where_the_kernel_remembers_few_blocks() {
    let few = "echo 2000 >/proc/sys/net/core/optmem_max";
    zerocopy_lacks(few, "PINWIRE_REMEMBERS_LITTLE");
}

#[test]
fn zerocopy_copies_where_the_kernel_remembers_none() {
    let none = "echo 100 >/proc/sys/net/core/optmem_max";
    zerocopy_lacks(none, "PINWIRE_REMEMBERS_NONE");
}

/// 5 GiB: more than a call moves, and more than 32 bits count.
const HUGE: u64 = 5 << 30;

#[test]
fn a_sparse_file_of_5_gib_goes_whole_also_where_a_call_is_asked_for_all_of_it() {
    let file = tempfile::tempfile().unwrap();
    mark(&file);
    every_sender(|rung, protocol| {
        // Bytes of a mapping or a file: a call may be asked for any number. Who has a block of memory
        // gets the usual one.
        let has_block = rung
            .hops
            .iter()
            .any(|hop| hop.by == Carrier::Cpu && hop.to == Place::User);
        let (most, from) = match protocol {
            // Its end, past what 32 bits count.
            Protocol::Udp => (None, HUGE - 2_000_000),
            _ => ((!has_block).then_some(HUGE as usize), 0),
        };
        let begin = Instant::now();
        let taker = Taker::start(Habit::Drains);
        let manner = Manner {
            most,
            from,
            ..PLAIN
        };
        let len = HUGE - from;
        let done = send_so(&manner, rung, protocol, &file, len, taker.address).unwrap();
        println!("{:?}", begin.elapsed());
        assert_eq!(done.delivered.bytes, len);
        let mut kept = taker.taken.recv().unwrap().concat();
        kept.retain(|byte| *byte != 0);
        let expected: &[u8] = if from == 0 { &[1, 2, 3, 4] } else { &[4] };
        assert_eq!(kept, expected, "{} over {protocol}", rung.name);
    });
}

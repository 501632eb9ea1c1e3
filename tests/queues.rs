//! Cards of several queue pairs, each pair worked by a thread of its own: e1000e with two, over a socket;
//! virtio-net, split and packed and with RSS, over a tap of several queues. The tap is in a network
//! namespace that the test makes for itself, in which it runs once more (`PINWIRE_TAP`). In the VM
//! (`tests/vm/tap.rs` starts it there) over VFIO, with a tap outside.
#![cfg(feature = "testing")]

mod common;
#[path = "queues/flows.rs"]
mod flows;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flows::{LAST, OUR_MAC, answer, datagram};
use pinwire::backend::{Peer, Qtest, QtestSpec};
use pinwire::dma::{DmaSpace, Pool};
use pinwire::nic::e1000e::E1000eConfig;
use pinwire::nic::{Frame, Nic, NicConfig, QueuePair, Received, Waiting};
use pinwire::open;
use pinwire::testing::{PacketSocket, Wire};

const BOUND: Duration = Duration::from_secs(30);
/// Frames that may be under way at once: QEMU drops what it cannot pass on.
const WINDOW: usize = 8;
const WAYS: [Waiting; 3] = [Waiting::Poll, Waiting::Interrupt, Waiting::Adaptive];

/// Runs `body` over each card, in each of these ways of waiting; the calling test must be alone in its
/// process for those over a tap.
fn on_every_card(ways: &[Waiting], body: impl Fn(&mut dyn Nic, &(dyn Wire + Sync))) {
    if !common::require_qemu() {
        return;
    }
    let run = |spec: &QtestSpec, features: &[&str], queues, waiting, wire: &(dyn Wire + Sync)| {
        println!("--- {}, {queues} pairs, {waiting:?}", spec.model);
        let config = NicConfig::default().queues(queues).waiting(waiting);
        let mut nic = open::start(Qtest::start(spec).unwrap(), &config).unwrap();
        let taken = |name: &str| {
            nic.features()
                .iter()
                .any(|view| view.name == name && view.negotiated)
        };
        for name in features {
            assert!(taken(name), "{name} was agreed on");
        }
        body(&mut *nic, wire);
    };
    if has_tap() {
        // Fails where there is no such interface: no packet before it is there.
        let wire = PacketSocket::open("tap0").expect("the tap");
        let kinds: [(&str, &[&str]); 3] = [
            ("", &["MQ"]),
            (",packed=on", &["MQ", "RING_PACKED"]),
            (",rss=on", &["RSS"]),
        ];
        for (waiting, (property, features)) in ways
            .iter()
            .flat_map(|waiting| kinds.map(|kind| (*waiting, kind)))
        {
            let spec = format!("virtio-net,net=tap:tap0,queues=4{property}");
            let spec: QtestSpec = spec.parse().unwrap();
            println!("--- {features:?}");
            for queues in [2, 4] {
                run(&spec, features, queues, waiting, &wire);
            }
        }
        return;
    }
    for waiting in ways {
        let (peer, wire) = Peer::socket().unwrap();
        let spec = QtestSpec::new("e1000e", peer).unwrap();
        run(&spec, &[], 2, *waiting, &wire);
    }
}

/// Is there a tap0 of our own? If not, runs the calling test in a namespace that has one.
fn has_tap() -> bool {
    let script = "ip tuntap add tap0 mode tap multi_queue
        { echo 1 >/proc/sys/net/ipv6/conf/tap0/disable_ipv6; true; } 2>/dev/null
        ip link set tap0 up";
    common::again(&["--net"], script, "PINWIRE_TAP")
}

/// Frame `number` of pair `pair`.
fn numbered(pair: usize, number: usize) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &OUR_MAC, &0x88b5u16.to_be_bytes()].concat();
    frame.extend((pair as u32).to_be_bytes());
    frame.extend((number as u32).to_be_bytes());
    frame.resize(60 + number % 200, number as u8);
    frame
}

#[test]
fn each_thread_sends_on_a_pair_of_its_own_and_all_frames_arrive_once_in_order() {
    const EACH: usize = 300;
    on_every_card(&WAYS, |nic, wire| {
        let count = nic.queues();
        let dma = std::sync::Arc::clone(nic.dma());
        let arrived: Vec<_> = (0..count).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for (index, pair) in nic.split().into_iter().enumerate() {
                let (pool, arrived) = (Pool::new(&dma, WINDOW, 2048).unwrap(), &arrived[index]);
                scope.spawn(move || send_all(pair, index, EACH, &pool, arrived));
            }
            let begin = Instant::now();
            while arrived
                .iter()
                .any(|pair| pair.load(Ordering::Relaxed) < EACH)
            {
                assert!(begin.elapsed() < BOUND, "{arrived:?} of {EACH}");
                let Some(frame) = wire.recv(Duration::from_millis(100)) else {
                    continue;
                };
                if frame[6..12] != OUR_MAC {
                    continue;
                }
                let pair = u32::from_be_bytes(frame[14..18].try_into().unwrap()) as usize;
                let number = arrived[pair].fetch_add(1, Ordering::Relaxed);
                assert_eq!(frame, numbered(pair, number), "pair {pair}");
            }
        });
        let (stats, all) = (nic.stats(), (count * EACH) as u64);
        assert_eq!(stats.tx_frames, all);
    });
}

/// Sends `each` frames on `pair`, at most a window ahead of those that have arrived.
fn send_all(
    pair: &mut dyn QueuePair,
    index: usize,
    each: usize,
    pool: &Pool,
    arrived: &AtomicUsize,
) {
    let (mut sent, mut back) = (0, Vec::new());
    let begin = Instant::now();
    while sent < each || pair.in_flight() > 0 {
        assert!(begin.elapsed() < BOUND, "pair {index}: {sent} sent");
        let mut frames = Vec::new();
        while sent < each && sent < arrived.load(Ordering::Relaxed) + WINDOW {
            let Some(mut buf) = pool.alloc() else { break };
            buf.fill(&numbered(index, sent));
            frames.push(Frame::from(buf));
            sent += 1;
        }
        pair.send(&mut frames).unwrap();
        assert!(frames.is_empty(), "a ring that is larger than the pool");
        if pair.completed(&mut back).unwrap() == 0 {
            pair.wait(Duration::from_millis(5)).unwrap();
        }
        back.clear();
    }
    assert_eq!(
        pool.count(),
        std::iter::from_fn(|| pool.alloc())
            .collect::<Vec<_>>()
            .len()
    );
}

/// In the VM only, where nobody but who is at the tap outside sees what leaves.
#[test]
#[ignore = "tests/vm/tap.rs runs it, in the VM"]
fn over_vfio() {
    const EACH: usize = 10_000;
    let named = |key: &str| std::env::var(key).unwrap_or_else(|_| panic!("{key} is missing"));
    let (device, queues) = (named("PINWIRE_DEVICE"), named("PINWIRE_QUEUES"));
    let config = NicConfig::default()
        .queues(queues.parse().unwrap())
        .waiting(Waiting::Interrupt)
        .driver(E1000eConfig::default().split_headers(true));
    let spec: pinwire::device::DeviceSpec = device.parse().unwrap();
    let mut nic = spec.open(&config, None).unwrap();
    each_pair_answers(&mut *nic, &device);
    let dma = std::sync::Arc::clone(nic.dma());
    // As if each had arrived: the tap takes all.
    let arrived = AtomicUsize::new(EACH);
    std::thread::scope(|scope| {
        for (index, pair) in nic.split().into_iter().enumerate() {
            let (pool, arrived) = (Pool::new(&dma, 64, 2048).unwrap(), &arrived);
            scope.spawn(move || send_all(pair, index, EACH, &pool, arrived));
        }
    });
    println!("sent {}", config.queues * EACH);
}

/// How often each MSI-X vector of `device` has interrupted.
fn interrupts(device: &str) -> Vec<u64> {
    let interrupts = std::fs::read_to_string("/proc/interrupts").unwrap();
    let vectors = interrupts
        .lines()
        .filter(|line| line.contains("vfio-msix") && line.contains(device));
    let on_all_processors = |line: &str| {
        let words = line.split_whitespace().skip(1);
        words.map_while(|word| word.parse::<u64>().ok()).sum()
    };
    vectors.map(on_all_processors).collect()
}

/// Every thread sleeps until a frame of its pair wakes it, and says by its pair what came; until all
/// have been told to end.
fn each_pair_answers(nic: &mut dyn Nic, device: &str) {
    let (mac, dma) = (nic.mac().0, std::sync::Arc::clone(nic.dma()));
    let is_split = nic.model() == "Intel 82574L";
    let before = interrupts(device);
    assert_eq!(before.len(), nic.queues(), "one vector each");
    let mut pairs = nic.split();
    say(pairs[0], &dma, &answer(0, 0, LAST));
    std::thread::scope(|scope| {
        for (index, pair) in pairs.into_iter().enumerate() {
            let dma = &dma;
            scope.spawn(move || {
                loop {
                    let received = sleep_until_one_comes(pair, index);
                    let Some((flow, number)) = read(&received, mac) else {
                        continue;
                    };
                    let segments = received.frame.segments().count();
                    assert_eq!(segments, 1 + usize::from(is_split), "headers apart");
                    say(pair, dma, &answer(index, flow, number));
                    if number == LAST {
                        break;
                    }
                }
            });
        }
    });
    let after = interrupts(device);
    let woken = before
        .iter()
        .zip(&after)
        .all(|(before, after)| before < after);
    assert!(woken, "{before:?}, then {after:?}");
}

fn sleep_until_one_comes(pair: &mut dyn QueuePair, index: usize) -> Received {
    let mut came = Vec::new();
    while pair.recv(&mut came, 1).unwrap() == 0 {
        assert!(pair.wait(BOUND).unwrap(), "nothing wakes pair {index}");
    }
    came.remove(0)
}

/// Sends one frame, and waits until it has left.
fn say(pair: &mut dyn QueuePair, dma: &std::sync::Arc<dyn DmaSpace>, content: &[u8]) {
    let mut buf = Pool::new(dma, 1, 2048).unwrap().alloc().unwrap();
    buf.fill(content);
    pair.send(&mut vec![buf.into()]).unwrap();
    let begin = Instant::now();
    while pair.completed(&mut Vec::new()).unwrap() == 0 {
        assert!(begin.elapsed() < BOUND, "a frame does not leave");
        std::thread::yield_now();
    }
}

/// A datagram of a flow: its flow and number.
fn read(received: &Received, mac: [u8; 6]) -> Option<(usize, usize)> {
    flows::read(&received.frame.to_vec(), mac)
}

#[test]
fn frames_of_many_flows_come_in_spread_over_the_pairs_and_each_once() {
    const FLOWS: usize = 64;
    const EACH: usize = 4;
    on_every_card(&WAYS, |nic, wire| {
        let mac = nic.mac().0;
        let came = AtomicUsize::new(0);
        // Of each frame, which pairs it came to.
        let seen: Mutex<BTreeMap<(usize, usize), Vec<usize>>> = Mutex::default();
        std::thread::scope(|scope| {
            for (index, pair) in nic.split().into_iter().enumerate() {
                let (came, seen) = (&came, &seen);
                scope.spawn(move || {
                    let begin = Instant::now();
                    while came.load(Ordering::Relaxed) < FLOWS * EACH && begin.elapsed() < BOUND {
                        let mut got = Vec::new();
                        if pair.recv(&mut got, 16).unwrap() == 0 {
                            pair.wait(Duration::from_millis(20)).unwrap();
                        }
                        for frame in got.iter().filter_map(|received| read(received, mac)) {
                            seen.lock().unwrap().entry(frame).or_default().push(index);
                            came.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            let begin = Instant::now();
            for nth in 0..FLOWS * EACH {
                wire.send(&datagram(mac, nth % FLOWS, nth / FLOWS));
                while came.load(Ordering::Relaxed) + WINDOW <= nth && begin.elapsed() < BOUND {
                    std::thread::yield_now();
                }
            }
        });
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen.len(), FLOWS * EACH, "frames that came in");
        let mut flows: BTreeMap<usize, usize> = BTreeMap::new();
        for ((flow, number), pairs) in &seen {
            assert_eq!(
                pairs.len(),
                1,
                "frame {number} of flow {flow} came in at {pairs:?}"
            );
            let first = *flows.entry(*flow).or_insert(pairs[0]);
            assert_eq!(first, pairs[0], "flow {flow} stays with its pair");
        }
        for pair in 0..nic.queues() {
            let share = flows.values().filter(|of| **of == pair).count();
            assert!(
                share >= FLOWS / 4 / nic.queues(),
                "pair {pair} has {share} flows"
            );
        }
    });
}

#[test]
fn a_frame_wakes_the_thread_of_its_pair_and_no_other() {
    on_every_card(&[Waiting::Interrupt, Waiting::Adaptive], |nic, wire| {
        let mac = nic.mac().0;
        let mut pairs = nic.split();
        // Which flow goes to which pair is found out by trying.
        let mut flow_of = BTreeMap::new();
        let mut flow = 0;
        while flow_of.len() < pairs.len() {
            assert!(flow < 1000, "flows for all pairs: {flow_of:?}");
            arm_all(&mut pairs);
            wire.send(&datagram(mac, flow, 0));
            let pair = arrives(&mut pairs, mac, flow);
            // Its message is waited for, so that none is under way when the rounds begin.
            assert!(pairs[pair].irq().unwrap().wait(BOUND).unwrap());
            flow_of.insert(pair, flow);
            flow += 1;
        }
        for round in 0..20 {
            for (&woken, &flow) in &flow_of {
                arm_all(&mut pairs);
                wire.send(&datagram(mac, flow, round));
                assert!(pairs[woken].irq().unwrap().wait(BOUND).unwrap());
                for index in (0..pairs.len()).filter(|index| *index != woken) {
                    let pair = &mut pairs[index];
                    if pair.irq().unwrap().wait(Duration::from_millis(5)).unwrap() {
                        let mut came = Vec::new();
                        pair.recv(&mut came, 64).unwrap();
                        assert!(!came.is_empty(), "pair {index} is woken for pair {woken}");
                    }
                }
                assert_eq!(arrives(&mut pairs, mac, flow), woken);
            }
        }
        for pair in &mut pairs {
            pair.disarm().unwrap();
        }
        // And so it is for threads that sleep.
        let (&woken, &flow) = flow_of.last_key_value().unwrap();
        std::thread::scope(|scope| {
            let sleepers: Vec<_> = pairs
                .iter_mut()
                .map(|pair| scope.spawn(move || pair.wait(Duration::from_millis(800)).unwrap()))
                .collect();
            std::thread::sleep(Duration::from_millis(200));
            wire.send(&datagram(mac, flow, 99));
            let woke: Vec<_> = sleepers
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect();
            let expected: Vec<_> = (0..woke.len()).map(|index| index == woken).collect();
            assert_eq!(woke, expected);
        });
    });
}

/// Arms every pair, with nothing in its ring: what the kernel says of itself on a tap is nobody's here.
fn arm_all(pairs: &mut [&mut dyn QueuePair]) {
    for pair in pairs {
        pair.disarm().unwrap();
        while pair.arm().unwrap() {
            pair.disarm().unwrap();
            pair.recv(&mut Vec::new(), 64).unwrap();
        }
    }
}

/// The pair that the next frame comes in by, which must be of this flow.
fn arrives(pairs: &mut [&mut dyn QueuePair], mac: [u8; 6], flow: usize) -> usize {
    let begin = Instant::now();
    loop {
        for (index, pair) in pairs.iter_mut().enumerate() {
            let mut got = Vec::new();
            pair.recv(&mut got, 1).unwrap();
            if let Some(received) = got.first().and_then(|received| read(received, mac)) {
                assert_eq!(received.0, flow);
                return index;
            }
        }
        assert!(begin.elapsed() < BOUND, "flow {flow} does not arrive");
    }
}

#[cfg(feature = "cli")]
#[test]
fn bench_measures_with_one_and_two_queues() {
    if !common::require_qemu() {
        return;
    }
    let device = match has_tap() {
        true => "qtest:virtio-net,net=tap:tap0,queues=2",
        false => "qtest:e1000e",
    };
    let bench = [
        "bench",
        device,
        "tx",
        "--queues",
        "2",
        "--seconds",
        "0.05",
        "--rounds",
        "1",
    ];
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pinwire"))
        .args(bench)
        .output()
        .unwrap();
    let (out, err) = (output.stdout, output.stderr);
    let said = String::from_utf8_lossy(&out);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&err)
    );
    assert!(said.contains("tx, 2 queues"), "{said}");
}

//! What fuzzers try: each body takes bytes that nobody trusts, as a device or a file would supply them, and
//! panics where a promise is broken. The crate in `fuzz/` has libFuzzer make up bytes; `tests/fuzz` runs
//! the bodies over the kept corpus.

use std::collections::{BTreeMap, VecDeque};
use std::io::Cursor;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use pinwire::backend::{Backend, Fake, FakeDevice, FakeMemory};
use pinwire::dma::{DmaRegion, DmaSpace, Iova, Pool};
use pinwire::mmio::Place;
use pinwire::net::{CaptureReader, Echo, Forward, Packet, Ping};
use pinwire::nic::e1000e::E1000eConfig;
use pinwire::nic::{self, Frame, Mac, NicConfig, Offload, OffloadFlags, Received};
use pinwire::pci::config::Config;
use pinwire::virtio::pci::PciTransport;
use pinwire::virtio::{Packed, Piece, Ring, RingConfig, Sink, Split, Used};
use pinwire::{Error, open};

use crate::fakes::e1000::FakeE1000;
use crate::fakes::e1000e::FakeE1000e;
use crate::fakes::virtio::queue::{Agreed, Queue};
use crate::fakes::virtio::{NoDevice, net as virtio};

/// A body and its name, which is its corpus's, too.
pub type Target = (&'static str, fn(&[u8]));

/// All there are.
pub const TARGETS: &[Target] = &[
    ("split", split),
    ("packed", packed),
    ("e1000", e1000),
    ("e1000e", e1000e),
    ("virtio_net", virtio_net),
    ("config", config),
    ("capture", capture),
    ("http", http),
    ("packets", packets),
];

/// Bytes, from the front; zeros once they are used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }
}

fn split(data: &[u8]) {
    let mut input = Input(data);
    let size = 1 << (input.byte() % 6);
    virtqueue::<Split<u64>>(input, size, false);
}

fn packed(data: &[u8]) {
    let mut input = Input(data);
    let size = 1 + u16::from(input.byte() % 40);
    virtqueue::<Packed<u64>>(input, size, true);
}

/// Keeps what comes, each with its length.
#[derive(Default)]
struct Came {
    all: Vec<(u64, u32)>,
    accepted: VecDeque<u32>,
}

impl Sink<u64> for Came {
    fn take(&mut self, used: Used<u64>) {
        self.all.push((used.token, used.written));
    }

    fn accept(&mut self, _: &mut u64, written: u32) -> bool {
        self.accepted.push_back(written);
        true
    }

    fn take_all(&mut self, tokens: impl Iterator<Item = u64>) {
        for token in tokens {
            let written = self.accepted.pop_front().expect("it was accepted");
            self.all.push((token, written));
        }
    }
}

/// The driver pushes and pops; the device uses chains as it should until it lies, and then writes what it
/// likes into the ring's memory. Each token comes back once, with no more bytes than there was room for;
/// after a lie nothing does, until the ring is reset.
fn virtqueue<R: Ring<u64>>(mut input: Input<'_>, size: u16, is_packed: bool) {
    let flags = input.byte();
    let agreed = Agreed {
        packed: is_packed,
        event_idx: flags & 1 != 0,
        indirect: flags & 2 != 0,
        in_order: flags & 4 != 0,
    };
    let config = RingConfig {
        device: "fuzzed".to_owned(),
        index: 1,
        size,
        event_idx: agreed.event_idx,
        indirect: agreed.indirect,
        in_order: agreed.in_order,
        notification_data: flags & 8 != 0,
    };
    let fake = Fake::new(Arc::new(Mutex::new(NoDevice([0; 256]))), 4096);
    let memory = Arc::clone(fake.memory());
    let mut ring = R::new(fake.dma(), &config).expect("a legal size");
    let areas = ring.areas();
    let places = [areas.descriptors.0, areas.driver.0, areas.device.0];
    let queue = || Queue::new(size, places[0], places[1], places[2], agreed);
    let mut device = queue();
    let (mut out, mut next) = (BTreeMap::new(), 0);
    let (mut has_lied, mut is_broken) = (false, false);
    let back = |out: &mut BTreeMap<u64, u32>, token: u64, written: u32| {
        let room = out.remove(&token).expect("a token that was out");
        assert!(written <= room, "{written} bytes written, room for {room}");
    };
    while !input.is_empty() {
        match input.byte() % 10 {
            0 | 1 => {
                let (count, readable) = (1 + input.byte() % 5, input.byte() % 6);
                let pieces: Vec<_> = (0..count)
                    .map(|nth| Piece {
                        iova: Iova(0x10_0000 + u64::from(nth) * 0x1000),
                        len: 1 + u32::from(input.byte()),
                    })
                    .collect();
                let written = pieces.iter().skip(readable.into());
                let room = written.map(|piece| piece.len).sum();
                if ring.submit(&pieces, readable.into(), next).is_ok() {
                    out.insert(next, room);
                }
                next += 1;
            }
            2 => {
                let count = u64::from(input.byte() % 8);
                let pushed = ring.refill(64, next..next + count, |_| Iova(0x20_0000));
                out.extend((next..next + pushed as u64).map(|token| (token, 64)));
                next += count;
            }
            3 => drop(ring.publish()),
            4 => match ring.poll() {
                Ok(Some(used)) => {
                    assert!(!is_broken, "a broken ring gives nothing");
                    back(&mut out, used.token, used.written);
                }
                Ok(None) => assert!(!is_broken, "a broken ring says so"),
                Err(_) => is_broken = true,
            },
            5 => {
                let most = usize::from(input.byte());
                let was_broken = is_broken;
                let mut came = Came::default();
                let popped = ring.poll_into(most, &mut came);
                assert!(
                    !was_broken || came.all.is_empty(),
                    "a broken ring gives nothing"
                );
                came.all
                    .into_iter()
                    .for_each(|(token, written)| back(&mut out, token, written));
                is_broken |= popped.is_err();
            }
            6 => {
                let _ = (ring.arm(), ring.is_ready(), ring.room(), ring.indices());
                let _ = ring.slots(|_, _| None);
                ring.disarm();
            }
            7 if !has_lied => {
                if let Some(chain) = device.take(&memory) {
                    device.give(&memory, &chain, chain.writable());
                }
            }
            8 => {
                has_lied = true;
                let base = places[usize::from(input.byte() % 3)];
                let at = base + u64::from(input.u16() % 4096);
                let len = usize::from(input.byte() % 8) + 1;
                memory.write(at, &input.bytes(len));
            }
            9 => {
                let tokens = ring.reset();
                let expected: Vec<_> = std::mem::take(&mut out).into_keys().collect();
                assert_eq!(tokens, expected, "in the order of their pushing");
                (device, has_lied, is_broken) = (queue(), false, false);
            }
            _ => {}
        }
        assert_eq!(ring.in_flight(), out.len());
    }
}

/// A device whose registers read as a fuzzer says.
struct Liar<M> {
    inner: M,
    registers: BTreeMap<usize, u32>,
}

impl<M: FakeDevice> FakeDevice for Liar<M> {
    fn read(&mut self, place: Place) -> u64 {
        let told = self.registers.get(&place.offset).copied();
        told.map_or_else(|| self.inner.read(place), u64::from)
    }

    fn write(&mut self, place: Place, value: u64, memory: &FakeMemory) {
        self.inner.write(place, value, memory);
    }

    fn config(&mut self) -> &mut [u8; 256] {
        self.inner.config()
    }
}

/// Orders to a fake card.
trait Wire {
    fn comes_in(&mut self, frame: Vec<u8>, memory: &FakeMemory);
    fn be_eager(&mut self, eager: bool);
}

impl Wire for FakeE1000 {
    fn comes_in(&mut self, frame: Vec<u8>, memory: &FakeMemory) {
        self.inbox.push_back(frame);
        self.step_rx(memory);
    }

    fn be_eager(&mut self, eager: bool) {
        self.eager = eager;
    }
}

impl Wire for FakeE1000e {
    fn comes_in(&mut self, frame: Vec<u8>, memory: &FakeMemory) {
        self.inbox[0].push_back(frame);
        self.step_rx(memory);
    }

    fn be_eager(&mut self, eager: bool) {
        self.eager = eager;
    }
}

fn e1000(data: &[u8]) {
    let inner = Arc::into_inner(FakeE1000::new(0x100e)).expect("nobody else has it");
    let inner = inner.into_inner().expect("nobody panicked with it");
    intel(Input(data), inner);
}

fn e1000e(data: &[u8]) {
    intel(Input(data), FakeE1000e::new());
}

/// Frames go out and come in; the device writes what it likes into its descriptors and lets its registers
/// read as it likes. No frame comes back that was not sent, and no buffer is in two places.
fn intel<M: FakeDevice + Wire + 'static>(mut input: Input<'_>, inner: M) {
    /// CTRL and the like are left alone: a reset that never ends has a test, and takes its bound.
    const LEFT_ALONE: usize = 0x20;
    let registers = BTreeMap::new();
    let device = Arc::new(Mutex::new(Liar { inner, registers }));
    let lock = || device.lock().unwrap_or_else(PoisonError::into_inner);
    let fake = Fake::new(device.clone(), 0x20000);
    let memory = Arc::clone(fake.memory());
    let config = NicConfig::default()
        .tx_ring(8)
        .rx_ring(8)
        .vlan_offload(true)
        .link_wait(Duration::ZERO)
        .waiting(nic::Waiting::Poll)
        .driver(E1000eConfig::default().split_headers(input.byte() & 1 != 0));
    let mut card = open::start(fake, &config).expect("a card that behaves starts");
    let pool = Pool::new(card.dma(), 16, 2048).expect("memory");
    let (mut batch, mut done) = (Vec::new(), Vec::new());
    let mut got: Vec<Received> = Vec::new();
    let mut sent = 0;
    let mut has_lied = false;
    while !input.is_empty() {
        match input.byte() % 10 {
            0 => {
                if let Some(mut buf) = pool.alloc() {
                    buf.fill(&vec![1; 17 + usize::from(input.byte())]);
                    let mut frame = Frame::from(buf);
                    frame.set_offload(offload(&mut input));
                    batch.push(frame);
                }
                sent += card.send(&mut batch).unwrap_or(0);
                batch.clear();
            }
            1 => {
                let _ = card.recv(&mut got, usize::from(input.byte() % 16));
                let mut places: Vec<_> = got
                    .iter()
                    .flat_map(|received| received.frame.segments().map(|one| one.iova()))
                    .collect();
                let before = places.len();
                places.sort();
                places.dedup();
                assert_eq!(places.len(), before, "a buffer in two frames");
                for received in &got {
                    assert!(received.frame.len() <= 16_384);
                }
                if input.byte() & 1 == 0 {
                    got.clear();
                }
            }
            2 => {
                let before = done.len();
                let _ = card.completed(&mut done);
                sent -= done.len() - before; // panics below zero: more came back than went
                done.clear();
            }
            3 if !has_lied => {
                let len = 14 + usize::from(input.u16() % 4000);
                lock().inner.comes_in(vec![2; len], &memory);
            }
            4 => {
                // Descriptors are the device's to write from here on, and the fake would read them.
                has_lied = true;
                lock().inner.be_eager(false);
                let rings = card.rings();
                let ring = &rings[usize::from(input.byte()) % rings.len()];
                let slot = &ring.slots[usize::from(input.byte()) % ring.slots.len()];
                let word = u64::from(input.byte() & 1) * 8;
                let value = input.bytes(8);
                memory.write(slot.iova.0 + word, &value);
            }
            5 => {
                let offset = usize::from(input.u16()) & !3;
                let value = input.u32();
                if offset >= LEFT_ALONE {
                    lock().registers.insert(offset, value);
                }
            }
            6 => drop((card.registers(), card.rings(), card.link(), card.stats())),
            7 => drop(card.check()),
            8 => drop(card.wait(Duration::ZERO)),
            9 => {
                lock().registers.clear();
                if let Ok(in_flight) = card.restart() {
                    assert_eq!(in_flight.len(), sent, "what was in flight comes back");
                    sent = 0;
                    if !has_lied {
                        lock().inner.be_eager(input.byte() & 1 == 0);
                    }
                }
            }
            _ => {}
        }
    }
    lock().registers.clear();
    drop((card, got, batch, done, pool));
    assert_eq!(memory.mappings(), 0);
}

fn offload(input: &mut Input<'_>) -> Offload {
    Offload {
        flags: OffloadFlags::from_bits_truncate(input.byte()),
        l2_len: input.byte(),
        l3_len: input.byte(),
        l4_len: input.byte(),
        mss: input.u16(),
        vlan: input.u16(),
    }
}

/// Frames that a virtio card receives with a header that says what it likes, forwarded to an e1000, which is
/// asked to do what the header says.
fn virtio_net(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let packed = if flags & 1 != 0 { virtio::PACKED } else { 0 };
    let offered = virtio::PLAIN | virtio::MRG_RXBUF | virtio::INDIRECT | virtio::CSUM | packed;
    // What the other end leaves to be done: §5.1.3, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, GUEST_UFO.
    let guest = 1 << 1 | 1 << 7 | 1 << 8 | 1 << 10;
    let (fake, card) = virtio::FakeVirtioNet::fake(offered | guest);
    let memory = Arc::clone(fake.memory());
    let config = NicConfig::default()
        .rx_offload(true)
        .tx_ring(16)
        .rx_ring(16)
        .link_wait(Duration::ZERO)
        .waiting(nic::Waiting::Poll);
    let Ok(mut from) = open::start(fake, &config) else {
        return;
    };
    let beside = Fake::beside(FakeE1000::new(0x100e), 0x20000, &memory);
    let mut to = open::start(beside, &config).expect("a card that behaves starts");
    let mut forward = Forward::new(&mut *from, &mut *to, 16).expect("one space");
    while !input.is_empty() {
        let header: [u8; 12] = input.bytes(12).try_into().expect("twelve");
        let len = usize::from(input.u16() % 3000);
        let frame: Vec<u8> = input
            .bytes(len.min(200))
            .into_iter()
            .cycle()
            .take(len)
            .collect();
        virtio::FakeVirtioNet::lock(&card).receive(&memory, 0, header, &frame);
        if forward.round(16, None).is_err() {
            break;
        }
    }
}

/// Config space, capabilities and registers of a function, all of them from the input: whatever drivers look
/// at before they know what it is.
fn config(data: &[u8]) {
    struct Function {
        config: [u8; 256],
        registers: Vec<u8>,
        at: usize,
    }

    impl FakeDevice for Function {
        fn read(&mut self, _: Place) -> u64 {
            let word = self.registers.get(self.at..self.at + 4);
            self.at += 4;
            word.map_or(0, |bytes| {
                u32::from_le_bytes(bytes.try_into().expect("four")).into()
            })
        }

        fn write(&mut self, _: Place, _: u64, _: &FakeMemory) {}

        fn config(&mut self) -> &mut [u8; 256] {
            &mut self.config
        }
    }

    let mut input = Input(data);
    let sizes = [0, 4, 64, 0x1000, 0x4000, 0x20000, 0x20000, 0x20000];
    let size = sizes[usize::from(input.byte() % 8)];
    let config: [u8; 256] = input.bytes(256).try_into().expect("so many");
    let registers = input.0.to_vec();
    let open = || {
        let registers = registers.clone();
        let function = Function {
            config,
            registers,
            at: 0,
        };
        Fake::new(Arc::new(Mutex::new(function)), size)
    };
    let fake = open();
    let _ = (fake.ids(), fake.capabilities());
    let _ = PciTransport::open(open());
    let config = NicConfig::default().link_wait(Duration::ZERO);
    let memory = Arc::clone(fake.memory());
    drop(open::start(fake, &config));
    assert_eq!(memory.mappings(), 0, "whatever failed, no mapping stays");
}

/// A capture file: read to its end, or to an error that says what is wrong.
fn capture(data: &[u8]) {
    let is_gzip = data.starts_with(b"\x1f\x8b");
    let mut reader = CaptureReader::from_reader(Cursor::new(data.to_vec()), "fuzzed");
    for _ in 0..100_000 {
        match reader.poll_next() {
            Ok(Poll::Ready(Some(captured))) => {
                assert!(is_gzip || captured.data.len() <= data.len());
            }
            Ok(Poll::Ready(None)) | Err(_) => return,
            Ok(Poll::Pending) => {}
        }
    }
    assert!(is_gzip, "more packets than bytes");
}

/// What a peer sends to the file server, up to where a file would be opened.
fn http(data: &[u8]) {
    pinwire::paths::serve::parse_untrusted(data);
}

/// Frames as they come from the wire, in as many buffers as the input says: everything that reads them.
fn packets(data: &[u8]) {
    const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    let (fake, inner) = FakeE1000::fake();
    let memory = Arc::clone(fake.memory());
    let config = NicConfig::default()
        .link_wait(Duration::ZERO)
        .waiting(nic::Waiting::Poll)
        .vlan_offload(data.first().is_some_and(|byte| byte & 1 != 0));
    let mut card = open::start(fake, &config).expect("a card that behaves starts");
    let mut echo = Echo::new(&*card, OURS, 7).expect("memory");
    let (via, patience) = (Mac([2, 0, 0, 0, 0, 9]), Duration::from_secs(1));
    let mut ping = Ping::new(&*card, OURS, (via, THEIRS), 56, patience).expect("memory");
    let mut input = Input(data);
    let _ = input.byte();
    while !input.is_empty() {
        let (kind, len) = (input.byte(), usize::from(input.u16() % 2500));
        let frame = input.bytes(len);
        let parsed = Packet::parse(&frame);
        if let Some(packet) = &parsed {
            let _ = (
                packet.macs(),
                packet.ethertype(),
                packet.vlan(),
                packet.arp(),
            );
            let _ = (packet.ip(), packet.udp_ports());
        }
        let mut inner = crate::fakes::lock(&inner);
        inner.rx_word = (kind & 0x68, 0);
        inner.comes_in(frame.clone(), &memory);
        drop(inner);
        let heard = match kind & 1 {
            0 => echo.round(&mut *card).map(|_| ()),
            _ => {
                let _ = ping.send(&mut *card);
                ping.hear(&mut *card, |_| ()).map(|_| ())
            }
        };
        // What the wire brings is no fault of the card's.
        assert!(
            !matches!(heard, Err(Error::ProtocolViolation { .. })),
            "{heard:?}"
        );
    }
    let dma: Arc<dyn DmaSpace> = memory.clone();
    drop(DmaRegion::alloc(&dma, 64));
}

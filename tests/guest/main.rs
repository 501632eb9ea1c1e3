//! What only the VM can show: run there by `tests/vm/card.rs`, over VFIO with `PINWIRE_DEVICE`, the
//! kernel's driver on a twin card (`PINWIRE_WIRE`) at the other end of the cable.
#![cfg(feature = "testing")]

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pinwire::backend::{Backend, Vfio};
use pinwire::barrier::dma_wmb;
use pinwire::dma::{DmaArray, DmaFile, DmaRegion, Pool};
use pinwire::mmio::{Mmio, RegInfo};
use pinwire::nic::e1000::desc::{LegacyTx, RxDesc, TxDesc};
use pinwire::nic::e1000::regs::*;
use pinwire::nic::{Frame, Nic, NicConfig};
use pinwire::pci::config::{Command, Config};
use pinwire::testing::{PacketSocket, Wire};

/// The address that our frames are sent from.
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn device() -> String {
    std::env::var("PINWIRE_DEVICE").expect("PINWIRE_DEVICE names the card")
}

fn wire() -> PacketSocket {
    let interface = std::env::var("PINWIRE_WIRE").expect("PINWIRE_WIRE names the twin");
    PacketSocket::open(&interface).expect("the twin's interface is up")
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Where `byte` is in the machine's memory, as root may ask.
fn physical(byte: &u8) -> u64 {
    let address = std::ptr::from_ref(byte) as u64;
    let mut entry = [0; 8];
    let pagemap = File::open("/proc/self/pagemap").unwrap();
    pagemap
        .read_exact_at(&mut entry, address / 4096 * 8)
        .unwrap();
    let frame = u64::from_ne_bytes(entry) & ((1 << 55) - 1);
    assert_ne!(frame, 0, "root sees page frames");
    frame * 4096 + address % 4096
}

/// The device is told to read and to write three places that were never given to it: one past a
/// region, the physical address of a page of this process, and its virtual address.
#[test]
fn dma_outside_of_what_is_mapped_is_stopped() {
    const SECRET: u8 = 0xa5;
    let canary = vec![SECRET; 3 * 4096];
    let page = &canary[4096 - canary.as_ptr().addr() % 4096..][..4096];

    let device = Vfio::open(device().parse().unwrap()).unwrap();
    let wire = wire();
    device.command(Command::MEMORY, Command::empty()).unwrap();
    let bar = device.map_bar(0, RegInfo::size_of(TABLE)).unwrap();
    bar.set(IMC, Interrupts::from(u32::MAX));
    bar.set(RCTL, Rctl::new());
    bar.set(TCTL, Tctl::new());
    bar.update(CTRL, |ctrl| ctrl.with_slu(true).with_asde(true));
    until("the link is up", || bar.get(STATUS).lu());
    let tx: DmaArray<TxDesc> = DmaArray::alloc(device.dma(), 8).unwrap();
    let rx: DmaArray<RxDesc> = DmaArray::alloc(device.dma(), 8).unwrap();
    let mut region = DmaRegion::alloc(device.dma(), 4096).unwrap();
    region.write(0, &[SECRET; 64]);

    let outside = [
        region.iova().0 + (64 << 20),
        physical(&page[0]),
        page.as_ptr().addr() as u64 & ((1 << 39) - 1) & !0xfff,
    ];
    for address in outside {
        println!("outside {address:#x}");
    }

    // Reading: what it sends in place of the bytes it may not see.
    bar.set(TDBAL, tx.iova(0).0 as u32);
    bar.set(TDBAH, (tx.iova(0).0 >> 32) as u32);
    bar.set(TDLEN, 8 * 16);
    bar.set(TDH, 0);
    bar.set(TDT, 0);
    device
        .command(Command::BUS_MASTER, Command::empty())
        .unwrap();
    bar.set(TCTL, Tctl::new().with_en(true));
    let word = LegacyTx::new()
        .with_length(64)
        .with_eop(true)
        .with_ifcs(true)
        .with_rs(true);
    for (index, address) in [outside[0], outside[1], outside[2], region.iova().0]
        .into_iter()
        .enumerate()
    {
        tx[index].write(address, word.into());
    }
    dma_wmb();
    bar.set(TDT, 4);
    until("the device writes its descriptors back", || tx[3].done());
    let mut seen = Vec::new();
    // Then for what is too much.
    let patience = |seen: &[u8]| Duration::from_millis(if seen.len() < 4 { 10_000 } else { 500 });
    while let Some(frame) = wire.recv(patience(&seen)) {
        let ours = frame.len() == 64 && frame.iter().all(|byte| *byte == frame[0]);
        if ours {
            seen.push(frame[0]);
        }
    }
    assert_eq!(
        seen,
        [0, 0, 0, SECRET],
        "only the mapped bytes left the machine"
    );

    // Writing: frames that come in for buffers that it may not touch.
    for (index, address) in outside.into_iter().enumerate() {
        rx[index].write(address);
    }
    bar.set(RDBAL, rx.iova(0).0 as u32);
    bar.set(RDBAH, (rx.iova(0).0 >> 32) as u32);
    bar.set(RDLEN, 8 * 16);
    bar.set(RDH, 0);
    bar.set(RDT, 3);
    let rctl = Rctl::new()
        .with_en(true)
        .with_upe(true)
        .with_bam(true)
        .with_secrc(true);
    bar.set(RCTL, rctl.with_buffer(2048).unwrap());
    let frame = [
        &[0xff; 6][..],
        &[2, 0, 0, 0, 0, 2],
        &[0x88, 0xb5],
        &[0x11; 986],
    ]
    .concat();
    for _ in 0..outside.len() {
        wire.send(&frame);
    }
    until("the device says that it filled the buffers", || {
        rx[2].poll().is_some()
    });
    bar.set(RCTL, Rctl::new());
    bar.set(TCTL, Tctl::new());
    let _ = bar.get(STATUS);
    device
        .command(Command::empty(), Command::BUS_MASTER)
        .unwrap();
    assert!(
        canary.iter().all(|byte| *byte == SECRET),
        "memory that was never mapped was written"
    );
    let mut after = [0; 128];
    region.read(0, &mut after);
    assert_eq!(after[..64], [SECRET; 64]);
    assert_eq!(after[64..], [0; 64]);
}

/// Memory filled with a pattern, which is what the kernel gives away of what was freed last.
fn fill() -> Vec<u64> {
    (0..(32 << 20) / 8)
        .map(|i| i ^ 0x5a5a_5a5a_5a5a_5a5a)
        .collect()
}

/// The program is killed in the middle, and its memory goes to somebody else at once: the device must
/// not write there any more, and the next run must find a device that works.
fn kill_in_the_middle(round: u64, args: &[&str], is_busy: impl Fn() -> bool) {
    let mut victim = std::process::Command::new("pinwire")
        .args(args)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("it is busy", is_busy);
    std::thread::sleep(Duration::from_millis(round % 10 * 7));
    assert!(
        victim.try_wait().unwrap().is_none(),
        "round {round}: it ended by itself"
    );
    victim.kill().unwrap();
    victim.wait().unwrap();
    let memory = fill();
    std::thread::sleep(Duration::from_millis(20));
    let intact = memory
        .iter()
        .zip(0..)
        .all(|(word, i): (_, u64)| *word == i ^ 0x5a5a_5a5a_5a5a_5a5a);
    assert!(
        intact,
        "round {round}: memory was written after its owner had been killed"
    );
}

#[test]
fn killed_fifty_times_while_sending() {
    let device = device();
    for round in 0..50 {
        let begin = Instant::now();
        let args = ["send", &device, "--synthetic", "1000"];
        kill_in_the_middle(round, &args, || {
            begin.elapsed() > Duration::from_millis(150)
        });
    }
    let mut nic = card();
    let pool = Pool::new(nic.dma(), 1, 64).unwrap();
    let mut buf = pool.alloc().unwrap();
    buf.fill(&[[0xff; 6], OUR_MAC, [0; 6], [0; 6], [0; 6]].concat());
    nic.send(&mut vec![buf.into()]).unwrap();
    until("the card sends", || {
        nic.completed(&mut Vec::new()).unwrap() == 1
    });
}

/// Ends the flood also where the test fails.
struct Flooding<'a>(&'a AtomicBool);

impl Drop for Flooding<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn killed_while_receiving() {
    let stop = AtomicBool::new(false);
    let device = device();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let wire = wire();
            let frame = [
                &[0xff; 6][..],
                &[2, 0, 0, 0, 0, 2],
                &[0x88, 0xb5],
                &[0xee; 1000],
            ]
            .concat();
            while !stop.load(Ordering::Relaxed) {
                wire.try_send(&frame);
            }
        });
        let _flooding = Flooding(&stop);
        const FLOOD: &str = "/tmp/flood.pcap";
        let args = ["recv", &device, "--promiscuous", "--write", FLOOD];
        for round in 0..8 {
            // The model takes frames in a second after its receiver was set up.
            kill_in_the_middle(round, &args, || {
                std::fs::metadata(FLOOD).is_ok_and(|file| file.len() > 100_000)
            });
            std::fs::remove_file(FLOOD).unwrap();
        }
    });
}

fn card() -> Box<dyn Nic> {
    let spec: pinwire::device::DeviceSpec = device().parse().unwrap();
    spec.open(&NicConfig::default(), None).unwrap()
}

/// One frame: a header of 42 bytes from `pool`, the payload from the file's page cache.
fn send_slice(nic: &mut dyn Nic, pool: &Pool, mapped: &DmaFile, offset: u64, len: usize) {
    let mut header = [0x42; 42];
    header[..6].fill(0xff);
    header[6..12].copy_from_slice(&OUR_MAC);
    header[12..14].copy_from_slice(&[0x88, 0xb5]);
    let mut buf = pool.alloc().unwrap();
    buf.fill(&header);
    let mut frame = Frame::from(buf);
    frame.append(mapped.slice(offset, len).unwrap());
    let mut frames = vec![frame];
    until("the card sends", || {
        nic.send(&mut frames).unwrap();
        nic.completed(&mut Vec::new()).unwrap();
        frames.is_empty() && nic.in_flight() == 0
    });
}

fn payload(wire: &PacketSocket, len: usize) -> Vec<u8> {
    wire.recv_ours()[42..42 + len].to_vec()
}

/// In every directory of `PINWIRE_DIRS`, which the runner picks: tmpfs and ext4.
#[test]
fn the_page_cache_is_what_is_sent() {
    let (mut nic, wire) = (card(), wire());
    let pool = Pool::new(nic.dma(), 4, 64).unwrap();
    for dir in std::env::var("PINWIRE_DIRS")
        .expect("PINWIRE_DIRS")
        .split(':')
    {
        println!("--- {dir}");
        let path = format!("{dir}/content");
        let mut content: Vec<u8> = (0..20_000u32).map(|i| (i * 7 + i / 256) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let mapped = DmaFile::map(nic.dma(), &file, 4).unwrap();
        mapped.deny_cpu().unwrap();

        for (offset, len) in [(0, 1), (4095, 2), (0, 1400), (18_600, 1400)] {
            send_slice(&mut *nic, &pool, &mapped, offset, len);
            assert_eq!(
                payload(&wire, len),
                content[offset as usize..][..len],
                "{len} at {offset}"
            );
        }
        // A write by anybody is in the next frame: nothing is mapped again.
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all_at(b"changed", 5000)
            .unwrap();
        content[5000..5007].copy_from_slice(b"changed");
        send_slice(&mut *nic, &pool, &mapped, 4990, 100);
        assert_eq!(payload(&wire, 100), content[4990..5090]);

        // Truncated and removed: the pages that were mapped are still there, and it can be told.
        file.set_len(100).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        send_slice(&mut *nic, &pool, &mapped, 8192, 1000);
        assert_eq!(payload(&wire, 1000), content[8192..9192], "{dir}");
        assert_eq!((mapped.len(), mapped.len_now().unwrap()), (20_000, 100));
    }
}

#[test]
fn an_empty_file_and_one_of_a_byte() {
    let (mut nic, wire) = (card(), wire());
    let pool = Pool::new(nic.dma(), 4, 64).unwrap();
    for dir in std::env::var("PINWIRE_DIRS")
        .expect("PINWIRE_DIRS")
        .split(':')
    {
        let path = format!("{dir}/small");
        let file = File::create_new(&path).unwrap();
        let empty = DmaFile::map(nic.dma(), &file, 4).unwrap();
        assert_eq!(empty.len(), 0);
        empty.deny_cpu().unwrap();
        file.write_all_at(b"!", 0).unwrap();
        let file = File::open(&path).unwrap();
        let one = DmaFile::map(nic.dma(), &file, 4).unwrap();
        send_slice(&mut *nic, &pool, &one, 0, 1);
        assert_eq!(payload(&wire, 1), b"!");
        std::fs::remove_file(&path).unwrap();
    }
}

/// The mapping that `deny_cpu` has closed cannot be read: this process would die, so a child tries.
#[test]
fn the_cpu_is_kept_out_where_the_device_is_not() {
    let nic = card();
    let path = "/tmp/denied";
    std::fs::write(path, [1; 4096]).unwrap();
    let mapped = DmaFile::map(nic.dma(), &File::open(path).unwrap(), 1).unwrap();
    let address = mapped.mapping().unwrap().ptr.as_ptr();
    let readable = || {
        // The kernel reads it for us, and says so where it may not.
        let memory = File::open("/proc/self/maps");
        let mut maps = String::new();
        memory.unwrap().read_to_string(&mut maps).unwrap();
        let start = format!("{:x}-", address.addr());
        let line = maps
            .lines()
            .find(|line| line.trim_start_matches('0').starts_with(&start));
        line.expect("the mapping")
            .split(' ')
            .nth(1)
            .unwrap()
            .starts_with('r')
    };
    assert!(readable());
    mapped.deny_cpu().unwrap();
    assert!(!readable());
    std::fs::remove_file(path).unwrap();
}

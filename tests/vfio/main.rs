//! The VFIO backend on real devices: run inside the VM by `tests/vm/vfio.rs`, which bound an e1000
//! (no MSI, no reset), an e1000e (MSI, MSI-X), two e1000 in one group, and an e1000 alone on its bus
//! (reset with that) to vfio-pci. The first and the last are on one hub.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pinwire::Error;
use pinwire::backend::{Backend, Vfio, VfioBar};
use pinwire::device::DeviceSpec;
use pinwire::dma::{DmaFile, DmaRegion, Pool};
use pinwire::irq::{Irq, IrqKind};
use pinwire::mmio::{Mmio, RegInfo};
use pinwire::nic::e1000::regs::TABLE;
use pinwire::nic::{Frame, NicConfig};
use pinwire::pci::config::{COMMAND, Capability, Command, Config};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

const E1000: &str = "0000:00:03.0";
const E1000E: &str = "0000:00:04.0";
const TWINS: [&str; 2] = ["0000:00:10.0", "0000:00:10.1"];
const ALONE: &str = "0000:01:00.0";
/// Stays with the kernel's driver.
const NOT_OURS: &str = "0000:00:05.0";

/// Registers that both cards have: Intel 8254x manual, §13.4.17 to §13.4.21.
const ICR: usize = 0x00c0;
const ICS: usize = 0x00c8;
const IMS: usize = 0x00d0;
const IMC: usize = 0x00d8;
/// Which vector a cause has: 82574 datasheet, §10.2.4.9.
const IVAR: usize = 0x00e4;
/// Link status change.
const LSC: u32 = 1 << 2;
/// 82574: any cause but the queues'.
const OTHER: u32 = 1 << 24;

fn open(address: &str) -> Vfio {
    Vfio::open(address.parse().unwrap()).unwrap()
}

fn fires(irq: &Irq) -> bool {
    irq.wait(Duration::from_millis(500)).unwrap()
}

/// Bytes that the kernel counts as locked by this process.
fn locked() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmLck:"));
    line.unwrap()["VmLck:".len()..].trim().to_owned()
}

#[test]
fn memory_outlives_its_device_and_keeps_the_group() {
    let device = open(E1000);
    let space = device.dma().clone();
    let mut region = DmaRegion::alloc(&space, 4096).unwrap();
    drop(device);
    region.write(4000, b"still here");
    let mut bytes = [0; 10];
    region.read(4000, &mut bytes);
    assert_eq!(&bytes, b"still here");
    let another = DmaRegion::alloc(&space, 4096).unwrap();
    assert_ne!(another.iova(), region.iova());
    drop((space, another));
    let again = Vfio::open(E1000.parse().unwrap());
    assert!(matches!(again, Err(Error::GroupBusy { .. })), "{again:?}");
    drop(region);
    open(E1000);
    assert_eq!(locked(), "0 kB");
}

fn open_all(addresses: &[&str]) -> pinwire::Result<Vec<Vfio>> {
    let addresses: Vec<_> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Vfio::open_all(&addresses)
}

#[test]
fn functions_of_several_groups_or_of_one_have_one_address_space() {
    for addresses in [&[E1000, E1000E, ALONE][..], &TWINS] {
        let devices = open_all(addresses).unwrap();
        let names: Vec<_> = devices.iter().map(Backend::name).collect();
        assert_eq!(names, addresses);
        let region = DmaRegion::alloc(devices[0].dma(), 4096).unwrap();
        let another = DmaRegion::alloc(devices[1].dma(), 4096).unwrap();
        assert_ne!(region.iova(), another.iova());
        assert!(Arc::ptr_eq(devices[0].dma(), devices[1].dma()));
    }
    assert!(open_all(&[]).unwrap().is_empty());
}

#[test]
fn where_one_of_several_cannot_be_had_none_is_taken() {
    type Is = fn(&Error) -> bool;
    let wrong: [(&str, Is); 3] = [
        (NOT_OURS, |error| matches!(error, Error::NotBound { .. })),
        ("0000:00:1c.7", |error| {
            matches!(error, Error::NoSuchDevice(_))
        }),
        (E1000, |error| matches!(error, Error::Usage(_))),
    ];
    for (address, is_expected) in wrong {
        let error = open_all(&[E1000, address]).unwrap_err();
        assert!(is_expected(&error), "{error}");
        open(E1000);
    }
    let holder = open(E1000E);
    let error = open_all(&[E1000, E1000E]).unwrap_err();
    assert!(matches!(error, Error::GroupBusy { .. }), "{error}");
    open(E1000);
    drop(holder);
    open_all(&[E1000, E1000E]).unwrap();
}

#[test]
fn a_frame_goes_from_card_to_card_in_the_buffer_it_came_in() {
    let specs = [E1000, ALONE].map(|text| text.parse().unwrap());
    let config = NicConfig::default().promiscuous(true);
    let mut nics = DeviceSpec::open_all(&specs, &config, None).unwrap();
    let [left, right] = &mut nics[..] else {
        panic!("two cards")
    };
    assert!(Arc::ptr_eq(left.dma(), right.dma()));
    let mut bytes = [7; 60];
    bytes[..12].copy_from_slice(&[0xff; 12]);
    let pool = Pool::new(right.dma(), 8, 2048).unwrap();
    let mut buf = pool.alloc().unwrap();
    buf.set_len(60);
    buf.put(0, &bytes);
    let mut out = vec![Frame::from(buf)];
    // There and back: mapped through the one, sent by the other; received by that, sent by the one.
    for round in 0..4 {
        let (from, to) = if round % 2 == 0 {
            (&mut *left, &mut *right)
        } else {
            (&mut *right, &mut *left)
        };
        assert_eq!(from.send(&mut out).unwrap(), 1, "{round}");
        let mut came = Vec::new();
        let begun = Instant::now();
        while to.recv(&mut came, 1).unwrap() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "{round}");
        }
        let frame = came.remove(0).frame;
        assert_eq!(frame.to_vec()[..60], bytes, "{round}");
        out = vec![frame];
        while from.in_flight() > 0 {
            from.completed(&mut Vec::new()).unwrap();
        }
    }
}

/// The device's command register, as it is: not what the kernel shows whoever has it open.
fn command(address: &str) -> u16 {
    let config = File::open(format!("/sys/bus/pci/devices/{address}/config")).unwrap();
    let mut bytes = [0; 2];
    config.read_exact_at(&mut bytes, COMMAND.into()).unwrap();
    u16::from_le_bytes(bytes)
}

/// Has the card ask for no interrupt.
fn quiet(device: &Vfio) {
    let bar = device.map_bar(0, RegInfo::size_of(TABLE)).unwrap();
    bar.write32(IMC, u32::MAX);
    bar.read32(ICR);
}

#[test]
fn intx_is_off_unless_it_was_asked_for_whatever_is_done() {
    const INTX_DISABLE: u16 = 1 << 10;
    let is_off = |address| command(address) & INTX_DISABLE != 0;
    let device = open(E1000);
    // Nothing resets this one between two tests. While an interrupt is pending, the kernel keeps INTx off.
    quiet(&device);
    assert!(is_off(E1000), "from the beginning");
    let _irqs = device.interrupts(IrqKind::Intx, 1).unwrap();
    assert!(!is_off(E1000), "asked for");
    device
        .command(Command::BUS_MASTER, Command::empty())
        .unwrap();
    assert!(!is_off(E1000), "a driver changes other bits");
    assert!(device.interrupts(IrqKind::MsiX, 1).is_err());
    assert!(is_off(E1000), "another kind was asked for, and refused");
    let _irqs = device.interrupts(IrqKind::Intx, 1).unwrap();
    drop(device);
    assert!(is_off(E1000), "given back");

    let device = open(ALONE);
    quiet(&device);
    assert!(is_off(ALONE), "from the beginning");
    assert!(device.reset().unwrap());
    assert!(is_off(ALONE), "after a reset");
    let _irqs = device.interrupts(IrqKind::Intx, 1).unwrap();
    assert!(device.reset().unwrap());
    assert!(!is_off(ALONE), "after a reset, asked for before it");
}

/// The kernel turns INTx on as it turns off messages.
#[test]
fn intx_is_off_after_messages() {
    const INTX_DISABLE: u16 = 1 << 10;
    let device = open(E1000E);
    for kind in [IrqKind::Msi, IrqKind::MsiX] {
        let _irqs = device.interrupts(kind, 1).unwrap();
        let _irqs = device.interrupts(kind, 0).unwrap();
        assert_ne!(command(E1000E) & INTX_DISABLE, 0, "after {kind:?}");
    }
}

#[test]
fn a_dropped_device_does_no_dma_even_where_a_bar_lives_on() {
    let device = open(E1000);
    let bar = device.map_bar(0, RegInfo::size_of(TABLE)).unwrap();
    device
        .command(Command::BUS_MASTER, Command::empty())
        .unwrap();
    let may = || Command::from_bits_retain(command(E1000)).contains(Command::BUS_MASTER);
    assert!(may());
    drop(device);
    assert!(!may());
    assert_ne!(bar.read32(8), u32::MAX);
}

#[test]
fn small_regions_take_small_pages_and_large_ones_hugepages() {
    let device = open(E1000);
    let pages = [
        (1, 4096, 4096),
        (4097, 8192, 4096),
        ((1 << 20) - 1, 1 << 20, 4096),
        (1 << 20, 2 << 20, 2 << 20),
        ((2 << 20) + 1, 4 << 20, 2 << 20),
        // There are 64 hugepages.
        (200 << 20, 200 << 20, 4096),
    ];
    for (asked, len, page) in pages {
        let region = DmaRegion::alloc(device.dma(), asked).unwrap();
        let mapping = region.mapping();
        assert_eq!((mapping.len, mapping.page), (len, page), "{asked}");
        assert!(mapping.iova.0.is_multiple_of(page as u64), "{mapping:?}");
        let mut bytes = vec![0xff; len.min(4 << 20)];
        region.read(len - bytes.len(), &mut bytes);
        assert!(bytes.iter().all(|byte| *byte == 0), "{asked}");
    }
    assert_eq!(locked(), "0 kB");
}

#[test]
fn what_is_unmapped_is_mapped_again() {
    let device = open(E1000);
    let keep = DmaRegion::alloc(device.dma(), 4096).unwrap();
    let first = DmaRegion::alloc(device.dma(), 4096).unwrap().iova();
    for _ in 0..500 {
        let region = DmaRegion::alloc(device.dma(), 4096).unwrap();
        assert_eq!(region.iova(), first);
    }
    assert_eq!(locked(), "4 kB");
    drop(keep);
    assert_eq!(locked(), "0 kB");
}

#[test]
fn what_is_quarantined_is_unpinned_and_its_addresses_are_never_given_out_again() {
    let device = open(E1000);
    let mut gone = Vec::new();
    for _ in 0..50 {
        let mut region = DmaRegion::alloc(device.dma(), 4096).unwrap();
        assert!(!gone.contains(&region.iova()), "{region:?}");
        gone.push(region.iova());
        region.quarantine();
    }
    assert_eq!(locked(), "0 kB");
}

/// Small pages are shorter than whole hugepages, so the limit may have room for them alone.
#[test]
fn where_hugepages_do_not_fit_the_locked_memory_limit_small_pages_are_taken() {
    const LEN: usize = (1 << 20) + 4096;
    let device = open(E1000);
    let before = getrlimit(Resource::Memlock);
    let short = Rlimit {
        current: Some(LEN as u64),
        ..before
    };
    setrlimit(Resource::Memlock, short).unwrap();
    // Who may lock without a limit is not held to one: this thread may not, the others go on.
    let dma = device.dma();
    let alloc = || {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::IPC_LOCK);
        set_capabilities(None, sets).unwrap();
        DmaRegion::alloc(dma, LEN)
            .map(|region| region.mapping())
            .map_err(|error| error.to_string())
    };
    let mapping = std::thread::scope(|scope| scope.spawn(alloc).join().unwrap());
    setrlimit(Resource::Memlock, before).unwrap();
    let mapping = mapping.unwrap();
    assert_eq!((mapping.len, mapping.page), (LEN, 4096));
}

/// The pages under the device's eyes must stay this process's: see `madvise(MADV_DONTFORK)`.
#[test]
fn a_child_process_does_not_share_the_memory() {
    let device = open(E1000);
    let region = DmaRegion::alloc(device.dma(), 4096).unwrap();
    let start = format!("{:x}-", region.mapping().ptr.as_ptr().addr());
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps.lines().skip_while(|line| !line.starts_with(&start));
    let flags = lines.find(|line| line.starts_with("VmFlags:")).unwrap();
    assert!(flags.split(' ').any(|flag| flag == "dc"), "{flags}");
}

#[test]
fn pages_beyond_the_end_of_a_file_are_refused_by_its_name() {
    let device = open(E1000);
    let path = "/tmp/short";
    std::fs::write(path, [1; 5000]).unwrap();
    let file = File::open(path).unwrap();
    let mapping = device.dma().map_file(&file, 0, 5000).unwrap();
    assert_eq!(mapping.len, 8192);
    // SAFETY: mapped above, and used by nobody.
    unsafe { device.dma().unmap(&mapping) };
    let error = device
        .dma()
        .map_file(&file, 0, 8193)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/tmp/short: 8193 bytes at 0 cannot be pinned"),
        "{error}"
    );
    assert_eq!(locked(), "0 kB");
}

/// Memory by hugepages, the page cache, and nothing beyond, where the IOMMU itself has 39 bits.
#[test]
fn what_a_device_of_few_address_lines_is_given_it_reaches() {
    const MIB: usize = 1 << 20;
    let device = open(E1000);
    device.limit_dma(24).unwrap();
    let memory = DmaRegion::alloc(device.dma(), 12 * MIB).unwrap();
    let path = "/tmp/reached";
    std::fs::write(path, vec![1; MIB]).unwrap();
    let file = File::open(path).unwrap();
    let mapped = DmaFile::map(device.dma(), &file, 1).unwrap();
    let slice = mapped.slice(0, MIB).unwrap();
    let ends = [(memory.iova(), 12 * MIB), (slice.iova(), MIB)];
    let ends = ends.map(|(iova, len)| iova.0 + len as u64);
    assert!(ends.iter().all(|end| *end <= 1 << 24), "{ends:x?}");
    let error = DmaRegion::alloc(device.dma(), 4 * MIB).unwrap_err();
    assert!(matches!(error, Error::NoIova { .. }), "{error}");
    let error = device.limit_dma(12).unwrap_err();
    assert!(matches!(error, Error::OutOfReach { .. }), "{error}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn bars_are_mapped_where_there_is_memory() {
    let device = open(E1000);
    assert_eq!(
        device.map_bar(0, RegInfo::size_of(TABLE)).unwrap().size(),
        128 << 10
    );
    for (index, size, why) in [
        (0, "0x20000", "it is too short"),
        (1, "0x40", "it is not memory, but I/O ports"),
        (2, "0x0", "there is none"),
        (6, "0x0", "there are BARs 0 to 5"),
    ] {
        let error = device
            .map_bar(index, (128 << 10) + 1)
            .unwrap_err()
            .to_string();
        let both =
            format!("BAR {index} has {size} bytes, and 0x20001 bytes of memory are needed: {why}");
        assert!(error.contains(&both), "{error}");
    }
    drop(device);
    let device = open(E1000E);
    let table = device.map_bar(3, 4).unwrap();
    assert_eq!(table.size(), 16 << 10);
    table.read32(table.size() - 4);
}

#[test]
fn config_space_ends_where_it_ends() {
    let device = open(E1000E);
    let names: Vec<_> = device.capabilities().unwrap();
    let names: Vec<_> = names.iter().map(Capability::name).collect();
    for name in ["power management", "MSI", "PCI Express", "MSI-X"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(device.read32(4096 - 4).is_ok());
    assert!(device.read32(4096 - 2).is_err());
    device.check_present().unwrap();
}

#[test]
fn intx_is_masked_as_it_fires_and_pending_fires_when_unmasked() {
    let device = open(E1000);
    let bar = device.map_bar(0, RegInfo::size_of(TABLE)).unwrap();
    let irqs = device.interrupts(IrqKind::Intx, 1).unwrap();
    let irq = &irqs[0];
    assert!(!fires(irq));
    bar.write32(IMS, LSC);
    bar.write32(ICS, LSC);
    assert!(fires(irq));
    // The wire is still up, but masked.
    assert!(!fires(irq));
    irq.unmask().unwrap();
    assert!(fires(irq));
    // Asked for its cause, the device lets the wire go.
    assert_ne!(bar.read32(ICR) & LSC, 0);
    irq.unmask().unwrap();
    assert!(!fires(irq));
    bar.write32(ICS, LSC);
    assert!(fires(irq));
}

#[test]
fn what_a_device_has_not_got_is_not_offered() {
    let device = open(E1000);
    for (kind, count) in [(IrqKind::Intx, 2), (IrqKind::Msi, 1), (IrqKind::MsiX, 1)] {
        let error = device.interrupts(kind, count).unwrap_err();
        assert!(matches!(error, Error::NotOffered { .. }), "{error}");
    }
    assert!(device.interrupts(IrqKind::Intx, 1).is_ok());
}

/// Has the kernel raise an interrupt of kind `index` of the only device that is open here, as if it had
/// come about: `VFIO_DEVICE_SET_IRQS` with no data (linux/vfio.h).
fn raise(index: u32) {
    const SET_IRQS: libc::c_ulong = 0x3b6e;
    const DATA_NONE: u32 = 1 << 0;
    const ACTION_TRIGGER: u32 = 1 << 5;
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let device = files.map(|file| file.unwrap().path()).find(|file| {
        let target = std::fs::read_link(file);
        target.is_ok_and(|target| target.as_os_str() == "anon_inode:[vfio-device]")
    });
    let device = device.expect("a device of VFIO's is open");
    let fd = device.file_name().unwrap().to_str().unwrap();
    let set: [u32; 5] = [20, DATA_NONE | ACTION_TRIGGER, index, 0, 1];
    // SAFETY: takes a `vfio_irq_set` without data, whose size is in it.
    let done = unsafe { libc::ioctl(fd.parse().unwrap(), SET_IRQS, set.as_ptr()) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn an_error_of_pci_express_ends_the_use_of_the_card_and_is_named() {
    // VFIO_PCI_ERR_IRQ_INDEX
    const ERROR: u32 = 3;
    let spec: DeviceSpec = E1000E.parse().unwrap();
    let mut nic = spec.open(&NicConfig::default(), None).unwrap();
    nic.check().unwrap();
    nic.recv(&mut Vec::new(), 1).unwrap();
    raise(ERROR);
    // One who sleeps is woken; who looks is told as soon as it is known.
    let told = loop {
        // A change of the link ends a wait, too.
        if let Err(error) = nic.wait(Duration::from_secs(60)) {
            break error;
        }
    };
    for error in [
        told,
        nic.check().unwrap_err(),
        nic.pair(0).check_running().unwrap_err(),
        nic.recv(&mut Vec::new(), 1).unwrap_err(),
    ] {
        assert!(matches!(error, Error::BusError(_)), "{error}");
        assert!(error.to_string().contains("AER"), "{error}");
    }
    // Opened again it is as good as new.
    drop(nic);
    let mut nic = spec.open(&NicConfig::default(), None).unwrap();
    nic.check().unwrap();
    nic.recv(&mut Vec::new(), 1).unwrap();
}

fn msi(kind: IrqKind, count: usize, prepare: impl Fn(&VfioBar)) -> Vec<bool> {
    let device = open(E1000E);
    device
        .command(Command::BUS_MASTER, Command::empty())
        .unwrap();
    let bar = device.map_bar(0, RegInfo::size_of(TABLE)).unwrap();
    // What a test before this one let through is still there, as nothing resets the card; and of a cause
    // that is told already it sends no second message.
    bar.write32(IMC, !0);
    bar.read32(ICR);
    // Those turned on before are off.
    let intx = device.interrupts(IrqKind::Intx, 1).unwrap();
    let irqs = device.interrupts(kind, count).unwrap();
    prepare(&bar);
    bar.write32(IMS, LSC | OTHER);
    bar.write32(ICS, LSC);
    assert!(!fires(&intx[0]));
    irqs.iter().map(fires).collect()
}

#[test]
fn msi_fires() {
    assert_eq!(msi(IrqKind::Msi, 1, |_| {}), [true]);
}

#[test]
fn msi_x_fires_the_vector_that_the_cause_has() {
    const VALID: u32 = 1 << 3;
    let vector_1 = |bar: &VfioBar| bar.write32(IVAR, (VALID | 1) << 16);
    assert_eq!(msi(IrqKind::MsiX, 3, vector_1), [false, true, false]);
}

#[test]
fn a_device_resets_where_it_can() {
    assert!(!open(E1000).reset().unwrap());

    let device = open(ALONE);
    let bar = device.map_bar(0, RegInfo::size_of(TABLE)).unwrap();
    bar.write32(IMS, LSC);
    assert_eq!(bar.read32(IMS), LSC);
    assert!(device.reset().unwrap());
    assert_eq!(bar.read32(IMS), 0);
}

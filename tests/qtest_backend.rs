//! The qtest backend against QEMU's own e1000, driven by hand: what arrives on the other side of
//! the cable, not what we think of it, is what counts.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command as Process, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::require_qemu;
use pinwire::Error;
use pinwire::backend::{Backend, Peer, Qtest, QtestBar, QtestSpec};
use pinwire::barrier::dma_wmb;
use pinwire::device::DeviceSpec;
use pinwire::dma::{DmaArray, DmaFile, DmaRegion};
use pinwire::irq::{Irq, IrqKind};
use pinwire::mmio::{Mmio, RegInfo, Width};
use pinwire::nic::e1000::desc::{LegacyTx, RxDesc, TxDesc};
use pinwire::nic::e1000::regs::{self, Ctrl, Interrupts, Rctl, Tctl};
use pinwire::nic::virtio_net::VirtioNet;
use pinwire::nic::virtio_net::VirtioNetConfig;
use pinwire::nic::{Frame, Inspect, Nic, NicConfig};
use pinwire::pci::config::{COMMAND, Command, Config};
use pinwire::virtio::Transport;
use pinwire::virtio::pci::PciTransport;

/// Descriptors a ring; QEMU wants a multiple of 8.
const RING: usize = 8;
const BOUND: Duration = Duration::from_secs(20);

/// An e1000 with both rings on, and nothing else.
struct Card {
    bar: QtestBar,
    tx: DmaArray<TxDesc>,
    rx: DmaArray<RxDesc>,
    buffer: DmaRegion,
    tail: usize,
    qtest: Qtest,
}

impl Card {
    fn start(peer: Peer) -> Self {
        let spec = QtestSpec::new("e1000", peer).unwrap();
        Self::up(Qtest::start(&spec).unwrap())
    }

    /// A card whose cable ends in the socket.
    fn wired() -> (Self, UnixDatagram) {
        let (peer, wire) = Peer::socket().unwrap();
        wire.set_read_timeout(Some(BOUND)).unwrap();
        (Self::start(peer), wire)
    }

    fn up(qtest: Qtest) -> Self {
        let bar = qtest.map_bar(0, RegInfo::size_of(regs::TABLE)).unwrap();
        qtest
            .command(Command::BUS_MASTER, Command::empty())
            .unwrap();
        let tx = DmaArray::<TxDesc>::alloc(qtest.dma(), RING).unwrap();
        let rx = DmaArray::<RxDesc>::alloc(qtest.dma(), RING).unwrap();
        let buffer = DmaRegion::alloc(qtest.dma(), 4096).unwrap();
        bar.update(regs::CTRL, |ctrl: Ctrl| ctrl.with_slu(true));
        bar.set(regs::TDBAL, tx.iova(0).0 as u32);
        bar.set(regs::TDBAH, (tx.iova(0).0 >> 32) as u32);
        bar.set(regs::TDLEN, 16 * RING as u32);
        bar.set(regs::TCTL, Tctl::new().with_en(true).with_psp(true));
        bar.set(regs::RDBAL, rx.iova(0).0 as u32);
        bar.set(regs::RDBAH, (rx.iova(0).0 >> 32) as u32);
        bar.set(regs::RDLEN, 16 * RING as u32);
        Self {
            bar,
            tx,
            rx,
            buffer,
            tail: 0,
            qtest,
        }
    }

    /// Sends `len` bytes from `iova` as one frame and waits until the card has taken them.
    fn send(&mut self, iova: u64, len: usize) {
        let word = LegacyTx::new().with_length(len as u16);
        let word = word.with_eop(true).with_ifcs(true).with_rs(true);
        let desc = &self.tx[self.tail];
        desc.write(iova, word.into());
        self.tail = (self.tail + 1) % RING;
        dma_wmb();
        self.bar.set(regs::TDT, self.tail as u32);
        wait("the descriptor to be done", || desc.done());
    }

    fn send_bytes(&mut self, frame: &[u8]) {
        self.buffer.write(0, frame);
        self.send(self.buffer.iova().0, frame.len());
    }

    /// Lets the card receive one frame to `iova`.
    fn listen(&self, iova: u64) {
        self.rx[0].write(iova);
        dma_wmb();
        self.bar.set(regs::RDT, 1);
        let rctl = Rctl::new().with_upe(true).with_bam(true).with_secrc(true);
        self.bar.set(regs::RCTL, rctl.with_en(true));
    }

    fn received(&self) -> Vec<u8> {
        let length = wait_for("a frame", || self.rx[0].poll()).length();
        let mut frame = vec![0; length.into()];
        self.buffer.read(0, &mut frame);
        frame
    }
}

fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(start.elapsed() < BOUND, "no sign of {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn wait(what: &str, mut ready: impl FnMut() -> bool) {
    wait_for(what, || ready().then_some(()));
}

/// A broadcast frame whose bytes tell their place.
fn frame(len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|i| (i * 7 + i / 256) as u8).collect();
    frame[..6].fill(0xff);
    frame
}

fn next_frame(wire: &UnixDatagram) -> Vec<u8> {
    let mut bytes = vec![0; 65536];
    let len = wire.recv(&mut bytes).expect("a frame on the wire");
    bytes.truncate(len);
    bytes
}

/// Has the process ended? (It may be left for somebody to wait for.)
fn ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn a_sent_frame_arrives_byte_for_byte() {
    if !require_qemu() {
        return;
    }
    let (mut card, wire) = Card::wired();
    for len in [60, 61, 512, 1514] {
        card.send_bytes(&frame(len));
        assert_eq!(next_frame(&wire), frame(len), "{len} bytes");
    }
}

#[test]
fn a_received_frame_lands_in_memory_and_interrupts() {
    if !require_qemu() {
        return;
    }
    let (card, wire) = Card::wired();
    let irq = &card.qtest.interrupts(IrqKind::Intx, 1).unwrap()[0];
    card.bar.set(regs::IMS, Interrupts::new().with_rxt0(true));
    card.listen(card.buffer.iova().0);
    assert!(!irq.wait(Duration::ZERO).unwrap(), "nothing came yet");
    wire.send(&frame(1514)).unwrap();
    assert!(irq.wait(BOUND).unwrap());
    assert!(card.bar.get(regs::ICR).rxt0());
    assert_eq!(card.received(), frame(1514));
}

#[test]
fn every_model_of_the_8254x_sends() {
    if !require_qemu() {
        return;
    }
    for model in ["e1000", "e1000-82544gc", "e1000-82545em"] {
        let (peer, wire) = Peer::socket().unwrap();
        wire.set_read_timeout(Some(BOUND)).unwrap();
        let qtest = Qtest::start(&QtestSpec::new(model, peer).unwrap()).unwrap();
        assert_eq!(qtest.name(), format!("qtest:{model}"));
        assert_eq!(qtest.ids().unwrap().0, 0x8086);
        let mut card = Card::up(qtest);
        card.send_bytes(&frame(100));
        assert_eq!(next_frame(&wire), frame(100), "{model}");
    }
}

#[test]
fn every_model_answers_with_its_ids_and_bars() {
    if !require_qemu() {
        return;
    }
    let properties = "mac=52:54:00:00:00:77,packed=on";
    let specs = [
        ("e1000e".to_owned(), (0x8086, 0x10d3), vec![0, 1, 3]),
        (
            format!("virtio-net,{properties}"),
            (0x1af4, 0x1041),
            vec![1, 4],
        ),
        ("edu".to_owned(), (0x1234, 0x11e8), vec![0]),
    ];
    for (spec, ids, bars) in specs {
        let qtest = Qtest::start(&spec.parse().unwrap()).unwrap();
        let model = spec.split(',').next().unwrap();
        assert_eq!(qtest.name(), format!("qtest:{model}"));
        assert_eq!(qtest.ids().unwrap(), ids, "{spec}");
        let there = (0..6).filter(|index| qtest.map_bar(*index, 1).is_ok());
        assert_eq!(there.collect::<Vec<_>>(), bars, "{spec}");
    }
}

/// Of all that a cable of QEMU's can be plugged into, a tap alone has several queues.
#[test]
fn a_tap_gives_virtio_net_several_queue_pairs() {
    if !require_qemu() {
        return;
    }
    // The namespace is this test's own: no root, and no tap is left.
    let tap = "ip tuntap add tap0 mode tap multi_queue && exec \"$@\"";
    let helper = run_helper(None, "virtio-net,net=tap:tap0,queues=4");
    let output = Process::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", tap, "sh"])
        .arg(helper.get_program())
        .args(helper.get_args())
        .envs(
            helper
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .output()
        .unwrap();
    let said = text(output);
    if said.is_empty() {
        common::not_run("it needs a namespace with a tap: unshare --user --net, /dev/net/tun");
        return;
    }
    assert!(said.contains("max_virtqueue_pairs 4"), "{said}");
}

#[test]
fn one_queue_of_virtio_net_is_reset_alone_and_is_back_after_a_restart() {
    if !require_qemu() {
        return;
    }
    for packed in ["off", "on"] {
        let (peer, wire) = Peer::socket().unwrap();
        wire.set_read_timeout(Some(BOUND)).unwrap();
        let spec = QtestSpec::new("virtio-net", peer).unwrap();
        let qtest = Qtest::start(&spec.with("packed", packed).unwrap()).unwrap();
        let transport = PciTransport::open(qtest).unwrap();
        let mut nic = VirtioNet::start(transport, &NicConfig::default()).unwrap();
        let on = |nic: &VirtioNet<_>| -> Vec<usize> {
            let registers = nic.registers().into_iter();
            let enable = registers.filter(|view| view.info.name == "QUEUE_ENABLE");
            enable.map(|view| view.index).collect()
        };
        assert_eq!(on(&nic), [0, 1, 2]);
        nic.transport().reset_queue(1).unwrap();
        assert_eq!(on(&nic), [0, 2], "packed={packed}");
        // The other goes on.
        wire.send(&frame(100)).unwrap();
        let mut got = Vec::new();
        wait("a frame", || nic.recv(&mut got, 1).unwrap() == 1);
        assert_eq!(got[0].frame.to_vec(), frame(100));
        nic.restart().unwrap();
        assert_eq!(on(&nic), [0, 1, 2]);
    }
}

/// QEMU tells the network by itself, and so does a driver that it asks.
#[test]
fn a_virtio_net_card_that_qemu_asks_to_be_announced_is_and_the_request_is_gone() {
    if !require_qemu() {
        return;
    }
    const GUEST_ANNOUNCE: u64 = 1 << 21;
    for (packed, refuse_features, expected) in
        [("off", 0, 2), ("on", 0, 2), ("off", GUEST_ANNOUNCE, 1)]
    {
        let (peer, wire) = Peer::socket().unwrap();
        wire.set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let spec = QtestSpec::new("virtio-net", peer).unwrap();
        let qtest = Qtest::start(&spec.with("packed", packed).unwrap()).unwrap();
        let control = qtest.control();
        let config = NicConfig::default()
            .driver(VirtioNetConfig::default().refuse_features(refuse_features));
        let mut nic = pinwire::open::start(qtest, &config).unwrap();
        control.announce().unwrap();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(1) {
            nic.wait(Duration::from_millis(100)).unwrap();
        }
        let mut frames = Vec::new();
        let mut bytes = [0; 2048];
        while let Ok(len) = wire.recv(&mut bytes) {
            frames.push(bytes[..len].to_vec());
        }
        assert_eq!(frames.len(), expected, "packed={packed}");
        // Without padding, a reverse ARP request has 42 bytes.
        let same = |frame: &Vec<u8>| frame[..42] == frames[0][..42];
        assert!(frames.iter().all(same), "as QEMU's: {frames:02x?}");
        assert_eq!(frames[0][6..12], nic.mac().0);
        let registers = nic.registers();
        let status = registers.iter().find(|view| view.info.name == "STATUS");
        assert_eq!(status.unwrap().value, 1, "link, and nothing asked for");
    }
}

#[test]
fn intx_masks_itself_and_fires_again_while_the_line_is_high() {
    if !require_qemu() {
        return;
    }
    let card = Card::start(Peer::None);
    let link = Interrupts::new().with_lsc(true);
    let fires = |irq: &pinwire::irq::Irq| irq.wait(Duration::from_millis(300)).unwrap();
    let irqs = card.qtest.interrupts(IrqKind::Intx, 1).unwrap();
    let irq = &irqs[0];
    card.bar.get(regs::ICR);
    card.bar.set(regs::IMS, link);
    card.bar.set(regs::ICS, link);
    assert!(fires(irq));
    // Masked: neither the level that is still high nor another edge makes it fire.
    assert!(!fires(irq));
    assert!(card.bar.get(regs::ICR).lsc());
    card.bar.set(regs::ICS, link);
    card.bar.get(regs::STATUS);
    assert!(!fires(irq));
    // Unmasked while it is high: fires at once, every time.
    irq.unmask().unwrap();
    assert!(fires(irq));
    irq.unmask().unwrap();
    assert!(fires(irq));
    // Asked for its cause first, it is low; no write that is still on its way makes it look high.
    card.bar.get(regs::ICR);
    irq.unmask().unwrap();
    assert!(!fires(irq));
    card.bar.set(regs::ICS, link);
    assert!(fires(irq));
    for _ in 0..100 {
        card.bar.set(regs::MTA.index(0), 0);
    }
    card.bar.set(regs::IMC, link);
    irq.unmask().unwrap();
    assert!(!fires(irq), "IMC was posted before the unmasking");

    // A line that is high fires as it is connected; the former eventfd is off.
    card.bar.set(regs::IMS, link);
    assert!(fires(irq));
    let again = card.qtest.interrupts(IrqKind::Intx, 1).unwrap();
    assert!(fires(&again[0]));
    irq.unmask().unwrap();
    assert!(!fires(irq) && !fires(&again[0]));
    card.qtest.interrupts(IrqKind::Intx, 0).unwrap();
    again[0].unmask().unwrap();
    assert!(!fires(&again[0]));
}

#[test]
fn intx_is_off_unless_it_was_asked_for() {
    if !require_qemu() {
        return;
    }
    const INTX_DISABLE: u16 = 1 << 10;
    let is_off = |qtest: &Qtest| qtest.read16(COMMAND).unwrap() & INTX_DISABLE != 0;
    for model in ["e1000", "e1000e", "virtio-net", "e1000e,hotplug=on"] {
        let qtest = Qtest::start(&model.parse().unwrap()).unwrap();
        assert!(is_off(&qtest), "{model}: from the beginning");
        let _irqs = qtest.interrupts(IrqKind::Intx, 1).unwrap();
        assert!(!is_off(&qtest), "{model}: asked for");
        qtest
            .command(Command::BUS_MASTER, Command::empty())
            .unwrap();
        assert!(!is_off(&qtest), "{model}: a driver changes other bits");
        // Refused or not.
        let _irqs = qtest.interrupts(IrqKind::MsiX, 1);
        assert!(is_off(&qtest), "{model}: another kind");
        let _irqs = qtest.interrupts(IrqKind::Intx, 1).unwrap();
        let _irqs = qtest.interrupts(IrqKind::Intx, 0).unwrap();
        assert!(is_off(&qtest), "{model}: none");
    }
}

/// The first and the fifth device of a QEMU, in slots 3 and 7, are on one line.
#[test]
fn a_polled_card_leaves_the_line_to_its_neighbour() {
    if !require_qemu() {
        return;
    }
    for model in ["virtio-net", "e1000", "e1000e"] {
        let polled = format!("{model},net=hub:0");
        let specs = [&polled, "e1000", "e1000", "e1000", "e1000"];
        let specs: Vec<QtestSpec> = specs.iter().map(|spec| spec.parse().unwrap()).collect();
        let mut all = Qtest::start_all(&specs).unwrap();
        let neighbour = all.pop().unwrap();
        let polled = all.remove(0);
        let control = polled.control();
        let irqs = neighbour.interrupts(IrqKind::Intx, 1).unwrap();
        let config = NicConfig::default().waiting(pinwire::nic::Waiting::Poll);
        let card = pinwire::open::start(polled, &config).unwrap();
        for up in [false, true] {
            // A change of its configuration, which virtio tells whether anybody waits or not.
            control.set_link(up).unwrap();
            // What the line did is told before the answer to this.
            neighbour.check_present().unwrap();
            let heard = irqs[0].wait(Duration::ZERO).unwrap();
            assert!(!heard, "{model}: link up: {up}");
        }
        // It would have heard.
        let bar = neighbour.map_bar(0, RegInfo::size_of(regs::TABLE)).unwrap();
        bar.write32(regs::IMS.offset(), 1 << 2);
        bar.write32(regs::ICS.offset(), 1 << 2);
        assert!(irqs[0].wait(BOUND).unwrap(), "{model}");
        drop(card);
    }
}

/// Which vector a cause of the 82574's has (data sheet, §10.2.4.9), and what its queues do not cause.
const IVAR: usize = 0x00e4;
const OTHER: u32 = 1 << 24;

fn e1000e() -> (Qtest, QtestBar) {
    let qtest = Qtest::start(&"e1000e".parse().unwrap()).unwrap();
    qtest
        .command(Command::BUS_MASTER, Command::empty())
        .unwrap();
    let bar = qtest.map_bar(0, RegInfo::size_of(regs::TABLE)).unwrap();
    (qtest, bar)
}

/// Makes the 82574 say that its link has changed.
fn cause(bar: &QtestBar) {
    bar.write32(regs::IMS.offset(), 1 << 2 | OTHER);
    bar.write32(regs::ICS.offset(), 1 << 2);
}

/// Clears the causes: with MSI-X on, the 82574 does not as they are read.
fn answered(bar: &QtestBar) {
    bar.write32(regs::ICR.offset(), u32::MAX);
}

/// Takes the messages that these still have. For a cause that is not cleared within the interval of EITR (data sheet,
/// §10.2.4.4) QEMU's newer models send another one, of the same vector.
fn take_repeated(irqs: &[Irq]) {
    for irq in irqs {
        while irq.wait(Duration::from_millis(50)).unwrap() {}
    }
}

/// These fire, and the others do not.
fn assert_fire(irqs: &[Irq], expected: &[bool], when: &str) {
    for (irq, _) in irqs.iter().zip(expected).filter(|(_, fires)| **fires) {
        assert!(irq.wait(Duration::from_secs(10)).unwrap(), "{when}");
    }
    let quiet = irqs.iter().zip(expected).filter(|(_, fires)| !**fires);
    for (irq, _) in quiet {
        assert!(!irq.wait(Duration::from_millis(100)).unwrap(), "{when}");
    }
}

#[test]
fn msi_fires_instead_of_intx() {
    if !require_qemu() {
        return;
    }
    let (qtest, bar) = e1000e();
    let intx = qtest.interrupts(IrqKind::Intx, 1).unwrap();
    let msi = qtest.interrupts(IrqKind::Msi, 1).unwrap();
    for irq in intx.iter().chain(&msi) {
        use std::os::fd::{AsFd, AsRawFd};
        let fd = irq.as_fd().as_raw_fd();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        assert_ne!(
            flags & 0o2_000_000,
            0,
            "no program that is started inherits it"
        );
    }
    for _ in 0..3 {
        cause(&bar);
        assert_fire(&msi, &[true], "a cause");
        bar.read32(regs::ICR.offset());
        take_repeated(&msi);
    }
    assert_fire(&intx, &[false], "a message goes instead");
    qtest.interrupts(IrqKind::Msi, 0).unwrap();
    cause(&bar);
    assert_fire(&msi, &[false], "it is off");
    let error = qtest.interrupts(IrqKind::Msi, 2).unwrap_err().to_string();
    assert!(error.contains("2 Msi interrupts: it has 1"), "{error}");
}

#[test]
fn msi_x_fires_the_vector_that_the_cause_has_and_others_are_masked() {
    if !require_qemu() {
        return;
    }
    let (qtest, bar) = e1000e();
    let route = |vector: u32| bar.write32(IVAR, (1 << 3 | vector) << 16);
    let irqs = qtest.interrupts(IrqKind::MsiX, 3).unwrap();
    for vector in [1, 2, 0, 2, 4] {
        route(vector as u32);
        cause(&bar);
        let expected: Vec<bool> = (0..3).map(|irq| irq == vector).collect();
        assert_fire(&irqs, &expected, &format!("vector {vector}"));
        answered(&bar);
        take_repeated(&irqs);
    }
    // Those turned on before are off, and nobody's vector is lost: 32 for all.
    for _ in 0..10 {
        let again = qtest.interrupts(IrqKind::MsiX, 5).unwrap();
        route(4);
        cause(&bar);
        assert_fire(&again[3..], &[false, true], "once more");
        answered(&bar);
        take_repeated(&again[4..]);
    }
    assert_fire(&irqs, &[false; 3], "they are off");
    let error = qtest.interrupts(IrqKind::MsiX, 6).unwrap_err().to_string();
    assert!(error.contains("6 MsiX interrupts: it has 5"), "{error}");
}

#[test]
fn no_message_of_many_is_lost() {
    if !require_qemu() {
        return;
    }
    let (qtest, bar) = e1000e();
    let irqs = qtest.interrupts(IrqKind::MsiX, 1).unwrap();
    bar.write32(IVAR, (1 << 3) << 16);
    for round in 0..500 {
        cause(&bar);
        assert!(irqs[0].wait(BOUND).unwrap(), "round {round}");
        answered(&bar);
    }
}

#[test]
fn a_change_of_virtios_configuration_is_a_message() {
    if !require_qemu() {
        return;
    }
    let spec = "virtio-net,net=hub:0".parse().unwrap();
    let qtest = Qtest::start(&spec).unwrap();
    qtest
        .command(Command::BUS_MASTER, Command::empty())
        .unwrap();
    let irqs = qtest.interrupts(IrqKind::MsiX, 3).unwrap();
    // The common configuration is where QEMU's BAR 4 begins (virtio 1.2, §4.1.4.3).
    let common = qtest.map_bar(4, 0x18).unwrap();
    let (config_vector, status) = (0x10, 0x14);
    common.write(config_vector, Width::Two, 2);
    // ACKNOWLEDGE, DRIVER, and as good as it gets: DRIVER_OK.
    common.write(status, Width::One, 1 | 2 | 4);
    for up in [false, true] {
        qtest.control().set_link(up).unwrap();
        assert_fire(&irqs, &[false, false, true], &format!("link up: {up}"));
        // VIRTIO_NET_S_LINK_UP of the device's configuration (§5.1.4).
        assert_eq!(common.read(0x2006, Width::Two), u64::from(up));
    }
}

#[test]
fn what_qemu_translates_has_little_room() {
    if !require_qemu() {
        return;
    }
    let qtest = Qtest::start(&"e1000".parse().unwrap()).unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", qtest.pid())).unwrap();
    let executable = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        // TCG's buffer belongs to no file.
        (rest.starts_with("rwx") && rest.ends_with(' ')).then(|| address(to) - address(from))
    });
    let room = executable
        .max()
        .unwrap_or_else(|| panic!("no buffer of TCG's:\n{maps}"));
    assert!(room <= 8 << 20, "TCG reserves {room} bytes");
}

#[test]
fn a_dead_qemu_wakes_who_waits_for_a_message() {
    if !require_qemu() {
        return;
    }
    let (qtest, _bar) = e1000e();
    let irqs = qtest.interrupts(IrqKind::MsiX, 2).unwrap();
    let pid = qtest.pid();
    let killed = Process::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.unwrap().success());
    for irq in &irqs {
        assert!(irq.wait(BOUND).unwrap());
    }
    let late = qtest.interrupts(IrqKind::MsiX, 1);
    assert!(late.is_err(), "it has none any more");
}

#[test]
fn interrupts_and_bars_that_are_not_there_are_refused() {
    if !require_qemu() {
        return;
    }
    let qtest = Qtest::start(&"e1000".parse().unwrap()).unwrap();
    for (kind, count, has) in [
        (IrqKind::Intx, 2, 1),
        (IrqKind::Msi, 1, 0),
        (IrqKind::MsiX, 3, 0),
    ] {
        let error = qtest.interrupts(kind, count).unwrap_err().to_string();
        let why = format!("{count} {kind:?} interrupts: it has {has}");
        assert!(error.contains(&why), "{error}");
    }
    for (index, least, says) in [
        (
            0,
            (128 << 10) + 1,
            "BAR 0 has 0x20000 bytes, and 0x20001 bytes of memory are needed: it is too short",
        ),
        (
            1,
            4,
            "BAR 1 has 0x40 bytes, and 0x4 bytes of memory are needed: it is not memory, but I/O ports",
        ),
        (
            2,
            4,
            "BAR 2 has 0x0 bytes, and 0x4 bytes of memory are needed: there is none",
        ),
        (9, 4, "there are BARs 0 to 5"),
    ] {
        let error = qtest.map_bar(index, least).err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(
        qtest
            .map_bar(0, RegInfo::size_of(regs::TABLE))
            .unwrap()
            .size(),
        128 << 10
    );
    assert!(!qtest.reset().unwrap());
    assert!(!qtest.has_iommu());
    assert!(qtest.read(255, &mut [0; 2]).is_err());
    qtest.check_present().unwrap();
}

#[test]
fn a_dead_qemu_is_a_device_that_is_gone() {
    if !require_qemu() {
        return;
    }
    let (mut card, _wire) = Card::wired();
    let irqs = card.qtest.interrupts(IrqKind::Intx, 1).unwrap();
    let pid = card.qtest.pid();
    let killed = Process::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.unwrap().success());
    assert!(irqs[0].wait(BOUND).unwrap(), "who waits must be woken");
    for _ in 0..1000 {
        card.bar.write32(0x3818, 1);
    }
    assert_eq!(card.bar.read32(8), u32::MAX);
    irqs[0].unmask().unwrap();
    assert_eq!(card.qtest.ids().unwrap(), (0xffff, 0xffff));
    assert!(matches!(
        card.qtest.check_present(),
        Err(Error::DeviceGone(name)) if name == "qtest:e1000"
    ));
    let file = file_of(&frame(100));
    let error = DmaFile::map(card.qtest.dma(), &file, 1).unwrap_err();
    assert!(error.to_string().contains("QEMU"), "{error}");
    // Its memory is still ours.
    card.buffer.write(0, b"here");
}

#[test]
fn no_process_is_left_and_what_was_handed_out_is_gone() {
    if !require_qemu() {
        return;
    }
    let qtest = Qtest::start(&"e1000".parse().unwrap()).unwrap();
    let (pid, bar) = (
        qtest.pid(),
        qtest.map_bar(0, RegInfo::size_of(regs::TABLE)).unwrap(),
    );
    let mut region = DmaRegion::alloc(qtest.dma(), 4096).unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    drop(qtest);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(bar.read32(8), u32::MAX);
    region.write(0, b"still memory");
}

#[test]
fn memory_that_is_used_up_is_an_error_and_comes_back_zeroed() {
    if !require_qemu() {
        return;
    }
    let qtest = Qtest::start(&"e1000".parse().unwrap()).unwrap();
    let space = qtest.dma();
    let alloc = |len| DmaRegion::alloc(space, len);
    for len in [1 << 40, usize::MAX] {
        alloc(len).unwrap_err();
    }
    let mut regions: Vec<DmaRegion> = Vec::new();
    let error = loop {
        match alloc(16 << 20) {
            Ok(mut region) => {
                region.write(region.size() - 4, b"used");
                regions.push(region);
            }
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("qtest:e1000: no 16777216 bytes"), "{error}");
    assert_eq!(regions.len(), 15, "of 256 MiB without the first");
    drop(regions);
    let region = alloc(200 << 20).unwrap();
    let mut bytes = vec![1; region.size()];
    region.read(0, &mut bytes);
    assert!(bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn the_device_reaches_all_of_its_memory() {
    if !require_qemu() {
        return;
    }
    let (mut card, wire) = Card::wired();
    let all = DmaRegion::alloc(card.qtest.dma(), 255 << 20);
    assert!(all.is_err(), "the rings have some");
    let mut most = DmaRegion::alloc(card.qtest.dma(), 254 << 20).unwrap();
    for offset in [0, 100 << 20, most.size() - 100] {
        most.write(offset, &frame(100));
        card.send(most.iova().0 + offset as u64, 100);
        assert_eq!(next_frame(&wire), frame(100), "at {offset:#x}");
    }
}

#[test]
fn two_cards_talk_over_udp_and_a_capture_sees_it() {
    if !require_qemu() {
        return;
    }
    let free = || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    };
    let (a, b) = (free(), free());
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("a,b.pcap");
    let spec = format!("e1000,net=udp:{a}:{b},pcap={}", capture.display());
    let mut left = Card::up(Qtest::start(&spec.parse().unwrap()).unwrap());
    let spec = format!("e1000-82545em,net=udp:{b}:{a}");
    let right = Card::up(Qtest::start(&spec.parse().unwrap()).unwrap());
    right.listen(right.buffer.iova().0);
    left.send_bytes(&frame(777));
    assert_eq!(right.received(), frame(777));
    drop(left);
    let capture = std::fs::read(capture).unwrap();
    assert!(capture.ends_with(&frame(777)), "{} bytes", capture.len());
}

/// Cards of one QEMU.
fn cards<const N: usize>(specs: [&str; N]) -> [Card; N] {
    let specs = specs.map(|spec| spec.parse::<QtestSpec>().unwrap());
    let all = Qtest::start_all(&specs).unwrap();
    let cards: Vec<_> = all.into_iter().map(Card::up).collect();
    cards.try_into().ok().unwrap()
}

#[test]
fn cards_of_one_qemu_meet_on_a_hub_and_reach_the_same_memory() {
    if !require_qemu() {
        return;
    }
    let [mut left, right] = cards(["e1000,net=hub:0", "e1000-82545em,net=hub:0"]);
    let names = (left.qtest.name(), right.qtest.name());
    assert_eq!(names, ("qtest:e1000#1", "qtest:e1000-82545em#2"));
    assert!(Arc::ptr_eq(left.qtest.dma(), right.qtest.dma()));
    right.listen(right.buffer.iova().0);
    left.send_bytes(&frame(500));
    assert_eq!(right.received(), frame(500));
    // What one card wrote, the other reads: the frame never passes through our hands.
    left.listen(left.buffer.iova().0);
    let (mut right, from) = (right, left.buffer.iova().0 + 2048);
    left.buffer.write(2048, &frame(300));
    right.send(from, 300);
    assert_eq!(left.received(), frame(300));
}

#[test]
fn each_card_of_one_qemu_has_its_own_line_and_memory_window() {
    if !require_qemu() {
        return;
    }
    let cards = cards(["e1000"; 5]);
    let irqs: Vec<Irq> = cards
        .iter()
        .map(|card| card.qtest.interrupts(IrqKind::Intx, 1).unwrap().remove(0))
        .collect();
    let link = Interrupts::new().with_lsc(true);
    for (number, card) in cards.iter().enumerate() {
        card.bar.set(regs::IMS, link);
        card.bar.set(regs::ICS, link);
        // Slots 3 and 7 share a wire, as four wires for all are what PCI has.
        let expected: Vec<bool> = (0..5).map(|irq| irq % 4 == number % 4).collect();
        assert_fire(&irqs, &expected, &format!("card {number}"));
        card.bar.get(regs::ICR);
        for irq in &irqs {
            irq.unmask().unwrap();
        }
        assert_fire(&irqs, &[false; 5], &format!("card {number} is quiet"));
    }
}

#[test]
fn a_card_that_is_pulled_out_in_traffic_is_gone_and_its_neighbour_is_not() {
    if !require_qemu() {
        return;
    }
    let [mut pulled, mut stays] = cards(["e1000,net=hub:0,hotplug=on", "e1000,net=hub:0"]);
    let irqs = pulled.qtest.interrupts(IrqKind::Intx, 1).unwrap();
    pulled.bar.set(regs::IMS, Interrupts::new().with_rxt0(true));
    pulled.listen(pulled.buffer.iova().0);
    stays.send_bytes(&frame(200));
    assert_eq!(
        pulled.received(),
        frame(200),
        "below a port it works as elsewhere"
    );
    assert!(irqs[0].wait(BOUND).unwrap(), "its interrupt, too");
    for _ in 0..20 {
        pulled.send_bytes(&frame(100));
    }
    let word = LegacyTx::new().with_length(1514).with_eop(true);
    for desc in pulled.tx.iter() {
        desc.write(pulled.buffer.iova().0, word.into());
    }
    pulled
        .bar
        .set(regs::TDT, (pulled.tail + 5) as u32 % RING as u32);
    let control = pulled.qtest.control();
    control.unplug().unwrap();
    assert_eq!(pulled.bar.read32(8), u32::MAX);
    assert_eq!(pulled.qtest.ids().unwrap(), (0xffff, 0xffff));
    let gone = |done: Result<(), Error>| matches!(done, Err(Error::DeviceGone(name)) if name == "qtest:e1000#1");
    assert!(gone(pulled.qtest.check_present()));
    assert!(gone(control.unplug()) && gone(control.set_link(true)));
    drop(pulled);
    stays.qtest.check_present().unwrap();
    stays.send_bytes(&frame(100));
    let error = stays.qtest.control().unplug().unwrap_err().to_string();
    assert!(error.contains("hotplug=on"), "{error}");
}

#[test]
fn every_model_can_be_pulled_out() {
    if !require_qemu() {
        return;
    }
    for model in QtestSpec::SUPPORTED {
        let spec = format!("{model},hotplug=on");
        let qtest = Qtest::start(&spec.parse().unwrap()).unwrap();
        let control = qtest.control();
        qtest.check_present().unwrap();
        control.unplug().unwrap();
        qtest.check_present().unwrap_err();
        drop(qtest);
        assert!(
            matches!(control.unplug(), Err(Error::DeviceGone(_))),
            "{model}"
        );
    }
}

#[test]
fn a_link_goes_down_and_up() {
    if !require_qemu() {
        return;
    }
    let (mut card, wire) = Card::wired();
    let control = card.qtest.control();
    control.set_link(false).unwrap();
    wait("no link", || !card.bar.get(regs::STATUS).lu());
    control.set_link(true).unwrap();
    wait("a link", || card.bar.get(regs::STATUS).lu());
    card.send_bytes(&frame(60));
    assert_eq!(next_frame(&wire), frame(60));
    let edu = Qtest::start(&"edu".parse().unwrap()).unwrap();
    let error = edu.control().set_link(true).unwrap_err().to_string();
    assert!(error.contains("qtest:edu"), "{error}");
}

#[test]
fn qemu_ends_with_the_last_of_its_cards() {
    if !require_qemu() {
        return;
    }
    let [left, right] = cards(["e1000"; 2]);
    let (pid, bar) = (left.qtest.pid(), left.bar.clone());
    drop(left);
    assert!(!ended(pid));
    assert_ne!(bar.read32(8), u32::MAX);
    right.qtest.check_present().unwrap();
    drop(right);
    assert!(ended(pid));
    assert_eq!(bar.read32(8), u32::MAX);
    let none: [QtestSpec; 0] = [];
    let error = Qtest::start_all(&none).unwrap_err().to_string();
    assert!(error.contains("0 devices in one QEMU"), "{error}");
}

#[test]
fn vectors_are_shared_out_among_the_cards_of_one_qemu() {
    if !require_qemu() {
        return;
    }
    let specs = ["virtio-net,vectors=20"; 2].map(|spec| spec.parse::<QtestSpec>().unwrap());
    let all = Qtest::start_all(&specs).unwrap();
    let first = all[0].interrupts(IrqKind::MsiX, 20).unwrap();
    let error = all[1]
        .interrupts(IrqKind::MsiX, 13)
        .unwrap_err()
        .to_string();
    assert!(error.contains("32 for all devices of one QEMU"), "{error}");
    all[1].interrupts(IrqKind::MsiX, 12).unwrap();
    drop(first);
    all[0].interrupts(IrqKind::MsiX, 0).unwrap();
    all[1].interrupts(IrqKind::MsiX, 20).unwrap();
}

#[test]
fn started_cards_of_one_qemu_share_their_memory() {
    if !require_qemu() {
        return;
    }
    let specs = ["qtest:e1000,net=hub:0"; 2].map(|spec| spec.parse().unwrap());
    let nics = DeviceSpec::open_all(&specs, &NicConfig::default(), None).unwrap();
    assert!(Arc::ptr_eq(nics[0].dma(), nics[1].dma()));
}

#[test]
fn a_capture_without_a_peer_sees_what_is_sent() {
    if !require_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for net in ["", ",net=none", ",net=hub:3"] {
        let capture = folder.path().join("out.pcap");
        let spec = format!("e1000{net},pcap={}", capture.display());
        let mut card = Card::up(Qtest::start(&spec.parse().unwrap()).unwrap());
        card.send_bytes(&frame(333));
        drop(card);
        let capture = std::fs::read(capture).unwrap();
        assert!(capture.ends_with(&frame(333)), "{net}");
    }
}

#[test]
fn qemus_user_network_answers() {
    if !require_qemu() {
        return;
    }
    let mut card = Card::start(Peer::User);
    card.listen(card.buffer.iova().0);
    // Who has 10.0.2.2? (ARP, RFC 826) Tell 10.0.2.15.
    let mut request = vec![0xff; 6];
    request.extend([0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x08, 0x06]);
    request.extend([0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    request.extend([10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
    request.resize(60, 0);
    let mut out = DmaRegion::alloc(card.qtest.dma(), 4096).unwrap();
    out.write(0, &request);
    card.send(out.iova().0, 60);
    let answer = card.received();
    assert_eq!(answer[12..14], [0x08, 0x06], "ARP");
    assert_eq!(answer[20..22], [0, 2], "a reply");
    assert_eq!(answer[28..32], [10, 0, 2, 2], "from whom we asked for");
}

#[test]
fn qemu_outlives_the_thread_that_started_it() {
    if !require_qemu() {
        return;
    }
    let start = || Qtest::start(&"e1000".parse().unwrap()).unwrap();
    let qtest = std::thread::spawn(start).join().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    qtest.check_present().unwrap();
    assert!(!ended(qtest.pid()));
}

// Files: the card reads the page cache.

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn a_file_is_sent_from_its_page_cache() {
    if !require_qemu() {
        return;
    }
    let (mut card, wire) = Card::wired();
    for len in [60, 4096, 4097, 10_000] {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 11 + i / 256) as u8).collect();
        let file = file_of(&bytes);
        let mapped = DmaFile::map(card.qtest.dma(), &file, 4).unwrap();
        // From here on a read by this process would end it.
        mapped.deny_cpu().unwrap();
        for (offset, size) in [(0, len.min(1514)), (len - 60, 60)] {
            let slice = mapped.slice(offset as u64, size).unwrap();
            card.send(slice.iova().0, size);
            let sent = next_frame(&wire);
            assert_eq!(sent, bytes[offset..offset + size], "{len} bytes, {offset}");
        }
        // What is written to the file is in the next frame, on its last page, too.
        file.write_all_at(b"changed", len as u64 - 30).unwrap();
        let slice = mapped.slice(len as u64 - 60, 60).unwrap();
        card.send(slice.iova().0, 60);
        assert_eq!(next_frame(&wire)[30..37], *b"changed", "{len} bytes");
    }
}

#[test]
fn a_device_of_32_address_lines_has_memory_and_is_told_why_it_has_no_file() {
    if !require_qemu() {
        return;
    }
    let card = Card::wired().0;
    let file = file_of(&[1; 5000]);
    let mapped = DmaFile::map(card.qtest.dma(), &file, 1).unwrap();
    // The file lies above 4 GiB.
    let error = card.qtest.limit_dma(32).unwrap_err();
    assert!(matches!(error, Error::OutOfReach { .. }), "{error}");
    drop(mapped);
    card.qtest.limit_dma(32).unwrap();
    let error = DmaFile::map(card.qtest.dma(), &file, 1).map(drop);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("cannot do this: map a file"), "{error}");
    assert!(error.contains("use the VM"), "{error}");
    // Of 24, the RAM has some to give.
    card.qtest.limit_dma(24).unwrap();
    let memory = DmaRegion::alloc(card.qtest.dma(), 8 << 20).unwrap();
    assert!(memory.iova().0 + (8 << 20) <= 1 << 24);
    let error = DmaRegion::alloc(card.qtest.dma(), 12 << 20).unwrap_err();
    assert!(error.to_string().contains("12582912 bytes"), "{error}");
}

#[test]
fn a_file_of_one_byte_and_an_empty_one() {
    if !require_qemu() {
        return;
    }
    let (mut card, wire) = Card::wired();
    let file = file_of(b"x");
    let mapped = DmaFile::map(card.qtest.dma(), &file, 1).unwrap();
    let slice = mapped.slice(0, 1).unwrap();
    // Header from memory, payload from the file.
    let word = LegacyTx::new().with_ifcs(true).with_rs(true);
    card.buffer.write(0, &frame(60));
    let buffer = card.buffer.iova().0;
    card.tx[0].write(buffer, word.with_length(60).into());
    let last = word.with_eop(true).with_length(1);
    card.tx[1].write(slice.iova().0, last.into());
    card.tail = 2;
    dma_wmb();
    card.bar.set(regs::TDT, 2);
    let sent = next_frame(&wire);
    assert_eq!((&sent[..60], &sent[60..]), (&frame(60)[..], &b"x"[..]));

    let empty = DmaFile::map(card.qtest.dma(), &file_of(b""), 1).unwrap();
    assert!(empty.mapping().is_none());
}

#[test]
fn a_gigabyte_is_mapped_as_it_is() {
    if !require_qemu() {
        return;
    }
    let (mut card, wire) = Card::wired();
    let file = file_of(b"");
    let len = (1 << 30) + 1000;
    file.set_len(len).unwrap();
    file.write_all_at(&frame(500), len - 500).unwrap();
    let mapped = DmaFile::map(card.qtest.dma(), &file, 1).unwrap();
    let slice = mapped.slice(len - 500, 500).unwrap();
    card.send(slice.iova().0, 500);
    assert_eq!(next_frame(&wire), frame(500));
}

#[test]
fn files_come_and_go_and_too_many_at_once_are_refused() {
    if !require_qemu() {
        return;
    }
    let (mut card, wire) = Card::wired();
    let file = file_of(&frame(100));
    let map = |card: &Card| DmaFile::map(card.qtest.dma(), &file, 1);
    let mut mapped = Vec::new();
    let error = loop {
        match map(&card) {
            Ok(file) => mapped.push(file),
            Err(error) => break error.to_string(),
        }
    };
    assert_eq!(mapped.len(), 64);
    assert!(error.contains("64 files mapped"), "{error}");
    let gone = mapped.remove(20);
    let old = gone.slice(0, 100).unwrap().iova().0;
    card.send(old, 100);
    assert_eq!(next_frame(&wire), frame(100));
    // Unmapped when the last slice is back: from there on the device finds nothing.
    drop(gone);
    card.send(old, 100);
    assert_eq!(next_frame(&wire), [0; 100]);
    for _ in 0..100 {
        let file = map(&card).unwrap();
        let slice = file.slice(0, 100).unwrap();
        card.send(slice.iova().0, 100);
        assert_eq!(next_frame(&wire), frame(100));
    }
}

#[test]
fn the_device_cannot_write_a_file() {
    if !require_qemu() {
        return;
    }
    let (card, wire) = Card::wired();
    let bytes = vec![b'.'; 5000];
    let file = file_of(&bytes);
    let mapped = DmaFile::map(card.qtest.dma(), &file, 1).unwrap();
    let slice = mapped.slice(0, 2048).unwrap();
    card.listen(slice.iova().0);
    wire.send(&frame(1000)).unwrap();
    assert_eq!(wait_for("a frame", || card.rx[0].poll()).length(), 1000);
    let mut now = vec![0; 5000];
    file.read_exact_at(&mut now, 0).unwrap();
    assert_eq!(now, bytes);
    // The frame that a slice begins has no bytes for the processor.
    assert_eq!(Frame::from(slice).to_vec(), [0; 2048]);
}

#[test]
fn a_file_that_is_truncated_takes_the_device_along_and_nobody_hangs() {
    if !require_qemu() {
        return;
    }
    let (mut card, wire) = Card::wired();
    let file = file_of(&vec![b'.'; 20_000]);
    let mapped = DmaFile::map(card.qtest.dma(), &file, 1).unwrap();
    let slice = mapped.slice(16_384, 1000).unwrap();
    card.send(slice.iova().0, 1000);
    assert_eq!(next_frame(&wire), [b'.'; 1000]);
    file.set_len(100).unwrap();
    assert_eq!(mapped.len_now().unwrap(), 100);
    card.tx[1].write(
        slice.iova().0,
        LegacyTx::new().with_length(60).with_eop(true).into(),
    );
    card.bar.set(regs::TDT, 2);
    assert_eq!(card.bar.read32(8), u32::MAX);
    card.qtest.check_present().unwrap_err();
}

// What needs a process of its own: these tests run this program again, as the helper below.

#[test]
#[ignore = "the helper of other tests"]
fn helper() {
    let spec: QtestSpec = std::env::var("HELPER_SPEC").unwrap().parse().unwrap();
    match Qtest::start(&spec) {
        Ok(qtest) if spec.model == "virtio-net" => {
            // `max_virtqueue_pairs` of the device's configuration (virtio 1.2, §5.1.4), which is 8 KiB
            // into QEMU's BAR 4.
            let pairs = qtest.map_bar(4, 0x200a).unwrap().read(0x2008, Width::Two);
            println!("max_virtqueue_pairs {pairs}");
        }
        Ok(qtest) => {
            println!("started {}", qtest.pid());
            std::thread::sleep(Duration::from_secs(600));
        }
        Err(error) => println!("refused {error}"),
    }
}

fn run_helper(qemu: Option<&Path>, spec: &str) -> Process {
    let mut helper = Process::new(std::env::current_exe().unwrap());
    helper.args(["--exact", "helper", "--ignored", "--nocapture"]);
    helper.env("HELPER_SPEC", spec);
    if let Some(qemu) = qemu {
        helper.env("PINWIRE_QEMU", qemu);
    }
    helper.stdout(Stdio::piped());
    helper
}

fn text(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_killed_program_leaves_no_qemu() {
    if !require_qemu() {
        return;
    }
    let mut helper = run_helper(None, "e1000").spawn().unwrap();
    let lines = BufReader::new(helper.stdout.take().unwrap()).lines();
    let pid: u32 = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("started ")?.1.parse().ok())
        .expect("QEMU's process id");
    assert!(!ended(pid));
    helper.kill().unwrap();
    helper.wait().unwrap();
    wait("QEMU's end", || ended(pid));
}

#[test]
fn a_missing_qemu_says_what_to_install() {
    let output = run_helper(Some(Path::new("/nonexistent/qemu")), "e1000").output();
    let said = text(output.unwrap());
    assert!(said.contains("there is no /nonexistent/qemu"), "{said}");
    assert!(said.contains("qemu/setup"), "{said}");
    assert!(said.contains("qemu-system-x86"), "{said}");
}

#[test]
fn a_qemu_that_does_not_start_is_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let qemu = folder.path().join("qemu");
    let script = "#!/bin/sh\n\
        if [ \"$1\" = --version ]; then echo 'QEMU emulator version 5.2.0'; exit; fi\n\
        echo 'qemu: Invalid netdev' >&2; exit 3\n";
    std::fs::write(&qemu, script).unwrap();
    std::fs::set_permissions(&qemu, PermissionsExt::from_mode(0o755)).unwrap();
    let said = text(run_helper(Some(&qemu), "e1000").output().unwrap());
    assert!(
        said.contains("exit status: 3\n  qemu: Invalid netdev"),
        "{said}"
    );
    assert!(said.contains("this is QEMU 5.2; 7.2 or newer"), "{said}");
}

/// Ports of 127.0.0.1 that nobody has.
fn free_ports() -> [u16; 2] {
    let sockets = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

#[test]
fn a_udp_port_that_another_has_is_refused_and_says_who() {
    if !require_qemu() {
        return;
    }
    let [port, other] = free_ports();
    let spec = || format!("e1000,net=udp:{port}:{other}").parse().unwrap();
    let first = Qtest::start(&spec()).unwrap();
    let error = Qtest::start(&spec()).unwrap_err().to_string();
    let who = format!(
        "UDP port {port} of 127.0.0.1 is in use by qemu-system-x86 (process {})",
        first.pid()
    );
    assert!(error.contains(&who), "{error}");
    // Also where one QEMU is to have both.
    let [port, other] = free_ports();
    let both: [QtestSpec; 2] =
        [(); 2].map(|()| format!("e1000,net=udp:{port}:{other}").parse().unwrap());
    let error = Qtest::start_all(&both).unwrap_err().to_string();
    assert!(
        error.contains(&format!("UDP port {port} of 127.0.0.1 is in use")),
        "{error}"
    );
    // It is free with the end of the one that had it.
    let pid = first.pid();
    drop(first);
    wait("QEMU's end", || ended(pid));
    Qtest::start(&spec()).unwrap();
}

#[test]
fn of_those_that_want_a_udp_port_at_the_same_moment_one_gets_it() {
    if !require_qemu() {
        return;
    }
    let [port, other] = free_ports();
    let spec = format!("e1000,net=udp:{port}:{other}");
    let together = std::sync::Barrier::new(4);
    let started: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    together.wait();
                    Qtest::start(&spec.parse().unwrap())
                })
            })
            .collect();
        let all = threads.into_iter();
        all.map(|thread| thread.join().unwrap()).collect()
    });
    let running: Vec<_> = started.iter().flatten().collect();
    assert_eq!(running.len(), 1, "{started:?}");
    for error in started.iter().filter_map(|started| started.as_ref().err()) {
        assert!(error.to_string().contains("is in use"), "{error}");
    }
}

/// A tap that is not there is not made, and what is no tap is none: in a network namespace, where we may.
#[test]
fn a_tap_must_be_there_and_be_one() {
    if !require_qemu() || !common::again(&["--net"], "", "PINWIRE_NO_TAP") {
        return;
    }
    for (name, why) in [
        ("nope", "there is no interface nope"),
        ("lo", "lo is an interface, but no tap"),
    ] {
        let spec = format!("e1000,net=tap:{name}").parse().unwrap();
        let error = Qtest::start(&spec).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(error.contains("ip tuntap add"), "{error}");
    }
    let links = Process::new("ip").arg("link").output().unwrap();
    assert!(!text(links).contains("nope"));
    let made = Process::new("ip")
        .args(["tuntap", "add", "there", "mode", "tap"])
        .status();
    assert!(made.unwrap().success());
    Qtest::start(&"e1000,net=tap:there".parse().unwrap()).unwrap();
}

#[test]
fn a_peer_that_cannot_be_had_is_said_in_qemus_words() {
    if !require_qemu() {
        return;
    }
    for (spec, why) in [
        (
            "e1000,pcap=/nonexistent/a.pcap".to_owned(),
            "/nonexistent/a.pcap",
        ),
        (
            "virtio-net,packt=on".to_owned(),
            "Property 'virtio-net-pci.packt' not found",
        ),
        (
            "e1000,mac=here".to_owned(),
            "'e1000.mac' doesn't take value",
        ),
    ] {
        let error = Qtest::start(&spec.parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error}");
        assert!(error.contains("it ended with exit status: 1"), "{error}");
    }
}

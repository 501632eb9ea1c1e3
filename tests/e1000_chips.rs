//! What real 8254x chips refuse and QEMU's model forgives, chip by chip: the driver against a device that
//! complains (`fakes::silicon`). The driver's table of these is `src/nic/intel/quirks.rs`.

mod fakes;

use std::sync::{Arc, Mutex};

use fakes::e1000::{FakeE1000, MAC};
use fakes::lock;
use fakes::silicon::{I82540EM, I82544GC, I82545EM};
use pinwire::backend::{Backend, Fake, FakeBar, FakeMemory};
use pinwire::dma::{DmaFile, DmaSpace, Pool};
use pinwire::irq::{Irq, IrqKind};
use pinwire::nic::e1000::{E1000, MIN_FRAME};
use pinwire::nic::{Frame, Nic, NicConfig, Offload, OffloadFlags};
use pinwire::pci::config::Config;
use proptest::prelude::*;

const CHIPS: [u16; 3] = [I82540EM, I82544GC, I82545EM];

struct Bench {
    card: E1000<Fake>,
    device: Arc<Mutex<FakeE1000>>,
    memory: Arc<FakeMemory>,
}

/// The chip, started, on a PCI-X bus or not.
fn bench(chip: u16, pcix: bool, config: &NicConfig) -> Bench {
    let (fake, device) = FakeE1000::chip(chip);
    lock(&device).silicon.pcix = pcix;
    let memory = Arc::clone(fake.memory());
    let card = E1000::start(fake, config).expect("a card that behaves starts");
    let b = Bench {
        card,
        device,
        memory,
    };
    b.is_content();
    b
}

impl Bench {
    /// Nothing was asked of the silicon that it cannot do.
    fn is_content(&self) {
        let device = lock(&self.device);
        let chip = device.silicon.id;
        assert!(
            device.silicon.complaints.is_empty(),
            "{chip:#x}: {:?}",
            device.silicon.complaints
        );
        assert!(self.memory.faults().is_empty(), "{chip:#x}");
    }

    /// Sends all, in as many steps as the ring needs.
    fn send(&mut self, mut frames: Vec<Frame>) {
        while !frames.is_empty() {
            self.card.send(&mut frames).unwrap();
            self.card.completed(&mut Vec::new()).unwrap();
        }
        self.is_content();
    }

    fn sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut lock(&self.device).sent)
    }
}

/// `len` bytes, none of which is 0.
fn bytes(seed: u32, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (seed as usize * 31 + i * 7) as u8 | 1)
        .collect()
}

fn frame(pool: &Pool, content: &[u8]) -> Frame {
    let mut buf = pool.alloc().expect("a buffer");
    buf.fill(content);
    Frame::from(buf)
}

fn to_be_cut(mut frame: Frame, mss: u16) -> Frame {
    frame.set_offload(Offload {
        flags: OffloadFlags::TSO | OffloadFlags::TCP_CHECKSUM | OffloadFlags::IP_CHECKSUM,
        l2_len: 14,
        l3_len: 20,
        l4_len: 20,
        mss,
        vlan: 0,
    });
    frame
}

#[test]
fn every_chip_is_reset_by_its_ports_after_10_ms_of_quiet_and_left_alone_while_it_reloads() {
    for chip in CHIPS {
        let mut b = bench(chip, false, &NicConfig::default());
        b.card.restart().unwrap();
        b.card.stop().unwrap();
        b.is_content();
        // Over the whole life: started, restarted, stopped.
        assert_eq!(lock(&b.device).silicon.resets, (0, 3), "{chip:#x}");
    }
}

/// A fake whose I/O ports are not to be had, as over a backend that has no way to them.
struct WithoutPorts(Fake);

impl Config for WithoutPorts {
    fn read(&self, offset: u16, into: &mut [u8]) -> pinwire::Result<()> {
        self.0.read(offset, into)
    }

    fn write(&self, offset: u16, from: &[u8]) -> pinwire::Result<()> {
        self.0.write(offset, from)
    }
}

impl Backend for WithoutPorts {
    type Bar = FakeBar;

    fn name(&self) -> &str {
        self.0.name()
    }

    fn map_bar(&self, index: u8, least: usize) -> pinwire::Result<FakeBar> {
        self.0.map_bar(index, least)
    }

    fn dma(&self) -> &Arc<dyn DmaSpace> {
        self.0.dma()
    }

    fn interrupts(&self, kind: IrqKind, count: usize) -> pinwire::Result<Vec<Irq>> {
        self.0.interrupts(kind, count)
    }

    fn reset(&self) -> pinwire::Result<bool> {
        self.0.reset()
    }

    fn has_iommu(&self) -> bool {
        self.0.has_iommu()
    }
}

#[test]
fn a_chip_whose_ports_are_out_of_reach_or_dead_is_reset_by_memory() {
    for chip in CHIPS {
        let (fake, device) = FakeE1000::chip(chip);
        drop(E1000::start(WithoutPorts(fake), &NicConfig::default()).unwrap());
        assert_eq!(lock(&device).silicon.resets, (2, 0), "{chip:#x}");
        // As QEMU's model: it has the ports, and they do nothing.
        let (fake, device) = FakeE1000::chip(chip);
        lock(&device).dead_ports = true;
        drop(E1000::start(fake, &NicConfig::default()).unwrap());
        assert_eq!(lock(&device).silicon.resets, (2, 0), "{chip:#x}");
        assert!(lock(&device).silicon.complaints.is_empty());
    }
}

#[test]
fn a_phy_that_a_kernel_powered_down_is_powered_up() {
    for chip in CHIPS {
        let (fake, device) = FakeE1000::chip(chip);
        // As Linux's driver leaves it. The link is down until it is up again.
        lock(&device).silicon.bmcr |= 1 << 11;
        let card = E1000::start(fake, &NicConfig::default()).unwrap();
        assert!(card.link().up, "{chip:#x}");
        // The rest of it is as it was.
        assert_eq!(lock(&device).silicon.bmcr, 0x1140);
    }
}

#[test]
fn the_82544s_eeprom_is_read_by_its_wires_each_level_held_without_a_grant() {
    let b = bench(I82544GC, false, &NicConfig::default());
    assert_eq!(b.card.mac().0, MAC);
}

#[test]
fn the_packet_buffer_is_divided_for_the_frames_that_come_whatever_a_kernel_left() {
    for (chip, long) in [(I82540EM, 40), (I82544GC, 40), (I82545EM, 32)] {
        for (max_frame, expected) in [(1518, 48), (8192, 48), (8193, long), (16_110, long)] {
            let config = NicConfig::default().max_frame(max_frame);
            let b = bench(chip, false, &config);
            let pba = lock(&b.device).silicon.pba;
            assert_eq!(pba, expected, "{chip:#x} {max_frame}");
        }
    }
}

#[test]
fn half_duplex_has_its_own_collision_distance() {
    const TCTL: usize = 0x0400;
    use pinwire::mmio::Mmio;
    for chip in CHIPS {
        for (full_duplex, cold) in [(true, 0x40), (false, 0x200)] {
            let (fake, device) = FakeE1000::chip(chip);
            lock(&device).silicon.full_duplex = full_duplex;
            let mut card = E1000::start(fake, &NicConfig::default()).unwrap();
            let cold_now = |card: &E1000<Fake>| card.bar().read32(TCTL) >> 12 & 0x3ff;
            assert_eq!(cold_now(&card), cold, "{chip:#x}");
            assert_eq!(card.bar().read32(TCTL) & 2, 2, "the transmitter is on");
            // The cable is moved: a link status change (ICR.LSC), and the other duplex.
            lock(&device).silicon.full_duplex = !full_duplex;
            lock(&device).link_changes();
            card.wait(std::time::Duration::from_secs(5)).unwrap();
            assert_eq!(cold_now(&card), 0x240 - cold, "{chip:#x}");
        }
    }
}

#[test]
fn short_frames_are_padded_with_zeros_and_nothing_that_was_in_their_buffers() {
    for chip in CHIPS {
        for pcix in [false, true] {
            let mut b = bench(chip, pcix, &NicConfig::default());
            // No room behind the frame, some, and much: all full of what is nobody's business.
            for capacity in [59, 60, 64, 2048] {
                let pool = Pool::new(b.card.dma(), 1, capacity).unwrap();
                for len in MIN_FRAME..=59 {
                    let mut buf = pool.alloc().unwrap();
                    buf.fill(&vec![0xa5; capacity]);
                    buf.fill(&bytes(len as u32, len));
                    b.send(vec![buf.into()]);
                    let mut expected = bytes(len as u32, len);
                    expected.resize(60, 0);
                    assert_eq!(b.sent(), [expected], "{chip:#x} {len} of {capacity}");
                }
            }
        }
    }
}

#[test]
fn short_frames_of_files_and_of_several_pieces_are_padded_too() {
    for chip in CHIPS {
        let mut b = bench(chip, true, &NicConfig::default());
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &bytes(1, 8192)).unwrap();
        let mapped = DmaFile::map(b.card.dma(), &file, 4).unwrap();
        let pool = Pool::new(b.card.dma(), 4, 64).unwrap();
        let whole = Frame::from(mapped.slice(4090, 20).unwrap());
        let mut headed = frame(&pool, &bytes(2, 14));
        headed.append(mapped.slice(100, 30).unwrap());
        let mut summed = frame(&pool, &bytes(3, 43));
        summed.set_offload(Offload::UDP4);
        b.send(vec![whole, headed, summed]);
        let pad = |mut frame: Vec<u8>| {
            frame.resize(60, 0);
            frame
        };
        let file = bytes(1, 8192);
        assert_eq!(
            b.sent(),
            [
                pad(file[4090..4110].to_vec()),
                pad([bytes(2, 14), file[100..130].to_vec()].concat()),
                pad(bytes(3, 43)),
            ]
        );
    }
}

#[test]
fn nothing_that_the_82545_writes_goes_across_64_kib() {
    // A ring of 64 KiB exactly, and shorter ones after memory that moves where they begin.
    for (ring, before) in [(4096, 0), (256, 1), (2048, 9), (1024, 15)] {
        let (fake, device) = FakeE1000::chip(I82545EM);
        let memory = Arc::clone(fake.memory());
        let dma = Arc::clone(fake.dma());
        let _moves: Vec<_> = (0..before)
            .map(|_| Pool::new(&dma, 1, 64).unwrap())
            .collect();
        let config = NicConfig::default().tx_ring(ring).rx_ring(ring);
        let card = E1000::start(fake, &config).unwrap();
        let mut b = Bench {
            card,
            device,
            memory,
        };
        let pool = Pool::new(&dma, 1, 64).unwrap();
        b.send(vec![frame(&pool, &bytes(1, 60))]);
        // More than the pool has buffers, so that each is filled.
        for i in 0..3 * ring as u32 {
            lock(&b.device).inbox.push_back(bytes(i, 60));
            lock(&b.device).step_rx(&b.memory);
            let mut got = Vec::new();
            assert_eq!(b.card.recv(&mut got, 8).unwrap(), 1);
            assert_eq!(got[0].frame.to_vec(), bytes(i, 60));
        }
        b.is_content();
    }
}

#[test]
fn the_82545_has_as_many_receive_buffers_as_the_others() {
    for chip in CHIPS {
        let mut b = bench(chip, false, &NicConfig::default());
        let mut held = Vec::new();
        for i in 0..600 {
            lock(&b.device).inbox.push_back(bytes(i, 60));
            lock(&b.device).step_rx(&b.memory);
            b.card.recv(&mut held, 8).unwrap();
        }
        assert_eq!(held.len(), 512, "{chip:#x}");
    }
}

#[test]
fn what_is_to_be_cut_ends_in_4_bytes_of_their_own_and_so_does_the_next_frame() {
    for chip in CHIPS {
        for pcix in [false, true] {
            let mut b = bench(chip, pcix, &NicConfig::default());
            let pool = Pool::new(b.card.dma(), 8, 16_000).unwrap();
            for batch in 0..3 {
                let frames = vec![
                    frame(&pool, &bytes(0, 60)),
                    to_be_cut(frame(&pool, &bytes(batch, 9054)), 1460),
                    frame(&pool, &bytes(1, 1514)),
                    frame(&pool, &bytes(2, 1514)),
                    to_be_cut(frame(&pool, &bytes(3, 58)), 536),
                    frame(&pool, &bytes(4, 61)),
                    frame(&pool, &bytes(5, 62)),
                ];
                b.send(frames);
                let lengths: Vec<_> = b.sent().iter().map(Vec::len).collect();
                assert_eq!(lengths, [60, 9054, 1514, 1514, 58, 61, 62]);
            }
        }
    }
}

#[test]
fn only_the_first_frame_after_one_that_was_cut_takes_more_descriptors() {
    let mut b = bench(I82540EM, false, &NicConfig::default());
    lock(&b.device).eager = false;
    let pool = Pool::new(b.card.dma(), 8, 2048).unwrap();
    let mut frames = vec![
        to_be_cut(frame(&pool, &bytes(0, 500)), 536),
        frame(&pool, &bytes(1, 60)),
        frame(&pool, &bytes(2, 60)),
        frame(&pool, &bytes(3, 60)),
    ];
    assert_eq!(b.card.send(&mut frames).unwrap(), 4);
    // A context and two, two, one and one.
    assert_eq!(lock(&b.device).step_tx(&b.memory, usize::MAX), 7);
}

#[test]
fn a_descriptor_to_be_cut_holds_4_segments_at_most_and_the_headers_whole() {
    for chip in CHIPS {
        let mut b = bench(chip, true, &NicConfig::default().tx_ring(1024));
        let pool = Pool::new(b.card.dma(), 2, 16_000).unwrap();
        for mss in [14, 64, 100, 536, 1460, 8000] {
            let cut = to_be_cut(frame(&pool, &bytes(1, 15_000)), mss);
            b.send(vec![cut]);
            assert_eq!(b.sent()[0].len(), 15_000);
        }
        // 54 bytes of headers are more than 4 x 13.
        let small = to_be_cut(frame(&pool, &bytes(1, 15_000)), 13);
        let error = b.card.send(&mut vec![small]).unwrap_err().to_string();
        assert!(error.contains("it takes at least 14"), "{error}");
    }
}

#[test]
fn the_82544_has_the_headers_whole_wherever_they_end() {
    let mut b = bench(I82544GC, true, &NicConfig::default());
    let pool = Pool::new(b.card.dma(), 4, 512).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &bytes(9, 4096)).unwrap();
    let mapped = DmaFile::map(b.card.dma(), &file, 2).unwrap();
    for options in (0..=40).step_by(4) {
        for start in 0..9 {
            let mut headers = frame(&pool, &bytes(3, 54 + options));
            headers.append(mapped.slice(start, 3000).unwrap());
            headers.set_offload(Offload {
                flags: OffloadFlags::TSO | OffloadFlags::TCP_CHECKSUM,
                l2_len: 14,
                l3_len: 20,
                l4_len: 20 + options as u8,
                mss: 1400,
                vlan: 0,
            });
            b.send(vec![headers]);
            let sent = b.sent().remove(0);
            // All but the checksums that the driver prepares.
            assert_eq!(sent[34..50], bytes(3, 100)[34..50], "{options} {start}");
            let payload = bytes(9, 4096)[start as usize..start as usize + 3000].to_vec();
            assert_eq!(sent[54 + options..], payload, "{options} {start}");
        }
    }
}

#[test]
fn the_limit_is_measured_with_frames_that_the_silicon_takes() {
    for chip in CHIPS {
        let mut b = bench(chip, false, &NicConfig::default());
        b.card.limit(17, 8, 100).unwrap();
        b.card.limit(2048, 8, 100).unwrap();
        b.is_content();
        assert!(b.sent().iter().all(|frame| frame.len() >= 60));
    }
    let mut b = bench(I82545EM, true, &NicConfig::default());
    let error = b.card.limit(2048, 8, 100).unwrap_err().to_string();
    assert!(error.contains("up to 2015"), "{error}");
    let mut b = bench(I82544GC, true, &NicConfig::default());
    assert!(b.card.limit(60, 8, 100).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever is sent, by whichever chip, on whichever bus: the silicon has nothing to complain of,
    /// and what leaves is what was sent.
    #[test]
    fn whatever_is_sent_is_to_the_silicons_liking(
        chip in prop::sample::select(CHIPS.to_vec()),
        pcix in any::<bool>(),
        frames in prop::collection::vec(
            (any::<bool>(), 14usize..3000, prop::collection::vec(1usize..5000, 0..3), 60u16..2000), 1..60)
    ) {
        let mut b = bench(chip, pcix, &NicConfig::default().tx_ring(512));
        // Odd lengths, so that buffers begin at all places.
        let pools: Vec<_> = (0..3).map(|i| Pool::new(b.card.dma(), 64, 5001 + 64 * i).unwrap()).collect();
        let mut expected = Vec::new();
        for (nth, (cut, first, rest, mss)) in frames.into_iter().enumerate() {
            let first = if cut { first + 54 } else { first };
            let mut content = bytes(nth as u32, first);
            let mut whole = frame(&pools[0], &content);
            for (piece, len) in rest.iter().enumerate() {
                let more = bytes((nth + piece) as u32, *len);
                whole.append(frame(&pools[1], &more).into_buf().unwrap());
                content.extend(more);
            }
            if cut {
                whole = to_be_cut(whole, mss);
                // The sums that the driver prepares are not looked at.
                for place in [24, 25, 50, 51] {
                    content[place] = 0;
                }
            } else {
                content.resize(content.len().max(60), 0);
            }
            expected.push((cut, content));
            b.send(vec![whole]);
        }
        for (sent, (cut, expected)) in b.sent().iter_mut().zip(expected) {
            if cut {
                for place in [24, 25, 50, 51] {
                    sent[place] = 0;
                }
            }
            prop_assert_eq!(&*sent, &expected);
        }
    }
}

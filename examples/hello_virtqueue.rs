//! One packet by one descriptor of a split virtqueue, which is hello_dma for virtio-net: the queue by
//! hand, and [`PciTransport`] for what comes before it (reset, status, features).
//!
//!     hello_virtqueue 0000:00:03.0                       a card bound to vfio-pci
//!     hello_virtqueue qtest:virtio-net,pcap=hello.pcap   QEMU's card on this host; look with tcpdump -r
//!
//! Sections are those of virtio 1.2. A device that could do packed queues is not asked to.

use std::error::Error;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use pinwire::backend::Backend;
use pinwire::barrier::{dma_rmb, dma_wmb};
use pinwire::device::{DeviceSpec, Driver};
use pinwire::dma::{DmaArray, DmaRegion};
use pinwire::nic::virtio_net;
use pinwire::virtio::features::{ACCESS_PLATFORM, VERSION_1};
use pinwire::virtio::pci::PciTransport;
use pinwire::virtio::{Areas, Doorbell, Status, Transport, describe_split};

const QUEUE: u16 = 1; // transmitq1, §5.1.2
const SIZE: u16 = 8; // descriptors
const HEADER: usize = 12; // before each frame, §5.1.6: all zero, nothing is left to do to it

fn main() -> Result<(), Box<dyn Error>> {
    let spec = std::env::args().nth(1);
    let spec = spec.ok_or("usage: hello_virtqueue DEVICE")?;
    spec.parse::<DeviceSpec>()?.open_with(Hello)
}

/// What to do with the card, whatever reaches it.
struct Hello;

impl Driver for Hello {
    type Output = ();
    type Error = Box<dyn Error>;

    fn start<B: Backend + 'static>(self, device: B) -> Result<(), Box<dyn Error>> {
        let (vendor, id) = device.ids()?;
        match virtio_net::devices().any(|known| known.is(vendor, id)) {
            true => hello(&PciTransport::open(device)?),
            false => Err("no virtio-net card; for Intel's: hello_dma".into()),
        }
    }
}

fn hello(device: &impl Transport) -> Result<(), Box<dyn Error>> {
    // 1. Reset, ACKNOWLEDGE, DRIVER; the least features; FEATURES_OK: §3.1.1.
    let offered = device.begin_init()?;
    device.negotiate(VERSION_1 | offered & ACCESS_PLATFORM)?;

    // 2. Memory that the device can reach: the three parts of the queue, §2.7, and the packet.
    let table: DmaArray<[AtomicU64; 2]> = DmaArray::alloc(device.dma(), SIZE.into())?;
    // flags, idx, an entry for each descriptor
    let avail: DmaArray<AtomicU16> = DmaArray::alloc(device.dma(), usize::from(SIZE) + 2)?;
    // flags and idx, then id and length for each descriptor
    let used: DmaArray<AtomicU32> = DmaArray::alloc(device.dma(), 2 * usize::from(SIZE) + 1)?;
    let mut packet = DmaRegion::alloc(device.dma(), HEADER + 60)?;
    let mut bytes = [0; HEADER + 60];
    let frame = &mut bytes[HEADER..];
    frame[..6].fill(0xff); // to everybody
    frame[6..12].copy_from_slice(&[0x02, 0, 0, 0, 0, 1]); // from a made-up address
    frame[12..14].copy_from_slice(&0x88b5u16.to_be_bytes()); // EtherType for experiments
    frame[14..24].copy_from_slice(b"hello, DMA");
    packet.write(0, &bytes);

    // 3. Where the queue is, §4.1.5.1.3; from DRIVER_OK on the device works on it.
    let areas = Areas {
        descriptors: table.iova(0),
        driver: avail.iova(0),
        device: used.iova(0),
    };
    println!(
        "queue   table at IOVA {}, available ring {}, used ring {}",
        areas.descriptors, areas.driver, areas.device
    );
    avail[0].store(1u16.to_le(), Relaxed); // flags, §2.7.6: no interrupt, we look
    let doorbell = device.enable_queue(QUEUE, SIZE, areas, None)?;
    device.bus_master(true)?;
    device.set_status(device.status() | Status::DRIVER_OK);

    // 4. The descriptor, §2.7.5: where the packet is, and its length; no flags: to be read, and all of it.
    table[0][0].store(packet.iova().0.to_le(), Relaxed);
    table[0][1].store((bytes.len() as u64).to_le(), Relaxed);
    let words = [0, 1].map(|word| u64::from_le(table[0][word].load(Relaxed)));
    println!("desc 0  {}", describe_split(words));

    // 5. The available ring, §2.7.6: entry 0 names descriptor 0, then idx says that there is 1 entry.
    avail[2].store(0u16.to_le(), Relaxed);
    dma_wmb(); // entry before idx: else the device follows what is not yet written
    avail[1].store(1u16.to_le(), Relaxed);

    // 6. The doorbell, §4.1.4.4: the queue's number. idx before it: else the device sees nothing new.
    dma_wmb();
    doorbell.ring(QUEUE.into());

    // 7. The device reads entry, descriptor and packet, and writes the used ring, §2.7.8; idx last.
    let idx = || u32::from_le(used[0].load(Relaxed)) >> 16;
    let begin = Instant::now();
    while idx() != 1 && begin.elapsed() < Duration::from_secs(2) {
        std::hint::spin_loop();
    }
    let done = idx() == 1;
    dma_rmb(); // idx before the entry that it vouches for
    let [id, len] = [1, 2].map(|word| u32::from_le(used[word].load(Relaxed)));
    println!("used    idx={} id={id} len={len}", idx());

    // 8. Quiet before the memory goes: the device forgets the queue.
    let reset = device.reset();
    device.bus_master(false)?;
    reset?;
    match done {
        true => Ok(()),
        false => Err("the device did not use the descriptor within 2 s".into()),
    }
}

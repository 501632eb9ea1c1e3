//! One packet by one descriptor, step by step, with no helper hidden: what every driver does.
//!
//!     hello_dma 0000:00:03.0                  an Intel card bound to vfio-pci
//!     hello_dma qtest:e1000,pcap=hello.pcap   QEMU's card on this host; look with tcpdump -r
//!
//! Sections are those of the Intel 8254x manual. The 82574L (e1000e) has the same registers in the same
//! places; what it wants besides is in its datasheet's §10.2.6. virtio-net: see hello_virtqueue.

use std::error::Error;
use std::time::{Duration, Instant};

use pinwire::backend::Backend;
use pinwire::barrier::dma_wmb;
use pinwire::device::{DeviceSpec, Driver};
use pinwire::dma::{DmaArray, DmaRegion};
use pinwire::mmio::{Mmio, RegInfo};
use pinwire::nic::e1000::desc::{LegacyTx, TxDesc, describe_tx};
use pinwire::nic::e1000::regs::{
    CTRL, IMC, Interrupts, RCTL, Rctl, STATUS, TABLE, TCTL, TDBAH, TDBAL, TDH, TDLEN, TDT, Tctl,
};
use pinwire::nic::e1000e::regs::{TARC, TXDCTL};
use pinwire::nic::{e1000, e1000e};
use pinwire::pci::config::Command;

fn main() -> Result<(), Box<dyn Error>> {
    let spec = std::env::args().nth(1).ok_or("usage: hello_dma DEVICE")?;
    spec.parse::<DeviceSpec>()?.open_with(Hello)
}

/// What to do with the card, whatever reaches it.
struct Hello;

impl Driver for Hello {
    type Output = ();
    type Error = Box<dyn Error>;

    fn start<B: Backend + 'static>(self, device: B) -> Result<(), Box<dyn Error>> {
        let (vendor, id) = device.ids()?;
        let is_82574 = e1000e::devices().any(|known| known.is(vendor, id));
        if !is_82574 && !e1000::devices().any(|known| known.is(vendor, id)) {
            return Err("no Intel card of this kind; for virtio-net: hello_virtqueue".into());
        }
        hello(&device, is_82574)
    }
}

fn hello(device: &impl Backend, is_82574: bool) -> Result<(), Box<dyn Error>> {
    // 1. The registers: BAR 0, mapped into this process.
    device.command(Command::MEMORY, Command::empty())?;
    let bar = device.map_bar(0, RegInfo::size_of(TABLE))?;
    println!("BAR 0   {} bytes, STATUS {:?}", bar.size(), bar.get(STATUS));

    // 2. Nothing of an earlier owner goes on: no interrupts, receiver and transmitter off.
    bar.set(IMC, Interrupts::from(u32::MAX));
    bar.set(RCTL, Rctl::new());
    bar.set(TCTL, Tctl::new());

    // The link comes up by itself, §13.4.1; a card without one sends nothing.
    bar.update(CTRL, |ctrl| ctrl.with_slu(true).with_asde(true));
    let begin = Instant::now();
    while !bar.get(STATUS).lu() && begin.elapsed() < Duration::from_secs(5) {
        std::hint::spin_loop();
    }

    // 3. Memory that the device can reach: a ring of 8 descriptors, and the packet.
    let ring: DmaArray<TxDesc> = DmaArray::alloc(device.dma(), 8)?;
    let mut packet = DmaRegion::alloc(device.dma(), 60)?;
    let mut bytes = [0; 60];
    bytes[..6].fill(0xff); // to everybody
    bytes[6..12].copy_from_slice(&[0x02, 0, 0, 0, 0, 1]); // from a made-up address
    bytes[12..14].copy_from_slice(&0x88b5u16.to_be_bytes()); // EtherType for experiments
    bytes[14..24].copy_from_slice(b"hello, DMA");
    packet.write(0, &bytes);
    println!(
        "ring    at {:#x} here, IOVA {} there",
        (&raw const ring[0]).addr(),
        ring.iova(0)
    );
    println!(
        "packet  at {:p} here, IOVA {} there",
        packet.mapping().ptr,
        packet.iova()
    );

    // 4. Where the ring is, §13.4.36 to §13.4.40; head == tail: it is empty.
    bar.set(TDBAL, ring.iova(0).0 as u32);
    bar.set(TDBAH, (ring.iova(0).0 >> 32) as u32);
    bar.set(TDLEN, 8 * 16);
    bar.set(TDH, 0);
    bar.set(TDT, 0);

    // The 82574L has two queues, and each its switch (TARC) and its way to count (TXDCTL bit 22: must be 1).
    if is_82574 {
        bar.update(TARC.index(0), |tarc| tarc.with_enable(true));
        bar.update(TXDCTL.index(0), |txdctl| txdctl.with_count_desc(true));
    }

    // 5. The device may use the bus by itself, and the transmitter goes on, §13.4.33.
    device.command(Command::BUS_MASTER, Command::empty())?;
    bar.set(
        TCTL,
        Tctl::new()
            .with_en(true)
            .with_psp(true)
            .with_ct(0x0f)
            .with_cold(0x40),
    );

    // 6. The descriptor, §3.3.3: a whole packet, add the CRC, write back when done.
    let word = LegacyTx::new()
        .with_length(60)
        .with_eop(true)
        .with_ifcs(true)
        .with_rs(true);
    ring[0].write(packet.iova().0, word.into());
    println!("before  {}", describe_tx(ring[0].words()));

    // 7. The doorbell. Descriptor before tail: else the device fetches what is not yet written.
    dma_wmb();
    bar.set(TDT, 1);

    // 8. The device reads the descriptor, then the packet, and writes DD back into memory.
    let begin = Instant::now();
    while !ring[0].done() && begin.elapsed() < Duration::from_secs(2) {
        std::hint::spin_loop();
    }
    let done = ring[0].done();
    println!("after   {}", describe_tx(ring[0].words()));
    println!("head    {} of {}", bar.get(TDH), ring.len());

    // 9. Quiet before the memory goes: transmitter off, a read to flush the write, bus master off.
    bar.set(TCTL, Tctl::new());
    let _ = bar.get(STATUS);
    device.command(Command::empty(), Command::BUS_MASTER)?;
    match done {
        true => Ok(()),
        false => Err("the device did not write the descriptor back within 2 s".into()),
    }
}

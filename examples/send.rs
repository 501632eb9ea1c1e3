//! Sends frames through any card: a pool, a batch, a doorbell, and the buffers come back.
//!
//!     send 0000:00:03.0 1000                 1000 frames
//!     send qtest:e1000,pcap=sent.pcap 10     QEMU's card on this host; look with tcpdump -r

use std::time::{Duration, Instant};

use pinwire::device::DeviceSpec;
use pinwire::dma::Pool;
use pinwire::nic::{Frame, NicConfig};

const BATCH: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let spec: DeviceSpec = args.next().ok_or("usage: send DEVICE [COUNT]")?.parse()?;
    let count: u32 = args.next().map_or(Ok(1000), |count| count.parse())?;

    let mut nic = spec.open(&NicConfig::default(), None)?;
    println!("{} {} is {}", nic.name(), nic.model(), nic.mac());
    let pool = Pool::new(nic.dma(), 2 * BATCH, 2048)?;

    // Frames to send, and frames that the card gave back; neither ever grows past the pool.
    let (mut out, mut back): (Vec<Frame>, Vec<Frame>) = (Vec::new(), Vec::new());
    let (mut made, mut sent) = (0, 0);
    let mut progress = Instant::now();
    while sent < count {
        while out.len() < BATCH && made < count {
            let Some(mut buf) = pool.alloc() else { break };
            buf.set_len(60);
            buf.put(0, &[0xff; 6]);
            buf.put(6, &nic.mac().0);
            buf.put(12, &0x88b5u16.to_be_bytes());
            buf.put(14, &made.to_be_bytes());
            out.push(buf.into());
            made += 1;
        }
        nic.send(&mut out)?;
        let done = nic.completed(&mut back)?;
        back.clear(); // dropped: returned to the pool
        sent += done as u32;
        if done > 0 {
            progress = Instant::now();
        } else if progress.elapsed() > Duration::from_secs(2) {
            nic.check()?;
            return Err("the card is there, but sends nothing: is its link up?".into());
        }
    }
    let stats = nic.stats();
    println!(
        "sent {sent}; the {} counted {}",
        stats.counted_by, stats.tx_frames
    );
    Ok(())
}

//! Receives frames from any card: sleeps until the card interrupts, then takes what has come.
//!
//!     receive 0000:00:03.0 10
//!     receive qtest:e1000,net=udp:7000:7001 10

use std::time::Duration;

use pinwire::device::DeviceSpec;
use pinwire::nic::{Mac, NicConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let spec: DeviceSpec = args
        .next()
        .ok_or("usage: receive DEVICE [COUNT [SECONDS]]")?
        .parse()?;
    let count: usize = args.next().map_or(Ok(10), |count| count.parse())?;
    let patience: u64 = args.next().map_or(Ok(30), |seconds| seconds.parse())?;

    let config = NicConfig::default().promiscuous(true);
    let mut nic = spec.open(&config, None)?;
    println!("{} {} is {}", nic.name(), nic.model(), nic.mac());

    let mut frames = Vec::new();
    let mut got = 0;
    while got < count {
        nic.recv(&mut frames, count - got)?;
        if frames.is_empty() && !nic.wait(Duration::from_secs(patience))? {
            nic.check()?;
            return Err(format!("{got} frames, then none for {patience} s").into());
        }
        for received in frames.drain(..) {
            got += 1;
            let length = received.frame.len();
            // The frame's buffers are ours until dropped; a frame of one buffer can be looked into.
            match received.frame.into_buf() {
                Ok(buf) => {
                    let (to, from) = (
                        buf.array(0).unwrap_or_default(),
                        buf.array(6).unwrap_or_default(),
                    );
                    let kind = u16::from_be_bytes(buf.array(12).unwrap_or_default());
                    println!(
                        "{length} bytes {} > {} type {kind:#06x}",
                        Mac(from),
                        Mac(to)
                    );
                }
                Err(frame) => println!("{length} bytes in {} buffers", frame.segments().count()),
            }
        }
    }
    Ok(())
}

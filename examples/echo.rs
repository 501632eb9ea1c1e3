//! Sends every frame back to where it came from, out of the very buffer that it came in: no copy.
//!
//!     echo 0000:00:03.0 10
//!     echo qtest:e1000,net=udp:7000:7001 10

use std::time::Duration;

use pinwire::device::DeviceSpec;
use pinwire::nic::{Frame, NicConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let spec: DeviceSpec = args
        .next()
        .ok_or("usage: echo DEVICE [COUNT [SECONDS]]")?
        .parse()?;
    let count: usize = args.next().map_or(Ok(10), |count| count.parse())?;
    let patience: u64 = args.next().map_or(Ok(30), |seconds| seconds.parse())?;

    let mut nic = spec.open(&NicConfig::default(), None)?;
    println!("{} {} is {}", nic.name(), nic.model(), nic.mac());

    let (mut came, mut out, mut back): (_, Vec<Frame>, _) = (Vec::new(), Vec::new(), Vec::new());
    let mut echoed = 0;
    while echoed < count || nic.in_flight() > 0 {
        nic.recv(&mut came, 64)?;
        // An interrupt comes for a frame that came in, and for one that has gone out.
        if came.is_empty() && out.is_empty() && !nic.wait(Duration::from_secs(patience))? {
            nic.check()?;
            return Err(format!("{echoed} frames, then none for {patience} s").into());
        }
        for received in came.drain(..) {
            // A frame of several buffers is left alone here: dropped, its buffers return to the pool.
            let Ok(mut buf) = received.frame.into_buf() else {
                continue;
            };
            let (Some(to), Some(from)) = (buf.array::<6>(0), buf.array::<6>(6)) else {
                continue;
            };
            buf.put(0, &from);
            buf.put(6, &to);
            out.push(buf.into());
            echoed += 1;
        }
        nic.send(&mut out)?;
        nic.completed(&mut back)?;
        back.clear(); // returned to the pool, to be posted again
    }
    println!("echoed {echoed}");
    Ok(())
}

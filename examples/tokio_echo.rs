//! Sends frames back from within tokio: the card is one more file descriptor for its reactor, and other tasks of the
//! same thread go on meanwhile.
//!
//!     tokio_echo 0000:00:03.0 10
//!     tokio_echo qtest:e1000,net=udp:7000:7001 10

use std::os::fd::OwnedFd;
use std::time::Duration;

use pinwire::device::DeviceSpec;
use pinwire::nic::{Nic, NicConfig, Received, Waiting};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A card whose interrupts tokio waits for.
struct AsyncNic {
    nic: Box<dyn Nic>,
    /// A copy of the descriptor of the first pair, which becomes readable when the card interrupts.
    irq: AsyncFd<OwnedFd>,
}

impl AsyncNic {
    fn new(nic: Box<dyn Nic>) -> Result<Self, Box<dyn std::error::Error>> {
        let irq = nic.pair(0).as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` is one open descriptor for as long as it lives, and nobody closes it before.
        let irq = unsafe { AsyncFd::register_with_interest(irq, Interest::READABLE) }?;
        Ok(Self { nic, irq })
    }

    /// Appends what came in to `came`, and waits for it where nothing has. No frame is lost where the future is
    /// dropped half way.
    async fn recv(&mut self, came: &mut Vec<Received>) -> Result<(), Box<dyn std::error::Error>> {
        loop {
            if self.nic.recv(came, 64)? > 0 {
                return Ok(());
            }
            // What came before the card was asked to interrupt may never do so: then there is no waiting.
            if !self.nic.pair_mut(0).arm()? {
                self.irq.readable().await?.clear_ready();
            }
            self.nic.pair_mut(0).disarm()?;
            self.nic.service()?;
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let spec = args.next().ok_or("usage: tokio_echo DEVICE [COUNT]")?;
    let count: usize = args.next().map_or(Ok(10), |count| count.parse())?;

    // Who waits is tokio.
    let config = NicConfig::default().waiting(Waiting::Interrupt);
    let nic = spec.parse::<DeviceSpec>()?.open(&config, None)?;
    println!("{} {} is {}", nic.name(), nic.model(), nic.mac());
    let mut nic = AsyncNic::new(nic)?;

    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let (mut came, mut echoed, mut ticked) = (Vec::new(), 0, 0);
    // The timer has had its turn, too, however fast the frames came; and what is in flight at the end has left before
    // the card is stopped.
    while echoed < count || ticked == 0 || nic.nic.in_flight() > 0 {
        tokio::select! {
            received = nic.recv(&mut came) => received?,
            _ = ticks.tick() => ticked += 1,
        }
        for received in came.drain(..) {
            let Ok(mut buf) = received.frame.into_buf() else {
                continue;
            };
            let (Some(to), Some(from)) = (buf.array::<6>(0), buf.array::<6>(6)) else {
                continue;
            };
            buf.put(0, &from);
            buf.put(6, &to);
            nic.nic.send_one(buf.into())?;
            echoed += 1;
        }
        nic.nic.completed(&mut Vec::new())?;
    }
    println!("echoed {echoed}, and {ticked} ticks of a timer beside it");
    Ok(())
}

//! Network cards: the face that all of them share, and one folder a driver.
//!
//! [`Nic`] is for tools that do not care which card it is: frames go out and come in by batches, so
//! that the dynamic call costs nothing per packet. A program that knows its card uses the driver's
//! own type and gets the same without it.

pub mod e1000;
mod view;

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

pub use view::{Owner, RegisterView, RingView, SlotView};

use crate::backend::Backend;
use crate::dma::{DmaSpace, Frame, OffloadFlags, Pool};
use crate::error::{Error, Result};
use crate::mmio::{Access, Mmio, RegInfo};

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// To everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes: Option<Vec<u8>> = text
            .split(':')
            .map(|part| {
                u8::from_str_radix(part, 16)
                    .ok()
                    .filter(|_| part.len() == 2)
            })
            .collect();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| {
                Error::Usage(format!(
                    "{text:?} is not an Ethernet address; write 52:54:00:12:34:56"
                ))
            })
    }
}

/// How a card is set up.
#[derive(Debug, Clone)]
pub struct NicConfig {
    /// Descriptors of the transmit ring.
    pub tx_ring: usize,
    /// Descriptors of the receive ring.
    pub rx_ring: usize,
    /// Longest frame to receive, in bytes without the frame check sequence; above 1518, jumbo frames are on.
    pub max_frame: usize,
    /// Receive what is addressed to others, too.
    pub promiscuous: bool,
    /// Let the card insert VLAN tags, and take them out of what comes in; else frames are as on the wire.
    pub vlan_offload: bool,
    /// Least time between two interrupts; zero for no throttling.
    pub interrupt_interval: Duration,
    /// How long to wait for the link; zero not to wait.
    pub link_wait: Duration,
}

impl Default for NicConfig {
    fn default() -> Self {
        Self {
            tx_ring: 256,
            rx_ring: 256,
            max_frame: 1518,
            promiscuous: false,
            vlan_offload: false,
            interrupt_interval: Duration::from_micros(50),
            link_wait: Duration::from_secs(5),
        }
    }
}

/// State of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Is there one?
    pub up: bool,
    /// Megabits per second.
    pub mbps: u32,
    /// Both ways at once?
    pub full_duplex: bool,
}

/// What the card counted since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Good frames received.
    pub rx_frames: u64,
    /// Bytes of them, with the frame check sequence.
    pub rx_bytes: u64,
    /// Frames that came in with an error (CRC, length, alignment).
    pub rx_errors: u64,
    /// Frames dropped because no descriptor was free.
    pub rx_missed: u64,
    /// Good frames sent.
    pub tx_frames: u64,
    /// Bytes of them, with the frame check sequence.
    pub tx_bytes: u64,
}

/// What a card said of a checksum of a frame that it received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// Nothing: it did not look.
    #[default]
    Unchecked,
    /// It is right.
    Good,
    /// It is wrong.
    Bad,
}

/// A frame that came in.
#[derive(Debug)]
pub struct Received {
    /// Its buffers.
    pub frame: Frame,
    /// The VLAN tag that the card took out.
    pub vlan: Option<u16>,
    /// The IPv4 header checksum.
    pub ip_checksum: Checksum,
    /// The TCP or UDP checksum.
    pub l4_checksum: Checksum,
}

/// Is there a driver here for a PCI function with these ids?
pub fn knows(vendor: u16, device: u16) -> bool {
    e1000::knows(vendor, device)
}

/// Starts the card behind `backend` with the driver that knows it.
///
/// # Errors
/// [`Error::Unsupported`] where none does; else as the driver's own.
pub fn start<B: Backend + 'static>(backend: B, config: &NicConfig) -> Result<Box<dyn Nic>> {
    Ok(Box::new(e1000::E1000::start(backend, config)?))
}

/// Polls until `done`, at most `bound` long: `false` where that ran out. The clock is looked at
/// rarely, since in a virtual machine that may be a system call.
fn poll_until(bound: Duration, mut done: impl FnMut() -> bool) -> bool {
    let mut begin = None;
    loop {
        for _ in 0..64 {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if begin.get_or_insert_with(Instant::now).elapsed() > bound {
            return done();
        }
    }
}

/// Reads all registers of `table` that reading does not change; of an array, those that are not 0.
fn read_registers<M: Mmio>(bar: &M, table: &'static [RegInfo]) -> Vec<RegisterView> {
    let quiet = |info: &&RegInfo| matches!(info.access, Access::ReadOnly | Access::ReadWrite);
    let each = table.iter().filter(quiet).flat_map(|info| {
        let (count, stride) = info.array;
        (0..count).map(move |index| RegisterView {
            info,
            index,
            value: bar.read32(info.offset + index * stride),
        })
    });
    each.filter(|view| view.info.array.0 == 1 || view.value != 0)
        .collect()
}

/// A started network card, whichever it is. Dropping it stops the card, then frees its memory.
pub trait Nic: Send {
    /// What people call the device: `0000:00:03.0`, `qtest:e1000`.
    fn name(&self) -> &str;

    /// What kind of card it is: `Intel 82540EM`.
    fn model(&self) -> &'static str;

    /// Its Ethernet address.
    fn mac(&self) -> Mac;

    /// The link, as the card sees it now.
    fn link(&self) -> Link;

    /// Shortest frame that it sends (it pads to what the wire wants), in bytes.
    fn min_tx_frame(&self) -> usize;

    /// Longest frame that it sends, in bytes without the frame check sequence.
    fn max_tx_frame(&self) -> usize;

    /// What it can do to a frame as it leaves.
    fn offloads(&self) -> OffloadFlags;

    /// Where memory that it can reach comes from: for pools and files to send from.
    fn dma(&self) -> &std::sync::Arc<dyn DmaSpace>;

    /// Moves frames from the front of `frames` into the card's ring, as many as it has room for; the
    /// card does not look before [`Nic::doorbell`]. Gives how many went; the others stay.
    ///
    /// # Errors
    /// A frame that cannot be sent ([`Error::FrameLength`], [`Error::NotOffered`]): it stays at the
    /// front, those before it went.
    fn post(&mut self, frames: &mut Vec<Frame>) -> Result<usize>;

    /// Hands everything that was posted to the card: one register write.
    fn doorbell(&mut self);

    /// [`Nic::post`], then [`Nic::doorbell`].
    ///
    /// # Errors
    /// As [`Nic::post`].
    fn send(&mut self, frames: &mut Vec<Frame>) -> Result<usize> {
        let posted = self.post(frames);
        self.doorbell();
        posted
    }

    /// Appends to `done` the frames that the card is through with. Gives how many.
    ///
    /// # Errors
    /// [`Error::DeviceLied`].
    fn reap(&mut self, done: &mut Vec<Frame>) -> Result<usize>;

    /// Frames handed to [`Nic::send`] and not yet given back by [`Nic::reap`].
    fn in_flight(&self) -> usize;

    /// Appends to `into` the frames that came in, at most `most`, and gives the card fresh buffers.
    /// Gives how many.
    ///
    /// # Errors
    /// [`Error::DeviceLied`].
    fn recv(&mut self, into: &mut Vec<Received>, most: usize) -> Result<usize>;

    /// Sleeps until the card interrupts (something came in, was sent, or the link changed), or until
    /// `timeout`; `true` where it did, which may be for something already seen.
    ///
    /// # Errors
    /// Where there is no interrupt to be had.
    fn wait(&mut self, timeout: Duration) -> Result<bool>;

    /// Is the card still there and well?
    ///
    /// # Errors
    /// [`Error::DeviceGone`].
    fn check(&self) -> Result<()>;

    /// What it counted.
    fn stats(&mut self) -> Stats;

    /// Receive what is addressed to others, too?
    fn set_promiscuous(&mut self, on: bool);

    /// Receive what is sent to these groups.
    fn set_multicast(&mut self, groups: &[Mac]);

    /// The declarations of its registers.
    fn register_table(&self) -> &'static [RegInfo];

    /// All registers that can be read without changing them, now.
    fn registers(&self) -> Vec<RegisterView>;

    /// Its rings, now.
    fn rings(&self) -> Vec<RingView>;

    /// The pool that received frames come from.
    fn rx_pool(&self) -> &Pool;

    /// The device's own speed: sends `frames` frames of `len` bytes from a ring that is filled once,
    /// moving the tail by `batch` (a power of two, at most half the ring) and doing nothing else;
    /// gives the time it took. Write-back is asked for once a batch, as [`Nic::send`] does.
    ///
    /// # Errors
    /// Frames in flight, or a `len` or `batch` that cannot be; [`Error::Timeout`].
    fn limit(&mut self, len: usize, batch: usize, frames: u64) -> Result<Duration>;

    /// Stops the card and waits until it has: no interrupt, no DMA. What dropping does, with its
    /// error.
    ///
    /// # Errors
    /// [`Error::Timeout`] where it did not stop.
    fn stop(&mut self) -> Result<()>;
}

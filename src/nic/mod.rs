//! Network cards: the face that all of them share, and one folder a driver.
//!
//! [`Nic`] is for tools that do not care which card it is: frames go out and come in by batches, so
//! that the dynamic call costs nothing per packet. A program that knows its card uses the driver's
//! own type and gets the same without it. A card with several queues has a [`QueuePair`] for each.

mod assembler;
mod checksum;
mod config;
mod driver;
mod frame;
mod front;
mod intel;
mod limits;
mod longest;
mod mac;
mod not_sent;
mod own_ring;
mod pair;
pub mod parts;
pub mod prelude;
mod received;
pub mod virtio_net;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

pub use crate::inspect::Inspect;
pub use crate::wait::{Wait, Waiting, wait_any};
pub use config::{DriverConfig, NicConfig};
pub use driver::NicDriver;
pub use frame::{Frame, Offload, OffloadFlags};
pub use intel::{IntelCard, e1000, e1000e};
pub use mac::Mac;
pub use not_sent::NotSent;
pub use pair::QueuePair;
pub use received::{Checksum, Received, RxInfo};

use crate::dma::{DmaBuf, DmaSpace, Pool};
use crate::error::{Error, Result};

/// A key for the hash of receive-side scaling that spreads well: the one of Microsoft's specification,
/// by which implementations are verified.
const RSS_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Work that no card can do.
const NO_IPV6_CHECKSUM: &str = "make the header checksum of an IPv6 packet, which has none";

/// Refuses a frame at a ring's door: its IOVAs belong to another [`DmaSpace`], and mean other memory, or none,
/// in this one.
#[cold]
fn foreign_memory(device: &str) -> Error {
    Error::ForeignMemory {
        device: device.to_owned(),
    }
}

/// VLAN ids: they have 12 bits.
const VLANS: usize = 4096;

/// Checks that these are VLAN ids.
fn check_vlans(vlans: &[u16]) -> Result<()> {
    match vlans.iter().find(|id| usize::from(**id) >= VLANS) {
        None => Ok(()),
        Some(id) => Err(Error::Usage(format!(
            "{id} is not a VLAN id: they go from 0 to {}",
            VLANS - 1
        ))),
    }
}

/// State of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// There is one.
    pub up: bool,
    /// Megabits per second; 0 where the card does not tell.
    pub mbps: u32,
    /// Both ways at once?
    pub full_duplex: bool,
}

impl Link {
    /// The result of auto-negotiation, from what both ends advertise: the registers ANAR and ANLPAR that
    /// every PHY up to 100 Mbit/s has (IEEE 802.3, 28.2.1.2; the order is that of its annex 28B.3).
    pub fn negotiated(up: bool, advertised: u32, partner: u32) -> Self {
        const ORDER: [(u32, u32, bool); 3] = [
            (1 << 8, 100, true),
            (1 << 7, 100, false),
            (1 << 6, 10, true),
        ];
        let both = advertised & partner;
        let best = ORDER.iter().find(|(bit, ..)| both & bit != 0);
        let (mbps, full_duplex) = best.map_or((10, false), |(_, mbps, full)| (*mbps, *full));
        Self {
            up,
            mbps,
            full_duplex,
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let duplex = if self.full_duplex { "full" } else { "half" };
        match (self.up, self.mbps) {
            (false, _) => f.write_str("down"),
            (true, 0) => f.write_str("up"),
            (true, mbps) => write!(f, "up, {mbps} Mbit/s, {duplex} duplex"),
        }
    }
}

/// Counter of the figures in [`Stats`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counter {
    /// The driver: what passed through its rings. No second opinion on what the driver says it did.
    #[default]
    Driver,
    /// The card, in its statistics registers.
    Card,
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Driver => "driver",
            Self::Card => "card",
        })
    }
}

/// Frames and bytes since the card was started, and who counted them.
///
/// A figure is the card's own only where [`Stats::by_card`] gives it: who shows one as the card's takes it
/// from there, so that the driver's count is not held against itself. What nobody counted is `None`, and
/// no zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// The counter, the same for all of these.
    pub counted_by: Counter,
    /// Good frames received.
    pub rx_frames: u64,
    /// Bytes of them, from the destination address through the frame check sequence. The driver adds the 4
    /// of the check sequence, which it does not see.
    pub rx_bytes: u64,
    /// Frames that came in with an error: on the wire (CRC, length, alignment); by the driver's count
    /// those that the device handed over and that cannot be one.
    pub rx_errors: u64,
    /// Frames dropped because no descriptor was free; `None` where nobody counts them, as with virtio-net.
    pub rx_missed: Option<u64>,
    /// Good frames sent.
    pub tx_frames: u64,
    /// Bytes of them, as in `rx_bytes`. The e1000e of QEMU 7.2 leaves the check sequence out
    /// here.
    pub tx_bytes: u64,
}

impl Stats {
    /// Counts frames that a card without counters has sent.
    pub fn count_sent(&mut self, frames: &[Frame]) {
        self.tx_frames += frames.len() as u64;
        self.tx_bytes += frames.iter().map(on_the_wire).sum::<u64>();
    }

    /// Counts frames that a card without counters has received.
    pub fn count_received(&mut self, frames: &[Received]) {
        self.rx_frames += frames.len() as u64;
        let each = frames.iter().map(|one| on_the_wire(&one.frame));
        self.rx_bytes += each.sum::<u64>();
    }

    /// These figures where the card counted them itself.
    pub fn by_card(self) -> Option<Self> {
        (self.counted_by == Counter::Card).then_some(self)
    }

    /// The figures counted after `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            counted_by: self.counted_by,
            rx_frames: self.rx_frames.saturating_sub(before.rx_frames),
            rx_bytes: self.rx_bytes.saturating_sub(before.rx_bytes),
            rx_errors: self.rx_errors.saturating_sub(before.rx_errors),
            rx_missed: self
                .rx_missed
                .map(|missed| missed.saturating_sub(before.rx_missed.unwrap_or(0))),
            tx_frames: self.tx_frames.saturating_sub(before.tx_frames),
            tx_bytes: self.tx_bytes.saturating_sub(before.tx_bytes),
        }
    }
}

/// Bytes of a frame with its check sequence.
fn on_the_wire(frame: &Frame) -> u64 {
    frame.len() as u64 + 4
}

/// The PCI ids of a card that a driver drives, and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceId {
    /// PCI vendor id.
    pub vendor: u16,
    /// PCI device id.
    pub device: u16,
    /// Kind of card: `Intel 82540EM`.
    pub name: &'static str,
}

impl DeviceId {
    /// The card with these ids.
    pub const fn new(vendor: u16, device: u16, name: &'static str) -> Self {
        Self {
            vendor,
            device,
            name,
        }
    }

    /// Returns whether the ids match.
    pub const fn is(&self, vendor: u16, device: u16) -> bool {
        self.vendor == vendor && self.device == device
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x} ({})", self.vendor, self.device, self.name)
    }
}

/// The complaint of a driver for the cards `known` about a function that is none of them.
pub(crate) fn unsupported(
    device: &str,
    (vendor, id): (u16, u16),
    known: impl Iterator<Item = DeviceId>,
) -> Error {
    let known: Vec<_> = known.map(|card| card.to_string()).collect();
    Error::Unsupported {
        device: device.to_owned(),
        vendor,
        id,
        known: known.join(", "),
    }
}

/// Waits until the link is up, at most `bound` long; not at all where that is zero.
///
/// # Errors
/// [`Error::Timeout`]; as [`Nic::check`].
pub fn await_link(nic: &dyn Nic, bound: Duration) -> Result<()> {
    let begin = Instant::now();
    while !bound.is_zero() && !nic.link().up {
        if begin.elapsed() >= bound {
            nic.check()?;
            return Err(Error::Timeout {
                device: nic.name().to_owned(),
                what: "link-up",
                bound,
                remedy: "plug in a cable, or (QEMU) set_link on; then try again",
            });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn not_offered(device: &str, what: &str) -> Error {
    Error::NotOffered {
        device: device.to_owned(),
        what: what.to_owned(),
    }
}

/// A started network card, whichever it is: its control. Its data passes by its queue pairs ([`QueuePair`]), and people
/// look at it by [`Inspect`]. Dropping it stops the card, then frees its memory.
///
/// # Contract
/// For the author of a driver; how to start one is [`NicDriver`]'s, what its rings owe is [`QueuePair`]'s.
///
/// **What is set is in force on return.** Register writes are posted, by PCI and by qtest: [`Nic::set_promiscuous`] and
/// its like end with the read of a register, which is answered after them. A frame that is put on the wire then meets the
/// new filter.
///
/// **What a card cannot do it refuses**, by [`Error::NotOffered`]: the defaults here do. A filter may let in more than it
/// was asked to (cards hash), and nothing less.
///
/// **Teardown.** [`Nic::stop`] masks interrupts, stops receiver and transmitter, resets, waits for the reset's end with a
/// bound, and turns bus mastering off; in front of that it stops the
/// [`RingState`](crate::ring_state::RingState). Stopping twice is one stop. Dropping does the same, and then frees the
/// memory. Where the device did not stop, no memory that it could reach may be anybody else's: rings, pools and what is
/// posted are quarantined ([`OwnRing::quarantine`](parts::OwnRing::quarantine),
/// [`Pool::quarantine`](crate::dma::Pool::quarantine), [`DmaArray::quarantine`](crate::dma::DmaArray::quarantine)).
/// After the stop it calls [`Backend::check_present`](crate::backend::Backend::check_present), for a device that is gone
/// reads as one that never ends its reset.
///
/// **[`Nic::restart`]** forgets what was set since the start, and gives back what was in flight.
pub trait Nic: Inspect + Send {
    /// Name for people: `0000:00:03.0`, `qtest:e1000`.
    fn name(&self) -> &str;

    /// Kind of card: `Intel 82540EM`.
    fn model(&self) -> &'static str;

    /// Its Ethernet address.
    fn mac(&self) -> Mac;

    /// The link, as the card sees it now.
    fn link(&self) -> Link;

    /// Shortest frame that it sends, in bytes: the card pads what is too short for the wire, or else its driver does.
    /// Programs send ARP requests of 42 bytes.
    fn min_tx_frame(&self) -> usize;

    /// Longest frame that it sends, in bytes without the frame check sequence.
    fn max_tx_frame(&self) -> usize;

    /// Number of plain frames that a transmit ring holds for which `ring` descriptors were asked: Intel's keep one
    /// empty, since a head that has reached the tail means an empty ring; other cards have fewer than were asked for.
    fn tx_capacity(&self, ring: usize) -> usize {
        ring - 1
    }

    /// Work that it can do on a frame as it leaves; none, unless the driver says otherwise.
    fn offloads(&self) -> OffloadFlags {
        OffloadFlags::empty()
    }

    /// The I/O address space that it reaches: for pools and files to send from.
    fn dma(&self) -> &std::sync::Arc<dyn DmaSpace>;

    /// Number of queue pairs with which it was started; 1, unless the driver says otherwise.
    fn queues(&self) -> usize {
        1
    }

    /// Queue pair `index`.
    ///
    /// # Panics
    /// If there is none.
    fn pair(&self, index: usize) -> &dyn QueuePair;

    /// Queue pair `index`, to work with.
    ///
    /// # Panics
    /// If there is none.
    fn pair_mut(&mut self, index: usize) -> &mut dyn QueuePair;

    /// All queue pairs, each for a thread of its own (`std::thread::scope`).
    fn split(&mut self) -> Vec<&mut dyn QueuePair> {
        assert_eq!(
            self.queues(),
            1,
            "a driver of several pairs splits them itself"
        );
        vec![self.pair_mut(0)]
    }

    /// [`QueuePair::submit`] of the first pair.
    ///
    /// # Errors
    /// As there.
    fn submit(&mut self, frames: &mut Vec<Frame>) -> Result<usize> {
        self.pair_mut(0).submit(frames)
    }

    /// [`QueuePair::doorbell`] of the first pair.
    ///
    /// # Errors
    /// As there.
    fn doorbell(&mut self) -> Result<()> {
        self.pair_mut(0).doorbell()
    }

    /// [`QueuePair::send`] of the first pair.
    ///
    /// # Errors
    /// As there.
    fn send(&mut self, frames: &mut Vec<Frame>) -> Result<usize> {
        self.pair_mut(0).send(frames)
    }

    /// Sends one frame by the first pair: one call for a program that has a frame and wants no batch.
    ///
    /// Frames that the card has sent meanwhile are taken back first and dropped, so their buffers return to their
    /// pools; a program that wants to see those again uses [`Nic::send`] and [`Nic::completed`] alone. Each call rings the
    /// doorbell and allocates twice: for rates, send batches.
    ///
    /// ```compile_fail,E0382
    /// # use pinwire::{dma::DmaBuf, nic::Nic};
    /// fn send_then_write(nic: &mut dyn Nic, mut buf: DmaBuf) {
    ///     nic.send_one(buf.into()).unwrap();
    ///     buf.fill(b"too late"); // the card has it
    /// }
    /// ```
    ///
    /// # Errors
    /// The frame again, with [`Error::RingFull`] where the card has not sent enough of those before
    /// ([`Nic::wait`] waits for that); as [`Nic::send`] and [`Nic::completed`].
    fn send_one(&mut self, frame: Frame) -> Result<(), NotSent> {
        let mut frames = vec![frame];
        let sent = self
            .completed(&mut Vec::new())
            .and_then(|_| self.send(&mut frames));
        let error = match sent {
            Ok(1) => return Ok(()),
            Ok(_) => Error::RingFull {
                device: self.name().to_owned(),
                in_flight: self.in_flight(),
            },
            Err(error) => error,
        };
        let frame = frames.pop();
        Err(NotSent { frame, error })
    }

    /// A buffer of `len` zeros to write a frame into, from the first pair's [`QueuePair::rx_pool`]: that has as many
    /// buffers as a program may keep beside those that the ring has posted. Longer frames, or more of them, come from a
    /// [`Pool`] of the program's own. Where all are out, what the card has sent is taken back, as by [`Nic::send_one`].
    ///
    /// # Errors
    /// [`Error::NoBuffer`] where all are out; [`Error::Usage`] where they are shorter than `len`; as [`Nic::completed`].
    fn alloc(&mut self, len: usize) -> Result<DmaBuf> {
        let capacity = self.rx_pool().capacity();
        if len > capacity {
            return Err(Error::Usage(format!(
                "a buffer of {len} bytes: those of {} have {capacity}\n  \
                 take longer ones from a pool of your own (Pool::new, in the space of Nic::dma)",
                self.name(),
            )));
        }
        let mut taken = self.rx_pool().alloc();
        if taken.is_none() {
            self.completed(&mut Vec::new())?;
            taken = self.rx_pool().alloc();
        }
        let mut buf = taken.ok_or_else(|| Error::NoBuffer {
            device: self.name().to_owned(),
            count: self.rx_pool().count(),
        })?;
        buf.set_len(len);
        // It has what came in before: that must not leave with a frame which does not fill it.
        buf.zero();
        Ok(buf)
    }

    /// [`QueuePair::completed`] of the first pair. A card that breaks the protocol is stopped.
    ///
    /// # Errors
    /// As there.
    fn completed(&mut self, done: &mut Vec<Frame>) -> Result<usize> {
        let completed = self.pair_mut(0).completed(done);
        if let Err(Error::ProtocolViolation { .. }) = completed {
            self.stop()?;
        }
        completed
    }

    /// [`QueuePair::in_flight`] of the first pair.
    fn in_flight(&self) -> usize {
        self.pair(0).in_flight()
    }

    /// [`QueuePair::recv`] of the first pair. A card that breaks the protocol is stopped.
    ///
    /// # Errors
    /// As there.
    fn recv(&mut self, into: &mut Vec<Received>, most: usize) -> Result<usize> {
        let received = self.pair_mut(0).recv(into, most);
        if let Err(Error::ProtocolViolation { .. }) = received {
            self.stop()?;
        }
        received
    }

    /// Frames dropped since they were longer than [`NicConfig::max_frame`], by all pairs.
    fn dropped_longer(&self) -> u64 {
        let pairs = 0..self.queues();
        pairs.map(|index| self.pair(index).dropped_longer()).sum()
    }

    /// [`Wait::wait`] of the first pair.
    ///
    /// # Errors
    /// As there.
    fn wait(&mut self, timeout: Duration) -> Result<bool> {
        self.pair_mut(0).wait(timeout)
    }

    /// Services the card's requests beside its frames (a changed configuration, an announcement). [`Nic::wait`] does
    /// so; who waits for several cards by [`wait_any`] calls it after that.
    ///
    /// # Errors
    /// As [`Nic::wait`].
    fn service(&mut self) -> Result<()> {
        Ok(())
    }

    /// [`QueuePair::rx_pool`] of the first pair.
    fn rx_pool(&self) -> &Pool {
        self.pair(0).rx_pool()
    }

    /// Checks that the card is still there and well.
    ///
    /// # Errors
    /// [`Error::DeviceGone`], [`Error::WasReset`], [`Error::NeedsReset`].
    fn check(&self) -> Result<()>;

    /// Reads its counters.
    fn stats(&mut self) -> Stats;

    /// Sets whether it takes frames that are addressed to others, too.
    ///
    /// # Errors
    /// [`Error::NotOffered`].
    fn set_promiscuous(&mut self, on: bool) -> Result<()> {
        let _ = on;
        Err(not_offered(
            self.name(),
            "be told later to take all frames: ask for it at the start",
        ))
    }

    /// Sets the groups whose frames it takes.
    ///
    /// # Errors
    /// [`Error::NotOffered`].
    fn set_multicast(&mut self, groups: &[Mac]) -> Result<()> {
        let _ = groups;
        Err(not_offered(self.name(), "choose groups"))
    }

    /// Takes tagged frames of these VLANs only; `None`: of all. Untagged frames come in always.
    ///
    /// # Errors
    /// [`Error::NotOffered`], as where virtio was started without [`NicConfig::vlan_filter`];
    /// [`Error::Usage`] for what is no VLAN id.
    fn set_vlans(&mut self, vlans: Option<&[u16]>) -> Result<()> {
        let _ = vlans;
        Err(not_offered(self.name(), "choose VLANs"))
    }

    /// The device's own speed: sends `frames` frames of `len` bytes from a ring that is filled once,
    /// moving the tail by `batch` (a power of two, at most half the ring) and doing nothing else;
    /// gives the time it took. Write-back is asked for once a batch, as [`Nic::send`] does.
    ///
    /// # Errors
    /// Frames in flight, or a `len` or `batch` that cannot be; [`Error::Timeout`]; [`Error::NotOffered`] by a driver
    /// that does not measure.
    fn limit(&mut self, len: usize, batch: usize, frames: u64) -> Result<Duration> {
        let _ = (len, batch, frames);
        Err(not_offered(self.name(), "be measured by itself"))
    }

    /// Stops the card and waits until it has: no interrupt, no DMA. What dropping does, with its
    /// error. From here on its pairs answer [`Error::Stopped`], until [`Nic::restart`]; stopping it once
    /// more does nothing.
    ///
    /// # Errors
    /// [`Error::Timeout`] where it did not stop.
    fn stop(&mut self) -> Result<()>;

    /// Stops the card and starts it again, as after a protocol violation or a link that hangs; what was set up since
    /// the first start (filters) is not. Gives back the frames that were in flight: they may have
    /// left, or not.
    ///
    /// # Errors
    /// As starting and stopping; the card is stopped then, and the frames return to their pools.
    fn restart(&mut self) -> Result<Vec<Frame>>;
}

impl AsFd for dyn Nic + '_ {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pair(0).as_fd()
    }
}

//! Two cards, each sending what the other receives: no copy, the buffer itself is handed over.
//!
//! A frame stays in the buffer that its card put it into, is read from there by the other card, and
//! returns to the first one's pool when the other has sent it. So both cards must be in one IOMMU
//! domain. What finds no room in the other's ring waits, at most a batch each way; meanwhile frames
//! stay where they came in, and none is lost while that ring has buffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::net::packet::ETHERNET_HEADER;
use crate::nic::{Frame, Mac, Nic, OffloadFlags, Received, wait_any};

/// A card that takes nothing for so long gets no more held for it: a cable that is out must not make
/// the frames of the next hour old.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest sleep, so that a stop is heard.
const NAP: Duration = Duration::from_millis(100);
/// Rounds in which a card has no room, between two looks at the clock.
const LOOK: u32 = 4096;
/// Rounds between two looks at the clock while frames pass.
const BUSY: u32 = 256;

/// One of the two cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first one.
    A,
    /// The second one.
    B,
}

impl Side {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The one that frames from here leave by.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Changes in the Ethernet header of frames that leave by one card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// They come from the card that they leave by, as a router's do.
    pub source: bool,
    /// They go there, unless they go to a group (broadcast, multicast).
    pub destination: Option<Mac>,
}

/// The fate of the frames that came in by one card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Frames handed to the other card.
    pub frames: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Dropped: the other card has taken nothing for a second.
    pub no_room: u64,
    /// Dropped: of a length that the other card does not send.
    pub bad_length: u64,
    /// Dropped: work was left to do on them (a checksum, a cut, a tag) that the other card cannot do.
    pub not_offered: u64,
}

impl Passed {
    /// All that were dropped here; what the card missed for want of a buffer is in its
    /// [`Stats`](crate::nic::Stats).
    pub fn dropped(&self) -> u64 {
        self.no_room + self.bad_length + self.not_offered
    }
}

/// End of forwarding.
#[derive(Debug, Clone, Copy)]
pub struct Until<'a> {
    /// After so many frames, both ways together.
    pub frames: u64,
    /// At this time.
    pub time: Option<Instant>,
    /// Ends it once it becomes true.
    pub stop: &'a AtomicBool,
}

/// Sees each frame as it came in, before anything else happens to it.
pub type Tap<'t> = dyn FnMut(Side, &Received) -> Result<()> + 't;

/// Two cards that forward to each other.
pub struct Forward<'a> {
    cards: [&'a mut dyn Nic; 2],
    /// By the side that frames come in.
    ways: [Way; 2],
    came: Vec<Received>,
    gone: Vec<Frame>,
    batch: usize,
}

/// From one card to the other.
struct Way {
    /// Frames that had no room in the other's ring.
    held: Vec<Frame>,
    passed: Passed,
    rewrite: Rewrite,
    /// The other card's.
    mac: Mac,
    offloads: OffloadFlags,
    /// Rounds in which the other card took nothing, and since when.
    full: u32,
    since: Option<Instant>,
    /// The other card has taken nothing for [`PATIENCE`].
    given_up: bool,
}

impl<'a> Forward<'a> {
    /// `a` and `b` forward to each other, `batch` frames a doorbell at most. They take what is
    /// addressed to others where they were started so
    /// ([`NicConfig::promiscuous`](crate::nic::NicConfig::promiscuous)).
    ///
    /// # Errors
    /// [`Error::Usage`] where they are not in one IOMMU domain.
    pub fn new(a: &'a mut dyn Nic, b: &'a mut dyn Nic, batch: usize) -> Result<Self> {
        if !std::ptr::addr_eq(Arc::as_ptr(a.dma()), Arc::as_ptr(b.dma())) {
            return Err(Error::Usage(format!(
                "{} and {} are not in one IOMMU domain, so neither can read what the other received\n  \
                 open them together: DeviceSpec::open_all",
                a.name(),
                b.name()
            )));
        }
        let way = |to: &dyn Nic| Way {
            held: Vec::with_capacity(batch),
            passed: Passed::default(),
            rewrite: Rewrite::default(),
            mac: to.mac(),
            offloads: to.offloads(),
            full: 0,
            since: None,
            given_up: false,
        };
        Ok(Self {
            ways: [way(b), way(a)],
            cards: [a, b],
            came: Vec::with_capacity(batch),
            // As many as a ring may give back at once.
            gone: Vec::with_capacity(4096),
            batch,
        })
    }

    /// Sets the changes in frames that leave by `side`.
    pub fn rewrite(&mut self, side: Side, rewrite: Rewrite) {
        self.ways[side.other() as usize].rewrite = rewrite;
    }

    /// The fate of the frames that came in by `side`.
    pub fn passed(&self, side: Side) -> Passed {
        self.ways[side as usize].passed
    }

    /// The card.
    pub fn card(&mut self, side: Side) -> &mut dyn Nic {
        self.cards[side as usize]
    }

    /// Forwards until one end of `until` has come; then what was taken has left, or a second has passed.
    ///
    /// # Errors
    /// Errors of a card and of the tap; [`Error::Interrupted`] at the stop.
    pub fn run(&mut self, until: Until<'_>, mut tap: Option<&mut Tap<'_>>) -> Result<()> {
        let mut rounds = 0u32;
        let ended = loop {
            let left = until.frames.saturating_sub(self.taken());
            if left == 0 {
                break Ok(());
            }
            if until.stop.load(Ordering::Relaxed) {
                break Err(Error::Interrupted);
            }
            let busy = self.round(left, tap.as_deref_mut())? > 0;
            rounds = rounds.wrapping_add(1);
            let look = !busy || rounds.is_multiple_of(BUSY);
            let mut nap = NAP;
            if let Some(time) = until.time.filter(|_| look) {
                let now = Instant::now();
                if now >= time {
                    break Ok(());
                }
                nap = nap.min(time - now);
            }
            if !busy && !self.is_blocked() && !self.wait(nap)? {
                self.cards.iter().try_for_each(|card| card.check())?;
            }
        };
        self.drain()?;
        ended
    }

    /// Takes at most `most` frames, a batch from each card, and hands them to the other. Gives how many
    /// frames it moved: came in, were handed over, or are back from having been sent.
    ///
    /// # Errors
    /// Errors of a card and of the tap.
    pub fn round(&mut self, most: u64, mut tap: Option<&mut Tap<'_>>) -> Result<usize> {
        let mut moved = 0;
        let mut left = most;
        for side in Side::BOTH {
            let took = self.one_way(side, left, tap.as_deref_mut(), &mut moved)?;
            left -= took as u64;
        }
        Ok(moved)
    }

    /// From `side` to the other; gives how many frames it took.
    fn one_way(
        &mut self,
        side: Side,
        most: u64,
        tap: Option<&mut Tap<'_>>,
        moved: &mut usize,
    ) -> Result<usize> {
        let (from, to) = match (&mut self.cards, side) {
            ([a, b], Side::A) => (a, b),
            ([a, b], Side::B) => (b, a),
        };
        let way = &mut self.ways[side as usize];
        let back = to.completed(&mut self.gone)?;
        // Home in the pool of the card that they came in by.
        self.gone.clear();
        // One that is blocked takes nothing, but posts the buffers that have come back.
        let room = if way.held.is_empty() { self.batch } else { 0 };
        let most = usize::try_from(most).map_or(room, |most| most.min(room));
        let took = from.recv(&mut self.came, most)?;
        if let Some(tap) = tap {
            for received in &self.came {
                tap(side, received)?;
            }
        }
        for received in self.came.drain(..) {
            way.take(received);
        }
        let handed = way.hand_over(*to)?;
        *moved += back + took + handed;
        if way.look_after(back + handed) {
            // Is it slow, or is it no more?
            to.check()?;
        }
        Ok(took)
    }

    /// Sleeps until a card has something to do, or until `timeout`: `true` where one has.
    ///
    /// # Errors
    /// As [`Wait::arm`](crate::wait::Wait::arm).
    pub fn wait(&mut self, timeout: Duration) -> Result<bool> {
        let [a, b] = &mut self.cards;
        let came = wait_any(&mut [a.pair_mut(0), b.pair_mut(0)], timeout)?;
        self.cards.iter_mut().try_for_each(|card| card.service())?;
        Ok(came)
    }

    /// Frames that were taken: handed over, or held.
    fn taken(&self) -> u64 {
        let each = self.ways.iter();
        each.map(|way| way.passed.frames + way.held.len() as u64)
            .sum()
    }

    /// Returns whether a frame is held: the card that it came in by has more then, and a wait would not sleep.
    fn is_blocked(&self) -> bool {
        self.ways.iter().any(|way| !way.held.is_empty())
    }

    /// Sends all that was taken.
    fn drain(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while (self.is_blocked() || self.cards.iter().any(|card| card.in_flight() > 0))
            && Instant::now() < end
        {
            if self.round(0, None)? == 0 {
                std::hint::spin_loop();
            }
        }
        Ok(())
    }
}

impl Way {
    /// A frame that came in, made ready for the other card.
    #[inline]
    fn take(&mut self, received: Received) {
        let mut frame = received.frame;
        if let Some(tci) = received.info.vlan() {
            frame.set_offload(frame.offload().with_vlan(tci));
        }
        if !self.offloads.contains(frame.offload().flags) {
            self.passed.not_offered += 1;
            return;
        }
        if self.rewrite != Rewrite::default() {
            self.readdress(&mut frame);
        }
        self.passed.bytes += frame.len() as u64;
        self.held.push(frame);
    }

    fn readdress(&self, frame: &mut Frame) {
        let first = frame.first_mut();
        if !first.is_buffer() || first.len() < ETHERNET_HEADER {
            return;
        }
        if self.rewrite.source {
            first.put(6, &self.mac.0);
        }
        // Bit 0 of the first byte: a group.
        let to_group = first.array::<1>(0).is_some_and(|[first]| first & 1 != 0);
        if let Some(Mac(mac)) = self.rewrite.destination.filter(|_| !to_group) {
            first.put(0, &mac);
        }
    }

    /// Hands the frames to the other card, as many as it has room for; gives how many.
    fn hand_over(&mut self, to: &mut dyn Nic) -> Result<usize> {
        let before = self.held.len();
        if before == 0 {
            return Ok(0);
        }
        let mut dropped = 0;
        while let Err(error) = to.submit(&mut self.held) {
            let counter = match error {
                Error::FrameLength { .. } => &mut self.passed.bad_length,
                Error::NotOffered { .. } => &mut self.passed.not_offered,
                other => return Err(other),
            };
            *counter += 1;
            dropped += 1;
            // The one that was refused is at the front.
            let refused = self.held.remove(0);
            self.passed.bytes -= refused.len() as u64;
        }
        to.doorbell()?;
        let handed = before - dropped - self.held.len();
        self.passed.frames += handed as u64;
        Ok(handed)
    }

    /// Gives up a card that takes nothing, until it does again; `moved` is what it took or gave back.
    /// `true`: it does so just now.
    fn look_after(&mut self, moved: usize) -> bool {
        let before = self.given_up;
        if self.held.is_empty() || moved > 0 {
            self.full = 0;
            self.since = None;
            self.given_up &= moved == 0;
        } else if !self.given_up {
            self.full = self.full.wrapping_add(1);
            std::hint::spin_loop();
            if self.full.is_multiple_of(LOOK) {
                let since = *self.since.get_or_insert_with(Instant::now);
                self.given_up = since.elapsed() > PATIENCE;
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        if self.given_up {
            self.passed.no_room += self.held.len() as u64;
            let lost: usize = self.held.drain(..).map(|frame| frame.len()).sum();
            self.passed.bytes -= lost as u64;
        }
        self.given_up && !before
    }
}

//! `pinwire show`: a card's registers and rings at one moment, decoded.
//!
//! The card is started as for sending, so that its rings are armed, and looked at from inside; a
//! kernel driver's rings cannot be seen this way.

use std::fmt::Write;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::Value;

use super::output::{self, Outcome};
use crate::dma::Pool;
use crate::inspect::RingView;
use crate::lab::bench::synthetic;
use crate::net::NOBODY;
use crate::nic::{Frame, Nic, NicConfig, Stats};
use crate::open::Drivers;
use crate::scope::json;
use crate::scope::text::paint::{Ink, Paint};
use crate::scope::text::{features, registers, ring};
use crate::{DeviceSpec, Error};

const EXAMPLES: &str = "\
A ring that has just been armed, and the stages that ten frames go through:
  pinwire show qtest:e1000 --ring rx
  pinwire show qtest:e1000 --ring tx --after 10 --stage posted
  pinwire show qtest:e1000 --ring tx --after 10 --stage sent
  pinwire show qtest:e1000 --ring tx --after 10 --stage reaped

The device owns the descriptors from head up to the tail, the driver the others: sending moves the \
tail, and the device follows with the head.";

/// Longest time for sending them.
const REAP: Duration = Duration::from_secs(1);

/// Bytes of the frames that --after sends.
const LENGTH: usize = 64;

/// Shows a card's registers and rings, decoded
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The card: a PCI address, or qtest:MODEL
    device: DeviceSpec,

    /// Show the registers (and of the rings only those that --ring names)
    #[arg(long)]
    registers: bool,

    /// Show this ring only
    #[arg(long, value_name = "RING")]
    ring: Option<Which>,

    /// Show every descriptor, however alike they are
    #[arg(long)]
    all: bool,

    /// First send N frames of 64 bytes
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: usize,

    /// Stage that those frames reach
    #[arg(long, value_enum, default_value_t = Stage::Sent, requires = "after")]
    stage: Stage,

    /// Descriptors of each ring
    #[arg(long, value_name = "N", default_value_t = NicConfig::default().tx_ring)]
    descriptors: usize,

    /// For programs: one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// Written into descriptors; the tail has not moved, so the device does not know
    Posted,
    /// Handed to the device by moving the tail, and left in the ring
    Sent,
    /// Taken back from the device
    Reaped,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    /// The transmit ring
    Tx,
    /// The receive ring
    Rx,
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Self::Tx => "transmit",
            Self::Rx => "receive",
        }
    }
}

impl Args {
    /// Runs it.
    pub fn run(self, drivers: &Drivers) -> Outcome {
        let config = NicConfig::default()
            .tx_ring(self.descriptors)
            .rx_ring(self.descriptors);
        let mut nic = drivers.open(&self.device, &config, None)?;
        self.prepare(nic.as_mut())?;
        let stats = nic.stats();
        let text = match self.json {
            true => self.json(nic.as_ref(), stats).to_string(),
            false => self.text(nic.as_ref(), stats, Paint::stdout()),
        };
        nic.stop()?;
        output::line(text.trim_end())
    }

    /// Sends what --after wants.
    fn prepare(&self, nic: &mut dyn Nic) -> Result<(), Error> {
        if self.after == 0 {
            return Ok(());
        }
        let frame = synthetic::frame(nic.mac(), NOBODY, LENGTH);
        let pool = Pool::new(nic.dma(), self.after, LENGTH)?;
        let mut frames = Vec::new();
        while let Some(mut buf) = pool.alloc() {
            buf.fill(&frame);
            frames.push(Frame::from(buf));
        }
        nic.submit(&mut frames)?;
        if !frames.is_empty() {
            return Err(Error::Usage(format!(
                "--after {}: the ring had no room for {} of them; of {} descriptors (--descriptors) it \
                 takes {} at once",
                self.after,
                frames.len(),
                self.descriptors,
                nic.tx_capacity(self.descriptors)
            )));
        }
        if self.stage != Stage::Posted {
            nic.doorbell()?;
        }
        if self.stage == Stage::Reaped {
            let deadline = Instant::now() + REAP;
            while nic.in_flight() > 0 && Instant::now() < deadline {
                nic.completed(&mut frames)?;
            }
        }
        Ok(())
    }

    fn shows_registers(&self) -> bool {
        self.registers || self.ring.is_none()
    }

    /// The rings to show.
    fn rings(&self, nic: &dyn Nic) -> Vec<RingView> {
        let mut rings = nic.rings();
        match self.ring {
            Some(which) => rings.retain(|ring| ring.name == which.name()),
            None if self.registers => rings.clear(),
            None => {}
        }
        rings
    }

    fn json(&self, nic: &dyn Nic, stats: Stats) -> Value {
        let mut card = json::card(nic, stats);
        if self.shows_registers() {
            let registers = nic.registers().iter().map(json::register).collect();
            card.insert("registers".to_owned(), registers);
        }
        let features = nic.features();
        if !features.is_empty() {
            let features = features.iter().map(json::feature).collect();
            card.insert("features".to_owned(), features);
        }
        let rings = self.rings(nic).iter().map(json::ring).collect();
        card.insert("rings".to_owned(), rings);
        Value::Object(card)
    }

    fn text(&self, nic: &dyn Nic, stats: Stats, paint: Paint) -> String {
        let mut text = head(nic, stats, paint);
        let features = nic.features();
        if self.shows_registers() && !features.is_empty() {
            text.push('\n');
            text += &features::draw(&features, paint);
        }
        if self.shows_registers() {
            let table = nic.register_table();
            text.push('\n');
            text += &registers::draw(table, &nic.registers(), paint);
        }
        for ring in self.rings(nic) {
            text.push('\n');
            text += &ring::draw(&ring, self.all, paint);
        }
        text
    }
}

/// Returns the three lines that tell which card it is.
fn head(nic: &dyn Nic, stats: Stats, paint: Paint) -> String {
    let link = nic.link();
    let mut text = paint.ink(Ink::Title, nic.name());
    let _ = write!(
        text,
        "  {}, {}, link {link}\nsent {} frames ({} bytes), received {} ({} bytes), bad {}, missed {}\n\
         counted by the {}\n",
        nic.model(),
        nic.mac(),
        stats.tx_frames,
        stats.tx_bytes,
        stats.rx_frames,
        stats.rx_bytes,
        stats.rx_errors,
        stats
            .rx_missed
            .map_or("not known".to_owned(), |missed| missed.to_string()),
        stats.counted_by,
    );
    text
}

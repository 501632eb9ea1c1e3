//! The way of a byte: boxes for where it is, arrows for who carries it on.
//!
//! Where a file is sent, a place is at the same spot in every row, so that one sees what a rung leaves
//! out. Other ways go back and forth, and are drawn from left to right.

use plotters::prelude::*;

use super::super::way::{Stop, Way};
use super::INK;
use crate::cli::picture::{At, Canvas, Drawn, text};
use crate::paths::ladder::{Carrier, Kind, Place};

/// Colours of what the processor copies, of what a device moves, and of what goes on as a reference.
pub const CPU: RGBColor = RGBColor(0xd1, 0x49, 0x2e);
pub const DMA: RGBColor = RGBColor(0x1d, 0x8a, 0x62);
const REFERENCE: RGBColor = RGBColor(0x8a, 0x94, 0xa3);

/// Colours behind what is the kernel's, the program's, the hardware's.
const KERNEL: RGBColor = RGBColor(0xfb, 0xea, 0xce);
const PROGRAM: RGBColor = RGBColor(0xd8, 0xe7, 0xf7);
const HARDWARE: RGBColor = RGBColor(0xe4, 0xe8, 0xed);

/// Spots where a place may be.
const SPOTS: usize = 6;
const BOX: (f64, f64) = (82.0, 27.0);

/// `way`, between two sides and around `y`.
pub fn draw<B: DrawingBackend<ErrorType: 'static>>(
    canvas: &Canvas<'_, B>,
    kind: Kind,
    way: &Way,
    (left, right): (f64, f64),
    y: f64,
) -> Drawn {
    let stops: Vec<Stop> = std::iter::once(way.begin)
        .chain(way.stretches.iter().map(|stretch| stretch.to))
        .collect();
    let places: Vec<usize> = stops.iter().map(|stop| spot(*stop)).collect();
    let spots: Vec<usize> = match kind {
        Kind::Send | Kind::Copy if places.is_sorted_by(|a, b| a < b) => places,
        _ => (0..stops.len()).collect(),
    };
    let all = spots
        .iter()
        .max()
        .map_or(SPOTS, |last| (last + 1).max(SPOTS));
    let width = if all > SPOTS { 64.0 } else { BOX.0 };
    let step = (right - left - width) / (all - 1) as f64;
    let x = |spot: usize| left + width / 2.0 + step * spot as f64;
    for (stretch, pair) in way.stretches.iter().zip(spots.windows(2)) {
        let (from, to) = (
            x(pair[0]) + width / 2.0 + 2.0,
            x(pair[1]) - width / 2.0 - 2.0,
        );
        // One below the other where several carry it.
        let between = 11.0;
        let top = y - between * (stretch.by.len() as f64 - 1.0) / 2.0;
        for (nth, by) in stretch.by.iter().enumerate() {
            arrow(canvas, (from, top + between * nth as f64), to, *by)?;
        }
    }
    for (stop, spot) in stops.into_iter().zip(spots) {
        let (x, half) = (x(spot), (width / 2.0, BOX.1 / 2.0));
        let (from, to): (At, At) = ((x - half.0, y - half.1), (x + half.0, y + half.1));
        canvas.rounded(from, to, 6.0, colour(stop))?;
        canvas.text(
            (x, y),
            stop.name(),
            text(if all > SPOTS { 11.5 } else { 13.0 }, INK).centred(),
        )?;
    }
    Ok(())
}

/// An arrow from `at` to the right.
pub fn arrow<B: DrawingBackend<ErrorType: 'static>>(
    canvas: &Canvas<'_, B>,
    (from, y): At,
    to: f64,
    by: Carrier,
) -> Drawn {
    let (colour, half) = match by {
        Carrier::Cpu => (CPU, 2.0),
        Carrier::Dma => (DMA, 2.0),
        Carrier::Reference => (REFERENCE, 1.0),
    };
    let neck = to - 9.0;
    match by {
        Carrier::Reference => {
            let mut x = from;
            while x < neck {
                canvas.fill((x, y - half), ((x + 4.0).min(neck), y + half), colour)?;
                x += 7.0;
            }
        }
        Carrier::Cpu | Carrier::Dma => {
            canvas.fill((from, y - half), (neck + 1.0, y + half), colour)?
        }
    }
    canvas.shape(&[(neck, y - 5.5), (to, y), (neck, y + 5.5)], colour)
}

/// Returns the spot of a place when a file is sent.
fn spot(stop: Stop) -> usize {
    match stop {
        Stop::Disk | Stop::Feeder => 0,
        Stop::At(Place::PageCache) => 1,
        Stop::At(Place::User) => 2,
        Stop::At(Place::Pipe) => 3,
        Stop::At(Place::Socket | Place::Ring | Place::Pinned) => 4,
        Stop::At(Place::Card | Place::OtherFile) | Stop::Receiver => 5,
    }
}

fn colour(stop: Stop) -> RGBColor {
    match stop {
        Stop::At(Place::PageCache | Place::Pipe | Place::Socket | Place::OtherFile)
        | Stop::Receiver => KERNEL,
        Stop::At(Place::User | Place::Ring | Place::Pinned) | Stop::Feeder => PROGRAM,
        Stop::At(Place::Card) | Stop::Disk => HARDWARE,
    }
}

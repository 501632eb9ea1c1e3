//! The way of a byte: boxes for where it is, arrows for who carries it on.
//!
//! Where a file is sent, a place is at the same spot in every row, so that one sees what a rung leaves
//! out. Other ways go back and forth, and are drawn from left to right.

use pinwire::ladder::{Carrier, Kind, Place, Rung};
use plotters::prelude::*;

use super::super::list;
use super::INK;
use crate::cli::picture::{At, Canvas, Drawn, text};

/// What the processor copies, and what a device moves.
pub const CPU: RGBColor = RGBColor(0xd1, 0x49, 0x2e);
pub const DMA: RGBColor = RGBColor(0x1d, 0x8a, 0x62);
const REFERENCE: RGBColor = RGBColor(0x8a, 0x94, 0xa3);

/// Behind what is the kernel's, the program's, the hardware's.
const KERNEL: RGBColor = RGBColor(0xfb, 0xea, 0xce);
const PROGRAM: RGBColor = RGBColor(0xd8, 0xe7, 0xf7);
const HARDWARE: RGBColor = RGBColor(0xe4, 0xe8, 0xed);

/// Spots where a place may be.
const SPOTS: usize = 6;
const BOX: (f64, f64) = (82.0, 27.0);

/// The way on `rung`, between two sides and around `y`.
pub fn draw<B: DrawingBackend<ErrorType: 'static>>(
    canvas: &Canvas<'_, B>,
    rung: &Rung,
    (left, right): (f64, f64),
    y: f64,
) -> Drawn {
    let mut boxes = vec![(list::begin(rung.kind), begin(rung.kind))];
    boxes.extend(
        rung.hops
            .iter()
            .map(|hop| (list::place(hop.to), colour(hop.to))),
    );
    let places: Vec<_> = rung.hops.iter().map(|hop| spot(hop.to)).collect();
    let spots: Vec<usize> = match rung.kind {
        Kind::Send | Kind::Copy if places.is_sorted_by(|a, b| a < b) => {
            std::iter::once(0).chain(places).collect()
        }
        _ => (0..boxes.len()).collect(),
    };
    let all = spots
        .iter()
        .max()
        .map_or(SPOTS, |last| (last + 1).max(SPOTS));
    let width = if all > SPOTS { 64.0 } else { BOX.0 };
    let step = (right - left - width) / (all - 1) as f64;
    let x = |spot: usize| left + width / 2.0 + step * spot as f64;
    for (hop, pair) in rung.hops.iter().zip(spots.windows(2)) {
        let (from, to) = (
            x(pair[0]) + width / 2.0 + 2.0,
            x(pair[1]) - width / 2.0 - 2.0,
        );
        arrow(canvas, (from, y), to, hop.by)?;
    }
    for ((name, colour), spot) in boxes.into_iter().zip(spots) {
        let (x, half) = (x(spot), (width / 2.0, BOX.1 / 2.0));
        let (from, to): (At, At) = ((x - half.0, y - half.1), (x + half.0, y + half.1));
        canvas.rounded(from, to, 6.0, colour)?;
        canvas.text(
            (x, y),
            name,
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

/// Behind where a payload begins: the disk, or a program that feeds a stream.
fn begin(kind: Kind) -> RGBColor {
    match kind {
        Kind::Send | Kind::Copy => HARDWARE,
        Kind::Relay | Kind::Log => PROGRAM,
    }
}

/// Where a place is when a file is sent.
fn spot(place: Place) -> usize {
    match place {
        Place::PageCache => 1,
        Place::User => 2,
        Place::Pipe => 3,
        Place::Socket | Place::Ring | Place::Pinned => 4,
        Place::Card | Place::OtherFile => 5,
    }
}

fn colour(place: Place) -> RGBColor {
    match place {
        Place::PageCache | Place::Pipe | Place::Socket | Place::OtherFile => KERNEL,
        Place::User | Place::Ring | Place::Pinned => PROGRAM,
        Place::Card => HARDWARE,
    }
}

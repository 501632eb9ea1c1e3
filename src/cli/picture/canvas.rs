//! Drawing in units, whatever the backend's pixels are.
//!
//! Everything but text is made of filled shapes: those look the same in an SVG and in a PNG.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Drawn, FONT};

/// The area that a picture is drawn on.
pub struct Canvas<'a, B: DrawingBackend> {
    area: &'a DrawingArea<B, Shift>,
    scale: u32,
    /// True if it is of pixels that we set ourselves.
    raster: bool,
}

/// The style of a text: its size in units, and more.
#[derive(Clone, Copy)]
pub struct Type {
    size: f64,
    bold: bool,
    colour: RGBColor,
    side: HPos,
}

/// Text of `size` and `colour` that begins at its point.
pub const fn text(size: f64, colour: RGBColor) -> Type {
    Type {
        size,
        bold: false,
        colour,
        side: HPos::Left,
    }
}

impl Type {
    /// Returns it in bold.
    pub const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    /// Its middle at its point.
    pub const fn centred(self) -> Self {
        Self {
            side: HPos::Center,
            ..self
        }
    }

    /// Its end at its point.
    pub const fn ending(self) -> Self {
        Self {
            side: HPos::Right,
            ..self
        }
    }
}

/// A point, in units from the upper left corner.
pub type At = (f64, f64);

impl<'a, B: DrawingBackend<ErrorType: 'static>> Canvas<'a, B> {
    pub(super) fn new(area: &'a DrawingArea<B, Shift>, scale: u32, raster: bool) -> Self {
        Self {
            area,
            scale,
            raster,
        }
    }

    /// All of it, for who draws with plotters alone.
    pub fn area(&self) -> &DrawingArea<B, Shift> {
        self.area
    }

    /// Returns the number of the area's pixels that are a unit.
    pub fn scale(&self) -> u32 {
        self.scale
    }

    fn pixel(&self, (x, y): At) -> (i32, i32) {
        let scale = f64::from(self.scale);
        ((x * scale).round() as i32, (y * scale).round() as i32)
    }

    /// A filled rectangle between two corners.
    pub fn fill(&self, from: At, to: At, colour: impl Color) -> Drawn {
        let corners = [self.pixel(from), self.pixel(to)];
        self.area.draw(&Rectangle::new(corners, colour.filled()))?;
        Ok(())
    }

    /// A filled shape.
    pub fn shape(&self, corners: &[At], colour: impl Color) -> Drawn {
        let corners: Vec<_> = corners.iter().map(|at| self.pixel(*at)).collect();
        self.area.draw(&Polygon::new(corners, colour.filled()))?;
        Ok(())
    }

    /// A filled rectangle with round corners.
    pub fn rounded(&self, (x0, y0): At, (x1, y1): At, radius: f64, colour: impl Color) -> Drawn {
        let centres = [
            (x1 - radius, y1 - radius),
            (x0 + radius, y1 - radius),
            (x0 + radius, y0 + radius),
            (x1 - radius, y0 + radius),
        ];
        let mut corners = Vec::new();
        for (quarter, (x, y)) in centres.into_iter().enumerate() {
            for step in 0..=6 {
                let angle = (f64::from(step) / 6.0 + quarter as f64) * std::f64::consts::FRAC_PI_2;
                corners.push((x + radius * angle.cos(), y + radius * angle.sin()));
            }
        }
        self.shape(&corners, colour)
    }

    /// Sets a line of text; `at` is in the middle of its height.
    pub fn text(&self, at: At, text: &str, how: Type) -> Drawn {
        // Plotters' SVG has letters of 1/1.24 of a size, its bitmap a few percent more, and too high.
        let (size, (x, y)) = (how.size * 1.24, at);
        let (size, y) = match self.raster {
            true => (size * 0.938, y + how.size * 0.25),
            false => (size, y),
        };
        let style = match how.bold {
            true => FontStyle::Bold,
            false => FontStyle::Normal,
        };
        let font = (FONT, size * f64::from(self.scale), style);
        let style = TextStyle::from(font.into_font())
            .color(&how.colour)
            .pos(Pos::new(how.side, VPos::Center));
        self.area.draw_text(text, &style, self.pixel((x, y)))?;
        Ok(())
    }
}

//! Bars of processor time, and the axis below them.

use plotters::prelude::*;

use super::{BARS, FAINT, INK, RULE};
use crate::cli::picture::{Canvas, Drawn, text};
use crate::lab::spread::Spread;

/// The parts of a bar, in colours that those who see few of them can tell apart.
pub const PARTS: [(RGBColor, &str); 3] = [
    (RGBColor(0x2f, 0x6d, 0xb5), "in the program"),
    (RGBColor(0xf0, 0xa0, 0x30), "in the kernel"),
    (RGBColor(0xc0, 0x78, 0xa8), "in interrupts"),
];

/// Colour and name of time that is not told apart: the kernel samples who runs, and this was too short for that.
pub const WHOLE: (RGBColor, &str) = (RGBColor(0x9a, 0xa5, 0xb1), "not told apart");

/// Steps of an axis, at most.
const STEPS: f64 = 5.0;

/// An axis from 0 to a round number.
pub struct Axis {
    step: f64,
    end: f64,
}

impl Axis {
    /// One that `most` is on.
    pub fn to(most: f64) -> Self {
        let rough = (most / STEPS).max(1e-9);
        let ten = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|times| times * ten);
        let step = step.into_iter().find(|step| *step >= rough * 0.999);
        let step = step.unwrap_or(ten);
        let end = step * (most / step).ceil().max(1.0);
        Self { step, end }
    }

    /// Returns the horizontal place of a value.
    pub fn x(&self, value: f64) -> f64 {
        BARS.0 + (BARS.1 - BARS.0) * value / self.end
    }

    /// Its lines, and what they are.
    pub fn draw<B: DrawingBackend<ErrorType: 'static>>(
        &self,
        canvas: &Canvas<'_, B>,
        (top, bottom): (f64, f64),
    ) -> Drawn {
        let steps = (self.end / self.step).round() as u32;
        for value in (0..=steps).map(|step| f64::from(step) * self.step) {
            let x = self.x(value);
            canvas.fill((x - 0.5, top), (x + 0.5, bottom + 4.0), RULE)?;
            let label = self.label(value);
            canvas.text((x, bottom + 14.0), &label, text(11.5, FAINT).centred())?;
        }
        Ok(())
    }

    /// A value at a step, with as many digits as the steps have.
    fn label(&self, value: f64) -> String {
        let is_whole = |digits: &i32| {
            let step = self.step * 10f64.powi(*digits);
            (step - step.round()).abs() < 1e-6 * step
        };
        let digits = (0..9).find(is_whole).unwrap_or(9) as usize;
        format!("{value:.digits$}")
    }

    /// A bar around `y`: its parts one after the other, and how far the rounds went.
    pub fn bar<B: DrawingBackend<ErrorType: 'static>>(
        &self,
        canvas: &Canvas<'_, B>,
        (y, height): (f64, f64),
        parts: &[(f64, RGBColor)],
        whole: Spread,
    ) -> Drawn {
        let fill = |from, to, colour| {
            canvas.fill((from, y - height / 2.0), (to, y + height / 2.0), colour)
        };
        // What was measured is to be seen, however little it is.
        let all: f64 = parts.iter().map(|(part, _)| part).sum();
        if let Some(&(_, colour)) = parts.iter().max_by(|a, b| a.0.total_cmp(&b.0))
            && self.x(all) - self.x(0.0) < 1.0
        {
            fill(self.x(0.0), self.x(0.0) + 1.0, colour)?;
        }
        let mut begin = 0.0;
        for &(part, colour) in parts {
            let (from, to) = (self.x(begin), self.x(begin + part));
            if to - from >= 0.25 {
                fill(from, to, colour)?;
            }
            begin += part;
        }
        let (least, most) = (self.x(whole.min), self.x(whole.max));
        canvas.fill((least, y - 1.0), (most, y + 1.0), INK)?;
        for x in [least, most] {
            canvas.fill((x - 0.75, y - 4.0), (x + 0.75, y + 4.0), INK)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_as_it_is() {
        for (most, label) in [(1.21, "0.25"), (12.0, "2.5"), (98.2, "20"), (0.04, "0.01")] {
            let axis = Axis::to(most);
            assert_eq!(axis.label(axis.step), label);
        }
    }

    #[test]
    fn an_axis_ends_at_a_round_number_behind_the_longest_bar() {
        for (most, end) in [
            (98.2, 100.0),
            (3.75, 4.0),
            (0.45, 0.5),
            (1.0, 1.0),
            (134.0, 150.0),
        ] {
            let axis = Axis::to(most);
            assert!((axis.end - end).abs() < 1e-9, "{most}: {}", axis.end);
            assert!(axis.x(most) <= BARS.1 + 1e-9);
        }
        assert!(Axis::to(0.0).end > 0.0);
    }
}

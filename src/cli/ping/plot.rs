//! The histogram as a picture.

use std::time::Duration;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::histogram::{self, Histogram};
use crate::cli::picture::{Canvas, Drawn, FONT, Picture};

/// Round trips, sorted.
pub struct RoundTrips<'a> {
    /// The title: by what and to whom.
    pub title: &'a str,
    /// The RTTs.
    pub times: &'a [Duration],
}

impl Picture for RoundTrips<'_> {
    fn size(&self) -> (u32, u32) {
        (800, 400)
    }

    fn draw<B: DrawingBackend<ErrorType: 'static>>(&self, canvas: &Canvas<'_, B>) -> Drawn {
        let (root, scale) = (canvas.area(), canvas.scale());
        let Self { title, times } = *self;
        let histogram = Histogram::of(times);
        let bins: Vec<_> = histogram.bins().collect();
        let (from, to) = match (bins.first(), bins.last()) {
            (Some((from, _, _)), Some((_, to, _))) => (*from, *to),
            _ => (1.0, 10.0),
        };
        let most = bins.iter().map(|(_, _, count)| *count).max().unwrap_or(1);
        let title = format!("Round trips: {title}, {} answers", times.len());
        let mut chart = ChartBuilder::on(root)
            .caption(title, (FONT, 18 * scale))
            .margin(12 * scale)
            .x_label_area_size(48 * scale)
            .y_label_area_size(64 * scale)
            .build_cartesian_2d((from..to).log_scale(), 0..most + most.div_ceil(10))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_desc("round trip")
            .y_desc("answers")
            .axis_desc_style((FONT, 14 * scale))
            .label_style((FONT, 12 * scale))
            .set_all_tick_mark_size(4 * scale)
            .bold_line_style(BLACK.mix(0.2).stroke_width(scale))
            .light_line_style(TRANSPARENT)
            .axis_style(BLACK.stroke_width(scale))
            .x_label_formatter(&tick)
            .draw()?;
        let ink = RGBColor(0x2b, 0x6c, 0xb0);
        chart
            .draw_series(bins.iter().map(|(from, to, count)| {
                Rectangle::new([(*from, 0), (*to, *count)], ink.filled())
            }))?;
        let middle = times.get(times.len() / 2).copied().unwrap_or_default();
        let at = middle.as_secs_f64() * 1e6;
        if !times.is_empty() {
            // Red with white beside it: red alone is hard to see on a bar.
            for (ink, width) in [(WHITE, 4), (RGBColor(0xc0, 0x39, 0x2b), 2)] {
                let line = [(at, 0), (at, most)];
                let style = ink.stroke_width(width * scale);
                chart.draw_series([PathElement::new(line, style)])?;
            }
            let label = format!("median {}", histogram::time(middle));
            // Above all bars, and into the picture: dark on a bar it could not be read.
            let side = match at < (from * to).sqrt() {
                true => HPos::Left,
                false => HPos::Right,
            };
            let style = (FONT, 14 * scale).with_color(BLACK).into_text_style(root);
            let style = style.pos(Pos::new(side, VPos::Bottom));
            chart.draw_series([Text::new(label, (at, most), style)])?;
        }
        Ok(())
    }
}

/// Returns the label of a tick: empty where its neighbours would be too near, as towards the end of a decade.
fn tick(micros: &f64) -> String {
    let digit = (micros / 10f64.powf(micros.log10().floor())).round() as u32;
    match digit {
        1 | 2 | 5 | 10 => histogram::time(Duration::from_secs_f64(micros / 1e6)),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::picture;

    #[test]
    fn a_picture_is_an_svg_with_a_bar_for_each_bin() {
        let times: Vec<_> = [100, 100, 101, 400]
            .into_iter()
            .map(Duration::from_micros)
            .collect();
        for times in [&times[..], &times[..1], &[]] {
            let title = "a card";
            let picture = picture::svg(&RoundTrips { title, times }).unwrap();
            assert!(picture.starts_with("<svg"), "{picture}");
            assert!(picture.trim_end().ends_with("</svg>"), "{picture}");
            let bars = picture.matches("fill=\"#2B6CB0\"").count();
            assert_eq!(bars, Histogram::of(times).bins().count(), "{picture}");
            assert!(picture.contains("a card"));
        }
    }

    #[test]
    fn the_median_is_written_above_the_bars_and_within_the_picture() {
        for micros in [[100, 101, 102, 9000], [100, 9000, 9001, 9002]] {
            let times: Vec<_> = micros.into_iter().map(Duration::from_micros).collect();
            let title = "a card";
            let times = &times[..];
            let picture = picture::svg(&RoundTrips { title, times }).unwrap();
            let of = |pattern: &str| -> Vec<[f64; 2]> {
                let pattern = regex_lite::Regex::new(pattern).unwrap();
                let found = pattern.captures_iter(&picture);
                found
                    .map(|found| [1, 2].map(|at| found[at].parse().unwrap()))
                    .collect()
            };
            let bars = of(r##"<rect x="(\d+)" y="(\d+)" [^>]*fill="#2B6CB0"##);
            let top = bars.iter().map(|[_, y]| *y).fold(f64::MAX, f64::min);
            let side = if micros[1] == 101 { "start" } else { "end" };
            let label = of(&format!(
                r##"<text x="(\d+)" y="(\d+)" [^>]*text-anchor="{side}"[^>]*>\s*median"##
            ));
            let [[x, y]] = label[..] else {
                panic!("{side}: {picture}");
            };
            assert!(y <= top && y > 0.0, "{y}, {top}: {picture}");
            assert!((0.0..=3200.0).contains(&x), "{picture}");
        }
    }
}

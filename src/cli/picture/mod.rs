//! Pictures, as the ending of their file's name says: SVG, whose text the viewer sets, or PNG.
//!
//! A picture is drawn once, for either. A PNG has two pixels for each unit in either direction, so that
//! it is sharp on a projector, and is drawn at twice that size for edges that are not stairs.

mod canvas;

use std::error::Error as StdError;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Once;

use plotters::prelude::*;
use plotters::style::register_font;

use crate::{Error, user_file};

pub use self::canvas::{At, Canvas, text};

/// The family of all text. In a PNG it is DejaVu Sans, in an SVG what the viewer takes for it.
pub const FONT: &str = "sans-serif";

/// Pixels of a PNG for a unit, and how many are drawn for one of them, in either direction.
const PIXELS: u32 = 2;
const DRAWN: u32 = 2;
/// Parts of a unit; an SVG is drawn to no less.
const SCALE: u32 = PIXELS * DRAWN;

/// The result of drawing.
pub type Drawn = Result<(), Box<dyn StdError>>;

/// A picture that can be drawn.
pub trait Picture {
    /// Width and height, in units.
    fn size(&self) -> (u32, u32);

    /// Draws it.
    ///
    /// # Errors
    /// The backend's own.
    fn draw<B: DrawingBackend<ErrorType: 'static>>(&self, canvas: &Canvas<'_, B>) -> Drawn;
}

/// A name that ends in `.svg` or `.png`.
///
/// # Errors
/// The replacement.
pub fn path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg" | "png") => Ok(path),
        _ => Err(
            "write a name that ends in .svg or .png, the kinds of picture that it draws".to_owned(),
        ),
    }
}

/// Draws `picture` into the file at `path`.
///
/// # Errors
/// If it cannot be written.
pub fn save(path: &Path, picture: &impl Picture) -> Result<(), Error> {
    let bytes = match path.extension().is_some_and(|extension| extension == "png") {
        true => png(picture),
        false => svg(picture).map(String::into_bytes),
    };
    let cannot = |source| Error::io(format!("cannot write {}", path.display()), source);
    let bytes = bytes.map_err(|why| cannot(std::io::Error::other(why.to_string())))?;
    user_file::create(path)
        .and_then(|mut file| file.write_all(&bytes))
        .map_err(cannot)
}

/// Plotters needs a font to know how wide text is, also where another sets it.
fn with_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (style, bytes) in [
            (FontStyle::Normal, dejavu::sans::regular()),
            (FontStyle::Bold, dejavu::sans::bold()),
        ] {
            assert!(
                register_font(FONT, style, bytes).is_ok(),
                "a font that is one"
            );
        }
    });
}

/// The picture as SVG.
///
/// # Errors
/// Plotters' own.
pub fn svg(picture: &impl Picture) -> Result<String, Box<dyn StdError>> {
    with_font();
    let (width, height) = picture.size();
    let size = (width * SCALE, height * SCALE);
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    area.fill(&WHITE)?;
    picture.draw(&Canvas::new(&area, SCALE, false))?;
    area.present()?;
    drop(area);
    // What is drawn (`viewBox`) stays that large, what is shown does not.
    let drawn = format!("<svg width=\"{}\" height=\"{}\"", size.0, size.1);
    let shown = format!("<svg width=\"{width}\" height=\"{height}\"");
    Ok(text.replacen(&drawn, &shown, 1))
}

/// The picture as PNG.
///
/// # Errors
/// Plotters' own, or the encoder's.
pub fn png(picture: &impl Picture) -> Result<Vec<u8>, Box<dyn StdError>> {
    with_font();
    let (width, height) = picture.size();
    let (width, height) = (width * PIXELS, height * PIXELS);
    let mut drawn = vec![0; (width * DRAWN * height * DRAWN * 3) as usize];
    let size = (width * DRAWN, height * DRAWN);
    let area = BitMapBackend::with_buffer(&mut drawn, size).into_drawing_area();
    area.fill(&WHITE)?;
    picture.draw(&Canvas::new(&area, SCALE, true))?;
    area.present()?;
    drop(area);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder
        .write_header()?
        .write_image_data(&averaged(&drawn, width as usize, height as usize))?;
    Ok(bytes)
}

/// Each pixel as the mean of those drawn for it.
fn averaged(drawn: &[u8], width: usize, height: usize) -> Vec<u8> {
    let each = DRAWN as usize;
    let mut image = Vec::with_capacity(width * height * 3);
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        for colour in 0..3 {
            let at = |row: usize, column: usize| {
                drawn[((y * each + row) * width * each + x * each + column) * 3 + colour]
            };
            let parts = (0..each).flat_map(|row| (0..each).map(move |column| (row, column)));
            let sum: u32 = parts.map(|(row, column)| u32::from(at(row, column))).sum();
            image.push((sum / (DRAWN * DRAWN)) as u8);
        }
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_kind_of_picture_is_refused() {
        assert!(path("rtt.svg").is_ok());
        assert!(path("rtt.png").is_ok());
        for name in ["rtt.jpg", "rtt", ".svg.gz", "svg"] {
            assert!(path(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_pixel_is_the_mean_of_those_drawn() {
        let rows = [[0, 255, 10, 20], [255, 0, 30, 40]];
        let drawn: Vec<u8> = rows.iter().flatten().flat_map(|grey| [*grey; 3]).collect();
        assert_eq!(averaged(&drawn, 2, 1), [127, 127, 127, 25, 25, 25]);
    }
}

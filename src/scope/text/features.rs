//! The features that driver and device negotiated, bit by bit (virtio 1.2, §2.2).

use std::fmt::Write;

use super::paint::{Ink, Paint};
use crate::inspect::FeatureView;

/// A line a feature that is offered: its bit, its name, and whether it is used.
pub fn draw(features: &[FeatureView], paint: Paint) -> String {
    let features = features
        .iter()
        .filter(|feature| feature.offered || feature.negotiated);
    let mut text = paint.ink(Ink::Title, "features");
    text += "  what the device offers; yes: it was negotiated\n";
    let width = features.clone().map(|feature| feature.name.len()).max();
    let width = width.unwrap_or(0);
    for feature in features {
        let verdict = match (feature.offered, feature.negotiated) {
            (true, true) => "yes",
            (true, false) => "-",
            (false, _) => "NOT OFFERED",
        };
        let FeatureView {
            bit, name, what, ..
        } = feature;
        let line = format!("  {bit:>3}  {name:width$}  {verdict:5}  ");
        let what = paint.fold(what, line.len(), line.len());
        let _ = writeln!(text, "{line}{what}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_was_taken_is_told_from_one_that_was_not() {
        let feature = |bit, name, offered, negotiated| FeatureView {
            bit,
            name,
            what: "what it is",
            offered,
            negotiated,
        };
        let features = [
            feature(5, "MAC", true, true),
            feature(15, "MRG_RXBUF", true, false),
            feature(22, "MQ", false, false),
            feature(34, "RING_PACKED", false, true),
        ];
        let paint = Paint {
            colour: false,
            width: 80,
        };
        let text = draw(&features, paint);
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "    5  MAC          yes    what it is",
                "   15  MRG_RXBUF    -      what it is",
                "   34  RING_PACKED  NOT OFFERED  what it is"
            ]
        );
    }
}

//! The middle of what several rounds gave.

/// The middle of some numbers, and how far they went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` where there are none.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        let (min, max) = (*numbers.first()?, *numbers.last()?);
        let half = numbers.len() / 2;
        Some(Self {
            median: match numbers.len() % 2 {
                0 => (numbers[half - 1] + numbers[half]) / 2.0,
                _ => numbers[half],
            },
            min,
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_few() {
        let spread = |numbers: &[f64]| {
            let spread = Spread::of(numbers.iter().copied());
            spread.map(|Spread { median, min, max }| (median, min, max))
        };
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[5.0]), Some((5.0, 5.0, 5.0)));
        assert_eq!(spread(&[9.0, 5.0]), Some((7.0, 5.0, 9.0)));
        assert_eq!(spread(&[9.0, 1.0, 4.0]), Some((4.0, 1.0, 9.0)));
    }
}

//! Figures as they are shown: with as many digits as they are good for, and quotients that a reader can check.
//!
//! What is measured here is good for three digits; six are given to programs, so that nothing is lost. A
//! quotient is that of the two figures shown beside it ([`quotient`]), never of others.

/// A measured figure, for programs: six significant digits.
pub fn six(number: f64) -> f64 {
    digits(number, 6)
}

/// `number` with so many significant digits.
fn digits(number: f64, digits: i32) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return number;
    }
    let places = digits - 1 - number.abs().log10().floor() as i32;
    decimals(number, places)
}

/// `number` with so many digits behind the point; fewer than none are before it.
pub fn decimals(number: f64, places: i32) -> f64 {
    // Divided by a power of ten that is exact: else a part that is no decimal comes in.
    match places {
        0.. => {
            let times = 10f64.powi(places);
            let rounded = (number * times).round() / times;
            // Too small for that: it is left as it is.
            if times.is_finite() { rounded } else { number }
        }
        _ => {
            let times = 10f64.powi(-places);
            (number / times).round() * times
        }
    }
}

/// A figure for people, with three digits at least, and none cut off before the point.
pub fn short(number: f64) -> String {
    match number {
        100.0.. => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        1.0.. => format!("{number:.2}"),
        // Nothing, or three digits from the first that is none.
        ..=0.0 => format!("{number:.0}"),
        _ => {
            let places = (2 - number.log10().floor() as i32).clamp(3, 9) as usize;
            format!("{number:.places$}")
        }
    }
}

/// The quotient of two figures as they are shown, for the same eyes; `None` where there is none.
pub fn quotient(shown: &str, by: &str) -> Option<f64> {
    let [shown, by] = [shown, by].map(|text| text.parse::<f64>().ok());
    let quotient = shown? / by?;
    quotient.is_finite().then_some(quotient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_six_digits() {
        for (number, text) in [
            (9889.620633464468, "9889.62"),
            (0.0000123456789, "0.0000123457"),
            (123_456_789.0, "123457000.0"),
            (0.1 + 0.2, "0.3"),
            (0.0, "0.0"),
            (-2.000_000_4, "-2.0"),
            (1e-320, "1e-320"),
        ] {
            assert_eq!(serde_json::json!(six(number)).to_string(), text);
        }
    }

    #[test]
    fn people_get_three_digits_and_nothing_that_was_measured_is_zero() {
        let texts = [1234.5, 45.67, 4.567, 0.4567, 0.04567, 0.0, 0.99951].map(short);
        assert_eq!(
            texts,
            ["1234", "45.7", "4.57", "0.457", "0.0457", "0", "1.000"]
        );
    }

    #[test]
    fn a_quotient_is_of_what_is_shown() {
        assert_eq!(quotient("0.5", "2"), Some(0.25));
        for none in [("1", "0"), ("–", "1"), ("", "")] {
            assert_eq!(quotient(none.0, none.1), None);
        }
    }
}

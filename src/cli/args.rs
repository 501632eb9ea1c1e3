//! Arguments that several commands have.

use std::time::Duration;

use clap::ValueEnum;

use crate::nic::Waiting;

/// `--wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Wait {
    /// Look at the rings without a pause: a processor is busy, and nothing is faster
    Poll,
    /// Sleep until the card interrupts
    Interrupt,
    /// Look for as long as sleeping would cost, then sleep
    #[default]
    Adaptive,
}

impl From<Wait> for Waiting {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Poll => Self::Poll,
            Wait::Interrupt => Self::Interrupt,
            Wait::Adaptive => Self::Adaptive,
        }
    }
}

/// A number of seconds above 0.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "write a number of seconds above 0".to_owned())
}

/// A number of bytes: 4096, 4K, 1M, 5G.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((end, 'k' | 'K')) => (&text[..end], 10),
        Some((end, 'm' | 'M')) => (&text[..end], 20),
        Some((end, 'g' | 'G')) => (&text[..end], 30),
        Some((end, 't' | 'T')) => (&text[..end], 40),
        _ => (text, 0),
    };
    let number = digits.parse().ok();
    number
        .and_then(|number: u64| number.checked_mul(1 << shift))
        .ok_or_else(|| "write a number of bytes: 4096, 4K, 1M or 5G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units_of_1024() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("4K"), Ok(4096));
        assert_eq!(bytes("5G"), Ok(5 << 30));
        for bad in ["", "K", "-1", "1.5M", "1KB", "99999999999G"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_are_above_zero() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["", "0", "-1", "inf", "NaN", "ten", "1e300"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}

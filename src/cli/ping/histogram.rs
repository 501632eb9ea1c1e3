//! Times, sorted into bins and drawn with characters.
//!
//! A bin is some 19 % wider than the one before (four to a doubling), so that one picture holds both
//! what is usual and what is rare and ten times as long.

use std::fmt;
use std::time::Duration;

/// Bins to a doubling.
const STEPS: f64 = 4.0;
/// Columns of the longest bar.
const WIDTH: f64 = 40.0;

/// Counts of times by bin.
pub struct Histogram {
    /// Number of the first bin.
    first: i32,
    counts: Vec<u64>,
}

/// Returns the lower edge of bin `number`, in microseconds.
fn edge(number: i32) -> f64 {
    (f64::from(number) / STEPS).exp2()
}

fn bin(time: Duration) -> i32 {
    // A nanosecond is the least there is.
    let micros = (time.as_nanos().max(1)) as f64 / 1e3;
    (micros.log2() * STEPS).floor() as i32
}

impl Histogram {
    /// Counts `times`, which are sorted.
    pub fn of(times: &[Duration]) -> Self {
        let (Some(least), Some(most)) = (times.first(), times.last()) else {
            return Self {
                first: 0,
                counts: Vec::new(),
            };
        };
        let first = bin(*least);
        let mut counts = vec![0; (bin(*most) - first + 1) as usize];
        for time in times {
            counts[(bin(*time) - first) as usize] += 1;
        }
        Self { first, counts }
    }

    /// The bins: where each begins and ends, in microseconds, and how many fell into it.
    pub fn bins(&self) -> impl Iterator<Item = (f64, f64, u64)> {
        let numbered = self.counts.iter().zip(self.first..);
        numbered.map(|(count, number)| (edge(number), edge(number + 1), *count))
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.counts.iter().copied().max().unwrap_or(0).max(1);
        for (from, to, count) in self.bins() {
            let share = count as f64 / most as f64;
            // What is there at all is seen.
            let columns = (share * WIDTH).round().max(f64::from(u8::from(count > 0)));
            let [from, to] = [from, to].map(|micros| time(Duration::from_secs_f64(micros / 1e6)));
            let bar = "#".repeat(columns as usize);
            writeln!(f, "{from:>10} - {to:>10} {count:>8}  {bar}")?;
        }
        Ok(())
    }
}

/// A time with three digits: `98.7 us`, `1.23 ms`.
pub fn time(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    let (value, unit) = match micros {
        ..1e3 => (micros, "us"),
        ..1e6 => (micros / 1e3, "ms"),
        _ => (micros / 1e6, "s"),
    };
    let digits = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_have_three_digits() {
        let of = |nanos| time(Duration::from_nanos(nanos));
        let texts = [1_234, 98_700, 123_400, 1_234_000, 2_000_000_000].map(of);
        assert_eq!(texts, ["1.23 us", "98.7 us", "123 us", "1.23 ms", "2.00 s"]);
    }

    #[test]
    fn a_bar_is_as_long_as_its_bin_is_full() {
        let times: Vec<_> = [100; 40]
            .into_iter()
            .chain([200; 20])
            .chain([900])
            .collect();
        let times: Vec<_> = times.into_iter().map(Duration::from_micros).collect();
        let text = Histogram::of(&times).to_string();
        let bars: Vec<_> = text.lines().map(|line| line.matches('#').count()).collect();
        assert_eq!(bars.iter().filter(|bar| **bar > 0).count(), 3, "{text}");
        assert_eq!((bars[0], bars.last()), (40, Some(&1)), "{text}");
        assert!(bars.contains(&20), "{text}");
    }

    proptest! {
        #[test]
        fn every_time_is_in_the_one_bin_around_it(mut nanos in prop::collection::vec(0u64..10_000_000_000, 1..50)) {
            nanos.sort_unstable();
            let times: Vec<_> = nanos.iter().map(|nanos| Duration::from_nanos(*nanos)).collect();
            let histogram = Histogram::of(&times);
            prop_assert_eq!(histogram.bins().map(|(_, _, count)| count).sum::<u64>(), times.len() as u64);
            for (from, to, count) in histogram.bins() {
                // A little slack, for logarithms are not exact.
                let inside = |nanos: &&u64| (from * 0.999..to * 1.001).contains(&(**nanos.max(&&1) as f64 / 1e3));
                prop_assert!(nanos.iter().filter(inside).count() as u64 >= count);
            }
        }
    }
}

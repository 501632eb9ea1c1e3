//! Ranges of a file's bytes that a request asks for (RFC 9110 §14).

use std::ops::Range;

/// Ranges of one request, at most: more are no browser and no download manager.
const MOST: usize = 16;

/// The ranges that a Range field comes to for a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Ranges {
    /// The whole file: the field is not understood, asks for more than the file, or for the last bytes of one
    /// that has none.
    Whole,
    /// None of its ranges can be satisfied.
    None,
    /// These, at least one, none of them empty.
    Some(Vec<Range<u64>>),
}

/// Reads the value of a Range field, for a file of `size` bytes.
pub fn parse(value: &str, size: u64) -> Ranges {
    let Some((unit, list)) = value.split_once('=') else {
        return Ranges::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Ranges::Whole;
    }
    let mut ranges = Vec::new();
    let (mut asked, mut satisfied) = (0, 0);
    for item in list.split(',').map(|item| item.trim_matches([' ', '\t'])) {
        if item.is_empty() {
            continue; // a list may have empty elements (§5.6.1)
        }
        asked += 1;
        match one(item, size) {
            _ if asked > MOST => return Ranges::Whole,
            Spec::Bad => return Ranges::Whole,
            Spec::Unsatisfied => {}
            Spec::Satisfied(range) => {
                satisfied += 1;
                // No Content-Range names no bytes.
                ranges.extend(Some(range).filter(|range| !range.is_empty()));
            }
        }
    }
    let bytes = ranges
        .iter()
        .try_fold(0u64, |sum, range| sum.checked_add(range.end - range.start));
    match (asked, satisfied, ranges.len()) {
        (0, ..) => Ranges::Whole,
        (_, 0, _) => Ranges::None,
        (.., 0) => Ranges::Whole,
        // Whoever asks for the same bytes over and over gets them once.
        _ if bytes.is_none_or(|bytes| bytes > size) => Ranges::Whole,
        _ => Ranges::Some(ranges),
    }
}

/// One range of the field, held against the file.
enum Spec {
    /// No range.
    Bad,
    /// Satisfied by these bytes (§14.1.2): its first position is in the file, or it is a suffix of a length
    /// other than 0. Of a file without bytes the suffix is empty, and satisfied all the same.
    Satisfied(Range<u64>),
    /// Well formed, and satisfied by nothing.
    Unsatisfied,
}

/// `3-7`, `3-` or `-7`, cut to the file.
fn one(text: &str, size: u64) -> Spec {
    let Some((first, last)) = text.split_once('-') else {
        return Spec::Bad;
    };
    match (number(first), number(last)) {
        (None, Some(0)) if first.is_empty() => Spec::Unsatisfied,
        (None, Some(suffix)) if first.is_empty() => {
            Spec::Satisfied(size.saturating_sub(suffix)..size)
        }
        (Some(first), None) if last.is_empty() && first < size => Spec::Satisfied(first..size),
        (Some(_), None) if last.is_empty() => Spec::Unsatisfied,
        (Some(first), Some(last)) if last < first => Spec::Bad,
        (Some(first), Some(last)) if first < size => {
            Spec::Satisfied(first..last.saturating_add(1).min(size))
        }
        (Some(_), Some(_)) => Spec::Unsatisfied,
        _ => Spec::Bad,
    }
}

/// Digits; what is more than fits is as good as the largest that does.
fn number(text: &str) -> Option<u64> {
    let is_one = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_one.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_cut_to_the_file() {
        let some = |ranges: &[(u64, u64)]| {
            Ranges::Some(ranges.iter().map(|&(start, end)| start..end).collect())
        };
        for (value, ranges) in [
            ("bytes=0-0", some(&[(0, 1)])),
            ("bytes=2-4", some(&[(2, 5)])),
            ("Bytes = 2-", some(&[(2, 10)])),
            ("bytes=-3", some(&[(7, 10)])),
            ("bytes=-99", some(&[(0, 10)])),
            ("bytes=5-99", some(&[(5, 10)])),
            ("bytes=5-99999999999999999999999", some(&[(5, 10)])),
            ("bytes=0-1, ,8-,\t-1", some(&[(0, 2), (8, 10), (9, 10)])),
            ("bytes=3-4,20-30", some(&[(3, 5)])),
            ("bytes=10-", Ranges::None),
            ("bytes=-0", Ranges::None),
            ("bytes=10-12,99-", Ranges::None),
            ("bytes=4-2", Ranges::Whole),
            ("bytes=0-1,4-2", Ranges::Whole),
            ("bytes=", Ranges::Whole),
            ("bytes=,", Ranges::Whole),
            ("bytes=-", Ranges::Whole),
            ("bytes=a-b", Ranges::Whole),
            ("bytes=+1-2", Ranges::Whole),
            ("bytes 1-2", Ranges::Whole),
            ("lines=1-2", Ranges::Whole),
            ("bytes=0-,0-", Ranges::Whole),
            ("", Ranges::Whole),
        ] {
            assert_eq!(parse(value, 10), ranges, "{value}");
        }
        assert_eq!(parse("bytes=0-,0-,0-", i64::MAX as u64), Ranges::Whole);
        let many = format!("bytes={}", "0-0,".repeat(MOST + 1));
        assert_eq!(parse(&many, 1 << 20), Ranges::Whole);
    }

    #[test]
    fn what_is_satisfied_is_what_the_rfc_says_and_not_what_is_left_of_it() {
        const LARGEST: u64 = 1 << 63;
        let some = |first, past| Ranges::Some(std::iter::once(first..past).collect());
        for (value, of_0, of_1, of_the_largest) in [
            (
                "bytes=-5",
                Ranges::Whole,
                some(0, 1),
                some(LARGEST - 5, LARGEST),
            ),
            (
                "bytes=-1",
                Ranges::Whole,
                some(0, 1),
                some(LARGEST - 1, LARGEST),
            ),
            (
                "bytes=-99999999999999999999",
                Ranges::Whole,
                some(0, 1),
                some(0, LARGEST),
            ),
            ("bytes=-0", Ranges::None, Ranges::None, Ranges::None),
            (
                "bytes=-0,-5",
                Ranges::Whole,
                some(0, 1),
                some(LARGEST - 5, LARGEST),
            ),
            ("bytes=0-", Ranges::None, some(0, 1), some(0, LARGEST)),
            ("bytes=0-0", Ranges::None, some(0, 1), some(0, 1)),
            ("bytes=0-,-5", Ranges::Whole, Ranges::Whole, Ranges::Whole),
            ("bytes=1-", Ranges::None, Ranges::None, some(1, LARGEST)),
            (
                "bytes=9223372036854775807-",
                Ranges::None,
                Ranges::None,
                some(LARGEST - 1, LARGEST),
            ),
            (
                "bytes=9223372036854775808-",
                Ranges::None,
                Ranges::None,
                Ranges::None,
            ),
            (
                "bytes=18446744073709551615-",
                Ranges::None,
                Ranges::None,
                Ranges::None,
            ),
            (
                "bytes=99999999999999999999-",
                Ranges::None,
                Ranges::None,
                Ranges::None,
            ),
            (
                "bytes=0-18446744073709551615",
                Ranges::None,
                some(0, 1),
                some(0, LARGEST),
            ),
            ("bytes=1-0", Ranges::Whole, Ranges::Whole, Ranges::Whole),
            ("bytes=--5", Ranges::Whole, Ranges::Whole, Ranges::Whole),
        ] {
            assert_eq!(parse(value, 0), of_0, "{value} of 0");
            assert_eq!(parse(value, 1), of_1, "{value} of 1");
            assert_eq!(parse(value, LARGEST), of_the_largest, "{value} of 2^63");
        }
    }

    proptest! {
        #[test]
        fn what_is_given_is_in_the_file_and_no_more_than_it(value in "bytes=[0-9, -]{0,40}", size in 0u64..1000) {
            if let Ranges::Some(ranges) = parse(&value, size) {
                prop_assert!(!ranges.is_empty());
                prop_assert!(ranges.iter().all(|range| range.start < range.end && range.end <= size));
                prop_assert!(ranges.iter().map(|range| range.end - range.start).sum::<u64>() <= size);
            }
        }

        #[test]
        fn nor_of_the_largest_of_files(
            ranges in proptest::collection::vec((0u64.., proptest::option::of(0u64..)), 1..20),
            size in 0..=i64::MAX as u64,
        ) {
            let list: Vec<_> = ranges
                .iter()
                .map(|(first, last)| match last {
                    Some(last) => format!("{first}-{last}"),
                    None => format!("{}-", first % 10),
                })
                .collect();
            if let Ranges::Some(ranges) = parse(&format!("bytes={}", list.join(",")), size) {
                let bytes: u128 = ranges.iter().map(|range| u128::from(range.end - range.start)).sum();
                prop_assert!(bytes <= size.into());
            }
        }

        #[test]
        fn no_text_makes_it_panic(value in "\\PC{0,40}", size: u64) {
            let _ = parse(&value, size);
        }
    }
}

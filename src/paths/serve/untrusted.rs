//! All that a peer's bytes go through before a file is looked up, in one call: for fuzzers.

use super::condition::Validator;
use super::path::{Name, Target};
use super::range::{self, Ranges};
use super::request::{self, LONGEST, Parsed};

/// Parses `bytes` as a connection does, and whatever a request in them says.
///
/// # Panics
/// If a promise is broken: a head longer than it may be, a name that leads out, a range beyond the file.
#[doc(hidden)]
pub fn parse_untrusted(bytes: &[u8]) {
    let bytes = &bytes[request::begin(bytes)..];
    let mut fields = request::no_fields();
    let Parsed::Whole(request, length) = request::parse(bytes, &mut fields) else {
        return;
    };
    assert!(length <= bytes.len() && length <= LONGEST);
    let _ = Target::parse(request.target, true);
    if let Ok(name) = Name::parse(request.target) {
        let mut parts = name.path.split(|byte| *byte == b'/');
        assert!(!name.path.starts_with(b"/") && !name.path.contains(&0));
        assert!(parts.all(|part| part != b".." && !part.is_empty()));
    }
    let state = Validator::of(&bytes[..length]);
    let _ = state.check(&request);
    for value in request.all("if-range") {
        let _ = (
            state.may_complete(value),
            Validator::none().may_complete(value),
        );
    }
    for value in request.all("range") {
        for size in [0, 1, 4096, u64::MAX] {
            if let Ranges::Some(ranges) = range::parse(value, size) {
                assert!(!ranges.is_empty());
                assert!(
                    ranges
                        .iter()
                        .all(|one| one.start < one.end && one.end <= size)
                );
            }
        }
    }
}

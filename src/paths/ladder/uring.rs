//! Reasons for which there is no io_uring here.

use std::io;

use io_uring::{IoUring, Probe};

use super::{Why, unsupported};

/// The reason for which there is none that can do all of `operations`.
pub(super) fn missing(operations: &[(u8, &str)]) -> Option<String> {
    let ring = match IoUring::new(2) {
        Ok(ring) => ring,
        Err(error) => {
            return Some(match no_ring(error) {
                Why::Missing(why) => why,
                why => why.to_string(),
            });
        }
    };
    let mut probe = Probe::new();
    if let Err(error) = ring.submitter().register_probe(&mut probe) {
        return Some(format!("asking io_uring what it can do: {error}"));
    }
    let lacks = operations
        .iter()
        .find(|(code, _)| !probe.is_supported(*code));
    lacks.map(|(_, name)| format!("the kernel's io_uring has no {name}"))
}

/// The reason for which there is no ring: the kernel has none, or none for us, or it failed.
pub(super) fn no_ring(source: io::Error) -> Why {
    let call = "setting up io_uring";
    let why = Why::Call { call, source };
    why.or_missing(&unsupported::URING)
        .or_missing(&unsupported::URING_FOR_US)
}

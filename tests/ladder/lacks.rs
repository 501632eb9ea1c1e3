//! What a file system or a kernel lacks is told as that, with what to do, and not as a failure.

use std::fs::File;

use pinwire::paths::ladder::{Rung, Stopped, Why};

use super::taker::{Habit, Taker};
use super::{every_sender, send};

/// What came of each rung of these names that sends `file`.
fn refused(names: &[&str], file: &File) -> Vec<(String, Stopped)> {
    let mut all = Vec::new();
    every_sender(|rung: &Rung, protocol| {
        if !names.contains(&rung.name) {
            return;
        }
        let taker = Taker::start(Habit::PausesAfter(1));
        let stopped = send(rung, protocol, file, 100, taker.address).unwrap_err();
        all.push((format!("{} over {protocol}", rung.name), stopped));
    });
    all
}

fn assert_missing(all: &[(String, Stopped)], words: &str) {
    assert!(!all.is_empty());
    for (title, stopped) in all {
        assert!(matches!(stopped.why, Why::Missing(_)), "{title}: {stopped}");
        assert!(stopped.to_string().contains(words), "{title}: {stopped}");
    }
}

#[test]
fn a_file_that_cannot_be_mapped_is_missing_with_why() {
    // Of 4096 bytes, it says.
    let file = File::open("/sys/kernel/mm/transparent_hugepage/enabled").unwrap();
    let all = refused(&["mmap + write", "MSG_ZEROCOPY"], &file);
    assert_missing(&all, "cannot be mapped");
    assert_eq!(all.len(), 4);
}

#[test]
fn a_file_without_pages_to_give_is_missing_with_why() {
    let file = File::open("/proc/self/environ").unwrap();
    let all = refused(&["sendfile", "splice", "io_uring splice"], &file);
    assert_missing(&all, "no references to their pages");
    assert_eq!(all.len(), 6);
}

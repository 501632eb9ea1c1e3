//! The bodies of `tests/fuzz`, for libFuzzer.

#[path = "../../tests/fuzz/bodies.rs"]
mod bodies;
#[path = "../../tests/fakes/mod.rs"]
mod fakes;

/// Runs the body `name`.
///
/// # Panics
/// If a promise is broken: that is a finding.
pub fn run(name: &str, data: &[u8]) {
    let (_, body) = bodies::TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a target");
    body(data);
}

/// Returns at once: a reset that is waited for by sleeping would take most of a fuzzer's time, and the
/// devices here are functions, which have answered by then.
#[unsafe(no_mangle)]
extern "C" fn clock_nanosleep(_: i32, _: i32, _: *const (), _: *mut ()) -> i32 {
    0
}

/// As [`clock_nanosleep`].
#[unsafe(no_mangle)]
extern "C" fn nanosleep(_: *const (), _: *mut ()) -> i32 {
    0
}

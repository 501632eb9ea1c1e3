#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pinwire_fuzz::run("e1000", data));

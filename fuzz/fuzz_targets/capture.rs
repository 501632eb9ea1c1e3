#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pinwire_fuzz::run("capture", data));

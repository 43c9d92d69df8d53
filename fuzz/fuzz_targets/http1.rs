#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hookhold_fuzz::connections::http1(data));

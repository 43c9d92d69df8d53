#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hookhold_fuzz::connections::http2_heads(data));

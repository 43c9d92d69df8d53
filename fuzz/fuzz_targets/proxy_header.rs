#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hookhold_fuzz::proxies::proxy_header(data));

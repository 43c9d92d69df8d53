//! The bodies of the fuzz targets. `tests/fuzz_corpus.rs` compiles the same file and replays the corpus without a fuzzer.

pub mod targets;

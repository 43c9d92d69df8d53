//! The bodies of the fuzz targets. `tests/fuzz_corpus.rs` compiles the same files and replays the corpus without a fuzzer.

pub mod connections;
#[path = "../../tests/common/disk.rs"]
mod disk;
pub mod proxies;
pub mod targets;

//! Replays the corpus of the fuzz targets in `fuzz/`, without a fuzzer. Each file is an input that the fuzzer has found or that
//! was written by hand.

use std::fs;
use std::path::Path;

#[path = "../fuzz/src/connections.rs"]
mod connections;
#[path = "common/disk.rs"]
mod disk;
#[path = "../fuzz/src/proxies.rs"]
mod proxies;
#[path = "../fuzz/src/targets.rs"]
mod targets;

/// A fuzz target with its name, which is also the name of its directory in `fuzz/corpus`.
type Target = (&'static str, fn(&[u8]));

const TARGETS: &[Target] = &[
    ("grammar", targets::grammar),
    ("locators", targets::locators),
    ("form", targets::form),
    ("multipart", targets::multipart),
    ("decompression", targets::decompression),
    ("jwt", targets::jwt),
    ("recipe", targets::recipe),
    ("http1", connections::http1),
    ("http2_heads", connections::http2_heads),
    ("proxy_header", proxies::proxy_header),
    ("forwarded_for", proxies::forwarded_for),
];

#[test]
fn every_input_of_the_corpus_passes_its_target() {
    for (name, target) in TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(corpus().join(name)).unwrap_or_else(|error| panic!("fuzz/corpus/{name}: {error}")) {
            let path = entry.expect("the corpus can be listed").path();
            println!("{}", path.display());
            target(&fs::read(&path).expect("the corpus can be read"));
            count += 1;
        }
        assert!(count >= 10, "fuzz/corpus/{name} has only {count} inputs");
    }
}

/// A target that is missing here, in `fuzz/Cargo.toml` or in `fuzz/corpus` would silently test nothing.
#[test]
fn each_fuzz_target_has_a_binary_and_a_corpus() {
    let names = |directory: &Path| {
        let entries = fs::read_dir(directory).expect("fuzz/ can be listed");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("fuzz/ can be listed").path().file_stem().expect("a name").to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let mut expected: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    assert_eq!(names(&corpus()), expected);
    assert_eq!(names(&fuzz().join("fuzz_targets")), expected);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("fuzz/Cargo.toml is readable");
    assert_eq!(manifest.matches("[[bin]]").count(), expected.len());
}

fn corpus() -> std::path::PathBuf {
    fuzz().join("corpus")
}

fn fuzz() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

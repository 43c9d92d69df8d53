//! Measures the key index of the journal: disk and memory for each key, the time of a lookup, the time of a startup and the work
//! of the merges. `cargo bench --bench durable -- --remembered-keys N` measures the throughput with many keys.
//!
//! Command: `cargo bench --bench keys [-- --keys 1000000,10000000,100000000] [--dir DIR]`. 100 million keys need about 6 GB in DIR,
//! which is `target/bench-keys` by default.
//!
//! The module `remembered_keys` makes the key files. Then the benchmark opens a journal in the same directory and measures its
//! lookups: fresh keys, and duplicates of random keys. A lookup is the part of an admission that depends on the number of keys.

#[path = "common/remembered_keys.rs"]
mod remembered_keys;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use hookhold::clock::SystemClock;
use hookhold::event_key::EventKey;
use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{Journal, KeySizes, MemoryLookup, Options};
use remembered_keys::{KeyWork, WINDOW, key, timed};

/// The allocator of the hookhold process.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone());
    let numbers = value("--keys").unwrap_or_else(|| "1000000,10000000,100000000".into());
    let numbers = numbers.split(',').map(|number| number.parse().expect("--keys takes numbers, separated by commas"));
    let parent = value("--dir").map_or_else(|| PathBuf::from("target/bench-keys"), PathBuf::from);
    for keys in std::iter::once(0).chain(numbers) {
        std::fs::create_dir_all(&parent).expect("the directory can be created");
        let dir = tempfile::tempdir_in(&parent).expect("a directory");
        println!("{keys} keys:");
        if keys > 0 {
            print_work(&remembered_keys::make(dir.path(), keys), keys);
        }
        measure(dir.path(), keys);
    }
}

fn print_work(work: &KeyWork, keys: u64) {
    let per_key = |time: Duration| time.as_secs_f64() * 1e6 / keys as f64;
    let (sealing, merging) = (per_key(work.sealing), per_key(work.merging));
    println!("  sealing: {sealing:.2} µs a key, of which the journal's background thread does all");
    println!("  merging: {merging:.2} µs a key, {merging:.1} % of a core at 10,000 events/s");
    let longest = work.longest_step.as_secs_f64() * 1e3;
    println!("  longest step of a merge: {longest:.1} ms; at most {} files asked", work.asked_files);
}

/// Opens a journal with these key files, and prints the sizes of its key index and the times of lookups.
fn measure(dir: &Path, keys: u64) {
    let options = Options { dedupe_window: 2 * WINDOW, max_key_bytes: u64::MAX, ..Options::default() };
    let disk = Arc::new(LocalDisk::create(dir).expect("a disk"));
    let (startup, journal) = timed(|| Journal::open(disk, options, Arc::new(SystemClock), Arc::default()));
    let journal = journal.expect("the journal opens");
    let KeySizes { keys_on_disk, disk_bytes, asked_files, filter_bytes, recent_keys, .. } = journal.key_sizes();
    println!("  startup: {:.2} s", startup.as_secs_f64());
    if keys_on_disk > 0 {
        println!(
            "  {asked_files} files asked, {recent_keys} recent keys in memory; {:.1} bytes of disk and {:.2} bytes of memory a key",
            disk_bytes as f64 / keys_on_disk as f64,
            filter_bytes as f64 / (keys_on_disk - recent_keys).max(1) as f64,
        );
    }
    print("fresh key", &lookups(&journal, FRESH_LOOKUPS, |number| key(FRESH + number), false));
    if keys > 0 {
        let mut rng = fastrand::Rng::with_seed(7);
        print("duplicate", &lookups(&journal, DUPLICATE_LOOKUPS, move |_| key(rng.u64(..keys)), true));
    }
    journal.close();
}

/// Looks up keys, and returns the times in nanoseconds.
fn lookups(journal: &Journal, count: u64, mut key: impl FnMut(u64) -> EventKey, exists: bool) -> Histogram<u64> {
    let mut times = Histogram::new(3).expect("three digits are a valid precision");
    for number in 0..count {
        let key = key(number);
        let (time, found) = timed(|| match journal.lookup_in_memory(&key) {
            MemoryLookup::Seen(seen) => Some(seen),
            MemoryLookup::New => None,
            MemoryLookup::MaybeOnDisk => journal.lookup(&key),
        });
        assert_eq!(found.is_some(), exists, "{key:?}");
        times.record(time.as_nanos() as u64).expect("the histogram grows");
    }
    times
}

fn print(name: &str, times: &Histogram<u64>) {
    let [median, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| times.value_at_quantile(quantile) as f64 / 1e3);
    println!("  {name}: median {median:.2} µs, p99 {p99:.2} µs, p99.9 {p999:.2} µs, mean {:.2} µs", times.mean() / 1e3);
}

/// Number of the first fresh key.
const FRESH: u64 = 1 << 40;
const FRESH_LOOKUPS: u64 = 1_000_000;
const DUPLICATE_LOOKUPS: u64 = 100_000;

//! Measures the key index of the journal: disk and memory for each key, the time of a lookup, the time of a startup and the work
//! of the merges.
//!
//! Command: `cargo bench --bench keys [-- --keys 1000000,10000000,100000000] [--dir DIR]`. 100 million keys need about 6 GB in DIR,
//! which is `target/bench-keys` by default.
//!
//! The keys do not pass through events, because a hundred million events would take hours. Instead, the benchmark adds the keys to
//! the key index itself, and calls the same code that the journal calls to seal a segment, to merge key files and to delete old
//! ones. Their arrivals are spread evenly over a dedupe window of 7 days, which ends now. The time is a parameter of these calls,
//! so the merges meet all buckets of the window. The merges run without the pauses that limit them in a journal, and the benchmark
//! adds up the time of their steps.
//!
//! Then the benchmark opens a journal in the same directory and measures its lookups: fresh keys, and duplicates of random keys.
//! A lookup is the part of an admission that depends on the number of keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use hookhold::clock::{Clock, SystemClock};
use hookhold::event_key::EventKey;
use hookhold::fingerprint::Fingerprint;
use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{
    Journal, JournalMillis, KeyLimits, KeySizes, MemoryLookup, Options, SeenKey, StandaloneKeys, SystemRandom,
};
use hookhold::metrics::Metrics;

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
        make(dir.path(), keys);
        measure(dir.path(), keys);
    }
}

/// Makes the key files of `keys` keys, and prints the work that this took.
fn make(dir: &Path, keys: u64) {
    let disk = Arc::new(LocalDisk::create(dir).expect("a disk"));
    let limits = KeyLimits { window: WINDOW, max_bytes: u64::MAX, ..KeyLimits::default() };
    let metrics = Metrics::new();
    let mut index = StandaloneKeys::open(disk, Arc::new(SystemRandom), limits, &metrics).expect("an empty index");
    let start = SystemClock.now().0 - WINDOW.as_millis() as u64;
    let first_seen = |number: u64| {
        let offset = u128::from(number) * WINDOW.as_millis() / u128::from(keys);
        JournalMillis(start + offset as u64)
    };
    let (mut sealing, mut merging, mut longest, mut asked) = (Duration::ZERO, Duration::ZERO, Duration::ZERO, 0);
    let mut number = 0;
    while number < keys {
        let end = keys.min(number + SEGMENT_KEYS);
        for seq in number..end {
            index.add(key(seq), SeenKey { first_seen: first_seen(seq), seq, fingerprint: Fingerprint::default() });
        }
        number = end;
        sealing += timed(|| index.seal().expect("the disk has room")).0;
        loop {
            let (time, worked) = timed(|| index.step(first_seen(number)).expect("the disk has room"));
            (merging, longest) = (merging + time, longest.max(time));
            asked = asked.max(index.sizes().asked_files);
            if !worked {
                break;
            }
        }
    }
    if keys > 0 {
        let per_key = |time: Duration| time.as_secs_f64() * 1e6 / keys as f64;
        println!("  sealing: {:.2} µs a key, of which the journal's background thread does all", per_key(sealing));
        println!("  merging: {:.2} µs a key, {:.1} % of a core at 10,000 events/s", per_key(merging), per_key(merging));
        println!("  longest step of a merge: {:.1} ms; at most {asked} files asked", longest.as_secs_f64() * 1e3);
        assert_eq!(index.sizes().keys_on_disk, keys, "every key is in a key file");
    }
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

fn timed<T>(call: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = call();
    (start.elapsed(), result)
}

/// Returns the key with this number: a hash, as every key of a journal.
fn key(number: u64) -> EventKey {
    let (low, high) = (mix(2 * number), mix(2 * number + 1));
    EventKey((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
}

/// The finalizer of SplitMix64.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ number >> 31
}

/// Dedupe window over which the arrivals are spread.
const WINDOW: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Number of keys in one segment: a segment of 64 MiB with events of about 670 bytes.
const SEGMENT_KEYS: u64 = 100_000;
/// Number of the first fresh key.
const FRESH: u64 = 1 << 40;
const FRESH_LOOKUPS: u64 = 1_000_000;
const DUPLICATE_LOOKUPS: u64 = 100_000;

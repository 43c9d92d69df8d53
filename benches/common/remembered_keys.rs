//! Makes the key files of many remembered keys, for the benchmarks `keys` and `durable`.
//!
//! The keys do not pass through events, because a hundred million events would take hours. Instead, this module adds the keys to
//! the key index itself, and calls the same code that the journal calls to seal a segment and to merge key files. The arrivals of
//! the keys are spread evenly over a dedupe window of 7 days, which ends now. The time is a parameter of these calls, so the
//! merges meet all buckets of the window. The merges run without the pauses that limit them in a journal.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hookhold::clock::{Clock, SystemClock};
use hookhold::event_key::EventKey;
use hookhold::fingerprint::Fingerprint;
use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{JournalMillis, KeyLimits, SeenKey, StandaloneKeys, SystemRandom};
use hookhold::metrics::Metrics;

/// Work that the key files of all keys took.
pub struct KeyWork {
    pub sealing: Duration,
    pub merging: Duration,
    /// Duration of the longest step of a merge.
    pub longest_step: Duration,
    /// Largest number of files that a fresh key had to ask.
    pub asked_files: usize,
}

/// Makes the key files of `keys` keys in the empty directory `dir`.
pub fn make(dir: &Path, keys: u64) -> KeyWork {
    let disk = Arc::new(LocalDisk::create(dir).expect("a disk"));
    let limits = KeyLimits { window: WINDOW, max_bytes: u64::MAX, ..KeyLimits::default() };
    let metrics = Metrics::new();
    let mut index = StandaloneKeys::open(disk, Arc::new(SystemRandom), limits, &metrics).expect("an empty index");
    let start = SystemClock.now().0 - WINDOW.as_millis() as u64;
    let first_seen = |number: u64| {
        let offset = u128::from(number) * WINDOW.as_millis() / u128::from(keys);
        JournalMillis(start + offset as u64)
    };
    let mut work = KeyWork { sealing: Duration::ZERO, merging: Duration::ZERO, longest_step: Duration::ZERO, asked_files: 0 };
    let mut number = 0;
    while number < keys {
        let end = keys.min(number + SEGMENT_KEYS);
        for seq in number..end {
            index.add(key(seq), SeenKey { first_seen: first_seen(seq), seq, fingerprint: Fingerprint::default() });
        }
        number = end;
        work.sealing += timed(|| index.seal().expect("the disk has room")).0;
        loop {
            let (time, worked) = timed(|| index.step(first_seen(number)).expect("the disk has room"));
            (work.merging, work.longest_step) = (work.merging + time, work.longest_step.max(time));
            work.asked_files = work.asked_files.max(index.sizes().asked_files);
            if !worked {
                break;
            }
        }
    }
    assert_eq!(index.sizes().keys_on_disk, keys, "every key is in a key file");
    work
}

/// Calls a function and returns its duration and its result.
pub fn timed<T>(call: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = call();
    (start.elapsed(), result)
}

/// Returns the key with this number: a hash, as every key of a journal.
pub fn key(number: u64) -> EventKey {
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
pub const WINDOW: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Number of keys in one segment: a segment of 64 MiB with events of about 670 bytes.
const SEGMENT_KEYS: u64 = 100_000;

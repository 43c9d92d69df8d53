//! Tests of the key index: lookups, merges of key files, and damage. Most tests use the key index without a journal.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookhold::clock::{Clock, UnixMillis};
use hookhold::event_key::EventKey;
use hookhold::fingerprint::Fingerprint;
use hookhold::journal::{
    Environment, Journal, JournalMillis, KeyLimits, MAX_ASKED_FILES, MAX_RECENT_KEYS, MemoryLookup, Options, Random, SeenKey,
    StandaloneKeys,
};
use hookhold::limits::JournalLimits;
use hookhold::metrics::Metrics;

use crate::disk::{SimDisk, Step};
use crate::harness::{NOW, append, sample};

const HOUR: u64 = 60 * 60 * 1000;
const DAY: u64 = 24 * HOUR;

/// Random numbers that a seed determines.
struct SeededRandom(Mutex<fastrand::Rng>);

impl Random for SeededRandom {
    fn next_u64(&self) -> io::Result<u64> {
        Ok(self.0.lock().expect("no test panics while it holds this lock").u64(..))
    }
}

/// Disk, limits and metrics that a test uses each time it opens the key index.
struct Keys {
    disk: SimDisk,
    limits: KeyLimits,
    random: Arc<SeededRandom>,
    metrics: Metrics,
}

impl Keys {
    fn new(seed: u64) -> Keys {
        let limits = KeyLimits { window: Duration::from_millis(7 * DAY), ..KeyLimits::default() };
        let random = Arc::new(SeededRandom(Mutex::new(fastrand::Rng::with_seed(seed))));
        Keys { disk: SimDisk::new(seed), limits, random, metrics: Metrics::new() }
    }

    /// Returns a fixture whose keys leave the memory as soon as their segment is sealed.
    fn without_recent_keys(seed: u64) -> Keys {
        let mut keys = Keys::new(seed);
        keys.limits.max_recent_keys = 0;
        keys
    }

    fn open(&self) -> StandaloneKeys {
        self.try_open().expect("the index opens")
    }

    fn try_open(&self) -> io::Result<StandaloneKeys> {
        self.disk.kill();
        StandaloneKeys::open(self.disk.start(), self.random.clone(), self.limits, &self.metrics)
    }

    fn damaged(&self) -> u64 {
        self.metrics.journal.damaged.get()
    }
}

/// Returns the key with this number. The keys are hashes, as those of events.
fn key(number: u64) -> EventKey {
    let mut rng = fastrand::Rng::with_seed(number);
    EventKey(rng.u128(..).to_le_bytes())
}

fn seen(seq: u64, now: u64) -> SeenKey {
    let half = |shift: u64| (seq ^ shift).to_le_bytes()[..6].try_into().expect("6 of 8 bytes");
    SeenKey { first_seen: JournalMillis(now), seq, fingerprint: Fingerprint { secret: half(1), body: half(2) } }
}

/// Seals a segment with the keys with these numbers. The sequence of a key is its number.
fn seal(index: &mut StandaloneKeys, numbers: Range<u64>, now: u64) {
    numbers.for_each(|number| index.add(key(number), seen(number, now)));
    index.seal().expect("the disk has room");
}

/// Performs steps until no merge is due.
fn merge_all(index: &mut StandaloneKeys, now: u64) {
    while index.step(JournalMillis(now)).expect("the disk has room") {}
}

/// Returns the numbers of the keys that the index does not find. Every other key must have its own entry.
fn unknown(index: &StandaloneKeys, numbers: Range<u64>) -> Vec<u64> {
    let is_unknown = |number: &u64| match index.lookup(&key(*number)) {
        None => true,
        Some(found) => {
            assert_eq!(found, seen(*number, found.first_seen.0), "the entry belongs to another key");
            false
        }
    };
    numbers.filter(is_unknown).collect()
}

#[test]
fn a_fresh_key_asks_at_most_12_files_after_weeks_of_small_segments() {
    let mut keys = Keys::new(1);
    // A flush is due after a few segments, so that without compactions, a fresh key would ask hundreds of files.
    keys.limits.max_recent_keys = 8 * KEYS;
    let mut index = keys.open();
    let (mut most, mut most_recent) = (0, 0);
    const SEGMENTS: u64 = 2_400;
    const KEYS: u64 = 7;
    let at = |segment: u64| DAY + segment * 21 * DAY / SEGMENTS;
    for segment in 0..SEGMENTS {
        seal(&mut index, segment * KEYS..(segment + 1) * KEYS, at(segment));
        // A merge has time for a few steps between two segments.
        for _ in 0..2 {
            index.step(JournalMillis(at(segment))).expect("the disk has room");
        }
        let sizes = index.sizes();
        (most, most_recent) = (most.max(sizes.asked_files), most_recent.max(sizes.recent_files));
    }
    assert!((7..=MAX_ASKED_FILES).contains(&most), "{most} files");
    assert!(most_recent < 400, "{most_recent} recent files");
    let last_week = SEGMENTS * KEYS * 2 / 3 + KEYS..SEGMENTS * KEYS;
    assert_eq!(unknown(&index, last_week.clone()), [0; 0]);
    let first_week = 0..SEGMENTS * KEYS / 3;
    assert_eq!(unknown(&index, first_week.clone()).len() as u64, first_week.end, "the keys have left the window");
    drop(index);
    let index = keys.open();
    assert_eq!(unknown(&index, last_week), [0; 0], "after a restart");
    assert_eq!(keys.damaged(), 0);
    let files = keys.disk.names(".keys").len();
    assert!(files < 400, "{files} key files remain");
}

/// Entries of each key in the model: its entries, oldest first, and whether each is lost.
type Model = BTreeMap<u64, Vec<(SeenKey, bool)>>;

/// Compares every key with the model. An entry that has left the window may be forgotten.
fn check(index: &StandaloneKeys, model: &Model, window_start: u64, what: &str) {
    for (number, entries) in model {
        let found = index.lookup(&key(*number));
        let newest = entries.last().expect("an entry");
        let (seen, is_lost) = *newest;
        if !is_lost && seen.first_seen.0 >= window_start {
            assert_eq!(found, Some(seen), "{what}: key {number}");
        } else if let Some(found) = found {
            assert!(entries.contains(&(found, false)), "{what}: key {number} has the lost or unknown entry {found:?}");
        }
    }
}

#[test]
fn merges_lose_no_key_and_no_newer_entry() {
    for seed in 0..8 {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut keys = Keys::new(seed);
        keys.limits.window = Duration::from_millis(80_000);
        keys.limits.max_recent_keys = [0, 40, MAX_RECENT_KEYS][rng.usize(..3)];
        let mut index = keys.open();
        let (mut model, mut now, mut seq) = (Model::new(), 1_000_000, 0);
        let mut sealed: Vec<(u64, SeenKey)> = Vec::new();
        let mut asked = 0;
        for turn in 0..250 {
            match rng.u8(..20) {
                0..9 => {
                    for _ in 0..rng.usize(1..40) {
                        let (number, entry) = (rng.u64(..400), seen(seq, now));
                        index.add(key(number), entry);
                        model.entry(number).or_default().push((entry, false));
                        sealed.push((number, entry));
                        seq += 1;
                    }
                    index.seal().expect("the disk has room");
                }
                9..15 => {
                    for _ in 0..rng.usize(1..6) {
                        index.step(JournalMillis(now)).expect("the disk has room");
                    }
                }
                15..18 => now += rng.u64(..8_000),
                18 => {
                    let start = rng.u64(..=seq);
                    let range = start..seq.min(start + rng.u64(1..30));
                    index.forget(range.clone());
                    let entries = model.values_mut().flatten();
                    entries.filter(|(seen, _)| range.contains(&seen.seq)).for_each(|(_, is_lost)| *is_lost = true);
                }
                _ => {
                    // The journal stores exactly these ranges in its commits.
                    let lost = index.lost_ranges();
                    drop(index);
                    index = keys.open();
                    lost.into_iter().for_each(|range| index.forget(range));
                }
            }
            asked = asked.max(index.sizes().asked_files);
            check(&index, &model, now.saturating_sub(80_000), &format!("seed {seed}, turn {turn}"));
        }
        assert!(asked > 2 && seq > 500, "seed {seed}: {asked} files, {seq} keys");
        assert!(asked <= MAX_ASKED_FILES, "seed {seed}: {asked} files");
        assert_eq!(keys.damaged(), 0, "seed {seed}");
    }
}

/// Each read takes several pages of keys. A read for each key would make a merge of many keys slow.
#[test]
fn a_merge_reads_key_files_in_blocks() {
    let keys = Keys::without_recent_keys(11);
    let mut index = keys.open();
    seal(&mut index, 0..5_000, DAY);
    seal(&mut index, 5_000..10_000, DAY);
    let reads = Arc::new(AtomicU64::new(0));
    let counter = reads.clone();
    keys.disk.observe(move |step, name| {
        if step == Step::Read && name.ends_with(".keys") {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let before = keys.disk.bytes_read();
    merge_all(&mut index, DAY);
    let (reads, bytes) = (reads.load(Ordering::SeqCst), keys.disk.bytes_read() - before);
    assert!(only_file(&keys).starts_with("merged-"));
    assert!(bytes > 10_000 * 42, "the merge has read only {bytes} bytes of 10,000 keys");
    assert!((1..=20).contains(&reads), "{reads} reads for 10,000 keys");
    assert_eq!(unknown(&index, 0..10_000), [0; 0]);
}

/// Interrupts each step of the merges, and a step of the startup after it. The seed determines what the power cuts lose.
#[test]
fn a_power_cut_in_any_step_of_a_merge_loses_no_key() {
    let mut interrupted = 0;
    for steps in 1.. {
        if (0..48).map(|seed| survives_interruption(steps, seed)).filter(|is_interrupted| *is_interrupted).count() == 0 {
            break;
        }
        interrupted += 1;
    }
    assert!(interrupted > 5, "the merges have only {interrupted} steps");
}

/// Returns false if the merges were complete before this number of steps.
fn survives_interruption(steps: u64, seed: u64) -> bool {
    let what = format!("interrupted in step {steps}, seed {seed}");
    let keys = Keys::without_recent_keys(seed);
    let mut index = keys.open();
    // The first merged file exists before the interruption.
    for segment in 0..4 {
        seal(&mut index, segment * 30..(segment + 1) * 30, DAY);
    }
    merge_all(&mut index, DAY);
    seal(&mut index, 120..150, DAY);
    seal(&mut index, 150..180, DAY);
    keys.disk.die_after(steps);
    while !keys.disk.is_dead() && index.step(JournalMillis(3 * DAY)).unwrap_or(true) {}
    let is_interrupted = keys.disk.is_dead();
    drop(index);
    // A kill leaves names in the page cache that a later power cut may lose.
    if seed.is_multiple_of(2) {
        keys.disk.kill()
    } else {
        keys.disk.cut_power()
    }
    // The startup deletes the files that a merged file replaces.
    let started = keys.disk.start();
    keys.disk.die_after(1 + seed % 5);
    // A dead process cannot read its files, so its metrics show damage.
    drop(StandaloneKeys::open(started, keys.random.clone(), keys.limits, &Metrics::new()));
    keys.disk.cut_power();
    let mut index = keys.open();
    assert_eq!(unknown(&index, 0..180), [0; 0], "{what}");
    merge_all(&mut index, 3 * DAY);
    assert_eq!(unknown(&index, 0..180), [0; 0], "{what}, after the merges");
    assert_eq!(keys.damaged(), 0, "{what}");
    assert_eq!(keys.disk.names(".tmp"), [""; 0], "{what}");
    assert_eq!(keys.disk.names(".keys").len(), 1, "{what}: {:?}", keys.disk.names(".keys"));
    is_interrupted
}

/// Returns the only key file.
fn only_file(keys: &Keys) -> String {
    let files = keys.disk.names(".keys");
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

/// Returns a fixture with one merged file of 1,000 keys.
fn with_merged_file() -> (Keys, StandaloneKeys) {
    let keys = Keys::without_recent_keys(5);
    let mut index = keys.open();
    seal(&mut index, 0..500, DAY);
    seal(&mut index, 500..1_000, DAY);
    merge_all(&mut index, DAY);
    assert!(only_file(&keys).starts_with("merged-"));
    (keys, index)
}

#[test]
fn a_damaged_page_costs_only_its_keys_and_is_counted_once() {
    let (keys, index) = with_merged_file();
    let file = only_file(&keys);
    // The third page of keys.
    keys.disk.corrupt(&file, 3 * 4096 + 100..3 * 4096 + 101, |byte| !byte);
    for _ in 0..3 {
        assert_eq!(unknown(&index, 0..1_000).len(), 97);
    }
    assert!(index.is_damaged());
    assert_eq!(keys.damaged(), 1);
    drop(index);
    let mut index = keys.open();
    assert_eq!(unknown(&index, 0..1_000).len(), 97, "after a restart");
    // A merge with later files omits the damaged page.
    for start in (1_000..1_500).step_by(100) {
        seal(&mut index, start..start + 100, DAY);
        merge_all(&mut index, DAY);
    }
    assert_eq!(unknown(&index, 0..1_500).len(), 97);
    assert_eq!(keys.damaged(), 2, "counted once in each process");
    assert!(!index.is_damaged(), "the damaged page does not exist any more");
}

#[test]
fn an_unreadable_page_is_no_error() {
    let (keys, index) = with_merged_file();
    keys.disk.fail(Step::Read, ".keys", io::ErrorKind::Other, 100);
    assert_eq!(index.lookup(&key(3)), None, "the key is unknown");
    assert!(index.is_damaged());
    keys.disk.clear_faults();
    assert_eq!(index.lookup(&key(3)), Some(seen(3, DAY)), "the page can be read again");
}

#[test]
fn a_page_in_a_wrong_place_is_damaged() {
    let (keys, index) = with_merged_file();
    let file = only_file(&keys);
    let bytes = keys.disk.bytes(&file);
    let at = Mutex::new(4096);
    keys.disk.corrupt(&file, 2 * 4096..3 * 4096, |_| {
        let mut at = at.lock().expect("no panic inside");
        *at += 1;
        bytes[*at - 1]
    });
    assert_eq!(unknown(&index, 0..1_000).len(), 97);
    assert_eq!(keys.damaged(), 1);
}

#[test]
fn a_damaged_filter_costs_no_key_and_is_rewritten() {
    let (keys, index) = with_merged_file();
    drop(index);
    let file = only_file(&keys);
    // 1,000 keys take 11 pages, and the filter follows.
    let filter = 4096 * 12;
    keys.disk.corrupt(&file, filter + 200..filter + 201, |byte| !byte);
    let mut index = keys.open();
    assert_eq!(keys.damaged(), 1);
    assert_eq!(unknown(&index, 0..1_000), [0; 0]);
    assert_eq!(index.lookup_in_memory(&key(5_000)), MemoryLookup::MaybeOnDisk, "without a filter, the file must be searched");
    merge_all(&mut index, DAY);
    assert_ne!(only_file(&keys), file);
    assert_eq!(unknown(&index, 0..1_000), [0; 0]);
    assert_eq!(index.lookup_in_memory(&key(5_000)), MemoryLookup::New);
    assert!(!index.is_damaged());
    drop(index);
    keys.open();
    assert_eq!(keys.damaged(), 1, "the new file is valid");
}

#[test]
fn a_damaged_header_costs_the_keys_of_its_file() {
    let (keys, mut index) = with_merged_file();
    let damaged = only_file(&keys);
    seal(&mut index, 1_000..1_100, 3 * DAY);
    merge_all(&mut index, 3 * DAY);
    drop(index);
    assert_eq!(keys.disk.names(".keys").len(), 2, "each bucket has its own file");
    keys.disk.corrupt(&damaged, 30..31, |byte| !byte);
    let index = keys.open();
    assert_eq!(unknown(&index, 0..1_100), (0..1_000).collect::<Vec<_>>());
    assert_eq!(keys.damaged(), 1);
    assert!(index.is_damaged());
    assert!(keys.disk.names(".keys").contains(&damaged), "the file remains for an inspection");
}

#[test]
fn random_damage_neither_panics_nor_invents_a_key() {
    for seed in 0..24 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (keys, index) = with_merged_file();
        drop(index);
        let file = only_file(&keys);
        let size = keys.disk.len(&file).expect("the file exists");
        for _ in 0..rng.usize(1..4) {
            let start = rng.usize(..size);
            let noise = rng.u8(1..);
            keys.disk.corrupt(&file, start..(start + rng.usize(1..3_000)).min(size), |byte| byte ^ noise);
        }
        let mut index = keys.open();
        let before = unknown(&index, 0..1_000);
        assert_eq!(before.is_empty(), !index.is_damaged(), "seed {seed}");
        seal(&mut index, 1_000..1_050, DAY);
        merge_all(&mut index, DAY);
        assert_eq!(unknown(&index, 0..1_050), before, "seed {seed}");
        assert!(before.is_empty() || keys.damaged() > 0, "seed {seed}");
    }
}

#[test]
fn files_of_format_1_are_not_taken_for_keys() {
    let keys = Keys::new(6);
    let mut bytes = b"hookkeys".to_vec();
    let body = [&7u64.to_le_bytes()[..], &1u64.to_le_bytes(), &DAY.to_le_bytes(), &0u64.to_le_bytes()].concat();
    bytes.extend(crc32c::crc32c(&body).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(&body);
    let entry = [&key(1).0[..], &DAY.to_le_bytes(), &1u64.to_le_bytes()].concat();
    bytes.extend(&entry);
    bytes.extend(crc32c::crc32c(&entry).to_le_bytes());
    let file = format!("{:010}-0-{:016x}.keys", 3, 7);
    keys.disk.put_file(&file, &bytes);
    let mut index = keys.open();
    assert_eq!((keys.damaged(), index.sizes().keys_on_disk), (1, 0));
    seal(&mut index, 0..100, DAY);
    merge_all(&mut index, 3 * DAY);
    assert_eq!(unknown(&index, 0..100), [0; 0]);
    assert_eq!(keys.disk.bytes(&file), bytes, "the file is unchanged");
}

#[test]
fn a_key_takes_at_most_48_bytes_of_disk_and_3_of_memory() {
    let keys = Keys::without_recent_keys(7);
    let mut index = keys.open();
    const KEYS: u64 = 150_000;
    seal(&mut index, 0..KEYS / 2, DAY);
    merge_all(&mut index, DAY);
    seal(&mut index, KEYS / 2..KEYS, DAY);
    merge_all(&mut index, DAY);
    let sizes = index.sizes();
    assert_eq!((sizes.keys_on_disk, sizes.keys_in_memory), (KEYS, 0));
    let files: usize = keys.disk.names(".keys").iter().map(|file| keys.disk.len(file).expect("the file exists")).sum();
    assert_eq!(files as u64, sizes.disk_bytes);
    let (disk, memory) = (files as f64 / KEYS as f64, sizes.filter_bytes as f64 / KEYS as f64);
    assert!(disk <= 48.0 && memory <= 3.0, "{disk} bytes of disk and {memory} bytes of memory a key");
    assert_eq!(unknown(&index, 0..KEYS).len(), 0);
    let false_positives = (KEYS..2 * KEYS).filter(|number| index.lookup_in_memory(&key(*number)) != MemoryLookup::New).count();
    assert!(false_positives < 30, "{false_positives} of {KEYS} fresh keys would read the disk");
}

#[test]
fn sealing_proceeds_between_the_steps_of_a_merge() {
    let keys = Keys::without_recent_keys(8);
    let mut index = keys.open();
    const KEYS: u64 = 140_000;
    seal(&mut index, 0..KEYS, DAY);
    let writes = Arc::new(Mutex::new(0));
    let counter = writes.clone();
    keys.disk.observe(move |step, _| {
        if step == Step::Write {
            *counter.lock().expect("no panic inside") += 1;
        }
    });
    let (mut steps, mut next) = (0, KEYS);
    while index.step(JournalMillis(DAY)).expect("the disk has room") {
        let written = std::mem::take(&mut *writes.lock().expect("no panic inside"));
        assert!(written <= 1, "one step performs {written} writes");
        steps += 1;
        if steps % 4 == 0 && next < KEYS + 50 {
            seal(&mut index, next..next + 10, DAY);
            next += 10;
            *writes.lock().expect("no panic inside") = 0;
            assert_eq!(unknown(&index, next - 10..next), [0; 0]);
            assert_eq!(unknown(&index, 0..100), [0; 0], "keys that a merge is about to move");
        }
    }
    assert!(steps > 20 && next == KEYS + 50, "{steps} steps");
    assert_eq!(unknown(&index, 0..next).len(), 0);
    assert!(keys.disk.names(".keys").len() <= MAX_ASKED_FILES, "the merges are over");
}

#[test]
fn the_oldest_files_are_evicted_when_all_files_exceed_their_limit() {
    let mut keys = Keys::without_recent_keys(9);
    keys.limits.max_bytes = 200 * 1024;
    let mut index = keys.open();
    for segment in 0..60 {
        seal(&mut index, segment * 200..(segment + 1) * 200, DAY + segment * HOUR);
        merge_all(&mut index, DAY + segment * HOUR);
        assert!(index.sizes().disk_bytes <= keys.limits.max_bytes + 16 * 1024, "{:?}", index.sizes());
        assert!(index.sizes().asked_files <= MAX_ASKED_FILES);
    }
    let unknown = unknown(&index, 0..12_000);
    assert_eq!(unknown.len() as u64, index.evicted(), "every evicted key is counted");
    assert_eq!(unknown, (0..unknown.len() as u64).collect::<Vec<_>>(), "the oldest keys are evicted first");
    assert!((7_000..11_000).contains(&unknown.len()), "{} keys are evicted", unknown.len());
}

/// Clock that only the test advances.
#[derive(Default)]
struct SteppedClock(AtomicU64);

impl Clock for SteppedClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(NOW + self.0.load(Ordering::SeqCst))
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(HOUR + self.0.load(Ordering::SeqCst))
    }
}

#[test]
fn a_merge_pauses_for_nine_times_as_long_as_it_works() {
    const SYNC_MS: u64 = 10;
    let (disk, clock) = (SimDisk::default(), Arc::new(SteppedClock::default()));
    let environment = Environment {
        disk: disk.start(),
        clock: clock.clone(),
        random: Arc::new(SeededRandom(Mutex::new(fastrand::Rng::with_seed(1)))),
        metrics: Arc::default(),
    };
    let limits = JournalLimits { segment_size: 64 << 10, ..JournalLimits::default() };
    let options = Options { limits, ..Options::default() };
    let window_ms = options.dedupe_window.as_millis() as u64;
    let (journal, mut writer, mut background) = Journal::open_in_steps(environment, options).expect("the journal opens");
    for number in 0..20 {
        append(&journal, &sample(number, 5_000).event()).expect("accepted").try_recv().unwrap_err();
        writer.step();
    }
    while background.step() {}
    assert!(!disk.names(".topics").is_empty() && disk.names("merged-").is_empty(), "{:?}", disk.names(""));
    // The bucket ends. Each sync of the merge takes some time.
    clock.0.fetch_add(window_ms / 8, Ordering::SeqCst);
    let (syncs, counted) = (Arc::new(AtomicU64::new(0)), clock.clone());
    let counter = syncs.clone();
    disk.observe(move |step, name| {
        if step == Step::Sync && name.starts_with("merged-") {
            counter.fetch_add(1, Ordering::SeqCst);
            counted.0.fetch_add(SYNC_MS, Ordering::SeqCst);
        }
    });
    let start = clock.uptime();
    let mut last_sync = start;
    let mut pauses = Vec::new();
    while !disk.names(".keys").iter().any(|file| file.starts_with("merged-")) {
        let before = syncs.load(Ordering::SeqCst);
        if !background.step() {
            clock.0.fetch_add(1, Ordering::SeqCst);
        }
        if syncs.load(Ordering::SeqCst) > before {
            pauses.push(clock.uptime() - last_sync);
            last_sync = clock.uptime();
        }
    }
    assert_eq!(pauses.len(), 2, "one block and one header");
    assert_eq!(pauses[1].as_millis() as u64, 10 * SYNC_MS, "one tenth of the time is work");
    journal.close();
}

#[test]
fn a_failed_merge_is_repeated_and_loses_no_key() {
    for (step, ending) in
        [(Step::Create, ".tmp"), (Step::Write, ".tmp"), (Step::Sync, ".tmp"), (Step::Rename, ".keys"), (Step::SyncDir, "")]
    {
        let keys = Keys::without_recent_keys(10);
        let mut index = keys.open();
        seal(&mut index, 0..100, DAY);
        seal(&mut index, 100..200, DAY);
        let files = keys.disk.names(".keys");
        keys.disk.fail(step, ending, io::ErrorKind::Other, 1);
        let failed = (0..20).any(|_| index.step(JournalMillis(DAY)).is_err());
        assert!(failed, "{step:?}");
        assert!(files.iter().all(|file| keys.disk.len(file).is_some()), "{step:?}: a file is gone before its replacement");
        assert_eq!(unknown(&index, 0..200), [0; 0], "{step:?}");
        assert_eq!(keys.disk.names(".tmp"), [""; 0], "{step:?}");
        merge_all(&mut index, DAY);
        assert_eq!(unknown(&index, 0..200), [0; 0], "{step:?}");
        drop(index);
        keys.disk.cut_power();
        let mut index = keys.open();
        merge_all(&mut index, 3 * DAY);
        assert_eq!(unknown(&index, 0..200), [0; 0], "{step:?}, after a power cut");
        only_file(&keys);
    }
}

#[test]
fn a_merge_gives_a_page_up_only_after_twelve_read_errors() {
    const ATTEMPTS: usize = 12;
    let keys = Keys::without_recent_keys(11);
    let mut index = keys.open();
    seal(&mut index, 0..500, DAY);
    for _ in 0..ATTEMPTS {
        // The read of several pages fails, and then the read of the first one.
        (0..2).for_each(|_| keys.disk.fail_medium(Step::Read, ".keys"));
        assert!(index.step(JournalMillis(DAY)).is_err());
    }
    merge_all(&mut index, DAY);
    assert_eq!(unknown(&index, 0..500), [0; 0], "the error was temporary");
    assert_eq!(keys.damaged(), 0);

    seal(&mut index, 500..1_000, DAY);
    let file = keys.disk.names(".keys").into_iter().find(|file| !file.starts_with("merged-")).expect("a sealed segment");
    // The third page of keys.
    keys.disk.spoil(&file, 3 * 4096..3 * 4096 + 1);
    let failed = (0..).take_while(|_| index.step(JournalMillis(DAY)).is_err()).count();
    assert_eq!(failed, ATTEMPTS);
    merge_all(&mut index, DAY);
    assert_eq!(unknown(&index, 0..1_000).len(), 97, "the keys of the page are unknown");
    assert_eq!(keys.damaged(), 1);
}

/// The file without keys that replaces an evicted file has its name too early. If it stayed, the next startup would delete the keys,
/// which are not counted as evicted.
#[test]
fn an_eviction_whose_rename_fails_too_late_forgets_no_key() {
    let (mut keys, index) = with_merged_file();
    drop(index);
    let files = keys.disk.names(".keys");
    keys.limits.max_bytes = 1;
    let mut index = keys.open();
    keys.disk.fail_rename_late(".keys");
    assert!(index.step(JournalMillis(DAY)).is_err());
    assert_eq!((index.evicted(), unknown(&index, 0..1_000)), (0, vec![]));
    assert_eq!(keys.disk.names(""), files);
    drop(index);
    keys.limits.max_bytes = u64::MAX;
    assert_eq!(unknown(&keys.open(), 0..1_000), [0; 0], "after a restart");
}

#[test]
fn a_merge_whose_rename_fails_too_late_leaves_no_file() {
    let keys = Keys::without_recent_keys(12);
    let mut index = keys.open();
    seal(&mut index, 0..100, DAY);
    let files = keys.disk.names(".keys");
    keys.disk.fail_rename_late(".keys");
    while index.step(JournalMillis(DAY)).is_ok() {}
    assert_eq!(keys.disk.names(""), files, "a further merge would not replace the file");
    merge_all(&mut index, DAY);
    assert_eq!(unknown(&index, 0..100), [0; 0]);
    assert!(only_file(&keys).starts_with("merged-"));
}

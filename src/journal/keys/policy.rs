//! Decides which key files a merge replaces. All functions are pure.
//!
//! The dedupe window is divided into [`BUCKETS`] buckets by first-seen time. A *flush* merges the recent files, which are the key
//! files of the newest sealed segments, with the newest merged file if that one is small. A *compaction* merges merged files. One
//! flush and one compaction can run at the same time, so that a long compaction never delays a flush.
//!
//! The merged files of the current bucket have at most three levels by number of keys, and each level has one file, so that each
//! key is merged only a few times. As long as lookups ask few files in total, a level may have several files, because this saves
//! merges. Once a bucket is over, a compaction merges its files into one. So at most 12 files are asked:
//!
//! ```text
//!  older buckets                     8
//!  levels of the current bucket      3
//!  flush during a compaction         1
//! ```

use super::super::journal_time::JournalMillis;

/// Facts about a key file on which the policy decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileFacts {
    pub(super) id: u64,
    pub(super) keys: u64,
    pub(super) bytes: u64,
    /// First-seen time of the newest key.
    pub(super) newest: JournalMillis,
    /// True if the file should be rewritten.
    pub(super) is_stale: bool,
    /// True if a running merge replaces the file.
    pub(super) is_busy: bool,
}

/// The key files of the index and the limits that decide about merges.
pub(super) struct MergePolicy {
    /// Files that lookups ask, oldest first.
    pub(super) asked: Vec<FileFacts>,
    /// Files whose keys are in memory, oldest first.
    pub(super) recent: Vec<FileFacts>,
    pub(super) now: JournalMillis,
    pub(super) window_ms: u64,
    /// Maximum size of all key files together, in bytes.
    pub(super) max_bytes: u64,
    /// Number of keys of recent files that may stay in memory.
    pub(super) max_recent_keys: u64,
    /// True if no compaction is running.
    pub(super) may_compact: bool,
}

impl MergePolicy {
    /// Returns the ids of the files that the next flush merges, oldest first; `None` if no flush is due.
    pub(super) fn flush(&self) -> Option<Vec<u64>> {
        let bucket = self.recent.iter().find(|file| file.keys > 0).map(|file| self.bucket(file))?;
        let is_same = |file: &&FileFacts| file.keys == 0 || self.bucket(file) == bucket;
        let group: Vec<&FileFacts> = self.recent.iter().take_while(is_same).collect();
        let keys: u64 = self.recent.iter().map(|file| file.keys).sum();
        let is_due = bucket < self.current_bucket()
            || keys > self.max_recent_keys / 2
            || self.recent.len() > MAX_RECENT_FILES
            || group.iter().any(|file| file.is_stale);
        if !is_due || group.iter().any(|file| file.is_busy) {
            return None;
        }
        let bytes: u64 = group.iter().map(|file| file.bytes).sum();
        let is_full = self.asked.len() >= MAX_ASKED_FILES;
        let is_target = |file: &&FileFacts| {
            let is_small = level(file.keys) == 0 || !self.may_compact;
            let fits = self.bucket(file) == bucket && is_small && file.bytes + bytes <= self.max_file_bytes();
            !file.is_busy && !self.asks_few_files() && (fits || is_full)
        };
        let target = self.asked.last().filter(is_target);
        if target.is_none() && is_full {
            return None;
        }
        Some(target.into_iter().chain(group).map(|file| file.id).collect())
    }

    /// Returns the ids of the files that the next compaction merges, oldest first; `None` if no compaction is due.
    pub(super) fn compaction(&self) -> Option<Vec<u64>> {
        self.excess().or_else(|| self.ended_bucket()).or_else(|| self.levels()).or_else(|| self.stale())
    }

    /// Returns the two adjacent files that are together the smallest, if lookups ask too many files. This happens only if the
    /// window or `max_bytes` has changed, or if the files are limited by `max_bytes` rather than by their bucket.
    fn excess(&self) -> Option<Vec<u64>> {
        let pairs = self.asked.windows(2).filter(|pair| pair.iter().all(|file| !file.is_busy));
        let smallest = pairs.min_by_key(|pair| pair[0].bytes + pair[1].bytes)?;
        (self.asked.len() >= MAX_ASKED_FILES).then(|| ids(smallest))
    }

    /// Returns the files of the oldest bucket that is over and has several files.
    fn ended_bucket(&self) -> Option<Vec<u64>> {
        let current = self.current_bucket();
        let waits = |bucket: u64| self.recent.iter().any(|file| file.keys > 0 && self.bucket(file) <= bucket);
        let groups = self.asked.chunk_by(|a, b| self.bucket(a) == self.bucket(b));
        let ended = groups.filter(|group| self.bucket(&group[0]) < current && !waits(self.bucket(&group[0])));
        ended.filter_map(|group| self.fitting(group)).next()
    }

    /// Returns the longest run of files, from the oldest one that can be merged with its successor, that together have the size
    /// of one file.
    fn fitting(&self, group: &[FileFacts]) -> Option<Vec<u64>> {
        let run_from = |start: usize| {
            let mut bytes = 0;
            let fits = |file: &&FileFacts| {
                bytes += file.bytes;
                bytes <= self.max_file_bytes() && !file.is_busy
            };
            group[start..].iter().take_while(fits).map(|file| file.id).collect::<Vec<u64>>()
        };
        (0..group.len()).map(run_from).find(|run| run.len() > 1)
    }

    /// Returns the newest files of the current bucket, if two of them have the same level and lookups do not ask few files.
    fn levels(&self) -> Option<Vec<u64>> {
        if self.asks_few_files() {
            return None;
        }
        let current = self.current_bucket();
        let mut chosen: Vec<&FileFacts> = Vec::new();
        let (mut keys, mut bytes) = (0, 0);
        let newest = self.asked.iter().rev().skip_while(|file| file.is_busy);
        for file in newest.take_while(|file| self.bucket(file) == current && !file.is_busy) {
            let joins = chosen.is_empty() || level(file.keys) <= level(keys);
            if !joins || bytes + file.bytes > self.max_file_bytes() {
                break;
            }
            (keys, bytes) = (keys + file.keys, bytes + file.bytes);
            chosen.push(file);
        }
        (chosen.len() > 1).then(|| chosen.iter().rev().map(|file| file.id).collect())
    }

    /// Returns a file that should be rewritten.
    fn stale(&self) -> Option<Vec<u64>> {
        self.asked.iter().find(|file| file.is_stale && !file.is_busy).map(|file| vec![file.id])
    }

    /// Returns true if lookups ask so few files that one more costs less than a merge.
    fn asks_few_files(&self) -> bool {
        self.asked.len() < FEW_ASKED_FILES
    }

    fn bucket(&self, file: &FileFacts) -> u64 {
        file.newest.min(self.now).0 / self.bucket_ms()
    }

    fn current_bucket(&self) -> u64 {
        self.now.0 / self.bucket_ms()
    }

    fn bucket_ms(&self) -> u64 {
        (self.window_ms / BUCKETS).max(1)
    }

    /// A file takes at most one bucket's share of the disk space, so that the eviction of one file loses few keys.
    fn max_file_bytes(&self) -> u64 {
        self.max_bytes / BUCKETS
    }
}

fn ids(files: &[FileFacts]) -> Vec<u64> {
    files.iter().map(|file| file.id).collect()
}

fn level(keys: u64) -> usize {
    LEVELS.iter().filter(|from| keys >= **from).count()
}

/// Maximum number of key files that a fresh key asks.
pub const MAX_ASKED_FILES: usize = 12;
/// Number of asked key files below which the merges of the current bucket can wait.
const FEW_ASKED_FILES: usize = 5;
/// Default number of keys of sealed segments that may stay in memory.
pub const MAX_RECENT_KEYS: u64 = 262_144;
/// Number of recent files above which a flush is due. A flush opens all of them.
pub(super) const MAX_RECENT_FILES: usize = 256;
/// Number of buckets of the dedupe window.
pub(super) const BUCKETS: u64 = 8;
/// Numbers of keys from which a file has level 1 and level 2.
const LEVELS: [u64; 2] = [4 * MAX_RECENT_KEYS, 32 * MAX_RECENT_KEYS];

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the policy for three windows: each round adds one recent file, and a compaction needs several rounds.
    fn run(keys_per_round: u64, rounds_per_window: u64, max_bytes: u64) -> (usize, f64) {
        let window_ms = rounds_per_window * 1_000;
        let (mut asked, mut recent): (Vec<FileFacts>, Vec<FileFacts>) = (Vec::new(), Vec::new());
        let mut compaction: Option<(Vec<u64>, u64)> = None;
        let (mut most, mut merged, mut total, mut next_id) = (0, 0, 0, 0);
        for round in 0..3 * rounds_per_window {
            let now = JournalMillis(window_ms + round * 1_000);
            let file = |id, keys, newest| FileFacts { id, keys, bytes: keys * 45, newest, is_stale: false, is_busy: false };
            next_id += 1;
            recent.push(file(next_id, keys_per_round, now));
            total += keys_per_round;
            asked.retain(|file| file.is_busy || file.newest.0 + window_ms > now.0);
            let policy = |asked: &[FileFacts], recent: &[FileFacts], may_compact: bool| MergePolicy {
                asked: asked.to_vec(),
                recent: recent.to_vec(),
                now,
                window_ms,
                max_bytes,
                max_recent_keys: MAX_RECENT_KEYS,
                may_compact,
            };
            let mut replace = |asked: &mut Vec<FileFacts>, recent: &mut Vec<FileFacts>, ids: &[u64]| {
                let inputs: Vec<FileFacts> = asked.iter().chain(recent.iter()).filter(|f| ids.contains(&f.id)).copied().collect();
                assert_eq!(inputs.len(), ids.len());
                let keys: u64 = inputs.iter().map(|file| file.keys).sum();
                merged += keys;
                let at = asked.iter().position(|file| ids.contains(&file.id)).unwrap_or(asked.len());
                asked.retain(|file| !ids.contains(&file.id));
                recent.retain(|file| !ids.contains(&file.id));
                next_id += 1;
                asked.insert(at, file(next_id, keys, inputs.iter().map(|file| file.newest).max().expect("an input")));
            };
            while let Some(ids) = policy(&asked, &recent, compaction.is_none()).flush() {
                replace(&mut asked, &mut recent, &ids);
            }
            if let Some((ids, rounds)) = &mut compaction {
                *rounds = rounds.saturating_sub(1);
                if *rounds == 0 {
                    let ids = std::mem::take(ids);
                    replace(&mut asked, &mut recent, &ids);
                    compaction = None;
                }
            } else if let Some(ids) = policy(&asked, &recent, true).compaction() {
                asked.iter_mut().filter(|file| ids.contains(&file.id)).for_each(|file| file.is_busy = true);
                compaction = Some((ids, rounds_per_window / 50));
            }
            most = most.max(asked.len());
        }
        (most, merged as f64 / total as f64)
    }

    #[test]
    fn at_most_12_files_are_asked_and_a_key_is_merged_few_times() {
        for (keys, rounds) in [(10, 500), (1_000, 500), (66_000, 400), (131_072, 800), (200_000, 3_000), (300_000, 2_000)] {
            let (most, amplification) = run(keys, rounds, u64::MAX);
            println!("{keys} keys in each of {rounds} rounds: {most} files, each key merged {amplification:.1} times");
            assert!((5..=MAX_ASKED_FILES).contains(&most), "{keys} keys in each of {rounds} rounds: {most} files");
            assert!(amplification < 20.0, "{keys} keys in each of {rounds} rounds: each key is merged {amplification:.1} times");
        }
    }
}

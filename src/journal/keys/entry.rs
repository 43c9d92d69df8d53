//! A remembered key, and the list of key files.

use super::super::journal_time::JournalMillis;
use crate::event_key::EventKey;
use crate::fingerprint::Fingerprint;

/// Time, sequence and fingerprint of the stored event that has a given key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenKey {
    /// Time of the commit that stored the event.
    pub first_seen: JournalMillis,
    /// Sequence of the stored event.
    pub seq: u64,
    /// Fingerprint of the stored event.
    pub fingerprint: Fingerprint,
}

/// A key, and what the journal remembers of its event.
pub(crate) type KeyEntry = (EventKey, SeenKey);

/// Entry in the list of key files, with which every segment starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListedKeyFile {
    /// Id of the segment, or id of the merged file.
    pub(crate) id: u64,
    /// Number of keys.
    pub(crate) keys: u64,
}

/// Returns the first 8 bytes of a key as a number that has the order of the keys.
pub(super) fn prefix(key: &EventKey) -> u64 {
    let (first, _) = key.0.split_first_chunk::<8>().expect("a key has 16 bytes");
    u64::from_be_bytes(*first)
}

/// Sorts entries by key, and leaves only the newest entry of each key.
pub(super) fn sort(entries: &mut Vec<KeyEntry>) {
    entries.sort_unstable_by_key(|(key, seen)| (*key, std::cmp::Reverse(seen.seq)));
    entries.dedup_by_key(|(key, _)| *key);
}

/// Returns the position of `value` between `from` and `to`, scaled to `0..count`. The keys are hashes, so a key is usually near
/// this position among `count` sorted keys or pages.
pub(super) fn interpolate(value: u64, from: u64, to: u64, count: usize) -> usize {
    let (offset, span) = (u128::from(value.saturating_sub(from)), u128::from(to.saturating_sub(from)) + 1);
    ((offset * count as u128 / span) as usize).min(count.saturating_sub(1))
}

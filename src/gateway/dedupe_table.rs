//! Tracks the state of each dedupe key. A key is pending while the gateway looks up the key on disk or appends the event.
//! Meanwhile, duplicates of the event wait for the result. A key counts as seen after the journal has stored the event of the
//! key. All other keys are new.
//!
//! The journal is the source of truth. It stores the keys of unsealed segments in memory and older keys in key files. The hot
//! cache (moka) contains keys that a lookup found in a key file, so a second duplicate needs no disk read. The key of a newly
//! stored event never enters the cache. The journal already finds this key in memory, and an insertion into the cache would
//! slow down every delivery.
//!
//! The order of the steps in two functions ensures that the table never treats a stored event as new:
//!
//! - [`DedupeTable::claim`] locks the key's shard of the table and checks whether the key is pending, then whether the key
//!   is seen. If the key is neither pending nor seen, `claim` inserts the key as pending.
//! - [`DedupeTable::resolve`] runs after the journal has added the key to its memory. `resolve` removes the pending key, then
//!   wakes the waiters.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Mutex;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::oneshot;

use crate::event_key::{EventKey, PassThroughHasher};
use crate::journal::{Journal, JournalMillis, MemoryLookup, SeenKey};
use crate::outcome::Outcome;

/// Result of deduplicating and appending an event. The first delivery of the event and all waiting duplicates receive this
/// result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// Sequence of an event that the append stored.
    Stored(u64),
    /// Sequence of an event that the journal already contained.
    Seen(u64),
    /// Outcome of an event that hookhold could not confirm as stored, and the hint for the operator's log. After a failed
    /// sync, such an event may be on disk.
    Failed(Outcome, &'static str),
}

/// Result of claiming a dedupe key. All receivers of a key get the same [`Resolution`].
pub(super) enum Claim {
    /// Key that is new. The caller must append the event, and the append resolves the key.
    New(oneshot::Receiver<Resolution>),
    /// Key that is not in memory but may be in a key file. The caller must search the key files before it appends the event.
    Unconfirmed(oneshot::Receiver<Resolution>),
    /// Key that is already pending, because the gateway is looking up the key or appending the event for another delivery.
    Pending(oneshot::Receiver<Resolution>),
    /// Sequence of the stored event with this key.
    Seen(u64),
}

/// All pending keys, and the hot cache of keys found in the key files.
pub(super) struct DedupeTable {
    shards: Vec<Mutex<PendingKeys>>,
    hot_cache: Cache<EventKey, SeenKey, BuildHasherDefault<PassThroughHasher>>,
}

type PendingKeys = HashMap<EventKey, Vec<oneshot::Sender<Resolution>>, BuildHasherDefault<PassThroughHasher>>;

impl DedupeTable {
    /// Creates an empty table. `hot_keys` limits the number of keys in the hot cache.
    pub(super) fn new(hot_keys: u64) -> DedupeTable {
        // LRU, because moka's default policy rejects the newest keys once the cache is full.
        let hot_cache = Cache::builder().max_capacity(hot_keys).eviction_policy(EvictionPolicy::lru());
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        DedupeTable { shards, hot_cache: hot_cache.build_with_hasher(BuildHasherDefault::default()) }
    }

    /// Claims a dedupe key for a delivery. A key that was first seen at or before `not_before` has left the dedupe window
    /// and counts as new.
    pub(super) fn claim(&self, key: EventKey, not_before: JournalMillis, journal: &Journal) -> Claim {
        self.claim_in(&mut self.shard(&key).lock().expect(POISON), key, not_before, journal)
    }

    /// Claims the dedupe keys of a batch in one step, as if no other delivery arrived in the meantime. Returns the claims in the
    /// order of the keys. If a key occurs twice, the second claim is [`Claim::Pending`].
    pub(super) fn claim_all(&self, keys: &[(EventKey, JournalMillis)], journal: &Journal) -> Vec<Claim> {
        let needed: BTreeSet<usize> = keys.iter().map(|(key, _)| shard_of(key)).collect();
        // Ascending order, so that two batches never wait for each other's shards.
        let mut locked: Vec<_> = needed.iter().map(|shard| self.shards[*shard].lock().expect(POISON)).collect();
        let position = |key: &EventKey| needed.iter().position(|shard| *shard == shard_of(key)).expect("every shard is needed");
        let claim = |(key, not_before): &(EventKey, JournalMillis)| {
            let shard = &mut locked[position(key)];
            self.claim_in(shard, *key, *not_before, journal)
        };
        keys.iter().map(claim).collect()
    }

    fn claim_in(&self, shard: &mut PendingKeys, key: EventKey, not_before: JournalMillis, journal: &Journal) -> Claim {
        if let Some(waiters) = shard.get_mut(&key) {
            let (sender, receiver) = oneshot::channel();
            waiters.push(sender);
            return Claim::Pending(receiver);
        }
        let memory = journal.lookup_in_memory(&key);
        let seen = match memory {
            MemoryLookup::Seen(seen) => Some(seen),
            MemoryLookup::MaybeOnDisk => self.hot_cache.get(&key).filter(|seen| !journal.is_lost(seen)),
            MemoryLookup::New => None,
        };
        if let Some(seen) = seen.filter(|seen| seen.first_seen > not_before) {
            return Claim::Seen(seen.seq);
        }
        let (sender, receiver) = oneshot::channel();
        shard.insert(key, vec![sender]);
        match memory {
            MemoryLookup::MaybeOnDisk => Claim::Unconfirmed(receiver),
            _ => Claim::New(receiver),
        }
    }

    /// Removes a pending key and sends the resolution to all deliveries that wait for the key. Returns true if at least one
    /// delivery received the resolution.
    pub(super) fn resolve(&self, key: EventKey, resolution: Resolution) -> bool {
        let waiters = self.shard(&key).lock().expect(POISON).remove(&key).unwrap_or_default();
        // Use `count` because every waiting delivery must receive the resolution. `any` would stop at the first delivery
        // that receives it.
        waiters.into_iter().filter_map(|sender| sender.send(resolution).ok()).count() > 0
    }

    /// Resolves a pending key that a lookup found in a key file, and adds the key to the hot cache.
    pub(super) fn resolve_seen(&self, key: EventKey, seen: SeenKey) {
        self.hot_cache.insert(key, seen);
        self.resolve(key, Resolution::Seen(seen.seq));
    }

    /// Returns the number of keys in the hot cache. Runs moka's deferred maintenance first, because the count would otherwise
    /// be outdated.
    pub(super) fn hot_keys(&self) -> u64 {
        self.hot_cache.run_pending_tasks();
        self.hot_cache.entry_count()
    }

    fn shard(&self, key: &EventKey) -> &Mutex<PendingKeys> {
        &self.shards[shard_of(key)]
    }
}

fn shard_of(key: &EventKey) -> usize {
    key.0[0] as usize % SHARDS
}

const POISON: &str = "no code panics while it holds this lock";
const SHARDS: usize = 64;

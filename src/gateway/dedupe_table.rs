//! Tracks the state of each dedupe key. A key is pending while the gateway looks up the key on disk or appends the event.
//! Meanwhile, duplicates of the event wait for the result. A key counts as seen after the journal has stored the event of the
//! key. All other keys are new.
//!
//! The journal is the source of truth. It stores the keys of unsealed segments in memory and older keys in key files. The hot
//! cache (moka) contains keys that a lookup found in a key file, so a second duplicate needs no disk read. The key of a newly
//! stored event never enters the cache. The journal already finds this key in memory, and an insertion into the cache would
//! slow down every delivery.
//!
//! Two accounts at one source may use the same id for different events. Each pending or seen key therefore has a fingerprint. If
//! the fingerprint shows another event, the delivery claims the key of its own account instead ([`key::of_account`]). Both keys
//! are in the same shard, so one lock is enough for both.
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
use smallvec::{SmallVec, smallvec};
use tokio::sync::oneshot;

use super::key;
use crate::event_key::{EventKey, PassThroughHasher};
use crate::fingerprint::Fingerprint;
use crate::journal::{Journal, JournalMillis, MemoryLookup, SeenKey};
use crate::outcome::Outcome;

/// Result of deduplicating and appending an event. The first delivery of the event and all waiting duplicates receive this
/// result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// Event that the append stored.
    Stored(FirstCopy),
    /// Event that the journal already contained.
    Seen(FirstCopy),
    /// Outcome of an event that hookhold could not confirm as stored, and the hint for the operator's log. After a failed
    /// sync, such an event may be on disk.
    Failed(Outcome, &'static str),
}

/// The stored copy of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstCopy {
    /// Sequence of the event.
    pub(super) seq: u64,
    pub(super) fingerprint: Fingerprint,
}

/// An event for which the gateway claims a dedupe key.
#[derive(Clone, Copy)]
pub(super) struct Claimant {
    /// Key of the event's identity.
    pub(super) key: EventKey,
    pub(super) fingerprint: Fingerprint,
    /// A key that was first seen at or before this time has left the dedupe window and counts as new.
    pub(super) not_before: JournalMillis,
    /// True if the journal may contain the event under the key of its account although `key` is new.
    pub(super) has_account_key: bool,
}

impl Claimant {
    /// Returns the key of the event if an event of another account uses the key of its identity.
    pub(super) fn account_key(&self, journal: &Journal) -> EventKey {
        key::of_account(&journal.hash_key(), &self.key, &self.fingerprint.secret)
    }
}

/// Result of claiming a dedupe key. All receivers of a key get the same [`Resolution`].
pub(super) enum Claim {
    /// Key that is new: the key of the event's identity, or the key of its account. The caller must append the event, and the
    /// append resolves the key.
    New(EventKey, oneshot::Receiver<Resolution>),
    /// Key that is not in memory but may be in a key file. The caller must search the key files before it appends the event.
    Unconfirmed(EventKey, oneshot::Receiver<Resolution>),
    /// Key that is already pending, because the gateway is looking up the key or appending the event for another delivery.
    Pending(oneshot::Receiver<Resolution>),
    /// The stored event with this key.
    Seen(FirstCopy),
}

/// All pending keys, and the hot cache of keys found in the key files.
pub(super) struct DedupeTable {
    shards: Vec<PendingShard>,
    hot_cache: Cache<EventKey, SeenKey, BuildHasherDefault<PassThroughHasher>>,
}

/// A part of the pending keys, in a cache line of its own, because different processors often lock neighbouring shards at the same
/// time.
#[derive(Default)]
#[repr(align(64))]
struct PendingShard(Mutex<PendingKeys>);

type PendingKeys = HashMap<EventKey, PendingEvent, BuildHasherDefault<PassThroughHasher>>;

/// The event of a pending key.
struct PendingEvent {
    fingerprint: Fingerprint,
    /// The deliveries that wait for the result of the event.
    waiters: SmallVec<[oneshot::Sender<Resolution>; 1]>,
}

impl PendingEvent {
    fn wait(&mut self) -> Claim {
        let (sender, receiver) = oneshot::channel();
        self.waiters.push(sender);
        Claim::Pending(receiver)
    }
}

impl DedupeTable {
    /// Creates an empty table. `hot_keys` limits the number of keys in the hot cache.
    pub(super) fn new(hot_keys: u64) -> DedupeTable {
        // LRU, because moka's default policy rejects the newest keys once the cache is full.
        let hot_cache = Cache::builder().max_capacity(hot_keys).eviction_policy(EvictionPolicy::lru());
        let shards = (0..SHARDS).map(|_| PendingShard::default()).collect();
        DedupeTable { shards, hot_cache: hot_cache.build_with_hasher(BuildHasherDefault::default()) }
    }

    /// Claims the dedupe key of an event for a delivery.
    pub(super) fn claim(&self, claimant: &Claimant, journal: &Journal) -> Claim {
        self.claim_in(&mut self.shard(&claimant.key).lock().expect(POISON), claimant, journal)
    }

    /// Claims the dedupe keys of a batch in one step, as if no other delivery arrived in the meantime. Returns the claims in the
    /// order of the events. If an event occurs twice, the second claim is [`Claim::Pending`].
    pub(super) fn claim_all(&self, claimants: &[Claimant], journal: &Journal) -> Vec<Claim> {
        let needed: BTreeSet<usize> = claimants.iter().map(|claimant| shard_of(&claimant.key)).collect();
        // Ascending order, so that two batches never wait for each other's shards.
        let mut locked: Vec<_> = needed.iter().map(|shard| self.shards[*shard].0.lock().expect(POISON)).collect();
        let position = |key: &EventKey| needed.iter().position(|shard| *shard == shard_of(key)).expect("every shard is needed");
        let claim = |claimant: &Claimant| {
            let shard = &mut locked[position(&claimant.key)];
            self.claim_in(shard, claimant, journal)
        };
        claimants.iter().map(claim).collect()
    }

    fn claim_in(&self, shard: &mut PendingKeys, claimant: &Claimant, journal: &Journal) -> Claim {
        let Claimant { key, fingerprint, has_account_key, .. } = *claimant;
        let pending = shard.get_mut(&key);
        let mut is_taken = pending.is_some();
        if let Some(pending) = pending.filter(|pending| !pending.fingerprint.is_other_event(&fingerprint)) {
            return pending.wait();
        }
        let memory = self.look_up_in_memory(&key, claimant, journal);
        if let MemoryLookup::Seen(seen) = memory {
            if !seen.fingerprint.is_other_event(&fingerprint) {
                return Claim::Seen(seen.into());
            }
            is_taken = true;
        }
        let mut is_confirmed = memory != MemoryLookup::MaybeOnDisk;
        let mut claimed = key;
        if is_taken || has_account_key || !is_confirmed {
            let account_key = claimant.account_key(journal);
            if let Some(pending) = shard.get_mut(&account_key) {
                return pending.wait();
            }
            match self.look_up_in_memory(&account_key, claimant, journal) {
                MemoryLookup::Seen(seen) => return Claim::Seen(seen.into()),
                MemoryLookup::MaybeOnDisk => is_confirmed = false,
                MemoryLookup::New => {}
            }
            if is_taken {
                claimed = account_key;
            }
        }
        let (sender, receiver) = oneshot::channel();
        shard.insert(claimed, PendingEvent { fingerprint, waiters: smallvec![sender] });
        if is_confirmed { Claim::New(claimed, receiver) } else { Claim::Unconfirmed(claimed, receiver) }
    }

    /// Looks up a key in the journal's memory and in the hot cache. A key that has left the dedupe window counts as new.
    fn look_up_in_memory(&self, key: &EventKey, claimant: &Claimant, journal: &Journal) -> MemoryLookup {
        let is_current = |seen: &SeenKey| seen.first_seen > claimant.not_before;
        match journal.lookup_in_memory(key) {
            MemoryLookup::Seen(seen) if is_current(&seen) => MemoryLookup::Seen(seen),
            // An entry in memory is newer than every entry of the same key in a key file.
            MemoryLookup::Seen(_) | MemoryLookup::New => MemoryLookup::New,
            MemoryLookup::MaybeOnDisk => {
                let cached = self.hot_cache.get(key).filter(|seen| is_current(seen) && !journal.is_lost(seen));
                cached.map_or(MemoryLookup::MaybeOnDisk, MemoryLookup::Seen)
            }
        }
    }

    /// Removes a pending key and sends the resolution to all deliveries that wait for the key. Returns true if at least one
    /// delivery received the resolution.
    pub(super) fn resolve(&self, key: EventKey, resolution: Resolution) -> bool {
        let pending = self.shard(&key).lock().expect(POISON).remove(&key);
        let waiters = pending.map(|pending| pending.waiters).unwrap_or_default();
        // Use `count` because every waiting delivery must receive the resolution. `any` would stop at the first delivery
        // that receives it.
        waiters.into_iter().filter_map(|sender| sender.send(resolution).ok()).count() > 0
    }

    /// Moves a claim to the key of the event's account, because a lookup has found another account's event under `key`. No
    /// other delivery can have claimed the key of the account, because all deliveries of the account wait for `key`.
    pub(super) fn move_to_account(&self, key: EventKey, account_key: EventKey) {
        let mut shard = self.shard(&key).lock().expect(POISON);
        let moved = shard.remove(&key).map(|pending| shard.insert(account_key, pending));
        debug_assert!(moved.is_some_and(|replaced| replaced.is_none()), "one claim for each account");
    }

    /// Adds a key that a lookup found in a key file to the hot cache.
    pub(super) fn cache(&self, key: EventKey, seen: SeenKey) {
        self.hot_cache.insert(key, seen);
    }

    /// Returns the number of keys in the hot cache. Runs moka's deferred maintenance first, because the count would otherwise
    /// be outdated.
    pub(super) fn hot_keys(&self) -> u64 {
        self.hot_cache.run_pending_tasks();
        self.hot_cache.entry_count()
    }

    fn shard(&self, key: &EventKey) -> &Mutex<PendingKeys> {
        &self.shards[shard_of(key)].0
    }
}

impl From<SeenKey> for FirstCopy {
    fn from(seen: SeenKey) -> FirstCopy {
        FirstCopy { seq: seen.seq, fingerprint: seen.fingerprint }
    }
}

fn shard_of(key: &EventKey) -> usize {
    key.0[0] as usize % SHARDS
}

const POISON: &str = "no code panics while it holds this lock";
const SHARDS: usize = 32;

//! Admit once: at any moment a key is pending (its event is on the way to the disk, everybody who sends it again waits),
//! seen (it is kept), or free. The truth is the journal's: newest keys in its memory, older ones in its key files. moka
//! remembers what the key files answered, so that a repeat of a repeat needs no disk. New keys never touch it: filling it with
//! every key that is kept would cost each delivery an insertion and answer nothing that the memory of the journal does not.
//!
//! Order, so that no moment exists in which a kept event looks new: lock the shard; pending? else seen? else mark pending.
//! At the end: into the journal's memory, then out of pending, then wake.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::oneshot;

use crate::clock::UnixMillis;
use crate::event_key::{EventKey, PassThrough};
use crate::journal::{Journal, MemoryLookup, SeenKey};
use crate::outcome::Outcome;

/// How the event that a delivery carries ended; told to everybody who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is kept under this sequence.
    Kept(u64),
    /// It had been kept before, under this sequence.
    Seen(u64),
    /// It is not known to be kept, for this reason.
    Not(Outcome, &'static str),
}

/// What becomes of a delivery that asks for admission.
pub enum Admitted {
    /// It is the first: its event must be handed over, then its end arrives here.
    First(oneshot::Receiver<Ending>),
    /// It is the first as far as memory knows: the key files must be asked before its event is handed over.
    Unsure(oneshot::Receiver<Ending>),
    /// The same event is under way: its end arrives here.
    Waits(oneshot::Receiver<Ending>),
    /// The same event is kept under this sequence.
    Repeat(u64),
}

/// All pending keys, and the hot cache of those that key files hold.
pub struct Admission {
    shards: Vec<Mutex<Shard>>,
    seen: Cache<EventKey, SeenKey, BuildHasherDefault<PassThrough>>,
}

type Shard = HashMap<EventKey, Vec<oneshot::Sender<Ending>>, BuildHasherDefault<PassThrough>>;

impl Admission {
    /// Starts cold; holds at most `hot_keys` seen keys.
    pub fn new(hot_keys: u64) -> Arc<Admission> {
        // The default policy would keep none of the newest keys once the cache is full.
        let seen = Cache::builder().max_capacity(hot_keys).eviction_policy(EvictionPolicy::lru());
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Admission { shards, seen: seen.build_with_hasher(BuildHasherDefault::default()) })
    }

    /// Decides about a key. `not_before`: what was first seen earlier has left the window.
    pub fn admit(&self, key: EventKey, not_before: UnixMillis, journal: &Journal) -> Admitted {
        let counts = |seen: &SeenKey| seen.first_seen > not_before;
        let mut shard = self.shard(&key).lock().expect(POISON);
        if let Some(waiting) = shard.get_mut(&key) {
            let (tell, told) = oneshot::channel();
            waiting.push(tell);
            return Admitted::Waits(told);
        }
        let memory = journal.lookup_in_memory(&key);
        let seen = match memory {
            MemoryLookup::Seen(seen) => Some(seen),
            MemoryLookup::MaybeOnDisk => self.seen.get(&key).filter(|seen| !journal.is_lost(seen)),
            MemoryLookup::New => None,
        };
        if let Some(seen) = seen.filter(counts) {
            return Admitted::Repeat(seen.seq);
        }
        let (tell, told) = oneshot::channel();
        shard.insert(key, vec![tell]);
        match memory {
            MemoryLookup::MaybeOnDisk => Admitted::Unsure(told),
            _ => Admitted::First(told),
        }
    }

    /// Ends a pending key and wakes everybody. True if somebody was still there to hear it.
    pub fn end(&self, key: EventKey, seen: Option<SeenKey>, ending: Ending) -> bool {
        if let Some(seen) = seen {
            self.seen.insert(key, seen);
        }
        let waiting = self.shard(&key).lock().expect(POISON).remove(&key).unwrap_or_default();
        // Everybody must be told, so no short circuit.
        waiting.into_iter().filter_map(|tell| tell.send(ending).ok()).count() > 0
    }

    /// Keys in the hot cache. moka counts when it tidies up, which it would otherwise put off.
    pub fn hot_keys(&self) -> u64 {
        self.seen.run_pending_tasks();
        self.seen.entry_count()
    }

    fn shard(&self, key: &EventKey) -> &Mutex<Shard> {
        &self.shards[key.0[0] as usize % SHARDS]
    }
}

const POISON: &str = "nothing panics while it holds this lock";
const SHARDS: usize = 64;

//! Merges key files in the background. A step takes some milliseconds, so that sealing a segment never waits for a long merge.
//! Pauses between the steps limit the merges to a tenth of a core.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use super::super::keys::{KeyEnvironment, KeyMerging};
use super::super::{POISON, Shared};

/// The running merges. Only the background thread locks the merges, so it may hold the lock during disk operations.
#[derive(Default)]
pub(super) struct RunningMerges(Mutex<KeyMerging>);

impl RunningMerges {
    /// Returns the ids of the key files that the running merges replace.
    pub(super) fn busy_files(&self) -> Vec<u64> {
        self.0.lock().expect(POISON).busy()
    }
}

/// Performs one step of the merges, and returns the uptime at which the next step is due. Returns `None` if no merge is running
/// and none is due, or if the journal has failed.
pub(super) fn step(shared: &Shared) -> Option<Duration> {
    if shared.health.has_failed() {
        return None;
    }
    let started = shared.time.clock().uptime();
    let mut merges = shared.background.merges.0.lock().expect(POISON);
    let step = with_environment(shared, |environment| merges.step(&shared.keys, environment));
    let ended = shared.time.clock().uptime();
    match step {
        Ok(false) => None,
        // More keys than the limit are in memory, so the memory matters more than the pauses.
        Ok(true) if shared.keys.has_too_many_recent_keys() => Some(ended),
        Ok(true) => Some(ended + (ended.saturating_sub(started) * PAUSE_FACTOR).min(MAX_PAUSE)),
        Err(error) => {
            tracing::warn!(%error, "cannot merge key files; hookhold keeps retrying; free some disk space, or check the disk");
            Some(ended + RETRY_INTERVAL)
        }
    }
}

/// Calls `work` with what the work on key files needs.
pub(super) fn with_environment<T>(shared: &Shared, work: impl FnOnce(&KeyEnvironment) -> T) -> T {
    let segments: HashSet<u64> = shared.segments.segments().iter().flat_map(|segment| segment.key_ids()).collect();
    let has_segment = |id: u64| segments.contains(&id);
    let (disk, random, sync_dir) = (&*shared.disk, &*shared.background.random, || shared.sync_dir());
    work(&KeyEnvironment { disk, random, sync_dir: &sync_dir, now: shared.time.now(), has_segment: &has_segment })
}

/// After a step, the merges pause for this multiple of the step's time.
const PAUSE_FACTOR: u32 = 9;
/// Maximum pause between two steps. A step that waits for a slow disk uses no core.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Time after a failed step until the next step.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

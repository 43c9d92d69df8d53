//! Deletes key files whose keys have left the dedupe window, and the oldest key files if all key files together exceed
//! `max_key_bytes`.

use super::super::Shared;
use super::super::keys::{self, EvictedKeys};
use super::key_merging::with_environment;

/// Deletes old key files. Counts and logs each file whose keys have not left the dedupe window.
pub(super) fn delete_old(shared: &Shared) {
    if shared.health.has_failed() {
        return;
    }
    let busy = shared.background.merges.busy_files();
    let on_evicted = |EvictedKeys { file, keys }: EvictedKeys| {
        shared.metrics.journal.dedupe_evicted.with_label_values(&["max_disk"]).inc_by(keys);
        tracing::warn!(
            file,
            keys,
            "dedupe.max_disk: expected room for all keys of the dedupe window, found too little; hookhold has deleted the \
             oldest keys, so raise dedupe.max_disk"
        );
    };
    let deleted = with_environment(shared, |environment| keys::delete_old(&shared.keys, &busy, environment, on_evicted));
    if let Err(error) = deleted {
        tracing::warn!(%error, "cannot delete an old key file; check the disk");
    }
}

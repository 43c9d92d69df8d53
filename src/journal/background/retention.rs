//! Deletes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::disk::write_whole;
use super::super::keys::KeyFile;
use super::super::segment::Segment;
use super::super::segment_file::{HEADER, Name};
use super::super::segment_summary::SegmentSummary;
use super::super::{POISON, Shared};
use super::Room;
use super::reserve::lay_in_reserve;
use super::spares::{begin_again, lay_aside};
use crate::clock::UnixMillis;

/// Deletes segments that are older than `retain`, key files that have left the window, and lets the writer try again.
pub fn retire(shared: &Shared) {
    let now = shared.clock.now();
    let keep_from = UnixMillis(now.0.saturating_sub(shared.options.limits.retain.as_millis() as u64));
    while release_one(shared, &shared.keeper.room.lock().expect(POISON), |table| table.newest < keep_from) {}
    let_go(shared);
    let expired = UnixMillis(now.0.saturating_sub(shared.window.load(Ordering::Relaxed)));
    let (old, early) = shared.keys.retire(expired, shared.options.max_key_bytes);
    for (name, keys) in &early {
        shared.metrics.journal.dedupe_evicted.with_label_values(&["max_disk"]).inc_by(*keys);
        tracing::warn!(file = name.keys(), keys, "keys are forgotten before their window ends: dedupe.max_disk is used up");
    }
    for name in old.into_iter().chain(early.into_iter().map(|(name, _)| name)) {
        forget_keys(shared, name);
    }
    forget_lost_keys(shared);
    lay_in_reserve(shared);
    begin_again(shared);
    shared.queue.lock().expect(POISON).has_room();
    shared.count_sizes();
}

/// A segment that still exists keeps an empty key file: without any it would be read again at the next start.
fn forget_keys(shared: &Shared, name: Name) {
    let exists = shared.catalog.segments().iter().any(|segment| segment.name == name);
    let result = match exists {
        true => write_whole(&*shared.disk, &name.keys(), &KeyFile::encode(name, &[])),
        false => shared.disk.remove(&name.keys()),
    };
    if let Err(error) = result {
        tracing::warn!(file = name.keys(), %error, "an expired key file could not be deleted");
    }
}

/// Deletes the oldest segment that is sealed, that no lane needs and that `may_go`.
pub fn release_one(shared: &Shared, _room: &Room, may_go: impl Fn(&SegmentSummary) -> bool) -> bool {
    let mut segments = shared.catalog.segments();
    // A segment without a commit does not tell yet where the sequences go on: the one before it must stay.
    let newest = segments.iter().rposition(|segment| segment.with(|table| table.end > HEADER));
    segments.truncate(newest.unwrap_or(0));
    // One that is not sealed yet will be read again at the next start: what lay behind it must not look lost then.
    let sealed = segments.iter().take_while(|segment| segment.sealed.load(Ordering::Acquire)).count();
    segments.truncate(sealed);
    let is_needed = shared.catalog.needs(shared.options.forwards);
    let free = |s: &Arc<Segment>| s.with(&may_go) && !is_needed(s);
    let Some(segment) = segments.into_iter().find(free) else { return false };
    // The catalog first: a reader that finds the segment may still use its open file.
    shared.catalog.remove(segment.name);
    let disk = &shared.disk;
    let gone = lay_aside(shared, &segment).and_then(|()| disk.remove(&segment.name.lanes()));
    if !shared.keys.has_file(segment.name) {
        // An empty one, whose keys are forgotten already.
        drop(disk.remove(&segment.name.keys()));
    }
    if let Err(error) = gone.and_then(|()| disk.sync_dir()) {
        tracing::warn!(segment = segment.name.segment(), %error, "an old segment could not be deleted");
    }
    true
}

/// Gives back the memory in which the machine caches what is sealed and passed on. Nobody reads that soon, and the writer's next
/// pages then come from warm memory instead of pushing out something that others need.
fn let_go(shared: &Shared) {
    let is_needed = shared.catalog.needs(shared.options.forwards);
    for segment in shared.catalog.segments() {
        let done = segment.sealed.load(Ordering::Acquire) && !is_needed(&segment);
        if done && !segment.let_go.swap(true, Ordering::Relaxed) {
            segment.file.drop_from_page_cache();
        }
    }
}

/// Writes key files anew from which rot has taken events; until then memory alone knows.
fn forget_lost_keys(shared: &Shared) {
    let rewrite = || {
        for (name, keys) in shared.keys.to_rewrite(&*shared.disk)? {
            write_whole(&*shared.disk, &name.keys(), &KeyFile::encode(name, &keys))?;
            shared.disk.sync_dir()?;
            shared.keys.replace(name, KeyFile::open(&*shared.disk, name)?);
        }
        io::Result::Ok(())
    };
    if let Err(error) = rewrite() {
        shared.keys.look_again();
        tracing::warn!(%error, "a key file could not be written anew after damage");
    }
}

//! Deletes key files whose keys have left the dedupe window, and rewrites key files that contain keys of lost events.

use std::io;

use super::super::Shared;
use super::super::disk::write_atomically;
use super::super::errors::in_file;
use super::super::key_file::KeyFile;
use super::super::segment_name::SegmentName;

/// Deletes key files whose keys have left the dedupe window. Then deletes the oldest remaining key files until all key files
/// together fit into `max_key_bytes`.
pub(super) fn delete_expired(shared: &Shared) {
    let (expired, evicted) = shared.keys.remove_expired(shared.time.now(), shared.options.max_key_bytes);
    for (name, keys) in &evicted {
        shared.metrics.journal.dedupe_evicted.with_label_values(&["max_disk"]).inc_by(*keys);
        let file = name.key_file();
        tracing::warn!(
            file,
            keys,
            "dedupe.max_disk: expected room for all keys of the dedupe window, found too little; hookhold has deleted the \
             oldest keys, so raise dedupe.max_disk"
        );
    }
    for name in expired.into_iter().chain(evicted.into_iter().map(|(name, _)| name)) {
        delete(shared, name);
    }
}

/// Deletes one key file. If the segment of this file still exists, replaces the file with a key file without keys instead.
/// Without a key file, hookhold would treat the segment as unsealed at the next startup and read all its frames.
fn delete(shared: &Shared, name: SegmentName) {
    let deleted = match shared.segments.contains(name) {
        true => write_atomically(&*shared.disk, &name.key_file(), &KeyFile::encode(name, &[])),
        false => shared.disk.remove(&name.key_file()),
    };
    if let Err(error) = deleted {
        tracing::warn!(file = name.key_file(), %error, "cannot delete an old key file; check the disk");
    }
}

/// Rewrites each key file that contains keys of lost events, and omits these keys. Lookups ignore these keys even before the
/// rewrite, because the key index lists the sequences of the lost events.
pub(super) fn rewrite_stale(shared: &Shared) {
    let rewrite = || {
        for (name, entries) in shared.keys.stale_files(&*shared.disk)? {
            let written = write_atomically(&*shared.disk, &name.key_file(), &KeyFile::encode(name, &entries));
            in_file(written, || name.key_file())?;
            shared.disk.sync_dir()?;
            shared.keys.replace_file(name, KeyFile::open(&*shared.disk, name)?);
        }
        io::Result::Ok(())
    };
    if let Err(error) = rewrite() {
        shared.keys.retry_stale_files();
        tracing::warn!(%error, "cannot rewrite a key file with keys of lost events; hookhold keeps retrying; check the disk");
    }
}

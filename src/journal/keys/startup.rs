//! Fills the key index at startup. Damaged files cost their own keys and never stop the startup.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use super::super::disk::{Disk, DiskFile};
use super::super::segment_name::SegmentName;
use super::directory::{FoundKeyFile, KeyDirectory};
use super::entry::ListedKeyFile;
use super::file::KeyFile;
use super::header::{KeyFileHeader, KeyFileName};
use super::index::KeyIndex;
use super::policy::MAX_RECENT_KEYS;

/// Adds the key files of a directory to the index, and deletes the files that a merged file replaces. `unsealed` contains the ids
/// of the unsealed segments, whose key files are written again. Fails only if the directory cannot be synced.
pub(crate) fn load(index: &KeyIndex, directory: KeyDirectory, unsealed: &HashSet<u64>, disk: &dyn Disk) -> io::Result<()> {
    let KeyDirectory { files, replaced, damaged, .. } = directory;
    if !replaced.is_empty() {
        // After a kill, the name of the merged file may exist only in memory.
        disk.sync_dir()?;
    }
    for name in replaced {
        if disk.remove(&name.to_string()).is_err() {
            index.names().obsolete.push(name);
        }
    }
    let (rebuilt, damaged): (Vec<_>, Vec<_>) = damaged.into_iter().partition(|(name, _)| unsealed.contains(&name.id()));
    damaged.iter().for_each(|(name, found)| index.damage.lose_file(&name.to_string(), found));
    index.names().rebuilt.extend(rebuilt.into_iter().map(|(name, _)| name));
    let (rebuilt, mut files): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| unsealed.contains(&file.name.id()));
    index.names().rebuilt.extend(rebuilt.into_iter().map(|file| file.name));
    files.sort_by_key(|file| std::cmp::Reverse(file.header.facts.last));
    let (mut recent_keys, mut may_load) = (0, true);
    for FoundKeyFile { name, header } in files {
        let opened = match disk.open(&name.to_string()) {
            Ok(opened) => opened,
            Err(error) => {
                index.damage.lose_file(&name.to_string(), &error.to_string());
                continue;
            }
        };
        let keys = header.facts.count;
        // A key in memory hides its older entries in the files, so no file may be newer than the keys in memory.
        may_load &= keys == 0 || matches!(name, KeyFileName::Segment(_)) && recent_keys < MAX_LOADED_KEYS;
        if keys == 0 || may_load {
            recent_keys += keys;
            load_recent(index, name, header, opened);
        } else {
            let file = KeyFile::load(name, header, opened, &index.damage);
            if index.has_lost_keys(&file.facts) {
                file.set_stale();
            }
            index.replace(&[], Some(Arc::new(file)));
        }
    }
    Ok(())
}

/// Counts each listed key file that is missing. A file is not missing if a merged file replaces it, or if its segment exists, which is
/// then sealed again. A damaged file is counted when the index is loaded.
pub(crate) fn report_missing(
    index: &KeyIndex,
    directory: &KeyDirectory,
    listed: &[ListedKeyFile],
    has_segment: impl Fn(u64) -> bool,
) {
    for ListedKeyFile { id, keys } in listed.iter().filter(|file| !directory.has_keys_of(file.id)) {
        if !has_segment(*id) && !directory.is_damaged(*id) {
            index.damage.lose_file(&format!("{id:016x}.keys"), &format!("no file with its {keys} keys"));
        }
    }
}

/// Counts the key file of a segment that omits events if no file has one of `ids`. The newest list may be older than the file, so
/// the list does not show that the file is missing.
pub(crate) fn report_missing_of_segment(
    index: &KeyIndex,
    directory: &KeyDirectory,
    listed: &[ListedKeyFile],
    segment: SegmentName,
    ids: &[u64],
) {
    let Some(oldest) = ids.first() else { return };
    let is_known = |id: u64| directory.has_keys_of(id) || directory.is_damaged(id) || listed.iter().any(|file| file.id == id);
    if !ids.iter().any(|id| is_known(*id)) {
        let file = SegmentName { id: *oldest, ..segment }.key_file();
        index.damage.lose_file(&file, "no file with the keys of the events that the segment omits");
    }
}

/// Adds a file to the recent files, and its keys to the memory.
fn load_recent(index: &KeyIndex, name: KeyFileName, header: KeyFileHeader, file: Arc<dyn DiskFile>) {
    let recent = index.add_recent(name, header);
    let mut reader = recent.reader_of(file).skip_unreadable();
    loop {
        match reader.next() {
            Ok(Some(entry)) => index.memory.insert(entry),
            Ok(None) => return,
            Err(error) => return recent.unreadable.lose_file(&error.to_string()),
        }
    }
}

/// Number of keys of recent files above which lookups ask older files of segments instead. Merges that have failed for a long time
/// may leave more.
const MAX_LOADED_KEYS: u64 = 4 * MAX_RECENT_KEYS;

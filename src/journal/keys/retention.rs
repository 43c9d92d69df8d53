//! Deletes key files: files whose keys have left the dedupe window, the oldest files if all files together exceed their limit,
//! files that a merge has replaced, and files without keys that no segment needs.

use std::io;

use super::super::disk::write_atomically;
use super::header::{KeyFileName, encode_key_file};
use super::index::{KeyEnvironment, KeyIndex};

/// A key file that was deleted before its keys had left the dedupe window.
pub(crate) struct EvictedKeys {
    /// Name of the file.
    pub(crate) file: String,
    /// Number of keys in the file.
    pub(crate) keys: u64,
}

/// A key file, as far as its deletion is concerned.
struct OldKeyFile {
    name: KeyFileName,
    keys: u64,
    bytes: u64,
    replaced: Vec<u64>,
    is_expired: bool,
}

/// Deletes key files whose keys have left the dedupe window. Then deletes the oldest remaining key files until all key files
/// together fit into their limit, and returns these files. `busy` contains the ids of the files that a running merge replaces;
/// this function leaves them alone.
pub(crate) fn delete_old(
    index: &KeyIndex,
    busy: &[u64],
    environment: &KeyEnvironment,
    mut on_evicted: impl FnMut(EvictedKeys),
) -> io::Result<()> {
    let obsolete = std::mem::take(&mut index.names().obsolete);
    delete(index, obsolete, environment);
    let candidates = candidates(index, environment);
    // A file without keys only shows that a segment is sealed. Without this distinction, many segments could use up the limit.
    let mut bytes: u64 = candidates.iter().filter(|file| file.keys > 0).map(|file| file.bytes).sum();
    for file in candidates.into_iter().filter(|file| !busy.contains(&file.name.id())) {
        let is_excess = bytes > index.limits.max_bytes && file.keys > 0;
        let is_needed = || file.replaced.iter().chain([&file.name.id()]).any(|id| index.is_needed(*id, environment));
        if !file.is_expired && !is_excess && (file.keys > 0 || is_needed()) {
            continue;
        }
        remove(index, &file, environment)?;
        bytes -= if file.keys > 0 { file.bytes } else { 0 };
        if !file.is_expired && file.keys > 0 {
            on_evicted(EvictedKeys { file: file.name.to_string(), keys: file.keys });
        }
    }
    index.drop_lost_ranges();
    Ok(())
}

/// Deletes files that are not part of the index any more. After a failure, the next call of [`delete_old`] tries again.
pub(super) fn delete(index: &KeyIndex, names: Vec<KeyFileName>, environment: &KeyEnvironment) {
    for name in names {
        if let Err(error) = environment.disk.remove(&name.to_string())
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(file = name.to_string(), %error, "cannot delete an old key file; hookhold keeps trying");
            index.names().obsolete.push(name);
        }
    }
}

/// Returns all files, oldest first.
fn candidates(index: &KeyIndex, environment: &KeyEnvironment) -> Vec<OldKeyFile> {
    let window_start = index.window_start(environment.now);
    let asked = index.asked();
    let asked = asked.iter().map(|file| OldKeyFile {
        name: file.name,
        keys: file.facts.count,
        bytes: file.bytes,
        replaced: file.replaced.clone(),
        is_expired: file.facts.newest < window_start,
    });
    let recent = index.recent();
    let recent = recent.iter().map(|file| OldKeyFile {
        name: file.name,
        keys: file.header.facts.count,
        bytes: file.header.file_len(),
        replaced: file.header.replaced.clone(),
        is_expired: !file.header.is_empty() && file.header.facts.newest < window_start,
    });
    asked.chain(recent).collect()
}

/// Removes a file from the index and deletes it. If the segments or the list of key files still need its name, first writes a
/// file without keys that replaces it. Without that file, the next startup would treat the segments as unsealed.
fn remove(index: &KeyIndex, file: &OldKeyFile, environment: &KeyEnvironment) -> io::Result<()> {
    let mut needed: Vec<u64> = file.replaced.iter().copied().filter(|id| index.is_needed(*id, environment)).collect();
    // The writer may list a file with keys at any time until the index lacks the file.
    if file.keys > 0 || index.is_needed(file.name.id(), environment) {
        needed.push(file.name.id());
    }
    if !needed.is_empty() {
        let name = KeyFileName::Merged(environment.random.next_u64()?);
        let (header, bytes) = encode_key_file(name.id(), &[], needed);
        // If the file exists nevertheless, the next startup would delete the files that it replaces.
        let written = write_atomically(environment.disk, &name.to_string(), &bytes);
        written.inspect_err(|_| index.names().obsolete.push(name))?;
        (environment.sync_dir)()?;
        index.add_recent(name, header);
    } else if !file.replaced.is_empty() {
        // If a power cut undid only the deletion of a replaced file, the keys of that file would return.
        (environment.sync_dir)()?;
    }
    index.replace(&[file.name.id()], None);
    delete(index, vec![file.name], environment);
    Ok(())
}

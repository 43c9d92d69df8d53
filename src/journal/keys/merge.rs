//! One merge of key files, in steps. A step merges some keys, or writes and syncs one block, or completes the file. The keys pass
//! through the memory block by block, so a merge needs little memory in addition to the filters of the new file.
//!
//! The new file has a temporary name until it and the directory entry are synced. Only then may the caller delete the files that
//! it replaces. An interrupted merge therefore leaves nothing but a temporary file, or files that a valid file replaces.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::super::disk::{DiskFile, TEMPORARY_EXT, delete_after_rename};
use super::super::journal_time::JournalMillis;
use super::super::planted::is_planted;
use super::damage::UnreadablePages;
use super::entry::KeyEntry;
use super::file::KeyFile;
use super::header::{KeyFileBuilder, KeyFileHeader, KeyFileName};
use super::index::{KeyEnvironment, KeyIndex};
use super::reader::KeyReader;
use crate::event_key::EventKey;

/// A merge of key files.
pub(super) struct Merge {
    /// Ids of the files that the new file replaces, oldest first.
    pub(super) inputs: Vec<u64>,
    name: KeyFileName,
    file: Arc<dyn DiskFile>,
    inputs_left: MergeInputs,
    /// Key of the last entry that the merge has visited and not omitted.
    last: Option<EventKey>,
    builder: KeyFileBuilder,
    /// Time before which a key must have been first seen to have left the dedupe window.
    window_start: JournalMillis,
    now: JournalMillis,
    /// Lost sequences at the start of the merge.
    lost: Arc<Vec<Range<u64>>>,
}

/// The entries that a merge has not visited yet.
struct MergeInputs(Vec<MergeInput>);

/// One file that a merge reads, and its next entry. The file has at least one entry left.
struct MergeInput {
    reader: KeyReader,
    next: KeyEntry,
}

/// Result of one step.
pub(super) enum MergeProgress {
    /// The merge needs further steps.
    Working,
    /// The new file and its name are synced.
    Complete(KeyFile),
    /// The new file and its name are synced, and the file has no keys.
    Empty(KeyFileName, KeyFileHeader),
}

impl Merge {
    /// Starts to merge the files with these ids into a new file.
    pub(super) fn start(index: &KeyIndex, inputs: Vec<u64>, environment: &KeyEnvironment) -> io::Result<Merge> {
        let (mut readers, mut replaced, mut max_keys) = (Vec::new(), inputs.clone(), 0);
        for file in index.asked().iter().filter(|file| inputs.contains(&file.name.id())) {
            readers.push(KeyReader::new(file.file.clone(), file.name.id(), &file.blocks, file.unreadable.clone()));
            replaced.extend(&file.replaced);
            max_keys += file.facts.count;
        }
        for file in index.recent().iter().filter(|file| inputs.contains(&file.name.id())) {
            readers.extend(file.reader(environment.disk)?);
            replaced.extend(&file.header.replaced);
            max_keys += file.header.facts.count;
        }
        replaced.retain(|id| inputs.contains(id) || index.is_needed(*id, environment));
        replaced.sort_unstable();
        replaced.dedup();
        let inputs_left = MergeInputs::new(readers)?;
        let name = KeyFileName::Merged(environment.random.next_u64()?);
        let file = environment.disk.create(&temporary(name), 0)?;
        let builder = KeyFileBuilder::new(name.id(), max_keys, replaced);
        let (window_start, now) = (index.window_start(environment.now), environment.now);
        Ok(Merge { inputs, name, file, inputs_left, last: None, builder, window_start, now, lost: index.lost().snapshot() })
    }

    /// Performs the next step.
    pub(super) fn step(&mut self, index: &KeyIndex, environment: &KeyEnvironment) -> io::Result<MergeProgress> {
        if self.builder.is_full() || self.inputs_left.is_empty() && self.builder.has_entries() {
            self.write_block()?;
        } else if !self.inputs_left.is_empty() {
            self.merge_some(index)?;
        } else {
            return self.complete(index, environment);
        }
        Ok(MergeProgress::Working)
    }

    /// Returns true if further events have become lost since the start of the merge, so the new file may contain their keys.
    pub(super) fn has_missed_lost_events(&self, index: &KeyIndex) -> bool {
        index.lost().has_changed_since(&self.lost)
    }

    /// Deletes the file of a merge that has failed, perhaps in the rename of the file.
    pub(super) fn abandon(self, index: &KeyIndex, environment: &KeyEnvironment) {
        // After a failure to delete a temporary file, the next startup deletes it.
        if delete_after_rename(environment.disk, &temporary(self.name), &self.name.to_string()).is_err() {
            index.names().obsolete.push(self.name);
        }
    }

    fn merge_some(&mut self, index: &KeyIndex) -> io::Result<()> {
        for _ in 0..STEP_KEYS {
            let Some((key, mut seen)) = self.inputs_left.next()? else { break };
            // A key from a damaged commit may have a time in the future, and would never expire.
            seen.first_seen = seen.first_seen.min(self.now);
            let is_current = seen.first_seen >= self.window_start && !index.is_lost(&seen);
            let is_forgotten = is_planted("merge that forgets") && key.0[0] < 32;
            if is_current && !is_forgotten && self.last != Some(key) {
                self.last = Some(key);
                self.builder.push((key, seen));
                if self.builder.is_full() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Writes one block and syncs it, so that no later sync has much to write.
    fn write_block(&mut self) -> io::Result<()> {
        if let Some((offset, bytes)) = self.builder.take_block() {
            self.file.write_at(&bytes, offset)?;
            self.file.sync()?;
        }
        Ok(())
    }

    fn complete(&mut self, index: &KeyIndex, environment: &KeyEnvironment) -> io::Result<MergeProgress> {
        let header = self.builder.finish();
        let name = self.name.to_string();
        self.file.write_at(&header.encode(), 0)?;
        self.file.sync()?;
        environment.disk.rename(&temporary(self.name), &name)?;
        (environment.sync_dir)()?;
        if header.is_empty() {
            return Ok(MergeProgress::Empty(self.name, header));
        }
        let unreadable = UnreadablePages::new(name, index.damage.clone());
        Ok(MergeProgress::Complete(KeyFile::new(self.name, header, self.file.clone(), unreadable)))
    }
}

impl MergeInputs {
    fn new(readers: Vec<KeyReader>) -> io::Result<MergeInputs> {
        let mut inputs = Vec::with_capacity(readers.len());
        for mut reader in readers {
            if let Some(next) = reader.next()? {
                inputs.push(MergeInput { reader, next });
            }
        }
        Ok(MergeInputs(inputs))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the entry with the smallest key, and the newest one among equal keys. Compares the next entries of all files,
    /// because a heap would be slower for the few files of a merge.
    fn next(&mut self) -> io::Result<Option<KeyEntry>> {
        let order = |at: &usize| {
            let (key, seen) = &self.0[*at].next;
            (u128::from_be_bytes(key.0), std::cmp::Reverse(seen.seq))
        };
        let Some(at) = (0..self.0.len()).min_by_key(order) else { return Ok(None) };
        let input = &mut self.0[at];
        match input.reader.next()? {
            Some(next) => Ok(Some(std::mem::replace(&mut input.next, next))),
            None => Ok(Some(self.0.swap_remove(at).next)),
        }
    }
}

/// Returns the name of the file while the merge writes it.
fn temporary(name: KeyFileName) -> String {
    format!("{name}{TEMPORARY_EXT}")
}

/// Number of keys that one step merges.
const STEP_KEYS: usize = 8_192;

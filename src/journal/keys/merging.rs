//! Performs the merges of the key files, one step at a time. A flush and a compaction may run at the same time; the steps of the
//! flush come first, because it is short and frees memory.

use std::io;
use std::sync::Arc;

use super::index::{KeyEnvironment, KeyIndex};
use super::merge::{Merge, MergeProgress};
use super::retention;

/// The merges that are running.
#[derive(Default)]
pub(crate) struct KeyMerging {
    flush: Option<Merge>,
    compaction: Option<Merge>,
}

impl KeyMerging {
    /// Performs one step, which takes some milliseconds. Returns false if no merge is running and none is due. After an error,
    /// the merge is abandoned, and the next call starts it again.
    pub(crate) fn step(&mut self, index: &KeyIndex, environment: &KeyEnvironment) -> io::Result<bool> {
        if self.flush.is_none()
            && let Some(inputs) = index.policy(environment.now, &self.busy(), self.compaction.is_none()).flush()
        {
            self.flush = Some(Merge::start(index, inputs, environment)?);
        }
        if self.flush.is_some() {
            return advance(&mut self.flush, index, environment).map(|()| true);
        }
        if self.compaction.is_none()
            && let Some(inputs) = index.policy(environment.now, &[], true).compaction()
        {
            self.compaction = Some(Merge::start(index, inputs, environment)?);
        }
        if self.compaction.is_some() {
            return advance(&mut self.compaction, index, environment).map(|()| true);
        }
        Ok(false)
    }

    /// Returns the ids of the files that the running merges replace.
    pub(crate) fn busy(&self) -> Vec<u64> {
        let merges = self.flush.iter().chain(&self.compaction);
        merges.flat_map(|merge| merge.inputs.iter().copied()).collect()
    }
}

/// Performs one step of the merge. If the merge ends, leaves `None`.
fn advance(slot: &mut Option<Merge>, index: &KeyIndex, environment: &KeyEnvironment) -> io::Result<()> {
    let Some(mut merge) = slot.take() else { return Ok(()) };
    let file = match merge.step(index, environment) {
        Ok(MergeProgress::Working) => {
            *slot = Some(merge);
            return Ok(());
        }
        Ok(MergeProgress::Complete(file)) => Some(Arc::new(file)),
        Ok(MergeProgress::Empty(name, header)) => {
            index.add_recent(name, header);
            None
        }
        Err(error) => {
            merge.abandon(index, environment);
            return Err(error);
        }
    };
    let names = index.names_of(&merge.inputs);
    index.replace(&merge.inputs, file.clone());
    // After the replacement, `forget` marks the new file itself.
    if let Some(file) = file.filter(|_| merge.has_missed_lost_events(index)) {
        file.set_stale();
    }
    retention::delete(index, names, environment);
    Ok(())
}

//! Reads the selected events of the journal, and records the sequences that can no longer be read. The running gateway may delete
//! segments at the same time.

use std::io;
use std::ops::Range;

use hookhold::journal::{ReadOnlyJournal, StoredEvent};

use super::selection::CompiledSelection;

/// Reader of the selected events with sequences in a range.
pub(super) struct SelectedEvents<'a> {
    journal: &'a mut ReadOnlyJournal,
    selection: &'a CompiledSelection,
    /// Sequences that the reader has not passed.
    rest: Range<u64>,
    missing: Vec<Range<u64>>,
}

impl<'a> SelectedEvents<'a> {
    /// Creates a reader of the events with these sequences.
    pub(super) fn new(
        journal: &'a mut ReadOnlyJournal,
        selection: &'a CompiledSelection,
        seqs: Range<u64>,
    ) -> SelectedEvents<'a> {
        journal.seek(seqs.start);
        SelectedEvents { journal, selection, rest: seqs, missing: Vec::new() }
    }

    /// Returns the next selected event; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<StoredEvent>> {
        while !self.rest.is_empty() {
            let stored = self.journal.next()?.filter(|stored| stored.position.seq < self.rest.end);
            let found = stored.as_ref().map_or(self.rest.end, |stored| stored.position.seq);
            if found > self.rest.start {
                self.missing.push(self.rest.start..found);
            }
            self.rest.start = found.saturating_add(1).min(self.rest.end);
            if stored.as_ref().is_some_and(|stored| self.selection.accepts(stored)) {
                return Ok(stored);
            }
        }
        Ok(None)
    }

    /// Returns the sequences between the start and the last event that has been read which the journal no longer contains.
    pub(super) fn into_missing(self) -> Vec<Range<u64>> {
        self.missing
    }
}

/// Joins ranges that overlap or adjoin. Returns them in ascending order.
pub(super) fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_overlap_or_adjoin_become_one() {
        assert_eq!(joined(vec![8..9, 0..3, 2..5, 5..6]), vec![0..6, 8..9]);
        assert_eq!(joined(Vec::new()), Vec::<Range<u64>>::new());
    }
}

//! Remembers which events above the cursor of a topic a queue must not send again. Their number can be high while an earlier event
//! waits for a partition without a leader, so the set is compressed: most sequences take between one and sixteen bits.

use roaring::RoaringTreemap;

/// Sequences of events that Kafka has acknowledged or that hookhold has parked, although the cursor has not passed them.
#[derive(Default)]
pub(super) struct DoneAhead {
    seqs: RoaringTreemap,
    /// Number of sequences in `seqs`, which is slow to count.
    len: u64,
}

impl DoneAhead {
    /// Adds a sequence.
    pub(super) fn insert(&mut self, seq: u64) {
        self.len += u64::from(self.seqs.insert(seq));
    }

    /// Returns true if the set contains this sequence.
    pub(super) fn contains(&self, seq: u64) -> bool {
        self.seqs.contains(seq)
    }

    /// Returns the number of sequences.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Removes the sequences below `below`.
    pub(super) fn forget_below(&mut self, below: u64) {
        if self.len > 0 && self.seqs.min().is_some_and(|first| first < below) {
            self.len -= self.seqs.remove_range(..below);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_acknowledged_events_take_little_memory() {
        let mut done = DoneAhead::default();
        for seq in 0..1_000_000 {
            done.insert((1 << 40) | (seq * 3));
            done.insert((1 << 40) | (seq * 3));
        }
        assert_eq!((done.len(), done.contains(1 << 40 | 3), done.contains(1 << 40 | 4)), (1_000_000, true, false));
        assert!(done.seqs.serialized_size() < 500_000, "{} bytes", done.seqs.serialized_size());
        done.forget_below(1 << 40 | 3);
        assert_eq!((done.len(), done.contains(1 << 40)), (999_999, false));
        done.forget_below(u64::MAX);
        assert_eq!((done.len(), done.seqs.len()), (0, 0));
    }
}

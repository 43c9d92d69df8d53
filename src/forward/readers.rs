//! The readers of the journal that feed the topic queues. One reader follows the log end and feeds the topics that keep up. The
//! topics that are behind share passes: a pass reads the older events once, in order, for all of its topics, and ends when it
//! reaches the reader at the log end. There are at most [`MAX_PASSES`] passes, so that a topic that is briefly blocked need not
//! wait for another topic with a long backlog.
//!
//! A new pass starts only after a short wait, so that topics that fall behind for the same reason, such as an outage of Kafka,
//! share one pass. Otherwise each of them would read the same part of the journal.

use std::time::{Duration, Instant};

use super::log_reader::LogReader;
use crate::journal::{Journal, Topics};

/// Reader of the journal: the one at the log end, or a pass over older events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReaderId {
    /// The reader at the log end.
    Live,
    /// The pass with this number.
    Pass(u64),
}

/// The readers of all topic queues.
pub(super) struct Readers {
    journal: Journal,
    live: LogReader,
    passes: Vec<(u64, LogReader)>,
    /// Number of the next pass.
    next_pass: u64,
    gathering: Option<Gathering>,
}

/// Wait for further topics before a new pass starts.
struct Gathering {
    /// Number of topics that wait for a pass.
    topics: usize,
    /// Time at which the pass starts if no further topic comes.
    until: Instant,
    latest: Instant,
}

impl Readers {
    /// Creates the readers of `journal`. The reader at the log end starts at sequence `from`.
    pub(super) fn new(journal: Journal, from: u64) -> Readers {
        let live = LogReader::new(journal.clone(), from);
        Readers { journal, live, passes: Vec::new(), next_pass: 0, gathering: None }
    }

    /// Returns the reader at the log end.
    pub(super) fn live(&self) -> &LogReader {
        &self.live
    }

    /// Returns all readers.
    pub(super) fn ids(&self) -> Vec<ReaderId> {
        [ReaderId::Live].into_iter().chain(self.passes.iter().map(|(id, _)| ReaderId::Pass(*id))).collect()
    }

    /// Returns a reader; `None` if it is a pass that has ended.
    pub(super) fn get(&mut self, id: ReaderId) -> Option<&mut LogReader> {
        match id {
            ReaderId::Live => Some(&mut self.live),
            ReaderId::Pass(id) => self.passes.iter_mut().find(|(pass, _)| *pass == id).map(|(_, reader)| reader),
        }
    }

    /// Returns a reader that a topic can join to continue at sequence `next`: the reader at the log end, or a pass that has not
    /// read further. Prefers a pass that is not far behind. Returns `None` if a new pass would be better.
    pub(super) fn joinable(&self, next: u64) -> Option<ReaderId> {
        if next >= self.live.position() {
            return Some(ReaderId::Live);
        }
        let behind = |reader: &LogReader| next.checked_sub(reader.position());
        let passes = self.passes.iter().filter_map(|(id, reader)| Some((behind(reader)?, ReaderId::Pass(*id))));
        let nearest = passes.min_by_key(|(distance, _)| *distance);
        let is_near = |distance: u64| distance <= NEAR || self.passes.len() >= MAX_PASSES;
        nearest.filter(|(distance, _)| is_near(*distance)).map(|(_, id)| id)
    }

    /// Notes that `topics` topics wait for a new pass. Returns true if it should start now.
    pub(super) fn gather(&mut self, topics: usize, now: Instant) -> bool {
        if topics == 0 || self.passes.len() >= MAX_PASSES {
            self.gathering = None;
            return false;
        }
        let start = Gathering { topics: 0, until: now, latest: now + GATHER_AT_MOST };
        let gathering = self.gathering.get_or_insert(start);
        if topics > gathering.topics {
            gathering.topics = topics;
            gathering.until = (now + GATHER).min(gathering.latest);
        }
        let is_due = now >= gathering.until;
        if is_due {
            self.gathering = None;
        }
        is_due
    }

    /// Returns the time at which a new pass starts; `None` if no topic waits for one.
    pub(super) fn pass_due(&self) -> Option<Instant> {
        self.gathering.as_ref().map(|gathering| gathering.until)
    }

    /// Starts a pass at sequence `from`, and returns it.
    pub(super) fn start_pass(&mut self, from: u64) -> ReaderId {
        let id = self.next_pass;
        self.next_pass += 1;
        self.passes.push((id, LogReader::new(self.journal.clone(), from)));
        ReaderId::Pass(id)
    }

    /// Restricts a pass to the events of these topics. Ends the pass if there are none.
    pub(super) fn set_topics(&mut self, id: ReaderId, topics: Topics) {
        if topics.is_empty() {
            self.passes.retain(|(pass, _)| ReaderId::Pass(*pass) != id);
        } else if let (ReaderId::Pass(_), Some(reader)) = (id, self.get(id)) {
            reader.set_topics(topics);
        }
    }

    /// Returns the passes that have reached the reader at the log end, and ends them.
    pub(super) fn end_passes(&mut self) -> Vec<ReaderId> {
        let end = self.live.position();
        let passes = std::mem::take(&mut self.passes).into_iter();
        let (ended, open): (Vec<_>, Vec<_>) = passes.partition(|(_, reader)| reader.position() >= end);
        self.passes = open;
        ended.into_iter().map(|(id, _)| ReaderId::Pass(id)).collect()
    }

    /// Returns the earliest time of the next read attempt after a failed read; `None` if the last read of every reader succeeded.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        let passes = self.passes.iter().map(|(_, reader)| reader);
        passes.chain([&self.live]).filter_map(LogReader::retry_at).min()
    }

    /// Returns the readers that hold back an event.
    pub(super) fn holding(&self) -> impl Iterator<Item = &LogReader> {
        let passes = self.passes.iter().map(|(_, reader)| reader);
        passes.chain([&self.live]).filter(|reader| reader.held().is_some())
    }
}

/// Maximum number of passes.
pub(super) const MAX_PASSES: usize = 4;
/// Number of sequences by which a pass may be behind a topic that joins it, unless there are [`MAX_PASSES`] passes.
const NEAR: u64 = 100_000;
/// Time without a further topic after which a new pass starts.
const GATHER: Duration = Duration::from_millis(50);
/// Longest wait for further topics before a new pass starts.
const GATHER_AT_MOST: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::journal::Options;
    use crate::journal::disk::LocalDisk;

    #[test]
    fn a_pass_starts_after_a_short_wait_for_further_topics() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Arc::new(LocalDisk::create(dir.path()).expect("a directory"));
        let journal = Journal::open(disk, Options::default(), Arc::new(SystemClock), Arc::default()).expect("a journal");
        let mut readers = Readers::new(journal.clone(), 0);
        let begun = Instant::now();
        assert!(!readers.gather(1, begun) && readers.pass_due() == Some(begun + GATHER));
        let later = begun + GATHER / 2;
        assert!(!readers.gather(2, later) && readers.pass_due() == Some(later + GATHER), "another topic has come");
        assert!(!readers.gather(2, later) && readers.gather(2, later + GATHER), "no further topic has come");
        assert_eq!(readers.pass_due(), None);
        for count in 1..1000 {
            if readers.gather(count, begun + GATHER / 2 * count as u32) {
                assert!(GATHER / 2 * count as u32 >= GATHER_AT_MOST, "the wait has a limit");
                break;
            }
        }
        assert!(!readers.gather(1, begun));
        assert!(!readers.gather(0, begun) && readers.pass_due().is_none(), "no topic waits any more");
        journal.close();
    }
}

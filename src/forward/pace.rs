//! Decides how many records of one topic may be in flight: up to the topic's in-flight limit, fewer if the topic rejects large batches,
//! or one at a time to find a record that Kafka rejects.
//!
//! librdkafka does not divide a batch that is too large for its topic, so each record of the batch fails, even if each of them would
//! fit alone. The number of bytes in flight limits the size of a batch. If a batch is too large, hookhold therefore halves the number
//! of bytes that the topic may have in flight, until its batches fit. If a single record is too large, the size of the batches was not
//! the cause, and hookhold restores the earlier number of bytes.

use std::time::{Duration, Instant};

use super::in_flight::InFlightLimit;

/// Pace at which one topic queue sends its records.
#[derive(Default)]
pub(super) struct Pace {
    /// Sequence up to which the queue sends records one at a time.
    alone_until: Option<u64>,
    /// Number of bytes that the topic may have in flight; `None` if the topic has rejected no batch because of its size.
    cap: Option<usize>,
    search: Option<CapSearch>,
    /// Time at which the queue doubles the cap, because an operator may have raised the topic's own limit.
    raise_at: Option<Instant>,
}

/// Search for the number of bytes in flight at which the batches of a topic fit.
#[derive(Clone, Copy)]
struct CapSearch {
    /// Last sequence of the records that were in flight when a batch failed. The search ends when the cursor passes it.
    until: u64,
    /// Cap before the search.
    base: Option<usize>,
}

impl Pace {
    /// Returns true while the queue must wait for the acknowledgement of each record before it sends the next record. `cursor` is
    /// the sequence of the first record that is in flight or not yet sent.
    pub(super) fn is_one_at_a_time(&self, cursor: u64) -> bool {
        self.alone_until.is_some_and(|last| cursor <= last)
    }

    /// Causes the queue to send records up to sequence `seq` one at a time.
    pub(super) fn send_alone_until(&mut self, seq: u64) {
        self.alone_until = self.alone_until.max(Some(seq));
    }

    /// Returns the limit on the records in flight. `limit` is the limit of every topic.
    pub(super) fn limit(&self, limit: InFlightLimit) -> InFlightLimit {
        self.cap.map_or(limit, |cap| limit.at_most(cap))
    }

    /// Halves the cap, because a batch was too large for the topic. The records in flight had `bytes` bytes, and `last` is the
    /// sequence of the last one.
    pub(super) fn halve(&mut self, bytes: usize, last: u64, now: Instant) {
        let CapSearch { until, base } = self.search.unwrap_or(CapSearch { until: last, base: self.cap });
        self.search = Some(CapSearch { until: until.max(last), base });
        self.cap = Some((self.cap.unwrap_or(usize::MAX).min(bytes) / 2).max(1));
        self.raise_at = Some(now + RAISE_AFTER);
    }

    /// Restores the cap from before the search, because a single record was too large and not its batch.
    pub(super) fn blame_record(&mut self) {
        if let Some(search) = self.search {
            self.cap = search.base;
        }
    }

    /// Notes that Kafka has acknowledged a record, and that `cursor` is the first unacknowledged sequence. Returns the cap in bytes if
    /// this ends a search that has found one.
    pub(super) fn acknowledged(&mut self, cursor: u64, now: Instant) -> Option<usize> {
        match self.search {
            Some(search) if cursor > search.until => {
                self.search = None;
                return self.cap.filter(|_| self.cap != search.base);
            }
            Some(_) => {}
            None if self.raise_at.is_some_and(|at| now >= at) => {
                self.cap = self.cap.map(|cap| cap.saturating_mul(2)).filter(|cap| *cap < MAX_CAP);
                self.raise_at = self.cap.map(|_| now + RAISE_AFTER);
            }
            None => {}
        }
        None
    }
}

/// Time without a failed batch after which the queue doubles the cap.
const RAISE_AFTER: Duration = Duration::from_secs(600);
/// Cap in bytes from which on there is no cap. No batch of librdkafka's default settings is larger than that.
const MAX_CAP: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(pace: &Pace) -> usize {
        pace.limit(InFlightLimit::each_of(1)).bytes
    }

    #[test]
    fn the_cap_is_halved_until_the_batches_fit_and_doubled_later() {
        let (mut pace, now, all) = (Pace::default(), Instant::now(), bytes(&Pace::default()));
        pace.halve(80_000, 99, now);
        assert_eq!((bytes(&pace), pace.acknowledged(60, now)), (40_000, None));
        pace.halve(36_000, 95, now);
        assert_eq!((bytes(&pace), pace.acknowledged(99, now), pace.acknowledged(100, now)), (18_000, None, Some(18_000)));
        let later = |count: u32| now + RAISE_AFTER * count;
        assert_eq!((pace.acknowledged(101, later(1)), bytes(&pace)), (None, 36_000));
        pace.acknowledged(102, later(1));
        assert_eq!(bytes(&pace), 36_000, "the cap is doubled once in each period");
        (2..=6).for_each(|count| drop(pace.acknowledged(103, later(count))));
        assert_eq!(bytes(&pace), all, "the topic has no cap any more");
    }

    #[test]
    fn a_single_record_that_is_too_large_leaves_no_cap() {
        let (mut pace, now, all) = (Pace::default(), Instant::now(), bytes(&Pace::default()));
        for size in [80_000, 40_000, 20_000] {
            pace.halve(size, 99, now);
        }
        pace.blame_record();
        assert_eq!(bytes(&pace), all);
        assert_eq!(pace.acknowledged(100, now), None, "there is no cap to report");
        pace.halve(10, 105, now);
        pace.halve(1, 105, now);
        assert_eq!(bytes(&pace), 1, "one record of any size is always allowed");
    }
}

//! Decides how many bytes one topic may have in flight: up to the topic's in-flight limit, or fewer if Kafka rejects its batches.
//!
//! Kafka rejects a batch as a whole, because it is too large for the topic or because it contains a record that the topic does not
//! accept. The number of bytes in flight limits the size of a batch. So hookhold halves the number of bytes that the topic may have
//! in flight with each rejected batch. Either the batches then fit, and the topic keeps the smaller number; or a single record is
//! rejected. In that case the record was the cause and not the size of the batch, so hookhold parks the event, and doubles the
//! number of bytes with each acknowledgement up to the earlier one.

use std::time::{Duration, Instant};

use super::in_flight_limit::InFlightLimit;

/// Pace at which one topic queue sends its records.
#[derive(Default)]
pub(super) struct Pace {
    /// Number of bytes that the topic may have in flight; `None` if only the in-flight limit applies.
    cap: Option<usize>,
    search: CapSearch,
    /// Time at which the queue doubles the cap, because an operator may have raised the topic's own limit.
    raise_at: Option<Instant>,
}

/// Search for the number of bytes in flight with which Kafka accepts the batches of a topic.
#[derive(Clone, Copy, Default)]
enum CapSearch {
    /// Kafka accepts the batches.
    #[default]
    Done,
    /// Kafka has rejected a batch.
    Halving {
        /// Last sequence of the records that were in flight when a batch was rejected. The search ends when the cursor passes it.
        until: u64,
        /// Cap before the search.
        base: Option<usize>,
    },
    /// Kafka has rejected a single record. Contains the cap before the search, up to which the cap grows again.
    Growing(Option<usize>),
}

impl Pace {
    /// Returns the limit on the records in flight. `limit` is the limit of every topic.
    pub(super) fn limit(&self, limit: InFlightLimit) -> InFlightLimit {
        self.cap.map_or(limit, |cap| limit.at_most(cap))
    }

    /// Halves the cap, because Kafka has rejected a batch. The records in flight had `bytes` bytes, and `last` is the sequence of
    /// the last one.
    pub(super) fn halve(&mut self, bytes: usize, last: u64, now: Instant) {
        let (until, base) = match self.search {
            CapSearch::Done => (last, self.cap),
            CapSearch::Halving { until, base } => (until.max(last), base),
            CapSearch::Growing(base) => (last, base),
        };
        self.search = CapSearch::Halving { until, base };
        self.cap = Some((self.cap.unwrap_or(usize::MAX).min(bytes) / 2).max(1));
        self.raise_at = Some(now + RAISE_AFTER);
    }

    /// Makes the cap grow again, because Kafka has rejected a single record of `bytes` bytes and not the size of a batch.
    pub(super) fn blame_record(&mut self, bytes: usize) {
        if let CapSearch::Halving { base, .. } = self.search {
            self.cap = self.cap.map(|cap| cap.max(bytes));
            self.search = CapSearch::Growing(base);
        }
    }

    /// Notes that Kafka has acknowledged a record, and that `cursor` is the first unacknowledged sequence. Returns the cap in bytes
    /// if this ends a search that has found one.
    pub(super) fn acknowledged(&mut self, cursor: u64, now: Instant) -> Option<usize> {
        match self.search {
            CapSearch::Halving { until, .. } if cursor > until => {
                self.search = CapSearch::Done;
                return self.cap;
            }
            CapSearch::Halving { .. } => {}
            CapSearch::Growing(base) => {
                self.cap = self.cap.map(|cap| cap.saturating_mul(2)).filter(|cap| *cap < base.unwrap_or(MAX_CAP)).or(base);
                if self.cap == base {
                    self.search = CapSearch::Done;
                }
            }
            CapSearch::Done if self.raise_at.is_some_and(|at| now >= at) => {
                self.cap = self.cap.map(|cap| cap.saturating_mul(2)).filter(|cap| *cap < MAX_CAP);
                self.raise_at = self.cap.map(|_| now + RAISE_AFTER);
            }
            CapSearch::Done => {}
        }
        None
    }
}

/// Time without a rejected batch after which the queue doubles the cap.
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
        for count in 2..=6 {
            pace.acknowledged(103, later(count));
        }
        assert_eq!(bytes(&pace), all, "the topic has no cap any more");
    }

    #[test]
    fn the_cap_grows_back_after_a_single_rejected_record() {
        let (mut pace, now, all) = (Pace::default(), Instant::now(), bytes(&Pace::default()));
        for size in [80_000, 40_000, 4] {
            pace.halve(size, 99, now);
        }
        assert_eq!(bytes(&pace), 2, "one record of any size is always allowed");
        pace.blame_record(3_000);
        assert_eq!((bytes(&pace), pace.acknowledged(60, now), bytes(&pace)), (3_000, None, 6_000));
        pace.halve(6_000, 70, now);
        pace.blame_record(3_000);
        for cursor in 61..80 {
            assert_eq!(pace.acknowledged(cursor, now), None, "there is no cap to report");
        }
        assert_eq!(bytes(&pace), all);
    }
}

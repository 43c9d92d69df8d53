//! Decides from metadata probes of a stalled topic whether to keep waiting or to replace the producer.
//!
//! An idempotent producer that has encountered too few in-sync replicas may never recover, even after the affected topic has
//! recovered (confluentinc/confluent-kafka-dotnet#2519). A topic has recovered when each partition has at least
//! `min.insync.replicas` in-sync replicas, even if other replicas are still missing. Reading `min.insync.replicas` would need
//! an additional permission, so hookhold compares probe results instead. A topic seems to have enough in-sync replicas if no
//! replica is missing. If replicas are missing, hookhold uses the lowest number of in-sync replicas of any partition. The topic
//! then seems to have enough if this number is higher than in an earlier probe since the last acknowledgement.

use std::time::{Duration, Instant};

use super::kafka_error::BlockReason;

/// Result of one metadata probe.
#[derive(Clone, Debug)]
pub(super) enum ProbeResult {
    /// All replicas of the partitions that have a leader are in sync.
    Healthy,
    /// Some replicas of the partitions that have a leader are not in sync. These partitions are writable if each of them still has at
    /// least `min.insync.replicas` in-sync replicas.
    UnderReplicated {
        /// Lowest number of in-sync replicas of any partition.
        in_sync: usize,
        /// Description of the partition that has the fewest in-sync replicas, for the operator.
        detail: String,
    },
    /// The topic is not writable, for example because no partition has a leader. Contains the reason and a detail for the operator.
    Unwritable(BlockReason, String),
    /// No broker has answered. Contains a detail for the operator.
    Unanswered(String),
}

/// Summary of a topic's probe results since Kafka last acknowledged a record.
#[derive(Default)]
pub(super) struct TopicHealth {
    /// Time of the first probe in the current series of probes that agree on `enough`; `None` if there is no series.
    since: Option<Instant>,
    /// True if each partition of the topic seems to have at least `min.insync.replicas` in-sync replicas.
    enough: bool,
    /// Lowest number of in-sync replicas that any of the probes has found in a partition; `None` if no probe has found missing
    /// replicas.
    fewest: Option<usize>,
}

impl TopicHealth {
    /// Updates the topic's health after a probe. `in_sync` is the lowest number of in-sync replicas of any partition. `None`
    /// means that all replicas of every partition are in sync.
    pub(super) fn record_in_sync(&mut self, in_sync: Option<usize>, now: Instant) {
        let enough = in_sync.is_none_or(|count| self.fewest.is_some_and(|fewest| count > fewest));
        self.fewest = in_sync.into_iter().chain(self.fewest).min();
        if enough != self.enough {
            self.since = None;
        }
        self.enough = enough;
        self.since.get_or_insert(now);
    }

    /// Ends the current series of probes, because a probe found the topic unwritable.
    pub(super) fn record_unwritable(&mut self) {
        self.since = None;
    }

    /// Returns true if each partition of the topic seems to have at least `min.insync.replicas` in-sync replicas.
    pub(super) fn has_enough_replicas(&self) -> bool {
        self.enough
    }

    /// Returns the length of the current stall, or zero if there is no series of probes. A stall starts at the first probe of
    /// the current series, or at `progress_at` if `progress_at` is later.
    pub(super) fn stalled_for(&self, progress_at: Instant, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now - since.max(progress_at))
    }

    /// Returns true if the producer is the likely cause of a stall of this length.
    pub(super) fn blames_producer(&self, stalled_for: Duration) -> bool {
        stalled_for >= if self.enough { STUCK_AFTER } else { STUCK_IN_DOUBT }
    }
}

/// Length of a stall after which hookhold replaces the producer if the topic seems to have enough in-sync replicas.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(300);
/// Length of a stall after which hookhold replaces the producer even if the topic seems to have too few in-sync replicas. The
/// topic may nevertheless have enough, because their number may have fallen and recovered between two probes. A new producer
/// helps only if the topic has enough, and briefly interrupts the other topics. This constant is therefore higher than
/// [`STUCK_AFTER`].
const STUCK_IN_DOUBT: Duration = Duration::from_secs(1200);

#[cfg(test)]
mod tests {
    use super::*;

    fn after(minutes: u64, begun: Instant) -> Instant {
        begun + Duration::from_secs(60 * minutes)
    }

    fn blames_producer(health: &TopicHealth, begun: Instant, minutes: u64) -> bool {
        health.blames_producer(health.stalled_for(begun, after(minutes, begun)))
    }

    #[test]
    fn a_returned_replica_is_enough_while_another_is_dead() {
        let begun = Instant::now();
        let mut health = TopicHealth::default();
        health.record_in_sync(Some(1), begun);
        assert!(
            !health.has_enough_replicas() && !blames_producer(&health, begun, 10),
            "with one of three replicas, the topic waits for the second"
        );
        health.record_in_sync(Some(2), after(10, begun));
        assert!(health.has_enough_replicas() && !blames_producer(&health, begun, 14), "the producer gets time to recover");
        health.record_in_sync(Some(2), after(14, begun));
        assert!(blames_producer(&health, begun, 15));
    }

    #[test]
    fn replicas_lost_again_restart_the_wait() {
        let begun = Instant::now();
        let mut health = TopicHealth::default();
        for (in_sync, minute) in [(1, 0), (2, 1), (1, 4)] {
            health.record_in_sync(Some(in_sync), after(minute, begun));
        }
        assert!(!health.has_enough_replicas() && !blames_producer(&health, begun, 20));
        health.record_unwritable();
        health.record_in_sync(Some(2), after(21, begun));
        assert!(health.has_enough_replicas() && !blames_producer(&health, begun, 25) && blames_producer(&health, begun, 26));
    }

    #[test]
    fn a_stuck_producer_is_replaced_after_an_unseen_dip() {
        let begun = Instant::now();
        let mut health = TopicHealth::default();
        health.record_in_sync(Some(2), begun);
        assert!(!blames_producer(&health, begun, 19) && blames_producer(&health, begun, 20));
        let mut whole = TopicHealth::default();
        whole.record_in_sync(None, begun);
        assert!(whole.has_enough_replicas() && blames_producer(&whole, begun, 5));
        let stalled_for = whole.stalled_for(after(1, begun), after(5, begun));
        assert!(!whole.blames_producer(stalled_for), "an acknowledgement restarts the wait");
    }
}

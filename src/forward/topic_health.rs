//! What the looks at a lane's topic tell while nothing of it is acknowledged: whether to wait on, or to blame the producer.
//!
//! An idempotent producer that has met too few replicas may never recover although its topic does
//! (confluentinc/confluent-kafka-dotnet#2519), also while a replica more than the topic demands stays missing. How many it
//! demands would take a permission that writing does not, so it is inferred: more replicas than there have been are enough.

use std::time::{Duration, Instant};

/// What was found since the last acknowledgement.
#[derive(Default)]
pub(super) struct Health {
    /// Since when each look has come to the present opinion.
    since: Option<Instant>,
    /// That opinion: the topic has the replicas that it demands.
    enough: bool,
    /// The fewest replicas in sync that any partition had.
    fewest: Option<usize>,
}

impl Health {
    /// Takes in how many replicas the worst partition has in sync; `None`: all of them.
    pub fn found(&mut self, in_sync: Option<usize>, now: Instant) {
        let enough = in_sync.is_none_or(|count| self.fewest.is_some_and(|fewest| count > fewest));
        self.fewest = in_sync.into_iter().chain(self.fewest).min();
        if enough != self.enough {
            self.since = None;
        }
        self.enough = enough;
        self.since.get_or_insert(now);
    }

    /// The topic could certainly not be written to.
    pub fn found_trouble(&mut self) {
        self.since = None;
    }

    /// True when it seems to have the replicas that it demands.
    pub fn is_enough(&self) -> bool {
        self.enough
    }

    /// How long it has looked as it does, without any progress.
    pub fn lasts(&self, progress_at: Instant, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now - since.max(progress_at))
    }

    /// True when the producer is to blame, after so long.
    pub fn is_stuck(&self, lasts: Duration) -> bool {
        lasts >= if self.enough { STUCK_AFTER } else { STUCK_IN_DOUBT }
    }
}

/// How long a lane may be stuck, its topic being well, before the producer is replaced.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(300);
/// The same while replicas are missing and none has been seen to come back: a dip may have passed between two looks. A new
/// producer costs the other lanes a moment, so it is not tried often.
const STUCK_IN_DOUBT: Duration = Duration::from_secs(1200);

#[cfg(test)]
mod tests {
    use super::*;

    fn after(minutes: u64, begun: Instant) -> Instant {
        begun + Duration::from_secs(60 * minutes)
    }

    fn is_stuck(health: &Health, begun: Instant, minutes: u64) -> bool {
        health.is_stuck(health.lasts(begun, after(minutes, begun)))
    }

    #[test]
    fn a_replica_that_is_back_is_enough_although_another_stays_dead() {
        let begun = Instant::now();
        let mut health = Health::default();
        health.found(Some(1), begun);
        assert!(!health.is_enough() && !is_stuck(&health, begun, 10), "one of three: the topic waits for the second");
        health.found(Some(2), after(10, begun));
        assert!(health.is_enough() && !is_stuck(&health, begun, 14), "the producer gets time to notice");
        health.found(Some(2), after(14, begun));
        assert!(is_stuck(&health, begun, 15));
    }

    #[test]
    fn replicas_that_are_lost_again_are_waited_for_again() {
        let begun = Instant::now();
        let mut health = Health::default();
        for (in_sync, minute) in [(1, 0), (2, 1), (1, 4)] {
            health.found(Some(in_sync), after(minute, begun));
        }
        assert!(!health.is_enough() && !is_stuck(&health, begun, 20));
        health.found_trouble();
        health.found(Some(2), after(21, begun));
        assert!(health.is_enough() && !is_stuck(&health, begun, 25) && is_stuck(&health, begun, 26));
    }

    #[test]
    fn a_producer_is_not_kept_for_ever_because_the_dip_went_unseen() {
        let begun = Instant::now();
        let mut health = Health::default();
        health.found(Some(2), begun);
        assert!(!is_stuck(&health, begun, 19) && is_stuck(&health, begun, 20));
        let mut whole = Health::default();
        whole.found(None, begun);
        assert!(whole.is_enough() && is_stuck(&whole, begun, 5));
        assert!(!whole.is_stuck(whole.lasts(after(1, begun), after(5, begun))), "something was acknowledged meanwhile");
    }
}

//! Logs the blocks of topics. An outage can block hundreds of topics within seconds. The first [`SINGLE_LINES`] topics that are
//! blocked for the same reason get a log line each. Further topics share summaries until the topics are calm again; `/readyz` and
//! the metrics name each of them. Does the same for the topics that are no longer blocked.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::kafka_error::BlockReason;

/// Log of the blocks of all topics. All topic queues share it.
#[derive(Default)]
pub(super) struct BlockLog(Mutex<Vec<Burst>>);

/// Topics whose block for the same reason has begun or ended recently.
struct Burst {
    reason: BlockReason,
    change: BlockChange,
    /// Number of lines about a single topic.
    lines: usize,
    latest: Instant,
    summary: Summary,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BlockChange {
    Began,
    Ended,
}

/// Topics without a line of their own since the last summary.
#[derive(Default)]
struct Summary {
    topics: BTreeSet<Arc<str>>,
    /// Error of the latest block; empty if the blocks have ended.
    error: String,
    due: Option<Instant>,
    /// Earliest time of the next summary; `None` before the first one.
    not_before: Option<Instant>,
}

impl BlockLog {
    /// Logs the block of a topic, or adds the topic to the next summary.
    pub(super) fn blocked(&self, topic: &Arc<str>, reason: BlockReason, error: &str, now: Instant) {
        if self.takes_line(topic, reason, BlockChange::Began, error, now) {
            let (topic, remedy) = (&**topic, reason.remedy());
            warn!(topic, reason = reason.word(), error, "topic is blocked; its events wait in the journal; {remedy}");
        }
    }

    /// Logs that a topic is no longer blocked, or adds the topic to the next summary. `since` is the time at which the block began.
    pub(super) fn unblocked(&self, topic: &Arc<str>, reason: BlockReason, since: Instant, now: Instant) {
        if self.takes_line(topic, reason, BlockChange::Ended, "", now) {
            let seconds = (now - since).as_secs();
            info!(topic = &**topic, reason = reason.word(), seconds, "topic is no longer blocked");
        }
    }

    /// Logs the summaries that are due.
    pub(super) fn log_due(&self, now: Instant) {
        let is_due = |burst: &&mut Burst| burst.summary.due.is_some_and(|due| now >= due);
        self.lock().iter_mut().filter(is_due).for_each(|burst| burst.log_summary(now));
    }

    /// Returns the time at which the next summary is due; `None` if there is none.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.lock().iter().filter_map(|burst| burst.summary.due).min()
    }

    /// Logs all summaries at once, because the forwarder stops.
    pub(super) fn log_all(&self) {
        self.lock().iter_mut().for_each(|burst| burst.log_summary(Instant::now()));
    }

    /// Returns true if this change of a topic gets a line of its own. Before such a line, logs the summary of the opposite change,
    /// so that the lines are in the order of the changes. Otherwise adds the topic to the next summary.
    fn takes_line(&self, topic: &Arc<str>, reason: BlockReason, change: BlockChange, error: &str, now: Instant) -> bool {
        let mut bursts = self.lock();
        let index = bursts.iter().position(|burst| (burst.reason, burst.change) == (reason, change)).unwrap_or(bursts.len());
        if index == bursts.len() {
            bursts.push(Burst::new(reason, change, now));
        }
        let takes_line = bursts[index].takes_line(topic, error, now);
        if takes_line {
            let opposite = |burst: &&mut Burst| burst.reason == reason && burst.change != change;
            bursts.iter_mut().filter(opposite).for_each(|burst| burst.log_summary(now));
        }
        takes_line
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Burst>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Burst {
    fn new(reason: BlockReason, change: BlockChange, now: Instant) -> Burst {
        Burst { reason, change, lines: 0, latest: now, summary: Summary::default() }
    }

    /// Returns true if the topic gets a line of its own. Otherwise adds the topic to the next summary.
    fn takes_line(&mut self, topic: &Arc<str>, error: &str, now: Instant) -> bool {
        if now > self.latest + CALM_AFTER {
            self.lines = 0;
        }
        self.latest = now;
        if self.lines < SINGLE_LINES {
            self.lines += 1;
            return true;
        }
        let summary = &mut self.summary;
        summary.topics.insert(topic.clone());
        summary.error = error.to_owned();
        let earliest = summary.not_before.unwrap_or(now);
        summary.due.get_or_insert((now + FIRST_SUMMARY_AFTER).max(earliest));
        false
    }

    /// Logs the summary of the topics without a line of their own. Does nothing if there is no such topic.
    fn log_summary(&mut self, now: Instant) {
        let Some((topics, names)) = self.take_summary(now) else { return };
        let (reason, remedy, error) = (self.reason.word(), self.reason.remedy(), std::mem::take(&mut self.summary.error));
        match self.change {
            BlockChange::Began => {
                warn!(topics, names, reason, error, "more topics are blocked; their events wait in the journal; {remedy}");
            }
            BlockChange::Ended => info!(topics, names, reason, "more topics are no longer blocked"),
        }
    }

    /// Returns the number of topics without a line of their own, and some of their names. Begins the next summary.
    fn take_summary(&mut self, now: Instant) -> Option<(usize, String)> {
        self.summary.due.take()?;
        self.summary.not_before = Some(now + BETWEEN_SUMMARIES);
        let topics = std::mem::take(&mut self.summary.topics);
        let mut names: Vec<&str> = topics.iter().map(|topic| &**topic).take(NAMES + 1).collect();
        if names.len() > NAMES {
            names[NAMES] = "…";
        }
        Some((topics.len(), names.join(", ")))
    }
}

/// Number of topics that get a line of their own. Also limits the lines about the end of the blocks.
const SINGLE_LINES: usize = 10;
/// Number of topics that a summary names.
const NAMES: usize = 5;
/// Time without a further topic after which the next topic gets a line of its own again.
const CALM_AFTER: Duration = Duration::from_secs(60);
/// Wait for further topics before a summary.
const FIRST_SUMMARY_AFTER: Duration = Duration::from_secs(1);
/// Shortest time between two summaries of the same reason.
const BETWEEN_SUMMARIES: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(count: usize) -> Vec<Arc<str>> {
        (0..count).map(|number| format!("topic-{number:03}").into()).collect()
    }

    #[test]
    fn many_topics_at_once_share_one_summary() {
        let begun = Instant::now();
        let mut burst = Burst::new(BlockReason::BrokerAway, BlockChange::Began, begun);
        let lines = topics(500).iter().filter(|topic| burst.takes_line(topic, "no broker", begun)).count();
        assert_eq!((lines, burst.summary.due), (SINGLE_LINES, Some(begun + FIRST_SUMMARY_AFTER)));
        let later = begun + FIRST_SUMMARY_AFTER;
        let names = "topic-010, topic-011, topic-012, topic-013, topic-014, …";
        assert_eq!(burst.take_summary(later), Some((490, names.to_owned())));
        assert_eq!((burst.take_summary(later), burst.summary.due), (None, None), "there is nothing more to report");

        assert!(!burst.takes_line(&"late".into(), "no broker", later));
        assert_eq!(burst.summary.due, Some(later + BETWEEN_SUMMARIES));
        assert_eq!(burst.take_summary(later + BETWEEN_SUMMARIES), Some((1, "late".to_owned())));
        assert!(burst.takes_line(&"calm".into(), "no broker", later + CALM_AFTER + Duration::from_millis(1)));
    }

    #[test]
    fn the_end_of_a_block_follows_the_summary_of_its_begin() {
        let (log, begun) = (BlockLog::default(), Instant::now());
        for topic in topics(50) {
            log.blocked(&topic, BlockReason::NoLeader, "no leader", begun);
        }
        assert_eq!(log.next_due(), Some(begun + FIRST_SUMMARY_AFTER));
        log.unblocked(&"topic-000".into(), BlockReason::NoLeader, begun, begun);
        assert_eq!(log.next_due(), None, "the summary precedes the line");
        for topic in topics(50) {
            log.unblocked(&topic, BlockReason::NoLeader, begun, begun);
        }
        log.log_due(begun);
        assert_eq!(log.next_due(), Some(begun + FIRST_SUMMARY_AFTER), "the summary waits for further topics");
        log.log_due(begun + FIRST_SUMMARY_AFTER);
        assert_eq!(log.next_due(), None);
    }
}

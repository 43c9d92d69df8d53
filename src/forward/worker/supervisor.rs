//! Everything that can go wrong between us and Kafka, and how it ends: lanes are blocked and freed here, stuck ones looked
//! into, and producers replaced. Each block has one log line when it begins, saying why and what to do, and one when it ends.

use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use tracing::{error, info, warn};

use crate::forward::kafka_error::{FaultScope, Reason, STUCK, rebuild_reason, verdict};
use crate::forward::mailbox::Updates;
use crate::forward::probe::{self, Finding};
use crate::forward::producer::Producer;
use crate::forward::topic_health::STUCK_AFTER;
use crate::forward::topic_queue::{Block, STALLED_AFTER, backoff};
use crate::forward::worker::{REBUILD_AFTER, Worker};

/// A producer is to be replaced.
pub(in crate::forward) struct Replacement {
    /// The metric label.
    pub reason: &'static str,
    /// What goes into the log, and onto the lanes if this happens again and again.
    pub detail: String,
    /// At this moment at the latest.
    pub by: Instant,
}

impl Worker {
    /// Takes in what was left in the inbox.
    pub(super) fn take_news(&mut self, news: Updates, now: Instant) {
        self.take_reports(news.reports, now);
        if news.client_error.is_some() {
            self.client_error = news.client_error;
        }
        if news.brokers_down {
            self.brokers_down(now);
        }
        if let Some((lane, finding)) = news.found {
            self.probing = false;
            self.found(lane, finding, now);
        }
        if let Some((_, why)) = news.fatal.filter(|(generation, _)| *generation == self.generation) {
            self.doom(why, now);
        }
    }

    /// Rewinds lanes whose failures are all in, replaces and starts producers, and asks about what does not move.
    pub(super) fn look_after(&mut self, now: Instant) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.recalling && lane.window.in_flight() == 0) {
            lane.rewind();
        }
        if self.replacement.as_ref().is_some_and(|replacement| now >= replacement.by || self.is_quiet(now)) {
            self.replace(now);
        }
        if self.producer.is_none() && now >= self.producer_due {
            self.start_producer(now);
        }
        if let (Some(producer), false, Some(index)) = (&self.producer, self.probing, self.lane_to_look_at(now)) {
            let lane = &mut self.lanes[index];
            match probe::ask(producer.client(), lane.topic.clone(), index, self.inbox.clone()) {
                Ok(()) => self.probing = true,
                Err(error) => {
                    let pause = lane.next_pause(now);
                    lane.look_at = now + pause;
                    warn!(topic = &*lane.topic, %error, retry_in = ?pause, "no thread to ask Kafka with: raise the limit on tasks");
                }
            }
        }
    }

    /// Applies the error table to one failed record.
    pub(super) fn failed(&mut self, index: usize, seq: u64, code: RDKafkaErrorCode, now: Instant) {
        let lane = &mut self.lanes[index];
        let alone = lane.is_one_at_a_time() && !lane.recalling;
        lane.window.failed(seq);
        lane.recalling = true;
        match verdict(code) {
            FaultScope::Fatal => self.doom(code.to_string(), now),
            FaultScope::Recalled => {}
            FaultScope::RecordAtFault if !alone => lane.alone_until = lane.alone_until.max(Some(seq)),
            FaultScope::RecordAtFault => self.block(index, Reason::Record, format!("event {seq}: {code}"), now),
            FaultScope::Environment(reason) => self.block(index, reason, code.to_string(), now),
        }
    }

    /// Blocks a lane, or changes the reason why it is blocked.
    pub(super) fn block(&mut self, index: usize, reason: Reason, detail: String, now: Instant) {
        let lane = &mut self.lanes[index];
        lane.face.show_block(Some((reason, &detail)));
        let before = lane.block.as_ref().map(|block| (block.reason, block.since));
        if before.is_none() {
            lane.look_at = now + lane.next_pause(now);
        }
        lane.block = Some(Block { reason, since: before.map_or(now, |(_, since)| since), trial: false });
        match before {
            Some((same, _)) if same == reason => return,
            Some((other, _)) => self.show_blocked(index, other, false),
            None => {}
        }
        self.show_blocked(index, reason, true);
        let topic = &*self.lanes[index].topic;
        warn!(topic, reason = reason.word(), error = detail, "lane is blocked, events wait in the journal: {}", reason.remedy());
    }

    /// Frees a lane, if it was blocked.
    pub(super) fn free(&mut self, index: usize, now: Instant) {
        let Some((reason, lasted)) = self.lanes[index].free(now) else { return };
        self.lanes[index].face.show_block(None);
        self.show_blocked(index, reason, false);
        info!(topic = &*self.lanes[index].topic, reason = reason.word(), seconds = lasted.as_secs(), "lane flows again");
    }

    /// No broker is left: whoever waits for one is blocked at once.
    pub(super) fn brokers_down(&mut self, now: Instant) {
        for index in 0..self.lanes.len() {
            if self.lanes[index].window.in_flight() > 0 && self.lanes[index].block.is_none() {
                let (reason, detail) = self.absence("all brokers are down");
                self.block(index, reason, detail, now);
            }
        }
    }

    /// When a lane is next worth a look; nothing while a look is under way, because its finding rings.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let idle = self.probing || self.producer.is_none();
        self.lanes.iter().filter(|lane| !idle && lane.is_worth_a_look()).map(|lane| lane.look_at).min()
    }

    /// Lanes that only wait for an answer come first: the others go on by themselves when Kafka does.
    fn lane_to_look_at(&self, now: Instant) -> Option<usize> {
        let due = |index: &usize| now >= self.lanes[*index].look_at && self.lanes[*index].is_worth_a_look();
        let lanes = (0..self.lanes.len()).filter(due);
        lanes.min_by_key(|index| (self.lanes[*index].window.in_flight() > 0, self.lanes[*index].look_at))
    }

    fn found(&mut self, index: usize, finding: Finding, now: Instant) {
        let lane = &mut self.lanes[index];
        let waiting = lane.window.in_flight() > 0;
        let pause = if lane.block.is_some() { lane.next_pause(now) } else { STALLED_AFTER };
        lane.look_at = now + pause;
        if !lane.is_worth_a_look() || (lane.block.is_none() && now < lane.progress_at + STALLED_AFTER) {
            return;
        }
        match finding {
            Finding::Trouble(reason, detail) => {
                lane.health.found_trouble();
                let (reason, detail) = if reason == Reason::BrokerAway { self.absence(&detail) } else { (reason, detail) };
                self.block(index, reason, detail, now);
            }
            Finding::UnderReplicated(in_sync, detail) if waiting => {
                lane.health.found(Some(in_sync), now);
                if !lane.health.is_enough() {
                    self.block(index, Reason::BelowMinIsr, detail, now);
                }
                self.stalled(index, now);
            }
            Finding::Healthy if waiting => {
                lane.health.found(None, now);
                self.stalled(index, now);
            }
            _ => lane.try_one(),
        }
    }

    /// The cluster answers and yet nothing is acknowledged.
    fn stalled(&mut self, index: usize, now: Instant) {
        let lane = &self.lanes[index];
        let lasts = lane.health.lasts(lane.progress_at, now);
        if lane.health.is_stuck(lasts) && self.replacement.is_none() {
            let detail =
                format!("nothing of {} was acknowledged for {} s although its topic has leaders", lane.topic, lasts.as_secs());
            self.replacement = Some(Replacement { reason: STUCK, detail, by: now + LET_OTHERS_FINISH });
        } else if lane.health.is_enough() && lasts >= STALLED_AFTER {
            self.block(index, Reason::Stalled, format!("no acknowledgement for {} s", lasts.as_secs()), now);
        }
    }

    /// Why no broker answers: what the client last said about credentials or TLS explains more than silence.
    fn absence(&self, otherwise: &str) -> (Reason, String) {
        match &self.client_error {
            Some((code, why)) if verdict(*code) == FaultScope::Environment(Reason::Authentication) => {
                (Reason::Authentication, why.clone())
            }
            Some((_, why)) => (Reason::BrokerAway, format!("{otherwise}; {why}")),
            None => (Reason::BrokerAway, otherwise.to_owned()),
        }
    }

    /// The producer is finished, now.
    fn doom(&mut self, why: String, now: Instant) {
        let code = self.producer.as_ref().and_then(Producer::cause_of_death).unwrap_or(RDKafkaErrorCode::Fail);
        self.replacement = Some(Replacement { reason: rebuild_reason(code), detail: why, by: now });
    }

    /// True when no lane has been acknowledged anything for a moment.
    fn is_quiet(&self, now: Instant) -> bool {
        self.lanes.iter().all(|lane| lane.window.in_flight() == 0 || now > lane.progress_at + QUIET)
    }

    /// Lets the producer go; all that it had not got acknowledged is read again.
    fn replace(&mut self, now: Instant) {
        let Some(Replacement { reason, detail, .. }) = self.replacement.take() else { return };
        self.metrics.forward.producer_rebuilds.with_label_values(&[reason]).inc();
        if now > self.producer_born + STUCK_AFTER {
            self.producer_pauses = backoff(REBUILD_AFTER);
        }
        let pause = self.producer_pauses.next().expect("the pauses have no end");
        error!(reason, error = detail, next_in = ?pause, "the Kafka producer cannot go on and is replaced; what was in flight is sent again");
        self.producer.take().map(Producer::retire);
        self.generation += 1;
        self.producer_due = now + pause;
        for index in 0..self.lanes.len() {
            if self.lanes[index].window.is_empty() {
                continue;
            }
            self.lanes[index].rewind();
            if !self.proven {
                let why = if reason == "not_authorized" { Reason::NotAuthorized } else { Reason::Refused };
                self.block(index, why, detail.clone(), now);
            }
        }
    }

    fn start_producer(&mut self, now: Instant) {
        match Producer::start(&self.config, &self.inbox, self.generation) {
            Ok(producer) => {
                self.producer = Some(producer);
                self.producer_born = now;
                self.proven = false;
                if self.obstacle.take().is_some() {
                    (0..self.lanes.len()).for_each(|index| self.free(index, now));
                }
            }
            Err(error) => {
                let pause = self.producer_pauses.next().expect("the pauses have no end");
                self.producer_due = now + pause;
                error!(error, retry_in = ?pause, "the Kafka client cannot be set up, events wait in the journal: check [kafka]");
                self.obstacle = Some(error);
                (0..self.lanes.len()).for_each(|index| self.block_without_client(index, now));
            }
        }
    }

    /// Blocks a lane if there is no client because none could be set up.
    pub(super) fn block_without_client(&mut self, index: usize, now: Instant) {
        if let Some(obstacle) = &self.obstacle {
            self.lanes[index].look_behind(&self.journal);
            let detail = format!("the Kafka client cannot be set up, check [kafka]: {obstacle}");
            self.block(index, Reason::Refused, detail, now);
        }
    }

    /// The metric outlives a forwarder that is replaced; whoever comes next finds out anew what is in the way.
    pub(super) fn forget_blocks(&self) {
        for (index, lane) in self.lanes.iter().enumerate() {
            lane.block.iter().for_each(|block| self.show_blocked(index, block.reason, false));
        }
    }

    fn show_blocked(&self, index: usize, reason: Reason, blocked: bool) {
        let labels = [&*self.lanes[index].topic, reason.word()];
        self.metrics.forward.blocked.with_label_values(&labels).set(i64::from(blocked));
    }
}

/// How long the replacement of a producer that still lives waits for lanes that still flow.
const LET_OTHERS_FINISH: Duration = Duration::from_secs(30);
/// Without an acknowledgement for this long, a lane does not flow.
const QUIET: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{SystemClock, UnixMillis};
    use crate::journal::disk::LocalDisk;
    use crate::journal::{Journal, Options};
    use crate::limits::JournalLimits;

    /// A forwarder that does not run, over a journal that is closed, with one lane that has a record in flight since then.
    fn waiting() -> (Worker, Instant, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Arc::new(LocalDisk::create(dir.path()).expect("a directory"));
        let limits = JournalLimits { segment_size: 1 << 20, ..JournalLimits::default() };
        let options = Options { limits, ..Options::default() };
        let journal = Journal::open(disk, options, Arc::new(SystemClock), Arc::default()).expect("a journal");
        journal.close();
        let mut worker = Worker::new(journal, Arc::default(), Arc::default(), Arc::default(), Arc::default());
        let begun = Instant::now();
        worker.add_lane(&"thin".into(), 0, (1, 1), begun);
        worker.lanes[0].window.take_up(0, 10, UnixMillis(0));
        (worker, begun, dir)
    }

    fn reason(worker: &Worker) -> Option<Reason> {
        worker.lanes[0].block.as_ref().map(|block| block.reason)
    }

    fn of_three(in_sync: usize) -> Finding {
        Finding::UnderReplicated(in_sync, "partition 0".into())
    }

    #[test]
    fn a_wedged_producer_is_replaced_although_a_replica_stays_dead() {
        let (mut worker, begun, _dir) = waiting();
        let minute = |count: u64| begun + Duration::from_secs(60 * count);
        for count in 1..10 {
            worker.found(0, of_three(1), minute(count));
            assert_eq!((reason(&worker), worker.replacement.is_some()), (Some(Reason::BelowMinIsr), false));
        }
        for count in 10..15 {
            worker.found(0, of_three(2), minute(count));
            assert!(worker.replacement.is_none(), "a producer that is well needs no other");
        }
        assert_eq!(reason(&worker), Some(Reason::Stalled), "replicas are not what is missing now");
        worker.found(0, of_three(2), minute(15));
        assert_eq!(worker.replacement.map(|replacement| replacement.reason), Some(STUCK));
    }

    /// Nothing would be left to free it: it has nothing to send until the journal can be read.
    #[test]
    fn what_kafka_says_does_not_concern_a_lane_that_waits_for_the_journal() {
        let (mut worker, begun, _dir) = waiting();
        worker.lanes[0].join_head();
        worker.block(0, Reason::Journal, "a test".into(), begun);
        worker.lanes[0].acked(0, worker.share, begun);
        assert!(!worker.lanes[0].is_worth_a_look());
        worker.found(0, Finding::Trouble(Reason::BrokerAway, "asked before".into()), begun + STALLED_AFTER);
        assert_eq!(reason(&worker), Some(Reason::Journal));
    }
}

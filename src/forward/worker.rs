//! Runs the forwarder's thread. The thread's loop applies updates, supervises topics and the Kafka client, sends events and
//! saves cursors. The loop sleeps when no work is left. The module `feed` sends events. The module `supervisor` handles
//! failures.

mod feed;
mod supervisor;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::info;

use super::Settings;
use super::block_log::BlockLog;
use super::client::KafkaClient;
use super::dead_letters::DeadLetters;
use super::in_flight_limit::InFlightLimit;
use super::mailbox::{DEAD_LETTERS, DeliveryReport, MAX_TOPICS, Mailbox, unpack_ticket};
use super::readers::Readers;
use super::status_table::{StatusTable, TopicStatus};
use super::topic_queue::TopicQueue;
use crate::clock::Clock;
use crate::journal::Journal;
use crate::metrics::Metrics;

/// State of the forwarder's thread.
pub(super) struct Worker {
    journal: Journal,
    settings: Arc<ArcSwap<Settings>>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    /// Id of the journal, which identifies this instance of hookhold in records.
    instance: String,
    mailbox: Arc<Mailbox>,
    status_table: Arc<StatusTable>,
    block_log: Arc<BlockLog>,
    client: KafkaClient,
    dead_letters: DeadLetters,
    readers: Readers,
    queues: Vec<TopicQueue>,
    /// Index of each topic's queue in `queues`.
    by_topic: HashMap<Arc<str>, usize>,
    in_flight: AllInFlight,
    /// True if the reader at the log end has skipped sequences since it last reached the log end.
    has_skipped: bool,
}

/// Records in flight of all topics.
struct AllInFlight {
    /// Limit of each topic.
    each: InFlightLimit,
    /// Total size of the records in bytes.
    bytes: usize,
}

impl Worker {
    /// Creates a worker with a queue for every topic that has a cursor. The reader at the log end starts at the highest cursor, or
    /// at the oldest event if no topic has a cursor. This start position skips no event: a queue with a lower cursor begins behind
    /// that reader. A topic without a cursor has no event before the start position, because the worker saves a topic's first
    /// cursor before any other cursor passes the topic's first event.
    pub(super) fn new(
        journal: Journal,
        settings: Arc<ArcSwap<Settings>>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        mailbox: Arc<Mailbox>,
        status_table: Arc<StatusTable>,
    ) -> Worker {
        let now = Instant::now();
        let cursors = journal.topic_cursors();
        let live_from = cursors.iter().map(|topic| topic.cursor).max().unwrap_or_else(|| journal.oldest_seq());
        let instance = journal.id();
        let client = {
            let initial = settings.load();
            let (mailbox, connection, metrics) = (mailbox.clone(), status_table.connection(), metrics.clone());
            KafkaClient::new(&instance, &initial.librdkafka, initial.max_body, mailbox, connection, metrics, now)
        };
        let dead_letters = DeadLetters::new(journal.clone(), status_table.dead_letters(), metrics.clone(), now);
        let mut worker = Worker {
            dead_letters,
            readers: Readers::new(journal.clone(), live_from),
            journal,
            settings,
            metrics,
            clock,
            instance,
            mailbox,
            status_table,
            block_log: Arc::default(),
            client,
            queues: Vec::new(),
            by_topic: HashMap::new(),
            in_flight: AllInFlight { each: InFlightLimit::each_of(1), bytes: 0 },
            has_skipped: false,
        };
        let stored: Vec<(u64, u64)> = cursors.iter().map(|topic| worker.journal.stored(&topic.name)).collect();
        let waiting = cursors.iter().zip(&stored).map(|(topic, (_, watermark))| (topic.name.clone(), topic.cursor..*watermark));
        let waiting = worker.journal.count_each(&waiting.collect::<Vec<_>>());
        for ((topic, (stored, _)), waiting) in cursors.iter().zip(stored).zip(waiting) {
            worker.add_queue(&topic.name, topic.cursor, stored as i64 - waiting as i64, now);
        }
        worker
    }

    /// Runs the forwarder's loop until a stop is requested.
    pub(super) fn run(mut self) {
        loop {
            let updates = self.mailbox.take();
            let now = Instant::now();
            if let Some(by) = updates.stop_by {
                self.apply_reports(updates.reports, now);
                return self.stop(by);
            }
            self.apply_updates(updates, now);
            self.supervise(now);
            self.send_dead_letter(now);
            self.block_log.log_due(now);
            let moved = self.feed(now);
            self.save_cursors();
            self.metrics.forward.heartbeat.with_label_values::<&str>(&[]).set(self.clock.now().0 as f64 / 1000.0);
            if !moved {
                let beat = now + HEARTBEAT_INTERVAL;
                self.mailbox.wait(Some(self.next_deadline().map_or(beat, |deadline| deadline.min(beat))));
            }
        }
    }

    /// Adds a queue for a topic and returns the queue's index. The queue starts at the sequence `cursor`. `passed` is the number of
    /// events that [`Journal::stored`] returns, minus the number of events that wait for Kafka.
    fn add_queue(&mut self, topic: &Arc<str>, cursor: u64, passed: i64, now: Instant) -> usize {
        let index = self.queues.len();
        assert!(index < MAX_TOPICS, "every topic is configured, and the configuration has fewer topics");
        let status = Arc::new(TopicStatus::new(topic.clone(), passed, &self.metrics));
        self.status_table.add(topic, status.clone());
        self.queues.push(TopicQueue::new(topic.clone(), cursor, status, self.block_log.clone(), now));
        self.by_topic.insert(topic.clone(), index);
        self.in_flight.each = InFlightLimit::each_of(self.queues.len());
        index
    }

    /// Applies the delivery reports of the current producer. Ignores the delivery reports of earlier producers, because
    /// those reports are outdated. If a topic continues for which no broker answered, all such topics continue: they then share a
    /// pass over their backlog, while their own probes would end one after the other.
    fn apply_reports(&mut self, reports: Vec<DeliveryReport>, now: Instant) {
        let (at, mut is_back) = (self.clock.now(), false);
        for report in reports {
            if !self.client.is_current(report.generation) {
                continue;
            }
            if report.result.is_ok() {
                self.client.acknowledged(now);
            }
            let (index, seq) = unpack_ticket(report.ticket);
            match report.result {
                result if index == DEAD_LETTERS => self.dead_letters.reported(seq, result, now),
                Err(code) => self.record_failed(index, seq, code, now),
                Ok(()) => {
                    is_back |= self.queues[index].is_away();
                    self.queues[index].acknowledge(seq, self.in_flight.each, at, now);
                }
            }
        }
        if is_back {
            self.queues.iter_mut().filter(|queue| queue.is_away()).for_each(|queue| queue.unblock(now));
        }
    }

    /// Publishes the status of every queue, and hands the journal every cursor that should be saved. The journal decides when it
    /// writes the cursors to disk.
    fn save_cursors(&mut self) {
        let live = self.readers.live().position();
        for queue in &mut self.queues {
            queue.publish(live);
            if let Some(cursor) = queue.cursor_to_save(live) {
                let acknowledged = queue.start_save(cursor);
                self.journal.save_cursor(&queue.topic, cursor, acknowledged);
            }
        }
    }

    /// Returns the time at which the loop next has work even if no thread posts an update; `None` if only an update can
    /// create work.
    fn next_deadline(&self) -> Option<Instant> {
        let held = self.readers.holding().filter_map(|reader| Some(self.by_topic[reader.held()?.event.topic()]));
        // A reader that has waited long enough waits for room in the in-flight limit of all topics, which only a report can make.
        let now = Instant::now();
        let held = held.filter_map(|index| self.queues[index].wait_ends()).filter(|ends| *ends > now).min();
        let replacement = self.client.replacement().map(|replacement| replacement.by);
        let reader = [self.readers.retry_at(), self.readers.pass_due()];
        let client = [replacement, self.client.start_due(), self.next_probe_due(), self.next_question_due()];
        let others = [held, self.next_dead_letter_due(now), self.block_log.next_due()];
        let deadlines = client.into_iter().chain(others).chain(reader);
        deadlines.into_iter().flatten().min()
    }

    /// Stops reading events, and waits until `by` for records in flight that Kafka may still acknowledge. Then hands the
    /// journal every cursor that should be saved, and ends the Kafka client.
    fn stop(mut self, by: Instant) {
        loop {
            let updates = self.mailbox.take();
            let now = Instant::now();
            let fatal = updates.fatal.is_some();
            self.apply_reports(updates.reports, now);
            self.save_cursors();
            if updates.brokers_down {
                self.brokers_down(now);
            }
            if fatal || now >= by || !self.queues.iter().any(TopicQueue::expects_acks) {
                break;
            }
            self.mailbox.wait(Some(by));
        }
        self.dead_letters.withdraw();
        self.block_log.log_all();
        for queue in &mut self.queues {
            queue.withdraw_block();
            queue.force_save();
        }
        self.save_cursors();
        let unacknowledged: usize = self.queues.iter().map(|queue| queue.in_flight.unacknowledged()).sum();
        info!(unacknowledged, "forwarding stopped; hookhold sends unacknowledged events again after the next start");
        self.client.stop(by);
    }
}

/// Longest time between two turns of the loop, after each of which the metric `hookhold_forward_heartbeat_timestamp_seconds`
/// changes.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

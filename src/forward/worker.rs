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
use super::client::KafkaClient;
use super::in_flight::InFlightLimit;
use super::log_reader::LogReader;
use super::mailbox::{DeliveryReport, MAX_TOPICS, Mailbox, unpack_ticket};
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
    client: KafkaClient,
    log_reader: LogReader,
    queues: Vec<TopicQueue>,
    /// Index of each topic's queue in `queues`.
    by_topic: HashMap<Arc<str>, usize>,
    limit: InFlightLimit,
}

impl Worker {
    /// Creates a worker with a queue for every topic that has a cursor. The shared reader starts at the highest cursor, or at
    /// the oldest event if no topic has a cursor. This start position skips no event. A queue with a lower cursor begins with
    /// its own reader. A topic without a cursor has no event before the start position, because the worker saves a topic's
    /// first cursor before any other cursor passes the topic's first event.
    pub(super) fn new(
        journal: Journal,
        settings: Arc<ArcSwap<Settings>>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        mailbox: Arc<Mailbox>,
        status_table: Arc<StatusTable>,
    ) -> Worker {
        let now = Instant::now();
        // Read the watermark before the cursors. Every topic with an event below the watermark then has a cursor.
        let watermark = journal.durable_watermark();
        let cursors = journal.topic_cursors();
        let shared_from = cursors.iter().map(|topic| topic.cursor).max().unwrap_or_else(|| journal.oldest_seq());
        let instance = journal.id();
        let client = {
            let initial = settings.load();
            KafkaClient::new(&instance, &initial.librdkafka, initial.max_body, mailbox.clone(), metrics.clone(), now)
        };
        let mut worker = Worker {
            log_reader: LogReader::new(journal.clone(), shared_from),
            journal,
            settings,
            metrics,
            clock,
            instance,
            mailbox,
            status_table,
            client,
            queues: Vec::new(),
            by_topic: HashMap::new(),
            limit: InFlightLimit::each_of(1),
        };
        for topic in cursors {
            let waiting = worker.journal.count(&topic.name, topic.cursor, watermark);
            worker.add_queue(&topic.name, topic.cursor, (watermark, waiting), now);
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
            let moved = self.feed(now);
            self.save_cursors();
            self.metrics.forward.heartbeat.with_label_values::<&str>(&[]).set(self.clock.now().0 as f64 / 1000.0);
            if !moved {
                let beat = now + HEARTBEAT_INTERVAL;
                self.mailbox.wait(Some(self.next_deadline().map_or(beat, |deadline| deadline.min(beat))));
            }
        }
    }

    /// Adds a queue for a topic and returns the queue's index. The queue starts at the sequence `cursor`. `waiting` is the
    /// number of the topic's events whose sequence is in `cursor..counted`.
    fn add_queue(&mut self, topic: &Arc<str>, cursor: u64, (counted, waiting): (u64, u64), now: Instant) -> usize {
        let index = self.queues.len();
        assert!(index < MAX_TOPICS, "every topic is configured, and the configuration has fewer topics");
        let status = Arc::new(TopicStatus::new(topic.clone(), waiting, &self.metrics));
        self.status_table.add(topic, status.clone());
        self.queues.push(TopicQueue::new(topic.clone(), cursor, counted, status, now));
        self.by_topic.insert(topic.clone(), index);
        self.limit = InFlightLimit::each_of(self.queues.len());
        index
    }

    /// Applies the delivery reports of the current producer. Ignores the delivery reports of earlier producers, because
    /// those reports are outdated.
    fn apply_reports(&mut self, reports: Vec<DeliveryReport>, now: Instant) {
        for report in reports {
            if !self.client.is_current(report.generation) {
                continue;
            }
            let (index, seq) = unpack_ticket(report.ticket);
            match report.result {
                Err(code) => self.record_failed(index, seq, code, now),
                Ok(()) => {
                    self.client.acknowledged();
                    self.queues[index].acknowledge(seq, self.limit, now);
                }
            }
        }
    }

    /// Publishes the status of every queue, and hands the journal every cursor that should be saved. The journal decides when it
    /// writes the cursors to disk.
    fn save_cursors(&mut self) {
        let shared = self.log_reader.position();
        for queue in &mut self.queues {
            queue.publish(shared);
            if let Some(cursor) = queue.cursor_to_save(shared) {
                let acknowledged = queue.start_save(cursor);
                self.journal.save_cursor(&queue.topic, cursor, acknowledged);
            }
        }
    }

    /// Returns the time at which the loop next has work even if no thread posts an update; `None` if only an update can
    /// create work.
    fn next_deadline(&self) -> Option<Instant> {
        let held = self.log_reader.held().and_then(|stored| self.queues[self.by_topic[stored.event.topic()]].wait_ends());
        let replacement = self.client.replacement().map(|replacement| replacement.by);
        let deadlines = [held, replacement, self.client.start_due(), self.log_reader.retry_at(), self.next_probe_due()];
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
        for queue in &mut self.queues {
            queue.withdraw_block();
            queue.force_save();
        }
        self.save_cursors();
        let unacknowledged: usize = self.queues.iter().map(|queue| queue.in_flight.unreported()).sum();
        info!(unacknowledged, "forwarding stopped; hookhold sends unacknowledged events again after the next start");
        self.client.stop(by);
    }
}

/// Longest time between two turns of the loop, after each of which the metric `hookhold_forward_heartbeat_timestamp_seconds` changes.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

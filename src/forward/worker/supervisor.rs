//! Handles failures in forwarding to Kafka: blocks and unblocks topics, probes topics that make no progress, and
//! schedules the replacement of the producer.

use std::sync::Arc;
use std::time::Instant;

use rdkafka::error::RDKafkaErrorCode;
use tracing::warn;

use super::Worker;
use crate::forward::kafka_error::{BlockReason, ErrorClass, classify};
use crate::forward::left_behind::Leaderless;
use crate::forward::mailbox::Updates;
use crate::forward::probe_schedule::STALLED_AFTER;
use crate::forward::topic_health::ProbeResult;
use crate::journal::ParkingNote;

impl Worker {
    /// Applies the updates from the mailbox.
    pub(super) fn apply_updates(&mut self, updates: Updates, now: Instant) {
        self.apply_reports(updates.reports, now);
        for queue in &mut self.queues {
            queue.rewind_if_recalled();
        }
        for (code, text) in updates.client_errors {
            self.client.connection_mut().note_error(code, &text, now);
        }
        if updates.brokers_down {
            self.brokers_down(now);
        }
        if updates.client_settings_changed {
            let settings = self.settings.load();
            self.client.reconfigure(&settings.librdkafka, settings.max_body, now);
        }
        for (topic, below) in updates.releases {
            match self.by_topic.get(&topic) {
                Some(index) => self.queues[*index].release(below, &self.journal, now),
                None => self.journal.save_cursor(&topic, below, 0),
            }
        }
        if let Some(probed) = updates.probe {
            self.client.probe_finished();
            if self.client.is_current(probed.generation) {
                self.note_answer(&probed.result, now);
            }
            if let Some(index) = probed.queue {
                // Another producer may send the topic's events to another topic.
                let leaderless = probed.leaderless.filter(|_| self.client.is_current(probed.generation));
                self.apply_probe(index, leaderless, probed.result, now);
            }
        }
        if let Some((_, reason)) = updates.fatal.filter(|(generation, _)| self.client.is_current(*generation)) {
            self.client.producer_failed(reason, now);
        }
    }

    /// Replaces the producer if a replacement is due, starts a producer if a start is due, and probes a topic that makes no
    /// progress.
    pub(super) fn supervise(&mut self, now: Instant) {
        let quiet = || self.queues.iter().all(|queue| queue.is_quiet(now));
        if self.client.replacement().is_some_and(|replacement| now >= replacement.by || quiet()) {
            self.replace_producer(now);
        }
        if self.client.start_due().is_some_and(|due| now >= due) {
            self.start_producer(now);
        }
        if self.client.can_probe() {
            self.probe(now);
        }
    }

    /// Probes a topic whose probe is due. If there is none, asks the cluster for metadata if it has not answered for a while.
    fn probe(&mut self, now: Instant) {
        let due = self.next_to_probe(now).map(|index| (self.queues[index].topic.clone(), Some(index)));
        let is_silent = now >= self.client.connection().ask_at();
        let question = || self.any_topic().filter(|_| is_silent).map(|topic| (topic, None));
        let Some((topic, queue)) = due.or_else(question) else { return };
        if let Err(error) = self.client.probe(&self.settings.load().destination(&topic), queue) {
            let pause = match queue {
                Some(index) => self.queues[index].retry_probe(now),
                None => self.client.connection_mut().postpone(now),
            };
            warn!(
                topic = &*topic,
                %error,
                retry_in = ?pause,
                "cannot start a thread to probe the topic; raise the thread limit (TasksMax in systemd)"
            );
        }
    }

    /// Returns a topic whose metadata shows whether the cluster answers; `None` if no topic is known.
    fn any_topic(&self) -> Option<Arc<str>> {
        let configured = || self.settings.load().topics.first().cloned();
        self.queues.first().map(|queue| queue.topic.clone()).or_else(configured)
    }

    /// Returns the time at which to ask the cluster for metadata because it has not answered for a while; `None` if that is not
    /// possible now.
    pub(super) fn next_question_due(&self) -> Option<Instant> {
        (self.client.can_probe() && self.any_topic().is_some()).then(|| self.client.connection().ask_at())
    }

    /// Notes whether the cluster has answered a probe.
    fn note_answer(&mut self, result: &ProbeResult, now: Instant) {
        match result {
            ProbeResult::Unanswered(detail) => self.client.connection_mut().unanswered(detail, now),
            _ => self.client.connection_mut().answered(now),
        }
    }

    /// Handles the failure of a record. Depending on the error, blocks the record's topic, makes the topic's queue send smaller
    /// batches, parks the event, or schedules the replacement of the producer.
    pub(super) fn record_failed(&mut self, index: usize, seq: u64, code: RDKafkaErrorCode, now: Instant) {
        let (queue, class) = (&mut self.queues[index], classify(code));
        if let ErrorClass::Record(_) = class {
            queue.send_smaller_batches(now);
        }
        let alone = queue.fail(seq);
        match class {
            ErrorClass::Producer => self.client.producer_failed(code.to_string(), now),
            ErrorClass::Purged => {}
            ErrorClass::Record(reason) if alone => self.park(index, seq, reason, code, now),
            ErrorClass::Record(_) => {}
            ErrorClass::Environment(reason) => queue.block(reason, &code.to_string(), now),
        }
    }

    /// Parks the event with sequence `seq`, which Kafka has rejected alone, and moves the topic's cursor past it. Blocks the topic
    /// if the event cannot be parked. Does nothing if the event cannot be read: the queue reads it again in order to send it, and
    /// then handles the same failure.
    fn park(&mut self, index: usize, seq: u64, reason: &'static str, code: RDKafkaErrorCode, now: Instant) {
        let queue = &mut self.queues[index];
        let read = self.journal.reader(seq).for_topic(&queue.topic).next();
        let Some(stored) = read.ok().flatten().filter(|stored| stored.position.seq == seq) else { return };
        let (topic, detail) = (queue.topic.clone(), code.to_string());
        let note = ParkingNote { reason: reason.to_owned(), detail, parked_at: self.clock.now() };
        match self.journal.park(&stored, &note) {
            Ok(()) => {
                let (event, error) = (stored.position.to_string(), note.detail);
                warn!(
                    topic = &*topic,
                    event,
                    reason,
                    error,
                    "Kafka rejects the event itself, so hookhold has parked it; run `hookhold parked show {event}`"
                );
                self.metrics.forward.parked.with_label_values(&[&*topic, reason]).inc();
                queue.pass_parked(seq, stored.event.body().len(), now);
                self.dead_letters.parked(stored.position, now);
            }
            Err(error) => queue.block(BlockReason::Record, &format!("event {seq}: {code}; {error}"), now),
        }
    }

    /// Sends a copy of the next parked event to the dead-letter topic, if there is one.
    pub(super) fn send_dead_letter(&mut self, now: Instant) {
        let settings = self.settings.load();
        if let (Some(topic), Some(producer), true) = (&settings.dead_letter, self.client.producer(), self.client.is_ready()) {
            self.dead_letters.send(producer, &settings, topic, now);
        }
    }

    /// Returns the time at which [`Worker::send_dead_letter`] has work; `None` if only an update can create work.
    pub(super) fn next_dead_letter_due(&self, now: Instant) -> Option<Instant> {
        let can_send = self.client.is_ready() && self.settings.load().dead_letter.is_some();
        can_send.then(|| self.dead_letters.due(now)).flatten()
    }

    /// Blocks every topic that has records in flight, because the Kafka client has lost the connection to its last
    /// reachable broker.
    pub(super) fn brokers_down(&mut self, now: Instant) {
        self.client.connection_mut().ask_now(now);
        for queue in &mut self.queues {
            if queue.in_flight.unreported() > 0 && queue.block_reason().is_none() {
                let (reason, detail) = self.client.unreachable_reason("brokers: expected a reachable broker, found none");
                queue.block(reason, &detail, now);
            }
        }
    }

    /// Returns the time at which the next probe is due; `None` if no topic needs a probe or no probe can start now. While a
    /// probe runs, no other probe can start; the result of the running probe wakes the forwarder.
    pub(super) fn next_probe_due(&self) -> Option<Instant> {
        let can_probe = self.client.can_probe();
        self.queues.iter().filter(|queue| can_probe && queue.needs_probe()).map(|queue| queue.probe_due()).min()
    }

    /// Blocks a topic if the Kafka client could not be set up.
    pub(super) fn block_without_client(&mut self, index: usize, now: Instant) {
        if let Some(error) = self.client.setup_error() {
            let queue = &mut self.queues[index];
            queue.find_oldest(&self.journal);
            queue.block(BlockReason::Rejected, &format!("cannot set up the Kafka client: {error}; run `hookhold check`"), now);
        }
    }

    /// Returns the index of the queue whose topic the worker should probe now; `None` if no probe is due. Prefers topics
    /// without records in flight, because only a probe can unblock such a topic. The other topics resume as soon as Kafka
    /// acknowledges their records.
    fn next_to_probe(&self, now: Instant) -> Option<usize> {
        let due = |index: &usize| now >= self.queues[*index].probe_due() && self.queues[*index].needs_probe();
        let order = |index: &usize| (self.queues[*index].in_flight.unreported() > 0, self.queues[*index].probe_due());
        (0..self.queues.len()).filter(due).min_by_key(order)
    }

    /// Applies the result of a metadata probe: leaves the events of some partitions behind, blocks the topic, starts a trial, or schedules
    /// the replacement of the producer.
    fn apply_probe(&mut self, index: usize, leaderless: Option<Leaderless>, result: ProbeResult, now: Instant) {
        let queue = &mut self.queues[index];
        queue.schedule_next_probe(now);
        if let Some(leaderless) = leaderless {
            queue.set_leaderless(leaderless, self.in_flight.each, now);
        }
        if !queue.is_judged_by_probes() || queue.makes_progress(now) {
            return;
        }
        let waiting = queue.in_flight.unreported() > 0;
        match result {
            ProbeResult::Unanswered(detail) => {
                queue.health.record_unwritable();
                let (reason, detail) = self.client.unreachable_reason(&detail);
                queue.block(reason, &detail, now);
            }
            ProbeResult::Unwritable(reason, detail) => {
                queue.health.record_unwritable();
                queue.block(reason, &detail, now);
            }
            ProbeResult::UnderReplicated { in_sync, detail } if waiting => {
                queue.health.record_in_sync(Some(in_sync), now);
                if !queue.health.has_enough_replicas() {
                    queue.block(BlockReason::BelowMinIsr, &detail, now);
                }
                self.judge_stall(index, now);
            }
            ProbeResult::Healthy if waiting => {
                queue.health.record_in_sync(None, now);
                self.judge_stall(index, now);
            }
            ProbeResult::UnderReplicated { .. } | ProbeResult::Healthy => {
                if !queue.block_if_too_far_ahead(self.in_flight.each, now) {
                    queue.begin_trial();
                }
            }
        }
    }

    /// Handles a stall: Kafka acknowledges no record of a topic that the cluster reports as writable. Blocks the topic,
    /// and schedules the replacement of the producer if the stall lasts.
    fn judge_stall(&mut self, index: usize, now: Instant) {
        let queue = &mut self.queues[index];
        let stalled_for = queue.stalled_for(now);
        let seconds = stalled_for.as_secs();
        if queue.health.blames_producer(stalled_for) && self.client.replacement().is_none() {
            let topic = &queue.topic;
            let detail = format!(
                "{topic}: expected an acknowledgement, found none for {seconds} s, although every partition has a leader"
            );
            self.client.producer_stuck(detail, now);
        } else if queue.health.has_enough_replicas() && stalled_for >= STALLED_AFTER {
            queue.block(BlockReason::Stalled, &format!("expected an acknowledgement, found none for {seconds} s"), now);
        }
    }

    /// Replaces the producer and rewinds the queue of every topic that has records in flight or has left events behind.
    fn replace_producer(&mut self, now: Instant) {
        let Some(replaced) = self.client.replace(now) else { return };
        self.dead_letters.restart(now);
        for queue in self.queues.iter_mut().filter(|queue| queue.in_flight.cursor().is_some()) {
            let had_records = queue.in_flight.has_records();
            queue.start_over(now);
            if let Some(reason) = replaced.block.filter(|_| had_records) {
                queue.block(reason, &replaced.detail, now);
            }
        }
    }

    /// Starts a producer. If the start fails, blocks every topic. If the start succeeds, unblocks the topics that an earlier
    /// failed start blocked.
    fn start_producer(&mut self, now: Instant) {
        let had_failed = self.client.setup_error().is_some();
        self.client.start(now);
        if self.client.setup_error().is_some() {
            (0..self.queues.len()).for_each(|index| self.block_without_client(index, now));
            return;
        }
        for queue in &mut self.queues {
            if had_failed {
                queue.unblock(now);
            }
            queue.hurry_probe(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::clock::{SystemClock, UnixMillis};
    use crate::forward::in_flight_limit::InFlightLimit;
    use crate::forward::kafka_error::REBUILT_STUCK;
    use crate::forward::partitioner::KeyHash;
    use crate::journal::disk::LocalDisk;
    use crate::journal::{Journal, Options};
    use crate::limits::JournalLimits;

    /// Returns a worker with a closed journal, a producer and one topic. The topic has one record in flight, and the worker's
    /// loop does not run. Also returns the time at which the record was sent, and the directory of the journal.
    fn stalled_worker() -> (Worker, Instant, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Arc::new(LocalDisk::create(dir.path()).expect("a directory"));
        let limits = JournalLimits { segment_size: 1 << 20, ..JournalLimits::default() };
        let options = Options { limits, ..Options::default() };
        let journal = Journal::open(disk, options, Arc::new(SystemClock), Arc::default()).expect("a journal");
        journal.close();
        let mut worker =
            Worker::new(journal, Arc::default(), Arc::default(), Arc::new(SystemClock), Arc::default(), Arc::default());
        let begun = Instant::now();
        worker.client.start(begun);
        worker.add_queue(&"thin".into(), 0, -1, begun);
        worker.queues[0].in_flight.insert(0, KeyHash::of(b"key"), 10, UnixMillis(0));
        (worker, begun, dir)
    }

    fn reason(worker: &Worker) -> Option<BlockReason> {
        worker.queues[0].block_reason()
    }

    fn replacement(worker: &Worker) -> Option<&'static str> {
        worker.client.replacement().map(|replacement| replacement.reason)
    }

    fn of_three(in_sync: usize) -> ProbeResult {
        ProbeResult::UnderReplicated { in_sync, detail: "partition 0".into() }
    }

    #[test]
    fn a_stuck_producer_is_replaced_despite_a_dead_replica() {
        let (mut worker, begun, _dir) = stalled_worker();
        let minute = |count: u64| begun + Duration::from_secs(60 * count);
        for count in 1..10 {
            worker.apply_probe(0, None, of_three(1), minute(count));
            assert_eq!((reason(&worker), replacement(&worker)), (Some(BlockReason::BelowMinIsr), None));
        }
        for count in 10..15 {
            worker.apply_probe(0, None, of_three(2), minute(count));
            assert_eq!(replacement(&worker), None, "the producer may still recover");
        }
        assert_eq!(reason(&worker), Some(BlockReason::Stalled), "enough replicas have returned");
        worker.apply_probe(0, None, of_three(2), minute(15));
        assert_eq!(replacement(&worker), Some(REBUILT_STUCK));
        worker.client.stop(begun);
    }

    #[test]
    fn a_partition_without_a_leader_blocks_its_topic_only_at_the_limit() {
        let (mut worker, begun, _dir) = stalled_worker();
        worker.queues[0].join_live(2);
        let two = NonZeroU32::new(2).expect("not zero");
        let partition = KeyHash::of(b"key").partition(two);
        let other = (0..9_u8).map(|key| KeyHash::of(&[key])).find(|key| key.partition(two) != partition).expect("a key");
        let later = begun + STALLED_AFTER;
        let probe = |worker: &mut Worker, partitions: &[u32]| {
            let leaderless = Leaderless::new(partitions.iter().copied().collect(), 2);
            worker.apply_probe(0, Some(leaderless), ProbeResult::Healthy, later);
        };
        worker.queues[0].block(BlockReason::Stalled, "earlier", begun);
        probe(&mut worker, &[partition]);
        assert!(reason(&worker).is_none() && worker.queues[0].may_send(worker.in_flight.each), "the other partition continues");
        worker.in_flight.each = InFlightLimit { ahead: 1, ..worker.in_flight.each };
        worker.queues[0].in_flight.insert(1, other, 10, UnixMillis(1));
        worker.queues[0].acknowledge(1, worker.in_flight.each, UnixMillis(1), later);
        for _ in 0..2 {
            assert_eq!(reason(&worker), Some(BlockReason::NoLeader));
            assert!(!worker.queues[0].may_send(worker.in_flight.each), "a trial would get further ahead");
            probe(&mut worker, &[partition]);
        }
        probe(&mut worker, &[]);
        assert!(
            reason(&worker).is_none() && !worker.queues[0].may_send(worker.in_flight.each),
            "librdkafka sends its records first"
        );
        worker.queues[0].acknowledge(0, worker.in_flight.each, UnixMillis(1), later);
        worker.queues[0].rewind_if_recalled();
        assert!(worker.queues[0].may_send(worker.in_flight.each) && worker.queues[0].next_seq() == 2, "nothing was left behind");
        worker.client.stop(begun);
    }

    /// Otherwise the other partitions of a busy topic would hide that a partition has no leader.
    #[test]
    fn acknowledgements_of_later_records_do_not_postpone_the_probe() {
        let (mut worker, begun, _dir) = stalled_worker();
        worker.queues[0].join_live(2);
        worker.queues[0].in_flight.insert(1, KeyHash::of(b"key"), 10, UnixMillis(1));
        let (due, later) = (worker.queues[0].probe_due(), begun + STALLED_AFTER);
        worker.queues[0].acknowledge(1, worker.in_flight.each, UnixMillis(1), later);
        assert_eq!(worker.queues[0].probe_due(), due, "the first record still waits");
        worker.queues[0].acknowledge(0, worker.in_flight.each, UnixMillis(1), later);
        assert_eq!(worker.queues[0].probe_due(), later + STALLED_AFTER);
        worker.client.stop(begun);
    }

    /// A probe must not replace the block reason `Journal`. A block with another reason would be permanent, because the topic
    /// has no event to send until hookhold can read the journal.
    #[test]
    fn a_probe_cannot_reblock_a_topic_awaiting_the_journal() {
        let (mut worker, begun, _dir) = stalled_worker();
        worker.queues[0].join_live(0);
        worker.queues[0].block(BlockReason::Journal, "cannot read", begun);
        worker.queues[0].acknowledge(0, worker.in_flight.each, UnixMillis(1), begun);
        assert!(!worker.queues[0].needs_probe());
        let earlier = ProbeResult::Unwritable(BlockReason::BrokerAway, "an earlier probe".into());
        worker.apply_probe(0, None, earlier, begun + STALLED_AFTER);
        assert_eq!(reason(&worker), Some(BlockReason::Journal));
        worker.client.stop(begun);
    }
}

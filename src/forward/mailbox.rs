//! Passes updates from other threads to the forwarder. The updates are commits, delivery reports, client errors, probe results
//! and the stop request. An idle forwarder waits only on this mailbox, so a posted update wakes the forwarder at once. Posting
//! an update never waits for the forwarder.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rdkafka::types::RDKafkaErrorCode;

use super::left_behind::Leaderless;
use super::topic_health::ProbeResult;

/// librdkafka's report on the result of sending one record.
pub(super) struct DeliveryReport {
    /// Generation of the producer that sent the record.
    pub(super) generation: u64,
    /// Ticket of the record, packed by [`pack_ticket`].
    pub(super) ticket: usize,
    /// `Ok` if a broker acknowledged the record, else librdkafka's error code.
    pub(super) result: Result<(), RDKafkaErrorCode>,
}

/// Result of a metadata probe.
pub(super) struct Probed {
    /// Generation of the probed producer.
    pub(super) generation: u64,
    /// Index of the probed topic's queue; `None` if the probe only concerned the connection.
    pub(super) queue: Option<usize>,
    /// Partitions of the topic that have no leader, although others have one; `None` if the probe has not found any partition with a
    /// leader.
    pub(super) leaderless: Option<Leaderless>,
    pub(super) result: ProbeResult,
}

/// Posted updates that the forwarder has not yet processed.
#[derive(Default)]
pub(super) struct Updates {
    /// Delivery reports, in the order of librdkafka's callbacks.
    pub(super) reports: Vec<DeliveryReport>,
    /// Generation of a producer that has failed permanently, and the reason for the failure; `None` if no producer has failed.
    pub(super) fatal: Option<(u64, String)>,
    /// True if the Kafka client has lost the connection to its last reachable broker.
    pub(super) brokers_down: bool,
    /// Errors that concern the whole Kafka client, in their order.
    pub(super) client_errors: Vec<(RDKafkaErrorCode, String)>,
    /// Result of the probe that has ended; `None` if no probe has ended.
    pub(super) probe: Option<Probed>,
    /// True if the settings of the Kafka client have changed.
    pub(super) client_settings_changed: bool,
    /// Topics whose events below a sequence an operator gives up.
    pub(super) releases: Vec<(Arc<str>, u64)>,
    /// Deadline of the requested stop; `None` if no stop is requested.
    pub(super) stop_by: Option<Instant>,
}

/// Receives the place of each event in Kafka, for a caller that shows events while they happen (`hookhold dev`).
pub trait AckWatcher: Send + Sync {
    /// Receives the topic, the partition and the offset of the record that Kafka has acknowledged for the event with sequence `seq`. The
    /// Kafka client waits for this function, so it must not block.
    fn acknowledged(&self, seq: u64, topic: &str, partition: i32, offset: i64);
}

/// Mailbox that the forwarder shares with poll threads, metadata probes and the journal's writer.
#[derive(Default)]
pub(super) struct Mailbox {
    contents: Mutex<MailboxContents>,
    wakeup: Condvar,
    /// Receiver of the place of each acknowledged event; `None` without a watcher.
    watcher: Option<Arc<dyn AckWatcher>>,
}

#[derive(Default)]
struct MailboxContents {
    updates: Updates,
    phase: MailboxPhase,
}

#[derive(Default, PartialEq, Eq)]
enum MailboxPhase {
    /// No update is waiting, and the forwarder is awake.
    #[default]
    Empty,
    /// An update is waiting for the forwarder.
    Posted,
    /// No update is waiting, and the forwarder sleeps on the condition variable.
    Asleep,
}

impl Mailbox {
    /// Creates an empty mailbox.
    pub(super) fn new(watcher: Option<Arc<dyn AckWatcher>>) -> Mailbox {
        Mailbox { watcher, ..Mailbox::default() }
    }

    /// Passes the place of an acknowledged event to the watcher, if there is one. A copy for the dead-letter topic is no such event.
    pub(super) fn watch(&self, ticket: usize, topic: &str, partition: i32, offset: i64) {
        if let (Some(watcher), (index, seq)) = (&self.watcher, unpack_ticket(ticket))
            && index != DEAD_LETTERS
        {
            watcher.acknowledged(seq, topic, partition, offset);
        }
    }

    /// Posts an update, and wakes the forwarder if the forwarder sleeps.
    pub(super) fn post(&self, update: impl FnOnce(&mut Updates)) {
        let mut contents = self.lock();
        update(&mut contents.updates);
        if std::mem::replace(&mut contents.phase, MailboxPhase::Posted) == MailboxPhase::Asleep {
            self.wakeup.notify_one();
        }
    }

    /// Wakes the forwarder without posting an update.
    pub(super) fn wake(&self) {
        self.post(|_| {});
    }

    /// Removes and returns all posted updates.
    pub(super) fn take(&self) -> Updates {
        let mut contents = self.lock();
        contents.phase = MailboxPhase::Empty;
        std::mem::take(&mut contents.updates)
    }

    /// Sleeps until another thread posts an update or calls [`Mailbox::wake`], but not beyond `deadline`.
    pub(super) fn wait(&self, deadline: Option<Instant>) {
        let mut contents = self.lock();
        while contents.phase != MailboxPhase::Posted {
            contents.phase = MailboxPhase::Asleep;
            contents = match deadline {
                None => self.wakeup.wait(contents).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        contents.phase = MailboxPhase::Empty;
                        break;
                    }
                    self.wakeup.wait_timeout(contents, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Locks the mailbox's contents. Ignores poisoning of the mutex, because a panic never leaves an update partly posted.
    fn lock(&self) -> MutexGuard<'_, MailboxContents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Packs a sequence and the index of a topic queue into a ticket, or the number of an attempt and [`DEAD_LETTERS`]. The ticket fits
/// into librdkafka's opaque pointer, so a record in flight needs no allocation.
pub(super) fn pack_ticket(index: usize, seq: u64) -> usize {
    debug_assert!(index <= DEAD_LETTERS && seq < 1 << SEQ_BITS);
    (index << SEQ_BITS) | seq as usize
}

/// Unpacks a ticket. Returns the index of the topic queue, and the sequence.
pub(super) fn unpack_ticket(ticket: usize) -> (usize, u64) {
    (ticket >> SEQ_BITS, (ticket & ((1 << SEQ_BITS) - 1)) as u64)
}

/// Maximum number of topics. A ticket has only 16 bits for the index of a topic queue, and one index is reserved.
pub(super) const MAX_TOPICS: usize = (1 << 16) - 1;
/// Index in the tickets of the records for the dead-letter topic. No topic queue has this index.
pub(super) const DEAD_LETTERS: usize = MAX_TOPICS;
/// Number of bits for the sequence in a ticket: enough for 280 trillion events.
const SEQ_BITS: u32 = 48;
const _: () = assert!(usize::BITS == 64, "a ticket needs 64 bits");

//! The forwarder's mailbox, its only wake-up point. Other threads post commits, delivery reports, client errors, probe
//! results and the stop request. The idle forwarder sleeps until an update is posted. Posting never waits for the
//! forwarder.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rdkafka::types::RDKafkaErrorCode;

use super::topic_health::ProbeResult;

/// Result of one record that was handed to librdkafka.
pub(super) struct DeliveryReport {
    /// Generation of the producer that sent the record.
    pub(super) generation: u64,
    /// The record, as packed by [`pack_ticket`].
    pub(super) ticket: usize,
    /// `Ok` if a broker acknowledged the record.
    pub(super) result: Result<(), RDKafkaErrorCode>,
}

/// Updates that the forwarder has not taken yet.
#[derive(Default)]
pub(super) struct Updates {
    /// Delivery reports in librdkafka's order.
    pub(super) reports: Vec<DeliveryReport>,
    /// Generation of a producer that has failed permanently, and the reason.
    pub(super) fatal: Option<(u64, String)>,
    /// True if the client has lost its last broker.
    pub(super) brokers_down: bool,
    /// The latest client-wide error.
    pub(super) client_error: Option<(RDKafkaErrorCode, String)>,
    /// Index of the probed topic queue, and its result.
    pub(super) probe: Option<(usize, ProbeResult)>,
    /// Deadline of a requested stop.
    pub(super) stop_by: Option<Instant>,
}

/// Mailbox of the forwarder, shared with its poll threads, its probes and the journal's writer.
#[derive(Default)]
pub(super) struct Mailbox {
    contents: Mutex<MailboxContents>,
    wakeup: Condvar,
}

#[derive(Default)]
struct MailboxContents {
    updates: Updates,
    phase: MailboxPhase,
}

#[derive(Default, PartialEq, Eq)]
enum MailboxPhase {
    /// No update is waiting and the forwarder is not asleep.
    #[default]
    Empty,
    /// An update is waiting for the forwarder.
    Posted,
    /// No update is waiting and the forwarder sleeps on the condition variable.
    Asleep,
}

impl Mailbox {
    /// Posts an update and wakes the forwarder if it sleeps.
    pub(super) fn post(&self, update: impl FnOnce(&mut Updates)) {
        let mut contents = self.lock();
        update(&mut contents.updates);
        if std::mem::replace(&mut contents.phase, MailboxPhase::Posted) == MailboxPhase::Asleep {
            self.wakeup.notify_one();
        }
    }

    /// Wakes the forwarder without an update.
    pub(super) fn wake(&self) {
        self.post(|_| {});
    }

    /// Takes all posted updates.
    pub(super) fn take(&self) -> Updates {
        let mut contents = self.lock();
        contents.phase = MailboxPhase::Empty;
        std::mem::take(&mut contents.updates)
    }

    /// Sleeps until an update is posted or `deadline` has passed.
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

    /// Locks the contents. Ignores poisoning, because each update is posted completely or not at all, even if a thread
    /// panics.
    fn lock(&self) -> MutexGuard<'_, MailboxContents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Packs the index of a topic queue and a sequence into librdkafka's opaque word, so that a record in flight needs no
/// allocation.
pub(super) fn pack_ticket(index: usize, seq: u64) -> usize {
    debug_assert!(index < MAX_TOPICS && seq < 1 << SEQ_BITS);
    (index << SEQ_BITS) | seq as usize
}

/// Unpacks a ticket into the index of a topic queue and a sequence.
pub(super) fn unpack_ticket(ticket: usize) -> (usize, u64) {
    (ticket >> SEQ_BITS, (ticket & ((1 << SEQ_BITS) - 1)) as u64)
}

/// Number of topics that a ticket can distinguish.
pub(super) const MAX_TOPICS: usize = 1 << 16;
/// Number of bits for the sequence in a ticket, enough for 280 trillion events.
const SEQ_BITS: u32 = 48;
const _: () = assert!(usize::BITS == 64, "a ticket needs 64 bits");

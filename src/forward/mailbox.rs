//! The forwarder's one bell: everything that can concern it (a commit, acknowledgements, client errors, a finished probe, a
//! stop) is left here, and it sleeps here when there is nothing to do. Leaving something never waits for the forwarder.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rdkafka::types::RDKafkaErrorCode;

use super::probe::Finding;

/// What became of one record that was handed to librdkafka.
pub(super) struct Report {
    /// Which producer it was handed to.
    pub generation: u64,
    /// Which record, as packed by [`ticket`].
    pub ticket: usize,
    /// Acknowledged, or why not.
    pub result: Result<(), RDKafkaErrorCode>,
}

/// What was left since the forwarder last looked.
#[derive(Default)]
pub(super) struct Updates {
    /// Delivery reports, in the order in which librdkafka gave them.
    pub reports: Vec<Report>,
    /// The producer (by generation) that cannot go on, and why.
    pub fatal: Option<(u64, String)>,
    /// The client sees no broker any more.
    pub brokers_down: bool,
    /// The last error that concerns the client as a whole.
    pub client_error: Option<(RDKafkaErrorCode, String)>,
    /// The answer to a probe: the lane's number, and what the cluster said.
    pub found: Option<(usize, Finding)>,
    /// Wind down until this moment at the latest.
    pub stop: Option<Instant>,
}

#[derive(Default)]
struct Slot {
    news: Updates,
    unread: bool,
    asleep: bool,
}

/// Shared by the forwarder, its poll threads, its probes and the journal's writer.
#[derive(Default)]
pub(super) struct Mailbox {
    slot: Mutex<Slot>,
    bell: Condvar,
}

impl Mailbox {
    /// Leaves something and wakes the forwarder if it sleeps.
    pub fn leave(&self, note: impl FnOnce(&mut Updates)) {
        let mut slot = self.lock();
        note(&mut slot.news);
        slot.unread = true;
        if std::mem::take(&mut slot.asleep) {
            self.bell.notify_one();
        }
    }

    /// Takes everything that was left.
    pub fn take(&self) -> Updates {
        let mut slot = self.lock();
        slot.unread = false;
        std::mem::take(&mut slot.news)
    }

    /// Sleeps until something is left or `until` has come; without `until`, for as long as it takes.
    pub fn wait(&self, until: Option<Instant>) {
        let mut slot = self.lock();
        while !slot.unread {
            slot.asleep = true;
            slot = match until {
                None => self.bell.wait(slot).unwrap_or_else(PoisonError::into_inner),
                Some(moment) => {
                    let left = moment.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.bell.wait_timeout(slot, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        slot.asleep = false;
    }

    /// A note is complete or not there at all, so a panic elsewhere does not spoil what lies here.
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Packs a lane's number and a sequence into librdkafka's opaque word, so that a record in flight costs no allocation.
pub(super) fn ticket(lane: usize, seq: u64) -> usize {
    debug_assert!(lane < MAX_LANES && seq < 1 << SEQ_BITS);
    (lane << SEQ_BITS) | seq as usize
}

/// The reverse of [`ticket`].
pub(super) fn lane_and_seq(ticket: usize) -> (usize, u64) {
    (ticket >> SEQ_BITS, (ticket & ((1 << SEQ_BITS) - 1)) as u64)
}

/// Topics that one journal can feed.
pub(super) const MAX_LANES: usize = 1 << 16;
/// Enough for 280 million million events.
const SEQ_BITS: u32 = 48;
const _: () = assert!(usize::BITS == 64, "a ticket needs 64 bits");

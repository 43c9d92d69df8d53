//! Appends the claimed items of a batch to the journal, and resolves their dedupe keys with the result. If a step fails, forgets
//! all claimed keys.

use std::sync::{Arc, Mutex};

use prometheus::IntCounter;
use tokio::sync::oneshot;

use super::appender::{Appender, Confirmation, UnconfirmedClaim, appended, not_appended, with_claimed_key};
use super::dedupe_table::{FirstCopy, Resolution};
use super::differing::DifferingDuplicates;
use crate::event::{Event, Position};
use crate::event_key::EventKey;
use crate::fingerprint::Fingerprint;
use crate::journal::AppendError;

/// An event of a batch that appears to be new. The delivery has claimed its dedupe key, unless the event is keyless.
pub(super) struct ClaimedItem {
    pub(super) event: Event,
    /// `Some` if the key may be in a key file.
    pub(super) look_up: Option<UnconfirmedClaim>,
}

/// Result of the claimed items of a batch.
#[derive(Debug)]
pub(super) struct BatchResolution {
    /// Result of the append, with the sequence of the first event. `None` if the lookups found the keys of all items.
    pub(super) resolution: Option<Resolution>,
    /// Number of events that the append stored.
    pub(super) stored: u64,
    /// Sequences of the events whose keys a lookup found in a key file.
    pub(super) seen: Vec<u64>,
}

/// Counters for the items of a batch.
pub(super) struct ItemCounters {
    pub(super) stored: IntCounter,
    pub(super) keyless: IntCounter,
    pub(super) differing: DifferingDuplicates,
}

/// The delivery that waits for the result of its batch, and the counters for the result.
struct BatchWaiter {
    /// Sender of the result, and the sequences of the events that a lookup has found. `None` once the result is sent.
    sender: Mutex<Option<(oneshot::Sender<BatchResolution>, Vec<u64>)>>,
    counters: ItemCounters,
}

impl Appender {
    /// Appends the claimed items of a batch in one commit, and returns the receiver for the result. First looks up the keys that
    /// may be in a key file, on a blocking thread. If `accepting` is an error, appends nothing and resolves the keys with this
    /// error.
    pub(super) fn append_claimed(
        self: &Arc<Self>,
        items: Vec<ClaimedItem>,
        counters: ItemCounters,
        accepting: Result<(), Resolution>,
    ) -> oneshot::Receiver<BatchResolution> {
        let (sender, receiver) = oneshot::channel();
        let waiter = Arc::new(BatchWaiter { sender: Mutex::new(Some((sender, Vec::new()))), counters });
        if items.iter().all(|item| item.look_up.is_none()) {
            self.append_events(items.into_iter().map(|item| item.event).collect(), waiter, accepting);
            return receiver;
        }
        match self.lookup_permit() {
            Ok(permit) => {
                let appender = self.clone();
                tokio::task::spawn_blocking(move || {
                    appender.look_up_and_append_items(items, waiter, accepting);
                    drop(permit);
                });
            }
            Err(resolution) => self.release(items.iter().map(|item| &item.event), &waiter, resolution),
        }
        receiver
    }

    /// Looks up the unconfirmed keys in the key files, and appends the events whose keys are new.
    fn look_up_and_append_items(
        self: &Arc<Self>,
        items: Vec<ClaimedItem>,
        waiter: Arc<BatchWaiter>,
        accepting: Result<(), Resolution>,
    ) {
        let mut fresh = Vec::with_capacity(items.len());
        for ClaimedItem { event, look_up } in items {
            let Some(claim) = look_up else {
                fresh.push(event);
                continue;
            };
            match self.confirm(&claim) {
                Confirmation::New => fresh.push(event),
                Confirmation::Moved(key) => fresh.push(with_claimed_key(event, key, &claim.account)),
                Confirmation::Seen(first) => {
                    waiter.counters.differing.report(&event, first);
                    self.dedupe_table.resolve(claim.key, Resolution::Seen(first));
                    waiter.add_seen(first.seq);
                }
            }
        }
        self.append_events(fresh, waiter, accepting);
    }

    /// Appends events with new keys and keyless events in one commit.
    fn append_events(self: &Arc<Self>, events: Vec<Event>, waiter: Arc<BatchWaiter>, accepting: Result<(), Resolution>) {
        let Some((first, rest)) = events.split_first() else {
            waiter.send(None, 0);
            return;
        };
        if let Err(resolution) = accepting {
            return self.release(events.iter(), &waiter, resolution);
        }
        let keys: Vec<_> = events.iter().map(|event| (event.dedupe_key(), event.fingerprint())).collect();
        let (appender, completed) = (self.clone(), waiter.clone());
        let completion = move |result| appender.complete_batch(&keys, result, &completed);
        if let Err(rejected) = self.journal.append_batch(first, rest, Box::new(completion)) {
            self.release(events.iter(), &waiter, not_appended(rejected));
        }
    }

    fn complete_batch(
        &self,
        keys: &[(Option<EventKey>, Fingerprint)],
        result: Result<Position, AppendError>,
        waiter: &BatchWaiter,
    ) {
        let resolution = |offset: u64, fingerprint: Fingerprint| match appended(result, fingerprint) {
            Resolution::Stored(first) => Resolution::Stored(FirstCopy { seq: first.seq + offset, ..first }),
            other => other,
        };
        let is_unreceived = |(offset, (key, fingerprint)): (u64, &(Option<EventKey>, Fingerprint))| {
            let received = key.is_some_and(|key| self.dedupe_table.resolve(key, resolution(offset, *fingerprint)));
            u64::from(!received)
        };
        // The sum visits every key, because every key must be resolved.
        let unreceived: u64 = (0..).zip(keys).map(is_unreceived).sum();
        let stored = if result.is_ok() { keys.len() as u64 } else { 0 };
        waiter.counters.stored.inc_by(stored);
        if stored > 0 {
            waiter.counters.keyless.inc_by(keys.iter().filter(|(key, _)| key.is_none()).count() as u64);
        }
        if !waiter.send(Some(appended(result, Fingerprint::default())), stored) && stored > 0 {
            self.count_stored_after_answer(unreceived);
        }
    }

    /// Forgets the keys of all events, and sends the reason to all deliveries that wait for them.
    fn release<'e>(&self, events: impl Iterator<Item = &'e Event>, waiter: &BatchWaiter, resolution: Resolution) {
        for key in events.filter_map(Event::dedupe_key) {
            self.dedupe_table.resolve(key, resolution);
        }
        waiter.send(Some(resolution), 0);
    }
}

impl BatchWaiter {
    fn add_seen(&self, seq: u64) {
        if let Some((_, seen)) = &mut *self.sender.lock().expect(POISON) {
            seen.push(seq);
        }
    }

    /// Sends the result. Returns true if the delivery still waits for the result.
    fn send(&self, resolution: Option<Resolution>, stored: u64) -> bool {
        let sender = self.sender.lock().expect(POISON).take();
        sender.is_some_and(|(sender, seen)| sender.send(BatchResolution { resolution, stored, seen }).is_ok())
    }
}

const POISON: &str = "no code panics while it holds this lock";

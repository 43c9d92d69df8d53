//! Appends events to the journal and reports each result to the waiting deliveries. A sender that disconnects does not
//! cancel the append of its event.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::dedupe_table::{Claim, DedupeTable, Resolution};
use crate::event::{Event, Position};
use crate::event_key::EventKey;
use crate::journal::{AppendError, AppendRejected, CompletionBatch, Journal, JournalMillis};
use crate::outcome::Outcome;

/// Journal and dedupe table. All deliveries, append completions and key-file lookups share this state.
pub(super) struct Appender {
    pub(super) journal: Journal,
    pub(super) dedupe_table: DedupeTable,
    stored_after_answer: IntCounter,
    /// Semaphore that limits the number of concurrent key-file lookups. A batch counts as one lookup.
    lookups: Arc<Semaphore>,
}

impl Appender {
    pub(super) fn new(journal: Journal, hot_keys: u64, stored_after_answer: IntCounter) -> Arc<Appender> {
        run_completions_on_runtime(&journal);
        let lookups = Arc::new(Semaphore::new(MAX_LOOKUPS));
        Arc::new(Appender { journal, dedupe_table: DedupeTable::new(hot_keys), stored_after_answer, lookups })
    }

    /// Claims a dedupe key for a delivery. A key that was first seen at or before `not_before` has left the dedupe window
    /// and counts as new.
    pub(super) fn claim(&self, key: EventKey, not_before: JournalMillis) -> Claim {
        self.dedupe_table.claim(key, not_before, &self.journal)
    }

    /// Claims the dedupe keys of a batch in one step. Each key has its own time, as in [`Appender::claim`].
    pub(super) fn claim_all(&self, keys: &[(EventKey, JournalMillis)]) -> Vec<Claim> {
        self.dedupe_table.claim_all(keys, &self.journal)
    }

    /// Appends an event whose dedupe key is new, and resolves the key with the result of the append. If `accepting` is an
    /// error, appends nothing and resolves the key with this error.
    pub(super) fn append(self: &Arc<Self>, event: &Event, key: EventKey, accepting: Result<(), Resolution>) {
        if let Err(resolution) = accepting {
            self.dedupe_table.resolve(key, resolution);
            return;
        }
        let appender = self.clone();
        let completion = move |result: Result<Position, AppendError>| {
            let was_received = appender.dedupe_table.resolve(key, appended(result));
            appender.count_stored_after_answer(u64::from(result.is_ok() && !was_received));
        };
        if let Err(rejected) = self.journal.append(event, Box::new(completion)) {
            self.dedupe_table.resolve(key, not_appended(rejected));
        }
    }

    /// Appends a keyless event, and returns the receiver for the result of the append. If the journal rejects the event
    /// immediately, the error is the resolution of the event.
    pub(super) fn append_keyless(
        self: &Arc<Self>,
        event: &Event,
        keyless: &IntCounter,
    ) -> Result<oneshot::Receiver<Resolution>, Resolution> {
        let (sender, receiver) = oneshot::channel();
        let (appender, keyless) = (self.clone(), keyless.clone());
        let completion = move |result: Result<Position, AppendError>| {
            let was_received = sender.send(appended(result)).is_ok();
            appender.count_stored_after_answer(u64::from(result.is_ok() && !was_received));
            keyless.inc_by(u64::from(result.is_ok()));
        };
        self.journal.append(event, Box::new(completion)).map_err(not_appended)?;
        Ok(receiver)
    }

    /// Looks up an unconfirmed dedupe key in the key files, and appends the event if the key is new. A blocking thread performs
    /// both steps. Resolves the key with the result of the lookup or of the append.
    pub(super) fn look_up_and_append(
        self: &Arc<Self>,
        event: Event,
        key: EventKey,
        not_before: JournalMillis,
        accepting: Result<(), Resolution>,
    ) {
        let permit = match self.lookup_permit() {
            Ok(permit) => permit,
            Err(resolution) => {
                self.dedupe_table.resolve(key, resolution);
                return;
            }
        };
        let appender = self.clone();
        tokio::task::spawn_blocking(move || {
            match appender.journal.lookup(&key) {
                Ok(Some(seen)) if seen.first_seen > not_before => appender.dedupe_table.resolve_seen(key, seen),
                Ok(_) => appender.append(&event, key, accepting),
                Err(error) => {
                    appender.dedupe_table.resolve(key, not_looked_up(&error));
                }
            }
            drop(permit);
        });
    }

    /// Returns a permit for lookups in the key files. If too many lookups are running, the error is the resolution of the
    /// delivery.
    pub(super) fn lookup_permit(&self) -> Result<OwnedSemaphorePermit, Resolution> {
        self.lookups.clone().try_acquire_owned().map_err(|_| Resolution::Failed(Outcome::Overloaded, TOO_MANY_LOOKUPS))
    }

    /// Returns the time since the start of the journal's running disk operation, or `None` if no operation is running.
    pub(super) fn operation_age(&self) -> Option<Duration> {
        self.journal.operation_age()
    }

    /// Returns the number of dedupe keys in memory. Counts the keys of the journal's unsealed segments and the keys in the hot
    /// cache.
    pub(super) fn hot_keys(&self) -> u64 {
        self.journal.keys_in_memory() + self.dedupe_table.hot_keys()
    }

    /// Counts events that the journal stored although no delivery waited for them any longer.
    pub(super) fn count_stored_after_answer(&self, events: u64) {
        self.stored_after_answer.inc_by(events);
    }
}

/// Spawns a task that runs the journal's completions on the current Tokio runtime. The waiting deliveries run on the same
/// runtime, so the journal wakes the runtime only once per commit, instead of once per event. If there is no current runtime,
/// the journal's own threads run the completions.
fn run_completions_on_runtime(journal: &Journal) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let (sender, mut receiver) = mpsc::unbounded_channel::<CompletionBatch>();
    runtime.spawn(async move {
        while let Some(complete) = receiver.recv().await {
            complete();
        }
    });
    journal.set_completion_runner(Box::new(move |batch| sender.send(batch).map_err(|unsent| unsent.0)));
}

/// Returns the resolution of a delivery after an accepted append.
pub(super) fn appended(result: Result<Position, AppendError>) -> Resolution {
    match result {
        Ok(position) => Resolution::Stored(position.seq),
        Err(AppendError::Full) => Resolution::Failed(Outcome::JournalFull, FULL),
        Err(AppendError::Write) => Resolution::Failed(Outcome::JournalFailed, WRITE_FAILED),
        Err(AppendError::Sync) => Resolution::Failed(Outcome::JournalFailed, SYNC_FAILED),
    }
}

/// Returns the resolution of a delivery whose append the journal rejected.
pub(super) fn not_appended(rejected: AppendRejected) -> Resolution {
    match rejected {
        AppendRejected::Full => Resolution::Failed(Outcome::JournalFull, FULL),
        AppendRejected::TopicFull => Resolution::Failed(Outcome::JournalFull, TOPIC_FULL),
        AppendRejected::Overloaded => Resolution::Failed(Outcome::Overloaded, QUEUE_FULL),
        AppendRejected::BatchTooLarge => Resolution::Failed(Outcome::TooLarge, BATCH_TOO_LARGE),
        AppendRejected::Closing => Resolution::Failed(Outcome::Draining, "the gateway is shutting down"),
        AppendRejected::Failed => Resolution::Failed(Outcome::JournalFailed, SYNC_FAILED),
    }
}

/// Logs that a key file cannot be read, and returns the resolution of the delivery.
pub(super) fn not_looked_up(error: &io::Error) -> Resolution {
    tracing::error!(%error, "cannot read a key file, so hookhold rejects the delivery; see `dmesg`");
    Resolution::Failed(Outcome::JournalFailed, UNREADABLE_KEY_FILE)
}

pub(super) const SYNC_FAILED: &str =
    "journal sync: expected success, found an I/O error, so hookhold exits; run `dmesg` to find the cause";
const WRITE_FAILED: &str = "journal write: expected success, found an I/O error; run `dmesg` to find the cause";
const FULL: &str =
    "journal: expected space or a deletable segment, found neither; see hookhold_forward_blocked, or enlarge max_size or disk";
const TOPIC_FULL: &str =
    "max_backlog: expected room in the topic's backlog, found none; see hookhold_forward_blocked, or raise max_backlog";
const BATCH_TOO_LARGE: &str =
    "batch: expected events that fit into the journal, found more; raise max_size and max_backlog, or set split = false";
const QUEUE_FULL: &str = "journal writer: expected space in its queue, found it full; move [journal] dir to a faster disk";
const TOO_MANY_LOOKUPS: &str = "key-file lookups: expected a free slot, found none; move [journal] dir to a faster disk";
const UNREADABLE_KEY_FILE: &str = "key file: expected a readable file, found an error; see the error in the log";
/// Maximum number of concurrent key-file lookups. Above this limit, a delivery that needs a lookup gets the outcome
/// `overloaded`.
const MAX_LOOKUPS: usize = 256;

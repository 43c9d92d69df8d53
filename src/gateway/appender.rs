//! Appends events to the journal and reports each result to the waiting deliveries. A sender that disconnects does not
//! cancel the append of its event.

use std::sync::Arc;

use prometheus::IntCounter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::dedupe_table::{Claim, Claimant, DedupeTable, FirstCopy, Resolution};
use super::differing::DifferingDuplicates;
use crate::event::{Event, Position};
use crate::event_key::EventKey;
use crate::fingerprint::Fingerprint;
use crate::journal::{AppendError, AppendRejected, CompletionBatch, Journal};
use crate::outcome::Outcome;

/// Journal and dedupe table. All deliveries, append completions and key-file lookups share this state.
pub(super) struct Appender {
    pub(super) journal: Journal,
    pub(super) dedupe_table: DedupeTable,
    stored_after_answer: IntCounter,
    /// Semaphore that limits the number of concurrent key-file lookups. A batch counts as one lookup.
    lookups: Arc<Semaphore>,
}

/// A claim that a lookup in the key files must confirm.
pub(super) struct UnconfirmedClaim {
    pub(super) claimant: Claimant,
    /// The claimed key.
    pub(super) key: EventKey,
    /// Name of the event's account.
    pub(super) account: Arc<str>,
}

/// Result of a lookup in the key files.
pub(super) enum Confirmation {
    /// The claimed key is new.
    New,
    /// An event of another account uses the claimed key. The claim is now for this key, which is new.
    Moved(EventKey),
    /// The event is a duplicate of this stored event.
    Seen(FirstCopy),
}

impl Appender {
    pub(super) fn new(journal: Journal, hot_keys: u64, stored_after_answer: IntCounter) -> Arc<Appender> {
        run_completions_on_runtime(&journal);
        let lookups = Arc::new(Semaphore::new(MAX_LOOKUPS));
        Arc::new(Appender { journal, dedupe_table: DedupeTable::new(hot_keys), stored_after_answer, lookups })
    }

    /// Claims the dedupe key of an event for a delivery.
    pub(super) fn claim(&self, claimant: &Claimant) -> Claim {
        self.dedupe_table.claim(claimant, &self.journal)
    }

    /// Claims the dedupe keys of a batch in one step.
    pub(super) fn claim_all(&self, claimants: &[Claimant]) -> Vec<Claim> {
        self.dedupe_table.claim_all(claimants, &self.journal)
    }

    /// Appends an event whose dedupe key is new, and resolves the key with the result of the append. If `accepting` is an
    /// error, appends nothing and resolves the key with this error.
    pub(super) fn append(self: &Arc<Self>, event: &Event, key: EventKey, accepting: Result<(), Resolution>) {
        if let Err(resolution) = accepting {
            self.dedupe_table.resolve(key, resolution);
            return;
        }
        let (appender, fingerprint) = (self.clone(), event.fingerprint());
        let completion = move |result: Result<Position, AppendError>| {
            let was_received = appender.dedupe_table.resolve(key, appended(result, fingerprint));
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
            let was_received = sender.send(appended(result, Fingerprint::default())).is_ok();
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
        claim: UnconfirmedClaim,
        differing: DifferingDuplicates,
        accepting: Result<(), Resolution>,
    ) {
        let permit = match self.lookup_permit() {
            Ok(permit) => permit,
            Err(resolution) => {
                self.dedupe_table.resolve(claim.key, resolution);
                return;
            }
        };
        let appender = self.clone();
        tokio::task::spawn_blocking(move || {
            match appender.confirm(&claim) {
                Confirmation::New => appender.append(&event, claim.key, accepting),
                Confirmation::Moved(key) => {
                    appender.append(&with_claimed_key(event, key, &claim.account), key, accepting);
                }
                Confirmation::Seen(first) => {
                    differing.report(&event, first);
                    appender.dedupe_table.resolve(claim.key, Resolution::Seen(first));
                }
            }
            drop(permit);
        });
    }

    /// Looks up the keys of an event in the key files: the key of its identity, and the key of its account. Moves the claim if
    /// an event of another account uses the claimed key.
    pub(super) fn confirm(&self, claim: &UnconfirmedClaim) -> Confirmation {
        let UnconfirmedClaim { claimant, key: claimed, .. } = claim;
        let look_up = |key: EventKey| {
            let seen = self.journal.lookup(&key).filter(|seen| seen.first_seen > claimant.not_before);
            seen.iter().for_each(|seen| self.dedupe_table.cache(key, *seen));
            seen
        };
        let of_identity = look_up(claimant.key);
        if let Some(seen) = of_identity.filter(|seen| !seen.fingerprint.is_other_event(&claimant.fingerprint)) {
            return Confirmation::Seen(seen.into());
        }
        let account_key = claimant.account_key(&self.journal);
        if let Some(seen) = look_up(account_key) {
            return Confirmation::Seen(seen.into());
        }
        if of_identity.is_none() || *claimed == account_key {
            return Confirmation::New;
        }
        self.dedupe_table.move_to_account(*claimed, account_key);
        Confirmation::Moved(account_key)
    }

    /// Returns a permit for lookups in the key files. If too many lookups are running, the error is the resolution of the
    /// delivery.
    pub(super) fn lookup_permit(&self) -> Result<OwnedSemaphorePermit, Resolution> {
        self.lookups.clone().try_acquire_owned().map_err(|_| Resolution::Failed(Outcome::Overloaded, TOO_MANY_LOOKUPS))
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

/// Returns the event with the claimed key. If this is not the key of the event's identity, sets the account of the event.
pub(super) fn with_claimed_key(event: Event, key: EventKey, account: &Arc<str>) -> Event {
    if event.dedupe_key() == Some(key) {
        return event;
    }
    let fingerprint = event.fingerprint();
    event.with_key(Some(key), fingerprint).with_account(account.clone())
}

/// Returns the resolution of a delivery after an accepted append of an event with this fingerprint.
pub(super) fn appended(result: Result<Position, AppendError>, fingerprint: Fingerprint) -> Resolution {
    match result {
        Ok(position) => Resolution::Stored(FirstCopy { seq: position.seq, fingerprint }),
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

pub(super) const SYNC_FAILED: &str =
    "journal sync: expected success, found an I/O error, so hookhold exits; run `dmesg` to find the cause";
const WRITE_FAILED: &str = "journal write: expected success, found an I/O error; run `dmesg` to find the cause";
const FULL: &str =
    "journal: expected space or a deletable segment, found neither; see hookhold_forward_blocked, or enlarge max_size or disk";
const TOPIC_FULL: &str = "topic: expected room in its backlog and its share of max_size, found none; see \
                          hookhold_forward_blocked, or raise max_backlog";
const BATCH_TOO_LARGE: &str =
    "batch: expected events that fit into the journal, found more; raise max_size and max_backlog, or set split = false";
const QUEUE_FULL: &str = "journal writer: expected space in its queue, found it full; move [journal] dir to a faster disk";
const TOO_MANY_LOOKUPS: &str = "key-file lookups: expected a free slot, found none; move [journal] dir to a faster disk";
/// Maximum number of concurrent key-file lookups. Above this limit, a delivery that needs a lookup gets the outcome
/// `overloaded`.
const MAX_LOOKUPS: usize = 256;

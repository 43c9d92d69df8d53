//! The corridor: one delivery is verified, admitted once, and kept. Knows neither HTTP servers nor Kafka.
//!
//! From the moment a delivery is complete until its event is handed over there is nothing to wait for, so a sender that hangs
//! up after its last byte does not undo the receipt. Where the disk must be asked about a key first, a task that nobody can
//! drop does it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use http::HeaderMap;
use prometheus::IntCounter;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

mod admission;
mod key;
mod live_source;
mod success_rate;

use admission::{Admission, Admitted, Ending};
pub use live_source::LiveSource;

use crate::answer::Answer;
use crate::clock::UnixMillis;
use crate::event::{Delivery, Event, Position};
use crate::event_key::EventKey;
use crate::journal::{AppendError, AppendRejected, CompletionBatch, Journal};
use crate::log::escaped;
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::rejections::Rejections;
use crate::source::Source;
use crate::source::recipe::Reply;
use crate::verify::{self, Identity, Rejection, Verdict, Verified};

/// Receives deliveries for all sources.
pub struct Gateway {
    /// By path. A reload replaces it whole; a delivery keeps the entrance that it came in by to its end.
    entrances: ArcSwap<HashMap<String, Arc<LiveSource>>>,
    keeping: Arc<Keeping>,
    refusals: Rejections,
    hash_key: [u8; 16],
    draining: AtomicBool,
}

/// What is known of a delivery once its key has been looked at.
enum Decision {
    /// Its end.
    Now(Ending),
    /// It is the first of its kind; its end will be told.
    First(oneshot::Receiver<Ending>),
    /// The first of its kind is under way; its end will be told.
    Waits(oneshot::Receiver<Ending>),
}

/// What the end of an event needs, also after its sender is gone.
struct Keeping {
    journal: Journal,
    admission: Arc<Admission>,
    stored_after_answer: IntCounter,
    /// Bounds the events that wait for a look-up on disk.
    lookups: Arc<Semaphore>,
}

impl Gateway {
    /// A gateway for these sources; `hot_keys` bounds the cache of seen keys.
    pub fn new(
        sources: impl IntoIterator<Item = impl Into<Arc<Source>>>,
        journal: Journal,
        hot_keys: u64,
        metrics: &Metrics,
    ) -> Gateway {
        let entrances = ArcSwap::from_pointee(live_source::all(sources, &HashMap::new(), &metrics.deliveries));
        let hash_key = journal.hash_key();
        tell_inside(&journal);
        let stored_after_answer = metrics.deliveries.stored_after_answer.clone();
        let (admission, lookups) = (Admission::new(hot_keys), Arc::new(Semaphore::new(MAX_LOOK_UPS)));
        let keeping = Arc::new(Keeping { journal, admission, stored_after_answer, lookups });
        Gateway { entrances, keeping, refusals: Rejections::default(), hash_key, draining: AtomicBool::new(false) }
    }

    /// Goes on with these sources instead, all at the same moment. What has come in by a former one ends as it began.
    pub fn replace_sources(&self, sources: impl IntoIterator<Item = impl Into<Arc<Source>>>, metrics: &Metrics) {
        let former = self.entrances.load();
        self.entrances.store(Arc::new(live_source::all(sources, &former, &metrics.deliveries)));
    }

    /// The source that listens at a path.
    pub fn live_source(&self, path: &str) -> Option<Arc<LiveSource>> {
        self.entrances.load().get(path).cloned()
    }

    /// Warns of every secret that expires soon or has expired, each at most once a day; to be called now and then.
    pub fn warn_of_expiry(&self, now: UnixMillis) {
        self.entrances.load().values().for_each(|entrance| entrance.warn_of_expiry(now));
    }

    /// The names of the sources that are in shadow, sorted.
    pub fn in_shadow(&self) -> Vec<String> {
        let entrances = self.entrances.load();
        let shadows = entrances.values().filter(|entrance| entrance.source.shadow);
        let mut names: Vec<String> = shadows.map(|entrance| entrance.source.name.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// Where refused deliveries are kept for the operator; nothing is kept before a limit has been set.
    pub fn rejections(&self) -> &Rejections {
        &self.refusals
    }

    /// From now on new events are refused as `draining`; repeats of kept ones still get their 2xx.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Keys that memory answers: the journal's newest, and what the hot cache holds.
    pub fn hot_keys(&self) -> u64 {
        self.keeping.journal.keys_in_memory() + self.keeping.admission.hot_keys()
    }

    /// Brings the gauges up to date that say how each source's deliveries fared until `now`.
    pub fn measure(&self, now: UnixMillis) {
        self.entrances.load().values().for_each(|entrance| entrance.measure(now));
    }

    /// Verifies, admits and keeps one complete delivery. At the `deadline` the answer is `deadline`, whatever becomes of the
    /// event. Dropping the future does not undo the receipt.
    pub async fn receive(&self, live: &LiveSource, delivery: Delivery, deadline: Instant) -> Answer {
        let source = &live.source;
        let now = delivery.received_at;
        let verified = match live.verifier.verify(&delivery) {
            Ok(Verdict::Event(verified)) => verified,
            Ok(Verdict::Challenge(reply)) => return replied(Outcome::Challenge, reply),
            Err(refusal) => {
                live.success.refused(now, refusal.outcome);
                let answer = refused(source, refusal);
                self.refusals.keep(&source.name, &delivery, &answer);
                return answer;
            }
        };
        // Its memory is still in the processor's cache, and the next delivery can have it: the disk takes long.
        drop(delivery);
        let attempt = live.success.attempt(now);
        let answer = self.keep(live, verified, now, deadline).await;
        attempt.end(&answer);
        answer
    }

    /// From proof to answer.
    async fn keep(&self, live: &LiveSource, verified: Verified, now: UnixMillis, deadline: Instant) -> Answer {
        let source = &live.source;
        live.count(&verified.secret, now);
        if !source.types.accepts(verified.event.event_type()) {
            return replied(Outcome::Filtered, source.recipe.replies.accepted.clone()).with_hint(not_listed(&verified.event));
        }
        if let Some(retry_after) = live.too_many() {
            return Answer::rate_limited(retry_after).with_hint("more genuine deliveries than max_rate of this source");
        }
        let (told, first) = match self.admit(live, verified, now) {
            Decision::Now(ending) => return answer(source, ending, false),
            Decision::First(told) => (told, true),
            Decision::Waits(told) => (told, false),
        };
        match tokio::time::timeout_at(deadline, told).await {
            // The journal drops its promises only when it fails.
            Ok(told) => answer(source, told.unwrap_or(Ending::Not(Outcome::JournalFailed, FAILED)), first),
            Err(_) => Answer::plain(Outcome::Deadline).with_hint("the journal's sync took longer than this delivery could wait"),
        }
    }

    fn admit(&self, live: &LiveSource, verified: Verified, now: UnixMillis) -> Decision {
        let source = &live.source;
        let Verified { event, identity, .. } = verified;
        let key = key::of(&self.hash_key, &source.name, event.event_type(), &identity);
        let event = event.with_key(key);
        let Some(key) = key else { return self.keep_keyless(live, event) };
        let window = match identity {
            Identity::BodyWindow(_, window) => window,
            _ => source.dedupe.window,
        };
        let not_before = UnixMillis(now.0.saturating_sub(window.as_millis() as u64));
        match self.keeping.admission.admit(key, not_before, &self.keeping.journal) {
            Admitted::Repeat(seq) => Decision::Now(Ending::Seen(seq)),
            Admitted::Waits(told) => Decision::Waits(told),
            Admitted::First(told) => {
                self.keeping.clone().hand_over(event, key, self.refusal_of_new(source));
                Decision::First(told)
            }
            Admitted::Unsure(told) => {
                let (keeping, refusal) = (self.keeping.clone(), self.refusal_of_new(source));
                match self.keeping.lookups.clone().try_acquire_owned() {
                    Ok(place) => drop(tokio::task::spawn_blocking(move || {
                        keeping.look_up_and_hand_over(event, key, not_before, refusal);
                        drop(place);
                    })),
                    Err(_) => {
                        keeping.tell_all(key, Ending::Not(Outcome::Overloaded, "too many keys are being looked up on disk"))
                    }
                }
                Decision::First(told)
            }
        }
    }

    /// Why no new event is taken at present. Repeats are answered before this is asked.
    fn refusal_of_new(&self, source: &Source) -> Option<Ending> {
        if self.draining.load(Ordering::Acquire) {
            return Some(Ending::Not(Outcome::Draining, "the process is ending"));
        }
        // A sync that is older than the deadline will hardly end within it.
        let hangs = self.keeping.journal.sync_age().is_some_and(|age| age >= source.deadline);
        hangs.then_some(Ending::Not(Outcome::Overloaded, "the running sync is older than a delivery may wait: look at the disk"))
    }

    fn keep_keyless(&self, live: &LiveSource, event: Event) -> Decision {
        if let Some(refusal) = self.refusal_of_new(&live.source) {
            return Decision::Now(refusal);
        }
        let (tell, told) = oneshot::channel();
        let keeping = self.keeping.clone();
        let keyless = live.keyless.clone();
        let done = move |result: Result<Position, AppendError>| {
            let heard = tell.send(ending(result)).is_ok();
            keeping.count_unheard(result.is_ok() && !heard);
            keyless.inc_by(u64::from(result.is_ok()));
        };
        match self.keeping.journal.append(&event, Box::new(done)) {
            Ok(()) => Decision::First(told),
            Err(refused) => Decision::Now(not_taken(refused)),
        }
    }
}

impl Keeping {
    fn hand_over(self: Arc<Self>, event: Event, key: EventKey, refusal: Option<Ending>) {
        if let Some(refusal) = refusal {
            return self.tell_all(key, refusal);
        }
        let keeping = self.clone();
        let done = move |result: Result<Position, AppendError>| {
            let heard = keeping.admission.end(key, None, ending(result));
            keeping.count_unheard(result.is_ok() && !heard);
        };
        if let Err(refused) = self.journal.append(&event, Box::new(done)) {
            self.tell_all(key, not_taken(refused));
        }
    }

    fn tell_all(&self, key: EventKey, ending: Ending) {
        self.admission.end(key, None, ending);
    }

    /// Runs where it may block; the key is pending meanwhile.
    fn look_up_and_hand_over(self: Arc<Self>, event: Event, key: EventKey, not_before: UnixMillis, refusal: Option<Ending>) {
        match self.journal.lookup(&key) {
            Ok(Some(seen)) if seen.first_seen > not_before => {
                self.admission.end(key, Some(seen), Ending::Seen(seen.seq));
            }
            Ok(_) => self.hand_over(event, key, refusal),
            Err(error) => {
                tracing::error!(%error, "a key file could not be read; the delivery is refused");
                self.tell_all(key, Ending::Not(Outcome::JournalFailed, "a key file could not be read"));
            }
        }
    }

    fn count_unheard(&self, unheard: bool) {
        self.stored_after_answer.inc_by(u64::from(unheard));
    }
}

/// Checks what the header fields of a delivery show before its body is read; the error is its answer.
pub fn precheck(source: &Source, headers: &HeaderMap) -> Result<(), Answer> {
    verify::precheck(source, headers).map_err(|refusal| refused(source, refusal))
}

/// Ends are told by a task of the runtime that the deliveries wait in. ReadOnlyJournal of any, the journal tells them itself.
fn tell_inside(journal: &Journal) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let (tell, mut to_tell) = tokio::sync::mpsc::unbounded_channel::<CompletionBatch>();
    runtime.spawn(async move {
        while let Some(telling) = to_tell.recv().await {
            telling();
        }
    });
    journal.set_completion_runner(Box::new(move |telling| tell.send(telling).map_err(|unsent| unsent.0)));
}

fn ending(result: Result<Position, AppendError>) -> Ending {
    match result {
        Ok(position) => Ending::Kept(position.seq),
        Err(AppendError::Full) => Ending::Not(Outcome::JournalFull, FULL),
        Err(AppendError::Write) => Ending::Not(Outcome::JournalFailed, "the write failed: look at the disk"),
        Err(AppendError::Sync) => Ending::Not(Outcome::JournalFailed, FAILED),
    }
}

fn not_taken(refused: AppendRejected) -> Ending {
    match refused {
        AppendRejected::Full => Ending::Not(Outcome::JournalFull, FULL),
        AppendRejected::TopicFull => {
            Ending::Not(Outcome::JournalFull, "this topic holds back journal.max_backlog: look at Kafka")
        }
        AppendRejected::Overloaded => Ending::Not(Outcome::Overloaded, "more waits for the disk than the journal's queue takes"),
        AppendRejected::Closing => Ending::Not(Outcome::Draining, "the process is ending"),
        AppendRejected::Failed => Ending::Not(Outcome::JournalFailed, FAILED),
    }
}

fn answer(source: &Source, ending: Ending, first: bool) -> Answer {
    let (outcome, seq) = match ending {
        Ending::Kept(seq) if first => (Outcome::Stored, seq),
        Ending::Kept(seq) | Ending::Seen(seq) => (Outcome::Duplicate, seq),
        Ending::Not(outcome, why) => return Answer::plain(outcome).with_hint(why),
    };
    Answer { seq: Some(seq), ..replied(outcome, source.recipe.replies.accepted.clone()) }
}

fn replied(outcome: Outcome, reply: Reply) -> Answer {
    reply.over(Answer::plain(outcome))
}

fn not_listed(event: &Event) -> String {
    format!("types of this source does not list {}", escaped(event.event_type().unwrap_or_default()))
}

fn refused(source: &Source, refusal: Rejection) -> Answer {
    let answer = Answer::plain(refusal.outcome).with_hint(refusal.hint);
    match refusal.outcome.is_our_trouble() {
        true => answer,
        false => Answer { status: source.recipe.replies.rejected, ..answer },
    }
}

const FULL: &str = "journal.max_size or the disk is used up, and what is left is still needed";
const FAILED: &str = "a sync of the journal failed; the process ends";
/// Deliveries whose keys are looked up on disk at one time; more are refused as `overloaded`.
const MAX_LOOK_UPS: usize = 256;

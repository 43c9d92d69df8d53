//! Receives deliveries. For each delivery, the gateway verifies the signature, looks up the dedupe key and appends the
//! event to the journal. This module does not depend on the HTTP server or on Kafka.
//!
//! [`Gateway::receive`] passes the event to the journal before it returns the future of the answer. If the gateway must first look
//! up the dedupe key on disk, it instead starts a blocking task, which performs the lookup and the append. If the verification is
//! long ([`Verifier::is_long`]), it instead starts a task, which performs the verification and the append on a blocking thread, so
//! that it does not delay other requests. In all cases, dropping the future does not cancel the append. A sender that disconnects
//! after the last byte of its request therefore cannot cancel the append.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use http::header::{ALLOW, HeaderValue};
use http::{HeaderMap, Method};
use tokio::sync::oneshot;

mod appender;
mod batch;
mod batch_append;
mod clock_jump;
mod dedupe_table;
mod differing;
mod fingerprint;
mod key;
mod live_source;
mod live_sources;
mod long_verifications;
mod result;
mod success_rate;

use appender::{Appender, UnconfirmedClaim, with_claimed_key};
use dedupe_table::{Claim, Claimant, Resolution};
use differing::WaitingCopy;
use fingerprint::Account;
pub use live_source::LiveSource;
use live_sources::LiveSources;
use long_verifications::LongVerifications;
use result::{PendingResult, Received, answer};
use success_rate::SuccessGuard;

use crate::answer::Answer;
use crate::clock::UnixMillis;
use crate::event::{Delivery, Event};
use crate::fingerprint::Fingerprint;
use crate::in_flight::{DetachedCharge, InFlightCharge};
use crate::journal::{Journal, JournalMillis};
use crate::log::escaped;
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::rejections::RejectionStore;
use crate::sender_standing::{DeliveryTerms, SenderStanding};
use crate::source::Source;
use crate::source::recipe::Reply;
pub use crate::verify::Verifier;
use crate::verify::{Identity, Memory, Rejection, Verdict, Verified, VerifiedBatch};

/// Gateway that receives the deliveries of all sources.
pub struct Gateway {
    /// A reload replaces all sources. A delivery that is in progress during a reload keeps the source with which it started.
    sources: ArcSwap<LiveSources>,
    appender: Arc<Appender>,
    rejections: RejectionStore,
    hash_key: [u8; 16],
    draining: AtomicBool,
    long_verifications: LongVerifications,
}

/// State of a delivery that the gateway has verified, and deduplicated if it is an event.
enum Admitted {
    /// Delivery with a known answer.
    Answered(Answer),
    /// Rejected delivery, and its work in hashed bytes.
    Rejected(Answer, usize),
    /// Delivery that waits for the result of its event or of its batch.
    Waiting { guard: SuccessGuard, result: PendingResult },
}

impl Admitted {
    /// Returns the work of a rejected delivery, in hashed bytes. 0 for every other delivery.
    fn work(&self) -> usize {
        match self {
            Admitted::Rejected(_, work) => *work,
            Admitted::Answered(_) | Admitted::Waiting { .. } => 0,
        }
    }
}

/// A verified delivery that is not an endpoint challenge.
#[allow(clippy::large_enum_variant, reason = "nearly every delivery carries one event, and each delivery is moved only once")]
enum Accepted {
    Event(Verified),
    Batch(VerifiedBatch),
}

/// State of a delivery after deduplication: the result is known, or the delivery waits for the result.
enum Admission {
    /// Known result of the delivery.
    Resolved(Resolution),
    /// Delivery that appears to be the first of its event. A lookup may still find the dedupe key on disk. The receiver yields
    /// the result of the lookup or of the append.
    First(oneshot::Receiver<Resolution>),
    /// Duplicate of an earlier delivery that is still in progress. The receiver yields the result of the earlier delivery.
    Duplicate(WaitingCopy, oneshot::Receiver<Resolution>),
}

impl Gateway {
    /// Creates a gateway that receives deliveries for `sources` and appends the events to `journal`. `hot_keys` limits the
    /// number of dedupe keys in the hot cache.
    pub fn new(
        sources: impl IntoIterator<Item = impl Into<Arc<Source>>>,
        journal: Journal,
        hot_keys: u64,
        metrics: &Metrics,
    ) -> Gateway {
        let hash_key = journal.hash_key();
        Gateway {
            sources: ArcSwap::from_pointee(LiveSources::new(sources, &LiveSources::default(), &hash_key, &metrics.deliveries)),
            hash_key,
            appender: Appender::new(journal, hot_keys, metrics.deliveries.stored_after_answer.clone()),
            rejections: RejectionStore::new(metrics),
            draining: AtomicBool::new(false),
            long_verifications: LongVerifications::new(),
        }
    }

    /// Replaces all sources in one step. A delivery that is in progress keeps the source with which it started.
    pub fn replace_sources(&self, sources: impl IntoIterator<Item = impl Into<Arc<Source>>>, metrics: &Metrics) {
        let previous = self.sources.load();
        self.sources.store(Arc::new(LiveSources::new(sources, &previous, &self.hash_key, &metrics.deliveries)));
    }

    /// Returns the source with this URL path, or `None` if no source has this path.
    pub fn live_source(&self, path: &str) -> Option<Arc<LiveSource>> {
        self.sources.load().get(path)
    }

    /// Returns true if a source lists this address in `allow_from`.
    pub fn lists_sender(&self, address: IpAddr) -> bool {
        self.sources.load().list_sender(address)
    }

    /// Logs a warning about each secret that expires soon or has expired, at most once a day per secret. The caller must
    /// call this function periodically.
    pub fn warn_of_expiry(&self, now: UnixMillis) {
        self.sources.load().all().for_each(|live| live.warn_of_expiry(now));
    }

    /// Returns the names of the sources that set `danger_shadow`, sorted.
    pub fn shadow_sources(&self) -> Vec<String> {
        let sources = self.sources.load();
        let shadows = sources.all().filter(|live| live.source.shadow);
        let mut names: Vec<String> = shadows.map(|live| live.source.name.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// Returns the store of rejected deliveries. It stores nothing until [`RejectionStore::set_limits`] sets its limits.
    pub fn rejections(&self) -> &RejectionStore {
        &self.rejections
    }

    /// Starts the drain: from now on, each new event gets the outcome `draining`. The gateway still answers duplicates of
    /// stored events with 2xx.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Ends the drain: the gateway stores new events again.
    pub fn cancel_drain(&self) {
        self.draining.store(false, Ordering::Release);
    }

    /// Returns the number of dedupe keys in memory. Counts the keys of the journal's unsealed segments and the keys in the hot
    /// cache.
    pub fn hot_keys(&self) -> u64 {
        self.appender.hot_keys()
    }

    /// Sets the metric `hookhold_success_rate` of each source to the current rate.
    pub fn update_metrics(&self) {
        let now = self.appender.journal.now();
        self.sources.load().all().for_each(|live| live.update_metrics(now));
    }

    /// Returns the names of all sources, sorted.
    pub fn source_names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = self.sources.load().all().map(|live| live.source.name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// Verifies one complete delivery, deduplicates the event and passes it to the journal. Returns a future that waits for the
    /// result and returns the answer. If the result is not known by the deadline in `terms`, the answer has the outcome `deadline`.
    /// The journal may still store the event after this answer. Dropping the future does not cancel the append. The caller must poll
    /// the future at the deadline, because a connection has a timer already, and one more for each delivery would cost time.
    ///
    /// Adds the work of a rejected delivery to `charge`. If a long verification ends with a rejection after the sender has
    /// disconnected or its deadline has passed, instead calls `unanswered` with the outcome and the work in hashed bytes. Ends the
    /// turn of a limited sender as soon as the verification has ended.
    pub fn receive<'a>(
        self: &'a Arc<Gateway>,
        live: &'a Arc<LiveSource>,
        delivery: Delivery,
        terms: DeliveryTerms,
        charge: &'a mut InFlightCharge<'_>,
        unanswered: impl FnOnce(Outcome, usize) + Send + 'static,
    ) -> impl Future<Output = Answer> {
        let (DeliveryTerms { mut standing, deadline }, verifier) = (terms, &live.verifier);
        let quick = standing.run(|| (!verifier.is_long(&delivery)).then(|| verifier.verify(&delivery)));
        let received = match quick {
            Some(verdict) => {
                drop(standing);
                let admitted = self.admit_verdict(live, delivery, verdict);
                charge.add_work(admitted.work());
                Received::Admitted(admitted)
            }
            None => self.start_long(live, delivery, standing, charge, unanswered),
        };
        self.answer(live, received, deadline, charge)
    }

    /// Starts a long verification, with the append of the event, on a blocking thread.
    fn start_long(
        self: &Arc<Gateway>,
        live: &Arc<LiveSource>,
        delivery: Delivery,
        mut standing: SenderStanding,
        charge: &mut InFlightCharge<'_>,
        unanswered: impl FnOnce(Outcome, usize) + Send + 'static,
    ) -> Received {
        let (gateway, source, memory) = (self.clone(), live.clone(), charge.detach());
        let is_known_good = standing.is_known_good();
        let verification = move || {
            let verdict = standing.run(|| source.verifier.verify_within(&delivery, &memory));
            drop(standing);
            memory.release_output();
            (gateway.admit_verdict(&source, delivery, verdict), memory)
        };
        let unanswered = |(admitted, _memory): (Admitted, DetachedCharge)| match admitted {
            Admitted::Rejected(answer, work) => unanswered(answer.outcome, work),
            Admitted::Answered(_) | Admitted::Waiting { .. } => {}
        };
        self.long_verifications.run(is_known_good, verification, unanswered).map_or_else(
            || Received::Admitted(Admitted::Answered(Answer::plain(Outcome::Overloaded).with_hint(TOO_MANY_LONG))),
            Received::Long,
        )
    }

    /// Counts a verdict. If the verdict is an event, deduplicates the event and passes it to the journal.
    fn admit_verdict(&self, live: &LiveSource, delivery: Delivery, verdict: Result<Verdict, Rejection>) -> Admitted {
        let (received_at, now) = (delivery.received_at, self.appender.journal.now());
        let verified = match verdict {
            Ok(Verdict::Event(verified)) => Accepted::Event(verified),
            Ok(Verdict::Batch(batch)) => Accepted::Batch(batch),
            Ok(Verdict::Challenge(challenge) | Verdict::UnsignedChallenge(challenge)) => {
                let answer = answer_with(Outcome::Challenge, challenge.reply);
                return Admitted::Answered(Answer { effect: challenge.effect.map(Box::new), ..answer });
            }
            Err(rejection) => {
                let rejection = self.consider_clock_jump(live, &delivery, rejection);
                let work = rejection.work;
                live.success_rate.count_rejection(now, rejection.outcome);
                let answer = rejected(&live.source, rejection);
                self.rejections.store(&live.source.name, &live.source.recipe.credentials, &delivery, &answer);
                return Admitted::Rejected(answer, work);
            }
        };
        // Free the delivery's memory while the memory is still in the processor's cache, so that the next delivery can
        // reuse the memory during this delivery's sync.
        drop(delivery);
        let guard = live.success_rate.start(now);
        let pending = match verified {
            Accepted::Event(verified) => self.store(live, verified, received_at, now),
            Accepted::Batch(batch) => {
                let admitted = self.store_batch(live, batch, received_at, now);
                admitted.map(|admitted| PendingResult::Batch(Box::new(admitted)))
            }
        };
        match pending {
            Ok(result) => Admitted::Waiting { guard, result },
            Err(answer) => {
                guard.finish(&answer);
                Admitted::Answered(answer)
            }
        }
    }

    /// Passes a verified event to the journal. If the result is already known, the error is the answer.
    fn store(
        &self,
        live: &LiveSource,
        verified: Verified,
        received_at: UnixMillis,
        now: JournalMillis,
    ) -> Result<PendingResult, Answer> {
        let source = &live.source;
        live.count_verified(verified.secret.as_deref(), received_at);
        live.count_unread(verified.unread);
        if !source.types.accepts(verified.event.event_type()) {
            return Err(answer_with(Outcome::Filtered, source.recipe.replies.accepted.clone())
                .with_hint(unlisted(source, &verified.event)));
        }
        if let Some(retry_after) = live.wait_for_rate() {
            return Err(Answer::rate_limited(retry_after).with_hint(RATE_EXCEEDED));
        }
        match self.admit(live, verified, now) {
            Admission::Resolved(resolution) => Err(answer(source, resolution, false)),
            Admission::First(receiver) => Ok(PendingResult::Event { receiver, copy: None }),
            Admission::Duplicate(copy, receiver) => Ok(PendingResult::Event { receiver, copy: Some(copy) }),
        }
    }

    fn admit(&self, live: &LiveSource, verified: Verified, now: JournalMillis) -> Admission {
        let Verified { event, identity, secret, .. } = verified;
        let account = live.accounts.signing_with(secret.as_deref());
        let claimant = self.claimant(live, &event, &identity, account, now);
        let Some(claimant) = claimant else { return self.admit_keyless(live, event, now) };
        let event = event.with_key(Some(claimant.key), claimant.fingerprint);
        match self.appender.claim(&claimant) {
            Claim::Seen(first) => {
                live.differing.report(&event, first);
                Admission::Resolved(Resolution::Seen(first))
            }
            Claim::Pending(receiver) => Admission::Duplicate(WaitingCopy::of(event), receiver),
            Claim::New(key, receiver) => {
                let event = with_claimed_key(event, key, &account.name);
                self.appender.append(&event, key, self.check_accepting(&live.source, now));
                Admission::First(receiver)
            }
            Claim::Unconfirmed(key, receiver) => {
                let event = with_claimed_key(event, key, &account.name);
                let claim = UnconfirmedClaim { claimant, key, account: account.name.clone() };
                let accepting = self.check_accepting(&live.source, now);
                self.appender.look_up_and_append(event, claim, live.differing.clone(), accepting);
                Admission::First(receiver)
            }
        }
    }

    /// Returns the claim that an event makes, or `None` for a keyless event.
    fn claimant(
        &self,
        live: &LiveSource,
        event: &Event,
        identity: &Identity,
        account: &Account,
        now: JournalMillis,
    ) -> Option<Claimant> {
        let source = &live.source;
        let key = key::of(&self.hash_key, &source.name, event.event_type(), identity)?;
        let fingerprint = Fingerprint { secret: account.hash, body: fingerprint::body_hash(&self.hash_key, event.body()) };
        let not_before = not_before(source, identity, &self.appender.journal, now);
        Some(Claimant { key, fingerprint, not_before, has_account_key: live.accounts.are_several })
    }

    fn admit_keyless(&self, live: &LiveSource, event: Event, now: JournalMillis) -> Admission {
        let accepting = self.check_accepting(&live.source, now);
        let appended = accepting.and_then(|()| self.appender.append_keyless(&event, &live.keyless));
        appended.map_or_else(Admission::Resolved, Admission::First)
    }

    /// Returns `Ok` if the gateway accepts new events at `now`. Otherwise, the error is the resolution of each new event. In both
    /// cases, the gateway answers duplicates of stored events with 2xx.
    fn check_accepting(&self, source: &Source, now: JournalMillis) -> Result<(), Resolution> {
        if self.draining.load(Ordering::Acquire) {
            return Err(Resolution::Failed(Outcome::Draining, "the gateway is shutting down"));
        }
        // A disk operation that has been running for at least the source's deadline is unlikely to end before the deadline of a
        // new delivery.
        match self.appender.journal.operation_age_at(now) {
            Some(age) if age >= source.deadline => Err(Resolution::Failed(Outcome::Overloaded, OPERATION_TOO_OLD)),
            _ => Ok(()),
        }
    }
}

impl Memory for DetachedCharge {
    fn charge(&self, bytes: usize) -> bool {
        self.add_output(bytes)
    }
}

/// Checks the proofs in a request head before the server reads the body. Returns the maximum size of the body in bytes. If a
/// check fails, returns the answer to the request as the error.
pub fn precheck(verifier: &Verifier, method: &Method, target: &str, headers: &HeaderMap) -> Result<usize, Answer> {
    verifier.precheck(method, target, headers).map_err(|rejection| rejected(verifier.source(), rejection))
}

/// Returns the time at or before which a key must have been first seen to count as new.
fn not_before(source: &Source, identity: &Identity, journal: &Journal, now: JournalMillis) -> JournalMillis {
    match identity {
        // Two equal bodies may be two events, so the key expires as soon as one of the two clocks says so.
        Identity::BodyWindow(_, window) => journal.before_either_clock(*window),
        _ => now.before(source.dedupe.window),
    }
}

fn answer_with(outcome: Outcome, reply: Reply) -> Answer {
    reply.over(Answer::plain(outcome))
}

/// Returns the answer to a request with a method that `source` does not accept. The field `Allow` names the accepted methods.
pub fn method_not_allowed(source: &Source, hint: impl Into<String>) -> Answer {
    let methods: Vec<&str> = source.recipe.methods().into_iter().map(Method::as_str).collect();
    let allow = HeaderValue::from_str(&methods.join(", ")).ok().map(|methods| (ALLOW, methods));
    Answer { headers: allow.into_iter().collect(), ..Answer::plain(Outcome::MethodNotAllowed).with_hint(hint) }
}

fn rejected(source: &Source, rejection: Rejection) -> Answer {
    if rejection.outcome == Outcome::MethodNotAllowed {
        return method_not_allowed(source, rejection.hint);
    }
    let answer = Answer::plain(rejection.outcome).with_hint(rejection.hint);
    match rejection.outcome.is_unavailable() {
        true => answer,
        // The sender of a batch with too many items is genuine.
        false if rejection.outcome == Outcome::TooLarge => answer,
        false => Answer { status: source.recipe.replies.rejected, ..answer },
    }
}

fn unlisted(source: &Source, event: &Event) -> String {
    format!(
        "sources.{}.types: expected a type in this list, found {}; add the type to store its events",
        source.name,
        escaped(event.event_type().unwrap_or_default())
    )
}

const RATE_EXCEEDED: &str =
    "max_rate: expected verified deliveries within this rate, found more; raise or remove the source's max_rate";
const TOO_MANY_LONG: &str =
    "long verifications: expected a free place in the queue, found it full; add CPU cores, or lower max_body of the source";
const OPERATION_TOO_OLD: &str =
    "journal: expected a disk operation to end within the source's deadline, found it still running; check the disk";

//! Sends a copy of each parked event to the dead-letter topic, one at a time, oldest first. Does nothing without such a topic.
//!
//! The file of a parked event is deleted only after a broker has acknowledged a copy with the body, so a crash at any time can cause a
//! second copy, but no loss. If the dead-letter topic rejects the record with its body, hookhold sends a notice, which is the same
//! record without the body. The event then stays parked, and the name of its file shows that there is a notice. A problem of the
//! dead-letter topic delays only the copies: the events stay parked, and hookhold tries again.
//!
//! ```text
//!          send              acknowledged: delete the file, or note the notice
//! Ready ─────────► InFlight ──────────────────────────────────────────────────► Ready
//!   ▲                 │ rejected with the body ──► Ready, without the body
//!   │                 │ rejected without the body ──► Ready, with the next event; listed again later
//!   │ pause ends      ▼ topic missing, forbidden, …
//!   └───────────── Blocked
//! ```

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use rdkafka::types::RDKafkaErrorCode;
use serde::Serialize;
use tracing::{info, warn};

use super::Settings;
use super::backoff::Backoff;
use super::kafka_error::{BlockReason, ErrorClass, classify};
use super::mailbox::{DEAD_LETTERS, pack_ticket};
use super::probe_schedule::STALLED_AFTER;
use super::producer::Producer;
use super::record::Envelope;
use crate::event::Position;
use crate::journal::{Journal, ParkedEvent};
use crate::metrics::Metrics;

/// Sender of the copies. The worker owns it, and passes the delivery reports to it.
pub(super) struct DeadLetters {
    journal: Journal,
    metrics: Arc<Metrics>,
    status: Arc<DeadLetterStatus>,
    state: LetterState,
    /// Parked events that need a copy, oldest first.
    waiting: VecDeque<Position>,
    /// True if the dead-letter topic has rejected the first event of `waiting` with its body.
    without_body: bool,
    /// Time at which to list the parked events; `None` if `waiting` contains all of them that need a copy.
    list_at: Option<Instant>,
    /// Number of the last attempt. The ticket of a record contains it, so that an outdated report has no effect.
    attempt: u64,
    pauses: Backoff,
}

enum LetterState {
    /// The next event may be sent.
    Ready,
    /// A copy of the first event of `waiting` has no delivery report yet.
    InFlight(SentCopy),
    /// The dead-letter topic accepts no records. The next attempt is due at this time.
    Blocked(Instant),
}

/// Copy of a parked event on its way to the dead-letter topic.
struct SentCopy {
    position: Position,
    /// Topic of the event in the journal.
    topic: Arc<str>,
    dead_letter: Arc<str>,
    has_body: bool,
    /// Time at which the missing acknowledgement becomes a problem; `None` if it is one.
    stalled_at: Option<Instant>,
}

/// Reason why copies of parked events do not reach the dead-letter topic, as reported by `/readyz`.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetterProblem {
    /// Name of the dead-letter topic.
    pub topic: String,
    /// Word for the reason: a value of the label `reason` of `hookhold_dead_letter_blocked`.
    pub reason: &'static str,
    /// Text of the error.
    pub detail: String,
    /// Action that the operator can take.
    pub remedy: &'static str,
    /// Time since the problem began, in seconds.
    pub seconds: u64,
}

/// Problem of the dead-letter topic, which other threads read; `None` if there is none.
#[derive(Default)]
pub(super) struct DeadLetterStatus(Mutex<Option<PublishedProblem>>);

struct PublishedProblem {
    topic: Arc<str>,
    reason: BlockReason,
    detail: String,
    since: Instant,
}

impl DeadLetters {
    /// Creates a sender that first lists the events that are parked already.
    pub(super) fn new(journal: Journal, status: Arc<DeadLetterStatus>, metrics: Arc<Metrics>, now: Instant) -> DeadLetters {
        DeadLetters {
            journal,
            metrics,
            status,
            state: LetterState::Ready,
            waiting: VecDeque::new(),
            without_body: false,
            list_at: Some(now),
            attempt: 0,
            pauses: Backoff::new(RETRY_AFTER.0, RETRY_AFTER.1),
        }
    }

    /// Notes that hookhold has parked an event.
    pub(super) fn parked(&mut self, position: Position, now: Instant) {
        // Otherwise the list will contain the event.
        if self.list_at.is_none_or(|at| at > now) {
            self.waiting.push_back(position);
        }
    }

    /// Starts again with a list of the parked events: another producer runs, so there is no report about a copy in flight, and the
    /// dead-letter topic may be another one.
    pub(super) fn restart(&mut self, now: Instant) {
        self.state = LetterState::Ready;
        self.waiting.clear();
        self.without_body = false;
        self.list_at = Some(now);
        self.withdraw();
    }

    /// Publishes that the dead-letter topic has no problem. The metrics outlive the forwarder.
    pub(super) fn withdraw(&self) {
        self.status.clear(&self.metrics, |_| true);
    }

    /// Returns the time at which [`DeadLetters::send`] has work, if there are a dead-letter topic and a producer; `None` if only a
    /// report or another parked event can create work.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        match &self.state {
            LetterState::Ready if self.waiting.is_empty() => self.list_at,
            LetterState::Ready => Some(now),
            LetterState::InFlight(copy) => copy.stalled_at,
            LetterState::Blocked(until) => Some(*until),
        }
    }

    /// Sends a copy of the next event to the topic `dead_letter`, unless another copy is in flight. Reads at most one event.
    pub(super) fn send(&mut self, producer: &Producer, settings: &Settings, dead_letter: &Arc<str>, now: Instant) {
        match &mut self.state {
            LetterState::InFlight(copy) => {
                if copy.stalled_at.take_if(|at| now >= *at).is_some() {
                    let detail = format!("expected an acknowledgement within {} s, found none", STALLED_AFTER.as_secs());
                    self.problem(dead_letter, BlockReason::Stalled, detail, now);
                }
                return;
            }
            LetterState::Blocked(until) if now < *until => return,
            LetterState::Blocked(_) => self.state = LetterState::Ready,
            LetterState::Ready => {}
        }
        if self.list_at.is_some_and(|at| now >= at) {
            self.list(dead_letter, now);
        }
        let Some(position) = self.waiting.front().copied() else { return };
        match self.journal.parked_events().read(position) {
            Ok(Some(parked)) if !parked.has_notice => self.send_copy(&parked, producer, settings, dead_letter, now),
            // Another process has sent or dropped the event, or it was parked twice.
            Ok(_) => self.finish(),
            Err(error) => self.set_aside(dead_letter, BlockReason::Journal, error.to_string(), now),
        }
    }

    fn send_copy(
        &mut self,
        parked: &ParkedEvent,
        producer: &Producer,
        settings: &Settings,
        dead_letter: &Arc<str>,
        now: Instant,
    ) {
        let (stored, has_body) = (&parked.stored, !self.without_body);
        let topic = stored.event.topic().clone();
        let (options, rejected_by) = (settings.record_options(stored.event.source()), settings.destination(&topic));
        let envelope = Envelope::new(stored, &parked.instance, options).dead_letter(&parked.note, &rejected_by);
        let envelope = if has_body { envelope } else { envelope.without_body(stored.event.body().len()) };
        self.attempt += 1;
        let sent = producer.send(envelope.record(stored, dead_letter, pack_ticket(DEAD_LETTERS, self.attempt)));
        let stalled_at = Some(now + STALLED_AFTER);
        let copy = SentCopy { position: stored.position, topic, dead_letter: dead_letter.clone(), has_body, stalled_at };
        self.state = LetterState::InFlight(copy);
        if let Err(code) = sent {
            self.reported(self.attempt, Err(code), now);
        }
    }

    /// Applies the delivery report of the copy with this number.
    pub(super) fn reported(&mut self, attempt: u64, result: Result<(), RDKafkaErrorCode>, now: Instant) {
        if attempt != self.attempt {
            return;
        }
        let LetterState::InFlight(copy) = std::mem::replace(&mut self.state, LetterState::Ready) else { return };
        match result.map_err(|code| (code, classify(code))) {
            Ok(()) => self.acknowledged(&copy),
            Err((_, ErrorClass::Record(_))) if copy.has_body => self.without_body = true,
            Err((code, ErrorClass::Record(_))) => self.set_aside(&copy.dead_letter, BlockReason::Record, code.to_string(), now),
            Err((code, ErrorClass::Environment(reason))) => {
                self.state = LetterState::Blocked(now + self.pauses.next_pause());
                self.problem(&copy.dead_letter, reason, code.to_string(), now);
            }
            // The worker replaces the producer.
            Err((_, ErrorClass::Producer | ErrorClass::Purged)) => {
                self.state = LetterState::Blocked(now + self.pauses.next_pause());
            }
        }
    }

    /// Deletes the file of an event whose copy has the body. Otherwise notes that there is a notice of the event. If this fails, the
    /// event stays parked, and its copy is sent again after the next start.
    fn acknowledged(&mut self, copy: &SentCopy) {
        self.pauses.reset();
        self.status.clear(&self.metrics, |reason| !concerns_one_event(reason));
        self.finish();
        let SentCopy { position, topic, dead_letter, has_body, .. } = copy;
        let body = if *has_body { "present" } else { "absent" };
        self.metrics.forward.dead_letters.with_label_values(&[&**topic, body]).inc();
        let noted = match has_body {
            true => self.journal.remove_parked(*position),
            false => self.journal.note_notice(*position),
        };
        let event = position.to_string();
        match (noted, has_body) {
            (Err(error), _) => {
                warn!(event, %error, "cannot note that the dead-letter topic has a copy of the parked event; hookhold sends it again later");
            }
            (Ok(_), true) => info!(topic = &**topic, event, dead_letter = &**dead_letter, "{SENT}"),
            (Ok(_), false) => warn!(topic = &**topic, event, dead_letter = &**dead_letter, "{NOTICE_SENT}"),
        }
    }

    /// Continues with the next event. If there is none, and no event was set aside, the dead-letter topic has no problem.
    fn finish(&mut self) {
        self.waiting.pop_front();
        self.without_body = false;
        if self.waiting.is_empty() && self.list_at.is_none() {
            self.withdraw();
        }
    }

    /// Continues with the next event, and lists the parked events again later, because this event still needs a copy.
    fn set_aside(&mut self, dead_letter: &Arc<str>, reason: BlockReason, detail: String, now: Instant) {
        self.list_at = self.list_at.or(Some(now + LIST_AGAIN_AFTER));
        let event = self.waiting.front().map(ToString::to_string).unwrap_or_default();
        self.problem(dead_letter, reason, format!("event {event}: {detail}"), now);
        self.finish();
    }

    fn list(&mut self, dead_letter: &Arc<str>, now: Instant) {
        match self.waiting_events() {
            Ok(waiting) => {
                (self.waiting, self.without_body, self.list_at) = (waiting, false, None);
                if self.waiting.is_empty() {
                    self.withdraw();
                }
            }
            Err(error) => {
                self.list_at = Some(now + LIST_AGAIN_AFTER);
                self.problem(dead_letter, BlockReason::Journal, error.to_string(), now);
            }
        }
    }

    fn waiting_events(&self) -> io::Result<VecDeque<Position>> {
        let files = self.journal.parked_events().list()?.into_iter();
        Ok(files.filter(|file| !file.has_notice).map(|file| file.position).collect())
    }

    /// Publishes a problem. Logs each new reason once.
    fn problem(&self, dead_letter: &Arc<str>, reason: BlockReason, detail: String, now: Instant) {
        let text = detail.clone();
        if self.status.set(PublishedProblem { topic: dead_letter.clone(), reason, detail, since: now }, &self.metrics) {
            let (topic, remedy) = (&**dead_letter, remedy(reason));
            warn!(topic, reason = reason.word(), error = text, "{NOT_SENT}; {remedy}");
        }
    }
}

impl DeadLetterStatus {
    /// Returns the current problem; `None` if there is none.
    pub(super) fn snapshot(&self) -> Option<DeadLetterProblem> {
        self.lock().as_ref().map(|problem| DeadLetterProblem {
            topic: problem.topic.to_string(),
            reason: problem.reason.word(),
            detail: problem.detail.clone(),
            remedy: remedy(problem.reason),
            seconds: problem.since.elapsed().as_secs(),
        })
    }

    /// Publishes a problem. Returns true if its reason is another one than before.
    fn set(&self, problem: PublishedProblem, metrics: &Metrics) -> bool {
        let mut published = self.lock();
        let former = published.take();
        let is_new = former.as_ref().is_none_or(|former| former.reason != problem.reason);
        former.iter().for_each(|former| former.gauge(metrics).set(0));
        problem.gauge(metrics).set(1);
        let since = former.map_or(problem.since, |former| former.since);
        *published = Some(PublishedProblem { since, ..problem });
        is_new
    }

    /// Publishes that the topic has no problem any more, if `ends` returns true for the reason of the current problem.
    fn clear(&self, metrics: &Metrics, ends: impl FnOnce(BlockReason) -> bool) {
        if let Some(problem) = self.lock().take_if(|problem| ends(problem.reason)) {
            problem.gauge(metrics).set(0);
            let (topic, reason, seconds) = (&*problem.topic, problem.reason.word(), problem.since.elapsed().as_secs());
            info!(topic, reason, seconds, "the dead-letter topic has no problem any more");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<PublishedProblem>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PublishedProblem {
    fn gauge(&self, metrics: &Metrics) -> IntGauge {
        metrics.forward.dead_letter_blocked.with_label_values(&[&*self.topic, self.reason.word()])
    }
}

/// Returns true if a problem concerns only the event that was set aside, and not the dead-letter topic as a whole.
fn concerns_one_event(reason: BlockReason) -> bool {
    matches!(reason, BlockReason::Record | BlockReason::Journal)
}

/// Returns the remedy for a problem of the dead-letter topic.
fn remedy(reason: BlockReason) -> &'static str {
    match reason {
        BlockReason::Record => {
            "raise max.message.bytes of the dead-letter topic, or relax its validation; hookhold tries again every ten minutes"
        }
        BlockReason::Stalled => {
            "check that each partition of the dead-letter topic has a leader and min.insync.replicas replicas, and see the brokers' \
             logs; if both are in order, restart hookhold"
        }
        BlockReason::Journal => "see the error and check the disk with `dmesg`; hookhold tries again every ten minutes",
        other => other.remedy(),
    }
}

const SENT: &str = "the dead-letter topic has the parked event, so hookhold has deleted its file";
const NOTICE_SENT: &str = "the dead-letter topic rejects the body of the parked event, so hookhold has sent a notice without the body; \
                           the event stays parked";
const NOT_SENT: &str = "cannot send a copy of a parked event to the dead-letter topic; the event stays parked";
/// Shortest and longest pause between two attempts to send to a blocked topic, without jitter.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Time after which hookhold tries again to send the events that the dead-letter topic has rejected even without their bodies.
const LIST_AGAIN_AFTER: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_new_only_if_its_reason_is() {
        let (status, metrics, now) = (DeadLetterStatus::default(), Metrics::new(), Instant::now());
        let problem = |reason| PublishedProblem { topic: "letters".into(), reason, detail: "why".into(), since: now };
        let shown = || status.snapshot().map(|problem| problem.reason);
        assert!(status.set(problem(BlockReason::TopicMissing), &metrics) && shown() == Some("topic_missing"));
        assert!(!status.set(problem(BlockReason::TopicMissing), &metrics), "the same reason again");
        assert!(status.set(problem(BlockReason::Record), &metrics) && shown() == Some("record"));
        status.clear(&metrics, |reason| !concerns_one_event(reason));
        assert_eq!(shown(), Some("record"), "an acknowledgement does not help an event that was set aside");
        status.clear(&metrics, |_| true);
        assert_eq!(shown(), None);
    }
}

//! Defines what can happen while `hookhold dev` runs, and passes it to the one task that prints.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossterm::event::KeyEvent;
use hookhold::answer::{Answer, AnswerWatcher};
use hookhold::clock::{Clock, SystemClock, UnixMillis};
use hookhold::forward::AckWatcher;
use hookhold::outcome::Outcome;
use tokio::sync::mpsc::Sender;

/// Something to print or to do.
pub(super) enum DevUpdate {
    /// The gateway has answered a request.
    Answered(AnsweredRequest),
    /// Kafka has acknowledged an event.
    Acknowledged(AcknowledgedEvent),
    /// The local program has answered an event, or does not answer.
    Program(ProgramUpdate),
    /// A message for the operator.
    Note(String),
    /// A log line of the gateway.
    Log(String),
    /// The operator has pressed a key.
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
}

/// A request that the gateway has answered.
pub(super) struct AnsweredRequest {
    /// Time of the answer.
    pub(super) at: UnixMillis,
    /// Name of the source, or `-` if the request belongs to no source.
    pub(super) source: String,
    /// Address of the sender.
    pub(super) remote: SocketAddr,
    /// Outcome of the delivery.
    pub(super) outcome: Outcome,
    /// Status code of the response.
    pub(super) status: u16,
    /// Cause of a rejection, in words; empty for an accepted delivery.
    pub(super) hint: String,
    /// Sequence of the stored event, or of the original event of a duplicate.
    pub(super) seq: Option<u64>,
}

/// Place of an event in Kafka.
pub(super) struct AcknowledgedEvent {
    /// Time of the acknowledgement.
    pub(super) at: UnixMillis,
    /// Sequence of the event.
    pub(super) seq: u64,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// Result of posting an event to the local program.
pub(super) struct ProgramUpdate {
    /// Time of the result.
    pub(super) at: UnixMillis,
    /// Sequence of the event.
    pub(super) seq: u64,
    /// Answer of the program, or the reason why there is none.
    pub(super) result: ProgramResult,
    /// True if the operator has asked for the event again.
    pub(super) is_replay: bool,
}

/// Answer of the local program.
pub(super) enum ProgramResult {
    /// The program has answered with this status after this number of attempts.
    Answered(u16, u64),
    /// The first attempt has failed for this reason. Further attempts follow.
    Waiting(String),
    /// The only attempt has failed for this reason.
    Failed(String),
}

/// Passes every answer of the gateway, and every acknowledgement of Kafka, to the task that prints. If the task is too slow, counts the answers that it will not show.
pub(super) struct AnswerStream {
    updates: Sender<DevUpdate>,
    hidden: Arc<AtomicU64>,
}

impl AnswerStream {
    /// Creates a stream into `updates`. `hidden` counts the answers that do not fit.
    pub(super) fn new(updates: Sender<DevUpdate>, hidden: Arc<AtomicU64>) -> AnswerStream {
        AnswerStream { updates, hidden }
    }
}

impl AckWatcher for AnswerStream {
    fn acknowledged(&self, seq: u64, topic: &str, partition: i32, offset: i64) {
        let event = AcknowledgedEvent { at: SystemClock.now(), seq, topic: topic.to_owned(), partition, offset };
        // If the task is too slow, the operator has enough to read.
        let _ = self.updates.try_send(DevUpdate::Acknowledged(event));
    }
}

impl AnswerWatcher for AnswerStream {
    fn answered(&self, source: &str, remote: SocketAddr, answer: &Answer) {
        let answered = AnsweredRequest {
            at: SystemClock.now(),
            source: source.to_owned(),
            remote,
            outcome: answer.outcome,
            status: answer.status.as_u16(),
            hint: answer.hint.clone(),
            seq: answer.seq,
        };
        if self.updates.try_send(DevUpdate::Answered(answered)).is_err() {
            self.hidden.fetch_add(1, Relaxed);
        }
    }
}

//! Waits for the result of a received delivery, and converts the result into the answer.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::appender::SYNC_FAILED;
use super::batch::AdmittedBatch;
use super::dedupe_table::Resolution;
use super::differing::WaitingCopy;
use super::success_rate::SuccessGuard;
use super::{Admitted, Gateway, LiveSource, answer_with};
use crate::answer::Answer;
use crate::in_flight::{DetachedCharge, InFlightCharge};
use crate::outcome::Outcome;
use crate::source::Source;

/// State of a delivery that the gateway has received.
pub(super) enum Received {
    Admitted(Admitted),
    /// Delivery whose long verification runs on another thread.
    Long(oneshot::Receiver<(Admitted, DetachedCharge)>),
}

/// The result for which a delivery waits.
pub(super) enum PendingResult {
    /// Result of one event. `copy` is `None` if the delivery is the first with the key of the event.
    Event { receiver: oneshot::Receiver<Resolution>, copy: Option<WaitingCopy> },
    /// Results of the items of a batch.
    Batch(Box<AdmittedBatch>),
}

impl Gateway {
    /// Waits for the result of a delivery and returns the answer. The future is a part of the future of each request, so the rare
    /// cases are boxed.
    pub(super) async fn answer(
        &self,
        live: &LiveSource,
        received: Received,
        deadline: Instant,
        charge: &mut InFlightCharge<'_>,
    ) -> Answer {
        match received {
            Received::Admitted(Admitted::Answered(answer) | Admitted::Rejected(answer, _)) => answer,
            Received::Admitted(Admitted::Waiting { guard, result }) => self.wait(live, guard, result, deadline).await,
            Received::Long(verified) => Box::pin(self.wait_for_long(live, verified, deadline, charge)).await,
        }
    }

    /// Waits for the end of a long verification, and then for the result of the delivery.
    async fn wait_for_long(
        &self,
        live: &LiveSource,
        verified: oneshot::Receiver<(Admitted, DetachedCharge)>,
        deadline: Instant,
        charge: &mut InFlightCharge<'_>,
    ) -> Answer {
        match by_deadline(deadline, verified).await {
            // The memory stays charged until the delivery is answered.
            Some(Ok((admitted, _memory))) => {
                charge.add_work(admitted.work());
                match admitted {
                    Admitted::Answered(answer) | Admitted::Rejected(answer, _) => answer,
                    Admitted::Waiting { guard, result } => self.wait(live, guard, result, deadline).await,
                }
            }
            Some(Err(_)) => Answer::plain(Outcome::Overloaded).with_hint(VERIFICATION_ENDED),
            None => Answer::plain(Outcome::Deadline).with_hint(NOT_VERIFIED_IN_TIME),
        }
    }

    /// Waits for the result of an event or of a batch, and returns the answer.
    async fn wait(&self, live: &LiveSource, guard: SuccessGuard, result: PendingResult, deadline: Instant) -> Answer {
        let answered = match result {
            PendingResult::Event { receiver, copy } => by_deadline(deadline, receiver).await.map(|received| {
                // The journal drops a completion only after a failed sync.
                let resolution = received.unwrap_or(Resolution::Failed(Outcome::JournalFailed, SYNC_FAILED));
                if let (Some(copy), Resolution::Stored(first) | Resolution::Seen(first)) = (&copy, resolution) {
                    live.differing.report_waiting(copy, first);
                }
                answer(&live.source, resolution, copy.is_none())
            }),
            PendingResult::Batch(batch) => Box::pin(by_deadline(deadline, batch.answer(live))).await,
        };
        let answer = answered.unwrap_or_else(|| Answer::plain(Outcome::Deadline).with_hint(NOT_SYNCED_IN_TIME));
        guard.finish(&answer);
        answer
    }
}

/// Waits for `work`. Returns `None` if it is not done at the deadline. Sets no timer, because the caller of [`Gateway::receive`]
/// polls the future at the deadline.
async fn by_deadline<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if Instant::now() >= deadline => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Returns the answer to a delivery with this result. `is_first` is true if the delivery is the first with the key of its event.
pub(super) fn answer(source: &Source, resolution: Resolution, is_first: bool) -> Answer {
    let (outcome, seq) = match resolution {
        Resolution::Stored(first) if is_first => (Outcome::Stored, first.seq),
        Resolution::Stored(first) | Resolution::Seen(first) => (Outcome::Duplicate, first.seq),
        Resolution::Failed(outcome, hint) => return Answer::plain(outcome).with_hint(hint),
    };
    Answer { seq: Some(seq), ..answer_with(outcome, source.recipe.replies.accepted.clone()) }
}

const NOT_SYNCED_IN_TIME: &str =
    "journal sync: expected to end before the delivery's deadline, found it unfinished; move [journal] dir to a faster disk";
const NOT_VERIFIED_IN_TIME: &str =
    "verification: expected before the delivery's deadline, found it pending; add CPU cores, or lower max_body of the source";
const VERIFICATION_ENDED: &str =
    "verification: expected a result, found none, because the process is stopping; the sender should retry";

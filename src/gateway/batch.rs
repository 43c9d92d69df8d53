//! Stores the new items of a batch in one commit or none, and drops the items that are already stored.
//!
//! The gateway claims the keys of all items in one step. If two concurrent deliveries have common items, one of them claims all
//! common items. The other delivery stores its own new items at once, and only its answer waits for the common items. No
//! delivery waits between its claims and its append, so two deliveries cannot block each other.

use tokio::sync::oneshot;

use super::appender::{SYNC_FAILED, UnconfirmedClaim, with_claimed_key};
use super::batch_append::{BatchResolution, ClaimedItem, ItemCounters};
use super::dedupe_table::{Claim, Resolution};
use super::differing::WaitingCopy;
use super::live_source::LiveSource;
use super::{Gateway, RATE_EXCEEDED, answer_with, unlisted};
use crate::answer::Answer;
use crate::clock::UnixMillis;
use crate::journal::JournalMillis;
use crate::outcome::Outcome;
use crate::verify::{VerifiedBatch, VerifiedItem};

/// The items of a batch after deduplication.
#[derive(Default)]
pub(super) struct AdmittedBatch {
    counts: ItemCounts,
    /// Receiver for the result of the items that this delivery has claimed. `None` if it has claimed no item.
    claimed: Option<oneshot::Receiver<BatchResolution>>,
    /// The items that other deliveries have claimed, with the receivers for their results.
    pending: Vec<(WaitingCopy, oneshot::Receiver<Resolution>)>,
}

/// The numbers of a batch's items by outcome.
#[derive(Default)]
struct ItemCounts {
    filtered: u64,
    duplicates: u64,
    stored: u64,
    /// Sequence of the first event that the delivery stored.
    first_stored: Option<u64>,
    /// Sequence of the event of the first duplicate.
    first_duplicate: Option<u64>,
}

impl Gateway {
    /// Passes the new events of a batch to the journal, as [`Gateway::store`] does for one event. The outcome of the delivery is
    /// `filtered` if `types` accepts none of the items, and `duplicate` if all accepted items are already stored.
    pub(super) fn store_batch(
        &self,
        live: &LiveSource,
        batch: VerifiedBatch,
        received_at: UnixMillis,
        now: JournalMillis,
    ) -> Result<AdmittedBatch, Answer> {
        let source = &live.source;
        live.count_verified(batch.secret.as_deref(), received_at);
        let is_wanted = |item: &VerifiedItem| source.types.accepts(item.event.event_type());
        let (wanted, unwanted): (Vec<_>, Vec<_>) = batch.items.into_iter().partition(is_wanted);
        let filtered = unwanted.len() as u64;
        live.batch_items.filtered.inc_by(filtered);
        if wanted.is_empty() {
            let hint = unwanted.first().map_or(EMPTY.to_owned(), |item| unlisted(source, &item.event));
            return Err(answer_with(Outcome::Filtered, source.recipe.replies.accepted.clone()).with_hint(hint));
        }
        if let Some(retry_after) = live.wait_for_rate() {
            return Err(Answer::rate_limited(retry_after).with_hint(RATE_EXCEEDED));
        }
        let mut admitted = self.admit_batch(live, wanted, now);
        admitted.counts.filtered = filtered;
        Ok(admitted)
    }

    /// Claims the keys of all items, and passes the items with new keys and the keyless items to the journal.
    fn admit_batch(&self, live: &LiveSource, items: Vec<VerifiedItem>, now: JournalMillis) -> AdmittedBatch {
        let mut claimants = Vec::with_capacity(items.len());
        let mut events = Vec::with_capacity(items.len());
        for VerifiedItem { event, identity, secret } in items {
            let account = live.accounts.signing_with(secret.as_deref());
            let claimant = self.claimant(live, &event, &identity, account, now);
            let event = match &claimant {
                Some(claimant) => event.with_key(Some(claimant.key), claimant.fingerprint),
                None => event,
            };
            claimants.extend(claimant);
            events.push((event, &account.name));
        }
        let mut admitted = AdmittedBatch::default();
        let mut claims = self.appender.claim_all(&claimants).into_iter().zip(claimants);
        let mut claimed = Vec::new();
        for (event, account) in events {
            let claim = event.dedupe_key().and_then(|_| claims.next());
            match claim {
                Some((Claim::Seen(first), _)) => {
                    live.differing.report(&event, first);
                    admitted.counts.add_duplicate(first.seq);
                }
                Some((Claim::Pending(receiver), _)) => admitted.pending.push((WaitingCopy::of(event), receiver)),
                Some((Claim::Unconfirmed(key, _), claimant)) => {
                    let look_up = Some(UnconfirmedClaim { claimant, key, account: account.clone() });
                    claimed.push(ClaimedItem { event: with_claimed_key(event, key, account), look_up });
                }
                Some((Claim::New(key, _), _)) => {
                    claimed.push(ClaimedItem { event: with_claimed_key(event, key, account), look_up: None });
                }
                None => claimed.push(ClaimedItem { event, look_up: None }),
            }
        }
        if !claimed.is_empty() {
            let counters = ItemCounters {
                stored: live.batch_items.stored.clone(),
                keyless: live.keyless.clone(),
                differing: live.differing.clone(),
            };
            admitted.claimed = Some(self.appender.append_claimed(claimed, counters, self.check_accepting(&live.source, now)));
        }
        admitted
    }
}

impl AdmittedBatch {
    /// Waits for the results of all items and returns the answer to the delivery.
    pub(super) async fn answer(self, live: &LiveSource) -> Answer {
        let AdmittedBatch { mut counts, claimed, pending } = self;
        let failure = counts.wait(live, claimed, pending).await;
        live.batch_items.duplicate.inc_by(counts.duplicates);
        if let Some((outcome, hint)) = failure {
            return Answer::plain(outcome).with_hint(hint);
        }
        let outcome = if counts.stored > 0 { Outcome::Stored } else { Outcome::Duplicate };
        let ItemCounts { filtered, duplicates, stored, .. } = counts;
        let hint = format!("batch: {stored} items stored, {duplicates} duplicates, {filtered} filtered");
        let answer = answer_with(outcome, live.source.recipe.replies.accepted.clone()).with_hint(hint);
        Answer { seq: counts.first_stored.or(counts.first_duplicate), ..answer }
    }
}

impl ItemCounts {
    /// Waits for the results of all items and counts them. If an item is not stored, returns its outcome and the hint.
    async fn wait(
        &mut self,
        live: &LiveSource,
        claimed: Option<oneshot::Receiver<BatchResolution>>,
        pending: Vec<(WaitingCopy, oneshot::Receiver<Resolution>)>,
    ) -> Option<(Outcome, &'static str)> {
        // The journal drops a completion only after a failed sync.
        const DROPPED: (Outcome, &str) = (Outcome::JournalFailed, SYNC_FAILED);
        if let Some(claimed) = claimed {
            let Ok(BatchResolution { resolution, stored, seen }) = claimed.await else { return Some(DROPPED) };
            seen.into_iter().for_each(|seq| self.add_duplicate(seq));
            match resolution {
                Some(Resolution::Failed(outcome, hint)) => return Some((outcome, hint)),
                Some(Resolution::Stored(first) | Resolution::Seen(first)) => {
                    (self.stored, self.first_stored) = (stored, Some(first.seq));
                }
                None => {}
            }
        }
        for (copy, receiver) in pending {
            match receiver.await {
                Ok(Resolution::Stored(first) | Resolution::Seen(first)) => {
                    live.differing.report_waiting(&copy, first);
                    self.add_duplicate(first.seq);
                }
                Ok(Resolution::Failed(outcome, hint)) => return Some((outcome, hint)),
                Err(_) => return Some(DROPPED),
            }
        }
        None
    }

    fn add_duplicate(&mut self, seq: u64) {
        self.duplicates += 1;
        self.first_duplicate.get_or_insert(seq);
    }
}

const EMPTY: &str = "event.batch: expected items, found an empty array; the delivery contains no event to store";

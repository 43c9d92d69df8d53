//! Treatment of one sender: which limits apply to its connection or request, and how its deliveries change the record of its address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection_slot::{ConnectionSlot, WaitingRequest};
use super::sender_limits::{KNOWN_GOOD_FOR, SenderGuard};
use super::sender_record::work_units;
use crate::in_flight::InFlightBudget;
use crate::outcome::Outcome;
use crate::work_turns::{WorkKind, WorkTurn};

/// Error for work that gets no turn, because too much work is waiting.
#[derive(Debug)]
pub(super) struct NoTurn;

impl SenderGuard {
    /// Returns the address that identifies the sender in limits.
    pub(super) fn address(&self) -> IpAddr {
        self.record.address
    }

    /// Returns the in-flight budget of this address. For a known-good address, it has no limit.
    pub(super) fn in_flight(&self, now: Instant) -> &InFlightBudget {
        if self.is_known_good(now) { &self.record.unlimited_in_flight } else { &self.record.in_flight }
    }

    /// Returns the place of the connection; `None` for a request that a trusted proxy forwards.
    pub(super) fn slot(&self) -> Option<&Arc<ConnectionSlot>> {
        self.slot.as_ref()
    }

    /// Waits until hookhold evicts the connection. Only the task of the connection may call this function.
    pub(super) async fn evicted(&self) {
        match &self.slot {
            Some(slot) => slot.evicted().await,
            None => std::future::pending().await,
        }
    }

    /// Waits until hookhold evicts the connection. Each request of the connection may call this function.
    pub(super) async fn evicted_under_request(&self) {
        match &self.slot {
            Some(slot) => slot.evicted_under_request().await,
            None => std::future::pending().await,
        }
    }

    /// Records that the client of the connection has sent something.
    pub(super) fn note_sent(&self) {
        self.slot.iter().for_each(|slot| slot.note_sent());
    }

    /// Returns the reason why hookhold has evicted an unfinished request from this address.
    pub(super) fn eviction_hint(&self) -> &'static str {
        if self.slot.as_ref().is_some_and(|slot| slot.is_evicted()) { CONNECTION_EVICTED } else { BODY_EVICTED }
    }

    /// Counts a request of this connection as waiting for hookhold until the guard is dropped.
    pub(super) fn wait(&self) -> Option<WaitingRequest<'_>> {
        self.slot.as_deref().map(ConnectionSlot::wait)
    }

    /// Returns true if hookhold has recently stored a delivery from this address.
    pub(super) fn has_delivered(&self, now: Instant) -> bool {
        self.record.is_known_good(self.limits.millis(now))
    }

    /// Returns true if the limits of a single address do not apply: hookhold has recently stored a delivery from this address, or
    /// a source lists it in `allow_from`.
    pub(super) fn is_known_good(&self, now: Instant) -> bool {
        self.is_listed || self.has_delivered(now)
    }

    /// Counts a TLS handshake in the pace of the address.
    pub(super) fn count_handshake(&self, now: Instant) {
        self.record.pace.charge(1, self.micros(now));
    }

    /// Returns true if hookhold may perform this kind of work for the address only in a turn: the address is limited. For a TLS
    /// handshake, it suffices that the address exceeds its pace.
    pub(super) fn needs_turn(&self, kind: WorkKind, now: Instant) -> bool {
        let exceeds_pace = || kind == WorkKind::Handshake && self.record.pace.is_exceeded(self.micros(now));
        let is_limited = self.record.is_limited(self.limits.millis(now)) || exceeds_pace();
        is_limited && !self.is_known_good(now)
    }

    /// Waits for a turn to perform work for the address. Returns `None` if the address needs no turn, or no longer. The caller
    /// limits the time.
    pub(super) async fn turn(&self, kind: WorkKind) -> Result<Option<WorkTurn>, NoTurn> {
        let _waiting = self.wait();
        let _permit = match &self.slot {
            Some(slot) => slot.turn.acquire().await.ok(),
            None => None,
        };
        if !self.needs_turn(kind, Instant::now()) {
            return Ok(None);
        }
        let turn = self.limits.turns.wait(kind, self.record.address).await;
        if let Some(slot) = &self.slot {
            self.limits.connections.renew(slot);
        }
        match turn {
            None if self.needs_turn(kind, Instant::now()) => Err(NoTurn),
            turn => Ok(turn),
        }
    }

    /// Returns the outcome of the last rejected delivery from this address.
    pub(super) fn last_rejection(&self) -> Outcome {
        self.record.last_rejection()
    }

    /// Updates the record of the address after a delivery with `outcome`. `work` is the number of bytes that hookhold has
    /// received or hashed, whichever is larger. Only a rejected delivery counts.
    pub(super) fn record(&self, outcome: Outcome, work: usize, now: Instant) {
        // A duplicate does not make its address known good, because an attacker can replay a recorded genuine delivery.
        if outcome == Outcome::Stored {
            self.record_genuine(now);
        } else if counts_against_sender(outcome) {
            self.count_rejection(outcome, work, now);
        }
    }

    /// Treats an unused TLS handshake (no request followed it) as a rejection, because a TLS handshake costs more than
    /// most rejections.
    pub(super) fn count_unused_handshake(&self) {
        self.count_rejection(Outcome::Disconnected, 0, Instant::now());
    }

    /// Returns the delay of the answer with this outcome, and charges the request to the pace of the address. Zero for a verified
    /// delivery, for a delivery beyond a limit, and for a failure of hookhold.
    pub(super) fn pace(&self, outcome: Outcome, work: usize, now: Instant) -> Duration {
        let is_exempt = outcome.is_accepted() || outcome.is_unavailable();
        match is_exempt || matches!(outcome, Outcome::Disconnected | Outcome::RateLimited) {
            true => Duration::ZERO,
            false => self.record.pace.charge(work_units(work).into(), self.micros(now)),
        }
    }

    fn record_genuine(&self, now: Instant) {
        let was_known_good = self.has_delivered(now);
        if self.record.set_known_good(self.limits.millis(now + KNOWN_GOOD_FOR)) {
            self.limits.set_unsaved();
        }
        if !was_known_good {
            self.limits.turns.end_waits(self.record.address);
        }
        if let Some(slot) = self.slot.as_ref().filter(|slot| !slot.is_protected()) {
            self.limits.connections.protect(slot);
        }
    }

    fn count_rejection(&self, outcome: Outcome, work: usize, now: Instant) {
        if self.is_known_good(now) {
            return;
        }
        if !self.record.count_rejection(outcome, work, self.limits.millis(now)) {
            return;
        }
        self.limits.limited.inc();
        if let Some(suppressed) = self.limits.limited_log.admit(now) {
            let (address, last_rejection) = (self.record.address, outcome.word());
            tracing::warn!(%address, last_rejection, suppressed, hint = TOO_MANY_REJECTIONS, "address limited");
        }
    }

    /// Returns the time from the epoch to `moment`, in microseconds.
    fn micros(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.limits.epoch).as_micros() as u64
    }
}

/// Returns true for the outcomes of a delivery that fails the verification, and of an oversized or slow request. A client that asks
/// for unknown paths, for example, may share its address with a genuine sender.
fn counts_against_sender(outcome: Outcome) -> bool {
    let has_bad_signature =
        matches!(outcome, Outcome::SignatureMissing | Outcome::SignatureMalformed | Outcome::SignatureMismatch);
    let has_bad_time = matches!(outcome, Outcome::TimestampStale | Outcome::TimestampFuture);
    has_bad_signature || has_bad_time || matches!(outcome, Outcome::TooLarge | Outcome::TooSlow)
}

const TOO_MANY_REJECTIONS: &str = "rejected deliveries from this address: expected fewer than max_rejected_per_address, found that \
                                   number, so hookhold verifies the next ones in turns; remove the cause";

const BODY_EVICTED: &str = "bodies in flight: expected at most max_in_flight_per_address and max_in_flight, found more, so the oldest \
                            unfinished body made room; raise the exceeded limit for a genuine sender";
const CONNECTION_EVICTED: &str = "open connections: expected at most max_connections_per_address and max_connections, found more, so \
                                  the oldest one made room; raise the exceeded limit for a genuine sender";

#[cfg(test)]
mod tests {
    use super::super::sender_limits::SenderLimits;
    use super::*;
    use crate::address::sender_address;
    use crate::limits::ServerLimits;
    use crate::metrics::Metrics;
    use crate::units::Rate;

    fn sender_limits(limits: ServerLimits) -> Arc<SenderLimits> {
        SenderLimits::new(&limits, &Metrics::new())
    }

    fn connect(limits: &Arc<SenderLimits>, from: &str) -> SenderGuard {
        limits.connect(from.parse().expect("an address"), false).expect("it has a place")
    }

    fn is_limited(sender: &SenderGuard, now: Instant) -> bool {
        sender.needs_turn(WorkKind::SmallBody, now)
    }

    #[test]
    fn an_ipv6_sender_is_limited_by_its_64() {
        let of = |text: &str| sender_address(text.parse().expect("an address")).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        let limits = sender_limits(ServerLimits { max_connections_per_address: 1, ..ServerLimits::default() });
        let first = connect(&limits, "2001:db8::1");
        let other = connect(&limits, "2001:db8:0:1::1");
        let second = connect(&limits, "2001:db8::2");
        let is_evicted = |guard: &SenderGuard| guard.slot().is_some_and(|slot| slot.is_evicted());
        assert_eq!([first, other, second].map(|guard| is_evicted(&guard)), [true, false, false]);
    }

    #[test]
    fn only_failed_proofs_and_oversized_or_slow_requests_count() {
        let counted = Outcome::ALL.iter().filter(|outcome| counts_against_sender(**outcome)).map(|outcome| outcome.word());
        let failed = ["signature_missing", "signature_malformed", "signature_mismatch", "timestamp_stale", "timestamp_future"];
        assert!(counted.eq(failed.into_iter().chain(["too_large", "too_slow"])));
    }

    /// Returns the number of rejections with this work after which an address is limited.
    fn rejections_until_limited(rate: &str, work: usize) -> usize {
        let max_rejected_per_address = Rate::parse(rate).expect("a rate");
        let limits = sender_limits(ServerLimits { max_rejected_per_address, ..ServerLimits::default() });
        let sender = connect(&limits, "192.0.2.1");
        let now = Instant::now();
        let mut count = 0;
        while !is_limited(&sender, now) {
            sender.record(Outcome::SignatureMismatch, work, now);
            count += 1;
        }
        count
    }

    #[test]
    fn a_rejection_counts_once_and_once_more_for_each_64_kib() {
        for (work, count) in [(0, 100), (65_535, 100), (65_536, 50), (9 * 65_536, 10), (99 * 65_536, 1)] {
            assert_eq!(rejections_until_limited("100/h", work), count, "{work} bytes");
        }
    }

    #[test]
    fn one_rejection_limits_for_at_most_the_unit_of_the_rate() {
        assert_eq!(rejections_until_limited("100/h", usize::MAX), 1);
        let max_rejected_per_address = Rate::parse("60/h").expect("a rate");
        let limits = sender_limits(ServerLimits { max_rejected_per_address, ..ServerLimits::default() });
        let (sender, start) = (connect(&limits, "192.0.2.1"), Instant::now());
        let is_limited_after = |seconds: u64| is_limited(&sender, start + Duration::from_secs(seconds));
        sender.record(Outcome::SignatureMismatch, usize::MAX, start);
        assert!(is_limited_after(0) && !is_limited_after(62), "the next rejection fits after one part of the hour");
        sender.record(Outcome::SignatureMismatch, usize::MAX, start);
        assert!(is_limited_after(3_000) && !is_limited_after(3_602), "a second one must wait for the whole allowance");
    }

    #[test]
    fn rejections_of_an_address_are_remembered_between_its_connections() {
        let limits = sender_limits(ServerLimits {
            max_rejected_per_address: Rate::parse("1/h").expect("a rate"),
            ..ServerLimits::default()
        });
        connect(&limits, "192.0.2.1").record(Outcome::SignatureMismatch, 0, Instant::now());
        let second = connect(&limits, "192.0.2.1");
        assert!(is_limited(&second, Instant::now()), "the only permitted rejection is used up");
        assert!(
            !is_limited(&limits.track("192.0.2.1".parse().expect("an address"), true), Instant::now()),
            "it is in allow_from"
        );
        second.record(Outcome::Stored, 0, Instant::now());
        assert!(!is_limited(&second, Instant::now()), "a genuine delivery in progress ends the limit");
    }

    #[test]
    fn known_good_addresses_outlive_the_server() {
        let (limits, now) = (sender_limits(ServerLimits::default()), Instant::now());
        let address: IpAddr = "192.0.2.1".parse().expect("an address");
        let open = connect(&limits, "192.0.2.2");
        for genuine in [&connect(&limits, "192.0.2.1"), &open, &connect(&limits, "192.0.2.1")] {
            genuine.record(Outcome::Stored, 0, now);
        }
        connect(&limits, "192.0.2.3").record(Outcome::SignatureMismatch, 0, now);
        assert!(limits.is_unsaved());
        let mut saved = limits.known_good(now);
        saved.sort_unstable();
        assert_eq!(saved.iter().map(|(address, _)| address.to_string()).collect::<Vec<_>>(), ["192.0.2.1", "192.0.2.2"]);
        open.record(Outcome::Stored, 0, now + Duration::from_secs(60));
        assert!(!limits.is_unsaved(), "a slightly later delivery is no reason to save again");
        let next = sender_limits(ServerLimits::default());
        next.restore([(address, Duration::from_secs(60))]);
        assert!(next.track(address, false).has_delivered(Instant::now()));
        assert!(!next.track(address, false).has_delivered(Instant::now() + Duration::from_secs(61)));
    }
}

//! Rejections that a jump of the wall clock may have caused. While hookhold cannot tell which clock is right, it answers a genuine
//! delivery with 503 instead of 401, because a sender retries after a 503.

use super::Gateway;
use super::live_source::LiveSource;
use crate::clock::UnixMillis;
use crate::event::Delivery;
use crate::outcome::Outcome;
use crate::source::Key;
use crate::verify::Rejection;

impl Gateway {
    /// Returns the rejection, or a rejection with the outcome `clock_jumped` if the wall clock has jumped and the signature is
    /// genuine: the timestamp is outside its tolerance, or a secret has expired that was valid without the jump.
    pub(super) fn consider_clock_jump(&self, live: &LiveSource, delivery: &Delivery, rejection: Rejection) -> Rejection {
        let is_about_time = matches!(rejection.outcome, Outcome::TimestampStale | Outcome::TimestampFuture);
        let is_about_secret = rejection.outcome == Outcome::SignatureMismatch && live.has_expiring_secret();
        if !is_about_time && !is_about_secret {
            return rejection;
        }
        let Some(without_jump) = self.appender.journal.wall_time_without_jump() else { return rejection };
        if is_about_time {
            return Rejection { outcome: Outcome::ClockJumped, hint: TIMESTAMP.to_owned(), ..rejection };
        }
        if !live.source.keys.iter().any(|key| has_expired_by_jump(key, delivery.received_at, without_jump)) {
            return rejection;
        }
        let earlier = Delivery { received_at: without_jump, ..delivery.clone() };
        match live.verifier.check_proof(&earlier) {
            Ok(()) => Rejection { outcome: Outcome::ClockJumped, hint: SECRET.to_owned(), ..rejection },
            Err(again) => Rejection { work: rejection.work.saturating_add(again.work), ..rejection },
        }
    }
}

fn has_expired_by_jump(key: &Key, now: UnixMillis, without_jump: UnixMillis) -> bool {
    key.is_valid_at(without_jump) && !key.is_valid_at(now)
}

const TIMESTAMP: &str =
    "timestamp: expected within the tolerance, found outside after the wall clock jumped; compare the clock with a time server";
const SECRET: &str =
    "secret: expected before not_after, found after it since the wall clock jumped; compare the clock with a time server";

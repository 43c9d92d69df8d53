//! Causes that depend on the time of receipt. If `--at` is absent and the time of receipt is unknown, doctor reports these
//! causes as possible, not as certain.

use hookhold::outcome::Outcome;
use hookhold::units::duration_text;
use hookhold::verify::Rejection;

use super::captured::CapturedDelivery;
use super::cause::{Cause, Certainty};

/// Returns the cause for a delivery whose signature matches but whose timestamp is outside the tolerance.
pub(super) fn late_or_early(captured: &CapturedDelivery, rejection: &Rejection) -> Cause {
    let assumed = if captured.is_time_given { "" } else { " (assuming that the delivery arrived now)" };
    let what = format!("the signature matches, but the timestamp is outside the tolerance{assumed}; {}", rejection.hint);
    if rejection.hint.starts_with("token: ") && rejection.outcome == Outcome::TimestampStale {
        let what = format!("the token is genuine, but it has expired{assumed}; {}", rejection.hint);
        let advice = format!(
            "{}compare this machine's clock with a time server; if the clock is right, the request was delayed or replayed, so have \
             the sender send the delivery again",
            ask_for_time(captured)
        );
        return only_at_its_time(captured, Cause::certain("token_expired", what, advice));
    }
    let past = captured.source.recipe.timestamp().map(|rule| duration_text(rule.past)).unwrap_or_default();
    let ask = ask_for_time(captured);
    let cause = match rejection.outcome {
        Outcome::TimestampFuture => Cause::certain(
            "clock",
            what,
            format!(
                "{ask}compare both clocks with a time server: this machine's clock may be behind, or the sender's clock may be \
                 ahead"
            ),
        ),
        _ => Cause::certain(
            "stale",
            what,
            format!(
                "{ask}compare this machine's clock with a time server, because the clock may be ahead; if the clock is right, \
                 the request was delayed for more than {past} or replayed, so have the sender send the delivery again"
            ),
        ),
    };
    only_at_its_time(captured, cause)
}

/// Lowers the certainty of a cause to `Possible` if the time of receipt is unknown.
pub(super) fn only_at_its_time(captured: &CapturedDelivery, cause: Cause) -> Cause {
    if captured.is_time_given { cause } else { Cause { certainty: Certainty::Possible, ..cause } }
}

/// Returns the start of a remedy: the instruction to pass `--at` if the time of receipt is unknown, otherwise an empty string.
pub(super) fn ask_for_time(captured: &CapturedDelivery) -> &'static str {
    if captured.is_time_given { "" } else { "pass the time of receipt with --at; if the rejection stays the same, " }
}

/// Returns true if the signature matches and only the timestamp causes the rejection.
pub(super) fn is_about_time(rejection: &Rejection) -> bool {
    matches!(rejection.outcome, Outcome::TimestampStale | Outcome::TimestampFuture)
}

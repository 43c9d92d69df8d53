//! Causes that depend on the time of receipt. If that time is not known (no `--at`), such a cause is only possible.

use hookhold::outcome::Outcome;
use hookhold::units::duration_text;
use hookhold::verify::Rejection;

use super::captured::CapturedDelivery;
use super::cause::{Cause, Certainty};

/// Returns the cause for a delivery whose signature matches but whose timestamp is outside the tolerance.
pub(super) fn late_or_early(captured: &CapturedDelivery, rejection: &Rejection) -> Cause {
    let assumed = if captured.is_time_given { "" } else { " (judged as if it arrived now)" };
    let what = format!("the signature matches, but the timestamp is outside the tolerance: {}{assumed}", rejection.hint);
    let past = captured.source.recipe.timestamp.as_ref().map(|rule| duration_text(rule.past)).unwrap_or_default();
    let ask = ask_for_time(captured);
    let cause = match rejection.outcome {
        Outcome::TimestampFuture => Cause::certain(
            "clock",
            what,
            format!("{ask}compare this machine's clock (it may be behind) and the sender's (it may be ahead) with a time server"),
        ),
        _ => Cause::certain(
            "stale",
            what,
            format!(
                "{ask}compare this machine's clock with a time server (it may be ahead). If the clock is right, the request was \
                 delayed for more than {past} or replayed: have the sender send it again"
            ),
        ),
    };
    only_at_its_time(captured, cause)
}

/// Lowers the certainty of a cause to possible if the time of receipt is not known.
pub(super) fn only_at_its_time(captured: &CapturedDelivery, cause: Cause) -> Cause {
    if captured.is_time_given { cause } else { Cause { certainty: Certainty::Possible, ..cause } }
}

/// Returns the first part of the advice. If the time of receipt is not known, the advice applies only after a check with `--at`.
pub(super) fn ask_for_time(captured: &CapturedDelivery) -> &'static str {
    if captured.is_time_given { "" } else { "give the time of receipt with --at; if the rejection stays the same, " }
}

/// True if the signature matches and only the timestamp is rejected.
pub(super) fn is_about_time(rejection: &Rejection) -> bool {
    matches!(rejection.outcome, Outcome::TimestampStale | Outcome::TimestampFuture)
}

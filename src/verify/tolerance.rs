//! Times: how old or how far ahead a genuine delivery may be, and when its event happened.

use crate::clock::UnixMillis;
use crate::outcome::Outcome;
use crate::source::recipe::{Recipe, Unit};
use crate::verify::Rejection;
use crate::verify::request_view::RequestView;

/// Refuses a signed time outside the recipe's window; both edges are inside. Compared in the unit the provider signs, as
/// its own library does: a time in whole seconds is not held against our milliseconds.
pub fn check(recipe: &Recipe, site: &RequestView<'_>, received_at: UnixMillis) -> Result<(), Rejection> {
    let Some(rule) = &recipe.timestamp else { return Ok(()) };
    let text = site.signed(&rule.from).and_then(|text| std::str::from_utf8(text).ok());
    let Some(signed_at) = text.and_then(|text| read(rule.unit, text)) else {
        return Err(Rejection::new(Outcome::SignatureMalformed, "the signed timestamp cannot be read"));
    };
    let (now, past, future) = (scale(rule.unit, received_at.0), rule.past.as_millis(), rule.future.as_millis());
    let millis = |amount: u64| u128::from(amount) * u128::from(millis_per(rule.unit));
    let (age, ahead) = (millis(now.saturating_sub(signed_at)), millis(signed_at.saturating_sub(now)));
    let seconds = |millis: u128| millis / 1000;
    if age > past {
        let hint = format!("signed {} s before it arrived, {} s are allowed", seconds(age), seconds(past));
        return Err(Rejection::new(Outcome::TimestampStale, hint));
    }
    if ahead > future {
        let hint = format!("signed {} s after it arrived, {} s are allowed", seconds(ahead), seconds(future));
        return Err(Rejection::new(Outcome::TimestampFuture, hint));
    }
    Ok(())
}

/// The event's own time: the first of the recipe's places that holds a readable one.
pub fn occurred_at(recipe: &Recipe, site: &RequestView<'_>) -> Option<UnixMillis> {
    recipe.event.time.iter().find_map(|(locator, unit)| {
        let text = std::str::from_utf8(site.find(locator)?).ok()?;
        read(*unit, text)?.checked_mul(millis_per(*unit)).map(UnixMillis)
    })
}

/// The time as a provider writes it.
pub fn write(unit: Unit, time: UnixMillis) -> String {
    match unit {
        Unit::Seconds | Unit::Millis => scale(unit, time.0).to_string(),
        Unit::Rfc3339 => time.rfc3339(),
    }
}

/// A time in its own unit. Numbers are decimal digits only; a time before 1970 counts as 1970.
fn read(unit: Unit, text: &str) -> Option<u64> {
    match unit {
        Unit::Seconds | Unit::Millis => text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?,
        Unit::Rfc3339 => text.parse::<jiff::Timestamp>().ok().map(|time| u64::try_from(time.as_millisecond()).unwrap_or(0)),
    }
}

fn scale(unit: Unit, millis: u64) -> u64 {
    millis / millis_per(unit)
}

fn millis_per(unit: Unit) -> u64 {
    match unit {
        Unit::Seconds => 1000,
        Unit::Millis | Unit::Rfc3339 => 1,
    }
}

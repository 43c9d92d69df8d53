//! Checks that a signed timestamp is within the recipe's tolerance, and parses the time of an event.

use crate::clock::UnixMillis;
use crate::outcome::Outcome;
use crate::source::recipe::{Recipe, TimeUnit, Timestamp};
use crate::verify::request_view::RequestView;
use crate::verify::verdict::Rejection;

/// Rejects a delivery whose signed timestamp is outside the recipe's tolerance. Accepts a timestamp exactly at either limit.
/// Compares times in the provider's unit, as the provider's own library does. For example, compares a timestamp in whole
/// seconds with the arrival time in whole seconds, not in milliseconds.
pub(super) fn check<'a>(rule: &'a Timestamp, view: &RequestView<'a>, received_at: UnixMillis) -> Result<(), Rejection> {
    let text = view.signed(&rule.from).and_then(|text| std::str::from_utf8(text).ok());
    let Some(signed_at) = text.and_then(|text| read(rule.unit, text)) else {
        let hint = "timestamp: expected a time in the recipe's unit, found another text; correct timestamp.unit in the recipe";
        return Err(Rejection::new(Outcome::SignatureMalformed, hint));
    };
    let (now, past, future) = (scale(rule.unit, received_at.0), rule.past.as_millis(), rule.future.as_millis());
    let millis = |amount: u64| u128::from(amount) * u128::from(millis_per(rule.unit));
    let (age, ahead) = (millis(now.saturating_sub(signed_at)), millis(signed_at.saturating_sub(now)));
    let seconds = |millis: u128| millis / 1000;
    if age > past {
        let (most, found) = (seconds(past), seconds(age));
        let hint = format!(
            "timestamp: expected at most {most} s in the past, found {found} s; compare this machine's clock with a time server"
        );
        return Err(Rejection::new(Outcome::TimestampStale, hint));
    }
    if ahead > future {
        let (most, found) = (seconds(future), seconds(ahead));
        let hint = format!(
            "timestamp: expected at most {most} s in the future, found {found} s; compare this machine's clock with a time server"
        );
        return Err(Rejection::new(Outcome::TimestampFuture, hint));
    }
    Ok(())
}

/// Returns the time of the event. Uses the first of the recipe's time locators whose text is a valid time, and returns `None`
/// if there is no such locator.
pub(super) fn occurred_at<'a>(recipe: &'a Recipe, view: &RequestView<'a>) -> Option<UnixMillis> {
    recipe.event.time.iter().find_map(|(locator, unit)| {
        let text = std::str::from_utf8(view.find(locator)?).ok()?;
        read(*unit, text)?.checked_mul(millis_per(*unit)).map(UnixMillis)
    })
}

/// Formats `time` as text in a provider's time format.
pub(super) fn write(unit: TimeUnit, time: UnixMillis) -> String {
    match unit {
        TimeUnit::Seconds | TimeUnit::Millis => scale(unit, time.0).to_string(),
        TimeUnit::Rfc3339 => time.rfc3339(),
    }
}

/// Parses the text of a time. Returns seconds for [`TimeUnit::Seconds`] and milliseconds for the other formats. Accepts only
/// decimal digits in a number. Returns 0 for a time before 1970, and `None` if the text is not a valid time.
fn read(unit: TimeUnit, text: &str) -> Option<u64> {
    match unit {
        TimeUnit::Seconds | TimeUnit::Millis => text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?,
        TimeUnit::Rfc3339 => text.parse::<jiff::Timestamp>().ok().map(|time| u64::try_from(time.as_millisecond()).unwrap_or(0)),
    }
}

fn scale(unit: TimeUnit, millis: u64) -> u64 {
    millis / millis_per(unit)
}

fn millis_per(unit: TimeUnit) -> u64 {
    match unit {
        TimeUnit::Seconds => 1000,
        TimeUnit::Millis | TimeUnit::Rfc3339 => 1,
    }
}

//! Parses a bound of a period: a day, an age, or a time. Days are days in UTC, like all times that hookhold prints.

use hookhold::clock::{Clock, SystemClock, UnixMillis};
use hookhold::units::parse_duration;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Parses the start of a period: the start of a day, or a time.
pub(super) fn parse_start(text: &str) -> Result<UnixMillis, String> {
    parse(text, SystemClock.now()).map(|bound| bound.start)
}

/// Parses the end of a period: the end of a day, or a time.
pub(super) fn parse_end(text: &str) -> Result<UnixMillis, String> {
    parse(text, SystemClock.now()).map(|bound| bound.end)
}

/// First and last millisecond of a day, or twice the same time.
#[derive(Debug, PartialEq, Eq)]
struct TimeBound {
    start: UnixMillis,
    end: UnixMillis,
}

impl TimeBound {
    fn of_day(start: u64) -> TimeBound {
        TimeBound { start: UnixMillis(start), end: UnixMillis(start.saturating_add(DAY_MS - 1)) }
    }

    fn at(time: u64) -> TimeBound {
        TimeBound { start: UnixMillis(time), end: UnixMillis(time) }
    }
}

fn parse(text: &str, now: UnixMillis) -> Result<TimeBound, String> {
    let today = now.0 - now.0 % DAY_MS;
    let millis = |time: jiff::Timestamp| u64::try_from(time.as_millisecond()).ok();
    let age = || parse_duration(text).map(|age| now.0.saturating_sub(age.as_millis() as u64)).map(TimeBound::at);
    let time = || text.parse().ok().and_then(millis).map(TimeBound::at);
    let day = || {
        let start = text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?;
        millis(start.timestamp()).map(TimeBound::of_day)
    };
    let bound = match text {
        "today" => Some(TimeBound::of_day(today)),
        "yesterday" => Some(TimeBound::of_day(today.saturating_sub(DAY_MS))),
        _ => age().or_else(time).or_else(day),
    };
    bound.ok_or_else(|| {
        format!("expected today, yesterday, an age such as 2h, a day such as 2026-11-21, or a time in RFC 3339, found {text:?}")
    })
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T07:08:13Z.
    const NOW: UnixMillis = UnixMillis(1_795_244_893_000);

    #[test]
    fn days_ages_and_times_are_bounds() {
        for (text, start, end) in [
            ("today", "2026-11-21T00:00:00.000Z", "2026-11-21T23:59:59.999Z"),
            ("yesterday", "2026-11-20T00:00:00.000Z", "2026-11-20T23:59:59.999Z"),
            ("2026-11-01", "2026-11-01T00:00:00.000Z", "2026-11-01T23:59:59.999Z"),
            ("2h", "2026-11-21T05:08:13.000Z", "2026-11-21T05:08:13.000Z"),
            ("2026-11-20T10:00:00+02:00", "2026-11-20T08:00:00.000Z", "2026-11-20T08:00:00.000Z"),
        ] {
            let bound = parse(text, NOW).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((bound.start.rfc3339(), bound.end.rfc3339()), (start.to_owned(), end.to_owned()), "{text}");
        }
        for text in ["", "tomorrow", "2", "-2h", "2026-13-01", "1969-01-01T00:00:00Z"] {
            assert!(parse(text, NOW).is_err(), "{text}");
        }
        assert_eq!(parse("9999999999d", NOW).map(|bound| bound.start.0).unwrap_or(0), 0);
    }
}

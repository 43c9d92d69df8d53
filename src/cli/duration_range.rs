//! Parses a duration of the command line that must lie in a range.

use std::ops::RangeInclusive;
use std::time::Duration;

use hookhold::units::{duration_text, parse_duration};

/// Returns a parser of a duration in `range`, for clap. The error names the range.
pub(super) fn within(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let found = parse_duration(text).filter(|time| range.contains(time));
        found.ok_or_else(|| format!("expected a time from {} to {}", duration_text(*range.start()), duration_text(*range.end())))
    }
}

//! Parses and formats durations, sizes and rates such as `"5m"`, `"64 MiB"` and `"600/m"`. Formatted text parses back to the
//! same value, except for the text of [`bytes_about`] and [`seconds_about`].

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;

const DURATIONS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZES: &[(&str, u64)] = &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

const PERIODS: &[(&str, u32)] = &[("s", 1), ("m", 60), ("h", 3600)];

/// A maximum count per second, minute or hour. A rate limiter treats the count as an allowance: it admits a burst of up to the
/// whole allowance, and refills the allowance evenly over the second, minute or hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    seconds: u32,
}

impl Rate {
    /// Highest count that a rate in the configuration may have.
    pub const MOST: u32 = 1_000_000;

    /// Parses a rate such as `"100/s"`, `"600/m"` or `"36000/h"`. Returns `None` for any other text, for a count of 0 and for a
    /// count above [`Rate::MOST`].
    pub fn parse(text: &str) -> Option<Rate> {
        let (count, unit) = text.split_once('/')?;
        let (_, seconds) = PERIODS.iter().find(|(name, _)| *name == unit)?;
        let count = count.bytes().all(|byte| byte.is_ascii_digit()).then(|| count.parse().ok())?;
        Some(Rate { count: count?, seconds: *seconds }).filter(|rate| rate.count.get() <= Rate::MOST)
    }

    /// Converts the rate into the quota of a rate limiter.
    pub fn quota(self) -> Quota {
        let interval = Duration::from_secs(self.seconds.into()) / self.count.get();
        Quota::with_period(interval).expect("the interval is at least a microsecond").allow_burst(self.count)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = PERIODS.iter().find(|(_, seconds)| *seconds == self.seconds).map_or("", |(unit, _)| unit);
        write!(f, "{}/{unit}", self.count)
    }
}

/// Parses a duration: an integer with the unit `ms`, `s`, `m`, `h` or `d`. Returns `None` for any other text and for more
/// milliseconds than 64 bits can represent.
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, DURATIONS).map(Duration::from_millis)
}

/// Parses a number of bytes: an integer with the unit `B`, `KiB`, `MiB`, `GiB` or `TiB`. Returns `None` for any other text
/// and for more bytes than 64 bits can represent.
pub fn parse_bytes(text: &str) -> Option<u64> {
    parse(text, SIZES)
}

/// Formats a duration as an integer with the largest unit that needs no fraction. Drops fractions of a millisecond.
pub fn duration_text(length: Duration) -> String {
    print(u64::try_from(length.as_millis()).unwrap_or(u64::MAX), DURATIONS, "")
}

/// Formats a number of bytes as an integer with the largest unit that needs no fraction.
pub fn bytes_text(size: u64) -> String {
    print(size, SIZES, " ")
}

/// Formats a number of bytes in the largest unit that gives a value of at least 1. Shows one decimal place unless the unit is
/// B.
pub fn bytes_about(size: u64) -> String {
    match SIZES.iter().find(|(_, factor)| size >= *factor) {
        Some((unit, factor)) if *factor > 1 => format!("{:.1} {unit}", size as f64 / *factor as f64),
        _ => format!("{size} B"),
    }
}

/// Formats a time in seconds for people, in its two largest units, such as `3h 12m`.
pub fn seconds_about(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn print(amount: u64, units: &[(&str, u64)], space: &str) -> String {
    let fits = |(_, factor): &&(&str, u64)| amount.is_multiple_of(*factor);
    let smallest = units[units.len() - 1];
    let (unit, factor) = if amount == 0 { smallest } else { *units.iter().find(fits).unwrap_or(&smallest) };
    format!("{}{space}{unit}", amount / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatted_durations_sizes_and_rates_parse_back() {
        for millis in [0, 1, 500, 1_000, 90_000, 86_400_000, 604_800_000, u64::MAX] {
            let length = Duration::from_millis(millis);
            assert_eq!(parse_duration(&duration_text(length)), Some(length));
            assert_eq!(parse_bytes(&bytes_text(millis)), Some(millis));
        }
        for text in ["1/h", "600/m", "1000000/s"] {
            assert_eq!(Rate::parse(text).map(|rate| rate.to_string()).as_deref(), Some(text));
        }
        assert_eq!(duration_text(Duration::from_secs(300)), "5m");
        assert_eq!(bytes_text(64 << 20), "64 MiB");
        assert_eq!([0, 1023, 1536, 20 << 30].map(bytes_about), ["0 B", "1023 B", "1.5 KiB", "20.0 GiB"]);
        assert_eq!([0, 59, 61, 3700, 90_000].map(seconds_about), ["0s", "59s", "1m 1s", "1h 1m", "1d 1h"]);
    }

    #[test]
    fn amounts_need_a_unit_and_stay_in_range() {
        for text in ["", "5", "m", "5 minutes", "-5s", "1.5h", "18446744073709551615d", "99999999999999999999s", "5ß"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_bytes("16777216 TiB"), None);
        for text in ["", "5", "/s", "0/s", "+5/s", "5/d", "5 / s", "1000001/s", "99999999999/m"] {
            assert_eq!(Rate::parse(text), None, "{text}");
        }
    }
}

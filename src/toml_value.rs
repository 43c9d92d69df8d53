//! TOML values with their positions. A method that finds a mistake reports the mistake and returns `None`, as if the key were
//! absent. Reading then continues, so one pass finds every mistake. The configuration and the recipes use these types.
//!
//! This module contains no names of keys. Messages never repeat a string that hookhold cannot parse, because an operator may
//! have put a secret in the wrong place. Messages do show numbers. They also show durations and sizes that are out of range.

mod reference;
mod table;

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use jiff::civil;
use jiff::tz::TimeZone;
use toml::value::Datetime;

use crate::clock::UnixMillis;
use crate::diagnostic::did_you_mean;
pub use crate::diagnostic::{Diagnostic, Diagnostics, Location};
use crate::units::{Rate, bytes_text, duration_text, parse_bytes, parse_duration};
use reference::TomlText;
pub use table::TomlTable;

/// One TOML value and its position in the file. Methods such as [`Item::string`] read the value as one type, and report a
/// mistake if the value has another type.
#[derive(Clone)]
pub struct Item {
    /// Position of the value in the file.
    pub location: Location,
    value: TomlValue,
}

#[derive(Clone)]
enum TomlValue {
    String(TomlText),
    /// Value of the integer, or `None` for an integer beyond 128 bits. No method accepts such an integer.
    Integer(Option<i128>),
    Float,
    Boolean(bool),
    Date(Datetime),
    Array(Vec<Item>),
    Table(TomlTable),
}

impl Item {
    /// Returns the string, or `None` without a report if the value has another type. Options that accept several types use this
    /// method. For a reference such as `"env:NAME"`, returns the text that it stands for. If there is no such text, reports the
    /// reason and returns `None`.
    pub fn as_str(&self) -> Option<&str> {
        if let TomlValue::String(text) = &self.value { text.resolved(&self.location) } else { None }
    }

    /// Returns the string as the file contains it, even if it is a reference. Options that follow references themselves, such as
    /// secrets, use this method. Returns `None` without a report if the value has another type.
    pub fn as_written(&self) -> Option<&str> {
        if let TomlValue::String(text) = &self.value { Some(&text.written) } else { None }
    }

    /// Returns the boolean, or `None` without a report if the value has another type.
    pub fn as_bool(&self) -> Option<bool> {
        if let TomlValue::Boolean(on) = self.value { Some(on) } else { None }
    }

    /// Returns true if the value is a table.
    pub fn is_table(&self) -> bool {
        matches!(self.value, TomlValue::Table(_))
    }

    /// Returns the string. If the value has another type, reports the mistake and returns `None`.
    pub fn string(self) -> Option<String> {
        self.string_as("a string")
    }

    /// Returns the string. If the value has another type, reports the mistake and returns `None`. `expected` describes the
    /// string in the report.
    pub fn string_as(self, expected: &str) -> Option<String> {
        self.as_str().map(str::to_owned).or_else(|| self.mismatch(expected))
    }

    /// Reads a string and returns the result of `parse`. If the value is not a string, or `parse` rejects the string, reports
    /// the mistake and returns `None`.
    pub fn parse<T>(&self, expected: impl fmt::Display, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.as_str().and_then(parse).or_else(|| self.unexpected(expected))
    }

    /// Reads a path. A relative path is relative to the directory of the file that contains the value.
    pub fn path(self) -> Option<PathBuf> {
        let location = self.location.clone();
        self.string().map(|path| location.resolve(path))
    }

    /// Reads a string, an integer or a boolean as text, for options whose types another library checks.
    pub fn scalar(self) -> Option<String> {
        match &self.value {
            TomlValue::String(_) => self.string(),
            TomlValue::Integer(Some(number)) => Some(number.to_string()),
            TomlValue::Boolean(on) => Some(on.to_string()),
            _ => self.mismatch("a string, an integer or a boolean"),
        }
    }

    /// Reads a time of expiry: a date, or an exact time with its offset from UTC. A date means the end of that day in UTC.
    pub fn end(self) -> Option<UnixMillis> {
        let TomlValue::Date(date) = &self.value else { return self.mismatch(A_DATE) };
        let Some(end) = end_of(date) else { return self.expected(A_DATE, "a time without an offset or a date out of range") };
        Some(UnixMillis(end.as_millisecond().max(0) as u64))
    }

    /// Reads a boolean.
    pub fn boolean(self) -> Option<bool> {
        if let TomlValue::Boolean(on) = self.value { Some(on) } else { self.mismatch("true or false") }
    }

    /// Reads an integer within `range`.
    pub fn integer(self, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        let within = |number: i128| u64::try_from(number).ok().filter(|number| range.contains(number));
        match self.value {
            TomlValue::Integer(Some(number)) => within(number).or_else(|| self.expected(expected, number)),
            TomlValue::Integer(None) => self.expected(expected, "a larger integer"),
            _ => self.mismatch(expected),
        }
    }

    /// Reads a duration such as `"500ms"`, `"8s"`, `"5m"`, `"12h"` or `"7d"` within `range`.
    pub fn duration(self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let (low, high) = (duration_text(*range.start()), duration_text(*range.end()));
        let expected = format!("a duration from \"{low}\" to \"{high}\" in ms, s, m, h or d");
        self.amount(expected, parse_duration, |length| range.contains(length))
    }

    /// Reads a number of bytes such as `"64 KiB"` or `"20 GiB"` within `range`.
    pub fn bytes(self, range: RangeInclusive<u64>) -> Option<u64> {
        let (low, high) = (bytes_text(*range.start()), bytes_text(*range.end()));
        let expected = format!("a size from \"{low}\" to \"{high}\" in B, KiB, MiB, GiB or TiB");
        self.amount(expected, parse_bytes, |size| range.contains(size))
    }

    /// Reads a rate such as `"100/s"` or `"600/m"`.
    pub fn rate(self) -> Option<Rate> {
        let expected = format!("a rate from \"1/h\" to \"{}/s\", per s, m or h", Rate::MOST);
        self.parse(expected, Rate::parse)
    }

    /// Reads a string that is one of the words in `choices`, and returns the value paired with this word.
    pub fn one_of<T: Copy>(self, choices: &[(&str, T)]) -> Option<T> {
        let word = self.as_str();
        if let Some((_, meaning)) = choices.iter().find(|(choice, _)| Some(*choice) == word) {
            return Some(*meaning);
        }
        let words = || choices.iter().map(|(choice, _)| *choice);
        let found = word.map_or(self.kind().to_owned(), |word| format!("an invalid string{}", did_you_mean(word, words())));
        let quoted: Vec<String> = words().map(|word| format!("\"{word}\"")).collect();
        self.expected(alternatives(&quoted), found)
    }

    /// Returns the items of an array. A value that is not an array counts as an array of one item.
    pub fn list(self) -> Vec<Item> {
        if let TomlValue::Array(items) = self.value { items } else { vec![self] }
    }

    /// Returns the table. If the value has another type, reports the mistake and returns `None`.
    pub fn table(self) -> Option<TomlTable> {
        if let TomlValue::Table(table) = self.value { Some(table) } else { self.mismatch("a table") }
    }

    /// Adds a diagnostic that the value has the wrong type or is an invalid string, and returns `None`. The message does not
    /// show the value.
    pub fn unexpected<T>(&self, expected: impl fmt::Display) -> Option<T> {
        self.expected(expected, self.as_written().map_or(self.kind(), |_| "an invalid string"))
    }

    /// Adds the diagnostic `expected X, found Y` and returns `None`. `found` may end with a semicolon and a remedy. Adds nothing about
    /// a reference that stands for no text, because that reason is reported already.
    pub fn expected<T>(&self, expected: impl fmt::Display, found: impl fmt::Display) -> Option<T> {
        match &self.value {
            TomlValue::String(text) if text.is_unresolved() => {}
            _ => self.location.expected(expected, found),
        }
        None
    }

    /// Adds the diagnostic `what` and returns `None`, for messages that do not fit `expected X, found Y`.
    pub fn reject<T>(&self, what: impl fmt::Display) -> Option<T> {
        self.location.report(what);
        None
    }

    fn amount<T>(&self, expected: String, parse: fn(&str) -> Option<T>, fits: impl Fn(&T) -> bool) -> Option<T> {
        match self.as_str().map(parse) {
            Some(Some(amount)) if fits(&amount) => Some(amount),
            Some(Some(_)) => self.expected(expected, self),
            _ => self.unexpected(expected),
        }
    }

    fn mismatch<T>(&self, expected: impl fmt::Display) -> Option<T> {
        self.expected(expected, self.kind())
    }

    /// Returns the name of the value's TOML type, with an article.
    fn kind(&self) -> &'static str {
        match &self.value {
            TomlValue::String(_) => "a string",
            TomlValue::Integer(_) => "an integer",
            TomlValue::Float => "a float",
            TomlValue::Boolean(_) => "a boolean",
            TomlValue::Date(_) => "a date",
            TomlValue::Array(_) => "an array",
            TomlValue::Table(_) => "a table",
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            TomlValue::String(text) => write!(f, "{:?}", text.written),
            TomlValue::Integer(number) => number.map_or(Ok(()), |number| write!(f, "{number}")),
            TomlValue::Float => f.write_str("a float"),
            TomlValue::Boolean(on) => write!(f, "{on}"),
            TomlValue::Date(date) => write!(f, "{date}"),
            TomlValue::Array(items) => {
                let items: Vec<String> = items.iter().map(Item::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
            TomlValue::Table(table) => write!(f, "{table}"),
        }
    }
}

/// Joins words into a list of alternatives, such as `a, b or c`.
fn alternatives(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn end_of(date: &Datetime) -> Option<jiff::Timestamp> {
    match date {
        Datetime { date: Some(date), time: None, offset: None } => {
            let day = civil::Date::new(i16::try_from(date.year).ok()?, date.month as i8, date.day as i8).ok()?;
            Some(day.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
        }
        Datetime { date: Some(_), time: Some(_), offset: Some(_) } => date.to_string().parse().ok(),
        _ => None,
    }
}

const A_DATE: &str = "a date such as 2027-01-01 or 2027-01-01T18:00:00Z";

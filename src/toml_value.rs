//! Walks TOML with the position of every value. A taker that meets a mistake notes it and returns `None`, as if the key
//! were absent, so one walk finds every mistake. Configuration and recipes are both read with it.
//!
//! It knows no key by name and never repeats a value it could not place: a secret in the wrong spot stays unprinted.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::civil;
use jiff::tz::TimeZone;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};
use toml::value::Datetime;

use crate::clock::UnixMillis;
use crate::diagnostic::nearest;
pub use crate::diagnostic::{Diagnostic, Diagnostics, Location};
use crate::units::{Rate, bytes_text, duration_text, parse_bytes, parse_duration};

/// One value and its place. The typed readers note a mistake when it is of another kind.
#[derive(Clone)]
pub struct Item {
    /// Where it stands.
    pub place: Location,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Text(String),
    /// `None` beyond 128 bits, which no reader takes.
    Number(Option<i128>),
    Switch(bool),
    Date(Datetime),
    List(Vec<Item>),
    TomlTable(TomlTable),
    Other(&'static str),
}

impl Item {
    /// The text, when this is one; a place for "text or table" entries to branch.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// True for a table.
    pub fn is_table(&self) -> bool {
        matches!(self.value, Value::TomlTable(_))
    }

    /// A text.
    pub fn text(self) -> Option<String> {
        if let Value::Text(text) = self.value { Some(text) } else { self.mismatch("a text in quotes") }
    }

    /// A text, number or switch, as text: for names whose kinds are somebody else's business.
    pub fn scalar(self) -> Option<String> {
        match self.value {
            Value::Text(text) => Some(text),
            Value::Number(Some(number)) => Some(number.to_string()),
            Value::Switch(on) => Some(on.to_string()),
            _ => self.mismatch("a text, a whole number, true or false"),
        }
    }

    /// A date, which counts to the end of its day in UTC, or a date and time with their offset: the moment that ends it.
    pub fn end(self) -> Option<UnixMillis> {
        let allowed = "a date such as 2027-01-01, or a date and time with their offset such as 2027-01-01T18:00:00Z";
        let Value::Date(date) = &self.value else { return self.mismatch(allowed) };
        let Some(end) = end_of(date) else { return self.refuse("not a moment", allowed) };
        Some(UnixMillis(end.as_millisecond().max(0) as u64))
    }

    /// `true` or `false`.
    pub fn switch(self) -> Option<bool> {
        if let Value::Switch(on) = self.value { Some(on) } else { self.mismatch("true or false") }
    }

    /// A whole number within `range`.
    pub fn number(self, range: RangeInclusive<u64>) -> Option<u64> {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        let within = |number: i128| u64::try_from(number).ok().filter(|number| range.contains(number));
        match self.value {
            Value::Number(number) => number.and_then(within).or_else(|| self.refuse("out of range", allowed)),
            _ => self.mismatch(allowed),
        }
    }

    /// A duration such as `"500ms"`, `"8s"`, `"5m"`, `"12h"`, `"7d"` within `range`.
    pub fn duration(self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let (low, high) = (duration_text(*range.start()), duration_text(*range.end()));
        let allowed = format!("\"{low}\" to \"{high}\", as a number with ms, s, m, h or d");
        self.measure(allowed, parse_duration, |length| range.contains(length))
    }

    /// A number of bytes such as `"64 KiB"` or `"20 GiB"` within `range`.
    pub fn bytes(self, range: RangeInclusive<u64>) -> Option<u64> {
        let (low, high) = (bytes_text(*range.start()), bytes_text(*range.end()));
        let allowed = format!("\"{low}\" to \"{high}\", as a number with B, KiB, MiB, GiB or TiB");
        self.measure(allowed, parse_bytes, |size| range.contains(size))
    }

    /// A rate such as `"100/s"` or `"600/m"`.
    pub fn rate(self) -> Option<Rate> {
        let allowed = format!("\"1/h\" to \"{}/s\", a whole number of deliveries per s, m or h", Rate::MOST);
        let Some(text) = self.as_str() else { return self.mismatch(allowed) };
        Rate::parse(text).or_else(|| self.refuse("not a rate", allowed))
    }

    /// One of the listed words, turned into what stands beside it.
    pub fn one_of<T: Copy>(self, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let Some(word) = self.as_str() else { return self.mismatch(words.join(", ")) };
        let found = choices.iter().find(|(choice, _)| *choice == word).map(|(_, meaning)| *meaning);
        if found.is_some() { found } else { self.refuse("not one of the words known here", words.join(", ")) }
    }

    /// A list; a single value stands for a list of one.
    pub fn list(self) -> Vec<Item> {
        if let Value::List(items) = self.value { items } else { vec![self] }
    }

    /// A table.
    pub fn table(self) -> Option<TomlTable> {
        if let Value::TomlTable(table) = self.value { Some(table) } else { self.mismatch("a table") }
    }

    /// Notes `what` and returns `None`: the last line of a reader that refuses its value.
    pub fn refuse<T>(&self, what: impl fmt::Display, allowed: impl fmt::Display) -> Option<T> {
        self.place.wrong(what, allowed);
        None
    }

    fn measure<T>(&self, allowed: String, parse: fn(&str) -> Option<T>, fits: impl Fn(&T) -> bool) -> Option<T> {
        let Some(text) = self.as_str() else { return self.mismatch(allowed) };
        match parse(text) {
            Some(amount) if fits(&amount) => Some(amount),
            Some(_) => self.refuse("out of range", allowed),
            None => self.refuse("not a number with a unit", allowed),
        }
    }

    fn mismatch<T>(&self, allowed: impl fmt::Display) -> Option<T> {
        let kind = match &self.value {
            Value::Text(_) => "a text",
            Value::Number(_) => "a number",
            Value::Switch(_) => "true or false",
            Value::Date(_) => "a date",
            Value::List(_) => "a list",
            Value::TomlTable(_) => "a table",
            Value::Other(kind) => kind,
        };
        self.refuse(format_args!("must not be {kind}"), allowed)
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Number(number) => number.map_or(Ok(()), |number| write!(f, "{number}")),
            Value::Switch(on) => write!(f, "{on}"),
            Value::Date(date) => write!(f, "{date}"),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(Item::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Value::TomlTable(table) => {
                let entries: Vec<String> = table.items.iter().map(|(key, item)| format!("{key} = {item}")).collect();
                write!(f, "{{ {} }}", entries.join(", "))
            }
            Value::Other(kind) => f.write_str(kind),
        }
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

/// One TOML table. Every `take_…` removes a key; [`TomlTable::finish`] calls what is left unknown.
#[derive(Clone)]
pub struct TomlTable {
    /// Where it begins.
    pub place: Location,
    items: Vec<(String, Item)>,
    asked: Vec<(String, Option<Location>)>,
}

impl TomlTable {
    /// A table without keys, for what is wrong with the file as a whole.
    pub fn empty(file: &str, mistakes: &Diagnostics) -> TomlTable {
        let place = Location { file: file.into(), line: 1, key: String::new(), mistakes: mistakes.clone() };
        TomlTable { place, items: Vec::new(), asked: Vec::new() }
    }

    /// Reads `text`, which is called `file` in every mistake. `None` when it is not TOML, which is then noted.
    pub fn parse(file: &str, text: &str, mistakes: &Diagnostics) -> Option<TomlTable> {
        let place = |line| Location { file: file.into(), line, key: String::new(), mistakes: mistakes.clone() };
        let lines = Lines::of(text);
        match DeTable::parse(text) {
            Ok(root) => Some(TomlTable::of(root.into_inner(), place(1), &lines)),
            Err(error) => {
                let line = error.span().map_or(1, |span| lines.at(span.start));
                place(line).wrong(format_args!("not TOML: {}", error.message()), "TOML 1.0");
                None
            }
        }
    }

    /// This table with `over` laid on top: its keys win, tables inside are merged likewise, and each value keeps its own
    /// file and line. A recipe is the base, the operator's entry is `over`.
    pub fn overlaid(mut self, over: TomlTable) -> TomlTable {
        self.place = over.place;
        for (key, item) in over.items {
            let below = self.take(&key);
            let merged = match (below.map(|item| item.value), item.value) {
                (Some(Value::TomlTable(base)), Value::TomlTable(over)) => Value::TomlTable(base.overlaid(over)),
                (_, value) => value,
            };
            self.items.push((key, Item { place: item.place, value: merged }));
        }
        self.asked = over.asked;
        self
    }

    /// The keys that have not been taken, in the order of the file.
    pub fn keys(&self) -> Vec<String> {
        self.items.iter().map(|(key, _)| key.clone()).collect()
    }

    /// Everything that has not been taken, tables inside flattened to dotted names: `bootstrap.servers = "x"` is one name.
    pub fn flatten(self) -> Vec<(String, Item)> {
        let flat = |(key, item): (String, Item)| match item.value {
            Value::TomlTable(inner) => inner.flatten().into_iter().map(|(rest, item)| (format!("{key}.{rest}"), item)).collect(),
            _ => vec![(key, item)],
        };
        self.items.into_iter().flat_map(flat).collect()
    }

    /// The value of `key`, whatever it is.
    pub fn take(&mut self, key: &str) -> Option<Item> {
        let at = self.items.iter().position(|(name, _)| name == key);
        let item = at.map(|at| self.items.remove(at).1);
        self.asked.push((key.to_owned(), item.as_ref().map(|item| item.place.clone())));
        item
    }

    /// The text of `key`.
    pub fn take_str(&mut self, key: &str) -> Option<String> {
        self.take(key)?.text()
    }

    /// The switch `key`.
    pub fn take_bool(&mut self, key: &str) -> Option<bool> {
        self.take(key)?.switch()
    }

    /// See [`Item::number`].
    pub fn take_u64(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.take(key)?.number(range)
    }

    /// See [`Item::duration`].
    pub fn take_duration(&mut self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.take(key)?.duration(range)
    }

    /// See [`Item::bytes`].
    pub fn take_bytes(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.take(key)?.bytes(range)
    }

    /// See [`Item::rate`].
    pub fn take_rate(&mut self, key: &str) -> Option<Rate> {
        self.take(key)?.rate()
    }

    /// See [`Item::one_of`].
    pub fn take_one_of<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.take(key)?.one_of(choices)
    }

    /// The items of the list `key`; a single value stands for a list of one. `None` when absent.
    pub fn take_list(&mut self, key: &str) -> Option<Vec<Item>> {
        Some(self.take(key)?.list())
    }

    /// The texts of the list `key`, those of another kind noted and left out. `None` when absent.
    pub fn take_strings(&mut self, key: &str) -> Option<Vec<String>> {
        Some(self.take_list(key)?.into_iter().filter_map(Item::text).collect())
    }

    /// The table `key`.
    pub fn take_table(&mut self, key: &str) -> Option<TomlTable> {
        self.take(key)?.table()
    }

    /// The table `key`; an empty one when it is absent or something else, so that defaults apply.
    pub fn take_section(&mut self, key: &str) -> TomlTable {
        let place = self.place.below(key);
        self.take_table(key).unwrap_or(TomlTable { place, items: Vec::new(), asked: Vec::new() })
    }

    /// Where `key` stands, taken or not; where the table begins when it is absent.
    pub fn place_of(&self, key: &str) -> Location {
        let left = self.items.iter().find(|(name, _)| name == key).map(|(_, item)| &item.place);
        let taken = self.asked.iter().filter(|(name, _)| name == key).find_map(|(_, place)| place.as_ref());
        left.or(taken).cloned().unwrap_or_else(|| self.place.below(key))
    }

    /// Notes a mistake about `key`, present or missing, taken or not.
    pub fn wrong(&self, key: &str, what: impl fmt::Display, allowed: impl fmt::Display) {
        self.place_of(key).wrong(what, allowed);
    }

    /// Notes every key that nobody asked for, with the nearest one that somebody did.
    pub fn finish(self) {
        let mut known: Vec<String> = self.asked.into_iter().map(|(key, _)| key).collect();
        known.sort();
        known.dedup();
        for (key, item) in &self.items {
            let hint = nearest(key, &known).map_or(String::new(), |near| format!(", did you mean {near}?"));
            item.place.wrong(format_args!("unknown key{hint}"), known.join(", "));
        }
    }

    fn of(raw: DeTable<'_>, place: Location, lines: &Lines) -> TomlTable {
        let entry = |(key, value): (Spanned<DeString<'_>>, _)| {
            let place = Location { line: lines.at(key.span().start), ..place.below(key.get_ref()) };
            (key.into_inner().into_owned(), item(value, place, lines))
        };
        TomlTable { items: raw.into_iter().map(entry).collect(), place: place.clone(), asked: Vec::new() }
    }
}

fn item(raw: Spanned<DeValue<'_>>, place: Location, lines: &Lines) -> Item {
    let value = match raw.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => Value::Number(i128::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Boolean(on) => Value::Switch(on),
        DeValue::Array(items) => Value::List(items.into_iter().enumerate().map(|(n, raw)| nth(n, raw, &place, lines)).collect()),
        DeValue::Table(table) => Value::TomlTable(TomlTable::of(table, place.clone(), lines)),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(date) => Value::Date(date),
    };
    Item { place, value }
}

fn nth(n: usize, raw: Spanned<DeValue<'_>>, list: &Location, lines: &Lines) -> Item {
    let place = Location { line: lines.at(raw.span().start), key: format!("{}[{n}]", list.key), ..list.clone() };
    item(raw, place, lines)
}

/// Turns byte offsets into line numbers.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Lines {
        Lines(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    fn at(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|end| *end < offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(text: &str, walk: impl FnOnce(&mut TomlTable)) -> Vec<String> {
        let mistakes = Diagnostics::default();
        let mut table = TomlTable::parse("a.toml", text, &mistakes).expect("the text is TOML");
        walk(&mut table);
        table.finish();
        mistakes.sorted().iter().map(Diagnostic::to_string).collect()
    }

    #[test]
    fn every_mistake_names_its_file_line_key_and_what_is_allowed() {
        let text = "listen = 7\nwait = \"5 fortnights\"\n\n[inner]\nsize = \"9 TiB\"\nlistn = true\n";
        let found = walk(text, |table| {
            assert_eq!(table.take_str("listen"), None);
            assert_eq!(table.take_duration("wait", Duration::ZERO..=Duration::from_secs(60)), None);
            let mut inner = table.take_table("inner").expect("the table is there");
            assert_eq!(inner.take_bytes("size", 1..=1 << 20), None);
            assert_eq!(inner.take_str("listen"), None);
            inner.finish();
        });
        assert_eq!(
            found,
            [
                "a.toml:1: listen: must not be a number; allowed: a text in quotes",
                "a.toml:2: wait: not a number with a unit; allowed: \"0ms\" to \"1m\", as a number with ms, s, m, h or d",
                "a.toml:5: inner.size: out of range; allowed: \"1 B\" to \"1 MiB\", as a number with B, KiB, MiB, GiB or TiB",
                "a.toml:6: inner.listn: unknown key, did you mean listen?; allowed: listen, size",
            ]
        );
    }

    #[test]
    fn text_that_is_not_toml_is_one_mistake_with_its_line() {
        let mistakes = Diagnostics::default();
        assert!(TomlTable::parse("a.toml", "a = 1\nb = \n", &mistakes).is_none());
        assert!(mistakes.to_string().starts_with("a.toml:2: not TOML: "), "{mistakes}");
    }

    #[test]
    fn an_overlay_wins_key_by_key_and_keeps_its_own_place() {
        let mistakes = Diagnostics::default();
        let base = TomlTable::parse("base.toml", "a = 1\n[t]\nx = 1\ny = 1\n", &mistakes).expect("the text is TOML");
        let over = TomlTable::parse("over.toml", "\n\nt.y = \"?\"\n", &mistakes).expect("the text is TOML");
        let mut both = base.overlaid(over);
        assert_eq!(both.take_u64("a", 0..=9), Some(1));
        let mut inner = both.take_table("t").expect("both have it");
        assert_eq!(inner.take_u64("x", 0..=9), Some(1));
        assert_eq!(inner.take_u64("y", 0..=9), None);
        assert_eq!(mistakes.to_string(), "over.toml:3: t.y: must not be a text; allowed: a whole number from 0 to 9");
    }

    #[test]
    fn dotted_and_quoted_names_flatten_alike() {
        let mistakes = Diagnostics::default();
        let table = TomlTable::parse("a.toml", "a.b.c = 1\n\"a.b.d\" = 2\n", &mistakes).expect("the text is TOML");
        let names: Vec<String> = table.flatten().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a.b.c", "a.b.d"]);
    }
}

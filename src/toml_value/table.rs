//! TOML tables. A reader of a table takes the known keys out one by one, so the keys that remain are unknown. hookhold reports
//! a misspelt key once and then reads the key as the nearest known key, so that one typo causes only one message.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::reference::TomlText;
use super::{Item, TomlValue, alternatives};
use crate::diagnostic::{Diagnostics, Location, nearest};
use crate::units::Rate;

/// One TOML table. Every `take_…` method removes a key, and [`TomlTable::finish`] reports the remaining keys.
#[derive(Clone)]
pub struct TomlTable {
    /// Position of the table's header.
    pub location: Location,
    items: Vec<(String, Item)>,
    asked: Vec<Asked>,
}

/// A key that a reader has tried to take from the table.
#[derive(Clone)]
struct Asked {
    key: String,
    /// Position of the key, or `None` if the key was absent.
    location: Option<Location>,
}

impl TomlTable {
    /// Parses `text` as TOML and passes the root table to `read`. If a pass finds misspelt keys, another pass reads them as the
    /// nearest known keys. Diagnostics show `file` as the name of the text.
    pub fn read<T>(file: &str, text: &str, read: impl Fn(TomlTable, &Diagnostics) -> T) -> Result<T, Diagnostics> {
        TomlTable::read_into(Diagnostics::default(), file, text, read)
    }

    /// Does the same as [`TomlTable::read`], and adds the diagnostics to an empty list.
    pub fn read_into<T>(
        diagnostics: Diagnostics,
        file: &str,
        text: &str,
        read: impl Fn(TomlTable, &Diagnostics) -> T,
    ) -> Result<T, Diagnostics> {
        loop {
            let value = TomlTable::parse(file, text, &diagnostics).map(|root| read(root, &diagnostics));
            if !diagnostics.read_again() {
                return value.filter(|_| diagnostics.is_empty()).ok_or(diagnostics);
            }
        }
    }

    /// Parses `text` as TOML and returns the root table. Reports text that is not TOML and returns `None`. Diagnostics show
    /// `file` as the name of the text.
    pub fn parse(file: &str, text: &str, diagnostics: &Diagnostics) -> Option<TomlTable> {
        let location = |line| Location { file: file.into(), line, key: String::new(), diagnostics: diagnostics.clone() };
        let lines = Lines::of(text);
        match DeTable::parse(text) {
            Ok(root) => Some(TomlTable::of(root.into_inner(), location(1), &lines)),
            Err(error) => {
                let line = error.span().map_or(1, |span| lines.at(span.start));
                location(line).report(foreign_format(file, text).unwrap_or_else(|| format!("not TOML: {}", error.message())));
                None
            }
        }
    }

    /// Merges `over` into this table. Values of `over` replace values with the same key, and inner tables are merged in the
    /// same way. Each value keeps its own file and line. For a source, this table is the recipe, and `over` is the operator's
    /// entry.
    pub fn overlaid(mut self, over: TomlTable) -> TomlTable {
        self.location = over.location;
        for (key, item) in over.items {
            let below = self.take(&key);
            let merged = match (below.map(|item| item.value), item.value) {
                (Some(TomlValue::Table(base)), TomlValue::Table(over)) => TomlValue::Table(base.overlaid(over)),
                (_, value) => value,
            };
            self.items.push((key, Item { location: item.location, value: merged }));
        }
        self.asked = over.asked;
        self
    }

    /// Returns the keys that no reader has taken, in the order of the file.
    pub fn keys(&self) -> Vec<String> {
        self.items.iter().map(|(key, _)| key.clone()).collect()
    }

    /// Returns all items that no reader has taken. An item of an inner table has a dotted name such as `bootstrap.servers`.
    pub fn flatten(self) -> Vec<(String, Item)> {
        let flat = |(key, item): (String, Item)| match item.value {
            TomlValue::Table(inner) => inner.flatten().into_iter().map(|(rest, item)| (format!("{key}.{rest}"), item)).collect(),
            _ => vec![(key, item)],
        };
        self.items.into_iter().flat_map(flat).collect()
    }

    /// Removes all of `keys` that are present and returns them as a table of their own, at the same position.
    pub fn split_off(&mut self, keys: &[&str]) -> TomlTable {
        let items = keys.iter().filter_map(|key| Some(((*key).to_owned(), self.take(key)?))).collect();
        TomlTable { location: self.location.clone(), items, asked: Vec::new() }
    }

    /// Removes `key` from the table and returns its value of any type, or `None` if the key is absent.
    pub fn take(&mut self, key: &str) -> Option<Item> {
        let at = self.items.iter().position(|(name, _)| name == key);
        let item = at.map(|at| self.items.remove(at).1);
        self.asked.push(Asked { key: key.to_owned(), location: item.as_ref().map(|item| item.location.clone()) });
        item
    }

    /// Removes `key` from the table and reads its value with [`Item::string`]. Returns `None` if the key is absent.
    pub fn take_str(&mut self, key: &str) -> Option<String> {
        self.take(key)?.string()
    }

    /// Removes `key` from the table and returns the path that its value names. A relative path is relative to the directory of the
    /// file. Returns `None` if the key is absent.
    pub fn take_path(&mut self, key: &str) -> Option<PathBuf> {
        self.take(key)?.path()
    }

    /// Removes `key` from the table and reads its value with [`Item::boolean`]. Returns `None` if the key is absent.
    pub fn take_bool(&mut self, key: &str) -> Option<bool> {
        self.take(key)?.boolean()
    }

    /// Removes `key` from the table and reads its value with [`Item::integer`]. Returns `None` if the key is absent.
    pub fn take_u64(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.take(key)?.integer(range)
    }

    /// Removes `key` from the table and reads its value with [`Item::duration`]. Returns `None` if the key is absent.
    pub fn take_duration(&mut self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.take(key)?.duration(range)
    }

    /// Removes `key` from the table and reads its value with [`Item::bytes`]. Returns `None` if the key is absent.
    pub fn take_bytes(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.take(key)?.bytes(range)
    }

    /// Removes `key` from the table and reads its value with [`Item::rate`]. Returns `None` if the key is absent.
    pub fn take_rate(&mut self, key: &str) -> Option<Rate> {
        self.take(key)?.rate()
    }

    /// Removes `key` from the table and reads its value with [`Item::one_of`]. Returns `None` if the key is absent.
    pub fn take_one_of<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.take(key)?.one_of(choices)
    }

    /// Removes `key` from the table and returns the items of its array, or `None` if the key is absent. A value that is not an
    /// array counts as an array of one item.
    pub fn take_list(&mut self, key: &str) -> Option<Vec<Item>> {
        Some(self.take(key)?.list())
    }

    /// Removes `key` from the table and returns the strings of its array, or `None` if the key is absent. Reports and omits
    /// items that are not strings.
    pub fn take_strings(&mut self, key: &str) -> Option<Vec<String>> {
        Some(self.take_list(key)?.into_iter().filter_map(Item::string).collect())
    }

    /// Removes `key` from the table and reads its value with [`Item::table`]. Returns `None` if the key is absent.
    pub fn take_table(&mut self, key: &str) -> Option<TomlTable> {
        self.take(key)?.table()
    }

    /// Removes `key` from the table and returns its inner table. Returns an empty table if the key is absent or its value is
    /// not a table, so that defaults apply.
    pub fn take_section(&mut self, key: &str) -> TomlTable {
        let location = self.location.below(key);
        self.take_table(key).unwrap_or(TomlTable { location, items: Vec::new(), asked: Vec::new() })
    }

    /// Returns the position of `key`, even after a reader has taken the key. If the key is absent, returns a position with the
    /// key's path and the table's line.
    pub fn location_of(&self, key: &str) -> Location {
        let left = self.items.iter().find(|(name, _)| name == key).map(|(_, item)| &item.location);
        let taken = self.asked.iter().filter(|asked| asked.key == key).find_map(|asked| asked.location.as_ref());
        left.or(taken).cloned().unwrap_or_else(|| self.location.below(key))
    }

    /// Returns true if no key in `keys` has a diagnostic. A check may then compare the values of these keys.
    pub fn accepts(&self, keys: &[&str]) -> bool {
        !keys.iter().any(|key| self.location_of(key).has_diagnostic())
    }

    /// Adds a diagnostic about `key`, as [`Location::report`] does. The key may be absent.
    pub fn report(&self, key: &str, what: impl fmt::Display) {
        self.location_of(key).report(what);
    }

    /// Adds the diagnostic `expected X, found Y` about `key`, as [`Location::expected`] does. The key may be absent.
    pub fn expected(&self, key: &str, expected: impl fmt::Display, found: impl fmt::Display) {
        self.location_of(key).expected(expected, found);
    }

    /// Adds a diagnostic that the required key `key` is absent. `expected` describes its value.
    pub fn missing(&self, key: &str, expected: impl fmt::Display) {
        self.expected(key, expected, "nothing");
    }

    /// Reports each remaining key as an unknown key, and suggests the nearest known key.
    pub fn finish(self) {
        let mut known: Vec<String> = self.asked.iter().map(|asked| asked.key.clone()).collect();
        known.sort();
        known.dedup();
        let mut claimed: Vec<&str> = Vec::new();
        for (key, Item { location, .. }) in &self.items {
            let near = nearest(key, &known);
            let meant = near.filter(|near| self.is_free(near, location) && !claimed.contains(near) && location.meant().is_none());
            claimed.extend(meant);
            location.unknown(unknown_key(near, &known), known.clone(), meant);
        }
    }

    /// Returns true if the file that contains the unknown key at `unknown` does not contain the valid key `key`.
    fn is_free(&self, key: &str, unknown: &Location) -> bool {
        let mut taken = self.asked.iter().filter(|asked| asked.key == key).filter_map(|asked| asked.location.as_ref());
        !taken.any(|location| location.file == unknown.file)
    }

    fn of(raw: DeTable<'_>, location: Location, lines: &Lines) -> TomlTable {
        let entry = |(key, value): (Spanned<DeString<'_>>, _)| {
            let location = Location { line: lines.at(key.span().start), ..location.below(key.get_ref()) };
            let name = location.meant().unwrap_or_else(|| key.into_inner().into_owned());
            (name, item(value, location, lines))
        };
        TomlTable { items: raw.into_iter().map(entry).collect(), location: location.clone(), asked: Vec::new() }
    }
}

impl fmt::Display for TomlTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: Vec<String> = self.items.iter().map(|(key, item)| format!("{key} = {item}")).collect();
        write!(f, "{{ {} }}", entries.join(", "))
    }
}

/// Returns the message about a text in YAML or JSON; `None` if the text looks like neither.
fn foreign_format(file: &str, text: &str) -> Option<String> {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#') && *line != "---")?;
    let is_yaml_key = |line: &str| {
        let name = line.split_once(':').filter(|(_, rest)| rest.is_empty() || rest.starts_with(' ')).map(|(name, _)| name);
        name.is_some_and(|name| {
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter))
        })
    };
    let ends_with = |ending: &str| file.to_ascii_lowercase().ends_with(ending);
    let format = match first {
        _ if is_yaml_key(first) || ends_with(".yaml") || ends_with(".yml") => "YAML",
        _ if first.starts_with('{') || ends_with(".json") => "JSON",
        _ => return None,
    };
    let remedy = "write sections and keys such as [server] and listen = \"0.0.0.0:8080\", or run `hookhold init`";
    Some(format!("expected TOML, found {format}; {remedy}"))
}

/// Returns the message about an unknown key. The message suggests the nearest known key, `near`. If no known key is near, the
/// message lists the known keys. Instead of more than [`FEW`] keys, the message names the file that explains every key.
fn unknown_key(near: Option<&str>, known: &[String]) -> String {
    let (expected, remedy) = match (near, known.len()) {
        (Some(near), _) => ("a known key".to_owned(), format!("did you mean {near}?")),
        (None, 0) => ("no key".to_owned(), "remove the key".to_owned()),
        (None, 1..=FEW) => (alternatives(known), "rename or remove the key".to_owned()),
        (None, _) => ("a known key".to_owned(), "see config/hookhold.toml and docs/recipes.md for every option".to_owned()),
    };
    format!("expected {expected}, found an unknown key; {remedy}")
}

fn item(raw: Spanned<DeValue<'_>>, location: Location, lines: &Lines) -> Item {
    let value = match raw.into_inner() {
        DeValue::String(text) => TomlValue::String(TomlText::new(text.into_owned())),
        DeValue::Integer(number) => TomlValue::Integer(i128::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Boolean(on) => TomlValue::Boolean(on),
        DeValue::Array(items) => {
            TomlValue::Array(items.into_iter().enumerate().map(|(n, raw)| nth(n, raw, &location, lines)).collect())
        }
        DeValue::Table(table) => TomlValue::Table(TomlTable::of(table, location.clone(), lines)),
        DeValue::Float(_) => TomlValue::Float,
        DeValue::Datetime(date) => TomlValue::Date(date),
    };
    Item { location, value }
}

fn nth(n: usize, raw: Spanned<DeValue<'_>>, array: &Location, lines: &Lines) -> Item {
    let location = Location { line: lines.at(raw.span().start), key: format!("{}[{n}]", array.key), ..array.clone() };
    item(raw, location, lines)
}

/// The offsets of the line breaks in a TOML text, for converting a byte offset into a line number.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Lines {
        Lines(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    fn at(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|end| *end < offset)
    }
}

/// Maximum number of known keys that a message about an unknown key lists.
const FEW: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Diagnostic;

    fn walk(text: &str, walk: impl Fn(&mut TomlTable)) -> Vec<String> {
        let read = |mut table: TomlTable, _: &Diagnostics| {
            walk(&mut table);
            table.finish();
        };
        let diagnostics = TomlTable::read("a.toml", text, read).expect_err("the text has mistakes");
        diagnostics.sorted().iter().map(Diagnostic::to_string).collect()
    }

    #[test]
    fn a_diagnostic_names_file_line_key_and_expected_value() {
        let text = "listen = 7\nwait = \"5 fortnights\"\n\n[inner]\nsize = \"9 TiB\"\nlistn = true\n";
        let found = walk(text, |table| {
            assert_eq!(table.take_str("listen"), None);
            assert_eq!(table.take_duration("wait", Duration::ZERO..=Duration::from_secs(60)), None);
            let mut inner = table.take_table("inner").expect("the text has [inner]");
            assert_eq!(inner.take_bytes("size", 1..=1 << 20), None);
            inner.take_bool("listen");
            inner.finish();
        });
        assert_eq!(
            found,
            [
                "a.toml:1: listen: expected a string, found an integer",
                "a.toml:2: wait: expected a duration from \"0ms\" to \"1m\" in ms, s, m, h or d, found an invalid string",
                "a.toml:5: inner.size: expected a size from \"1 B\" to \"1 MiB\" in B, KiB, MiB, GiB or TiB, found \"9 TiB\"",
                "a.toml:6: inner.listn: expected a known key, found an unknown key; did you mean listen?",
            ]
        );
    }

    #[test]
    fn a_misspelt_key_is_read_as_the_known_one() {
        let read = |table: &mut TomlTable| {
            if table.take_str("provider").is_none() {
                table.missing("provider", "a name");
            }
        };
        assert_eq!(
            walk("provder = \"a\"", read),
            ["a.toml:1: provder: expected a known key, found an unknown key; did you mean provider?"]
        );
        let misspelt_and_wrong = walk("provder = 7", |table| drop(table.take_str("provider")));
        assert_eq!(misspelt_and_wrong, ["a.toml:1: provder: expected a known key, found an unknown key; did you mean provider?"]);
        let twice = [
            "a.toml:1: provder: expected a known key, found an unknown key; did you mean provider?",
            "a.toml:2: proviner: expected a known key, found an unknown key; did you mean provider?",
        ];
        assert_eq!(walk("provder = \"a\"\nproviner = \"b\"", read), twice);
        let both = ["a.toml:1: provder: expected a known key, found an unknown key; did you mean provider?"];
        assert_eq!(walk("provder = \"a\"\nprovider = \"b\"", read), both);
        let far = [
            "a.toml:1: provider: expected a name, found nothing",
            "a.toml:1: title: expected provider, found an unknown key; rename or remove the key",
        ];
        assert_eq!(walk("title = \"a\"", read), far);
    }

    #[test]
    fn invalid_toml_gives_one_diagnostic_with_its_line() {
        let diagnostics = Diagnostics::default();
        assert!(TomlTable::parse("a.toml", "a = 1\nb = \n", &diagnostics).is_none());
        assert!(diagnostics.to_string().starts_with("a.toml:2: not TOML: "), "{diagnostics}");
    }

    #[test]
    fn an_overlay_wins_by_key_and_keeps_locations() {
        let diagnostics = Diagnostics::default();
        let base = TomlTable::parse("base.toml", "a = 1\n[t]\nx = 1\ny = 1\n", &diagnostics).expect("the text is TOML");
        let over = TomlTable::parse("over.toml", "\n\nt.y = \"?\"\n", &diagnostics).expect("the text is TOML");
        let mut both = base.overlaid(over);
        assert_eq!(both.take_u64("a", 0..=9), Some(1));
        let mut inner = both.take_table("t").expect("both texts have t");
        assert_eq!(inner.take_u64("x", 0..=9), Some(1));
        assert_eq!(inner.take_u64("y", 0..=9), None);
        assert_eq!(diagnostics.to_string(), "over.toml:3: t.y: expected an integer from 0 to 9, found a string");
    }

    #[test]
    fn dotted_and_quoted_names_flatten_alike() {
        let diagnostics = Diagnostics::default();
        let table = TomlTable::parse("a.toml", "a.b.c = 1\n\"a.b.d\" = 2\n", &diagnostics).expect("the text is TOML");
        let names: Vec<String> = table.flatten().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a.b.c", "a.b.d"]);
    }
}

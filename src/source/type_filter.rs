//! Compiles the list of event types that a source stores, such as `types = ["invoice.paid", "customer.*"]`.

use std::fmt;

use crate::toml_value::{Item, TomlTable};

/// A filter over event types. The default filter accepts every type.
#[derive(Clone, Debug, Default)]
pub struct TypeFilter(Vec<TypePattern>);

/// One event type, or all event types that begin with the same characters.
#[derive(Clone, Debug)]
pub(super) enum TypePattern {
    Exactly(String),
    StartsWith(String),
}

impl TypeFilter {
    /// Takes the option `types` out of `table` and returns the filter that the option describes. If the option is absent,
    /// returns a filter that accepts every type.
    pub(super) fn take(table: &mut TomlTable) -> TypeFilter {
        let Some(items) = table.take_list("types") else { return TypeFilter::default() };
        if items.is_empty() {
            table.expected("types", EXPECTED, "an empty array; remove types to store every type");
        }
        TypeFilter(items.into_iter().filter_map(pattern).collect())
    }

    /// Returns a filter that accepts one event type, or all event types that begin with the characters before a final `*`. Returns
    /// `None` if the text is empty, or contains a `*` before its last character.
    pub fn of_pattern(text: &str) -> Option<TypeFilter> {
        TypePattern::parse(text).map(|pattern| TypeFilter(vec![pattern]))
    }

    /// Returns true if the filter accepts the event type. An empty filter accepts every type. Also returns true if `event_type`
    /// is `None`: a delivery without a readable type could be a wanted event, so hookhold must not drop such a delivery.
    pub fn accepts(&self, event_type: Option<&str>) -> bool {
        let Some(event_type) = event_type else { return true };
        self.accepts_all() || self.0.iter().any(|pattern| pattern.matches(event_type))
    }

    /// Returns true if the filter accepts every event type.
    pub fn accepts_all(&self) -> bool {
        self.0.is_empty()
    }
}

impl TypePattern {
    /// Reads a pattern. Returns `None` if the text is empty, or contains a `*` before its last character.
    pub(super) fn parse(text: &str) -> Option<TypePattern> {
        match text.strip_suffix('*') {
            _ if text.is_empty() => None,
            Some(prefix) if !prefix.contains('*') => Some(TypePattern::StartsWith(prefix.to_owned())),
            None if !text.contains('*') => Some(TypePattern::Exactly(text.to_owned())),
            _ => None,
        }
    }

    /// Returns true if the pattern matches the event type.
    pub(super) fn matches(&self, event_type: &str) -> bool {
        match self {
            TypePattern::Exactly(wanted) => event_type == wanted,
            TypePattern::StartsWith(prefix) => event_type.starts_with(prefix),
        }
    }

    /// Returns true if the pattern matches every event type that `other` matches.
    pub(super) fn includes(&self, other: &TypePattern) -> bool {
        match (self, other) {
            (TypePattern::Exactly(_), TypePattern::StartsWith(_)) => false,
            (_, TypePattern::Exactly(text) | TypePattern::StartsWith(text)) => self.matches(text),
        }
    }
}

impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TypePattern::Exactly(wanted) => write!(f, "{wanted}"),
            TypePattern::StartsWith(prefix) => write!(f, "{prefix}*"),
        }
    }
}

fn pattern(item: Item) -> Option<TypePattern> {
    let text = item.clone().string_as(EXPECTED)?;
    let found = if text.is_empty() { "an empty string" } else { "a * that is not the last character" };
    TypePattern::parse(&text).or_else(|| item.expected(EXPECTED, found))
}

const EXPECTED: &str = "an event type such as \"invoice.paid\", \"invoice.*\" or \"*\"";

//! Compiles the list of event types that a source stores, such as `types = ["invoice.paid", "customer.*"]`.

use crate::toml_value::{Item, TomlTable};

/// A filter over event types. The default filter accepts every type.
#[derive(Clone, Debug, Default)]
pub struct TypeFilter(Vec<TypePattern>);

#[derive(Clone, Debug)]
enum TypePattern {
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
    fn matches(&self, event_type: &str) -> bool {
        match self {
            TypePattern::Exactly(wanted) => event_type == wanted,
            TypePattern::StartsWith(prefix) => event_type.starts_with(prefix),
        }
    }
}

fn pattern(item: Item) -> Option<TypePattern> {
    let text = item.clone().string_as(EXPECTED)?;
    match text.strip_suffix('*') {
        _ if text.is_empty() => item.expected(EXPECTED, "an empty string"),
        Some(prefix) if !prefix.contains('*') => Some(TypePattern::StartsWith(prefix.to_owned())),
        None if !text.contains('*') => Some(TypePattern::Exactly(text)),
        _ => item.expected(EXPECTED, "a * that is not the last character"),
    }
}

const EXPECTED: &str = "an event type such as \"invoice.paid\", \"invoice.*\" or \"*\"";

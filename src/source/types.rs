//! Which event types a source wants: `types = ["invoice.paid", "customer.*"]`, compiled once.

use crate::toml_value::{Item, TomlTable};

/// The wanted event types of a source. The default wants all.
#[derive(Clone, Debug, Default)]
pub struct Types(Vec<Pattern>);

#[derive(Clone, Debug)]
enum Pattern {
    Exactly(String),
    BeginsWith(String),
}

impl Types {
    /// Takes the list `types`, if there is one.
    pub(super) fn take(table: &mut TomlTable) -> Types {
        let Some(items) = table.take_list("types") else { return Types::default() };
        if items.is_empty() {
            table.wrong("types", "an empty list wants nothing", ALLOWED);
        }
        Types(items.into_iter().filter_map(pattern).collect())
    }

    /// True without a list, or when the list has this type. A delivery whose type cannot be told is wanted: it cannot be
    /// judged, and what is filtered is gone.
    pub fn want(&self, event_type: Option<&str>) -> bool {
        let Some(event_type) = event_type else { return true };
        self.want_all() || self.0.iter().any(|pattern| pattern.fits(event_type))
    }

    /// True when no delivery can be filtered.
    pub fn want_all(&self) -> bool {
        self.0.is_empty()
    }
}

impl Pattern {
    fn fits(&self, event_type: &str) -> bool {
        match self {
            Pattern::Exactly(wanted) => event_type == wanted,
            Pattern::BeginsWith(prefix) => event_type.starts_with(prefix),
        }
    }
}

fn pattern(item: Item) -> Option<Pattern> {
    let text = item.clone().text()?;
    match text.strip_suffix('*') {
        _ if text.is_empty() => item.refuse("not an event type", ALLOWED),
        Some(prefix) if !prefix.contains('*') => Some(Pattern::BeginsWith(prefix.to_owned())),
        None if !text.contains('*') => Some(Pattern::Exactly(text)),
        _ => item.refuse("a * stands for the rest of a type, so only at its end", ALLOWED),
    }
}

const ALLOWED: &str =
    "event types as the provider names them, such as \"invoice.paid\", \"invoice.*\" or \"*\"; leave it out to want all";

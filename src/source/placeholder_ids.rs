//! Compiles the list of placeholders that a provider sends instead of an event id, such as
//! `event.placeholder_ids = ["evt_test"]`. All test events that the provider's dashboard sends have the same placeholder, so it
//! cannot identify duplicates.

use crate::toml_value::{Item, TomlTable};

/// The placeholders of a recipe. Most recipes have none.
#[derive(Clone, Debug, Default)]
pub struct PlaceholderIds(Vec<IdPattern>);

#[derive(Clone, Debug)]
enum IdPattern {
    Exactly(String),
    EndsWith(String),
}

impl PlaceholderIds {
    /// Takes the list `placeholder_ids` out of the section `event`. `has_id` is true if the recipe names an event id.
    pub(super) fn take(event: &mut TomlTable, has_id: bool) -> PlaceholderIds {
        let Some(items) = event.take_list(KEY) else { return PlaceholderIds::default() };
        if items.len() > MAX_PLACEHOLDERS {
            event.expected(KEY, format_args!("at most {MAX_PLACEHOLDERS} ids"), format_args!("{}; remove some", items.len()));
        }
        if !items.is_empty() && !has_id {
            event.expected(KEY, "a recipe with event.id", "a recipe without it; add event.id or remove this list");
        }
        PlaceholderIds(items.into_iter().filter_map(pattern).collect())
    }

    /// Returns true if the recipe has no placeholders.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if `id` is a placeholder. The fields of the id are joined with dots.
    pub fn contains(&self, id: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(id))
    }
}

impl IdPattern {
    fn matches(&self, id: &str) -> bool {
        match self {
            IdPattern::Exactly(placeholder) => id == placeholder,
            IdPattern::EndsWith(suffix) => id.ends_with(suffix),
        }
    }
}

fn pattern(item: Item) -> Option<IdPattern> {
    let text = item.clone().string_as(EXPECTED)?;
    match text.strip_prefix('*') {
        _ if text.is_empty() || text == "*" => item.expected(EXPECTED, "a pattern that every id matches"),
        Some(suffix) if !suffix.contains('*') => Some(IdPattern::EndsWith(suffix.to_owned())),
        None if !text.contains('*') => Some(IdPattern::Exactly(text)),
        _ => item.expected(EXPECTED, "a * that is not the first character"),
    }
}

const KEY: &str = "placeholder_ids";
/// Maximum number of placeholders of a recipe, because hookhold compares the id of each event with all of them.
const MAX_PLACEHOLDERS: usize = 32;
const EXPECTED: &str = "an id such as \"evt_test\", or \"*_test\" for all ids that end with _test";

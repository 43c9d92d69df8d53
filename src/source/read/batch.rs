//! Reads the parameters of a batch: the array with the events of a delivery, and the options that split it.

use std::ops::RangeInclusive;

use super::locator::LocatorParser;
use crate::source::pointers::is_array_pointer;
use crate::source::recipe::{Choice, EventArray, Locator};
use crate::toml_value::TomlTable;

/// Takes the pointer `event.batch` and the options `split` and `max_items`. From now on, the JSON pointers that `locators` reads
/// are relative to an item, until the caller resets [`LocatorParser::in_item`]. Returns `None` if the recipe has no batch.
pub(super) fn take(table: &mut TomlTable, event: &mut TomlTable, locators: &mut LocatorParser) -> Option<EventArray> {
    let pointer = event.take("batch");
    let split = table.take_bool("split").unwrap_or(false);
    let max_items = table.take_u64("max_items", MAX_ITEMS).map(|most| most as usize);
    let Some(pointer) = pointer else {
        let found = "a recipe without event.batch; add event.batch or remove this option";
        let unusable = [("split", split), ("max_items", max_items.is_some())];
        unusable.iter().filter(|(_, is_set)| *is_set).for_each(|(key, _)| table.expected(key, RECIPE, found));
        return None;
    };
    locators.in_item = true;
    let max_items = max_items.unwrap_or(EventArray::DEFAULT_MAX_ITEMS);
    locators.batch = pointer.parse(POINTER, |text| is_array_pointer(text).then(|| text.to_owned()));
    Some(EventArray { split, max_items })
}

/// Reports an event id without a value from inside the item, because all items of a delivery would then have the same id.
pub(super) fn check_id(event: &TomlTable, batch: Option<EventArray>, id: &Choice) {
    let is_shared = |fields: &Vec<Locator>| !fields.iter().any(|locator| matches!(locator, Locator::Item(_)));
    if batch.is_some() && id.0.iter().any(is_shared) {
        let found = "an alternative without it; add json:/POINTER to each alternative";
        event.expected("id", "json:/POINTER in each alternative, because each item of a batch has its own id", found);
    }
}

const MAX_ITEMS: RangeInclusive<u64> = 1..=100_000;
const RECIPE: &str = "a recipe with event.batch";
const POINTER: &str = "a JSON pointer to an array such as \"/events\", or \"\" for the whole body";
